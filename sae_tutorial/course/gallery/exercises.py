"""The exercises of the gallery, one for each notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, known_mistake

# Speculative Jacobi: what is drawn from where a draft was refused.


def check_residual(answer: Any) -> Verdict:
    """`answer(p, q)`: two distributions (L,) -> (L,), the one to draw from after a draft drawn from q was refused."""
    p, q = torch.tensor([0.5, 0.2, 0.3, 0.0]), torch.tensor([0.1, 0.6, 0.2, 0.1])
    right = solution_residual(p, q)

    def a_distribution(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(p.clone(), q.clone())).float()
        if got.shape != (4,):
            return f"return a probability for each of the levels, here (4,); yours is {tuple(got.shape)}"
        return None

    def the_right_one(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(p.clone(), q.clone())).float()
        if torch.allclose(got, right, atol=1e-5):
            return None
        more = p - q
        wrong = {
            "accepted drafts already bring a part of p: what is missing is not all of p": p,
            "that is what drafts have too much of; which levels have too little?": (-more).clamp(min=0)
            / (-more).clamp(min=0).sum(),
            "a probability is not negative: cut off what p has less of": more,
            "probabilities sum to 1: divide by their sum": more.clamp(min=0),
            "a draft that was refused is no reason to draw from q again": q,
            "divide after cutting off, so that what is left sums to 1": (more / more.abs().sum()).clamp(min=0),
        }
        return known_mistake(got, wrong) or f"level 0 should have {right[0]:.3f}; yours says {got[0]:.3f}"

    hints = (
        "A level comes out of a kept draft with probability min(p, q). p is to come out in all: what is missing?",
        "p − min(p, q) is (p − q) where that is positive. Then make it sum to 1.",
    )
    praise = "Accepted and redrawn together have exactly p, whatever q was; only the number of refusals depends on it."
    return judge("The exercise", answer, [a_distribution, the_right_one], hints, praise)


def solution_residual(p: Tensor, q: Tensor) -> Tensor:
    missing = (p - q).clamp(min=0)
    return missing / missing.sum()


# Maestro: how often ordered dropout trains each column.


def check_shares(answer: Any) -> Verdict:
    """`answer(r)`: a number of columns -> the share of the steps in which each of them is trained, (r,)."""

    def got(answer: Callable, r: int) -> Tensor:
        return torch.as_tensor(answer(r)).float()

    def one_for_each(answer: Callable) -> str | None:
        shape = tuple(got(answer, 4).shape)
        return None if shape == (4,) else f"return a share for each of the columns, here (4,); yours is {shape}"

    def the_shares(answer: Callable) -> str | None:
        found, right = got(answer, 4), torch.tensor(solution_shares(4))
        if torch.allclose(found, right, atol=1e-5) and torch.allclose(got(answer, 7), torch.tensor(solution_shares(7))):
            return None
        wrong = {
            "the other way round: with b = 1 it is the *first* column that is trained": right.flip(0),
            "that is how often b is each number; column j is trained for all b of j and more": torch.full((4,), 0.25),
            "all are trained only where b is largest": torch.ones(4),
            "that counts from 0: the first column is trained at every step": (right - 0.25),
            "that is how many of the r numbers, not their share": 4 * right,
        }
        return known_mistake(found, wrong) or f"of 4 columns the second is trained in 75%; yours says {found[1]:.0%}"

    hints = (
        "Write down the columns that are trained for b = 1, for b = 2, …, and count.",
        "Column j, counted from 1, is trained for b = j, j + 1, …, r.",
    )
    praise = "The first column learns at every step, and must do well alone; the last is rarely asked."
    return judge("The exercise", answer, [one_for_each, the_shares], hints, praise)


def solution_shares(r: int) -> list[float]:
    return [(r - j) / r for j in range(r)]


# COMET: a step that is smooth, and exactly 0 or 1 outside a band.


def check_smooth_step(answer: Any) -> Verdict:
    """`answer(t, gamma)`: numbers of any shape, and the width of the band -> the smooth step of each."""
    t, gamma = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.4, 1.0, 5.0]), 2.0
    right = solution_smooth_step(t, gamma)

    def one_for_each(answer: Callable) -> str | None:
        shape = tuple(torch.as_tensor(answer(t.clone(), gamma)).shape)
        return None if shape == (7,) else f"return a number for each of t, here (7,); yours has the shape {shape}"

    def the_step(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(t.clone(), gamma)).float()
        if torch.allclose(got, right, atol=1e-5):
            return None
        middle = -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
        wrong = {
            "the polynomial goes on outside of the band: there it must be 0 or 1": middle,
            "cutting the polynomial off at 0 and 1 is not enough: far out it comes back": middle.clamp(0, 1),
            "the band reaches from −γ/2 to γ/2; yours is twice as wide": solution_smooth_step(t, 2 * gamma),
            "that is a hard step; inside the band it is smooth": (t > 0).float(),
            "that falls where it should rise": 1 - right,
            "a sigmoid is never exactly 0 or 1": torch.sigmoid(t),
        }
        return known_mistake(got, wrong) or f"at t = 0.4 and γ = 2 it is {right[4]:.3f}; yours says {got[4]:.3f}"

    hints = (
        "What is the polynomial at t = γ/2? And what should come out for every larger t?",
        "Clamp t to the band first; then the polynomial alone is right everywhere.",
    )
    praise = "Exactly 0 outside of the band: an expert that is not reached is not asked at all."
    return judge("The exercise", answer, [one_for_each, the_step], hints, praise)


def solution_smooth_step(t: Tensor, gamma: float) -> Tensor:
    t = t.clamp(-gamma / 2, gamma / 2)
    return -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
