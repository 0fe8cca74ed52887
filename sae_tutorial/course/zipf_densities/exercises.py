"""Exercises of notebook 07: laws of rank and density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sae_tutorial.allocation.zipf import zipf_capacity
from sae_tutorial.course.judge import Verdict, judge
from sae_tutorial.course.zipf_densities.fits import least_squares, whole_and_middle

# Exercise 1: build the fit.


def check_fit(answer: Any) -> Verdict:
    """`answer(ranks, values)`: exponent, offset and R² of the Zipf–Mandelbrot law that least squares finds."""
    all_ranks = np.arange(1, 1_501)
    steep, straight = (all_ranks + 40.0) ** -1.3, 0.2 * all_ranks**-0.8
    noisy = np.sort(np.exp(np.random.default_rng(0).normal(0, 1.5, 1_500)))[::-1]

    def asked(answer: Callable, ranks: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
        exponent, offset, r_squared = (float(v) for v in answer(ranks.copy(), values.copy()))
        return exponent, offset, r_squared

    def three_numbers(answer: Callable) -> str | None:
        got = np.asarray(answer(all_ranks.copy(), straight.copy()), dtype=float)
        return (
            None if got.shape == (3,) else f"return exponent, offset and R²; you return something of shape {got.shape}"
        )

    def a_straight_line(answer: Callable) -> str | None:
        exponent, offset, r_squared = found = asked(answer, all_ranks, straight)
        if not np.allclose(found, (0.8, 0, 1), atol=0.05) and np.allclose(sorted(found), (0, 0.8, 1), atol=0.05):
            told = f"{exponent:.2f}, {offset:.2f}, {r_squared:.2f}"
            return f"the order is exponent, offset, R², so of r^−0.8 it is 0.80, 0.00, 1.00; you return {told}"
        if abs(exponent + 0.8) < 0.05:
            return f"the slope is −0.8 here, and the exponent s is 0.8: the law is (r + q)^−s. You say {exponent:.2f}"
        if abs(exponent - 0.8) > 0.05 or abs(offset) > 1.5:
            return f"values that fall as r^−0.8 have s = 0.8 and q = 0, you say s = {exponent:.2f} and q = {offset:.1f}"
        return None

    def a_bent_one(answer: Callable) -> str | None:
        exponent, offset, _ = asked(answer, all_ranks, steep)
        if abs(offset) < 1e-6:
            line = least_squares_without_offset(all_ranks, steep)
            told = "that is a straight line's" if abs(exponent - line) < 0.02 else f"you say {exponent:.2f}"
            return f"(r + 40)^−1.3 has s = 1.3 and q = 40; {told}: try offsets other than 0, and keep the best"
        if offset > 1_000:
            return f"the offset is {offset:,.0f}, the last that one would try; keep the one with the largest R²"
        if abs(exponent - 1.3) > 0.05 or abs(offset - 40) > 4:
            return f"(r + 40)^−1.3 has s = 1.3 and q = 40; you say s = {exponent:.2f} and q = {offset:.1f}"
        return None

    def a_window(answer: Callable) -> str | None:
        exponent, offset, _ = asked(answer, all_ranks[99:1_200], steep[99:1_200])
        if abs(offset - 139) < 14:
            return f"at ranks 100 to 1,200 q is still 40, you say {offset:.0f}: use the ranks that you are given"
        return None if abs(exponent - 1.3) < 0.06 else f"at ranks 100 to 1,200 s is still 1.3, you say {exponent:.2f}"

    def its_r_squared(answer: Callable) -> str | None:
        got, right = asked(answer, all_ranks, noisy)[2], least_squares(all_ranks, noisy)[2]
        if abs(got - right) < 3e-3:
            return None
        if abs(got**2 - right) < 3e-3:
            return (
                f"of sorted log-normal draws R² is {right:.3f}, you say {got:.3f}: that is the correlation; square it"
            )
        if abs(got - r_squared_of_heights(all_ranks, noisy)) < 0.02:
            return (
                f"of sorted log-normal draws R² is {right:.3f}, you say {got:.3f}: that is R² of p; take that of log p"
            )
        return f"of sorted log-normal draws R² is {right:.3f}, you say {got:.3f}: a share of the variance of log p"

    hints = (
        "For a fixed offset this is a straight line: np.polyfit(log(ranks + offset), log(values), 1).",
        "Try some hundred offsets, np.geomspace(1, 1 + ranks[-1], 300) - 1, and keep the one with the largest R².",
    )
    praise = "Two numbers bend a line to almost any falling curve; the next section is about that."
    tests = [three_numbers, a_straight_line, a_bent_one, a_window, its_r_squared]
    return judge("Exercise 1", answer, tests, hints, praise)


def least_squares_without_offset(ranks: np.ndarray, values: np.ndarray) -> float:
    """The exponent of a straight line on logarithmic axes."""
    return -float(np.polyfit(np.log(ranks), np.log(values), 1)[0])


def r_squared_of_heights(ranks: np.ndarray, values: np.ndarray) -> float:
    """The mistake of judging the best line by the values, where a few high ones decide, and not by their logarithms."""
    exponent, offset, _ = least_squares(ranks, values)
    log_law = -exponent * np.log(ranks + offset)
    law = np.exp(log_law + (np.log(values) - log_law).mean())
    return float(1 - ((values - law) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def solution_fit(ranks: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """A straight line for each of 300 offsets; the one that explains most."""
    log_p, best = np.log(values), (0.0, 0.0, -np.inf)
    for offset in np.geomspace(1, 1 + ranks[-1], 300) - 1:
        log_rank = np.log(ranks + offset)
        slope, height = np.polyfit(log_rank, log_p, 1)
        r_squared = 1 - (log_p - height - slope * log_rank).var() / log_p.var()
        if r_squared > best[2]:
            best = -slope, offset, r_squared
    return best


# Exercise 2: predict what the R² of draws that obey no power law depends on.

CHANGES = ("rises", "stays", "falls")


def check_prediction(answer: Any) -> Verdict:
    """`answer` is two of CHANGES: R² in the middle ranks if the bell is wider, and if there are more draws."""

    def known(answer: Any) -> str | None:
        if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not set(answer) <= set(CHANGES):
            return f"answer with two of {', '.join(map(repr, CHANGES))}, as a tuple; you say {answer!r}"
        return None

    def right(answer: tuple[str, str]) -> str | None:
        wrong = [
            f"{change!r} for {what}"
            for change, found, what in zip(answer, solution_prediction(), ("the wider bell", "more draws"))
            if change != found
        ]
        return f"not so: {' and '.join(wrong)}. Think again, or run the next cell" if wrong else None

    hints = (
        "What does a bell twice as wide do to each log p? What does it do to the line that fits best, and to its R²?",
        "Of 4,096 draws, rank 100 is in the top 2.4%. In which part of the bell is rank 100 of 24,576?",
    )
    return judge("Exercise 2", answer, [known, right], hints, "Few people get both right.")


def solution_prediction() -> tuple[str, str]:
    """By drawing, five times each."""
    rng = np.random.default_rng(1)

    def mean_r_squared(n: int, width: float) -> float:
        draws = [np.exp(rng.normal(0, width, n)) for _ in range(5)]
        return float(np.mean([whole_and_middle(one)[1].r_squared for one in draws]))

    usual = mean_r_squared(4_096, 1.0)
    changes = [mean_r_squared(4_096, 2.0) - usual, mean_r_squared(24_576, 1.0) - usual]
    wider, more = (CHANGES[1] if abs(change) < 0.002 else CHANGES[0 if change > 0 else 2] for change in changes)
    return wider, more


# Exercise 3: find the bug: ranks from one half, densities from the other.


def split_ranking_with_a_bug(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The counts of the second half, in the order of ranks by the first, but for one mistake."""
    rank = np.argsort(np.argsort(-first))  # of each feature, 0 for the most frequent
    return second[rank]


