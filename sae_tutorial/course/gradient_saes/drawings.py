"""The drawing of notebook 12."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, ORANGE

# Made up: an affinity and a sensitivity for each of two features, such that either way of choosing takes another one.
AFFINITY, SENSITIVITY = (2.0, 1.5), (0.2, 1.4)


def two_ways_to_choose() -> Drawing:
    """An activation, two features and the loss's gradient; and what either way of choosing makes of them."""
    alt = (
        "Left: an activation x as an arrow; feature 1 lies close to it, feature 2 further away. The gradient g of the "
        "loss lies along feature 2 and nearly across feature 1. Right: affinities 2.0 and 1.5, sensitivities 0.2 and "
        "1.4, scores 2.4 and 3.6. TopK takes feature 1, Gradient Choice takes feature 2."
    )
    drawing, start = Drawing(620, 210, alt), (40, 175)
    drawing.arrow(*start, 190, 40).text(204, 30, "x", bold=True)
    drawing.arrow(*start, 215, 75, colour=BLUE, width=2.5).text(258, 78, "feature 1", colour=BLUE, bold=True)
    drawing.arrow(*start, 85, 35, colour=ORANGE, width=2.5).text(92, 20, "feature 2", colour=ORANGE, bold=True)
    drawing.arrow(*start, 42, 75, dashed=True).text(26, 62, "g")
    scores = [z + z * s for z, s in zip(AFFINITY, SENSITIVITY)]
    written = [[f"{z:.1f}", f"{s:.1f}", f"{score:.1f}"] for z, s, score in zip(AFFINITY, SENSITIVITY, scores)]
    drawing.text(368, 93, "feature 1", anchor="end", colour=BLUE, bold=True)
    drawing.text(368, 127, "feature 2", anchor="end", colour=ORANGE, bold=True)
    for i, head in enumerate(("affinity\nz", "sensitivity\n|W_dec g|", "score, β = 1\nz + z |W_dec g|")):
        drawing.text(412 + 82 * i, 48, head, size=12)
    drawing.table(374, 76, written, cell=(82, 34), fills={(0, 0): BLUE, (1, 2): ORANGE})
    drawing.text(412, 164, "TopK takes\nfeature 1", size=12)
    return drawing.text(560, 164, "Gradient Choice\ntakes feature 2", size=12)
