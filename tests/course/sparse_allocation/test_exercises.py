"""Every check of notebook 05: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import right, wrong_and_told

from sae_tutorial.allocation import feature_choice, mutual_choice, zipf_capacity
from sae_tutorial.course.sparse_allocation import exercises as ex

SOLUTIONS = {
    ex.judge_mutual_choice: ex.solution_mutual_choice,
    ex.judge_feature_choice: ex.solution_feature_choice,
    ex.check_capacities: ex.solution_capacities,
    ex.check_threshold: ex.solution_threshold,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


# ---------------------------------------------------------------------- exercise 1


def mutual_by_sorting(affinities, n_matches):
    """A right answer of another kind: walk down the sorted cells."""
    codes = torch.zeros_like(affinities)
    for cell in affinities.flatten().argsort(descending=True)[:n_matches].tolist():
        b, f = divmod(cell, affinities.shape[1])
        codes[b, f] = max(0.0, float(affinities[b, f]))
    return codes


def feature_by_columns(affinities, capacity):
    codes = torch.zeros_like(affinities)
    for f, m in enumerate(capacity.tolist()):
        best = affinities[:, f].topk(m).indices
        codes[best, f] = affinities[best, f].relu()
    return codes


@pytest.mark.parametrize(
    "mutual", [mutual_by_sorting, lambda a, n: mutual_choice(a, n).to_dense()], ids=["sorting", "package"]
)
def test_other_ways_to_mutual_choice_are_right(mutual):
    assert ex.judge_mutual_choice(mutual), ex.judge_mutual_choice(mutual).message


@pytest.mark.parametrize(
    "feature", [feature_by_columns, lambda a, m: feature_choice(a, m).to_dense()], ids=["columns", "package"]
)
def test_other_ways_to_feature_choice_are_right(feature):
    assert ex.judge_feature_choice(feature), ex.judge_feature_choice(feature).message


def test_both_rules_have_a_line_each_and_both_must_be_right():
    both = ex.check_rules(ex.solution_mutual_choice, ex.solution_feature_choice)
    one = ex.check_rules(ex.solution_mutual_choice, lambda a, m: None)
    assert both and both.message.count("✓") == 2
    assert not one and "✓" in one.message and "not answered yet" in one.message


def rank_in_column(a):
    return a.argsort(dim=0, descending=True).argsort(dim=0)


def cuts(batches, k):
    return [float(batch.flatten().topk(k * len(batch)).values[-1]) for batch in batches]


def kth(a, n):
    return a.flatten().topk(n).values[-1]


def next_one(a, n):
    return a.flatten().topk(n + 1).values[-1]


def as_mask(a, n):
    return (ex.solution_mutual_choice(a, n) > 0).float()


def token(a, n):
    return ex._token_choice(a, max(1, n // len(a)))


def equal(a, m):
    return ex.solution_feature_choice(a, torch.full_like(m, int(m[-1])))


def by_column(a, m):
    """The weakest match of each column, and all that are as strong."""
    order = a.sort(dim=0, descending=True).values
    cut = order.gather(0, (m - 1).clamp(min=0)[None])
    return a.relu() * (a >= cut) * (m > 0)


def last_index(a, m):
    """The weakest match is looked up at index capacity − 1, which for a capacity of 0 is the last one."""
    cut = a.sort(dim=0, descending=True).values[m - 1, torch.arange(len(m))]
    return a.relu() * (a >= cut)


def at_least_one(a, m):
    return ex.solution_feature_choice(a, m.clamp(min=1))


def no_capacity_of_zero(a, m):
    """A loop that asks each column for its weakest match."""
    cuts = [column.topk(int(k)).values[-1] for column, k in zip(a.T, m)]
    return a.relu() * (a >= torch.stack(cuts))


def first_capacity(a, m):
    k = int(m[0])
    values, tokens = a.topk(k, dim=0)
    return torch.zeros_like(a).scatter(0, tokens, values.relu())


def one_argsort(a, m):
    return a.relu() * (a.argsort(dim=0, descending=True) < m)


def one_argsort_of_cells(a, n):
    return a * (a.flatten().argsort(descending=True).view_as(a) < n)


def weakest(a, m):
    return a * (a.argsort(dim=0).argsort(dim=0) < m)


def of_all_rows(a, n):
    """The budget taken for that of one row: k, and not k · B."""
    return ex.solution_mutual_choice(a, min(n * len(a), a.numel()))


def sorted_columns(a, m):
    return a.sort(dim=0, descending=True).values.relu() * (torch.arange(len(a))[:, None] < m)


# ---------------------------------------------------------------------- the others


def whole(shares, n_matches):
    """Whole numbers that add up: the differences of the rounded running sum."""
    ends = shares.cumsum(0) * n_matches / shares.sum()
    return ends.round().diff(prepend=torch.zeros(1).double()).long()


def shares_of(weight):
    def answer(n_features, n_matches, exponent, offset):
        return whole(weight(torch.arange(1, n_features + 1).double(), exponent, offset), n_matches)

    return answer


def rounded(*law):
    return ex._shares(*law).round()


def rest_to_the_first(*law):
    capacity = ex._shares(*law).floor()
    capacity[0] += law[1] - capacity.sum()
    return capacity


def rest_to_the_last(*law):
    capacity = ex._shares(*law).floor()
    capacity[-1] += law[1] - capacity.sum()
    return capacity


def mean_of_first_left_out(batches, k):
    return sum(float(b.flatten().topk(k * len(b) + 1).values[-1]) for b in batches) / len(batches)


def mean_of_quantiles(batches, k):
    return sum(float(torch.quantile(b.flatten(), 1 - k / b.shape[1])) for b in batches) / len(batches)


def weighted_mean(batches, k):
    sizes = [len(b) for b in batches]
    return sum(n * float(b.flatten().topk(k * n).values[-1]) for n, b in zip(sizes, batches)) / sum(sizes)


def weakest_match(batches, k):
    return float(torch.cat(batches).flatten().topk(k * sum(map(len, batches))).values[-1])


def first_left_out(batches, k):
    return float(torch.cat(batches).flatten().topk(k * sum(map(len, batches)) + 1).values[-1])


def two_too_low(batches, k):
    return float(torch.cat(batches).flatten().topk(k * sum(map(len, batches)) + 3).values[-2:].mean())


def quantile(batches, k):
    values = torch.cat(batches)
    return float(torch.quantile(values.flatten(), 1 - k / values.shape[1]))


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.judge_mutual_choice, lambda a, n: a.flatten().topk(n).values, "need their positions"),
        (ex.judge_mutual_choice, lambda a, n: a.flatten().topk(n), "you return a pair"),
        (ex.judge_feature_choice, lambda a, m: a.topk(int(m[0]), dim=0), "you return a pair"),
        (ex.judge_feature_choice, lambda a, m: list(a.topk(int(m[0]), dim=1)), "you return a pair"),
        (ex.judge_mutual_choice, lambda a, n: ex._token_choice(a, n // len(a), signed=True), "that is Token Choice"),
        (ex.judge_mutual_choice, lambda a, n: ex._token_choice(a, n, signed=True), "that is Token Choice"),
        (ex.judge_feature_choice, lambda a, m: ex._token_choice(a, int(m[0]), signed=True), "that is Token Choice"),
        (ex.judge_mutual_choice, lambda a, n: a, "negative ones"),
        (ex.judge_mutual_choice, lambda a, n: a * (a >= kth(a, n)), "negative ones"),
        (ex.judge_mutual_choice, as_mask, "wrong values"),
        (ex.judge_mutual_choice, token, "Token Choice"),
        (ex.judge_mutual_choice, lambda a, n: ex._token_choice(a.T, 2).T, "Feature Choice"),
        (ex.judge_mutual_choice, lambda a, n: ex.solution_mutual_choice(a, n + 1), "there should be 6 matches"),
        (ex.judge_mutual_choice, lambda a, n: ex.solution_mutual_choice(a.flip(0), n), "not the strongest"),
        (ex.judge_mutual_choice, lambda a, n: a.relu() * (a > kth(a, n)), "not above itself"),
        (ex.judge_feature_choice, lambda a, m: a.relu() * (rank_in_column(a) <= m), "ranks begin at 0"),
        (ex.judge_feature_choice, lambda a, m: a.relu() * (rank_in_column(a) < m - 1), "not above itself"),
        (ex.check_capacities, shares_of(lambda r, s, q: r**-s + q), "of the rank alone"),
        (ex.check_capacities, shares_of(lambda r, s, q: (r + q) ** s), "gets the least"),
        (ex.check_threshold, lambda b, k: min(cuts(b, k)), "the cut of one batch"),
        (ex.check_threshold, lambda b, k: sorted(cuts(b, k))[1], "the cut of one batch"),
        (ex.check_threshold, lambda b, k: float(torch.cat(b).topk(k, dim=1).values[:, -1].mean()), "for each token"),
        (ex.check_threshold, lambda b, k: float(torch.cat(b).flatten().topk(k).values[-1]), "not k in all"),
        (ex.judge_mutual_choice, lambda a, n: a.relu() * (a >= kth(a, n)), "all that tie"),
        (ex.judge_mutual_choice, lambda a, n: a.relu() * (a > next_one(a, n)), "too few got in"),
        (ex.judge_feature_choice, lambda a, m: ex._token_choice(a, int(m[0]) or 1), "Token Choice"),
        (ex.judge_feature_choice, lambda a, m: ex.solution_mutual_choice(a, int(m.sum())), "Mutual Choice"),
        (ex.judge_feature_choice, equal, "they differ"),
        (ex.judge_feature_choice, lambda a, m: ex.solution_feature_choice(a, m + 1), "one token too many"),
        (ex.judge_feature_choice, by_column, "all that tie"),
        (ex.judge_feature_choice, one_argsort, "one argsort as ranks"),
        (ex.judge_feature_choice, lambda a, m: a * (a.argsort(dim=0) < m), "one argsort as ranks"),
        (ex.judge_feature_choice, weakest, "you keep the weakest"),
        (ex.judge_feature_choice, last_index, "−1 is the last one"),
        (ex.judge_feature_choice, at_least_one, "capacity 0 gets a match"),
        (ex.judge_feature_choice, no_capacity_of_zero, "capacity 0; it has none"),
        (ex.judge_mutual_choice, lambda a, n: a.relu(), "all positive affinities got in"),
        (ex.judge_mutual_choice, of_all_rows, "not of each row or column"),
        (ex.judge_mutual_choice, lambda a, n: ex.solution_mutual_choice(a.abs(), n), "leave out `abs`"),
        (ex.judge_mutual_choice, lambda a, n: a.relu() * (a.abs() >= kth(a.abs(), n)), "leave out `abs`"),
        (ex.judge_feature_choice, sorted_columns, "in the wrong rows"),
        (ex.check_capacities, lambda *law: ex.solution_capacities(*law).clamp(min=1), "at least 1 with you"),
        (ex.check_capacities, lambda *law: ex._shares(*law).ceil(), "the rounded shares add up to"),
        (ex.check_threshold, lambda b, k: float(kth(torch.cat(b), k * len(b))), "counts the batches"),
        (ex.check_threshold, lambda b, k: float(torch.cat(b).topk(k, dim=1).values[:, -1].min()), "the lowest of one"),
        (ex.judge_mutual_choice, mutual_choice, "to_dense"),
        (ex.judge_feature_choice, lambda a, m: ex.solution_feature_choice(a, m).to_sparse(), "to_dense"),
        (ex.judge_feature_choice, first_capacity, "you use capacity[0], 3, for all"),
        (ex.judge_mutual_choice, lambda a, n: ex._token_choice(a, n // len(a)), "that is Token Choice"),
        (ex.judge_mutual_choice, lambda a, n: ex._token_choice(a, n), "that is Token Choice"),
        (ex.judge_mutual_choice, lambda a, n: first_capacity(a, [n]), "not of each row or column"),
        (ex.judge_mutual_choice, lambda a, n: first_capacity(a, [n // 3]), "that is Feature Choice"),
        (ex.judge_feature_choice, lambda a, m: a * 0, "there should be"),
        (ex.judge_mutual_choice, one_argsort_of_cells, "one argsort as ranks"),
        (ex.judge_mutual_choice, lambda a, n: -ex.solution_mutual_choice(-a, n), "you keep the weakest"),
        (ex.check_capacities, shares_of(lambda r, s, q: (r - 1 + q) ** -s), "first rank is 1"),
        (ex.check_capacities, lambda F, M, s, q: ex._shares(F, 1, s, q), "hand out 1"),
        (ex.check_capacities, lambda F, M, s, q: ex.solution_capacities(F, M, 2 * s, q), "5.45 times"),
        (ex.check_capacities, shares_of(lambda r, s, q: 1 / (r**s + q)), "added before"),
        (ex.check_capacities, shares_of(lambda r, s, q: (r + q) ** -min(1.0, 9 * s)), "exponent of 0.7"),
        (ex.check_capacities, shares_of(lambda r, s, q: r**-s), "no effect"),
        (ex.check_capacities, ex._shares, "whole numbers"),
        (ex.check_capacities, rounded, "the rounded shares add up to"),
        (ex.check_capacities, lambda *law: ex._shares(*law).floor(), "the rounded shares add up to"),
        (ex.check_capacities, rest_to_the_first, "not for one feature alone"),
        (ex.check_capacities, rest_to_the_last, "not for one feature alone"),
        (ex.check_threshold, ex.mean_of_weakest, "still a mean over batches"),
        (ex.check_threshold, mean_of_first_left_out, "still a mean over batches"),
        (ex.check_threshold, mean_of_quantiles, "still a mean over batches"),
        (ex.check_threshold, weighted_mean, "still a mean over batches"),
        (ex.check_threshold, lambda batches, k: 0.0, "lets in"),
        (ex.check_threshold, two_too_low, "240 matches in all"),
        (ex.check_threshold, weakest_match, "does not lie above itself"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


@pytest.mark.parametrize("threshold", [first_left_out, quantile])
def test_other_thresholds_between_the_two_are_right(threshold):
    assert ex.check_threshold(threshold), ex.check_threshold(threshold).message


def one_more_for_the_first(*law):
    capacity = ex._shares(*law).floor()
    capacity[: law[1] - int(capacity.sum())] += 1
    return capacity.int()


@pytest.mark.parametrize("other", [shares_of(lambda r, s, q: (r + q) ** -s), one_more_for_the_first])
def test_other_ways_to_round_are_right(other):
    assert ex.check_capacities(other), ex.check_capacities(other).message


@pytest.mark.parametrize("law", ex.LAWS)
def test_the_package_gives_the_same_capacities_where_no_limit_acts(law):
    n_features, n_matches, exponent, offset = law
    assert torch.equal(ex.solution_capacities(*law), zipf_capacity(n_features, n_matches, n_matches, exponent, offset))


MEASURED = {"word piece": 50.0, "rare word": 47, "name": 45, "word": 29, "common word": 24, "start": 22, "mark": 21}


@pytest.mark.parametrize("most", ["word piece", "name"])
@pytest.mark.parametrize("fewest", ["mark", "common word"])
def test_a_prediction_is_right_near_the_end(most, fewest):
    verdict = ex.check_prediction({"most": most, "fewest": fewest}, MEASURED)
    assert verdict and "rare word 47" in verdict.message


def test_a_right_prediction_is_told_its_place():
    message = ex.check_prediction({"most": "name", "fewest": "mark"}, MEASURED).message
    assert (
        "of the most, name is third (word piece has 5.0 more)" in message and "of the fewest, mark is first" in message
    )


def test_a_prediction_may_be_written_in_other_ways():
    for most, fewest in (("Names", "Common words"), (" WORD_PIECES ", "mark")):
        assert ex.check_prediction({"most": most, "fewest": fewest}, MEASURED)


def test_the_hint_is_about_what_failed():
    for check, wrong, hint in (
        (ex.check_capacities, shares_of(lambda r, s, q: r**-s), "first the shares"),
        (ex.check_capacities, rounded, "round all shares down"),
        (ex.judge_mutual_choice, lambda a, n: a * (a >= kth(a, n)), "filled with a negative"),
        (ex.judge_mutual_choice, lambda a, n: a.relu() * (a >= kth(a, n)), "chooses among equals"),
        (ex.judge_feature_choice, by_column, "chooses among equals"),
        (ex.judge_feature_choice, first_capacity, "topk takes one k"),
    ):
        assert hint in [check(wrong) for _ in range(2)][1].message


@pytest.mark.parametrize(
    ("prediction", "says"),
    [
        ({"most": "start", "fewest": "mark"}, "start has 22 features per token, place 6 of 7"),
        ({"most": "name", "fewest": "word"}, "word has 29"),
        ({"most": "verb", "fewest": "word"}, "'verb' is not one of"),
        ("name", "two kinds"),
    ],
)
def test_a_wrong_prediction_is_told_what_was_measured(prediction, says):
    wrong_and_told(lambda answer: ex.check_prediction(answer, MEASURED), prediction, says)


def test_no_prediction_is_not_answered_yet():
    assert "not answered yet" in ex.check_prediction(None, MEASURED).message
