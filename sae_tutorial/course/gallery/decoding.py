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


# Superposed Decoding: what the model is fed for all drafts at once.


def check_superposed(answer: Any) -> Verdict:
    """`answer(scores, embeds)`: log-probabilities of drafts (k,), embeddings of their last tokens (k, d) -> (d,)."""
    scores = torch.tensor([0.6, 0.3, 0.06]).log() - 4
    embeds = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]])
    right = solution_superposed(scores, embeds)
    wrong = {
        "that is the plain mean: a draft that is likelier has more weight": embeds.mean(0),
        "that feeds the top draft alone; the others are to have their share": embeds[0],
        "scores are logarithms: weights are their exponentials": scores @ embeds,
        "the weights must sum to 1: divide by their sum": scores.exp() @ embeds,
        "that gives most to the least likely draft": solution_superposed(-scores, embeds),
        "weights are 0 to 1; a score divided by the sum of scores is none": scores / scores.sum() @ embeds,
    }
    tests = numbers_like(
        lambda answer: answer(scores.clone(), embeds.clone()),
        right,
        wrong,
        "return one embedding for all drafts, here (2,)",
        f"the first number should be {right[0]:.3f}; yours is {{0[0]:.3f}}",
    )
    hints = (
        "Which function makes log-probabilities into weights that are positive and sum to 1?",
        "The softmax of the scores, (k,), times the embeddings, (k, d).",
    )
    praise = "One input for all drafts: the likelier a draft, the more of it the model is shown."
    return judge("The exercise", answer, tests, hints, praise)


def solution_superposed(scores: Tensor, embeds: Tensor) -> Tensor:
    return scores.softmax(0) @ embeds
