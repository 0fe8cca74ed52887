"""Every check of notebook 07: the stub, the solution, and the mistakes that learners make."""

import numpy as np
import pytest
from exercises import right

from sae_tutorial.course.zipf_densities import exercises as ex

SOLUTIONS = {
    ex.check_slope: ex.solution_slope,
    ex.check_split_ranking: ex.solution_split_ranking,
    ex.check_tokens_needed: ex.solution_tokens_needed,
    ex.check_clipped_head: ex.solution_clipped_head,
    ex.check_simon: ex.solution_simon,
}


def unnormalised(n_features, n_matches, n_tokens, exponent, offset):
    return int((n_matches * (np.arange(1, n_features + 1) + offset) ** -exponent > n_tokens).sum())


def at_least_the_batch(n_features, n_matches, n_tokens, exponent, offset):
    weights = (np.arange(1, n_features + 1) + offset) ** -exponent
    return int((n_matches * weights / weights.sum() >= n_tokens).sum())


def everyone_alike(n, new, rng):
    """Copies an earlier feature instead of the feature of an earlier match."""
    owners, born = [0], 1
    for _ in range(1, n):
        if rng.random() < new:
            owners.append(born)
            born += 1
        else:
            owners.append(int(rng.integers(born)))
    return np.bincount(owners)


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_slope, lambda r, s, q: s * r / (r + q), "negative"),
        (ex.check_slope, lambda r, s, q: -s, "at rank 1"),
        (ex.check_slope, lambda r, s, q: -s / (r + q), "far out"),
        (ex.check_split_ranking, lambda a, b: np.sort(b)[::-1], "sorted the second half by itself"),
        (ex.check_split_ranking, lambda a, b: np.sort(a)[::-1], "counts of the first half"),
        (ex.check_split_ranking, lambda a, b: b[np.argsort(a)], "rarest comes first"),
        (ex.check_split_ranking, lambda a, b: b.sum(), "shape ()"),
        (ex.check_split_ranking, lambda a, b: b[np.argsort(np.argsort(-a))], "argsort once, not twice"),
        (ex.check_split_ranking, lambda a, b: b, "you say [4, 1, 2, 7, 3]"),
        (ex.check_tokens_needed, lambda x, e: 1 / (x * e), "root of the count"),
        (ex.check_tokens_needed, lambda x, e: 1 / x, "it takes 10,000 tokens"),
        (ex.check_clipped_head, unnormalised, "must sum to 1"),
        (ex.check_clipped_head, lambda *_: 0, "there are 4"),
        (ex.check_clipped_head, at_least_the_batch, "not >="),
        (ex.check_simon, everyone_alike, "not an earlier *feature*"),
        (ex.check_simon, lambda n, new, rng: np.array([n]), "about 2,000 features"),
        (ex.check_simon, lambda n, new, rng: np.ones(3), "sum to 3"),
        (ex.check_simon, lambda n, new, rng: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    verdict = check(wrong)
    assert not verdict.passed and says in verdict.message
