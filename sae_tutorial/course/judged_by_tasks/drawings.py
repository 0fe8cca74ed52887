"""The drawings of the lesson on SAEs that are judged by tasks."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE


def read_remove_swap() -> Drawing:
    """The three things that one may want to do with a few features."""
    alt = (
        "Three columns. Read: a few features of x, an activation, go into a probe: is this the past tense? Remove: the "
        "features of one property are taken out of x, and probes of this property and of others are asked again. Swap: "
        "two sentences go in, the features of the name are those of the other; the name should change, the place stay."
    )
    drawing = Drawing(620, 250, alt)
    columns = (("read", 10, BLUE), ("remove", 220, ORANGE), ("swap", 430, GREEN))
    one, both = [("x", 50, 80)], [("x of one", 8, 76), ("x of another", 90, 92)]
    inside = {"read": "a few features", "remove": "x − Σ z_f d_f", "swap": "z_name of the other"}
    asked = {
        "read": ("probe", "past tense?"),
        "remove": ("probes", "past tense lost?\nall else kept?"),
        "swap": ("probes", "name changed?\nplace kept?"),
    }
    for name, left, colour in columns:
        drawing.text(left + 90, 16, name, bold=True)
        for label, at, width in both if name == "swap" else one:
            drawing.box(left + at, 36, width, 30, label, GREY)
            drawing.arrow(left + at + width / 2, 68, left + at + width / 2, 96)
        drawing.box(left + 20, 98, 140, 32, inside[name], colour)
        drawing.arrow(left + 90, 132, left + 90, 160)
        reader, question = asked[name]
        drawing.box(left + 50, 162, 80, 30, reader, GREY)
        drawing.text(left + 90, 214, question, size=12)
    return drawing


def absorbed() -> Drawing:
    """A feature with a hole, and the narrower feature that fills it."""
    alt = (
        "Two rows. At the word sat, the feature for words that begin with s fires. At the word snake it is silent, and "
        "the feature for snake fires, whose direction holds the letter s as well."
    )
    drawing = Drawing(620, 170, alt)
    drawing.text(70, 50, "“sat”").text(70, 120, "“snake”")
    drawing.box(150, 34, 170, 32, "begins with s: on", BLUE).box(150, 104, 170, 32, "begins with s: silent", GREY)
    drawing.box(390, 34, 200, 32, "snake: silent", GREY).box(390, 104, 200, 32, "snake: on, writes s as well", ORANGE)
    return drawing.arrow(322, 120, 388, 120).text(355, 98, "absorbed", size=12)
