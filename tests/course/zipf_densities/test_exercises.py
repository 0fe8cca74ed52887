"""Every check of notebook 07: the stub, the solution, and the mistakes that learners make."""

from collections import Counter

import numpy as np
import pytest
from exercises import right, wrong_and_told

from sae_tutorial import zipf_capacity
from sae_tutorial.course.zipf_densities import exercises as ex
from sae_tutorial.course.zipf_densities import fits

SOLUTIONS = {
    ex.check_fit: ex.solution_fit,
    ex.check_split_ranking: ex.solution_split_ranking,
    ex.check_clipped_head: ex.solution_clipped_head,
    ex.check_simon: ex.solution_simon,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


# Equivalent answers.


def by_a_list(n, new, rng):
    """As in the folded solution, with a list and numpy's integers."""
    owners, born = [0], 1
    while len(owners) < n:
        if rng.random() < new:
            owners.append(born)
            born += 1
        else:
            owners.append(owners[rng.integers(len(owners))])
    return np.unique(owners, return_counts=True)[1]


def by_loops(n_features, n_matches, n_tokens, exponent, offset):
    weights = [1 / (r + offset) ** exponent for r in range(1, n_features + 1)]
    return sum(n_matches * w / sum(weights) > n_tokens for w in weights)


@pytest.mark.parametrize(
    ("check", "equivalent"),
    [
        (ex.check_fit, fits.least_squares),
        (ex.check_split_ranking, lambda a, b: [c for _, c in sorted(zip(a, b), reverse=True)]),
        (ex.check_split_ranking, lambda a, b: in_place(a, b)),
        (ex.check_clipped_head, lambda *case: by_loops(*case)),
        (ex.check_simon, by_a_list),
    ],
)
def test_equivalent_answers_pass(check, equivalent):
    assert check(equivalent).passed, check(equivalent).message


# Mistakes.


def fit(sign=-1, offsets=None, best=True, logs=True, given=True, r_squared=None):
    """The solution with one mistake."""

    def answer(ranks, values):
        ranks = ranks if given else np.arange(1, len(ranks) + 1)
        y, found = np.log(values) if logs else values, []
        for offset in np.geomspace(1, 1 + ranks[-1], 300) - 1 if offsets is None else offsets:
            x = np.log(ranks + offset)
            slope, height = np.polyfit(x, y, 1)
            explained = 1 - (y - height - slope * x).var() / y.var()
            found.append((explained if r_squared is None else r_squared(explained), sign * slope, offset))
        told, exponent, offset = max(found) if best else found[-1]
        return exponent, offset, told

    return answer


def of_floats_alone(n_features, n_matches, n_tokens, exponent, offset):
    weights = (np.arange(1, n_features + 1) + offset) ** -exponent  # whole numbers have no negative powers
    return int((n_matches * weights / weights.sum() > n_tokens).sum())


def unnormalised(n_features, n_matches, n_tokens, exponent, offset):
    return int((n_matches * (np.arange(1.0, n_features + 1) + offset) ** -exponent > n_tokens).sum())


def which_of_them(n_features, n_matches, n_tokens, exponent, offset):
    weights = (np.arange(1.0, n_features + 1) + offset) ** -exponent
    return n_matches * weights / weights.sum() > n_tokens


def from_rank_0(n_features, n_matches, n_tokens, exponent, offset):
    with np.errstate(all="ignore"):  # a rank of 0 divides by zero
        weights = (np.arange(0.0, n_features) + offset) ** -exponent
        return int((n_matches * weights / weights.sum() > n_tokens).sum())


def added_late(n_features, n_matches, n_tokens, exponent, offset):
    weights = np.arange(1.0, n_features + 1) ** -exponent + offset
    return int((n_matches * weights / weights.sum() > n_tokens).sum())


def squared_offset(n_features, n_matches, n_tokens, exponent, offset):
    return ex.solution_clipped_head(n_features, n_matches, n_tokens, exponent, offset**2)


def none_with_an_offset(n_features, n_matches, n_tokens, exponent, offset):
    return 0 if offset else ex.solution_clipped_head(n_features, n_matches, n_tokens, exponent, 0)


def judged_by_heights(ranks, values):
    """The right line, and R² of p instead of log p."""
    exponent, offset, _ = ex.solution_fit(ranks, values)
    log_law = -exponent * np.log(ranks + offset)
    law = np.exp(log_law + (np.log(values) - log_law).mean())
    return exponent, offset, 1 - ((values - law) ** 2).sum() / ((values - values.mean()) ** 2).sum()


def in_place(first, second):
    second[:] = second[np.argsort(-first)]
    return second


def at_least_the_batch(n_features, n_matches, n_tokens, exponent, offset):
    weights = (np.arange(1.0, n_features + 1) + offset) ** -exponent
    return int((n_matches * weights / weights.sum() >= n_tokens).sum())


def full_in_the_end(n_features, n_matches, n_tokens, exponent, offset):
    return int((zipf_capacity(n_features, n_matches, n_tokens, exponent, offset) == n_tokens).sum())


def copying(pick, born=1, count=np.bincount):
    """Simon's process, but for which match is copied, or for the number of the first that is born."""
    first = born

    def grow(n, new, rng):
        owner, born = np.zeros(n, dtype=int), first
        for i in range(1, n):
            if rng.random() < new:
                owner[i], born = born, born + 1
            else:
                owner[i] = pick(owner, i, born, rng)
        return count(owner)

    return grow


def any_earlier(owner, i, born, rng):
    return owner[rng.integers(i)]


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_fit, fit(sign=1), "the slope is −0.8 here"),
        (ex.check_fit, fit(offsets=[0.0]), "that is a straight line's"),
        (ex.check_fit, fit(best=False), "you say s ="),
        (ex.check_fit, fit(logs=False), "values that fall as r^−0.8"),
        (ex.check_fit, fit(given=False), "use the ranks that you are given"),
        (ex.check_fit, fit(r_squared=np.sqrt), "that is the correlation; square it"),
        (ex.check_fit, fit(r_squared=lambda explained: explained / 2), "a share of the variance of log p"),
        (ex.check_fit, lambda ranks, values: 1.0, "exponent, offset and R²"),
        (ex.check_fit, lambda *of: np.roll(ex.solution_fit(*of), 1), "the order is exponent, offset, R²"),
        (ex.check_fit, lambda *of: ex.solution_fit(*of)[::-1], "the order is exponent, offset, R²"),
        (ex.check_fit, judged_by_heights, "take that of log p"),
        (ex.check_split_ranking, ex.split_ranking_with_a_bug, "the bug is still there"),
        (ex.check_split_ranking, lambda a, b: np.sort(b)[::-1], "sorted the second half by itself"),
        (ex.check_split_ranking, lambda a, b: np.sort(a)[::-1], "counts of the first half"),
        (ex.check_split_ranking, lambda a, b: a[np.argsort(-b)], "you rank by the second half"),
        (ex.check_split_ranking, lambda a, b: b[np.argsort(a)], "rarest comes first"),
        (ex.check_split_ranking, lambda a, b: np.argsort(-a), "read `second` at them"),
        (ex.check_split_ranking, lambda a, b: b.sum(), "shape ()"),
        (ex.check_split_ranking, lambda a, b: b, "you say [4, 1, 2, 7, 3]"),
        (ex.check_clipped_head, unnormalised, "must sum to 1"),
        (ex.check_clipped_head, lambda *_: 0, "there are 4"),
        (ex.check_clipped_head, lambda F, M, B, s, q: ex.solution_clipped_head(F, M, B, s, 0), "use the offset"),
        (ex.check_clipped_head, at_least_the_batch, "not >="),
        (ex.check_clipped_head, of_floats_alone, "let the ranks be floats"),
        (ex.check_clipped_head, full_in_the_end, "before anything is cut"),
        (ex.check_clipped_head, which_of_them, "how many, not which"),
        (ex.check_clipped_head, added_late, "before the power"),
        (ex.check_clipped_head, squared_offset, "there are 16, you say 15"),
        (ex.check_clipped_head, none_with_an_offset, "there are 16, you say 0"),
        (ex.check_clipped_head, from_rank_0, "ranks begin at 1"),
        (ex.check_simon, copying(lambda owner, i, born, rng: rng.integers(born)), "an earlier *feature*"),
        (ex.check_simon, copying(lambda owner, i, born, rng: owner[i - 1]), "the last match only"),
        (ex.check_simon, copying(lambda owner, i, born, rng: owner[rng.integers(max(0, i - 2000), i)]), "only recent"),
        (ex.check_simon, copying(lambda owner, i, born, rng: owner[rng.integers(1 + i // 2)]), "only old matches"),
        (ex.check_simon, copying(any_earlier, born=0), "start at 1"),
        (ex.check_simon, copying(any_earlier, count=np.array), "the owner of each match"),
        (ex.check_simon, copying(any_earlier, count=Counter), "not a dictionary"),
        (ex.check_simon, lambda n, new, rng: np.array([n]), "about 2,000 features"),
        (ex.check_simon, lambda n, new, rng: np.ones(3), "sum to 3"),
        (ex.check_simon, lambda n, new, rng: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_the_prediction_is_one_of_three_for_either_question():
    wrong_and_told(ex.check_prediction, ("rises", "stays"), "'rises' for the wider bell and 'stays' for more draws")
    told = ex.check_prediction(("stays", "rises")).message
    assert "'rises' for more draws" in told and "wider" not in told.split("Hint")[0]
    guesses = [(wider, more) for wider in ex.CHANGES for more in ex.CHANGES]
    assert [guess for guess in guesses if ex.check_prediction(guess).passed] == [("stays", "falls")]
    assert ex.solution_prediction() == ("stays", "falls")
    assert "not answered yet" in ex.check_prediction(None).message
    for odd in ("falls", ("up", "falls"), ("falls",), 0.5):
        assert "answer with two of 'rises'" in ex.check_prediction(odd).message


def test_the_bug_shows_only_where_ranks_and_order_differ():
    seconds = np.array([1, 8, 4])
    assert ex.split_ranking_with_a_bug(np.array([5, 9, 2]), seconds).tolist() == [8, 1, 4]
    assert ex.split_ranking_with_a_bug(np.array([2, 9, 5]), seconds).tolist() == [4, 1, 8]
    assert ex.solution_split_ranking(np.array([2, 9, 5]), seconds).tolist() == [8, 4, 1]
