"""Exercises of the gallery's notebooks on experts: which part of a network answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# COMET: a step that is smooth, and exactly 0 or 1 outside a band.


def check_smooth_step(answer: Any) -> Verdict:
    """`answer(t, gamma)`: numbers of any shape, and the width of the band -> the smooth step of each."""
    t, gamma = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.4, 1.0, 5.0]), 2.0
    right = solution_smooth_step(t, gamma)
    middle = -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
    wrong = {
        "the polynomial goes on outside of the band: there it must be 0 or 1": middle,
        "cutting the polynomial off at 0 and 1 is not enough: far out it comes back": middle.clamp(0, 1),
        "the band reaches from −γ/2 to γ/2; yours is twice as wide": solution_smooth_step(t, 2 * gamma),
        "that is a hard step; inside the band it is smooth": (t > 0).float(),
        "that falls where it should rise": 1 - right,
        "a sigmoid is never exactly 0 or 1": torch.sigmoid(t),
    }
    tests = numbers_like(
        lambda answer: answer(t.clone(), gamma),
        right,
        wrong,
        "return a number for each of t, here (7,)",
        f"at t = 0.4 and γ = 2 it is {right[4]:.3f}; yours says {{0[4]:.3f}}",
    )
    hints = (
        "What is the polynomial at t = γ/2? And what should come out for every larger t?",
        "Clamp t to the band first; then the polynomial alone is right everywhere.",
    )
    praise = "Exactly 0 outside of the band: an expert that is not reached is not asked at all."
    return judge("The exercise", answer, tests, hints, praise)


def solution_smooth_step(t: Tensor, gamma: float) -> Tensor:
    t = t.clamp(-gamma / 2, gamma / 2)
    return -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
