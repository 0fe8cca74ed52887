"""What notebooks of the gallery share, and their exercises."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course import gallery
from sae_tutorial.course.gallery import exercises


def test_digits_are_images_between_0_and_1_and_split_without_overlap():
    data = gallery.digits()
    assert data.train.shape == (1500, 64) and data.test.shape == (297, 64)
    assert data.train.min() == 0 and data.train.max() == 1 and set(data.test_label.tolist()) == set(range(10))
    whole = torch.cat([data.train, data.test]).sum()
    other = gallery.digits(seed=1)
    assert torch.isclose(torch.cat([other.train, other.test]).sum(), whole) and not torch.equal(other.test, data.test)


def test_differences_are_taken_pair_by_pair():
    found = gallery.paired([1.0, 2.0, 4.0], [0.0, 1.0, 3.0])
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    assert gallery.said(found, 1) == "1.0 [1.0, 1.0]"
    with pytest.raises(ValueError, match="shorter"):
        gallery.paired([1.0, 2.0], [0.0])


def test_a_verdict_is_a_table():
    page = gallery.Verdict("fewer passes", "digits", "12 of 64", "holds")._repr_markdown_()
    assert page.splitlines()[2:] == [
        "| **Claim** | fewer passes |",
        "| **Setting** | digits |",
        "| **Number** | 12 of 64 |",
        "| **Found** | holds |",
    ]


def test_the_solutions_pass():
    assert exercises.check_residual(exercises.solution_residual)
    assert exercises.check_shares(exercises.solution_shares)
    assert exercises.check_smooth_step(exercises.solution_smooth_step)


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
    said(exercises.check_residual(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda r: 0.5, "for each of the columns"),
        (lambda r: [(j + 1) / r for j in range(r)], "other way round"),
        (lambda r: [1 / r] * r, "how often b is each number"),
        (lambda r: [1.0] * r, "only where b is largest"),
        (lambda r: [(r - j - 1) / r for j in range(r)], "counts from 0"),
        (lambda r: [r - j for j in range(r)], "not their share"),
        (lambda r: [0.5**j for j in range(r)], "yours says"),
    ],
)
def test_wrong_shares_are_told_why(answer, words):
    said(exercises.check_shares(answer), words)


def middle(t, gamma):
    return -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda t, gamma: t.sum(), "for each of t"),
        (middle, "goes on outside"),
        (lambda t, gamma: middle(t, gamma).clamp(0, 1), "comes back"),
        (lambda t, gamma: exercises.solution_smooth_step(t, 2 * gamma), "twice as wide"),
        (lambda t, gamma: (t > 0).float(), "hard step"),
        (lambda t, gamma: exercises.solution_smooth_step(-t, gamma), "falls"),
        (lambda t, gamma: t.sigmoid(), "never exactly"),
        (lambda t, gamma: (t / gamma + 0.5).clamp(0, 1), "yours says"),
    ],
)
def test_wrong_steps_are_told_why(answer, words):
    said(exercises.check_smooth_step(answer), words)
