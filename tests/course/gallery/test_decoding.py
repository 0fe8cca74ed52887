"""Exercises of the gallery's notebooks on decoding."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import decoding


def test_the_solution_for_residual_passes():
    assert decoding.check_residual(decoding.solution_residual)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda p, q: p.sum(), "for each of the levels"),
        (lambda p, q: p, "not all of p"),
        (lambda p, q: q, "no reason to draw from q"),
        (lambda p, q: p - q, "not negative"),
        (lambda p, q: (p - q).clamp(min=0), "sum to 1"),
        (lambda p, q: (q - p).clamp(min=0) / (q - p).clamp(min=0).sum(), "too much of"),
        (lambda p, q: torch.full((4,), 0.25), "yours says"),
    ],
)
def test_wrong_residuals_are_told_why(answer, words):
    said(decoding.check_residual(answer), words)


def test_the_solution_for_superposed_passes():
    assert decoding.check_superposed(decoding.solution_superposed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda scores, embeds: scores.softmax(0)[:, None] * embeds, "one embedding for all"),
        (lambda scores, embeds: embeds.mean(0), "plain mean"),
        (lambda scores, embeds: embeds[scores.argmax()], "top draft alone"),
        (lambda scores, embeds: scores @ embeds, "are logarithms"),
        (lambda scores, embeds: scores.exp() @ embeds, "sum to 1"),
        (lambda scores, embeds: (-scores).softmax(0) @ embeds, "least likely"),
        (lambda scores, embeds: scores / scores.sum() @ embeds, "sum of scores"),
        (lambda scores, embeds: (2 * scores).softmax(0) @ embeds, "yours is"),
    ],
)
def test_wrong_superpositions_are_told_why(answer, words):
    said(decoding.check_superposed(answer), words)
