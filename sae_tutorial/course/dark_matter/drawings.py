"""The drawing of notebook 11."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, ORANGE


def three_parts() -> Drawing:
    """An activation as a chain of three arrows: what the SAE writes, a linear part of its error, and the rest."""
    alt = (
        "An activation x as a chain of three arrows: the reconstruction x̂, which is long; from its tip the linear "
        "error, a matrix times x; and from there the nonlinear error, up to x. The last two together are the error."
    )
    drawing = Drawing(620, 196, alt)
    start, hat, line, end = (30, 165), (395, 85), (423, 21), (560, 80)  # a right angle, 18 : 82 of the squares
    drawing.arrow(*start, *end, dashed=True).text(548, 102, "x", bold=True)
    drawing.arrow(*start, *hat, colour=BLUE).text(200, 100, "reconstruction x̂", colour=BLUE, bold=True)
    drawing.arrow(*hat, *line, colour=GREEN).text(340, 46, "linear error x A", colour=GREEN, bold=True)
    drawing.arrow(*line, *end, colour=ORANGE).text(540, 34, "nonlinear error", colour=ORANGE, bold=True)
    says = "A is one matrix for all tokens, fitted by least squares.\nThe nonlinear error is the rest."
    return drawing.text(400, 150, says, size=12)
