"""Exercises of the gallery's notebooks on memory."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import memory


def test_the_solution_for_chances_passes():
    assert memory.check_chances(memory.solution_chances)


def weights(V, G, chi, lam, phi, floor):
    return chi * (G - floor) / (1 - floor) * torch.sigmoid(lam * (V - phi))


def share(mu):
    return mu / mu.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda V, G, *how: G, "of the shape of V"),
        (lambda V, G, *how: 1 + weights(V, G, *how), "divide by the sum"),
        (lambda V, G, *how: share(weights(V, G, *how)), "without the 1"),
        (lambda V, G, *how: memory.solution_chances(V, 1 + how[3] - G, *how), "more noise"),
        (lambda V, G, chi, lam, phi, floor: memory.solution_chances(V, G, chi, lam, phi, 0.0), "above its floor"),
        (lambda V, G, *how: (1 + weights(V, G, *how)) / (1 + weights(V, G, *how)).sum(), "units of one module"),
        (lambda V, G, *how: torch.nn.functional.one_hot(V.argmax(-1), 4), "no noise"),
        (lambda V, G, chi, lam, phi, floor: share(1 + chi * (G - floor) / (1 - floor) * V.sigmoid()), "not of V alone"),
        (lambda V, G, *how: share(1 + weights(V, G, *how)), "not negative"),
        (lambda V, G, *how: share(V), "yours says"),
    ],
)
def test_wrong_chances_are_told_why(answer, words):
    said(memory.check_chances(answer), words)
