"""Figures of the grid: methods beside each other, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures.looks import below, look
from sae_tutorial.figures.style import GRID, TEXT, finish


def pareto(summaries: Mapping[str, Mapping[str, Sequence[Interval]]], title: str, y: Mapping[str, str]) -> go.Figure:
    """A panel for each measure over L0; a line for each method, with 95 % intervals over seeds.

    `summaries` holds for each method the intervals of "l0" and of the measures named in `y`, whose values are labels.
    """
    fig = make_subplots(1, len(y), horizontal_spacing=0.12)
    for name, measures in summaries.items():
        colour, symbol = look(name)
        for place, measure in enumerate(y, start=1):
            means = [v.mean for v in measures[measure]]
            half = [0 if math.isnan(v.high) else v.high - v.mean for v in measures[measure]]
            fig.add_scatter(
                x=[v.mean for v in measures["l0"]],
                y=means,
                error_y={"array": half, "color": colour, "thickness": 1.5},
                mode="lines+markers",
                line={"color": colour, "width": 1.5},
                marker={"symbol": symbol, "size": 9},
                name=name,
                legendgroup=name,
                showlegend=place == 1,
                customdata=[v.n for v in measures[measure]],
                hovertemplate=f"{name}<br>L0 %{{x:.1f}}, %{{y:.4f}}, seeds: %{{customdata}}<extra></extra>",
                row=1,
                col=place,
            )
    finish(fig, title, "L0, features per token", list(y.values())[0])
    for place, name in enumerate(y.values(), start=1):
        l0 = {"type": "log", "range": [math.log10(8), math.log10(150)], "tickvals": [8, 16, 32, 64, 128]}
        fig.update_xaxes(title_text="L0, features per token (log scale)", row=1, col=place, **l0)
        fig.update_yaxes(title_text=name, row=1, col=place)
    return fig.update_layout(width=900, height=470, legend=below(), margin={"b": 130})


def differences(rows: Sequence[tuple[str, str, Interval]], title: str, x: str, form: str = "+.1%") -> go.Figure:
    """One line for each comparison (method, setting, difference): a dot, and its interval where there is one."""
    fig = go.Figure()
    for name in dict.fromkeys(row[0] for row in rows):
        mine = [(setting, one) for method, setting, one in rows if method == name]
        colour, symbol = look(name)
        half = [0 if math.isnan(one.high) else one.high - one.mean for _, one in mine]
        fig.add_scatter(
            x=[one.mean for _, one in mine],
            y=[f"{name}, {setting}" for setting, _ in mine],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 11},
            error_x={"array": half, "color": colour},
            name=name,
            customdata=[one.n for _, one in mine],
            hovertemplate=f"%{{y}}: %{{x:{form}}}, seeds: %{{customdata}}<extra></extra>",
        )
    fig.add_vline(x=0, line={"color": TEXT, "width": 1})
    finish(fig, title, x, "")
    fig.update_xaxes(tickformat=form)
    fig.update_yaxes(autorange="reversed", gridcolor=GRID)
    return fig.update_layout(width=820, height=150 + 30 * len(rows), showlegend=False)
