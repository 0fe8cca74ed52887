"""How sure one can be: intervals over seeds, and bootstraps over sentences, rows or whatever else was drawn.

Interval      a mean over a few seeds, with Student's t
bootstrap     any statistic over many units, with the units drawn again
paired_ratio  one against the other, unit by unit
Ratio         sums of one over sums of the other, with an interval over the seeds of training and the rows of text
holm          p-values of several verdicts, corrected for their number
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.memory import at_once


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and its 95 % interval (Student's t). The ends are NaN, nothing is known, with one seed or
    if a value is not finite."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Interval:
        """Raises ValueError if there are no values."""
        x = np.asarray(list(values), dtype=float)
        if x.size == 0:
            raise ValueError("values is empty: an interval needs at least one")
        known, mean = x.size > 1 and np.isfinite(x).all(), sum(x.tolist()) / x.size
        half = student.ppf(0.975, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size) if known else math.nan
        return cls(mean, float(mean - half), float(mean + half), x.size)


def bootstrap(
    values: Float[Tensor, "*more units"],
    statistic: Callable[[Tensor], Tensor] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Float[Tensor, "*more"], Float[Tensor, "*more"], Float[Tensor, "*more"]]:
    """A statistic over the last dimension (default: the mean), and the low and high end of its 95 % bootstrap interval.

    Units (sentences, rows of text) are drawn with replacement, the same ones for all that comes before the last
    dimension. `statistic` takes (..., units) to (...) for any number of units; it may join what comes before, a sum and
    a count for example. Ends are resampled values themselves, so that a statistic that is sometimes infinite has an
    interval; a statistic that is NaN, where a draw leaves nothing to compute from, is left out.

    Raises ValueError if there are no units, and for NaN among the values: such a unit should be left out.
    """
    n, resamples = values.shape[-1], as_whole("resamples", resamples, least=1)
    if n == 0 or values.isnan().any():
        raise ValueError(f"values has {n} units, {int(values.isnan().sum())} numbers are NaN; give some, without NaN")
    values = values if values.is_floating_point() else values.double()
    of = statistic or (lambda x: x.mean(-1))
    drawn_RN = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed)).to(values.device)
    parts = drawn_RN.split(at_once(values.device, values.numel() * values.element_size()))
    found = torch.cat([of(values[..., part_RN]) for part_RN in parts], -1)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64, device=found.device)
    low, high = torch.nanquantile(found.double(), ends, dim=-1, interpolation="nearest").to(found.dtype)
    return of(values), low, high


def paired_ratio(
    mine: Float[Tensor, " units"], theirs: Float[Tensor, " units"], resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The median over units of mine / theirs (of an even number, the lower of the two in the middle), and its 95 %
    bootstrap interval.

    A median, so that a unit in which one of them never gets there (inf) counts as worse than any other, no more. Where
    both are the same, even 0 or inf, the ratio is 1. Raises ValueError if they are not one number per unit each.
    """
    if mine.shape != theirs.shape or mine.dim() != 1:
        raise ValueError(f"mine is {tuple(mine.shape)}, theirs {tuple(theirs.shape)}; give one number per unit each")
    ratio = torch.where(mine == theirs, 1.0, mine / theirs)
    middle, low, high = bootstrap(ratio, lambda x: x.median(-1).values, resamples, seed)
    return float(middle), float(low), float(high)


@dataclass(frozen=True)
class Ratio:
    """Mean over seeds of Σ mine / Σ theirs − 1, sums over rows; its 95 % interval, and the p-value of "there is no
    difference"; `seeds` and `rows` that it rests on."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    rows: int

    @classmethod
    def of(
        cls,
        mine: Float[Tensor, "seeds rows"],
        theirs: Float[Tensor, "seeds rows"],
        resamples: int = 10_000,
        seed: int = 0,
    ) -> Ratio:
        """Both are sums over the tokens of each row (squared errors, nats) for the same seeds and rows, in this order.

        Both seeds and rows decide what comes out. Rows are drawn again (bootstrap), the same ones for every seed. There
        are too few seeds to draw from: what other seeds would have given is drawn from Student's t with the spread of
        those that are there, so that where rows agree the interval is Student's. With one seed, it is over rows alone.
        p is the share of draws on the far side of 0, twice, and at least 1 / resamples.

        Raises ValueError for tables of different or wrong shapes, NaN, and sums of theirs that are not above 0.
        """
        _check_tables(mine, theirs, "(seeds, rows)")
        mine, theirs = mine.detach().cpu().double(), theirs.detach().cpu().double()
        if not (mine.isfinite().all() and theirs.isfinite().all() and (theirs.sum(1) > 0).all()):
            raise ValueError("mine and theirs must be finite, and theirs must sum to more than 0 for every seed")
        times_RN = _drawn(mine.shape[1], resamples, seed)
        below_SR = theirs @ times_RN.T
        if not (below_SR > 0).all():
            raise ValueError("theirs has rows of 0 or less that some draws consist of: a ratio to it means nothing")
        mean = float((mine.sum(1) / theirs.sum(1) - 1).mean())
        return cls(mean, *_spread((mine @ times_RN.T) / below_SR - 1, seed), *mine.shape)


def _check_tables(mine: Tensor, theirs: Tensor, table: str) -> None:
    if mine.shape != theirs.shape or mine.dim() != 2 or 0 in mine.shape:
        raise ValueError(f"mine is {tuple(mine.shape)}, theirs {tuple(theirs.shape)}; both are one {table} table")


def _drawn(n_units: int, resamples: int, seed: int) -> Float[Tensor, "resamples units"]:
    """How often each unit is in each draw of as many as there are."""
    drawn = torch.randint(n_units, (resamples, n_units), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(resamples, n_units).double().scatter_add_(1, drawn, torch.ones(drawn.shape).double())


def _spread(of_seed_SR: Float[Tensor, "seeds resamples"], seed: int) -> tuple[float, float, float]:
    """Low and high end of the 95 % interval of the mean over seeds, and the p-value of 0: what other seeds would have
    given is drawn from Student's t."""
    n_seeds, resamples = of_seed_SR.shape
    drawn_R = of_seed_SR.mean(0)
    if n_seeds > 1:
        luck_R = torch.from_numpy(student.rvs(n_seeds - 1, size=resamples, random_state=seed))
        drawn_R = drawn_R + luck_R * of_seed_SR.std(0, correction=1) / math.sqrt(n_seeds)
    low, high = drawn_R.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    far = min(float((drawn_R <= 0).double().mean()), float((drawn_R >= 0).double().mean()))
    return low, high, min(1.0, max(2 * far, 1 / resamples))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as it is after Holm's correction for their number: below 0.05, the verdict survives (Holm 1979)."""
    order, found, largest = sorted(range(len(p_values)), key=lambda i: p_values[i]), list(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[i]))
        found[i] = largest
    return found
