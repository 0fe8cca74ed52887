"""The drawing of the lesson on discrete circuits."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE


def from_outputs_to_score() -> Drawing:
    """One head on four prompts, two of each kind: its outputs, their codes, and the codes that only positives have."""
    alt = (
        "One head on two positive and two negative prompts. Each of its four outputs is encoded by an SAE, and the "
        "number of the strongest latent is its code: 17 and 52 on positive prompts, 52 and 8 on negative ones. The "
        "only code that is on positives and on no negative is 17, so the head scores 1."
    )
    drawing = Drawing(620, 300, alt)
    rows = [(40, "Tom and Ann …, Tom gave it to", BLUE, 17), (84, "Sam and Eve …, Eve gave it to", BLUE, 52)]
    rows += [(160, "Amy and Ben …, Bob gave it to", ORANGE, 52), (204, "Kim and Ron …, Lee gave it to", ORANGE, 8)]
    drawing.text(10, 18, "positive prompts", size=12, anchor="start", colour=BLUE, bold=True)
    drawing.text(10, 138, "negative prompts", size=12, anchor="start", colour=ORANGE, bold=True)
    drawing.text(274, 18, "head's output", size=12).text(404, 18, "SAE", size=12).text(512, 18, "code", size=12)
    for y, words, colour, code in rows:
        drawing.box(10, y, 212, 28, words, GREY, size=11)
        drawing.arrow(224, y + 14, 246, y + 14)
        drawing.box(248, y, 54, 28, "z", colour)
        drawing.arrow(304, y + 14, 342, y + 14)
        drawing.box(344, y, 120, 28, "strongest latent", GREY, size=11)
        drawing.arrow(466, y + 14, 488, y + 14)
        only = code == 17
        drawing.box(490, y, 44, 28, str(code), GREEN if only else colour)
    says = "codes of positives {17, 52} without those of negatives {8, 52} = {17}: the head scores 1"
    return drawing.text(310, 268, says, size=12.5)
