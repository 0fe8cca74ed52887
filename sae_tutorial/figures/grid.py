"""Figures of the grid: methods beside each other, with intervals over seeds and rows of text."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE
from sae_tutorial.figures.kinds import Span


def differences(rows: Sequence[tuple[str, str, Ratio]], title: str, x: str, form: str = "+.1%") -> go.Figure:
    """One line for each comparison (method, setting, difference): a dot, and its interval."""
    groups: dict[str, dict[str, Span]] = {}
    for name, setting, one in rows:
        groups.setdefault(name, {})[f"{name}, {setting}"] = (one.mean, one.low, one.high)
    seeds = {f"{name}, {setting}": f"seeds: {one.seeds}" for name, setting, one in rows}
    fig = kinds.intervals(groups, title, x, form=form, about=seeds)
    fig.add_vline(x=0, line=RULE)
    return fig.update_xaxes(tickformat="+.0%").update_layout(showlegend=False)
