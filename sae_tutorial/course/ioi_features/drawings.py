"""Drawings of notebook 09."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE


def patching() -> Drawing:
    """Codes of two sentences, of which a few are exchanged before the rest of the model runs."""
    alt = (
        "The residual stream of a sentence about Mary is encoded into features, and so is that of the same sentence "
        "about Anna. Two of the codes are exchanged, all others and what the dictionary leaves out stay. The rest of "
        "the model then says Anna instead of Mary."
    )
    drawing = Drawing(620, 250, alt)
    drawing.box(5, 20, 130, 46, "“… Mary … gave\na drink to”").box(5, 184, 130, 46, "“… Anna … gave\na drink to”")
    drawing.arrow(135, 43, 175, 43).arrow(135, 207, 175, 207)
    drawing.text(260, 12, "codes z of x").text(260, 240, "codes z̄ of the other sentence")
    for i in range(6):
        exchanged = i in (1, 4)
        x = 178 + 28 * i
        drawing.box(x, 30, 24, 26, "", BLUE if exchanged else GREY).box(x, 194, 24, 26, "", ORANGE if exchanged else "")
        if exchanged:
            drawing.arrow(x + 12, 194, x + 12, 58, colour=ORANGE)
    drawing.text(262, 125, "exchange\nthese two")
    drawing.arrow(346, 43, 400, 43, "x′").box(400, 20, 120, 46, "later layers", GREEN).arrow(520, 43, 556, 43)
    drawing.text(588, 43, "Anna", bold=True)
    return drawing.text(460, 90, "what the dictionary\nleaves out stays in x′")
