"""Every check of notebook 02: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import wrong_and_told

from sae_tutorial.course.superposition import exercises as ex


def kept(W):
    return W[:, W.norm(dim=0) > 0.5]


SOLUTIONS = {
    ex.check_superposed: ex.solution_superposed,
    ex.check_dimensionality: ex.solution_dimensionality,
    ex.check_three_quarters: ex.solution_three_quarters(),
    ex.check_phase_boundary: ex.solution_phase_boundary,
    ex.check_absolute_value: ex.solution_absolute_value(),
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    assert check(SOLUTIONS[check]).passed
    for stub in (None, lambda *_: None):
        verdict = check(stub) if stub is None or callable(SOLUTIONS[check]) else check(None)
        assert not verdict.passed and "not answered yet" in verdict.message


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_superposed, lambda W: W.shape[1] > torch.linalg.matrix_rank(W), "three are dropped"),
        (ex.check_superposed, lambda W: torch.linalg.matrix_rank(W) < (W.norm(dim=0) > 0).sum(), "norm 0.04"),
        (ex.check_superposed, lambda W: False, "the digon puts 2 features in 1 dimensions"),
        (ex.check_superposed, lambda W: torch.linalg.det(kept(W).T @ kept(W)) == 0, "use the rank"),
        (ex.check_superposed, lambda W: kept(W).shape[1] > W.shape[0], "Do not count rows"),
        (ex.check_superposed, lambda W: ((kept(W).T @ kept(W)).triu(1).abs() > 0.1).any(), "at 60°"),
        (ex.check_dimensionality, lambda W: ex.solution_dimensionality(W).sum(), "shape ()"),
        (ex.check_dimensionality, lambda W: 1 / ((W / W.norm(dim=0)).T @ W).square().sum(1), "numerator"),
        (ex.check_dimensionality, lambda W: W.norm(dim=0) ** 2 / (W.T @ W).square().sum(1), "*unit* vector"),
        (ex.check_dimensionality, lambda W: W.norm(dim=0) ** 2, "the digon"),
        (ex.check_three_quarters, torch.eye(3), "(3, 3)"),
        (ex.check_three_quarters, 2 * ex.solution_three_quarters(), "make each 1"),
        (ex.check_three_quarters, torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "[0.5, 0.5, 1.0, 1.0]"),
        (ex.check_phase_boundary, lambda r: 0.5, "4/7"),
        (ex.check_phase_boundary, lambda r: 4 * r / (2 * (1 + r) + 3 * r), "feature 1 that gets dropped"),
        (ex.check_absolute_value, (torch.eye(3), torch.eye(3)), "((3, 3), (3, 3))"),
        (ex.check_absolute_value, torch.eye(3), "pair"),
        (
            ex.check_absolute_value,
            (torch.cat([torch.eye(3)] * 2), torch.cat([torch.eye(3) / 2] * 2, dim=1)),
            "negative inputs",
        ),
        (ex.check_absolute_value, (torch.full((6, 3), torch.nan), torch.zeros(3, 6)), "off by up to nan"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_an_exception_of_the_learner_is_shown():
    assert "ZeroDivisionError" in ex.check_phase_boundary(lambda r: 1 / 0).message
