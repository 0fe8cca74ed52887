"""Drawings of notebook 03: the ladder of claims, matching pursuit in a plane, readers and writers."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.course.directions import search
from sae_tutorial.figures.drawings import INK, Drawing
from sae_tutorial.figures.style import GRID, PALETTE

BLUE, ORANGE, GREEN = PALETTE[:3]
FAINT = "rgba(128, 128, 128, 0.6)"
Point = tuple[float, float]


def ladder() -> Drawing:
    """Five ways to represent features, each with one property more than the one before."""
    drawing = Drawing(
        620,
        196,
        "Five small panels. Entangled: feature 2 points right while feature 1 is off, left while it is on. Curved: a "
        "feature moves along half a circle. Crowded: three straight arrows in one plane. Oblique: two arrows that are "
        "not along the axes. Aligned: two arrows along the axes. Each has one property more: decomposable, linear, "
        "not in superposition, basis-aligned.",
    )
    gained = ["", "decomposable", "linear", "not in\nsuperposition", "basis-\naligned"]
    names = ["entangled", "curved", "crowded", "oblique", "aligned"]
    for i, (name, property_) in enumerate(zip(names, gained, strict=True)):
        x = 62 + 124 * i
        drawing.text(x, 14, name, bold=True)
        zero = x - 36 if name == "curved" else x  # a feature that is off adds nothing: its arc begins at the crossing
        drawing.line([(x - 44, 84), (x + 44, 84)], GRID).line([(zero, 40), (zero, 128)], GRID)
        drawing.text(x, 166, f"+ {property_}" if property_ else "none of\nthe four", colour=GREEN if i else INK)
        if i:
            drawing.arrow(x - 76, 14, x - 50, 14)
    drawing.arrow(62, 84, 104, 72, colour=BLUE, width=2.5).arrow(62, 84, 20, 96, colour=BLUE, width=2.5, dashed=True)
    drawing.text(84, 58, "1 off", size=11, colour=BLUE).text(38, 112, "1 on", size=11, colour=BLUE)
    _arc(drawing, 186, 84, 36)
    for degrees in (-10, 65, 190):
        _ray(drawing, (310, 84), _unit(degrees), 0.4, {-10: BLUE, 65: ORANGE, 190: GREEN}[degrees], width=2.5)
    for degrees, colour in ((25, BLUE), (70, ORANGE)):
        _ray(drawing, (434, 84), _unit(degrees), 0.42, colour, width=2.5)
    for degrees, colour in ((0, BLUE), (90, ORANGE)):
        _ray(drawing, (558, 84), _unit(degrees), 0.42, colour, width=2.5)
    return drawing


def pursuit_plane() -> Drawing:
    """Three steps of matching pursuit on one point and three directions in a plane; the numbers are computed."""
    angles = [8.0, 62.0, 130.0]
    dictionary = torch.stack([_unit(angle) for angle in angles])
    x = 0.98 * _unit(30.0)
    first, second = search.pursuit(x[None], dictionary, 2)[0][0].tolist()
    once = float(x @ dictionary[first])
    both = torch.linalg.lstsq(dictionary[[first, second]].T, x[:, None]).solution[:, 0].tolist()
    drawing = Drawing(
        620,
        200,
        "Three panels with a point x and three directions d1, d2, d3. First, the direction nearest to x is chosen: d1. "
        "Second, what is left of x is at a right angle to d1, and d3 is nearest to it. Third, both are fitted to x "
        "together, and reach it.",
    )
    heads = ["1. Nearest to x: d_1", "2. Nearest to what is left: d_3", "3. Fit both to x again"]
    for i, head in enumerate(heads):
        origin = (82.0 + 208 * i, 145.0)
        drawing.text(102 + 208 * i, 14, head, bold=True)
        for j, direction in enumerate(dictionary):
            taken = j == first or (i > 0 and j == second)
            colour = (BLUE if j == first else ORANGE) if taken else FAINT
            _ray(drawing, origin, direction, 1.0, colour, width=2 if taken else 1.5)
            drawing.text(*_beside(origin, direction), f"d_{j + 1}", colour=colour if taken else INK, bold=True)
        if i == 2:
            _segment(drawing, origin, torch.zeros(2), both[0] * dictionary[first], BLUE, width=4)
            _segment(drawing, origin, both[0] * dictionary[first], x, ORANGE, width=4)
        else:
            _segment(drawing, origin, once * dictionary[first], x, INK, dashed=True)
        if i == 1:
            left = x - once * dictionary[first]
            _ray(drawing, origin, left, 1.0, INK, dashed=True)
        drawing.dot(*_at(origin, x), 4)
        drawing.text(_at(origin, x)[0] + 12, _at(origin, x)[1] - 10, "x", bold=True)
    drawing.text(102, 184, f"x̂ = {once:.2f} d_1", colour=BLUE)
    drawing.text(310, 184, "dashed: what is left of x")
    drawing.text(518, 184, f"x̂ = {both[0]:.2f} d_1 + {both[1]:.2f} d_3")
    return drawing


def readers_and_writers(
    x_B2: Float[Tensor, "points 2"],
    principal_22: Float[Tensor, "two 2"],
    writers_22: Float[Tensor, "two 2"],
    readers_22: Float[Tensor, "two 2"],
) -> Drawing:
    """The same cloud three times: with its principal directions, with ICA's writers, and with ICA's readers."""
    drawing = Drawing(
        620,
        275,
        "A cloud of points along two rays that are not at a right angle. The principal directions are at a right angle "
        "and follow neither ray. ICA's writers lie along the rays. Each of ICA's readers is at a right angle to the "
        "writer of the other feature.",
    )
    sets = {
        "PCA": (principal_22, "d"),
        "ICA: writers": (writers_22, "w"),
        "ICA: readers": (readers_22, "r"),
    }
    scale, long = 140 / float(x_B2.norm(dim=1).max()), 1.08
    for i, (name, (found, letter)) in enumerate(sets.items()):
        origin = (76.0 + 206 * i, 172.0)
        drawing.text(102 + 208 * i, 14, name, bold=True)
        for x, y in (scale * x_B2).tolist():
            drawing.dot(origin[0] + x, origin[1] - y, 1.6, FAINT)
        for j, (direction, colour) in enumerate(zip(found, (BLUE, ORANGE), strict=True)):
            if letter == "r":
                _ray(drawing, origin, writers_22[j], long, colour, dashed=True)
                drawing.text(*_at(origin, 1.2 * writers_22[j]), f"w_{j + 1}", colour=colour)
            towards = direction if direction @ x_B2.mean(0) > 0 or letter == "r" else -direction
            _ray(drawing, origin, towards, long, colour, width=3)
            drawing.text(*_at(origin, 1.2 * towards), f"{letter}_{j + 1}", colour=colour, bold=True)
    return drawing


# ------------------------------------------------------------------ pieces; a vector of length 1 is 100 px long


def _unit(degrees: float) -> Tensor:
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle)])


def _at(origin: Point, vector: Tensor) -> tuple[float, float]:
    return origin[0] + 100 * float(vector[0]), origin[1] - 100 * float(vector[1])


def _ray(drawing: Drawing, origin: Point, direction: Tensor, length: float, colour: str, **look: Any) -> None:
    x, y = _at(origin, length * direction)
    drawing.arrow(origin[0], origin[1], x, y, colour=colour, **look)


def _segment(drawing: Drawing, origin: Point, start: Tensor, end: Tensor, colour: str, **look: Any) -> None:
    drawing.line([_at(origin, start), _at(origin, end)], colour, **look)


def _beside(origin: Point, direction: Tensor) -> tuple[float, float]:
    """Where the name of a direction is written: above its head, or below it if that is far right."""
    x, y = _at(origin, direction)
    return (x - 4, y + 16) if direction[0] > 0.8 else (x - 3, y - 11)


def _arc(drawing: Drawing, x: float, y: float, radius: float) -> None:
    """Half a circle from left to right with its values: where a feature is at 0, 0.5 and 1."""
    points = [(x - radius * math.cos(math.pi * t / 24), y - radius * math.sin(math.pi * t / 24)) for t in range(25)]
    drawing.line(points, BLUE, width=2.5)
    for value, words, away in ((0, "0", (-9, 12)), (12, "½", (0, -13)), (24, "1", (0, 12))):
        drawing.dot(*points[value], 4, BLUE)
        drawing.text(points[value][0] + away[0], points[value][1] + away[1], words, size=11, colour=BLUE)
