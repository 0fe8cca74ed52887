"""Every check of notebook 04: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import right, wrong_and_told
from torch.nn.functional import normalize

from sae_tutorial.course.sparse_autoencoders import exercises as ex

SOLUTIONS = {
    ex.check_best_code: ex.solution_best_code,
    ex.check_refit: ex.solution_refit,
    ex.check_dodge: ex.solution_dodge,
    ex.check_draw: ex.solution_draw,
    ex.check_mmcs: ex.solution_mmcs,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_best_code, lambda s, alpha: s - alpha, "mind the 2"),
        (ex.check_best_code, lambda s, alpha: s - alpha / 2, "never negative"),
        (ex.check_best_code, lambda s, alpha: s if s > alpha / 2 else 0, "the best code is 0.80"),
        (ex.check_refit, lambda x, c, D: c, "could be"),
        (ex.check_refit, lambda x, c, D: c[:3], "shape (3,)"),
        (ex.check_refit, lambda x, c, D: torch.linalg.lstsq(D.T, x[:, None]).solution[:, 0], "are now on"),
        (ex.check_dodge, lambda W, b, V, s: W / s, "three things"),
        (ex.check_dodge, lambda W, b, V, s: (W / s, b, V * s), "forget the bias"),
        (ex.check_dodge, lambda W, b, V, s: (W / s, b / s, V), "reconstruction moved"),
        (ex.check_dodge, lambda W, b, V, s: (W, b, V), "it is 1 times"),
        (ex.check_draw, lambda loss: loss**2, "not to 1"),
        (ex.check_draw, lambda loss: loss / loss.sum(), "four times as often"),
        (ex.check_draw, lambda loss: loss.softmax(0), "softmax"),
        (ex.check_draw, lambda loss: (loss**2).sum(), "shape ()"),
        (ex.check_mmcs, lambda t, D: (normalize(t, dim=1) @ D.T).amax(1).mean(), "does not care about norms"),
        (ex.check_mmcs, lambda t, D: (t @ normalize(D, dim=1).T).amax(1).mean(), "normalise the truth as well"),
        (ex.check_mmcs, lambda t, D: (normalize(t, dim=1) @ normalize(D, dim=1).T).abs().amax(1).mean(), "sign"),
        (ex.check_mmcs, lambda t, D: ex.solution_mmcs(D, t), "each true direction"),
        (ex.check_mmcs, lambda t, D: 1.0, "sign"),
        (ex.check_mmcs, lambda t, D: (normalize(t, dim=1) @ normalize(D, dim=1).T).mean(), "you say"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_an_exception_of_the_learner_is_shown():
    assert "ZeroDivisionError" in ex.check_best_code(lambda s, alpha: 1 / 0).message


def test_a_token_without_features_is_left_alone():
    refitted = ex.solution_refit(torch.ones(3), torch.zeros(5), torch.randn(5, 3))
    assert (refitted == 0).all()
