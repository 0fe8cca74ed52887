"""Figures of the grid: methods beside each other, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE
from sae_tutorial.figures.kinds import Curve, Span


def pareto(summaries: Mapping[str, Mapping[str, Sequence[Interval]]], title: str, y: Mapping[str, str]) -> go.Figure:
    """A panel for each measure over L0; a line for each method, with 95 % intervals over seeds.

    `summaries` holds for each method the intervals of "l0" and of the measures named in `y`, whose values are labels.
    """

    def curve(l0: Sequence[Interval], measured: Sequence[Interval]) -> Curve:
        middle, low, high, seeds = zip(*((one.mean, one.low, one.high, one.n) for one in measured))
        return Curve([one.mean for one in l0], middle, low, high, about=seeds)

    panels = {
        label: {name: curve(measures["l0"], measures[measure]) for name, measures in summaries.items()}
        for measure, label in y.items()
    }
    hover, across = "L0 %{x:.1f}, %{y:.4f}, seeds: %{customdata}", "L0, features per token (log scale)"
    fig = kinds.lines(panels, title, across, [""] * len(y), log="x", whiskers=True, hover=hover, height=470, gap=0.12)
    if fig.data:
        fig.update_xaxes(range=[math.log10(8), math.log10(150)], tickvals=[8, 16, 32, 64, 128])
    return fig


def differences(rows: Sequence[tuple[str, str, Interval]], title: str, x: str, form: str = "+.1%") -> go.Figure:
    """One line for each comparison (method, setting, difference): a dot, and its interval where there is one."""
    groups: dict[str, dict[str, Span]] = {}
    for name, setting, one in rows:
        groups.setdefault(name, {})[f"{name}, {setting}"] = (one.mean, one.low, one.high)
    seeds = {f"{name}, {setting}": f"seeds: {one.n}" for name, setting, one in rows}
    fig = kinds.intervals(groups, title, x, form=form, about=seeds)
    fig.add_vline(x=0, line=RULE)
    return fig.update_xaxes(tickformat="+.0%").update_layout(showlegend=False)
