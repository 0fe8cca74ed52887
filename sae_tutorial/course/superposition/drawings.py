"""Drawings of notebook 02: the toy model, its two relatives, and what features do to each other in the pentagon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures.drawings import INK, Drawing
from sae_tutorial.figures.style import PALETTE
from sae_tutorial.figures.text import on

BLUE, ORANGE, GREEN, GREY = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[6]
Units = tuple[str, list[float], str, str]  # name, values (how full each unit is drawn), colour, words below


def toy_model() -> Drawing:
    """x → W → h → Wᵀ → + b, ReLU → x'."""
    alt = (
        "The toy model: five features x, of which one is on, are multiplied by W into two hidden numbers h; the "
        "transpose of W, a bias and a ReLU make five outputs x' of them, which should equal x."
    )
    x, h = ("x", [0.0, 0, 1, 0, 0], BLUE, "n features,\nmost of them 0"), ("h", [0.6, 0.9], ORANGE, "m < n\ndimensions")
    back = ("x'", [0, 0.15, 1, 0.15, 0], BLUE, "should\nequal x")
    return _chain(alt, [x, h, back], ["W", "Wᵀ"], ["", "+ b, ReLU"], below=["(m, n)", "the same weights"])


def model_with_neurons() -> Drawing:
    """x → W → ReLU → h → Wᵀ → + b, ReLU → x'."""
    alt = (
        "The toy model with neurons: ten features x are multiplied by W, a ReLU makes five neurons h of them, and the "
        "transpose of W, a bias and a second ReLU make ten outputs x'."
    )
    x = ("x", [0, 1, 0, 0, 0.5, 0, 0, 0, 0, 0], BLUE, "10 features")
    h = ("h", [0, 0.8, 0, 0.4, 0], ORANGE, "5 neurons")
    back = ("x'", [0, 1, 0.1, 0, 0.5, 0, 0, 0.1, 0, 0], BLUE, "should\nequal x")
    return _chain(alt, [x, h, back], ["W", "Wᵀ"], ["ReLU", "+ b, ReLU"])


def model_that_computes() -> Drawing:
    """x → W_in → ReLU → h → W_out → + b, ReLU → y."""
    alt = (
        "A model that computes: ten features x between minus one and one are multiplied by W_in, a ReLU makes six "
        "neurons h, and a second matrix W_out, a bias and a ReLU make ten outputs y, which should equal the absolute "
        "value of x."
    )
    x = ("x", [0, -1, 0, 0.5, 0, 0, 0, 0, 0, 0], BLUE, "10 features in [−1, 1],\nvermilion: negative")
    h = ("h", [0, 0.8, 0, 0, 0.4, 0], ORANGE, "6 neurons")
    back = ("y", [0, 1, 0, 0.5, 0, 0, 0, 0, 0, 0], GREEN, "should\nequal |x|")
    return _chain(alt, [x, h, back], ["W_in", "W_out"], ["ReLU", "+ b, ReLU"])


def meetings(
    W: Float[Tensor, "2 features"], cases: Mapping[str, tuple[Sequence[int], Float[Tensor, " features"]]]
) -> Drawing:
    """A panel for each case: the directions of all features, h as the sum of those that are on, what each output reads.

    Args:
        W: the directions; the model is drawn turned so that its first feature points up.
        cases: what stands below a panel -> (features that are on, what every output reads).
    """
    wide, reach = 620 / len(cases), 59 / float(W.norm(dim=0).max())
    alt = "Feature directions of a trained model, with what each output reads. " + "; ".join(
        f"{name.partition(chr(10))[0]}: {', '.join(f'{value:.2f}' for value in read.tolist())}"
        for name, (_, read) in cases.items()
    )
    drawing = Drawing(620, 262, alt + ".")
    turn = math.pi / 2 - math.atan2(float(W[1, 0]), float(W[0, 0]))

    def at(vector: Tensor, centre: float, more: float = 0.0) -> tuple[float, float]:
        """Where a vector ends, or `more` px beyond."""
        x, y = vector.tolist()
        angle, length = math.atan2(y, x) + turn, reach * math.hypot(x, y) + more
        return centre + length * math.cos(angle), 128 - length * math.sin(angle)

    for panel, (name, (active, read)) in enumerate(cases.items()):
        centre = wide * (panel + 0.5)
        for i in range(W.shape[1]):
            on_now, words = i in active, at(W[:, i], centre, 21)
            line = [(centre, 128), at(W[:, i], centre, 0 if on_now else -10)]
            drawing.line(line, PALETTE[i % len(PALETTE)], width=3 if on_now else 1, dashed=not on_now)
            drawing.text(words[0] + 0.08 * (words[0] - centre), words[1], f"{read[i]:.2f}", bold=on_now)
        h = at(W[:, list(active)].sum(dim=1), centre)
        drawing.arrow(centre, 128, *h, width=2.5)
        for i in range(W.shape[1]):
            on_now, colour = i in active, PALETTE[i % len(PALETTE)]
            drawing.dot(*at(W[:, i], centre), 10, colour, open=not on_now)
            number = on(colour) if on_now else INK
            drawing.text(*at(W[:, i], centre), str(i), size=12, bold=on_now, colour=number)
        if len(active) > 1:
            drawing.text(h[0], h[1] - 11, "h", bold=True)
        drawing.text(centre, 240, name)
    return drawing


def _chain(
    alt: str, columns: Sequence[Units], matrices: Sequence[str], bends: Sequence[str], below: Sequence[str] = ("", "")
) -> Drawing:
    """Columns of units with a matrix between each two, and what is done to its result before the next column."""
    drawing, middle = Drawing(620, 215, alt), 100.0
    centres = [70.0, 310.0, 550.0]
    step = min(26.0, 130 / (max(len(values) for _, values, _, _ in columns) - 1))  # px; clear of the words
    radius = 10 * step / 26
    for centre, (name, values, colour, words) in zip(centres, columns, strict=True):
        top = middle - step / 2 * (len(values) - 1)
        drawing.text(centre, 12, name, size=16, bold=True)
        for i, value in enumerate(values):
            drawing.dot(centre, top + step * i, radius, colour, open=True)
            if value:
                size = max(1.5, radius * abs(value))
                drawing.dot(centre, top + step * i, size, colour if value > 0 else PALETTE[3])
        drawing.text(centre, 196, words)
    for i, (matrix, bend, note) in enumerate(zip(matrices, bends, below, strict=True)):
        left, right, centre = centres[i] + 18, centres[i + 1] - 18, centres[i] + 95
        drawing.arrow(left, middle, centre - 32, middle)
        drawing.box(centre - 32, middle - 24, 64, 48, matrix, GREY, size=16)
        drawing.arrow(centre + 32, middle, right, middle, bend)
        drawing.text(centre, middle + 40, note)
    return drawing
