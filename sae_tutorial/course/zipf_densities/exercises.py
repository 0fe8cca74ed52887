"""Exercises of notebook 07: laws of rank and density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: the slope of Zipf–Mandelbrot.


def check_slope(answer: Any) -> Verdict:
    """`answer(rank, exponent, offset)`: the slope of log density against log rank."""

    def far_out(answer: Callable) -> str | None:
        got = float(answer(1e9, 1.2, 10.0))
        if abs(got - 1.2) < 1e-3:
            return "density falls with rank, so the slope is negative"
        return (
            None
            if abs(got + 1.2) < 1e-3
            else f"far out the offset no longer matters and the slope is −s = −1.2; got {got:.3f}"
        )

    def at_the_head(answer: Callable) -> str | None:
        for rank, s, q in ((1.0, 1.0, 9.0), (20.0, 0.7, 20.0), (5.0, 1.5, 0.0)):
            got, right = float(answer(rank, s, q)), solution_slope(rank, s, q)
            if abs(got - right) > 1e-6:
                return f"right far out; at rank {rank:g} with s = {s}, q = {q:g} it is {right:.3f}, you say {got:.3f}"
        return None

    hint = "log x = log c − s · log(r + q). Differentiate by log r: d/d(log r) = r · d/dr."
    praise = "At r = q the curve has half its final slope: that is what an offset means."
    return judge("Exercise 1", answer, [far_out, at_the_head], hint, praise)


def solution_slope(rank: float, exponent: float, offset: float) -> float:
    """−s · r / (r + q)."""
    return -exponent * rank / (rank + offset)


# Exercise 2: ranks from one half, densities from the other.


def check_split_ranking(answer: Any) -> Verdict:
    """`answer(first, second)`: the counts of the second half, in the order of ranks by the first."""
    first, second = np.array([2, 5, 9, 0, 7]), np.array([4, 1, 2, 7, 3])

    def right_shape(answer: Callable) -> str | None:
        shape = np.asarray(answer(first, second)).shape
        return None if shape == (5,) else f"five features should give five numbers, got shape {shape}"

    def right_order(answer: Callable) -> str | None:
        got = np.asarray(answer(first, second)).tolist()
        if got == sorted(second.tolist(), reverse=True):
            return "you sorted the second half by itself: that is the mistake that the split is there to avoid"
        if got == sorted(first.tolist(), reverse=True):
            return "those are the counts of the first half; rank by it, but read the second"
        if got == second[np.argsort(first)].tolist():
            return "the rarest comes first; rank 1 is the most frequent"
        if got == second[np.argsort(np.argsort(-first))].tolist():
            return "you index by the rank of each feature; index by the feature of each rank (argsort once, not twice)"
        right = solution_split_ranking(first, second).tolist()
        return None if got == right else f"for first = {first}, second = {second} it is {right}, you say {got}"

    hint = "an order that sorts `first` (argsort, then reverse it) can be used to index `second`."
    praise = "Noise in the order and noise in the height are independent now."
    return judge("Exercise 2", answer, [right_shape, right_order], hint, praise)


def solution_split_ranking(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sort by one half, read the other."""
    return second[np.argsort(-first, kind="stable")]


# Exercise 3: how much text a rare feature needs.


def check_tokens_needed(answer: Any) -> Verdict:
    """`answer(density, error)`: tokens after which a density is known with this relative standard error."""

    def right_numbers(answer: Callable) -> str | None:
        for density, error in ((0.01, 0.1), (1e-5, 0.1), (1e-5, 0.5)):
            got, right = float(answer(density, error)), solution_tokens_needed(density, error)
            if abs(got * error - right * error**2) < 1e-6 * right:
                return "you have 1 / (density · error), but noise falls with the root of the count only"
            if abs(got - right) > 0.02 * right:
                return f"for density {density:g} and error {error:g} it takes {right:,.0f} tokens, you say {got:,.0f}"
        return None

    hint = "a feature of density x fires about λ = n · x times, give or take √λ. Set √λ / λ equal to the error."
    praise = "The rarest features of a large dictionary need more text than most evaluations read."
    return judge("Exercise 3", answer, [right_numbers], hint, praise)


