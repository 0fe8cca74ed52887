"""The drawing of the lesson on attention outputs."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE


def heads_and_sources() -> Drawing:
    """Three source positions, two heads that weigh their values, z concatenated, and a feature that reads it."""
    alt = (
        "Two heads of one layer: each weighs the values of three source positions by its attention and adds them up, "
        "which gives its z. Both z, side by side, are what the SAE reads. Its feature takes a dot product with them, "
        "so its pre-activation is a table of heads and source positions, summed up."
    )
    drawing = Drawing(620, 300, alt)
    left, width, lower = (10, 122, 234), 96, 72  # the lower boxes leave room for what goes past them
    for x, word in zip(left, ("“Tom”", "“saw”", "“Tom” reads")):
        drawing.box(x, 254, width, 28, word, GREY)
    weights = {"head 0": ((0.1, 0.8, 0.1), BLUE, 188, lower), "head 1": ((0.6, 0.1, 0.3), ORANGE, 122, width)}
    for name, (shares, colour, y, wide) in weights.items():
        for x, share in zip(left, shares):
            drawing.box(x, y, wide, 28, f"{share} · v", colour)
        drawing.text(342, y + 14, f"{name}: sum", size=12, anchor="start", colour=colour, bold=True)
    for x in left:
        drawing.arrow(x + lower / 2, 253, x + lower / 2, 217)
        drawing.arrow(x + (lower + width) / 2, 253, x + (lower + width) / 2, 151)
    drawing.arrow(424, 202, 462, 168, colour=BLUE).arrow(424, 134, 562, 144, colour=ORANGE, bend=8)
    drawing.box(464, 146, 70, 28, "z_0", BLUE).box(536, 146, 70, 28, "z_1", ORANGE)
    drawing.text(535, 190, "z of all heads, side by side", size=12)
    drawing.arrow(535, 144, 535, 92, "× W_enc").box(484, 62, 102, 28, "feature f", GREEN)
    says = "The feature adds up what each head brings\nfrom each position: a number for each"
    says += "\ncoloured box, and a constant."
    return drawing.text(10, 60, says, size=12, anchor="start")
