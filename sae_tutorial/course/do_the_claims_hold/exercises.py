"""Exercises of notebook 06: comparisons that mean something."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sae_tutorial.course.judge import Verdict, judge
from sae_tutorial.evaluation.intervals import Interval, holm

# Exercise 1: is a difference between methods more than luck?


def check_difference(answer: Any) -> Verdict:
    """`answer(ours, theirs)`: mean and 95 % interval (mean, low, high) of ours − theirs, seed by seed."""
    ours, theirs = [0.101, 0.142, 0.121], [0.104, 0.146, 0.123]

    def three_numbers(answer: Callable) -> str | None:
        got = answer(ours, theirs)
        return None if len(tuple(got)) == 3 else "return three numbers: mean, low, high"

    def right_mean(answer: Callable) -> str | None:
        mean = float(tuple(answer(ours, theirs))[0])
        if math.isclose(mean, 0.003, rel_tol=1e-3):
            return "the mean has the wrong sign: ours minus theirs"
        return (
            None if math.isclose(mean, -0.003, rel_tol=1e-3) else f"the mean difference is −0.003, you say {mean:.4f}"
        )

    def right_interval(answer: Callable) -> str | None:
        mean, low, high = (float(v) for v in answer(ours, theirs))
        right = Interval.of([a - b for a, b in zip(ours, theirs)])
        if math.isclose(high, right.high, rel_tol=1e-3) and math.isclose(low, right.low, rel_tol=1e-3):
            return None
        spread = (right.high - right.mean) / 4.3027
        if math.isclose(high - mean, 1.96 * spread, rel_tol=0.01):
            return "1.96 is for many seeds; with three it is Student's t with 2 degrees of freedom, 4.30"
        if high - mean > 5 * (right.high - right.mean):
            return "that is the interval of two independent groups; take the differences first, seed by seed"
        return f"the interval is [{right.low:.4f}, {right.high:.4f}], yours [{low:.4f}, {high:.4f}]"

    hint = "d = ours − theirs; half = t · d.std() / √n with scipy.stats.t.ppf(0.975, n − 1)."
    praise = (
        "Seeds differ by 0.04, methods by 0.003, and still the difference is clear: because it was taken seed by seed."
    )
    return judge("Exercise 1", answer, [three_numbers, right_mean, right_interval], hint, praise)


def solution_difference(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Student's t on the paired differences."""
    one = Interval.of([a - b for a, b in zip(ours, theirs)])
    return one.mean, one.low, one.high


# Exercise 2: are these two runs a comparison of rules?

RESULTS = ("fvu", "kl", "l0", "dead", "seconds")  # what comes out, and so may differ


def check_what_differs(answer: Any) -> Verdict:
    """`answer(one, other)`: the names of the settings, beside the method, in which two lines of the table differ."""
    settings = {"method": "token_choice", "k": 32, "lr": 2.8e-3, "seed": 0, "steps": 1000}
    one = settings | {"fvu": 0.072, "kl": 0.1, "l0": 32.0, "dead": 0.02, "seconds": 44.0}
    fair = one | {"method": "mutual_choice", "fvu": 0.068, "kl": 0.09, "dead": 0.01, "seconds": 47.0}
    unfair = fair | {"lr": 5.6e-3, "steps": 3000}
    lacking = {name: value for name, value in fair.items() if name != "seed"}

    def fair_pair(answer: Callable) -> str | None:
        got = set(answer(dict(one), dict(fair)))
        if "method" in got:
            return "the method is meant to differ; ask for everything else"
        results = got & set(RESULTS)
        return f"{sorted(results)} are results, not settings: they may differ" if results else _unlike(got, set())

    def unfair_pair(answer: Callable) -> str | None:
        return _unlike(set(answer(dict(one), dict(unfair))), {"lr", "steps"})

    def lacking_pair(answer: Callable) -> str | None:
        for pair in ((one, lacking), (lacking, one)):
            if set(answer(dict(pair[0]), dict(pair[1]))) != {"seed"}:
                return "a setting that only one of the lines has is a difference, too, whichever of them it is"
        return None

    hint = 'set(one) | set(other), without RESULTS and "method"; compare one.get(name) with other.get(name).'
    praise = "Ask this of every table of methods that you read: what else differs between two of its rows?"
    return judge("Exercise 2", answer, [fair_pair, unfair_pair, lacking_pair], hint, praise)


def _unlike(got: set[str], right: set[str]) -> str | None:
    return None if got == right else f"for two lines that differ in {sorted(right) or 'nothing'} you say {sorted(got)}"


def solution_what_differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """All names that are neither the method nor a result, and whose values are not the same."""
    names = (set(one) | set(other)) - {"method", *RESULTS}
    return {name for name in names if one.get(name) != other.get(name)}


# Exercise 3: which of many verdicts are left when luck is paid for?


def check_survives(answer: Any) -> Verdict:
    """`answer(p_values)`: for each comparison whether it survives Holm's correction at 5 %."""
    many, close = [0.001, 0.02, 0.04, 0.3], [0.3, 0.001, 0.02, 0.04]

    def one_each(answer: Callable) -> str | None:
        got = list(answer(list(many)))
        return None if len(got) == 4 else f"return one answer for each of 4 p-values; you return {len(got)}"

    def corrected(answer: Callable) -> str | None:
        got = [bool(v) for v in answer(list(many))]
        if got == [p < 0.05 for p in many]:
            return (
                "these are the verdicts without a correction: with four comparisons the smallest p must beat 0.05 / 4"
            )
        return _not_holm(got, many)

    def step_by_step(answer: Callable) -> str | None:
        steps = [0.0124, 0.0165, 0.2, 0.6]
        got = [bool(v) for v in answer(list(steps))]
        if got == [p < 0.05 / 4 for p in steps]:
            return f"that is Bonferroni's correction; Holm's second smallest must only beat 0.05 / 3: p = {steps}"
        return _not_holm(got, steps)

    def stops(answer: Callable) -> str | None:
        stopped = [0.001, 0.03, 0.03, 0.045]
        got = [bool(v) for v in answer(list(stopped))]
        if got[-1]:
            return f"once one fails, all larger ones fail, too: p = {stopped}, the second must beat 0.05 / 3"
        return _not_holm(got, stopped)

    def any_order(answer: Callable) -> str | None:
        got = [bool(v) for v in answer(list(close))]
        return None if got == solution_survives(close) else "p-values come in any order; answer in theirs"

    hint = "Sort them; the i-th smallest of n (from 0) must be below 0.05 / (n − i), and the first that is not ends it."
    praise = "With 36 comparisons, two would be below 5 % if nothing at all differed."
    return judge("Exercise 3", answer, [one_each, corrected, step_by_step, stops, any_order], hint, praise)


def _not_holm(got: list[bool], p_values: Sequence[float]) -> str | None:
    right = solution_survives(p_values)
    return None if got == right else f"for p = {list(p_values)} the answers are {right}, yours are {got}"


def solution_survives(p_values: Sequence[float]) -> list[bool]:
    """Holm 1979, by the package."""
    return [p < 0.05 for p in holm(p_values)]
