"""Exercises of the gallery's notebooks on training: which weights learn, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# SGD-SaI: the signal-to-noise ratio of a tensor's gradient.


def check_ratio(answer: Any) -> Verdict:
    """`answer(g)`: a gradient of any shape -> its norm over its standard deviation, and 0 for a single entry."""
    g = torch.tensor([[3.0, -1.0, 2.0], [0.0, 1.0, -4.0]])
    norm, std = g.norm(), g.std()
    wrong = {
        "the usual ratio has the mean above; here it is the norm": g.mean() / std,
        "the mean's size is not the norm: take the root of the sum of squares": g.abs().mean() / std,
        "that is the square: take the root of the sum of squares": norm**2 / std,
        "that divides by the variance; the standard deviation is its root": norm / std**2,
        "upside down: the norm stands above": std / norm,
        "the root of the *mean* of squares is not the norm; do not divide by the number of entries": (
            norm / g.numel() ** 0.5 / std
        ),
        "the standard deviation here divides by n − 1, as torch does": norm / g.std(correction=0),
    }
    tests = [
        *numbers_like(
            lambda answer: answer(g.clone()),
            solution_ratio(g),
            wrong,
            "return one number",
            f"it should be {float(solution_ratio(g)):.3f}; yours says {{0:.3f}}",
        ),
        *numbers_like(
            lambda answer: answer(torch.ones(1)), 0.0, {}, "return one number", "a tensor with a single entry gets 0"
        ),
    ]
    hints = (
        "Norm and standard deviation are those of all entries, whatever the shape: g.norm() and g.std().",
        "g.std() of one entry is not a number: ask g.numel() first.",
    )
    praise = "Multiply g by 10: the ratio stays. It knows the gradient's shape, not its size."
    return judge("The exercise", answer, tests, hints, praise)


def solution_ratio(g: Tensor) -> Tensor:
    return g.norm() / g.std() if g.numel() > 1 else torch.zeros(())


# SaRA: the smallest weights of a model.


def check_smallest(answer: Any) -> Verdict:
    """`answer(weights, share)`: a list of matrices -> for each a mask of bools, true at the `share` of weights that are
    smallest in size among all of them."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 5, generator=generator), 3 * torch.randn(6, 5, generator=generator)]
    sizes = [w.abs() for w in weights]
    threshold = float(torch.cat([one.flatten() for one in sizes]).sort().values[10])

    def flat(masks: Any) -> Tensor:
        return torch.cat([torch.as_tensor(mask).flatten() for mask in masks]).float()

    def lowest(scores: Sequence[Tensor], n: int = 10) -> Tensor:
        score = torch.cat([one.flatten() for one in scores])
        return torch.zeros(len(score)).scatter(0, score.argsort()[:n], 1.0)

    wrong = {
        "those are the largest": lowest([-one for one in sizes]),
        "those are the most negative; smallest in size are those nearest to 0": lowest(weights),
        "that is a share of each matrix; one threshold holds for all of them together": torch.cat(
            [lowest([one], n) for one, n in zip(sizes, (4, 6))]
        ),
        "upside down: true where a weight is to learn": 1 - lowest(sizes),
        "that takes `share` for the threshold; it is the part of all weights that is to be chosen": flat(
            [one < 0.2 for one in sizes]
        ),
    }

    def shapes(answer: Callable) -> str | None:
        masks = answer([w.clone() for w in weights], 0.2)
        got = [tuple(torch.as_tensor(mask).shape) for mask in masks]
        right = [tuple(w.shape) for w in weights]
        return None if got == right else f"return a mask of the shape of each matrix, {right}; yours are {got}"

    tests = [
        shapes,
        *numbers_like(
            lambda answer: flat(answer([w.clone() for w in weights], 0.2)),
            lowest(sizes),
            wrong,
            "return a mask for each matrix",
            f"of 50 weights the 10 that are below {threshold:.2f} in size are to be chosen",
        ),
    ]
    hints = (
        "Flatten all matrices into one vector of sizes; `argsort` says which are smallest.",
        "Or take the size of the n-th smallest as the threshold t, and compare each matrix with it.",
    )
    praise = "A matrix with small weights gets more of them: one threshold for all does not give each matrix its share."
    return judge("The exercise", answer, tests, hints, praise)


def solution_smallest(weights: Sequence[Tensor], share: float) -> list[Tensor]:
    size = torch.cat([w.flatten() for w in weights]).abs()
    n = round(share * len(size))
    chosen = torch.zeros(len(size), dtype=torch.bool)
    chosen[size.argsort()[:n]] = True
    parts = chosen.split([w.numel() for w in weights])
    return [part.view_as(w) for part, w in zip(parts, weights)]
