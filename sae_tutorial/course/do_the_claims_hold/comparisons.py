"""Many comparisons at once: methods against one of them, in several settings, corrected for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Ratio, holm
from sae_tutorial.figures import grid
from sae_tutorial.figures.looks import NAMES
from sae_tutorial.figures.tables import Table

MEASURES = {"error": "squared error", "kl": "KL", "lost": "loss not recovered"}


@dataclass(frozen=True)
class Comparison:
    """One method against another in one setting: how much more it has of the measure, and its p-value among all."""

    measure: str
    method: str
    setting: str
    ratio: Ratio
    p: float  # after Holm's correction; NaN with one seed

    @property
    def verdict(self) -> str:
        """ "less" or "more" where that survives the correction at 5 %, else "open"; of one seed there is no verdict."""
        if self.ratio.seeds == 1:
            return "(one seed)"
        return "open" if self.p >= 0.05 else "less" if self.ratio.mean < 0 else "more"


def against(
    evidence: Evidence,
    other: str,
    methods: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    measures: Sequence[str] = ("error", "kl"),
) -> dict[tuple[str, str, str], Comparison]:
    """Each method against `other`, by measure, method and setting (a name -> fields of its rows), with intervals over
    seeds and rows of text. p-values are corrected for the number of those that have seeds to vary. What was not trained
    is left out."""
    found = evidence.ratios(measures, methods, other, settings)
    several = {key: ratio.p for key, ratio in found.items() if ratio.seeds > 1}
    corrected = dict(zip(several, holm(list(several.values()))))
    return {key: Comparison(*key, ratio, corrected.get(key, math.nan)) for key, ratio in found.items()}


def figure(comparisons: Mapping[tuple[str, str, str], Comparison], measure: str, title: str, other: str) -> go.Figure:
    """The differences of one measure, a row for each method and setting; one of one seed says so, as its interval is
    over rows of text alone."""
    rows = [
        (NAMES[one.method], one.setting + " (one seed)" * (one.ratio.seeds == 1), one.ratio)
        for one in comparisons.values()
        if one.measure == measure
    ]
    return grid.differences(
        rows, title, f"{MEASURES[measure]} against {NAMES[other]}, same seeds (left of zero is less)"
    )


def table(comparisons: Mapping[tuple[str, str, str], Comparison], settings: Sequence[str]) -> Table:
    """Verdicts: a row for each measure and method, a column for each setting."""
    pairs = dict.fromkeys((one.measure, one.method) for one in comparisons.values())

    def cell(measure: str, method: str, setting: str) -> str:
        one = comparisons.get((measure, method, setting))
        return "–" if one is None else f"{one.ratio.mean:+.1%} {one.verdict}"

    rows = [(MEASURES[m], NAMES[name], *(cell(m, name, setting) for setting in settings)) for m, name in pairs]
    return Table(["measure", "method", *settings], rows)
