"""Figures of the grid: methods beside each other, with intervals over seeds and rows of text."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE
from sae_tutorial.figures.kinds import Span


def differences(rows: Sequence[tuple[str, str, Ratio]], title: str, x: str, form: str = "+.1%") -> go.Figure:
    """One line for each comparison (method, setting, difference): a dot, and its interval. A method that is alone is
    left to the title."""
    alone = len({name for name, *_ in rows}) == 1
    groups: dict[str, dict[str, Span]] = {}
    seeds = {}
    for name, setting, one in rows:
        label = setting if alone else f"{name}, {setting}"
        groups.setdefault(name, {})[label] = (one.mean, one.low, one.high)
        seeds[label] = f"seeds: {one.seeds}"
    fig = kinds.intervals(groups, title, x, form=form, about=seeds)
    fig.add_vline(x=0, line=RULE)
    return fig.update_xaxes(tickformat="+.0%").update_layout(showlegend=False)
