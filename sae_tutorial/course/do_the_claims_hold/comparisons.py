"""Many comparisons at once: methods against one of them, in several settings, corrected for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from torch import Tensor

from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Ratio, holm
from sae_tutorial.figures import grid, kinds, looks
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import NAMES, ORANGE, PINK, SKY, VERMILION
from sae_tutorial.figures.tables import Table

OF_CHANGES = (ORANGE, SKY, VERMILION, PINK)  # in one figure, in turn
MEASURES = {"error": "squared error", "kl": "KL", "lost": "loss not recovered"}
# Where rules are compared: the fields that name these rows of the grid.
SETTINGS: dict[str, dict[str, Any]] = {
    "k = 16": {"part": "main", "model": "stories", "k": 16},
    "k = 32": {"part": "main", "model": "stories", "k": 32},
    "k = 64": {"part": "main", "model": "stories", "k": 64},
    "k = 16, 3 × steps": {"part": "length", "steps": 3000, "k": 16},
    "k = 16, 10 × steps": {"part": "length", "steps": 10_000, "k": 16},
    "k = 32, 16,384 features": {"part": "wide", "k": 32},
    "k = 16, SmolLM2": {"part": "smollm2", "k": 16},
    "k = 32, SmolLM2": {"part": "smollm2", "k": 32},
    "k = 64, SmolLM2": {"part": "smollm2", "k": 64},
    "shipped, SmolLM2": {"part": "reference", "model": "smollm2"},
}


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
    lines: Mapping[str, Tensor] | None = None,
) -> dict[tuple[str, str, str], Comparison]:
    """Each method against `other`, by measure, method and setting (a name -> fields of its rows), with intervals over
    seeds and rows of text, in some settings of these `lines` alone. p-values are corrected for the number of those that
    have seeds to vary. What was not trained is left out."""
    found = evidence.ratios(measures, methods, other, settings, lines)
    several = {key: ratio.p for key, ratio in found.items() if ratio.seeds > 1}
    corrected = dict(zip(several, holm(list(several.values()))))
    return {key: Comparison(*key, ratio, corrected.get(key, math.nan)) for key, ratio in found.items()}


def figure(comparisons: Mapping[tuple[str, str, str], Comparison], measure: str, title: str, other: str) -> go.Figure:
    """The differences of one measure, a row for each method and setting; one of one seed says so, as its interval is
    over rows of text alone. Intervals are not corrected, so what the table leaves open is hollow."""
    shown = [one for one in comparisons.values() if one.measure == measure]
    rows = [(NAMES[one.method], one.setting + " (one seed)" * (one.ratio.seeds == 1), one.ratio) for one in shown]
    x = f"{MEASURES[measure]} against {NAMES[other]}, same seeds (left of zero is less; hollow: not settled)"
    fig = grid.differences(rows, title, x)
    for trace in fig.data:
        settled = [one.verdict in ("less", "more") for one in shown if NAMES[one.method] == trace.name]
        trace.marker.symbol = [trace.marker.symbol + "-open" * (not one) for one in settled]
    return fig


def by_budget(found: Mapping[str, Mapping[int, Ratio]], title: str) -> go.Figure:
    """The error of methods against Token Choice (a name -> budget -> ratio) at each budget, intervals as bars; methods
    stand side by side, so that their bars can be told from each other, and as all are changes to one rule, which share
    its colours, each has one of its own here."""
    curves, middle = {}, (len(found) - 1) / 2
    for i, (name, ratios) in enumerate(found.items()):
        at = [k * 1.08 ** (i - middle) for k in ratios]
        mean, low, high = ([getattr(ratio, end) for ratio in ratios.values()] for end in ("mean", "low", "high"))
        curves[name] = Curve(at, mean, low, high, look=looks.look(name)._replace(colour=OF_CHANGES[i]))
    budgets = sorted({k for ratios in found.values() for k in ratios})
    x, y = "features per token, k (log scale)", "squared error against Token Choice"
    fig = kinds.dots(
        curves, title, x, y, log="x", ticks=budgets, whiskers=True, level={"": 0.0}, hover="%{y:+.1%}", size=11
    )
    return fig.update_yaxes(tickformat="+.0%")


def table(
    comparisons: Mapping[tuple[str, str, str], Comparison],
    settings: Sequence[str],
    methods: Sequence[str] | None = None,
    folded: str = "",
) -> Table:
    """Verdicts: a row for each measure and method, or for these methods, a column for each setting. The corner says for
    how many comparisons they are corrected, since a verdict may turn when more are made."""
    pairs = dict.fromkeys((one.measure, one.method) for one in comparisons.values())

    def cell(measure: str, method: str, setting: str) -> str:
        one = comparisons.get((measure, method, setting))
        return "–" if one is None else f"{one.ratio.mean:+.1%} {one.verdict}"

    rows = [
        (MEASURES[m], NAMES[name], *(cell(m, name, setting) for setting in settings))
        for m, name in pairs
        if methods is None or name in methods
    ]
    corrected = sum(one.ratio.seeds > 1 for one in comparisons.values())
    return Table([f"corrected for {corrected}", "method", *settings], rows, folded)
