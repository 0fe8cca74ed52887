"""Drawings of notebook 00: what one number of a model answers to and what a mix of many does; a layer's activations as
a cloud of points, seen along a neuron and along a direction."""

from __future__ import annotations

import math
import random

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.style import PALETTE

# Name: angle in degrees, nearest and farthest point, colour. No coordinate is negative, as after a GELU.
MEANINGS = {
    "evening": (10, 0.5, 0.9, PALETTE[1]),
    "ship": (50, 0.75, 1.25, PALETTE[2]),
    "said": (84, 0.55, 1.0, PALETTE[0]),
}
MIX = (math.cos(math.radians(-40)), math.sin(math.radians(-40)))  # at a right angle to "ship": 0.77 and -0.64
ALT = (
    "Left: a layer of two neurons as a plane. Three groups of points, one for each meaning; no number is negative. "
    "Right, above: on the axis of neuron 1 two groups lie on top of each other. Right, below: along a direction, 0.77 "
    "times neuron 1 minus 0.64 times neuron 2, one group alone is far above zero."
)


def one_number_or_a_mix() -> Drawing:
    """What the course is about, before any of its terms: a model's numbers, one of them, and a mix of many."""
    alt = (
        "A text goes into a language model, whose numbers are drawn as circles. One number alone, a neuron, is large "
        "on words of several kinds, drawn as dots of several colours. A mix of many numbers, a feature, is large on "
        "words of one kind, dots of one colour."
    )
    kinds, drawing = PALETTE[:5], Drawing(600, 152, alt)
    mixed = [kinds[kind] for kind in (0, 0, 2, 0, 4)]  # several words are of one kind, as in the first figure
    order = (0, 3, 1, 4, 2, 1, 0, 4, 3, 2)
    for i, kind in enumerate(order):  # two lines of text
        drawing.dot(14 + 17 * (i % 5), 78 + 18 * (i // 5), 5, kinds[kind])
    drawing.text(48, 124, "words of a text,\ncoloured by kind", size=12).arrow(96, 87, 128, 87)
    drawing.box(132, 26, 128, 120).text(196, 12, "a language model", bold=True)
    numbers = [(150 + 23 * column, 44 + 21 * row) for row in range(5) for column in range(5)]
    for x, y in numbers:
        drawing.dot(x, y, 6, open=True)
    one = numbers[4]
    drawing.dot(*one, 6).arrow(one[0] + 8, one[1], 296, one[1])
    for row in (1, 2, 3, 4):
        x, y = numbers[5 * row + 4]
        drawing.line([(x + 8, y), (280, 114)], width=1)
    drawing.arrow(280, 114, 298, 114)
    for y, colours, title, says in (
        (44, mixed, "one number alone, a neuron", "large on words of several kinds"),
        (114, [kinds[1]] * 5, "a mix of many numbers, a feature", "large on words of one kind"),
    ):
        drawing.text(304, y - 12, title, bold=True, anchor="start").text(400, y + 11, says, size=12, anchor="start")
        for i, colour in enumerate(colours):
            drawing.dot(310 + 17 * i, y + 11, 5, colour)
    return drawing


def neuron_and_direction() -> Drawing:
    """One cloud of points for three meanings in two neurons, and what is left of it on an axis and on a direction."""
    drawing, centre, size = Drawing(600, 262, ALT), (50.0, 172.0), 128.0
    drawing.text(125, 12, "a layer of two neurons", bold=True)
    drawing.arrow(centre[0], centre[1], centre[0] + 190, centre[1]).text(240, 188, "neuron 1", size=12, anchor="end")
    drawing.arrow(centre[0], centre[1], centre[0], centre[1] - 142).text(60, 32, "neuron 2", size=12, anchor="start")
    tip = (centre[0] + 96 * MIX[0], centre[1] - 96 * MIX[1])
    drawing.arrow(*centre, *tip, colour=MEANINGS["evening"][3], width=2)
    drawing.text(4, 250, "a direction: 0.77 × neuron 1 − 0.64 × neuron 2", size=12, anchor="start")
    strips = {
        "seen along neuron 1: two meanings mixed": (1.0, 0.0),
        "seen along the direction: one meaning stands out": MIX,
    }
    points = _cloud(size)
    for row, (title, weights) in enumerate(strips.items()):
        y = 92 + 115 * row
        drawing.text(435, y - 52, title, bold=True, size=12)
        drawing.arrow(300, y, 580, y)
        drawing.line([(400, y - 6), (400, y + 6)]).text(400, y + 18, "0", size=12)
        for name, (x, up) in points:
            along = x * weights[0] + up * weights[1]
            drawing.dot(400 + 1.35 * along, y - 9 - 6 * list(MEANINGS).index(name), 3, MEANINGS[name][3])
    for name, (x, up) in points:
        drawing.dot(centre[0] + x, centre[1] - up, 3.5, MEANINGS[name][3])
    for i, (name, (*_, colour)) in enumerate(MEANINGS.items()):
        drawing.dot(312 + 95 * i, 250, 4, colour).text(322 + 95 * i, 250, f"“{name}”", size=12, anchor="start")
    return drawing


def _cloud(size: float, n: int = 12) -> list[tuple[str, tuple[float, float]]]:
    """(meaning, (x, y)): n points for each meaning, near its direction, y upwards."""
    draw = random.Random(0)
    points = []
    for name, (degrees, near, far, _) in MEANINGS.items():
        for _ in range(n):
            turn, length = math.radians(degrees + draw.uniform(-6, 6)), size * draw.uniform(near, far)
            points.append((name, (length * math.cos(turn), length * math.sin(turn))))
    return points
