"""The drawing of notebook 06."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREY, ORANGE


def fair_comparison() -> Drawing:
    """What two rules share before one of them is called better."""
    alt = (
        "Two lanes, one for each rule. Both begin at the same activations, train with a learning rate of their own for "
        "the same steps, are read at the same number of features per token, and end at the same held-out rows."
    )
    drawing = Drawing(620, 200, alt)
    drawing.box(5, 60, 95, 80, "the same\nactivations,\nin the same\norder", GREY)
    for y, rule, colour in ((20, "Token Choice", BLUE), (120, "Mutual Choice", ORANGE)):
        middle = y + 30
        drawing.arrow(100, 100, 128, middle).box(128, y, 110, 60, f"{rule},\nits own best\nlearning rate", colour)
        drawing.arrow(238, middle, 266, middle).box(266, y, 90, 60, "the same\nnumber of\nsteps")
        drawing.arrow(356, middle, 384, middle).box(384, y, 98, 60, "read at\nexactly\nL0 = k")
        drawing.arrow(482, middle, 510, 100)
    return drawing.box(510, 60, 105, 80, "the same\nheld-out rows:\nFVU and KL,\nrow by row", GREY)
