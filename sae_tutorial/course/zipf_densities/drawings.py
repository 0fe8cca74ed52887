"""The drawings of notebook 07."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREY, ORANGE

COUNTS = {"A": 20, "B": 62, "C": 9, "D": 34, "E": 13}  # matches of five features, invented
SCALE, EXPONENT, OFFSET, CUT_OFF = 2.0, 1.0, 12.0, 900.0


def rank_density() -> Drawing:
    """How a rank–density plot is made, and what exponent, offset and cut-off do to it."""
    alt = (
        "Left: five features, A to E, with bars for how often they fire; sorted, the bars fall, and their numbers from "
        "1 to 5 are ranks. Right: density against rank on logarithmic axes. Plain Zipf is a straight line of slope "
        "minus s. An offset q lets the head bend below it, up to about rank q; a cut-off lets the tail fall away."
    )
    drawing = Drawing(620, 248, alt)
    drawing.text(75, 14, "how often each fires").text(75, 128, "sorted, numbered: ranks")
    _bars(drawing, 100, list(COUNTS.items()))
    falling = sorted(COUNTS.items(), key=lambda item: -item[1])
    _bars(drawing, 214, [(f"{rank}", count) for rank, (_, count) in enumerate(falling, 1)])
    drawing.arrow(160, 105, 222, 105, "all of\nthem")
    left, bottom, width, height = 250, 205, 355, 190
    drawing.line([(left, bottom - height), (left, bottom), (left + width, bottom)])
    drawing.text(left + 6, 14, "density p(r), log scale", anchor="start")
    drawing.text(left + width, 239, "rank r, log scale", anchor="end")
    for rank in (1, 100):
        drawing.text(_x(rank, left, width), 217, f"{rank:,}", size=11)

    def height_at(law: Callable[[float], float], rank: float) -> float:
        return 30 - 46 * math.log10(law(rank) / SCALE)

    def path(law: Callable[[float], float]) -> Sequence[tuple[float, float]]:
        points = [(_x(10 ** (i / 20), left, width), height_at(law, 10 ** (i / 20))) for i in range(75)]
        return [(round(x, 1), round(y, 1)) for x, y in points if y <= bottom]

    def bent(rank: float) -> float:
        return SCALE * (rank + OFFSET) ** -EXPONENT * math.exp(-rank / CUT_OFF)

    drawing.line(path(lambda rank: SCALE * rank**-EXPONENT), GREY, dashed=True).line(path(bent), BLUE, width=2.5)
    for at in (OFFSET, CUT_OFF):
        x = round(_x(at, left, width), 1)
        drawing.line([(x, height_at(bent, at)), (x, bottom)], GREY, dashed=True)
    drawing.text(_x(OFFSET, left, width), 217, "q", size=12, bold=True)
    drawing.text(_x(CUT_OFF, left, width), 217, "r_cut", size=12, bold=True)
    drawing.text(left + 6, 135, "offset q:\nup to rank q or so\nthe head bends", size=12, anchor="start")
    drawing.text(420, 56, "exponent s:\nthe line falls with slope −s", size=12, anchor="start")
    return drawing.text(494, 180, "cut-off r_cut:\nfrom there on\nthe tail falls away", size=12, anchor="end")


def _bars(drawing: Drawing, bottom: float, bars: Sequence[tuple[str, int]]) -> None:
    for i, (name, count) in enumerate(bars):
        drawing.box(15 + 26 * i, bottom - count, 18, count, "", BLUE, round=1)
        drawing.text(24 + 26 * i, bottom + 9, name, size=11)


def _x(rank: float, left: float, width: float) -> float:
    return left + 10 + (width - 20) * math.log10(rank) / 3.7


def head_start() -> Drawing:
    """The experiment: the same SAE twice, and in one of them a random half learns alone at first."""
    alt = (
        "Two lanes from the same start, over the steps of training. Above, without a head start: both halves of the "
        "features learn from the first step to step 150. Below, with one: half A, drawn at random, learns alone until "
        "step 30 while half B sleeps; then both learn. At the end one asks which share of all matches half A has."
    )
    drawing = Drawing(620, 190, alt)
    drawing.box(5, 55, 80, 80, "the same\nstart, the\nsame data", GREY)
    for y, called in ((20, "without"), (110, "with a head start")):
        drawing.arrow(85, 95, 112, y + 30).text(118, y - 8, called, anchor="start")
        drawing.box(115, y, 380 if y == 20 else 90, 28, "half A learns" if y == 20 else "A learns", BLUE)
        if y == 20:
            drawing.box(115, y + 32, 380, 28, "half B learns", ORANGE)
        else:
            drawing.box(115, y + 32, 90, 28, "B sleeps", dashed=True)
            drawing.box(209, y, 286, 28, "half A goes on", BLUE).box(209, y + 32, 286, 28, "half B wakes up", ORANGE)
        drawing.arrow(495, y + 30, 522, 95)
    drawing.box(522, 55, 93, 80, "which share\nof all matches\nhas half A?", GREY)
    drawing.text(115, 182, "step 1", size=11, anchor="start").text(207, 182, "step 30", size=11)
    return drawing.text(495, 182, "step 150", size=11, anchor="end")
