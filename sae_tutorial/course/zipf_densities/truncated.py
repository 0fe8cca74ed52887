"""Which law a piece of the curve follows: the likelihood of `density_laws` restricted to a window of ranks.

A claim about the middle ranks is tested on the middle ranks alone. Given that a count lies between those of the first
and the last rank of the window, its probability under a law is

    P(count | window) = ∫ Poisson(count | n p) dt(p) / ∫ P(low ≤ Poisson(n p) ≤ high) dt(p)

where n is the number of tokens and t(p) the rank, offset included, at which the law falls to density p. Only
differences of t matter, and so what shifts or stretches ranks cancels: scale c and offset q of a power law are gone,
and Zipf and Zipf–Mandelbrot are one law with one free number. A cut-off keeps two (exponent, and where the fall
begins), a log-normal its two.

Windows instead of all data: Clauset, Shalizi and Newman 2009, who choose a lower end. Poisson counts are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import ndtr, pdtr, wrightomega

from sae_tutorial.course.zipf_densities.density_laws import FAMILIES, fired_counts, fit_law
from sae_tutorial.course.zipf_densities.fits import middle

CELLS = 300  # expected counts, on a logarithmic grid
STEP = 1.05  # counts are kept in bins 5 % wide, the first ones one by one

# Ranks t(p) up to a shift and a factor, as functions of log density and free numbers; where a search for them starts,
# given the slope of log density on log rank and the mean and spread of log density.
Rank = Callable[[np.ndarray, np.ndarray], np.ndarray]
RANKS: dict[str, Rank] = {
    "zipf_mandelbrot": lambda v, p: np.exp((v.max() - v) / math.exp(p[0])),
    "cut_off": lambda v, p: wrightomega((p[1] - v) / math.exp(p[0])),
    "log_normal": lambda v, p: ndtr((p[0] - v) / math.exp(p[1])),
}

SAME = {"zipf": "zipf_mandelbrot", "zipf_mandelbrot_cut_off": "cut_off"}  # where ranks have no beginning


def window_aic(
    counts: Int[np.ndarray, " features"], n_tokens: int, ranks: tuple[int, int], families: tuple[str, ...] = (*RANKS,)
) -> dict[str, float]:
    """Akaike's criterion of each law on the features of these ranks, (first, last), both included: lower is better.

    Features as frequent as the last one belong to the window, too. Raises ValueError for a window with fewer than 10
    features, and for what `fit_law` refuses in counts.
    """
    fired = fired_counts(counts, n_tokens)
    first, last = ranks
    if not 1 <= first <= last - 9 or last > len(fired):
        raise ValueError(f"ranks must hold 10 of the {len(fired)} features that fired, first to last, got {ranks}")
    low, high = int(fired[last - 1]), int(fired[first - 1])
    inside = fired[(fired >= low) & (fired <= high)]
    tops = _tops(low, high)
    histogram = np.bincount(np.searchsorted(tops, inside), minlength=len(tops))
    edges = np.geomspace(max(low - 6 * low**0.5 - 6, 0.02), high + 6 * high**0.5 + 6, CELLS + 1)
    centres = np.sqrt(edges[1:] * edges[:-1])
    bin_given_cell = np.diff(pdtr(np.concatenate([[low - 1], tops])[:, None], centres[None, :]), axis=0)
    return {name: _aic(RANKS[name], _starts(name, inside), histogram, bin_given_cell, edges) for name in families}


def behind_best(counts: Int[np.ndarray, " features"], n_tokens: int, ranks: tuple[int, int] | None) -> dict[str, float]:
    """AIC behind the likeliest law of FAMILIES, of all features that fired or of those in a window of ranks, in which
    laws that differ in the offset alone are the same law."""
    if ranks is None:
        aic = {family: fit_law(counts, n_tokens, family).aic for family in FAMILIES}
    else:
        aic = window_aic(counts, n_tokens, ranks)
        aic |= {family: aic[same] for family, same in SAME.items()}
    return {family: aic[family] - min(aic.values()) for family in FAMILIES}


def by_window(counts: Int[np.ndarray, " features"], n_tokens: int) -> dict[str, dict[str, float]]:
    """`behind_best` over all ranks, over the middle ones, and over their first half."""
    alive = int((counts > 0).sum())
    first, last = middle(alive)
    windows = {"all ranks": None, "ranks 100 to 80%": (first, last), "ranks 100 to 50%": (first, alive // 2)}
    return {name: behind_best(counts, n_tokens, ranks) for name, ranks in windows.items()}


def _aic(
    rank: Rank,
    starts: list[list[float]],
    histogram: Int[np.ndarray, " bins"],
    bin_given_cell: Float[np.ndarray, "bins cells"],
    edges: Float[np.ndarray, " edges"],
) -> float:
    seen, log_edges = histogram > 0, np.log(edges)

    def loss(free: np.ndarray) -> float:
        if np.abs(free).max() > 40:
            return math.inf
        mass = -np.diff(rank(log_edges, free))  # of the cells: how many ranks have such densities
        likelihood = bin_given_cell @ mass
        if not np.isfinite(likelihood).all() or likelihood.sum() <= 0:
            return math.inf
        return -float(histogram[seen] @ np.log((likelihood[seen] / likelihood.sum()).clip(min=1e-300)))

    options = {"xatol": 1e-4, "fatol": 1e-3, "maxfev": 1000}
    found = min((minimize(loss, start, method="Nelder-Mead", options=options) for start in starts), key=lambda f: f.fun)
    return 2 * len(found.x) + 2 * float(found.fun)


def _starts(family: str, inside: Int[np.ndarray, " features"]) -> list[list[float]]:
    """Exponents from flat to steep; a fall that begins before, in and behind the window; bells below and around it."""
    log_counts = np.log(inside)
    top, middle, spread = float(log_counts.max()), float(log_counts.mean()), float(log_counts.std()) + 0.1
    if family == "zipf_mandelbrot":
        return [[math.log(s)] for s in (0.5, 1.0, 3.0)]
    if family == "cut_off":
        return [[math.log(s), at] for s in (0.5, 1.5) for at in (middle - 2, middle, top)]
    return [[at, math.log(factor * spread)] for at in (middle, middle - 3 * spread) for factor in (1.0, 2.0)]


def _tops(low: int, high: int) -> Int[np.ndarray, " bins"]:
    """The largest count of each bin, from `low` to `high`."""
    n_bins = math.ceil(math.log(high / low) / math.log(STEP))
    return np.unique(np.minimum(np.floor(low * STEP ** np.arange(n_bins + 1)), high)).astype(int)