def check_split_ranking(answer: Any) -> Verdict:
    """`answer(first, second)`: the counts of the second half, in the order of ranks by the first."""
    first, second = np.array([2, 5, 9, 0, 7]), np.array([4, 1, 2, 7, 3])

    def right_shape(answer: Callable) -> str | None:
        shape = np.asarray(answer(first.copy(), second.copy())).shape
        return None if shape == (5,) else f"five features should give five numbers, got shape {shape}"

    def right_order(answer: Callable) -> str | None:
        got = np.asarray(answer(first.copy(), second.copy())).tolist()
        if got == split_ranking_with_a_bug(first, second).tolist():
            return (
                "the bug is still there: `rank` says where each feature goes; it does not say which feature goes first"
            )
        if got == sorted(second.tolist(), reverse=True):
            return "you sorted the second half by itself, so its noise is sorted, too: rank by the first half"
        if got == sorted(first.tolist(), reverse=True):
            return "those are the counts of the first half; rank by it, but read the second"
        if got == first[np.argsort(-second)].tolist():
            return "you rank by the second half and read the first; the names of the arguments say the opposite"
        if got == np.argsort(-first).tolist():
            return "those are the numbers of the features, the most frequent first; read `second` at them"
        if got == second[np.argsort(first)].tolist():
            return "the rarest comes first; rank 1 is the most frequent"
        right = solution_split_ranking(first, second).tolist()
        return None if got == right else f"for first = {first}, second = {second} it is {right}, you say {got}"

    hints = (
        "Ask the function for first = [2, 9, 5], second = [1, 8, 4], and write down what `rank` holds.",
        "What you index with should begin with the number of the most frequent feature.",
    )
    praise = "Noise in the order and noise in the counts are independent now."
    return judge("Exercise 3", answer, [right_shape, right_order], hints, praise)


