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
        pytest.param(lambda g: g.norm() / g.std(), "single entry", marks=pytest.mark.filterwarnings("ignore:std")),
    ],
)
def test_wrong_ratios_are_told_why(answer, words):
    said(training.check_ratio(answer), words)


def test_the_solution_for_smallest_weights_passes():
    assert training.check_smallest(training.solution_smallest)


def scored(score, weights, share):
    """The `share` of lowest scores among all matrices."""
    scores = [score(w) for w in weights]
    t = torch.cat([one.flatten() for one in scores]).sort().values[round(share * sum(w.numel() for w in weights))]
    return [one < t for one in scores]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda ws, share: torch.cat([w.flatten() for w in ws]) > 0, "a mask of the shape of each matrix"),
        (lambda ws, share: scored(lambda w: -w.abs(), ws, share), "those are the largest"),
        (lambda ws, share: scored(lambda w: w, ws, share), "the most negative"),
        (lambda ws, share: [scored(torch.abs, [w], share)[0] for w in ws], "a share of each matrix"),
        (lambda ws, share: [~one for one in training.solution_smallest(ws, share)], "upside down"),
        (lambda ws, share: [w.abs() < share for w in ws], "takes `share` for the threshold"),
        (lambda ws, share: [w.abs() < 0 for w in ws], "are to be chosen"),
    ],
)
def test_wrong_choices_of_weights_are_told_why(answer, words):
    said(training.check_smallest(answer), words)


def test_a_threshold_is_as_good_as_an_order():
    assert training.check_smallest(lambda ws, share: scored(torch.abs, ws, share))
