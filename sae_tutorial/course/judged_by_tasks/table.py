"""The table of the lesson: what each rule's SAEs are worth by each measure, and whether the measures agree.

    rows = load_judged()                                     a line for each SAE, and for what it is compared with
    worth(rows, "stories", "words, 1 feature", methods)      method -> mean and range of seeds
    pairs(rows, "stories", "words, 1 feature", methods)      which two of them are told apart
    places(rows, "stories", methods)                         method -> its mean place over tasks
    agreement(rows, "stories", methods)                      do measures order the methods alike, and seeds?

By every measure more is better. Swapping is none of them: by it hardly any SAE does better than doing nothing.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from scipy.stats import rankdata, spearmanr, ttest_ind
from scipy.stats import t as student
from torch import Tensor

from sae_tutorial.evaluation.intervals import holm
from sae_tutorial.figures.kinds import Span

Row = Mapping[str, Any]
EXPLAINED, RECONSTRUCTED = "variance explained", "words, reconstruction"
# What is shown of the sizes that were measured. Without an SAE there is one direction for a property.
N_REMOVED, ONE = "5", "1"
LEAST_F1 = 0.6  # of main features that stand for a property; of others nothing is known about absorption


def _numbers(values: Iterable[float]) -> Float[Tensor, " questions"]:
    return torch.tensor(list(values)).double()


def _of(values: Mapping[str, float], books: bool) -> Float[Tensor, " questions"]:
    return _numbers(value for name, value in values.items() if name.startswith("book: ") == books)


def _taken(row: Row, what: str) -> Float[Tensor, " questions"]:
    return _numbers(row[what].get(N_REMOVED, row[what].get(ONE)).values())


# Each gives a score for every question that it asks, so that intervals can be had over questions.
MEASURES: dict[str, Callable[[Row], Float[Tensor, " questions"]]] = {
    EXPLAINED: lambda row: _numbers([1 - row["fvu"]]),
    RECONSTRUCTED: lambda row: _of(row["kept"], books=False),  # a probe on all of what the SAE writes
    "words, 1 feature": lambda row: _of(row["probing"]["1"], books=False),
    "words, 5 features": lambda row: _of(row["probing"]["5"], books=False),
    "books, 5 features": lambda row: _of(row["probing"]["5"], books=True),
    "one property removed": lambda row: _taken(row, "perturbation"),
    "the spurious one removed": lambda row: _taken(row, "removal"),
    "told by explanations": lambda row: _numbers([row["detection"][0]]),
}
TASKS = tuple(measure for measure in MEASURES if measure not in (EXPLAINED, RECONSTRUCTED))


def scores(rows: Iterable[Row], model: str, method: str, measure: str) -> dict[int, Float[Tensor, " questions"]]:
    """seed -> the score of each question. Nothing where the measure was not, or cannot be, asked of this method.

    Raises ValueError for a measure that there is not.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is none of {', '.join(map(repr, MEASURES))}")
    found = {}
    for row in rows:
        if (row["model"], row["method"]) == (model, method):
            try:
                found[int(row.get("seed", 0))] = MEASURES[measure](row)
            except (KeyError, TypeError):  # no FVU of what reconstructs nothing, no explanation of a coordinate
                continue
    return found


def worth(rows: Sequence[Row], model: str, measure: str, methods: Iterable[str]) -> dict[str, Span]:
    """method -> mean over seeds and questions, and the least and largest mean of a seed; of those that have it."""
    found = {}
    for method in methods:
        means = [float(of.mean()) for of in scores(rows, model, method, measure).values()]
        if means:
            found[method] = _span(means)
    return found


@dataclass(frozen=True)
class Pair:
    """How much more `one` has by a measure than `other`, and the p-value among all pairs that were compared."""

    one: str
    other: str
    difference: float
    p: float

    @property
    def apart(self) -> bool:
        """Whether the difference survives Holm's correction at 5 %."""
        return self.p < 0.05


