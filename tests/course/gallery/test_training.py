"""Exercises of the gallery's notebooks on training."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import training


def test_the_solution_for_the_ratio_passes():
    assert training.check_ratio(training.solution_ratio)


@pytest.mark.parametrize("shape", [(400,), (30, 20), (4, 5, 6)])
def test_the_ratio_of_centred_noise_is_the_root_of_its_size(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    g = 3 * (g - g.mean())
    assert training.solution_ratio(g).item() == pytest.approx((g.numel() - 1) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda g: g / g.std(), "return one number"),
        (lambda g: g.mean() / g.std(), "the usual ratio"),
        (lambda g: g.abs().mean() / g.std(), "the mean's size is not the norm"),
        (lambda g: g.norm() ** 2 / g.std(), "that is the square"),
        (lambda g: g.norm() / g.var(), "divides by the variance"),
        (lambda g: g.std() / g.norm(), "upside down"),
        (lambda g: g.square().mean().sqrt() / g.std(), "do not divide by the number"),
        (lambda g: g.norm() / g.std(correction=0), "divides by n − 1"),
        (lambda g: g.norm(), "it should be"),
        (lambda g: g.norm() / g.std(), "single entry"),
    ],
)
def test_wrong_ratios_are_told_why(answer, words):
    said(training.check_ratio(answer), words)
