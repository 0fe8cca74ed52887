"""Drawings of notebook 01: the residual stream, one attention head, and how two heads copy."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.style import PALETTE

BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY = PALETTE[:7]


def residual_stream() -> Drawing:
    """A line from the embedding to the unembedding; attention and MLPs read from it and add to it."""
    alt = (
        "The residual stream: after the embedding, attention and an MLP of each layer read it and add to it; the last "
    )
    alt += "state is unembedded."
    drawing, y = Drawing(620, 236, alt), 140
    drawing.line([(74, y), (292, y)], width=5).line([(292, y), (326, y)], width=5, dashed=True)
    drawing.line([(326, y), (546, y)], width=5)
    drawing.box(2, y - 18, 76, 36, "embed", GREY).box(542, y - 18, 76, 36, "unembed", GREY)
    drawing.text(42, 208, "“Once upon a”", size=12).arrow(40, 196, 40, y + 20)
    drawing.arrow(580, y + 19, 580, 196).text(580, 208, "“time”?", size=12)
    for left, layer in ((90, "0"), (324, "L − 1")):
        drawing.box(left, 6, 206, 152, dashed=True).text(left + 103, 22, f"layer {layer}", bold=True)
        for x, name, colour in ((left + 8, "attention", BLUE), (left + 110, "MLP", ORANGE)):
            drawing.box(x, 38, 88, 36, name, colour)
            drawing.arrow(x + 16, y - 3, x + 16, 76).arrow(x + 72, 75, x + 72, y - 9)
            drawing.text(x + 20, 112, "reads", size=11, anchor="start").text(x + 68, 94, "adds", size=11, anchor="end")
            drawing.dot(x + 72, y, 9, colour).text(x + 72, y - 1, "+", size=16, colour="#FFFFFF", bold=True)
    drawing.text(310, 182, "the residual stream: one vector of D numbers for each position", bold=True)
    words = "Attention reads earlier positions too;\nan MLP reads one position at a time."
    return drawing.text(310, 212, words, size=12)


def attention_head() -> Drawing:
    """The last position asks with its query; it and the positions before it answer with keys and hand over values."""
    alt = "One attention head: the query of a position meets the keys of all positions up to it; the softmax of their "
    alt += "products weights the values, and W_O writes the weighted sum into the stream."
    drawing, right = Drawing(620, 366, alt), 384
    stream, made, dots, share, gathered, out = 308, 236, 206, 154, 82, 20  # heights of the rows
    for j, (token, weight) in enumerate((("Lily", 0.7), ("saw", 0.1), ("a", 0.2))):
        left, names = 8 + 106 * j, {"k": ORANGE, "v": GREEN} | ({"q": BLUE} if j == 2 else {})
        width = 50 * len(names) - 8
        drawing.box(left, stream, width, 28, f"x_{j}", GREY).text(left + width / 2, 350, f"“{token}”", size=12)
        for at, (name, colour) in zip((left, left + 50, left + 100), names.items(), strict=False):
            drawing.arrow(at + 21, stream - 1, at + 21, made + 29).box(at, made, 42, 28, f"{name}_{j}", colour)
        drawing.arrow(left + 71, made - 1, left + 71, gathered + 29, width=1 + 5 * weight)
        drawing.arrow(left + 21, made - 1, left + 21, share + 29).box(left, share, 42, 28, f"{weight}", VERMILION)
    drawing.line([(341, made), (341, dots), (29, dots)], BLUE, width=2)
    for x in (29, 135, 241):
        drawing.dot(x, dots, 4, BLUE)
    drawing.box(8, gathered, 304, 28, "0.7 v_0 + 0.1 v_1 + 0.2 v_2", GREEN)
    drawing.arrow(160, gathered - 1, 160, out + 29).box(104, out, 112, 28, "× W_O", SKY).arrow(
        217, out + 14, 330, out + 14
    )
    drawing.dot(341, out + 14, 10, SKY).text(341, out + 13, "+", size=16, bold=True, colour="#111111")
    for y, words in (
        (out, "what the head adds\nto the stream at “a”"),
        (gathered, "values, weighted by the shares:\nwhat “a” gathers"),
        (share, "softmax of the scores: shares\nthat sum to 1"),
        (dots - 14, "score: q_2 · k_j / √d_{head}"),
        (made, "W_Q, W_K and W_V make query,\nkeys and values, d_{head} numbers each"),
        (stream, "the residual stream\nafter LayerNorm"),
    ):
        drawing.text(right, y + 14, words, size=12, anchor="start")
    return drawing


def induction() -> Drawing:
    """Words said twice: one head notes which came before, a later head looks for that note and copies what follows."""
    alt = (
        "Induction: a previous-token head notes at “Tom” that “river” came before; at the second “river” an induction "
    )
    alt += "head looks for that note, finds “Tom” and predicts it."
    drawing, y = Drawing(620, 214, alt), 108
    words = ("river", "Tom", "blue", "bread", "river")
    for j, word in enumerate(words):
        drawing.box(14 + 96 * j, y, 82, 32, word, VERMILION if word == "river" else BLUE if word == "Tom" else GREY)
    drawing.box(494, y, 112, 32, "Tom?", dashed=True)
    drawing.arrow(55, y + 34, 140, y + 34, colour=ORANGE, bend=-22, width=2.5)
    drawing.arrow(439, y - 2, 152, y - 2, colour=GREEN, bend=-34, width=2.5)
    for number, x, height, told in (
        ("1", 30, 190, "A previous-token head notes at “Tom”:\n“river” came before."),
        (
            "2",
            132,
            28,
            "At the next “river”, an induction head of a later layer\nlooks for that note, and finds it at “Tom”.",
        ),
        ("3", 420, 190, "It copies “Tom” to where it is:\nthe prediction is “Tom”."),
    ):
        drawing.text(x - 14, height, number, size=20, bold=True).text(x, height, told, size=12, anchor="start")
    return drawing
