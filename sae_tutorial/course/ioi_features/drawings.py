"""Drawings of notebook 09."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import GREEN, GREY, ORANGE


def patching() -> Drawing:
    """Codes of two sentences, of which a few are replaced before the rest of the model runs."""
    alt = (
        "The residual stream x of a sentence about Mary is encoded into features, and so is that of the same sentence "
        "about Anna. Two of Mary's codes are replaced by Anna's. What the dictionary leaves out of x goes past the "
        "codes and is added again, which gives x′. The later layers then say Anna instead of Mary."
    )
    drawing = Drawing(600, 240, alt)
    drawing.box(0, 57, 112, 46, "“… Mary … gave\na drink to”").box(0, 175, 112, 46, "“… Anna … gave\na drink to”")
    drawing.arrow(112, 80, 176, 80).text(130, 70, "x").arrow(112, 198, 176, 198)
    for i in range(6):
        replaced, left = i in (1, 4), 178 + 26 * i
        drawing.box(left, 67, 22, 26, "", ORANGE if replaced else GREY)
        drawing.box(left, 185, 22, 26, "", ORANGE if replaced else "")
        if replaced:
            drawing.arrow(left + 11, 185, left + 11, 96, colour=ORANGE)
    drawing.text(256, 54, "codes z").text(256, 226, "codes z* of the other sentence")
    drawing.text(256, 139, "replace\nthese two")
    drawing.line([(148, 80), (148, 24), (366, 24)]).arrow(366, 24, 366, 69)
    drawing.text(257, 12, "what the dictionary leaves out")
    drawing.arrow(334, 80, 355, 80).dot(366, 80, 10, open=True).text(366, 80, "+", bold=True)
    drawing.arrow(377, 80, 424, 80, "x′").box(424, 57, 104, 46, "later layers", GREEN).arrow(528, 80, 556, 80)
    return drawing.text(580, 80, "Anna", bold=True)