def solution_tokens_needed(density: float, error: float) -> float:
    """1 / √(n · density) = error, solved for n."""
    return 1 / (density * error**2)


# Exercise 4: where the batch is too small for the head.


def check_clipped_head(answer: Any) -> Verdict:
    """`answer(n_features, n_matches, n_tokens, exponent, offset)`: who would get more than the batch."""
    cases = ((1024, 32 * 1000, 1000, 1.0, 0.0), (1024, 32 * 1000, 1000, 1.0, 10.0), (4096, 32 * 2048, 2048, 1.5, 5.0))

    def as_much_as_the_batch(answer: Callable) -> str | None:
        if int(answer(8, 800, 100, 0.0, 0.0)) == 8:
            return "a rank that gets exactly the batch gets all it can use; only those above it are cut: >, not >="
        return None

    def right_numbers(answer: Callable) -> str | None:
        for case in cases:
            got, right = answer(*case), solution_clipped_head(*case)
            if int(got) != right:
                F, M, B, s, q = case
                unnormalised = int((M * (np.arange(1, F + 1) + q) ** -s > B).sum())
                if int(got) == unnormalised:
                    return "the weights (r + q)^−s must sum to 1 before they share out the budget"
                return f"for F = {F}, M = {M:,}, B = {B:,}, s = {s}, q = {q:g} there are {right}, you say {int(got)}"
        return None

    hint = "the share of rank r is (r + q)^−s over the sum of all; times the budget it is tokens. How many exceed B?"
    praise = "What they cannot use, zipf_capacity hands down the ranks."
    return judge("Exercise 4", answer, [right_numbers, as_much_as_the_batch], hint, praise)


def solution_clipped_head(n_features: int, n_matches: int, n_tokens: int, exponent: float, offset: float) -> int:
    """Capacities before any limit, compared with the batch."""
    weights = (np.arange(1, n_features + 1) + offset) ** -exponent
    return int((n_matches * weights / weights.sum() > n_tokens).sum())


# Exercise 5: the rich get richer.


def check_simon(answer: Any) -> Verdict:
    """`answer(n, new, rng)`: counts of features after n matches of Simon's process."""

    def counts_of(answer: Callable, new: float) -> np.ndarray:
        return np.sort(np.asarray(answer(20_000, new, np.random.default_rng(0)), dtype=float))[::-1]

    def adds_up(answer: Callable) -> str | None:
        counts = counts_of(answer, 0.1)
        if counts.ndim != 1 or counts.sum() != 20_000:
            return f"20,000 matches have 20,000 owners, but your counts sum to {counts.sum():,.0f}"
        if not 1800 < len(counts) < 2200:
            return f"with new = 0.1 about 2,000 features are born in 20,000 matches; you have {len(counts):,}"
        return None

    def rich_get_richer(answer: Callable) -> str | None:
        for new in (0.1, 0.3):
            counts = counts_of(answer, new)
            share, right = float(counts[: len(counts) // 100].sum()) / 20_000, {0.1: (0.42, 0.85), 0.3: (0.2, 0.5)}[new]
            if share < right[0]:
                return (
                    f"the densest 1% of features have only {share:.0%} of the matches (new = {new}); a match should "
                    "copy the feature of an earlier *match* drawn at random, not an earlier *feature*"
                )
            if share > right[1]:
                return f"the densest 1% have {share:.0%} of the matches (new = {new}), too much"
        return None

    hint = "keep a list of who owns each match so far; append a new number, or the owner of a random earlier match."
    praise = "A straight line on log axes, exponent 1 − new, out of nothing but copying."
    return judge("Exercise 5", answer, [adds_up, rich_get_richer], hint, praise)


def solution_simon(n: int, new: float, rng: np.random.Generator) -> np.ndarray:
    """Each match goes to a new feature with probability `new`, otherwise to the owner of a random earlier match."""
    owner = np.zeros(n, dtype=int)
    born, fresh, earlier = 1, rng.random(n) < new, rng.random(n)
    for i in range(1, n):
        if fresh[i]:
            owner[i], born = born, born + 1
        else:
            owner[i] = owner[int(earlier[i] * i)]
    return np.bincount(owner)
