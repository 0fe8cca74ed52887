"""The drawing of notebook 00: a layer's activations as a cloud of points, seen along a neuron and along a direction."""

from __future__ import annotations

import math
import random

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.style import PALETTE

MEANINGS = {"evening": (40, PALETTE[1]), "ship": (-40, PALETTE[2]), "said": (160, PALETTE[0])}  # degrees, colour
ALT = (
    "Left: a layer of two neurons as a plane. Three groups of points, one for each meaning, lie in three directions. "
    "Right, above: on the axis of neuron 1 two groups lie on top of each other. Right, below: along the direction of "
    "one group, this group alone is far from zero."
)


def neuron_and_direction() -> Drawing:
    """One cloud of points for three meanings in two neurons, and what is left of it on an axis and on a direction."""
    drawing, centre, size = Drawing(620, 262, ALT), (130.0, 145.0), 92.0
    drawing.text(130, 12, "a layer of two neurons", bold=True)
    drawing.arrow(centre[0] - 105, centre[1], centre[0] + 112, centre[1]).text(218, 161, "neuron 1", size=12)
    drawing.arrow(centre[0], centre[1] + 105, centre[0], centre[1] - 112).text(92, 40, "neuron 2", size=12)
    angle = math.radians(MEANINGS["evening"][0])
    tip = (centre[0] + 1.22 * size * math.cos(angle), centre[1] - 1.22 * size * math.sin(angle))
    drawing.arrow(*centre, *tip, colour=MEANINGS["evening"][1], width=2).text(233, 58, "a direction", size=12)
    strips = {"seen along neuron 1: two meanings mixed": 0.0, "seen along the direction: one meaning stands out": angle}
    for row, (title, turn) in enumerate(strips.items()):
        y = 92 + 115 * row
        drawing.text(450, y - 52, title, bold=True, size=12)
        drawing.arrow(330, y, 585, y)
        drawing.line([(440, y - 6), (440, y + 6)]).text(440, y + 18, "0", size=12)
        for name, place in _cloud(size):
            along = place[0] * math.cos(turn) + place[1] * math.sin(turn)
            drawing.dot(440 + 1.3 * along, y - 9 - 5 * list(MEANINGS).index(name), 3, MEANINGS[name][1])
    for name, place in _cloud(size):
        drawing.dot(centre[0] + place[0], centre[1] - place[1], 3.5, MEANINGS[name][1])
    for i, (name, (_, colour)) in enumerate(MEANINGS.items()):
        drawing.dot(332 + 95 * i, 250, 4, colour).text(342 + 95 * i, 250, f"“{name}”", size=12, anchor="start")
    return drawing


def _cloud(size: float, n: int = 12) -> list[tuple[str, tuple[float, float]]]:
    """(meaning, (x, y)): n points for each meaning, near its direction, y upwards."""
    draw = random.Random(0)
    points = []
    for name, (degrees, _) in MEANINGS.items():
        for _ in range(n):
            turn, far = math.radians(degrees + draw.uniform(-7, 7)), size * draw.uniform(0.5, 1)
            points.append((name, (far * math.cos(turn), far * math.sin(turn))))
    return points
