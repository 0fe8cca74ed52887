"""Laws told apart inside a window of ranks: the one that made the counts is not worse than others there."""

import numpy as np
import pytest

from sae_tutorial.course.zipf_densities.density_laws import Law
from sae_tutorial.course.zipf_densities.fits import controls
from sae_tutorial.course.zipf_densities.truncated import by_window, window_aic

F, N_TOKENS, WINDOW = 4_096, 65_280, (100, 3_000)


def counts_from(family: str, seed: int, **numbers: float) -> np.ndarray:
    """Counts of features whose ranks were drawn at random."""
    rng = np.random.default_rng(seed)
    density = Law(family, numbers, 0.0, F, N_TOKENS).density(rng.uniform(0.5, F + 0.5, F))
    return np.minimum(rng.poisson(density * N_TOKENS), N_TOKENS)


@pytest.mark.parametrize("seed", range(3))
def test_the_window_finds_the_law_that_made_it(seed):
    power = window_aic(counts_from("zipf_mandelbrot", seed, scale=3.0, exponent=1.1, offset=25.0), N_TOKENS, WINDOW)
    assert power["zipf_mandelbrot"] < min(power.values()) + 10  # rivals hold it nearly, and are ahead by luck only
    bent = window_aic(counts_from("log_normal", seed, mu=-5.5, sigma=1.5), N_TOKENS, WINDOW)
    assert bent["log_normal"] == min(bent.values()) < bent["zipf_mandelbrot"] - 100
    falling = window_aic(counts_from("cut_off", seed, scale=0.5, exponent=0.6, cut_off=1200.0), N_TOKENS, WINDOW)
    assert falling["cut_off"] < min(falling.values()) + 5 and falling["cut_off"] < falling["zipf_mandelbrot"] - 50


def test_an_offset_is_invisible_in_a_window():
    """Two power laws that differ in offset and scale, the same densities in the window: the same likelihood."""
    ranks = np.arange(1, F + 1)
    near = np.round(N_TOKENS * 0.9 * (ranks + 30.0) ** -0.8).astype(int)
    far = np.round(N_TOKENS * 0.9 * (ranks[20:] + 10.0) ** -0.8).astype(int)  # without its first 20 features, shifted
    a, b = window_aic(near, N_TOKENS, (100, 2_000)), window_aic(np.sort(far)[::-1], N_TOKENS, (100, 2_000))
    assert a["zipf_mandelbrot"] == pytest.approx(b["zipf_mandelbrot"], rel=0.01)


def test_what_lies_outside_does_not_matter():
    counts = np.sort(counts_from("log_normal", 0, mu=-5.5, sigma=1.5))[::-1]
    changed = counts.copy()
    changed[:50] = np.minimum(changed[:50] * 2, N_TOKENS)
    changed[3_500:] //= 2
    assert window_aic(changed, N_TOKENS, (100, 3_000)) == pytest.approx(window_aic(counts, N_TOKENS, (100, 3_000)))


@pytest.mark.parametrize("ranks", [(0, 100), (100, 105), (5, 5_000)])
def test_windows_that_hold_too_little_are_refused(ranks):
    counts = counts_from("log_normal", 0, mu=-5.5, sigma=1.5)
    with pytest.raises(ValueError, match="ranks must hold 10 of the"):
        window_aic(counts, N_TOKENS, ranks)
    with pytest.raises(ValueError, match="a density above 1"):
        window_aic(counts, 100, WINDOW)


def test_the_test_of_laws_finds_either_law_over_all_ranks():
    n_tokens = 20_000
    found = {name: by_window(counts, n_tokens) for name, counts in controls(1_000, n_tokens, k=16).items()}
    power, normal = found["drawn from the default law"], found["drawn from a log-normal"]
    assert power["all ranks"]["zipf_mandelbrot"] < 3 and power["all ranks"]["log_normal"] > 100
    assert normal["all ranks"]["log_normal"] == 0 and normal["all ranks"]["zipf_mandelbrot"] > 100
    assert list(power) == ["all ranks", "ranks 100 to 80%", "ranks 100 to 50%"]
