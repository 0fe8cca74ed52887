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


# MoTE: how much more often an expert is chosen when a behaviour shows.


def check_relevance(answer: Any) -> Verdict:
    """`answer(chosen, behaves)`: (inputs, experts) of 0 and 1, and (inputs,) bools -> for each expert the share of
    inputs with the behaviour for which it is chosen, less the share of those without."""
    chosen = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]]).float()
    behaves = torch.tensor([True, True, False, False, False])
    right = solution_relevance(chosen, behaves)
    with_it, without = chosen[behaves], chosen[~behaves]
    wrong = {
        "counts depend on how many inputs there are; take shares": with_it.sum(0) - without.sum(0),
        "that is the share with the behaviour alone; an expert that is always chosen would be first": with_it.mean(0),
        "the other way round: with the behaviour, less without": -right,
        "the sign is lost: an expert that is chosen less often is not relevant": right.abs(),
        "that compares with all inputs, also those with the behaviour": with_it.mean(0) - chosen.mean(0),
        "a ratio is infinite for an expert that is never chosen without; take the difference": (
            with_it.mean(0) / without.mean(0)
        ),
    }
    tests = numbers_like(
        lambda answer: answer(chosen.clone(), behaves.clone()),
        right,
        wrong,
        "return a number for each expert, here (4,)",
        f"an expert chosen for 1 of 2 inputs with and 1 of 3 without has {right[2]:.3f}; yours says {{0[2]:.3f}}",
    )
    hints = (
        "`chosen[behaves]` are the rows with the behaviour, `chosen[~behaves]` those without.",
        "The mean of a column of 0 and 1 is a share.",
    )
    praise = "Expert 0 is always chosen: relevance 0, whatever it says when it is asked."
    return judge("The exercise", answer, tests, hints, praise)


def solution_relevance(chosen: Tensor, behaves: Tensor) -> Tensor:
    return chosen[behaves].mean(0) - chosen[~behaves].mean(0)
