"""Drawings of notebook 04: what an SAE is, and three reasons why its reconstruction misses."""

from __future__ import annotations

import math

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.style import PALETTE

BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY, YELLOW = PALETTE


def sparse_autoencoder() -> Drawing:
    """Encoder, code, decoder, and the two terms of the loss."""
    drawing = Drawing(
        620,
        314,
        "A sparse autoencoder. An activation x of D numbers goes through the encoder, ReLU of W_enc x + b_enc, to a "
        "code z of F numbers of which most are 0. The decoder W_dec turns the code into a reconstruction x̂. The loss "
        "has two terms: the squared error between x and x̂, and λ times the sum of the code.",
    )
    _column(drawing, 20, 62, [SKY] * 5)
    drawing.text(37, 40, "activation\nx", bold=True).text(37, 180, "D numbers", size=12)
    drawing.arrow(60, 112, 100, 112).box(100, 78, 152, 68, "encoder\nReLU(W_enc x + b_enc)", BLUE)
    drawing.arrow(252, 112, 292, 112)
    _column(drawing, 296, 32, ["", "", ORANGE, "", "", "", ORANGE, ""])
    drawing.text(313, 16, "code z", bold=True).text(313, 206, "F numbers, most of them 0", size=12)
    drawing.arrow(334, 112, 374, 112).box(374, 78, 132, 68, "decoder\nW_dec", GREEN)
    drawing.arrow(506, 112, 546, 112)
    _column(drawing, 550, 62, [PINK] * 5)
    drawing.text(567, 40, "reconstruction\nx̂", bold=True).text(567, 180, "D numbers", size=12)
    drawing.arrow(313, 216, 313, 236).box(213, 236, 200, 28, "sparsity: λ · sum of z", ORANGE)
    drawing.text(313, 274, "+", bold=True).text(200, 274, "loss  =", bold=True, anchor="end")
    drawing.box(213, 284, 200, 28, "squared error: |x − x̂|²", VERMILION)
    drawing.line([(37, 190), (37, 298)]).arrow(37, 298, 211, 298)
    drawing.line([(567, 190), (567, 298)]).arrow(567, 298, 415, 298)
    return drawing


def three_gaps() -> Drawing:
    """Shrinkage, the encoder's gap, and the choice of features, each as a picture in the plane."""
    drawing = Drawing(
        620,
        236,
        "Three reasons why a reconstruction x̂ misses x. First, shrinkage: the feature is right and its strength too "
        "small by λ/2. Second, reading: two right features, each strength is read without the other. Third, choice: "
        "another feature would have fitted better.",
    )
    heads = ("1  shrinkage", "2  reading", "3  choice")
    says = (
        "the right feature,\ntoo weak by λ/2",
        "the right features, each read\nas if it were alone",
        "another feature would\nhave fitted better",
    )
    for i, (head, words) in enumerate(zip(heads, says, strict=True)):
        left = 205 * i
        drawing.text(left + 102, 14, head, bold=True).text(left + 102, 210, words, size=12)
    _rays(drawing, 22, {"f": 35})
    _miss(drawing, 22, at=(118, 35), said=(78, 35))
    _rays(drawing, 227, {"f_1": 15, "f_2": 62})
    _miss(drawing, 227, at=(104, 38), said=(138, 38))
    _rays(drawing, 432, {"f_1": 12, "f_2": 48, "f_3": 76})
    _miss(drawing, 432, at=(112, 49), said=(88, 12))
    return drawing


def _column(drawing: Drawing, x: float, y: float, fills: list[str], cell: float = 20) -> None:
    for i, fill in enumerate(fills):
        drawing.box(x, y + i * cell, 34, cell - 2, "" if fill else "0", fill, size=11, round=2)


GROUND, REACH = 180, 136  # where the origin lies, and how long a ray is, px


def _rays(drawing: Drawing, left: float, rays: dict[str, float]) -> None:
    for name, angle in rays.items():
        x, y = _at(left, REACH, angle)
        drawing.arrow(left, GROUND, x, y, colour=BLUE)
        drawing.text(*_at(left, REACH + 13, angle), name, colour=BLUE)


def _miss(drawing: Drawing, left: float, at: tuple[float, float], said: tuple[float, float]) -> None:
    x, x_hat = _at(left, *at), _at(left, *said)
    drawing.line([x, x_hat], VERMILION, width=2, dashed=True)
    drawing.dot(*x, 5).text(x[0] - 4, x[1] - 14, "x", bold=True)
    drawing.dot(*x_hat, 5, VERMILION).text(x_hat[0] + 4, x_hat[1] + 15, "x̂", colour=VERMILION, bold=True)


def _at(left: float, length: float, angle: float) -> tuple[float, float]:
    turn = math.radians(angle)
    return left + length * math.cos(turn), GROUND - length * math.sin(turn)
