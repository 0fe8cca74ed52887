"""Exercises of the gallery's notebooks on latent variables."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import latent


def test_the_solution_for_kl_passes():
    assert latent.check_kl(latent.solution_kl)


def centred(x):
    return x - x.mean(0)


def fit(x, y):
    return x @ torch.linalg.lstsq(x, y).solution


def rest(x, y):
    return centred(y) - fit(centred(x), centred(y))


def variances(part, n):
    return torch.linalg.svdvals(part)[:n] ** 2 / len(part)


def worth(v, floor):
    return (v / floor).log().clamp(min=0) / 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda x, y, floor, n: worth(variances(rest(x, y), n), floor).sum(), "one KL for each"),
        (lambda x, y, floor, n: worth(variances(centred(y), n), floor), "without x"),
        (lambda x, y, floor, n: worth(variances(fit(centred(x), centred(y)), n), floor), "x foretells"),
        (lambda x, y, floor, n: worth(variances(y - fit(x, y), n), floor), "means off"),
        (lambda x, y, floor, n: worth(variances(rest(x, y), n).sqrt(), floor), "not standard deviations"),
        (lambda x, y, floor, n: 2 * worth(variances(rest(x, y), n), floor), "twice as much"),
        (lambda x, y, floor, n: (variances(rest(x, y), n) / floor).log() / 2, "not negative"),
        (lambda x, y, floor, n: (1 + variances(rest(x, y), n) / floor).log() / 2, "without 1 +"),
        (lambda x, y, floor, n: worth(variances(rest(x, y), n) * len(x), floor), "divide by the number"),
        (lambda x, y, floor, n: worth(variances(rest(x, y), 4), floor), "two numbers"),
        (lambda x, y, floor, n: worth(variances(rest(x, y), n), floor) + 0.1, "the largest should be"),
    ],
)
def test_wrong_kls_are_told_why(answer, words):
    said(latent.check_kl(answer), words)


def test_without_x_and_with_constant_columns_the_solution_is_that_of_a_vae():
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    alone = latent.solution_kl(y[:, :0], y, 0.1, 3)
    torch.testing.assert_close(latent.solution_kl(torch.ones(50, 2), y, 0.1, 3), alone)
    assert (latent.solution_kl(y, y, 0.1, 3) == 0).all(), "x says all of y: every latent collapses"
