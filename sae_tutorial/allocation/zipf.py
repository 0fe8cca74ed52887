"""How many tokens each feature may have: capacities that follow a Zipf law, and the law fitted to densities.

In a trained SAE a few features fire often and most fire rarely: on log axes, density against rank is close to
a straight line. Feature Choice can give out its budget in that shape. The feature of rank r gets

    capacity_r  ∝  (r + offset)^(−exponent),        r = 1, 2, … F        (Zipf–Mandelbrot)

That capacities follow a Zipf law is Ayonrinde 2024 (arXiv 2411.02124). The formula with its offset, the rounding, the
limits at both ends and the rotation below are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from sae_tutorial.allocation.checks import check_count

# A rotation lasts this many times ceil(F / M) steps: one match per feature and window costs at most 1/8 of the budget.
ROTATION = 8


def zipf_capacity(
    n_features: int, n_matches: int, n_tokens: int, exponent: float, offset: float, step: int = 0
) -> Int[Tensor, " features"]:
    """How many tokens each rank may take, (F,) int64 with the most frequent feature first; they sum to `n_matches`.

    The law is limited at both ends. No feature takes more than the `n_tokens` of the batch: what the head cannot use
    goes down the ranks, in proportion. And no feature goes without: with n_matches ≥ n_features every one has at least
    1 token in every batch. Capacities then never grow with the rank and do not depend on `step`. A budget beyond
    n_features · n_tokens sums to that product.

    With n_matches < n_features whole tokens cannot follow the law within one batch, so `step` rotates them. The
    window is W = 8 · ceil(n_features / n_matches) steps. Over any W consecutive steps, rank r gets exactly its share:
    W times its Zipf fraction of the budget, rounded, and at least 1. Each single step still sums to `n_matches`
    exactly, with every rank less than one token from its average. See `_rotate` for the two-line proof.

    Raises ValueError for counts that are negative, an exponent that is negative, an offset of −1 or less.
    Source: Ayonrinde 2024 for the Zipf shape; formula, limits and rotation are ours.
    """
    F, M = check_count("n_features", n_features), check_count("n_matches", n_matches)
    B, step = check_count("n_tokens", n_tokens), check_count("step", step)
    exponent, offset = float(exponent), float(offset)
    if F == 0:
        raise ValueError("n_features must be 1 or more, got 0")
    if not 0 <= exponent < math.inf:
        raise ValueError(f"exponent must be a finite number, 0 (uniform) or more, got {exponent}")
    if not -1 < offset < math.inf:
        raise ValueError(f"offset must be a finite number greater than -1, got {offset}: the first rank is 1 + offset")
    M = min(M, F * B)
    if M == 0:
        return torch.zeros(F, dtype=torch.int64)
    window = 1 if M >= F else ROTATION * math.ceil(F / M)
    return _rotate(_cumulative_shares(F, M, B, exponent, offset, window), window, step)


def _rotate(cumulative: Int[Tensor, " features"], window: int, step: int) -> Int[Tensor, " features"]:
    """One step of low-discrepancy rounding: cut the cumulative shares C into whole tokens, from a start that moves.

        m_r(step) = ⌊(C_r + j) / W⌋ − ⌊(C_{r−1} + j) / W⌋,     j = step · a mod W,     a coprime with W

    Sum over ranks: it telescopes to ⌊(W·M + j) / W⌋ − ⌊j / W⌋ = M, at every step.
    Sum over W consecutive steps: j takes each of 0 … W−1 once, and Σ_j ⌊(C + j) / W⌋ = C for whole C, so rank r gets
    C_r − C_{r−1}: its share. A good stride a keeps shorter windows even, too.
    """
    phase = step * _even_stride(window) % window
    return torch.diff((cumulative + phase) // window, prepend=cumulative.new_zeros(1))


@lru_cache(maxsize=8)
def _even_stride(window: int) -> int:
    """A stride near the golden section of the window, coprime with it, whose continued fraction has small terms:
    large ones would leave gaps for a long time."""

    def roughness(stride: int) -> int:
        terms, big, small = 0, window, stride
        while small:
            terms, big, small = terms + big // small, small, big % small
        return terms

    golden = round(window * 0.6180339887)
    near = range(max(1, golden - 100), min(window, golden + 100) + 1)
    return min((a for a in near if math.gcd(a, window) == 1), key=roughness)


@lru_cache(maxsize=8)  # training asks at every step
def _cumulative_shares(F: int, M: int, B: int, exponent: float, offset: float, window: int) -> Int[Tensor, " features"]:
    """Whole shares of a window of steps, summed up along the ranks: 1 to window · B each, window · M in all."""
    shares = window * _limited_zipf(F, M, B, exponent, offset, least=1 / window)
    return torch.from_numpy(_round_to_sum(shares, window * M, least=1, most=window * B).cumsum())


def _limited_zipf(F: int, M: int, B: int, exponent: float, offset: float, least: float) -> np.ndarray:
    """c · (r + offset)^−exponent, limited to [least, B], with the c for which it sums to M. By bisection on log c."""
    log_weight = -exponent * np.log(np.arange(1, F + 1) + offset)
    log_weight -= log_weight[0]  # from 0 downwards; logarithms, because a steep law underflows
    limits = math.log(least), math.log(B)
    low, high = limits[0], limits[1] - log_weight[-1]
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp((middle + log_weight).clip(*limits)).sum() <= M else (low, middle)
    return np.exp((low + log_weight).clip(*limits))


def _round_to_sum(shares: np.ndarray, total: int, least: int, most: int) -> np.ndarray:
    """Whole numbers next to `shares` with exactly this sum: largest remainders first, then lowest ranks."""
    whole = np.floor(shares).astype(np.int64).clip(least, most)
    remainder = shares - whole
    while missing := total - int(whole.sum()):  # once, unless floating point was off by more than a token
        sign = 1 if missing > 0 else -1
        room = np.flatnonzero(whole < most if sign > 0 else whole > least)
        best = room[np.argsort(-sign * remainder[room], kind="stable")[: abs(missing)]]
        whole[best] += sign
        remainder[best] -= sign
    return whole


@dataclass(frozen=True)
class ZipfFit:
    """density_r ≈ scale · (r + offset)^−exponent, fitted at ranks `ranks[0]` to `ranks[1]` (from 1, both included).

    `r_squared` is the explained share of the variance of log density over those ranks.
    """

    exponent: float
    offset: float
    scale: float
    r_squared: float
    ranks: tuple[int, int]

    def density(self, ranks: Float[Tensor, " n"] | Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The law's density at these ranks (the most frequent feature has rank 1)."""
        return self.scale * (ranks.double() + self.offset) ** -self.exponent


