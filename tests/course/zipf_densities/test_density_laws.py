"""Laws of rank and density: what was put in comes out, and the likelihood tells laws apart."""

import numpy as np
import pytest

from sae_tutorial.course.zipf_densities.density_laws import (
    FAMILIES,
    Law,
    exponent_interval,
    fit_law,
    gini,
    misplaced,
    share_denser,
    sorted_over_split,
    split_counts,
)

N_TOKENS, F = 60_000, 1500
TRUE = {
    "zipf": {"scale": 0.5, "exponent": 0.9},
    "zipf_mandelbrot": {"scale": 3.0, "exponent": 1.1, "offset": 25.0},
    "cut_off": {"scale": 0.5, "exponent": 0.6, "cut_off": 600.0},
    "zipf_mandelbrot_cut_off": {"scale": 1.0, "exponent": 0.7, "offset": 30.0, "cut_off": 1200.0},
    "log_normal": {"mu": -5.5, "sigma": 1.5},
}


def law(family: str) -> Law:
    return Law(family, TRUE[family], 0.0, F, N_TOKENS)


def counts_from(family: str, seed: int = 0) -> np.ndarray:
    """Counts of features whose ranks were drawn at random: the population that the likelihood believes in."""
    rng = np.random.default_rng(seed)
    density = law(family).density(rng.uniform(0.5, F + 0.5, F))
    return np.minimum(rng.poisson(density * N_TOKENS), N_TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_share_denser_is_the_law_read_backwards(family):
    ranks = np.array([1.0, 2.5, 40.0, 700.0, 1499.0])
    share = share_denser(family, TRUE[family], F, law(family).density(ranks))
    assert share * F + 0.5 == pytest.approx(ranks, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_fit_finds_the_curve_that_was_put_in(family):
    counts = counts_from(family)
    found, ranks = fit_law(counts, N_TOKENS, family), np.array([20, 100, 400, 1000, 1400])
    assert found.density(ranks) == pytest.approx(law(family).density(ranks), rel=0.2)


@pytest.mark.parametrize("family", ["zipf", "zipf_mandelbrot", "log_normal"])
def test_fit_finds_the_parameters(family):
    """Where nothing can take their place: a cut-off and an offset trade off against the exponent."""
    found = fit_law(counts_from(family), N_TOKENS, family).parameters
    for name in ("exponent", "mu", "sigma"):
        if name in found:
            assert found[name] == pytest.approx(TRUE[family][name], rel=0.1)


@pytest.mark.parametrize("family", ["zipf", "zipf_mandelbrot", "cut_off", "log_normal"])
def test_aic_prefers_the_law_that_made_the_counts(family):
    counts = counts_from(family, seed=1)
    aic = {name: fit_law(counts, N_TOKENS, name).aic for name in FAMILIES}
    assert aic[family] < min(aic.values()) + 3, aic  # a larger family that holds the true law may be ahead by luck
    straight = "zipf" if family == "log_normal" else "log_normal"
    assert aic[straight] > aic[family] + 100


def test_larger_families_are_at_least_as_likely():
    counts = counts_from("cut_off", seed=2)
    best = {name: fit_law(counts, N_TOKENS, name).log_likelihood for name in FAMILIES}
    slack = 0.5
    assert best["zipf"] <= best["zipf_mandelbrot"] + slack <= best["zipf_mandelbrot_cut_off"] + 2 * slack
    assert best["zipf"] <= best["cut_off"] + slack <= best["zipf_mandelbrot_cut_off"] + 2 * slack


def test_features_that_never_fired_do_not_count():
    counts = counts_from("zipf_mandelbrot")
    with_dead = np.concatenate([counts, np.zeros(500, dtype=int)])
    assert fit_law(with_dead, N_TOKENS) == fit_law(counts, N_TOKENS)


@pytest.mark.parametrize("seed", range(3))
def test_the_law_of_those_that_fired_is_the_law_of_all(seed):
    """Nine in ten of these features never fire. Those that do are the densest, and more even than the population: a
    likelihood that forgot they were selected would find a flatter law."""
    n_tokens, n_features = 2_000, 4_000
    population = Law("zipf", {"scale": 0.3, "exponent": 1.3}, 0.0, n_features, n_tokens)
    rng = np.random.default_rng(seed)
    counts = rng.poisson(population.density(rng.uniform(0.5, n_features + 0.5, n_features)) * n_tokens).clip(
        max=n_tokens
    )
    assert (counts > 0).mean() < 0.12
    assert fit_law(counts, n_tokens, "zipf").parameters["exponent"] == pytest.approx(1.3, abs=0.2)


def test_a_search_along_a_long_valley_ends_at_its_bottom():
    """Nearly log-normal counts make offset and scale huge; from there no start finds anything better."""
    counts = counts_from("log_normal", seed=3)
    found = fit_law(counts, N_TOKENS)
    low, high = exponent_interval(counts, N_TOKENS)
    assert found.parameters["offset"] > 100 and low < found.parameters["exponent"] < high
    wide = exponent_interval(counts, N_TOKENS, drop=4.0)
    assert wide[0] < low and high < wide[1]


def test_the_interval_holds_the_true_exponent_about_as_often_as_it_says():
    intervals = [exponent_interval(counts_from("zipf_mandelbrot", seed), N_TOKENS) for seed in range(12)]
    held = sum(low <= TRUE["zipf_mandelbrot"]["exponent"] <= high for low, high in intervals)
    assert 10 <= held <= 12 and all(high < 1.2 * low for low, high in intervals)


def test_split_counts_are_two_halves():
    counts = np.array([0, 1, 10_000])
    first, second = split_counts(counts, seed=3)
    assert (first + second == counts).all() and abs(first[2] - 5000) < 300
    assert (split_counts(counts, seed=3)[0] == first).all()


def test_sorting_matters_where_counts_are_alike_and_not_where_they_fall():
    falling = np.round(60_000 / np.arange(1, 1_001)).astype(int)
    assert sorted_over_split(falling, (30, 300, 2_000)) == pytest.approx({30: 1, 300: 1}, abs=0.02)
    alike = np.random.default_rng(0).poisson(5, 1_000)
    assert sorted_over_split(alike, (50,))[50] > 1.5


def test_a_law_misplaces_nothing_at_home():
    exact = np.round(law("zipf_mandelbrot").density(np.arange(1, F + 1)) * 1e9).astype(int)
    assert misplaced(law("zipf_mandelbrot"), exact) == pytest.approx(0, abs=1e-6)
    flat = Law("zipf", {"scale": 1.0, "exponent": 0.0}, 0.0, F, N_TOKENS)
    quarter = np.array([3] * 20 + [1] * 20)  # uniform gives the rich half 1/2 instead of 3/4
    assert misplaced(flat, quarter) == pytest.approx(0.25)


def test_a_law_is_stretched_to_another_size():
    ranks, home = np.arange(1, 2 * F + 1), law("zipf_mandelbrot")
    twice = np.round(home.density((ranks - 0.5) / 2 + 0.5) * 1e9).astype(int)
    assert misplaced(home, twice) < 1e-6 and misplaced(home, twice, scaled=False) > 0.02


def test_an_offset_below_a_half_is_read_from_rank_1_on():
    steep = Law("zipf_mandelbrot", {"scale": 1.0, "exponent": 0.4, "offset": -0.95}, 0.0, 30, N_TOKENS)
    assert 0 < misplaced(steep, np.arange(1, 61)) < 1


def test_gini_of_known_shares():
    assert gini(np.ones(7)) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 1.0])) == pytest.approx(0.75)
    assert gini(np.array([0.1, 0.3])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="not all 0"):
        gini(np.zeros(3))


