"""Figures of notebook 06: density against rank, laws beside data, intervals of exponents, and densities over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT, finish

# One colour for each method, the same as in notebook 05; others take the palette in turn.
COLOURS = {
    "ReLU + L1": PALETTE[6],
    "Token Choice": PALETTE[0],
    "Mutual Choice": PALETTE[1],
    "Mutual Choice, aux_zipf": PALETTE[3],
    "Feature Choice, uniform": PALETTE[4],
    "Feature Choice, Zipf": PALETTE[2],
}
RANK = "rank (1 = most frequent)"
DENSITY = "density (share of tokens)"
POINTS = 120  # of a curve: every rank at the head, then evenly on the logarithmic axis
Band = tuple[Sequence[float], Sequence[float], Sequence[float]]  # middle, low end, high end


def colour(name: str, place: int) -> str:
    return COLOURS.get(name, PALETTE[place % 6])


def thinned(n_ranks: int) -> np.ndarray:
    """Ranks, counted from 1, that are enough to draw a curve of `n_ranks`."""
    return np.unique(np.geomspace(1, n_ranks, POINTS).round().astype(int))


def rank_density(
    curves: Mapping[str, Float[np.ndarray, " features"]],
    title: str,
    *,
    laws: Mapping[str, Float[np.ndarray, " ranks"]] | None = None,
    middle: tuple[int, int] | None = None,
    x: str = RANK,
    y: str = DENSITY,
) -> go.Figure:
    """Values in falling order on log axes. `laws` hold their values at ranks 1, 2, … and are drawn as dashed lines; one
    that has the name of a curve takes its colour. Values of 0 have no place here; `middle` marks ranks by a band."""
    fig = go.Figure()
    for place, (name, values) in enumerate(curves.items()):
        ordered = np.sort(np.asarray(values, dtype=float))[::-1]
        fig.add_trace(_curve(ordered[ordered > 0], name, {"color": colour(name, place), "width": 2.5}))
    for place, (name, values) in enumerate((laws or {}).items()):
        own = name in curves
        line = {"color": colour(name, list(curves).index(name)) if own else TEXT, "width": 1.5}
        line["dash"] = "dash" if own else ("dash", "dot", "dashdot")[place % 3]
        fig.add_trace(_curve(np.asarray(values, dtype=float), f"{name}: law" if own else name, line))
    if middle is not None:
        fig.add_vrect(*middle, fillcolor=TEXT, opacity=0.12, line_width=0, layer="below")
    finish(fig, title, x, y)
    return _log_log(fig).update_layout(width=760, height=430)


def residuals(curves: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]], title: str) -> go.Figure:
    """Density divided by what a law says, along the ranks: name -> (falling density, law at its ranks)."""
    fig = go.Figure()
    for place, (name, (density, law)) in enumerate(curves.items()):
        ranks = thinned(len(density))
        fig.add_trace(
            go.Scatter(
                x=ranks,
                y=np.round(density[ranks - 1] / law[ranks - 1], 4),
                name=name,
                line={"color": colour(name, place), "width": 2},
                hovertemplate=name + "<br>rank %{x:,}<br>%{y:.2f} × the law<extra></extra>",
            )
        )
    fig.add_hline(1, line={"color": TEXT, "dash": "dot", "width": 1})
    finish(fig, title, RANK, "density ÷ law")
    return _log_log(fig).update_layout(width=760, height=400)


def strips(
    groups: Mapping[str, Sequence[float]], title: str, x: str, marks: Mapping[str, float] | None = None
) -> go.Figure:
    """Every value as a dot, one row for each group; `marks` are named vertical lines."""
    fig = go.Figure()
    names = list(groups)
    for place, name in enumerate(names):
        values = list(groups[name])
        spread = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
        fig.add_trace(
            go.Scatter(
                x=values,
                y=place + np.random.default_rng(0).permutation(spread),
                mode="markers",
                marker={"size": 8, "color": colour(name, place), "opacity": 0.75},
                hovertemplate=name + ": %{x:.4f}<extra></extra>",
                showlegend=False,
            )
        )
    _marks(fig, marks)
    finish(fig, title, x, "")
    fig.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], zeroline=False)
    return fig.update_layout(width=760, height=150 + 46 * len(names), margin_t=80)


def intervals(
    groups: Mapping[str, Mapping[str, tuple[float, float, float]]],
    title: str,
    x: str,
    marks: Mapping[str, float] | None = None,
) -> go.Figure:
    """Named groups of rows; each row is (middle, low end, high end), drawn as a dot with a bar."""
    fig = go.Figure()
    labels: list[str] = []
    for place, (group, rows) in enumerate(groups.items()):
        spans = np.array(list(rows.values()), dtype=float)
        if not len(spans):
            continue
        at = list(range(len(labels), len(labels) + len(rows)))
        labels += list(rows)
        fig.add_trace(
            go.Scatter(
                x=spans[:, 0],
                y=at,
                mode="markers",
                name=group,
                marker={"size": 9, "color": PALETTE[place % 6]},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": spans[:, 2] - spans[:, 0],
                    "arrayminus": spans[:, 0] - spans[:, 1],
                    "thickness": 2,
                },
                customdata=spans[:, 1:],
                text=list(rows),
                hovertemplate="%{text}: %{x:.3g} (%{customdata[0]:.3g} to %{customdata[1]:.3g})<extra></extra>",
            )
        )
    _marks(fig, marks)
    finish(fig, title, x, "")
    fig.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5], zeroline=False
    )
    return fig.update_layout(width=760, height=170 + 27 * len(labels), margin_t=80)


def moved_budget(
    shares: Float[np.ndarray, "laws runs"], laws: Sequence[str], runs: Sequence[str], title: str
) -> go.Figure:
    """Row: whose law; column: who is given it; number: the share of the budget that lands on other ranks."""
    text = [[f"{value:.0%}" for value in row] for row in shares]
    heat = go.Heatmap(
        z=np.round(shares, 4),
        x=list(runs),
        y=list(laws),
        text=text,
        texttemplate="%{text}",
        colorscale=SEQUENTIAL,
        zmin=0,
        colorbar={"title": "moved", "tickformat": ".0%", "outlinewidth": 0},
        hovertemplate="law of %{y}<br>given to %{x}<br>%{text} of the budget moved<extra></extra>",
    )
    fig = finish(go.Figure(heat), title, "given to", "law of")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(showgrid=False, tickangle=-35)
    return fig.update_layout(width=760, height=230 + 34 * len(laws))


def lines(
    x_values: Sequence[float],
    series: Mapping[str, Band | Sequence[float]],
    title: str,
    x: str,
    y: str,
    *,
    mark: float | None = None,
    logarithmic: bool = True,
) -> go.Figure:
    """Lines over `x_values`; a series of three lists is a middle with its band. `mark` is a dotted level."""
    fig = go.Figure()
    for place, (name, values) in enumerate(series.items()):
        middle, low, high = values if isinstance(values, tuple) else (values, None, None)
        tint = colour(name, place)
        if low is not None and high is not None:
            around = [*high, *reversed(list(low))]
            band = {"fill": "toself", "fillcolor": tint, "opacity": 0.2, "line_width": 0, "mode": "lines"}
            fig.add_trace(
                go.Scatter(
                    x=[*x_values, *reversed(list(x_values))], y=around, hoverinfo="skip", showlegend=False, **band
                )
            )
        fig.add_trace(
            go.Scatter(
                x=list(x_values),
                y=list(middle),
                name=name,
                mode="lines+markers",
                line={"color": tint, "width": 2.5},
                hovertemplate=name + "<br>" + x + " %{x:,}<br>%{y:.3f}<extra></extra>",
            )
        )
    if mark is not None:
        fig.add_hline(mark, line={"color": TEXT, "dash": "dot", "width": 1})
    finish(fig, title, x, y)
    if logarithmic:
        _log_axis(fig.update_xaxes)
    return fig.update_layout(width=760, height=400)


# ---------------------------------------------------------------------- shared pieces


def _curve(ordered: np.ndarray, name: str, line: dict) -> go.Scatter:
    ranks = thinned(len(ordered))
    return go.Scatter(
        x=ranks,
        y=[float(f"{value:.4g}") for value in ordered[ranks - 1]],
        mode="lines",
        name=name,
        line=line,
        hovertemplate=name + "<br>rank %{x:,}<br>%{y:.3g}<extra></extra>",
    )


def _log_axis(update: Callable[..., Any]) -> None:
    update(type="log", dtick=1, exponentformat="power", minor={"ticks": "outside", "ticklen": 3})


def _log_log(fig: go.Figure) -> go.Figure:
    _log_axis(fig.update_xaxes)
    _log_axis(fig.update_yaxes)
    return fig


def _marks(fig: go.Figure, marks: Mapping[str, float] | None) -> None:
    for place, (name, value) in enumerate((marks or {}).items()):
        fig.add_vline(value, line={"color": PALETTE[3], "dash": "dash", "width": 1.5})
        note = {
            "text": name,
            "font": {"color": PALETTE[3], "size": 11},
            "xanchor": "right" if place % 2 == 0 else "left",
        }
        fig.add_annotation(x=value, y=1.0, yref="paper", yanchor="bottom", showarrow=False, **note)
