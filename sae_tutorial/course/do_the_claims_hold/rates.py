"""What the sweeps of the learning rate say: the error at each rate, and Mutual against Token Choice at some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sae_tutorial.course.results import Evidence
from sae_tutorial.figures.looks import NAMES
from sae_tutorial.figures.tables import Table

PAIR = ("mutual_choice", "token_choice")


def errors(evidence: Evidence, method: str, **fields: Any) -> dict[float, float]:
    """FVU on the rows that rates are chosen by, at each rate that was tried, in multiples of the default one."""
    rows = evidence.runs.where(part="rates", method=method, **fields)
    return {row["factor"]: row["validation_fvu"] for row in sorted(rows, key=lambda row: row["factor"])}


def dead(evidence: Evidence, method: str, **fields: Any) -> dict[float, float]:
    """The share of features without a match in the last tokens of training, at each rate that was tried."""
    return {row["factor"]: row["train_dead"] for row in evidence.runs.where(part="rates", method=method, **fields)}


def best(evidence: Evidence, method: str, **fields: Any) -> float | None:
    """The rate of least error, in multiples of the default one; None without a sweep."""
    by_rate = errors(evidence, method, **fields)
    return min(by_rate, key=by_rate.__getitem__) if len(by_rate) > 2 else None


def swept(evidence: Evidence, methods: Sequence[str], **fields: Any) -> Table:
    """Of each method that was swept: how many rates were tried, the best one, and the error there on the text that is
    measured. One seed, and chosen alike, whoever's trainer it is."""
    rows = []
    for method in methods:
        if (factor := best(evidence, method, **fields)) is not None:
            [row] = evidence.runs.where(part="rates", method=method, factor=factor, **fields)
            tried = len(errors(evidence, method, **fields))
            rows.append((NAMES[method], tried, f"{factor:g} ×", f"{row['fvu']:.4f}"))
    return Table(["trainer, one seed", "rates tried", "best rate", "FVU there"], rows)


def gap(evidence: Evidence, factor: float | None = None, **fields: Any) -> float:
    """How much more error Mutual Choice has than Token Choice, both at this rate, or each at its best."""
    mutual, token = (errors(evidence, method, **fields) for method in PAIR)
    if factor is None:
        return min(mutual.values()) / min(token.values()) - 1
    return mutual[factor] / token[factor] - 1


def measured(evidence: Evidence, method: str, k: int, factor: float) -> float:
    """FVU on the text that is measured, of the short run with this rate and seed 0 on stories, whether the grid has it
    or the rates beside it."""
    where = {"method": method, "model": "stories", "k": k, "seed": 0, "factor": factor}
    [found] = [row["fvu"] for part in ("main", "finer") for row in evidence.runs.where(part=part, **where)]
    return found


def finer_gap(evidence: Evidence, k: int) -> tuple[float, float]:
    """On the text that is measured, seed 0, stories: the gap at the rates of the grid, and at each rule's best of these
    and of 1 and √2 times the default, which lie beside or between the steps of the sweep."""
    tried = []
    for method in PAIR:
        where = {"method": method, "model": "stories", "k": k, "seed": 0}
        [used] = [row["fvu"] for row in evidence.runs.where(part="main", **where)]
        tried.append([used, *(row["fvu"] for row in evidence.runs.where(part="finer", **where))])
    (mutual, *_), (token, *_) = tried
    return mutual / token - 1, min(tried[0]) / min(tried[1]) - 1
