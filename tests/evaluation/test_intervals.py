"""Intervals over seeds, and bootstraps over units, against closed forms and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from sae_tutorial.activations import memory
from sae_tutorial.evaluation.intervals import Interval, Ratio, bootstrap, holm, paired_ratio


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- over seeds


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_is_students_t(n):
    values = some(n).double().tolist()
    one = Interval.of(values)
    low, high = scipy.stats.t.interval(0.95, n - 1, np.mean(values), scipy.stats.sem(values))
    assert (one.low, one.mean, one.high, one.n) == pytest.approx((low, np.mean(values), high, n))
    assert Interval.of(v for v in values) == one


def test_interval_of_three_by_hand():
    one = Interval.of([1.0, 2.0, 3.0])
    assert one.high - one.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert Interval.of([2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 2)


@pytest.mark.parametrize(
    "values", [[5.0], [1.0, math.nan], [1.0, math.inf], [math.inf, math.inf], [math.inf, -math.inf]]
)
def test_where_nothing_is_known_there_are_no_ends(values):
    one = Interval.of(values)
    assert math.isnan(one.low) and math.isnan(one.high) and one.n == len(values)
    with pytest.raises(ValueError, match="empty"):
        Interval.of([])


# ---------------------------------------------------------------------- over units


def test_the_mean_has_its_normal_interval():
    values = some(2, 400) + torch.tensor([[0.0], [5.0]])
    mean, low, high = bootstrap(values)
    assert torch.allclose(mean, values.mean(1)) and (low < mean).all() and (mean < high).all()
    assert torch.allclose(high - low, 2 * 1.96 * values.std(1) / 20, rtol=0.15)


STATISTICS = {
    "mean": (None, np.mean),
    "median": (lambda x: x.median(-1).values, np.median),
    "spread": (lambda x: x.std(-1), lambda x, axis: np.std(x, axis=axis, ddof=1)),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_ends_are_those_of_scipy(name):
    """The same percentile bootstrap with its own draws: the ends agree as far as 4,000 draws fix them."""
    ours, theirs = STATISTICS[name]
    values = some(151).exp()
    found, low, high = bootstrap(values, ours, resamples=4000)
    result = scipy.stats.bootstrap(
        (values.numpy(),), theirs, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    )
    assert float(found) == pytest.approx(float(theirs(values.numpy(), axis=-1)), rel=1e-5)
    width = float(high - low)
    assert (float(low), float(high)) == pytest.approx(tuple(result.confidence_interval), abs=0.08 * width)


def test_a_ratio_of_sums_draws_both_together():
    """Mean of tokens over texts of unequal length: Σ sums / Σ counts, with the texts drawn again, not the tokens."""
    counts = torch.randint(1, 40, (300,), generator=torch.Generator().manual_seed(1)).double()
    sums = counts * (2 + 0.1 * some(300).double())
    ratio, low, high = bootstrap(torch.stack([sums, counts]), lambda x: x[0].sum(-1) / x[1].sum(-1), resamples=3000)
    assert float(ratio) == pytest.approx(float(sums.sum() / counts.sum()))
    left = sums - ratio * counts  # the delta method
    expected = 2 * 1.96 * float(left.std() / math.sqrt(300) / counts.mean())
    assert float(high - low) == pytest.approx(expected, rel=0.12) and low < ratio < high


def test_what_comes_before_is_drawn_alike():
    values = some(3, 50)
    same = bootstrap(values[:1].expand(3, -1))
    assert all((x == x[0]).all() for x in same)
    for i, row in enumerate(values):
        for together, alone in zip(bootstrap(values), bootstrap(row)):
            assert torch.equal(together[i], alone)
    assert all(x.shape == (2, 4) for x in bootstrap(some(2, 4, 7)))


def test_the_seed_decides():
    values = some(40)
    assert bootstrap(values) == bootstrap(values) and bootstrap(values)[1] != bootstrap(values, seed=1)[1]


def test_large_tables_are_drawn_in_pieces(monkeypatch):
    """As many resamples at a time as memory allows, and no more: the numbers do not depend on it."""
    values, sizes = some(5, 30), []

    def mean(x):
        sizes.append(x.numel() * 4)
        return x.mean(-1)

    whole = bootstrap(values, mean)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 20_000)
    sizes.clear()
    pieces = bootstrap(values, mean)
    assert len(sizes) > 10 and max(sizes) <= 20_000
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces))


def test_infinite_values_are_ranked_and_ends_are_values():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, math.inf])
    middle, low, high = bootstrap(values, lambda x: x.median(-1).values)
    assert middle == 3 and low in values and high == math.inf
    assert bootstrap(values)[0] == bootstrap(values)[2] == math.inf


def test_a_statistic_that_is_sometimes_nan():
    """Draws from which nothing can be computed are left out; if all are, the ends are NaN."""
    parts = torch.tensor([[2.0, 0, 0, 0], [1, 0, 0, 0]])  # only the first unit counts anything
    mean, low, high = bootstrap(parts, lambda x: x[0].sum(-1) / x[1].sum(-1))
    assert mean == low == high == 2
    assert all(x.isnan() for x in bootstrap(parts[:, 1:], lambda x: x[0].sum(-1) / x[1].sum(-1)))


def test_counts_and_yes_or_no():
    right = torch.arange(100) % 4 == 0
    share, low, high = bootstrap(right)
    assert share == 0.25 and 0.15 < low < 0.2 and 0.3 < high < 0.35
    assert bootstrap(torch.arange(10))[0] == 4.5


def test_one_unit_has_no_width():
    assert [float(x) for x in bootstrap(torch.tensor([3.0]))] == [3.0] * 3


@pytest.mark.parametrize(
    ("values", "more", "words"),
    [
        (torch.zeros(0), {}, "values has 0 units"),
        (torch.zeros(3, 0), {}, "values has 0 units"),
        (torch.tensor([1.0, math.nan]), {}, "1 numbers are NaN"),
        (torch.ones(3), {"resamples": 0}, "resamples must be a whole number, 1 or more"),
    ],
)
def test_what_is_refused(values, more, words):
    with pytest.raises(ValueError, match=words):
        bootstrap(values, **more)


# ---------------------------------------------------------------------- one against the other


def test_paired_ratios_take_infinity():
    mine, theirs = torch.tensor([1.0, 2.0, math.inf, 2.0, 1.0]), torch.tensor([4.0, 4.0, 4.0, 4.0, math.inf])
    middle, low, high = paired_ratio(mine, theirs)
    assert middle == 0.5 and low <= middle <= high
    assert paired_ratio(torch.full((5,), math.inf), theirs)[0] == math.inf
    assert paired_ratio(theirs, theirs) == (1.0, 1.0, 1.0)
    assert paired_ratio(torch.zeros(3), torch.zeros(3)) == (1.0, 1.0, 1.0), "the same, though 0 / 0"
    assert paired_ratio(torch.ones(3), torch.zeros(3))[0] == math.inf


def test_paired_ratios_are_those_of_the_pairs():
    mine, theirs = some(101).exp(), some(101, seed=1).exp()
    middle, low, high = paired_ratio(mine, theirs)
    assert middle == pytest.approx(float(np.median((mine / theirs).numpy())))
    result = scipy.stats.bootstrap(
        (mine.numpy(), theirs.numpy()),
        lambda a, b, axis: np.median(a / b, axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    assert (low, high) == pytest.approx(tuple(result.confidence_interval), rel=0.1)
    assert paired_ratio(torch.tensor([1.0, 2, 3, 4]), torch.ones(4))[0] == 2, "of an even number, the lower middle"


@pytest.mark.parametrize("theirs", [torch.ones(1), torch.ones(3, 1), torch.ones(4)])
def test_pairs_must_be_pairs(theirs):
    with pytest.raises(ValueError, match=r"mine is \(3,\), theirs .*; give one number per unit each"):
        paired_ratio(torch.ones(3), theirs)


def two_sources(seed, n_seeds, n_rows, effect=0.0, of_seeds=0.02, of_rows=0.3):
    """Errors (seeds, rows) of two methods: what is hard for one is hard for the other; seeds differ, and rows do."""
    generator = torch.Generator().manual_seed(seed)
    hard_R = torch.exp(torch.randn(n_rows, generator=generator))
    theirs = hard_R.expand(n_seeds, -1)
    mine = hard_R * (1 + effect + of_seeds * torch.randn(n_seeds, 1, generator=generator))
    return mine + of_rows * hard_R * torch.randn(n_rows, generator=generator), theirs


@pytest.mark.parametrize(
    "n_seeds, of_seeds, of_rows", [(3, 0.0, 0.3), (3, 0.02, 0.0), (3, 0.02, 0.05), (5, 0.02, 0.3), (1, 0.0, 0.3)]
)
def test_ratios_are_as_sure_as_they_say(n_seeds, of_seeds, of_rows):
    """Without a difference, about 5 % of the intervals miss 0, whether seeds or rows are what varies."""
    missed = []
    for trial in range(200):
        one = Ratio.of(*two_sources(trial, n_seeds, 64, 0.0, of_seeds, of_rows), resamples=400)
        assert one.low < one.mean < one.high and (one.seeds, one.rows) == (n_seeds, 64)
        missed.append(not one.low <= 0 <= one.high)
        assert (one.p < 0.05) == missed[-1] or 0.03 < one.p < 0.07
    assert 0.01 < np.mean(missed) < 0.11


def test_where_rows_agree_the_interval_is_students():
    mine, theirs = two_sources(1, 3, 64, -0.1, 0.02, 0.0)
    one, right = Ratio.of(mine, theirs), Interval.of((mine / theirs).mean(1).sub(1).tolist())
    assert (one.mean, one.low, one.high) == pytest.approx((right.mean, right.low, right.high), abs=3e-3)


def test_a_difference_is_found_and_measured():
    one = Ratio.of(*two_sources(0, 4, 256, effect=-0.1))
    assert one.low < -0.1 < one.high < 0 and one.mean == pytest.approx(-0.1, abs=0.05) and one.p < 0.01
    mine = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    same = Ratio.of(mine, mine)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    exact = Ratio.of(mine, 2 * mine)
    assert (exact.mean, exact.low, exact.high) == (-0.5, -0.5, -0.5) and exact.p == 1e-4


def test_ratios_refuse_what_has_no_meaning():
    for mine, theirs, words in (
        (torch.ones(2, 3), torch.ones(3, 2), r"mine is \(2, 3\), theirs \(3, 2\)"),
        (torch.ones(3), torch.ones(3), "both are one"),
        (torch.ones(0, 3), torch.ones(0, 3), "both are one"),
        (torch.full((1, 2), torch.nan), torch.ones(1, 2), "must be finite"),
        (torch.ones(1, 2), torch.zeros(1, 2), "sum to more than 0"),
        (torch.tensor([[2.0, 0]]), torch.tensor([[1.0, 0]]), "a ratio to it means nothing"),
        (torch.tensor([[2.0, 1, 1]]), torch.tensor([[5.0, -2, -2]]), "a ratio to it means nothing"),
    ):
        with pytest.raises(ValueError, match=words):
            Ratio.of(mine, theirs)


def test_holm_by_hand():
    """Dunn's example: 0.01, 0.04, 0.03 among three become 0.03, 0.06, 0.06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.04]) == [0.04]
