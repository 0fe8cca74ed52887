"""Every check of notebook 05: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import right, wrong_and_told

from sae_tutorial.course.sparse_allocation import exercises as ex

SOLUTIONS = {
    ex.check_top_k: ex.solution_top_k,
    ex.check_greedy_token: ex.solution_greedy_token,
    ex.check_zipf_shares: ex.solution_zipf_shares,
    ex.check_threshold: ex.solution_threshold,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


def zipf_from_zero(n_features, n_matches, exponent, offset):
    weights = (torch.arange(n_features).double() + offset) ** -exponent
    return n_matches * weights / weights.sum()


def mean_of_weakest(batches, k):
    return sum(float(b.flatten().topk(k * len(b)).values[-1]) for b in batches) / len(batches)


def weakest_match(batches, k):
    return float(torch.cat(batches).flatten().topk(k * sum(map(len, batches))).values[-1])


def first_left_out(batches, k):
    return float(torch.cat(batches).flatten().topk(k * sum(map(len, batches)) + 1).values[-1])


def quantile(batches, k):
    values = torch.cat(batches)
    return float(torch.quantile(values.flatten(), 1 - k / values.shape[1]))


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_top_k, lambda a, k: a.topk(k, dim=1).values, "(6, 2)"),
        (ex.check_top_k, lambda a, k: a * (a >= a.topk(k, dim=1).values[:, -1:]), "negative"),
        (ex.check_top_k, lambda a, k: a.relu() * (a >= a.topk(k, dim=1).values[:, -1:]), "with ties, >= lets in more"),
        (ex.check_top_k, lambda a, k: ex.solution_top_k(a.T, k).T, "Feature Choice"),
        (ex.check_top_k, lambda a, k: ex.solution_top_k(a, k + 1), "tokens should have"),
        (ex.check_top_k, lambda a, k: (ex.solution_top_k(a, k) > 0).float(), "wrong values"),
        (ex.check_top_k, lambda a, k: ex.solution_top_k(a.flip(1), k), "not its strongest ones"),
        (ex.check_greedy_token, lambda B, F, k: 1 / B, "Token Choice"),
        (ex.check_greedy_token, lambda B, F, k: 1.0, "only once"),
        (ex.check_greedy_token, lambda B, F, k: F / (k * B), "4,096"),
        (ex.check_zipf_shares, zipf_from_zero, "first rank is 1"),
        (ex.check_zipf_shares, lambda F, M, s, q: ex.solution_zipf_shares(F, 1, s, q), "hand out 1"),
        (ex.check_zipf_shares, lambda F, M, s, q: ex.solution_zipf_shares(F, M, 2 * s, q), "60/11"),
        (ex.check_threshold, mean_of_weakest, "mean of the weakest"),
        (ex.check_threshold, lambda batches, k: 0.0, "lets in"),
        (ex.check_threshold, lambda batches, k: weakest_match(batches, k), "does not lie above itself"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


@pytest.mark.parametrize("threshold", [first_left_out, quantile])
def test_other_thresholds_between_the_two_are_right(threshold):
    assert ex.check_threshold(threshold), ex.check_threshold(threshold).message


def test_half_the_digits_are_enough():
    verdict = ex.check_zipf_shares(lambda *law: ex.solution_zipf_shares(*law).float())
    assert verdict, verdict.message


def test_the_question_in_brackets_is_answered():
    assert "1/n_tokens" in ex.check_greedy_token(ex.solution_greedy_token).message
