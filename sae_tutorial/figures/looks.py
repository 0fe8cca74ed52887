"""Colour, dash and marker of each method, the same in every figure: one hue for a family of methods, and within it a
dash and a marker of its own for each member."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sae_tutorial.figures.style import PALETTE, TEXT

BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY, YELLOW = PALETTE


class Look(NamedTuple):
    """How one method is drawn: colour, dash of its line, symbol of its markers."""

    colour: str
    dash: str = "solid"
    marker: str = "circle"


# What the methods of the grid are called in figures and tables, in the order in which they are shown.
NAMES = {
    "relu": "ReLU + L1",
    "gated": "Gated",
    "jumprelu": "JumpReLU",
    "token_choice": "Token Choice",
    "gradient_choice": "Gradient Choice",
    "matryoshka": "Matryoshka",
    "mutual_choice": "Mutual Choice",
    "relative": "Mutual Choice, relative",
    "floor": "Mutual Choice, floor",
    "relative_floor": "Mutual Choice, relative, floor",
    "relative_floor_zipf": "Mutual Choice, relative, Zipf floor",
    "relative_aux_zipf": "Mutual Choice, relative, aux_zipf",
    "feature_choice_uniform": "Feature Choice, uniform",
    "feature_choice_zipf": "Feature Choice, Zipf",
    "feature_choice_fitted": "Feature Choice, fitted",
    "feature_choice_relative": "Feature Choice, relative",
    "feature_choice_after_mutual": "Mutual Choice, then Feature Choice",
    "mutual_choice_twice": "Mutual Choice, twice",
    "token_choice_twice": "Token Choice, twice",
    "dictionary_learning_topk": "dictionary_learning TopK",
    "saelens_topk": "SAELens TopK",
    "dictionary_learning_batchtopk": "dictionary_learning BatchTopK",
    "saelens_batchtopk": "SAELens BatchTopK",
}

# By the names of NAMES, and those of the lessons' own autoencoders and baselines.
LOOKS = {
    "Token Choice": Look(BLUE),
    "Token Choice, twice": Look(BLUE, "dash", "circle-open"),
    "Gradient Choice": Look(BLUE, "longdash", "cross"),
    "dictionary_learning TopK": Look(BLUE, "dot", "hexagon"),
    "SAELens TopK": Look(BLUE, "dashdot", "hexagon-open"),
    "Mutual Choice": Look(ORANGE, "solid", "square"),
    "Mutual Choice, twice": Look(ORANGE, "dash", "square-cross"),
    "Token Choice, reference": Look(BLUE, "dash", "hexagon2-open"),
    "Mutual Choice, reference": Look(ORANGE, "dash", "square-open"),
    "Mutual Choice, no help": Look(ORANGE, "dot", "square-open"),
    "Mutual Choice, aux_k": Look(ORANGE, "solid", "square-x"),
    "Mutual Choice, aux_zipf": Look(PINK, "solid", "diamond"),
    "Mutual Choice, relative": Look(PINK, "solid", "pentagon"),
    "Mutual Choice, floor": Look(ORANGE, "longdash", "hourglass"),
    "Mutual Choice, relative, floor": Look(PINK, "dash", "star-diamond"),
    "Mutual Choice, relative, Zipf floor": Look(PINK, "dot", "star-triangle-up"),
    "Mutual Choice, relative, aux_zipf": Look(PINK, "dashdot", "diamond-tall"),
    "Matryoshka": Look(SKY, "solid", "hexagon2"),
    "Matryoshka, reference": Look(SKY, "dash", "hexagram-open"),
    "dictionary_learning BatchTopK": Look(ORANGE, "dot", "pentagon"),
    "SAELens BatchTopK": Look(ORANGE, "dashdot", "star-square"),
    "Feature Choice": Look(GREEN, "solid", "triangle-up"),
    "Feature Choice, Zipf": Look(GREEN, "solid", "triangle-ne"),
    "Feature Choice, uniform": Look(GREEN, "dash", "triangle-down"),
    "Feature Choice, fitted": Look(GREEN, "dot", "triangle-left"),
    "Feature Choice, relative": Look(GREEN, "dashdot", "triangle-sw"),
    "Feature Choice, reference": Look(GREEN, "dash", "triangle-up-open"),
    "Mutual Choice, then Feature Choice": Look(GREEN, "dashdot", "triangle-right"),
    "ReLU + L1": Look(VERMILION, "solid", "x"),
    "Gated": Look(VERMILION, "dash", "cross"),
    "JumpReLU": Look(VERMILION, "dot", "x-open"),
    "ReLU, L1 0.1": Look(VERMILION, "solid", "circle"),
    "ReLU, L1 0.03": Look(VERMILION, "dash", "square"),
    "ReLU, L1 0.01": Look(VERMILION, "dot", "diamond"),
    "ReLU, L1 0": Look(VERMILION, "dashdot", "x"),
    "PCA": Look(SKY, "solid", "circle"),
    "PCA, non-negative": Look(SKY, "dot", "circle-open"),
    "PCA, 32 largest": Look(SKY, "dash", "circle-x"),
    "stream coordinates": Look(VERMILION, "dashdot", "diamond-open"),
    "frozen decoder": Look(GREY, "dash", "cross"),
    "supervised": Look(PINK, "solid", "star"),
    "SAE of the output": Look(VERMILION, "longdash", "square"),
    "transcoder": Look(BLUE, "solid", "diamond"),
    "with a skip path": Look(SKY, "dash", "diamond-open"),
    "by Mutual Choice": Look(ORANGE, "solid", "triangle-up"),
    "by Mutual Choice, skip path": Look(PINK, "dash", "triangle-up-open"),
}
OTHERS = (BLUE, ORANGE, GREEN, VERMILION, PINK, SKY)  # for what has no look of its own, in this order


def look(name: str) -> Look:
    """The look of a method, by its name in figures or in the grid. Raises KeyError for one that has none."""
    return LOOKS[NAMES.get(name, name)]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name in one figure. Those without one of their own take the colours that are left, in turn, and
    what is random is grey and dotted."""
    names = list(dict.fromkeys(names))
    found = {name: look(name) for name in names if NAMES.get(name, name) in LOOKS}
    found |= {name: Look(TEXT, "dot") for name in names if name.startswith("random")}
    free = [colour for colour in OTHERS if colour not in {one.colour for one in found.values()}] or list(OTHERS)
    others = [name for name in names if name not in found]
    dashes = ("solid", "dash", "dot", "dashdot")
    looked = {name: Look(free[i % len(free)], dashes[i // len(free) % 4]) for i, name in enumerate(others)}
    return found | looked
