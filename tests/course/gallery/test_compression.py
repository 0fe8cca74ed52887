"""Exercises of the gallery's notebooks on compression."""

import pytest
from verdicts import said

from sae_tutorial.course.gallery import compression


def test_the_solution_for_shares_passes():
    assert compression.check_shares(compression.solution_shares)


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
    said(compression.check_shares(answer), words)