@pytest.mark.parametrize(
    ("counts", "family", "says"),
    [
        (np.arange(20), "pareto", "family must be one of zipf"),
        (np.arange(20) / 3, "zipf", "whole numbers"),
        (-np.arange(20), "zipf", "0 or more"),
        (np.arange(5), "zipf", "got 4"),
        (np.arange(20) * 100, "zipf", "matched 1,900 of n_tokens = 1,000 tokens, a density above 1; give the number"),
        (np.zeros(20, dtype=int), "zipf", "got 0; give more tokens"),
        (np.zeros(0, dtype=int), "zipf", "got 0; give more tokens"),
    ],
)
def test_what_is_refused(counts, family, says):
    with pytest.raises(ValueError, match=says):
        fit_law(counts, 1000, family)


def test_where_nothing_fires_or_varies_there_is_no_law():
    flat = Law("zipf", {"scale": 0.1, "exponent": 0.5}, 0.0, 20, 1000)
    for refused in (lambda counts: misplaced(flat, counts), lambda counts: exponent_interval(counts, 1000)):
        with pytest.raises(ValueError, match="a law needs 10 features that fired, got 0"):
            refused(np.zeros(20, dtype=int))
    with pytest.raises(ValueError, match="not all 0"):
        gini(np.zeros(0))
    assert [part.tolist() for part in split_counts(np.zeros(3, dtype=int))] == [[0, 0, 0]] * 2
    assert fit_law(np.full(20, 7), 1000, "zipf").parameters["exponent"] < 0.2  # all alike: nearly flat


def test_densities_above_1_are_refused():
    counts = np.arange(1, 31) * 1_000
    with pytest.raises(
        ValueError, match="counts: a feature matched 30,000 of n_tokens = 20,000 tokens, a density above 1"
    ):
        fit_law(counts, 20_000, "zipf")
    with pytest.raises(ValueError, match="densities are shares of tokens, at most 1, got 30000; divide counts"):
        gini(counts)
    assert gini(counts / 30_000) == pytest.approx(gini(counts / 60_000))
