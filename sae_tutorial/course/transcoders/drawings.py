"""The drawings of the lesson on transcoders."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE


def sae_and_transcoder() -> Drawing:
    """An MLP between what it reads and what it writes; an SAE beside its output, a transcoder beside all of it."""
    alt = (
        "Three columns. The MLP reads x, has 1,024 neurons, and writes y. An SAE of its output reads y, has few active "
        "features, and writes an estimate of y. A transcoder reads x as the MLP does, has few active features, and "
        "writes an estimate of y."
    )
    drawing = Drawing(620, 270, alt)
    columns = (("MLP", 40, "x", "neurons", GREY), ("SAE of its output", 240, "y", "features", BLUE))
    for name, left, read, middle, colour in (*columns, ("transcoder", 440, "x", "features", GREEN)):
        drawing.text(left + 70, 16, name, bold=True)
        drawing.box(left + 40, 228, 60, 30, read, ORANGE if read == "x" else GREY)
        drawing.arrow(left + 70, 226, left + 70, 164, "W_in" if name == "MLP" else "W_enc")
        drawing.box(left + 10, 130, 120, 32, middle, colour)
        drawing.arrow(left + 70, 128, left + 70, 70, "W_out" if name == "MLP" else "W_dec")
        drawing.box(left + 40, 36, 60, 32, "y" if name == "MLP" else "ŷ", GREY)
    return drawing


def two_factors() -> Drawing:
    """A feature of an early transcoder, a feature of a later one, and the two numbers between them."""
    alt = (
        "The early transcoder's feature i has a code z of this text and writes its decoder row into the residual "
        "stream. The later feature j reads the stream with its encoder column. What i adds to j is the code times the "
        "dot product of the two directions, over the LayerNorm's scale."
    )
    drawing = Drawing(620, 190, alt)
    drawing.box(10, 70, 120, 44, "feature i\nof layer 0", GREEN).box(490, 70, 120, 44, "feature j\nof layer 2", BLUE)
    drawing.arrow(132, 92, 300, 92, "writes z_i · W_dec[i]").arrow(320, 92, 488, 92, "reads W_enc[:, j]")
    drawing.dot(310, 92, 8, GREY).text(310, 122, "residual stream", size=12)
    drawing.text(310, 28, "z_i  ×  W_dec[i] · W_enc[:, j]  /  scale", bold=True)
    says = "z_i and the scale depend on the text,\nthe dot product does not: it is a weight between two features"
    return drawing.text(310, 164, says, size=12)
