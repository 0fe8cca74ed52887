"""Exercises of the gallery's notebooks on training: which weights learn, and how fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# SGD-SaI: the signal-to-noise ratio of a tensor's gradient.


def check_ratio(answer: Any) -> Verdict:
    """`answer(g)`: a gradient of any shape -> its norm over its standard deviation, and 0 for a single entry."""
    g = torch.tensor([[3.0, -1.0, 2.0], [0.0, 1.0, -4.0]])
    norm, std = g.norm(), g.std()
    wrong = {
        "the usual ratio has the mean above; here it is the norm": g.mean() / std,
        "the mean's size is not the norm: take the root of the sum of squares": g.abs().mean() / std,
        "that is the square: take the root of the sum of squares": norm**2 / std,
        "that divides by the variance; the standard deviation is its root": norm / std**2,
        "upside down: the norm stands above": std / norm,
        "the root of the *mean* of squares is not the norm; do not divide by the number of entries": (
            norm / g.numel() ** 0.5 / std
        ),
        "the standard deviation here divides by n − 1, as torch does": norm / g.std(correction=0),
    }
    tests = [
        *numbers_like(
            lambda answer: answer(g.clone()),
            solution_ratio(g),
            wrong,
            "return one number",
            f"it should be {float(solution_ratio(g)):.3f}; yours says {{0:.3f}}",
        ),
        *numbers_like(
            lambda answer: answer(torch.ones(1)), 0.0, {}, "return one number", "a tensor with a single entry gets 0"
        ),
    ]
    hints = (
        "Norm and standard deviation are those of all entries, whatever the shape: g.norm() and g.std().",
        "g.std() of one entry is not a number: ask g.numel() first.",
    )
    praise = "Multiply g by 10: the ratio stays. It knows the gradient's shape, not its size."
    return judge("The exercise", answer, tests, hints, praise)


def solution_ratio(g: Tensor) -> Tensor:
    return g.norm() / g.std() if g.numel() > 1 else torch.zeros(())