def solution_split_ranking(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sort by one half, read the other."""
    return second[np.argsort(-first, kind="stable")]


# Exercise 4: where the batch is too small for the head.


def check_clipped_head(answer: Any) -> Verdict:
    """`answer(n_features, n_matches, n_tokens, exponent, offset)`: who would get more than the batch."""
    cases = (
        (1024, 32 * 1000, 1000, 1.0, 0.0),
        (1024, 32 * 1000, 1000, 1.0, 10.0),
        (4096, 32 * 2048, 2048, 1.5, 0.0),
        (256, 128 * 1000, 1000, 1.5, 0.5),  # offsets with which some features are above the batch all the same
        (1024, 32 * 1000, 1000, 1.5, 3.0),
    )

    def a_number(answer: Callable) -> str | None:
        return "return how many, not which: sum over the ranks" if np.ndim(answer(*cases[1])) else None

    def ranks_begin_at_1(answer: Callable) -> str | None:
        """With ranks 0, 1, 2, … an offset of 1 does what an offset of 0 should."""
        if int(answer(1024, 32_000, 1_000, 1.0, 1.0)) == solution_clipped_head(1024, 32_000, 1_000, 1.0, 0.0):
            return "your first rank is 0, whose weight with q = 0 would be infinite: ranks begin at 1"
        return None

    def whole_numbers(answer: Callable) -> str | None:
        try:
            got, right = int(answer(1024, 32_000, 1_000, 1, 0)), solution_clipped_head(1024, 32_000, 1_000, 1, 0)
        except ValueError as error:
            return f"with whole numbers, s = 1 and q = 0, it stops with: {error}; let the ranks be floats"
        return (
            None if got == right else f"for s = 1.0 and q = 0.0 it is right; for the whole numbers 1 and 0 it is {got}"
        )

    def as_much_as_the_batch(answer: Callable) -> str | None:
        if int(answer(8, 800, 100, 0.0, 0.0)) == 8:
            return "a rank that gets exactly the batch gets all it can use; only those above it are cut: >, not >="
        return None

    def right_numbers(answer: Callable) -> str | None:
        for case in cases:
            got, right = int(answer(*case)), solution_clipped_head(*case)
            F, M, B, s, q = case
            if got == right:
                continue
            if got == int((M * (np.arange(1, F + 1) + q) ** -s > B).sum()):
                return "the weights (r + q)^−s must sum to 1 before they share out the budget"
            if got == int((zipf_capacity(*case) == B).sum()):
                return "you count who is full in the end; asked is whom the law gives too much, before anything is cut"
            added_late = np.arange(1.0, F + 1) ** -s + q
            if q and got and got == int((M * added_late / added_late.sum() > B).sum()):
                return "the offset belongs to the rank, before the power: (r + q)^−s, not r^−s + q"
            if not q and (told := ranks_begin_at_1(answer)):
                return told
            if q and got == solution_clipped_head(F, M, B, s, 0):
                return f"that is the answer for q = 0, here q = {q:g}; use the offset: (r + q)^−s"
            return f"for F = {F}, M = {M:,}, B = {B:,}, s = {s}, q = {q:g} there are {right}, you say {got}"
        return None

    hints = (
        "First turn the weights (r + q)^−s into shares that sum to 1.",
        "A share times the budget is a number of tokens. Compare it with the tokens of the batch.",
    )
    praise = "What they cannot use, zipf_capacity hands down the ranks."
    return judge(
        "Exercise 4",
        answer,
        [a_number, right_numbers, ranks_begin_at_1, whole_numbers, as_much_as_the_batch],
        hints,
        praise,
    )


def solution_clipped_head(n_features: int, n_matches: int, n_tokens: int, exponent: float, offset: float) -> int:
    """Capacities before any limit, compared with the batch."""
    weights = (np.arange(1.0, n_features + 1) + offset) ** -exponent
    return int((n_matches * weights / weights.sum() > n_tokens).sum())


# Exercise 5: the rich get richer.

MATCHES = 20_000
SEEN_ONCE = {0.1: (0.46, 0.59), 0.3: (0.55, 0.65)}  # of the features, in Simon's process; theory: 0.53 and 0.59


def check_simon(answer: Any) -> Verdict:
    """`answer(n_matches, new, rng)`: counts of features after so many matches of Simon's process."""

    def counts_of(answer: Callable, new: float) -> np.ndarray:
        return np.sort(np.asarray(answer(MATCHES, new, np.random.default_rng(0)), dtype=float))[::-1]

    def an_array(answer: Callable) -> str | None:
        if isinstance(answer(5, 0.5, np.random.default_rng(0)), dict):
            return "return an array of counts, not a dictionary: np.bincount(owner)"
        return None

    def adds_up(answer: Callable) -> str | None:
        counts = counts_of(answer, 0.1)
        if counts.shape == (MATCHES,) and counts.sum() != MATCHES:
            return "you return the owner of each match; count them: np.bincount(owner)"
        if counts.ndim != 1 or counts.sum() != MATCHES:
            return f"20,000 matches have 20,000 owners, but your counts sum to {counts.sum():,.0f}"
        if counts.min() < 1:
            return "some of your features have no match at all; number them as they are born: 0, 1, 2, …"
        if not 1800 < len(counts) < 2200:
            return f"with new = 0.1 about 2,000 features are born in 20,000 matches; you have {len(counts):,}"
        return None

    def each_new_one_is_new(answer: Callable) -> str | None:
        counts = np.sort(np.asarray(answer(5, 1.0, np.random.default_rng(0))))[::-1].tolist()
        if counts != [1] * 5:
            return (
                f"with new = 1 each of 5 matches has a feature of its own, but your counts are {counts}; your first "
                "new feature may have the number of the first match's owner: start at 1"
            )
        return None

    def rich_get_richer(answer: Callable) -> str | None:
        for new, (low, high) in SEEN_ONCE.items():
            once = float((counts_of(answer, new) == 1).mean())
            told = f"{once:.0%} of your features have one match (new = {new}), about {(low + high) / 2:.0%} should"
            if once < 1.5 * new:
                return (
                    f"{told}: nobody gets rich. Copy the owner of a random earlier *match*; an earlier *feature*, or "
                    "the last match only, gives those who have many matches no advantage"
                )
            if once < low:
                return f"{told}, as if only recent matches were copied; draw among *all* earlier ones"
            if once > high:
                return f"{told}, as if only old matches were copied; draw among *all* earlier ones"
        return None

    hints = (
        "Keep a list of who owns each match so far; every step appends one owner.",
        "Either append a number that no feature has yet, or look up the owner of a match drawn with rng.integers.",
    )
    praise = "Rich and poor, out of nothing but copying."
    return judge("Exercise 5", answer, [an_array, adds_up, rich_get_richer, each_new_one_is_new], hints, praise)


def solution_simon(n_matches: int, new: float, rng: np.random.Generator) -> np.ndarray:
    """Each match goes to a new feature with probability `new`, otherwise to the owner of a random earlier match."""
    owner = np.zeros(n_matches, dtype=int)
    born, fresh, earlier = 1, rng.random(n_matches) < new, rng.random(n_matches)
    for i in range(1, n_matches):
        if fresh[i]:
            owner[i], born = born, born + 1
        else:
            owner[i] = owner[int(earlier[i] * i)]
    return np.bincount(owner)
