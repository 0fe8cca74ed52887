"""Laws of rank and density, fitted to counts: Zipf–Mandelbrot, its rivals, and how sure one can be.

Sort features by how often they fire, and density falls with rank. `fit_zipf` draws a line through the logarithms. Here
the same curve is read as a population: pick one of the F features at random, its rank r is uniform, and its density is
p(r). A law of ranks is a quantile function read from the dense end, and so every law gives each count a probability:

    r ~ uniform,   count ~ Poisson(n_tokens · p(r))

The product of these probabilities is the likelihood. It knows that a count of 3 tells little and one of 3,000 much, it
does not depend on ranks read off the same counts, and it lets laws of different shape be compared (AIC).

The laws, r = 1 … F:

    zipf                     c · r^−s
    zipf_mandelbrot          c · (r + q)^−s
    cut_off                  c · r^−s · e^(−r / r_cut)      straight, then falling away in the tail
    zipf_mandelbrot_cut_off  c · (r + q)^−s · e^(−r / r_cut)    all of the above
    log_normal               log p is normal (μ, σ): bent everywhere, no power law at all

Zipf–Mandelbrot for SAE densities: Ayonrinde 2024 reports Zipf fits. The likelihood and the choice of rivals are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import OptimizeResult, minimize
from scipy.special import ndtr, ndtri, pdtr, wrightomega

# The numbers that each law is described by, in the order in which they are fitted.
FAMILIES: dict[str, tuple[str, ...]] = {
    "zipf": ("scale", "exponent"),
    "zipf_mandelbrot": ("scale", "exponent", "offset"),
    "cut_off": ("scale", "exponent", "cut_off"),
    "zipf_mandelbrot_cut_off": ("scale", "exponent", "offset", "cut_off"),
    "log_normal": ("mu", "sigma"),
}
CELLS = 400  # expected counts, on a logarithmic grid
EXACT, STEP = 16, 1.15  # counts below 16 are kept one by one, then in bins 15 % wide
DESCENT = {"xatol": 1e-3, "fatol": 1e-3, "maxfev": 1000}


@dataclass(frozen=True)
class Law:
    """A law fitted to the densities of `n_features` features that fired, on `n_tokens` tokens.

    `parameters` are those that FAMILIES names: exponent s, offset q and cut_off r_cut (in ranks), scale c (a
    density), or mu and sigma of log density.
    """

    family: str
    parameters: dict[str, float]
    log_likelihood: float
    n_features: int
    n_tokens: int

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 · (number of parameters) − 2 · log likelihood: lower is better."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood

    def density(self, ranks: Int[np.ndarray, " n"] | Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The law's density at these ranks, the densest feature having rank 1."""
        r, p = np.asarray(ranks, dtype=float), self.parameters
        if self.family == "log_normal":
            return np.exp(p["mu"] + p["sigma"] * ndtri(1 - (r - 0.5) / self.n_features))
        power = (r + p.get("offset", 0.0)) ** -p["exponent"]
        return p["scale"] * power * np.exp(-r / p.get("cut_off", math.inf))


