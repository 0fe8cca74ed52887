"""Fits side by side: ranks, offsets, and what each law would misplace."""

import numpy as np
import pytest

from sae_tutorial.course.zipf_densities import fits
from sae_tutorial.course.zipf_densities.density_laws import misplaced

RANKS = np.arange(1, 2_001)
N_TOKENS = 1_000_000


def counts(exponent: float, offset: float) -> np.ndarray:
    return np.round(N_TOKENS * 0.5 * ((RANKS + offset) / (1 + offset)) ** -exponent).astype(int)


def test_the_middle_begins_at_100_or_a_twentieth():
    assert fits.middle(4_096) == (100, 3_276) and fits.middle(256) == (13, 204)


def test_straight_is_right_about_a_law_without_offset_only():
    assert fits.straight(RANKS**-0.8) == pytest.approx((0.8, 0, 1))
    assert fits.straight((RANKS + 500.0) ** -2.0).r_squared < 0.99
    assert fits.straight((RANKS + 500.0) ** -2.0, (1, 20)).exponent == pytest.approx(0.04, abs=0.03), "flat at the head"


def test_least_squares_ask_the_ranks_that_they_are_given():
    values = (RANKS + 30.0) ** -1.2
    for part in (slice(None), slice(99, 1_600)):
        assert fits.least_squares(RANKS[part], values[part]) == pytest.approx((1.2, 30, 1), rel=1e-3)


def test_any_fit_can_be_asked_for_all_and_for_the_middle_ranks():
    asked = []

    def fit(ranks, values):
        asked.append((ranks[0], ranks[-1], len(values)))
        return 1.0, 2.0, 0.5

    found = fits.whole_and_middle(np.concatenate([np.zeros(10), RANKS**-0.5]), fit)
    assert found == (fits.Line(1.0, 2.0, 0.5),) * 2 and asked == [(1, 2_000, 2_000), (100, 1_600, 1_501)]


def test_the_control_is_the_middle_of_sorted_draws():
    drawn = np.exp(np.random.default_rng(0).normal(size=2_000))
    assert fits.middle_of_log_normal(2_000, draws=1) == pytest.approx(fits.whole_and_middle(drawn)[1].r_squared)
    assert 0.99 < fits.middle_of_log_normal(4_096) < 0.996
    low, high = (fits.middle_of_log_normal(2_000, draws=3, of=of) for of in (min, max))
    assert low < fits.middle_of_log_normal(2_000, draws=3) < high


def test_controls_have_the_budget_and_the_shape_of_their_law():
    found = fits.controls(2_000, 10_000, k=16)
    for counts in found.values():
        assert counts.max() <= 11_000 and counts.sum() == pytest.approx(160_000, rel=0.05)
    power, normal = found.values()
    assert power[0] / power[89] == pytest.approx(100 / 11, rel=0.1), "(r + 10)^-1 at the ranks 1 and 90"
    assert np.log(normal[normal > 0]).std() == pytest.approx(1.5, abs=0.15)


def test_a_curve_goes_through_the_ranks_that_were_fitted():
    values = np.concatenate([7 * (RANKS[:500] + 5.0) ** -1.1, np.full(500, 1e-9)])
    drawn = fits.curve(fits.Line(1.1, 5.0, 1.0), values, 500)
    assert drawn[:500] == pytest.approx(values[:500]) and len(drawn) == 1_000 and drawn[999] > 1e-4


def test_each_fit_finds_its_own_law():
    of = counts(1.2, 30.0)
    laws = fits.budget_laws(of, N_TOKENS)
    lost = {name: misplaced(law, of) for name, law in laws.items()}
    default, likely, squares, bent_law = laws
    assert lost[squares] < 0.02 < 0.05 < lost[default] and lost[likely] < 0.05, lost
    bent = np.round(N_TOKENS * np.exp(np.random.default_rng(0).normal(-5.5, 1.5, 3_000)).clip(max=1)).astype(int)
    lost = {name: misplaced(law, bent) for name, law in fits.budget_laws(bent, N_TOKENS).items()}
    assert lost[bent_law] == min(lost.values()) < 0.05, lost


def test_too_few_features_for_a_middle_are_refused():
    with pytest.raises(ValueError, match="12 features fired, too few"):
        fits.fitted_as_training_does(np.arange(1, 13), 1_000)
