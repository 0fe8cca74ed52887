"""Drawings of notebook 08: the task, what reacts in activation and in path patching, and the circuit that it finds."""

from __future__ import annotations

from collections.abc import Mapping

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE, PINK, VERMILION

NAMED = {"name-carrying": "0.0", "name movers": "1.3  2.6  3.0  3.5", "suppression heads": "1.2  2.0  2.1  2.3"}
ANSWERS = {"right name": GREEN, "wrong name": VERMILION}
COLOURS = {"name-carrying": BLUE, "suppression heads": VERMILION, "name movers": GREEN, "indirect name movers": PINK}


def task() -> Drawing:
    """One sentence, its two counterfactuals, what its tokens are called, and what is asked."""
    drawing = Drawing(
        620,
        190,
        "A sentence and what its tokens are called: When Mary (IO) and John (S1) went (S1+1) to the store, John (S2) "
        "gave a drink to (END), and then Mary. In the swapped sentence Mary gives, and the answer is John. In the ABC "
        "sentence three other names, Tom, Anna and Ben, stand at IO, S1 and S2, and nobody is the answer.",
    )
    columns = {"IO": 118, "S1": 206, "S1+1": 264, "S2": 382, "END": 496}
    rows = (
        ("original", "Mary", "John", "John", "Mary"),
        ("swapped", "Mary", "John", "Mary", "John"),
        ("ABC", "Tom", "Anna", "Ben", "?"),
    )
    colours = {"Mary": GREEN, "John": VERMILION, "?": ""}
    for role, x in columns.items():
        drawing.text(x, 176, role, size=12, bold=True)
    for i, (name, a, b, giver, answer) in enumerate(rows):
        y = 14 + 52 * i
        drawing.text(2, y + 15, name, size=12, anchor="start")
        for x, words in ((162, "and"), (264, "went"), (318, "to the …,"), (446, "gave a …"), (496, "to")):
            drawing.text(x, y + 15, words, size=12)
        for x, word in ((118, a), (206, b), (382, giver)):
            drawing.box(x - 29, y, 58, 30, word, colours.get(word, GREY), size=12)
        drawing.arrow(510, y + 15, 548, y + 15).box(550, y, 66, 30, answer, colours[answer], size=12)
    return drawing


def circuit(heads: Mapping[str, str] = NAMED, looks_back: str = "") -> Drawing:
    """The core of the circuit, tokens to the right and layers upwards.

    Args:
        heads: for each kind of `NAMED` its heads.
        looks_back: the share of attention that the name-carrying head at S2 pays to S1, such as "66%".
    """
    drawing = Drawing(
        620,
        356,
        "The core of the circuit. At both first mentions and at the second mention of John, head "
        f"{heads['name-carrying']} of layer 0 writes which name is there. At the last token, name movers read both "
        "first mentions and raise Mary and John; suppression heads read the second mention and lower John. What "
        "makes them look there is open. MLPs amplify the sum, and the answer is Mary. Not drawn: indirect name movers, "
        "which read both names from a comma or full stop.",
    )
    columns = ((92, "Mary", "IO"), (210, "John", "S1"), (328, "John", "S2"), (465, "to", "END"))
    for x, word, role in columns:
        drawing.box(x - 36, 304, 72, 26, word, GREY).text(x, 344, role, size=12)
    for x, name, _ in columns[:3]:
        drawing.arrow(x, 304, x, 276)
        drawing.box(x - 46, 232, 92, 44, f"{heads['name-carrying']} writes\n“{name}”", BLUE, size=12)
    drawing.arrow(234, 304, 288, 278).text(266, 302, looks_back, size=11, anchor="start")
    drawing.box(378, 166, 174, 50, f"suppression heads\n{heads['suppression heads']}", VERMILION, size=12)
    drawing.box(378, 76, 174, 50, f"name movers\n{heads['name movers']}", GREEN, size=12)
    drawing.arrow(465, 304, 465, 218, "why at S2?\nstill open", dashed=True, size=11)
    drawing.arrow(334, 232, 376, 200, colour=VERMILION).text(334, 204, "John", size=12, colour=VERMILION)
    drawing.arrow(92, 232, 376, 96, colour=GREEN).text(180, 172, "Mary", size=12, colour=GREEN)
    drawing.arrow(210, 232, 376, 114, colour=GREEN).text(268, 170, "John", size=12, colour=GREEN)
    drawing.box(562, 76, 56, 140, "MLPs\namplify", ORANGE, size=12)
    drawing.arrow(552, 101, 561, 101, colour=GREEN).arrow(552, 191, 561, 191, colour=VERMILION)
    drawing.text(465, 64, "+ Mary  + John", size=12, colour=GREEN).text(465, 154, "− John", size=12, colour=VERMILION)
    drawing.arrow(590, 76, 590, 44).box(544, 10, 74, 34, "Mary", GREY)
    drawing.text(
        2,
        16,
        "Not drawn: indirect name movers, which\nread both names from a comma or full stop",
        size=11,
        anchor="start",
    )
    return drawing.text(2, 101, "layers\n1 to 3", size=11, anchor="start").text(
        2, 254, "layer\n0", size=11, anchor="start"
    )


def two_ways_to_patch() -> Drawing:
    """Activation patching lets all that comes later react; path patching keeps the other heads as they were."""
    drawing = Drawing(
        620,
        250,
        "Two panels. In both, one head's output comes from the other run. Activation patching, left: the later heads, "
        "the MLPs and the answer all react. Path patching, right: the other heads are frozen at their outputs in the "
        "original run, only the MLPs and the answer react.",
    )
    panels = (
        (0, "activation patching", "later heads\nreact", ORANGE),
        (320, "path patching", "other heads\nfrozen", ""),
    )
    for left, name, heads, colour in panels:
        drawing.text(left + 150, 12, name, bold=True)
        drawing.box(left + 90, 182, 120, 44, "one head, from\nthe other run", VERMILION, size=12)
        drawing.box(left + 4, 106, 96, 44, heads, colour, size=12, dashed=not colour)
        drawing.box(left + 200, 106, 96, 44, "MLPs\nreact", ORANGE, size=12)
        drawing.box(left + 110, 32, 80, 40, "answer", ORANGE, size=12)
        drawing.arrow(left + 112, 182, left + 66, 152, dashed=not colour).arrow(left + 188, 182, left + 234, 152)
        drawing.arrow(left + 66, 106, left + 118, 74, dashed=not colour).arrow(left + 234, 106, left + 182, 74)
        drawing.arrow(left + 150, 182, left + 150, 74)
    return drawing.text(470, 242, "dashed: does not pass the change on", size=11)
