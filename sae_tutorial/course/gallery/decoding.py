"""Exercises of the gallery's notebooks on decoding: how the next words, or the next pixels, are drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# Speculative Jacobi: what is drawn from where a draft was refused.


def check_residual(answer: Any) -> Verdict:
    """`answer(p, q)`: two distributions (L,) -> (L,), the one to draw from after a draft drawn from q was refused."""
    p, q = torch.tensor([0.5, 0.2, 0.3, 0.0]), torch.tensor([0.1, 0.6, 0.2, 0.1])
    right, more = solution_residual(p, q), p - q
    wrong = {
        "accepted drafts already bring a part of p: what is missing is not all of p": p,
        "that is what drafts have too much of; which levels have too little?": solution_residual(q, p),
        "a probability is not negative: cut off what p has less of": more,
        "probabilities sum to 1: divide by their sum": more.clamp(min=0),
        "a draft that was refused is no reason to draw from q again": q,
        "divide after cutting off, so that what is left sums to 1": (more / more.abs().sum()).clamp(min=0),
    }
    tests = numbers_like(
        lambda answer: answer(p.clone(), q.clone()),
        right,
        wrong,
        "return a probability for each of the levels, here (4,)",
        f"level 0 should have {right[0]:.3f}; yours says {{0[0]:.3f}}",
    )
    hints = (
        "A level comes out of a kept draft with probability min(p, q). p is to come out in all: what is missing?",
        "p − min(p, q) is (p − q) where that is positive. Then make it sum to 1.",
    )
    praise = "Accepted and redrawn together have exactly p, whatever q was; only the number of refusals depends on it."
    return judge("The exercise", answer, tests, hints, praise)


def solution_residual(p: Tensor, q: Tensor) -> Tensor:
    missing = (p - q).clamp(min=0)
    return missing / missing.sum()
