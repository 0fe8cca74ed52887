"""The drawing of notebook 12."""

from __future__ import annotations

import math

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, ORANGE

# Made up: an activation, two features and a gradient, such that either way of choosing takes another feature. The table
# is computed from the arrows, so that a reader can check the one against the other.
FEATURES = (25.0, 81.0)  # degrees; their length is 1
X, G = (2.053, 38.0), (1.567, 107.7)  # length, degrees
START, PX = (75, 185), 92  # px: where all arrows start, and the length of 1


def two_ways_to_choose() -> Drawing:
    """An activation, two features and the loss's gradient; and what either way of choosing makes of them."""
    alt = (
        "Left: an activation x as an arrow; feature 1 lies close to it, feature 2 further away. The gradient g of the "
        "loss lies close to feature 2 and nearly at right angles to feature 1. Right: affinities 2.0 and 1.5, "
        "sensitivities 0.2 and 1.4, scores 2.4 and 3.6. TopK takes feature 1, Gradient Choice takes feature 2."
    )
    drawing = Drawing(620, 210, alt)
    drawing.arrow(*START, *_end(*X)).text(232, 58, "x", bold=True)
    for name, angle, colour, at in (
        ("feature 1", FEATURES[0], BLUE, (194, 146)),
        ("feature 2", FEATURES[1], ORANGE, (94, 70)),
    ):
        drawing.arrow(*START, *_end(1.0, angle), colour=colour, width=2.5).text(*at, name, colour=colour, bold=True)
    drawing.arrow(*START, *_end(*G), dashed=True).text(28, 36, "g")
    affinity, sensitivity = ([abs(_dot(arrow, feature)) for feature in FEATURES] for arrow in (X, G))
    written = [[f"{z:.1f}", f"{s:.1f}", f"{z + z * s:.1f}"] for z, s in zip(affinity, sensitivity)]
    drawing.text(368, 93, "feature 1", anchor="end", colour=BLUE, bold=True)
    drawing.text(368, 127, "feature 2", anchor="end", colour=ORANGE, bold=True)
    for i, head in enumerate(("affinity\nz", "sensitivity\n|W_dec g|", "score, β = 1\nz + z |W_dec g|")):
        drawing.text(412 + 82 * i, 48, head, size=12)
    drawing.table(374, 76, written, cell=(82, 34), fills={(0, 0): BLUE, (1, 2): ORANGE})
    drawing.text(412, 164, "TopK takes\nfeature 1", size=12)
    return drawing.text(560, 164, "Gradient Choice\ntakes feature 2", size=12)


def _end(length: float, angle: float) -> tuple[float, float]:
    """Where an arrow of this length and angle ends in the drawing, whose y grows downwards."""
    turn = math.radians(angle)
    return START[0] + PX * length * math.cos(turn), START[1] - PX * length * math.sin(turn)


def _dot(arrow: tuple[float, float], feature: float) -> float:
    """An arrow's inner product with the direction of a feature."""
    length, angle = arrow
    return length * math.cos(math.radians(angle - feature))