def fit_zipf(densities: Float[Tensor, " features"], ranks: tuple[int, int] | None = None) -> ZipfFit:
    """Fit density_r = scale · (r + offset)^−exponent to feature densities, in any order.

    Densities are sorted, the most frequent feature gets rank 1, and log density is fitted by least squares, every rank
    counting the same. `ranks=(first, last)`, counted from 1 and both included, restricts the fit, for example to
    the straight middle part. Features that never fired have no logarithm: the fit ends before them, and the
    result's `ranks` are those that were fitted.

    Raises ValueError for densities that are negative or not finite, and for fewer than 3 positive densities in `ranks`.
    Source: Zipf fits of densities are in Ayonrinde 2024; formula, weights and limits (−1 < offset ≤ last) are ours.
    """
    density = np.sort(torch.as_tensor(densities).detach().double().cpu().numpy())[::-1]
    if density.ndim != 1:
        raise ValueError(f"densities must be a list, one for each feature, got shape {density.shape}")
    if not np.isfinite(density).all() or (density < 0).any():
        raise ValueError("densities must be finite and 0 or more; a NaN often comes from a count divided by 0 tokens")
    alive = int((density > 0).sum())
    first, last = ranks if ranks is not None else (1, alive)
    if not 1 <= first <= last and alive:
        raise ValueError(f"ranks must be (first, last) with 1 <= first <= last, got {ranks}")
    last = min(last, alive)
    if last - first < 2:
        raise ValueError(
            f"a fit needs 3 ranks, but of {density.size} densities {alive} are positive, which leaves "
            f"{max(0, last - first + 1)} in ranks {(first, last)}; give more tokens, or a wider range"
        )
    rank, log_density = np.arange(first, last + 1), np.log(density[first - 1 : last])

    def line(log_shift: float) -> tuple[float, float, float]:
        """Least squares of log density on log(rank + offset): slope, intercept, squared error. offset = e^shift − 1."""
        x = np.log(rank + math.expm1(log_shift))
        dx, dy = x - x.mean(), log_density - log_density.mean()
        slope = float(dx @ dy / (dx @ dx))
        return slope, float(log_density.mean() - slope * x.mean()), float(((dy - slope * dx) ** 2).sum())

    # The error may have several valleys in the offset: look along a grid first, then walk down the best one.
    grid = np.linspace(math.log(0.05), math.log1p(last), 60)
    best = int(np.argmin([line(shift)[2] for shift in grid]))
    valley = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    shift = minimize_scalar(lambda s: line(s)[2], bounds=valley, method="bounded", options={"xatol": 1e-10}).x
    slope, intercept, error = line(shift)
    spread = float(((log_density - log_density.mean()) ** 2).sum())
    r_squared = 1 - error / spread if spread > 1e-20 * len(rank) else 1.0  # equal densities: a perfect flat line
    with np.errstate(over="ignore"):  # a hopeless fit may be infinitely steep; its r_squared shows how bad it is
        return ZipfFit(-slope, math.expm1(shift), float(np.exp(intercept)), r_squared, (first, last))


def middle_law(density: Float[Tensor, " features"]) -> ZipfFit | None:
    """The Zipf law of the middle ranks, 1 % to 50 % of the features that fire; None if fewer than 10 lie there.

    Densities are reported to follow the law except at the low end (Ayonrinde 2024), which is where they are to
    be improved: so the low end must not decide the law. These limits are ours.
    """
    alive = int((density > 0).sum())
    first, last = 1 + alive // 100, alive // 2
    return fit_zipf(density, (first, last)) if last - first >= 9 else None


def zipf_shortfall(density: Float[Tensor, " features"], law: ZipfFit, part: float = 0.5) -> Float[Tensor, " features"]:
    """How much each latent lacks, 0 to 1: (1 − density / (part · target))₊, the target being the law's at its rank.

    A latent is underused if its density is below `part` of its target; one that never fires lacks everything, 1.
    Ranks are those of the densities, the most frequent first. All of it is our choice; see `aux_zipf`.
    """
    if not 0 < part <= 1:
        raise ValueError(f"part must be greater than 0 and at most 1, got {part}")
    order = density.argsort(descending=True, stable=True)
    target_F = torch.empty_like(density)
    target_F[order] = law.density(torch.arange(1, density.numel() + 1)).to(density)
    return (1 - density / (part * target_F)).clamp(min=0)