def pairs(
    rows: Sequence[Row], model: str, measure: str, methods: Iterable[str], *, own_spread: bool = False
) -> list[Pair]:
    """All pairs of methods with two seeds or more, by the means of their seeds over the *same* questions: what other
    seeds would give, not what other questions would. Student's t with one spread of seeds for all methods, because
    three seeds of one method tell little of theirs, or Welch's with the spread of either; Holm's correction over the
    pairs.

    Raises ValueError where no two methods have two seeds.
    """
    means = {m: [float(one.mean()) for one in scores(rows, model, m, measure).values()] for m in methods}
    means = {method: of for method, of in means.items() if len(of) > 1}
    if len(means) < 2:
        raise ValueError(f"methods: {len(means)} have two seeds of {measure!r} on {model!r}; two or more are compared")
    free = sum(len(of) - 1 for of in means.values())
    variance = sum(statistics.variance(of) * (len(of) - 1) for of in means.values()) / free
    found = []
    for one, other in itertools.combinations(means, 2):
        more = statistics.fmean(means[one]) - statistics.fmean(means[other])
        error = math.sqrt(variance * (1 / len(means[one]) + 1 / len(means[other])))
        if own_spread:
            p = float(ttest_ind(means[one], means[other], equal_var=False).pvalue)
        else:
            p = 2 * float(student.sf(abs(more) / error, free)) if error else float(not more)
        found.append(Pair(one, other, more, p))
    return [replace(one, p=p) for one, p in zip(found, holm([one.p for one in found]))]


@dataclass(frozen=True)
class Agreement:
    """Rank correlations over methods: of one seed's order with another's, by this measure; and of its order with that
    of the variance explained, mean and range of seeds."""

    between_seeds: float
    with_explained: Span


def agreement(rows: Sequence[Row], model: str, methods: Sequence[str]) -> dict[str, Agreement]:
    """Of each task, over the methods and seeds that are all there.

    Raises ValueError where a method has fewer than two seeds.
    """
    explained, found = _of_seeds(rows, model, EXPLAINED, methods), {}
    for measure in TASKS:
        of_seeds = _of_seeds(rows, model, measure, methods)
        between = [_rank_correlation(a, b) for a, b in itertools.combinations(of_seeds, 2)]
        along = [_rank_correlation(a, b) for a, b in zip(of_seeds, explained)]
        found[measure] = Agreement(statistics.fmean(between), _span(along))
    return found


def _of_seeds(rows: Sequence[Row], model: str, measure: str, methods: Sequence[str]) -> list[list[float]]:
    """For each seed that all methods have: the mean score of each method."""
    every = {method: scores(rows, model, method, measure) for method in methods}
    shared = sorted(set.intersection(*(set(of) for of in every.values())))
    if len(shared) < 2:
        few = min(every, key=lambda method: len(every[method]))
        raise ValueError(f"methods: {few!r} has {len(every[few])} seeds on {model!r}; an agreement of seeds needs two")
    return [[float(every[method][seed].mean()) for method in methods] for seed in shared]


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic)


def places(rows: Sequence[Row], model: str, methods: Iterable[str]) -> dict[str, float]:
    """method -> its place in the order of the methods by a task, 1 is best: the mean over TASKS."""
    every = list(methods)
    of = [[worth(rows, model, task, every)[method][0] for method in every] for task in TASKS]
    ranks = [rankdata([-value for value in values]) for values in of]
    return {method: statistics.fmean(place[i] for place in ranks) for i, method in enumerate(every)}


class Swap(NamedTuple):
    """How often an attribute is read as the other sentence's when its features are swapped (cause), how often the
    others are read as before (isolation), and RAVEL's score, the mean of both: mean, least and largest of seeds."""

    cause: Span
    isolation: Span
    score: Span


def swapped(rows: Sequence[Row], model: str, method: str, n: int) -> Swap | None:
    """What swapping `n` features of an attribute does; None where this was not asked."""
    every = [
        row["disentanglement"][str(n)].values() for row in rows if (row["model"], row["method"]) == (model, method)
    ]
    if not every:
        return None
    cause, isolation = ([statistics.fmean(both[i] for both in of) for of in every] for i in (0, 1))
    return Swap(_span(cause), _span(isolation), _span([(c + i) / 2 for c, i in zip(cause, isolation)]))


def _span(of_seeds: Sequence[float]) -> Span:
    return statistics.fmean(of_seeds), min(of_seeds), max(of_seeds)


@dataclass(frozen=True)
class Absorbed:
    """Of one SAE and property: F1 of the main features, the share of words that are absorbed as published, and the part
    that up to three other features carry."""

    f1: float
    rate: float
    fraction: float


def absorbed(rows: Sequence[Row], model: str, methods: Iterable[str], least: int = 1) -> dict[str, list[Absorbed]]:
    """property -> what was found of each SAE; of properties for which main features stand in `least` SAEs. Where F1 is
    below LEAST_F1, no feature stands for the property, and the rest says nothing."""
    found: dict[str, list[Absorbed]] = {}
    for row in rows:
        if row["model"] == model and row["method"] in set(methods):
            for name, one in row.get("absorption", {}).items():
                found.setdefault(name, []).append(Absorbed(one["main_f1"], one["rate"], one["fraction"]))
    return {name: of for name, of in found.items() if sum(one.f1 >= LEAST_F1 for one in of) >= least}
