"""Exercises of the gallery's notebooks on experts."""

import pytest
from verdicts import said

from sae_tutorial.course.gallery import experts


def test_the_solution_for_smooth_step_passes():
    assert experts.check_smooth_step(experts.solution_smooth_step)


def middle(t, gamma):
    return -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda t, gamma: t.sum(), "for each of t"),
        (middle, "goes on outside"),
        (lambda t, gamma: middle(t, gamma).clamp(0, 1), "comes back"),
        (lambda t, gamma: experts.solution_smooth_step(t, 2 * gamma), "twice as wide"),
        (lambda t, gamma: (t > 0).float(), "hard step"),
        (lambda t, gamma: experts.solution_smooth_step(-t, gamma), "falls"),
        (lambda t, gamma: t.sigmoid(), "never exactly"),
        (lambda t, gamma: (t / gamma + 0.5).clamp(0, 1), "yours says"),
    ],
)
def test_wrong_steps_are_told_why(answer, words):
    said(experts.check_smooth_step(answer), words)


def test_the_solution_for_the_relevance_passes():
    assert experts.check_relevance(experts.solution_relevance)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda chosen, behaves: chosen.mean(), "a number for each expert"),
        (lambda chosen, behaves: chosen[behaves].sum(0) - chosen[~behaves].sum(0), "take shares"),
        (lambda chosen, behaves: chosen[behaves].mean(0), "with the behaviour alone"),
        (lambda chosen, behaves: chosen[~behaves].mean(0) - chosen[behaves].mean(0), "the other way round"),
        (lambda chosen, behaves: (chosen[behaves].mean(0) - chosen[~behaves].mean(0)).abs(), "the sign is lost"),
        (lambda chosen, behaves: chosen[behaves].mean(0) - chosen.mean(0), "compares with all inputs"),
        (lambda chosen, behaves: chosen[behaves].mean(0) / chosen[~behaves].mean(0), "take the difference"),
        (lambda chosen, behaves: chosen.mean(0), "yours says"),
    ],
)
def test_wrong_relevances_are_told_why(answer, words):
    said(experts.check_relevance(answer), words)
