"""Figures that notebook 10 alone has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from sae_tutorial.evaluation.explanations import StatisticsJudge
from sae_tutorial.evaluation.feature_pages import Passage
from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures.kinds import Curve, bars, intervals, lines
from sae_tutorial.figures.text import label


def means(table: Float[np.ndarray, "features points"]) -> list[Interval]:
    """The mean of each column over features, with its interval; features without a value are left out."""
    known = [column[~np.isnan(column)] for column in np.asarray(table).T]
    return [Interval.of(column) if len(column) else Interval(np.nan, np.nan, np.nan, 0) for column in known]


def by_point(tables: Mapping[str, Any], points: Sequence[float], title: str, x: str, y: str, **how: Any) -> go.Figure:
    """A line through the mean over features at each point, with 95% intervals."""
    curves = {}
    for name, table in tables.items():
        found = means(table)
        low, high = [one.low for one in found], [one.high for one in found]
        curves[name] = Curve(list(points), [one.mean for one in found], low, high)
    return lines(curves, title, x, y, **how)


def real_and_simulated(passage: Passage, explanation: Any, words: Any, title: str) -> go.Figure:
    """The real activation at each token of a passage, and the one that the explanation predicts."""
    said = StatisticsJudge().simulate(explanation, passage)
    names = [f"{i} {label(word)}" for i, word in enumerate(words(passage.tokens.tolist()), 1)]
    groups = {"real": Curve(names, passage.activations), "predicted": Curve(names, said)}
    return bars(groups, title, "token", "activation")


def compared(groups: Mapping[str, Mapping[str, Interval]], title: str, x: str) -> go.Figure:
    """A row for each kind of direction in each group, with its interval."""
    rows = {g: {name: (one.mean, one.low, one.high) for name, one in of.items()} for g, of in groups.items()}
    return intervals(rows, title, x)
