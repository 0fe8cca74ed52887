"""Capacities that follow a Zipf law: exact sums, limits at both ends, and a fair rotation; and the law fitted back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_tutorial.allocation import ZipfFit, feature_choice, fit_zipf, zipf_capacity
from sae_tutorial.allocation.zipf import zipf_shortfall

laws = {"exponent": st.floats(0, 4) | st.sampled_from([0.0, 1.0, 60.0]), "offset": st.floats(-0.9, 50)}


@settings(max_examples=150, deadline=None)
@given(F=st.integers(1, 300), M=st.integers(0, 3000), B=st.integers(0, 40), step=st.integers(0, 10**6), **laws)
def test_the_sum_is_exact_and_the_limits_hold(F, M, B, step, exponent, offset):
    capacity = zipf_capacity(F, M, B, exponent, offset, step)
    assert capacity.shape == (F,) and capacity.dtype == torch.int64
    assert int(capacity.sum()) == min(M, F * B)
    assert int(capacity.max()) <= B and int(capacity.min()) >= 0
    if B and M >= F:
        assert int(capacity.min()) >= 1
        assert (capacity.diff() <= 0).all()  # the law falls with the rank
        assert torch.equal(capacity, zipf_capacity(F, M, B, exponent, offset))  # nothing to rotate


def test_closed_forms():
    assert zipf_capacity(5, 20, 10, 0, 0).tolist() == [4] * 5  # exponent 0: uniform
    assert zipf_capacity(4, 25, 99, 1, 0).tolist() == [12, 6, 4, 3]  # 12/r, as 1 + 1/2 + 1/3 + 1/4 = 25/12
    assert zipf_capacity(3, 47, 99, 1, 2).tolist() == [20, 15, 12]  # 60/(r + 2)
    assert zipf_capacity(2, 5, 99, 2, 0).tolist() == [4, 1]  # 4/r²
    assert zipf_capacity(4, 4, 99, 1, 0).tolist() == [1, 1, 1, 1]  # a budget of one each
    assert zipf_capacity(3, 100, 7, 1, 0).tolist() == [7, 7, 7]  # more than there is: the whole table
    assert zipf_capacity(1, 5, 9, 1, 0).tolist() == [5]


def test_what_the_head_cannot_use_goes_down_the_ranks_in_proportion():
    # Unlimited: 60, 30, 20, 15. With 40 tokens the head leaves 20; the others keep their proportions 1/2 : 1/3 : 1/4.
    assert zipf_capacity(4, 125, 40, 1, 0).tolist() == [40, 39, 26, 20]
    # A law so steep that it underflows: full ranks first, one token for each of the others.
    assert zipf_capacity(6, 20, 7, 1000, 0).tolist() == [7, 7, 3, 1, 1, 1]


def test_rounding_stays_within_one_token_of_the_law():
    F, M, B = 1000, 32 * 512, 512
    capacity = zipf_capacity(F, M, B, 0.8, 3)
    law = (torch.arange(1, F + 1).double() + 3) ** -0.8
    law *= M / law.sum()
    assert law.max() < B and law.min() > 1  # no limit is touched
    assert (capacity - law).abs().max() < 1


@pytest.mark.parametrize("exponent, offset", [(0.0, 0.0), (1.0, 0.0), (1.0, 5.0), (2.5, 0.0)])
@pytest.mark.parametrize("F, M, B", [(64 * 50, 50, 16), (100, 99, 8), (7, 3, 2), (97, 1, 1)])
def test_a_window_gives_every_feature_its_share(F, M, B, exponent, offset):
    """Any W = 8 · ceil(F / M) consecutive steps: exact sums, every rank served, shares as in the law."""
    window = 8 * math.ceil(F / M)
    steps = [zipf_capacity(F, M, B, exponent, offset, step) for step in range(2 * window)]
    assert all(int(c.sum()) == M for c in steps)
    assert all(int(c.max()) <= B for c in steps)
    added = torch.stack([torch.zeros(F, dtype=torch.int64), *steps]).cumsum(0)
    windows = added[window:] - added[:-window]  # every start
    assert len(windows) == window + 1
    assert (windows == windows[0]).all()  # the same share wherever the window starts
    share = windows[0]
    assert int(share.min()) >= 1  # no dead features
    assert (share.diff() <= 0).all()
    assert (share - limited_law(F, window * M, window * B, exponent, offset)).abs().max() <= 1
    # No feature is ever a whole token away from its average.
    assert (torch.stack(steps) - share / window).abs().max() < 1


def limited_law(F, total, most, exponent, offset):
    """c · (r + offset)^−exponent between 1 and `most`, summing to `total`: the slow and simple way."""
    law = (torch.arange(1, F + 1).double() + offset) ** -exponent
    low, high = 0.0, most / float(law[-1])
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if float((c * law).clamp(1, most).sum()) < total else (low, c)
    return (c * law).clamp(1, most)


def test_shorter_windows_are_nearly_fair_too():
    """Low discrepancy: the share that half a window gives is near half, for all features at once."""
    F, M, B = 64 * 32, 32, 16
    window = 8 * 64
    steps = torch.stack([zipf_capacity(F, M, B, 1.0, 2.0, step) for step in range(window)])
    for part in (2, 4, 16):
        shares = steps.unflatten(0, (part, -1)).sum(1)
        assert (shares - steps.sum(0) / part).abs().max() <= 3


def test_no_dead_features_in_a_dictionary_64_times_the_budget():
    """What the rotation is for: Feature Choice with F = 64 · M uses every feature within the stated window."""
    B, M = 16, 20
    F = 64 * M
    used = torch.zeros(F, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for step in range(8 * 64):
        codes = feature_choice(torch.rand(B, F, generator=generator) + 0.1, zipf_capacity(F, M, B, 1.0, 0.0, step))
        assert len(codes) == M
        used[codes.features] = True
    assert used.all()


def test_results_are_fresh():
    zipf_capacity(10, 50, 20, 1, 0).zero_()
    assert int(zipf_capacity(10, 50, 20, 1, 0).sum()) == 50


def test_large_dictionaries():
    capacity = zipf_capacity(2**20, 2**15, 2048, 1.0, 2.0, step=12345)
    assert int(capacity.sum()) == 2**15 and int(capacity.max()) <= 2048


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 5, 5, 1, 0), "n_features must be 1 or more, got 0"),
        ((5, -1, 5, 1, 0), "n_matches must be 0 or more, got -1"),
        ((5, 5, -3, 1, 0), "n_tokens must be 0 or more, got -3"),
        ((5, 5, 5, -1, 0), "exponent must be a finite number.*got -1.0"),
        ((5, 5, 5, math.nan, 0), "exponent must be a finite number.*got nan"),
        ((5, 5, 5, 1, -1), "offset must be a finite number greater than -1, got -1.0"),
        ((5, 5, 5, 1, 0, -1), "step must be 0 or more, got -1"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        zipf_capacity(*arguments)


# The law fitted to densities.


@settings(max_examples=25, deadline=None)
@given(exponent=st.floats(0.3, 2.5), offset=st.floats(-0.5, 60), scale=st.floats(1e-3, 0.9), seed=st.integers(0, 99))
def test_an_exact_law_is_found_again(exponent, offset, scale, seed):
    ranks = np.arange(1, 2001)
    densities = np.random.default_rng(seed).permutation(scale * (ranks + offset) ** -exponent)
    fit = fit_zipf(torch.from_numpy(densities))
    assert fit.ranks == (1, 2000) and fit.r_squared > 1 - 1e-6
    assert fit.exponent == pytest.approx(exponent, rel=1e-3)
    assert fit.offset == pytest.approx(offset, rel=1e-2, abs=1e-2)
    assert fit.density(torch.from_numpy(ranks)).numpy() == pytest.approx(np.sort(densities)[::-1], rel=1e-3)


def test_a_range_of_ranks_ignores_the_rest():
    ranks = torch.arange(1, 1001).double()
    densities = 0.4 * (ranks + 4) ** -1.1
    densities[:10], densities[800:] = 0.9, 1e-12
    fit = fit_zipf(densities, ranks=(11, 800))
    assert fit.ranks == (11, 800)
    assert (fit.exponent, fit.offset) == (pytest.approx(1.1, rel=1e-3), pytest.approx(4, abs=0.05))
    assert fit_zipf(densities).r_squared < fit.r_squared


def test_dead_features_end_the_fit():
    densities = torch.cat([torch.zeros(30), 0.5 / torch.arange(1, 71)])
    fit = fit_zipf(densities)
    assert fit.ranks == (1, 70) and fit.exponent == pytest.approx(1, rel=1e-3)
    assert fit_zipf(densities, ranks=(5, 100)).ranks == (5, 70)


def test_equal_densities_are_a_flat_law():
    fit = fit_zipf(torch.full((50,), 0.2))
    assert fit.exponent == pytest.approx(0, abs=1e-9) and fit.r_squared == 1
    assert fit.scale == pytest.approx(0.2)


def test_r_squared_is_the_explained_variance_of_log_density():
    generator = torch.Generator().manual_seed(0)
    ranks = torch.arange(1, 501).double()
    densities = 0.3 / ranks * torch.exp(0.2 * torch.randn(500, generator=generator).double())
    fit = fit_zipf(densities)
    log_density = densities.sort(descending=True).values.log()
    residual = log_density - fit.density(ranks).log()
    expected = 1 - float((residual**2).sum() / ((log_density - log_density.mean()) ** 2).sum())
    assert fit.r_squared == pytest.approx(expected)
    assert 0.9 < fit.r_squared < 1


def test_a_fit_becomes_a_capacity():
    fit = fit_zipf(0.3 * (torch.arange(1, 301) + 6.0) ** -0.9)
    capacity = zipf_capacity(300, 3000, 1000, fit.exponent, fit.offset)
    again = fit_zipf(capacity / 1000)
    assert again.exponent == pytest.approx(fit.exponent, rel=0.1)


@pytest.mark.parametrize(
    "densities, ranks, message",
    [
        ([0.1, math.nan, 0.1], None, "must be finite and 0 or more"),
        ([0.1, -0.1, 0.1], None, "must be finite and 0 or more"),
        ([0.1, 0.0, 0.1], None, "needs 3 ranks, but of 3 densities 2 are positive"),
        ([0.0, 0.0, 0.0], None, "needs 3 ranks, but of 3 densities 0 are positive"),
        ([0.1] * 9, (8, 9), "leaves 2 in ranks"),
        ([0.1] * 9, (0, 9), "ranks must be"),
        ([0.1] * 9, (5, 4), "ranks must be"),
        ([[0.1, 0.2]], None, "densities must be a list"),
    ],
)
def test_unusable_densities_are_errors(densities, ranks, message):
    with pytest.raises(ValueError, match=message):
        fit_zipf(torch.tensor(densities), ranks)


def test_shortfall_is_0_on_target_and_1_for_the_dead():
    law = ZipfFit(exponent=1.0, offset=0.0, scale=0.1, r_squared=1.0, ranks=(1, 8))
    target = law.density(torch.arange(1, 9)).float()
    assert not zipf_shortfall(target, law, part=0.5).any()
    density = target.clone()
    density[6], density[7] = target[6] / 4, 0.0
    shortfall = zipf_shortfall(density, law, part=0.5)
    assert shortfall.tolist() == pytest.approx([0] * 6 + [0.5, 1.0])
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(zipf_shortfall(density[shuffled], law, part=0.5), shortfall[shuffled])
    with pytest.raises(ValueError, match="part must be"):
        zipf_shortfall(density, law, part=0.0)
