"""The table of the lesson: what each rule's SAEs are worth by each measure, and whether the measures agree.

    rows = load_judged()                                     a line for each SAE, and for what it is compared with
    worth(rows, "stories", "words, 1 feature", methods)      method -> mean and range of seeds
    against(rows, "stories", "token_choice", methods)        differences with intervals over seeds and questions
    agreement(rows, "stories", methods)                      do measures order the methods alike, and seeds?

By every measure more is better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from sae_tutorial.evaluation.intervals import Difference, holm
from sae_tutorial.figures.kinds import Span

Row = Mapping[str, Any]
EXPLAINED = "variance explained"
# What is shown of the sizes that were measured. Without an SAE there is one direction for a property.
N_REMOVED, N_SWAPPED, ONE = "5", "10", "1"
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
    "words, 1 feature": lambda row: _of(row["probing"]["1"], books=False),
    "words, 5 features": lambda row: _of(row["probing"]["5"], books=False),
    "books, 5 features": lambda row: _of(row["probing"]["5"], books=True),
    "one property removed": lambda row: _taken(row, "perturbation"),
    "the spurious one removed": lambda row: _taken(row, "removal"),
    "one attribute swapped": lambda row: _numbers(sum(both) / 2 for both in row["disentanglement"][N_SWAPPED].values()),
    "attributes held": lambda row: _numbers(row["disentanglement"]["held"].values()),
    "told by explanations": lambda row: _numbers([row["detection"][0]]),
}


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
            found[method] = sum(means) / len(means), min(means), max(means)
    return found


@dataclass(frozen=True)
class Against:
    """How much more one method has by one measure than another, and its p-value among all that were compared."""

    measure: str
    method: str
    difference: Difference
    p: float

    @property
    def verdict(self) -> str:
        """ "more" or "less" where that survives Holm's correction at 5 %, else "open"."""
        return "open" if self.p >= 0.05 else "more" if self.difference.mean > 0 else "less"


def against(
    rows: Sequence[Row], model: str, other: str, methods: Iterable[str], measures: Iterable[str] = tuple(MEASURES)
) -> dict[tuple[str, str], Against]:
    """(measure, method) -> its difference from `other`, over the seeds that both have. Those with one seed are left
    out: nothing is known of others."""
    found = {}
    for measure, method in itertools.product(measures, methods):
        mine, theirs = (scores(rows, model, name, measure) for name in (method, other))
        both = sorted(set(mine) & set(theirs))
        if method != other and len(both) > 1:
            ours, others = (torch.stack([of[seed] for seed in both]) for of in (mine, theirs))
            found[measure, method] = Difference.of(ours, others)
    corrected = holm([one.p for one in found.values()])
    return {key: Against(*key, one, p) for (key, one), p in zip(found.items(), corrected)}


@dataclass(frozen=True)
class Agreement:
    """Rank correlations over methods: of one seed's order with another's, by this measure; and of its order with that
    of the variance explained, mean and range of seeds."""

    between_seeds: float
    with_explained: Span


def agreement(rows: Sequence[Row], model: str, methods: Sequence[str]) -> dict[str, Agreement]:
    """Of each measure but the variance explained itself, over the methods and seeds that are all there.

    Raises ValueError where a method has fewer than two seeds.
    """
    by_measure = {measure: _of_seeds(rows, model, measure, methods) for measure in MEASURES}
    explained, found = by_measure.pop(EXPLAINED), {}
    for measure, of_seeds in by_measure.items():
        pairs = [_rank_correlation(a, b) for a, b in itertools.combinations(of_seeds, 2)]
        along = [_rank_correlation(a, b) for a, b in zip(of_seeds, explained)]
        found[measure] = Agreement(sum(pairs) / len(pairs), (sum(along) / len(along), min(along), max(along)))
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


def absorbed(rows: Sequence[Row], model: str, methods: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """method -> for each seed and property, F1 of its main features, and the part of it that others carry. Where F1 is
    below LEAST_F1, no feature stands for the property, and the part says nothing."""
    return {
        method: [
            (one["main_f1"], one["fraction"])
            for row in rows
            if (row["model"], row["method"]) == (model, method) and "absorption" in row
            for one in row["absorption"].values()
        ]
        for method in methods
    }
