"""Exercises of the gallery's notebooks on memory: which units hold what."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# Sparsey: who wins in a module, by chances that familiarity sharpens.


def check_chances(answer: Any) -> Verdict:
    """`answer(V, G, chi, lam, phi, floor)`: (..., K), (..., 1) and four constants -> chances to win, (..., K)."""
    V, G = torch.tensor([[0.9, 0.5, 0.7, 0.1], [0.0, 0.6, 0.4, 0.3]]), torch.tensor([[0.9], [0.4]])
    chi, lam, phi, floor = 20.0, 8.0, 0.6, 0.2
    right = solution_chances(V, G, chi, lam, phi, floor)
    rise = torch.sigmoid(lam * (V - phi))
    eta = chi * (G - floor) / (1 - floor)
    wrong = {
        "those are the weights μ: divide by the sum of the module": 1 + eta * rise,
        "without the 1 nothing is left to chance, however new the input": eta
        * rise
        / (eta * rise).sum(1, keepdim=True),
        "that has more noise the more familiar the input is": solution_chances(V, 1 + floor - G, chi, lam, phi, floor),
        "what counts is how far G is above its floor, of 1 − floor": solution_chances(V, G, chi, lam, phi, 0.0),
        "the sum is over the units of one module, the last dimension": (1 + eta * rise) / (1 + eta * rise).sum(),
        "that has no noise at all": F.one_hot(V.argmax(1), 4),
        "the sigmoid is of λ (V − φ), not of V alone": (1 + eta * V.sigmoid())
        / (1 + eta * V.sigmoid()).sum(1, keepdim=True),
    }
    shape = "return a chance for each unit, of the shape of V, here (2, 4)"
    otherwise = f"the first unit should win with {right[0, 0]:.3f}; yours says {{0[0][0]:.3f}}"
    new, even = torch.tensor([[0.1]]), torch.full((1, 4), 0.25)
    uneven = {"below the floor η is 0, and not negative": _unclamped(V[:1], new, chi, lam, phi, floor)}
    below = "for G below the floor all units have the same chance, here 0.25; yours has {0[0][0]:.3f}"
    tests = [
        *numbers_like(
            lambda answer: answer(V.clone(), G.clone(), chi, lam, phi, floor), right, wrong, shape, otherwise
        ),
        *numbers_like(lambda answer: answer(V[:1].clone(), new, chi, lam, phi, floor), even, uneven, shape, below),
    ]
    hints = (
        "Begin with η, one number for each row. It must not be negative: which G makes it so?",
        "μ is 1 + η times a sigmoid, (..., K). Divide by its sum over the last dimension.",
    )
    praise = "The same line draws at random where all is new, and repeats the old code where all is known."
    return judge("The exercise", answer, tests, hints, praise)


def solution_chances(V: Tensor, G: Tensor, chi: float, lam: float, phi: float, floor: float) -> Tensor:
    eta = chi * ((G - floor) / (1 - floor)).clamp(min=0)
    mu = 1 + eta * torch.sigmoid(lam * (V - phi))
    return mu / mu.sum(-1, keepdim=True)


def _unclamped(V: Tensor, G: Tensor, chi: float, lam: float, phi: float, floor: float) -> Tensor:
    mu = 1 + chi * (G - floor) / (1 - floor) * torch.sigmoid(lam * (V - phi))
    return mu / mu.sum(-1, keepdim=True)