def fit_law(counts: Int[np.ndarray, " features"], n_tokens: int, family: str = "zipf_mandelbrot") -> Law:
    """The law of this family under which `counts` (how many of `n_tokens` tokens each feature matched) are likeliest.

    Features that never fired are left out, and probabilities are conditional on having fired: no law of this list
    makes dead features. Counts are grouped (16 and up in bins 15 % wide), which costs next to nothing.

    Raises ValueError for an unknown family, counts that are negative or above n_tokens, or fewer than 10 that fired.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    fired = fired_counts(counts, n_tokens)
    return _fit(_histogram(fired, n_tokens), n_tokens, family, _starts(fired, n_tokens, family))


def exponent_interval(
    counts: Int[np.ndarray, " features"], n_tokens: int, family: str = "zipf_mandelbrot", drop: float = 1.92
) -> tuple[float, float]:
    """Exponents whose log likelihood, the other parameters at their best for each, is at most `drop` below the largest.

    With 1.92 this is the 95 % profile interval: what the luck of the draw leaves open, if the law is right.
    """
    fired = fired_counts(counts, n_tokens)
    loss = _loss(_histogram(fired, n_tokens), n_tokens, family)
    best = fit_law(counts, n_tokens, family)
    start = _pinned(family, _free(best.parameters), best.n_features)

    def rest(others: np.ndarray, log_exponent: float) -> float:
        return loss(np.insert(others, 1, log_exponent))

    def end(factor: float) -> float:
        """Walk away from the best exponent, in steps of 2 %, until the likelihood has fallen, and read off where."""
        at, fallen, others = start[1], 0.0, np.delete(start, 1)
        while True:
            before = at, fallen
            at += math.log(factor)
            found = minimize(rest, others, args=(at,), method="Nelder-Mead", options=DESCENT)
            others, fallen = found.x, float(found.fun) + best.log_likelihood
            if fallen >= drop:
                return math.exp(np.interp(drop, [before[1], fallen], [before[0], at]))

    return end(1 / 1.02), end(1.02)


def split_counts(
    counts: Int[np.ndarray, " features"], seed: int = 0
) -> tuple[Int[np.ndarray, " features"], Int[np.ndarray, " features"]]:
    """Throw a coin for every match: two sets of counts as from two halves of the text, with independent noise.

    Rank by one, read densities off the other, and sorting no longer dresses noise up as a law (Piantadosi 2014).
    """
    first = np.random.default_rng(seed).binomial(counts, 0.5)
    return first, np.asarray(counts) - first


def sorted_over_split(counts: Int[np.ndarray, " features"], ranks: Sequence[int], seed: int = 0) -> dict[int, float]:
    """Rank -> how much denser features within 10 % of it look when sorted by the counts that are read, than when ranked
    by one half of the matches and read from the other. 1 is no difference. Ranks beyond the last are left out."""
    falling = np.sort(counts)[::-1]
    first, second = split_counts(falling, seed)
    halves = second[np.argsort(-first, kind="stable")]
    near = {r: slice(int(0.9 * r), int(1.1 * r)) for r in ranks if 1.1 * r < len(falling)}
    return {r: float(falling[there].sum() / max(2 * halves[there].sum(), 1)) for r, there in near.items()}


def misplaced(law: Law, counts: Int[np.ndarray, " features"], scaled: bool = True) -> float:
    """The share of a budget, handed out by `law`, that goes to other ranks than in `counts`: ½ Σ |p_law − p_data|.

    For a dictionary of another size the law is read as a quantile function (rank 10 of 1,000 is rank 20 of 2,000), or
    with `scaled=False` at the same ranks. Features that never fired have no rank.
    """
    fired = _fired(counts)
    stretch = law.n_features / len(fired) if scaled else 1.0
    ranks = (np.arange(len(fired)) + 0.5) * stretch + 0.5
    if law.parameters.get("offset", 0.0) <= -0.5:
        ranks = ranks.clip(min=1)  # such a law has no value between the ranks 1/2 and 1
    shares = law.density(ranks)
    return float(0.5 * np.abs(shares / shares.sum() - fired / fired.sum()).sum())


def gini(densities: Float[np.ndarray, " features"]) -> float:
    """How unequal densities are: 0 if all are the same, nearly 1 if one feature has them all.

    Raises ValueError for no densities, only zeros, negative ones, and any above 1, which are counts.
    """
    ordered = np.sort(np.asarray(densities, dtype=float))
    if ordered.size == 0 or ordered.min() < 0 or ordered.sum() == 0:
        raise ValueError("densities must be 0 or more, and not all 0, to be shared out unequally")
    if ordered[-1] > 1:
        raise ValueError(f"densities are shares of tokens, at most 1, got {ordered[-1]:g}; divide counts by the tokens")
    n = len(ordered)
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * ordered.sum()) - (n + 1) / n)


# ---------------------------------------------------------------------- laws as populations


def share_denser(family: str, p: dict[str, float], n_features: int, x: Float[np.ndarray, " n"]) -> np.ndarray:
    """The share of features with a density above x: the rank at which the law falls to x, over F."""
    log_x = np.log(x)
    if family == "log_normal":
        return ndtr((p["mu"] - log_x) / p["sigma"])
    s, q, log_fall = p["exponent"], p.get("offset", 0.0), (math.log(p["scale"]) - log_x) / p["exponent"]
    if "cut_off" in p:
        # y e^(y / t) = (c / x)^(1/s) e^(q / t) with y = r + q, t = s · r_cut; ω(z) is Lambert's W(e^z)
        t = s * p["cut_off"]
        rank = t * wrightomega(log_fall + q / t - math.log(t)) - q
    else:
        rank = np.exp(np.minimum(log_fall, 700.0)) - q
    return ((rank - 0.5) / n_features).clip(0, 1)


def _fit(histogram: np.ndarray, n_tokens: int, family: str, starts: list[np.ndarray]) -> Law:
    """Walk downhill from each start, and keep the deepest valley."""
    n_features = int(histogram.sum())
    loss = _loss(histogram, n_tokens, family)

    def descend(start: np.ndarray) -> OptimizeResult:
        return minimize(loss, start, method="Nelder-Mead", options=DESCENT)

    found = min((descend(_pinned(family, start, n_features)) for start in starts), key=lambda result: result.fun)
    found = descend(found.x)  # a fresh simplex: where offset and cut-off trade off, the valley is long and flat
    parameters = _named(family, _pinned(family, found.x, n_features, back=True))
    return Law(family, parameters, -float(found.fun), n_features, n_tokens)


def _loss(histogram: np.ndarray, n_tokens: int, family: str) -> Callable[[np.ndarray], float]:
    """Minus the log likelihood, as a function of `_pinned` parameters."""
    centres, bin_given_cell, edges = _poisson(n_tokens)
    n_features = int(histogram.sum())
    seen = histogram > 0
    weights, seen_given_cell = histogram[seen], bin_given_cell[seen]

    def loss(pinned: np.ndarray) -> float:
        if np.abs(pinned).max() > 30:  # a parameter runs away: beyond e^30 it no longer matters
            return math.inf
        free = _pinned(family, pinned, n_features, back=True)
        if free[0] > 600:
            return math.inf
        above = share_denser(family, _named(family, free), n_features, edges / n_tokens)
        mass = -np.diff(above, prepend=1.0, append=0.0)  # of the cells, the first and last open
        fired = 1 - mass @ np.exp(-centres)
        likelihood = seen_given_cell @ mass / max(fired, 1e-300)
        return -float(weights @ np.log(likelihood.clip(min=1e-300)))

    return loss


def _pinned(family: str, free: np.ndarray, n_features: int, back: bool = False) -> np.ndarray:
    """The scale of a power law exchanged for its log density at rank √F, or back. The scale c is its value at rank
    1 − q, outside of the data, and runs with exponent and offset along a valley in which a search gets stuck."""
    if family == "log_normal":
        return free
    rank, p = n_features**0.5, _named(family, np.array([0.0, *free[1:]]))
    fall = p["exponent"] * math.log(rank + p.get("offset", 0.0)) + rank / p.get("cut_off", math.inf)
    return np.array([free[0] + (fall if back else -fall), *free[1:]])


# Parameters that must be positive are fitted as logarithms; an offset must exceed −1/2, where ranks begin.
_TO_FREE: dict[str, Callable[[float], float]] = {"mu": lambda v: v, "offset": lambda v: math.log(v + 0.5)}
_TO_NAMED: dict[str, Callable[[float], float]] = {"mu": lambda v: v, "offset": lambda v: math.exp(v) - 0.5}


def _free(parameters: dict[str, float]) -> np.ndarray:
    return np.array([_TO_FREE.get(name, math.log)(value) for name, value in parameters.items()])


def _named(family: str, free: np.ndarray) -> dict[str, float]:
    return {name: float(_TO_NAMED.get(name, math.exp)(v)) for name, v in zip(FAMILIES[family], free)}


def _starts(fired: np.ndarray, n_tokens: int, family: str) -> list[np.ndarray]:
    """Guesses that stand on different sides: small and large offsets, early and late cut-offs."""
    log_x = np.log(fired / n_tokens)
    if family == "log_normal":
        return [_free({"mu": float(log_x.mean()), "sigma": max(float(log_x.std()), 0.05)})]
    ranks = np.arange(1, len(fired) + 1)
    starts = []
    for offset in (0.0, len(fired) / 30) if "offset" in FAMILIES[family] else (0.0,):
        for cut_off in (len(fired) / 3, len(fired) * 3) if "cut_off" in FAMILIES[family] else (math.inf,):
            slope, height = np.polyfit(np.log(ranks + offset), log_x + ranks / cut_off, 1)
            guess = {"scale": math.exp(height), "exponent": max(-slope, 0.05), "offset": offset, "cut_off": cut_off}
            starts.append(_free({name: guess[name] for name in FAMILIES[family]}))
    return starts


# ---------------------------------------------------------------------- counts


def _fired(counts: Int[np.ndarray, " features"]) -> np.ndarray:
    """Counts above 0, the largest first."""
    counts = np.asarray(counts)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.round(counts)).any():
        raise ValueError("counts must be a list of whole numbers, 0 or more; for densities, multiply by the tokens")
    fired = np.sort(counts[counts > 0])[::-1]
    if len(fired) < 10:
        raise ValueError(f"a law needs 10 features that fired, got {len(fired)}; give more tokens")
    return fired


def fired_counts(counts: Int[np.ndarray, " features"], n_tokens: int) -> Int[np.ndarray, " fired"]:
    """Counts above 0, the largest first. Raises ValueError as `fit_law`."""
    fired = _fired(counts)
    if fired[0] > n_tokens:
        raise ValueError(
            f"counts: a feature matched {fired[0]:,} of n_tokens = {n_tokens:,} tokens, a density above 1; give the "
            "number of tokens on which these matches were counted"
        )
    return fired


def _bins(n_tokens: int) -> np.ndarray:
    """The largest count of each bin: 1, 2, … 16, then in steps of 15 %, up to all tokens."""
    n_steps = max(0, math.ceil(math.log(max(n_tokens, EXACT) / EXACT) / math.log(STEP)))
    tops = [EXACT * STEP**i for i in range(1, n_steps + 1)]
    return np.unique(np.minimum(np.floor([*range(1, EXACT + 1), *tops]), n_tokens))


def _histogram(fired: np.ndarray, n_tokens: int) -> np.ndarray:
    tops = _bins(n_tokens)
    return np.bincount(np.searchsorted(tops, fired), minlength=len(tops))


@lru_cache(maxsize=4)
def _poisson(n_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of expected counts: their centres (cells + 2,), P(bin | centre) (bins, cells + 2), edges (cells + 1,)."""
    edges = np.geomspace(1e-2, n_tokens, CELLS + 1)
    centres = np.concatenate([edges[:1], np.sqrt(edges[1:] * edges[:-1]), edges[-1:]])
    up_to = pdtr(np.concatenate([[0], _bins(n_tokens)])[:, None], centres[None, :])
    return centres, np.diff(up_to, axis=0), edges
