"""Figures of the toy models: feature directions, WᵀW, feature geometry, phase diagram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from plotly.colors import get_colorscale, sample_colorscale
from torch import Tensor

from sae_tutorial.figures import frame, kinds
from sae_tutorial.figures.frame import empty, nothing
from sae_tutorial.figures.style import CLEAR, DIVERGING, GRID, PALETTE, SEQUENTIAL, finish
from sae_tutorial.figures.text import numbers, packed

REACH = 1.35  # half the width of a panel of directions: trained norms reach about 1.15
READ = "output %{y}, feature %{x}: %{z:.2f}<extra></extra>"
LIGHT = sample_colorscale(get_colorscale(SEQUENTIAL), np.linspace(0.25, 1, 7))  # its first quarter is night blue


def directions(
    W: Float[Tensor, "panels 2 features"],
    names: Sequence[str],
    title: str,
    *,
    columns: int = 5,
    colours: Sequence[str] = PALETTE,
    labels: Sequence[str] | None = None,
) -> go.Figure:
    """One panel per model: each feature's direction in the two hidden dimensions, a line from the origin to a dot."""
    if nothing(W):
        return empty(title)
    labels = labels or [str(i) for i in range(W.shape[2])]
    rows, columns = -(-len(W) // columns), min(columns, len(W))
    height = 105 + 22 * (rows - 1) + rows * (570 // columns)
    fig, places = frame.panels(names, title, columns=columns, height=height, gap=0.02)
    for panel, place in enumerate(places):
        for trace in _arrows(W[panel], colours, labels, tips=False):
            fig.add_trace(trace.update(showlegend=panel == 0), **place)
    square = {"range": [-REACH, REACH], "showticklabels": False, "ticks": "", "zerolinecolor": GRID}
    fig.update_xaxes(**square, matches=None)
    fig.update_yaxes(**square, matches=None)
    for axis in fig.select_yaxes():
        axis.scaleanchor = axis.anchor
    return fig.update_layout(legend_title_text="feature", margin={"l": 15, "r": 15, "b": 15})


def directions_slider(
    W: Float[Tensor, "steps 2 features"],
    gram: Float[Tensor, "steps features features"],
    steps: Sequence[str],
    titles: Sequence[str],
) -> go.Figure:
    """A slider over models: their feature directions on the left, their WᵀW on the right. Works without a kernel.

    Each step has a title of its own, in one line.
    """
    if nothing(W):
        return empty(titles[-1] if titles else "")
    n_steps, _, n_features = W.shape
    labels = [str(i) for i in range(n_features)]
    heads = ["feature directions", "WᵀW: weight from feature j to output i"]
    axes = ["hidden dimension 1", "feature j"], ["hidden dimension 2", "output i"]
    fig, (left, right) = frame.panels(heads, titles[-1], *axes, height=470, gap=0.08)
    for step in range(n_steps):
        for trace in _arrows(W[step], PALETTE, labels, tips=True):
            fig.add_trace(trace.update(visible=step == n_steps - 1), **left)
        heat = _heat(gram[step], labels, text=_rounded(gram[step]), texttemplate="%{text}")
        fig.add_trace(heat.update(visible=step == n_steps - 1), **right)
    per_step = n_features + 1
    shown = [[index // per_step == step for index in range(n_steps * per_step)] for step in range(n_steps)]
    buttons = [
        {"method": "update", "label": name, "args": [{"visible": flags}, {"title.text": title}]}
        for name, flags, title in zip(steps, shown, titles, strict=True)
    ]
    slider = {"active": n_steps - 1, "steps": buttons, "pad": {"t": 50}}
    slider["currentvalue"] = {"prefix": "feature probability p = "}
    fig.update_xaxes(range=[-REACH, REACH], **left)
    fig.update_yaxes(range=[-REACH, REACH], scaleanchor="x", **left)
    fig.update_xaxes(type="category", constrain="domain", showgrid=False, **right)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False, scaleanchor="x2", **right)
    return fig.update_layout(sliders=[slider], coloraxis=_signed("weight", DIVERGING), showlegend=False)


def gram_and_norms(
    gram: Float[Tensor, "panels features features"],
    norms: Float[Tensor, "panels features"],
    interference: Float[Tensor, "panels features"],
    names: Sequence[str],
    title: str,
) -> go.Figure:
    """WᵀW above, the norm of every feature below, coloured by the interference that it suffers from the others."""
    if nothing(gram, norms):
        return empty(title)
    n_panels, n_features = norms.shape
    below = ["norm ‖W<sub>i</sub>‖" if i >= n_panels else "feature j" for i in range(2 * n_panels)]
    room: dict[str, Any] = {
        "height": 560,
        "gap": 0.03,
        "row_heights": [0.55, 0.45],
        "vertical_spacing": 0.15,
        "shared_yaxes": False,
    }
    beside = ["output i" if i == 0 else "feature i" if i == n_panels else "" for i in range(2 * n_panels)]
    fig, places = frame.panels([*names, *[""] * n_panels], title, below, beside, columns=n_panels, **room)
    for panel in range(n_panels):
        fig.add_trace(_heat(gram[panel]), **places[panel])
        bars = go.Bar(
            y=list(range(n_features)),
            x=packed(norms[panel]),
            orientation="h",
            marker={"color": packed(interference[panel]), "coloraxis": "coloraxis2", "line_width": 0},
            hovertemplate="feature %{y}<br>norm %{x:.2f}<br>interference %{marker.color:.2f}<extra></extra>",
        )
        fig.add_trace(bars, **places[n_panels + panel])
    ends = {"tickvals": [0, n_features // 2, n_features - 1], "showgrid": False}  # the order of importance
    fig.update_yaxes(autorange="reversed", **ends).update_yaxes(showticklabels=False, ticks="")
    fig.update_yaxes(showticklabels=True, ticks="outside", col=1)
    fig.update_xaxes(row=1, **ends).update_xaxes(range=[0, 1.3], tickvals=[0, 0.5, 1], row=2)
    upper = _signed("W<sup>T</sup>W", CLEAR)
    upper["colorbar"] |= {"len": 0.5, "y": 0.78}
    low = {"title": {"text": frame.apart("interference")}, "len": 0.42, "y": 0.2}
    lower = {"colorscale": LIGHT, "colorbar": low, "cmin": 0}
    return fig.update_layout(coloraxis=upper, coloraxis2=lower, bargap=0, showlegend=False)


def dimensionality_cloud(
    probability: Float[Tensor, " sweep"],
    dimensionality: Float[Tensor, "sweep features"],
    represented: Tensor,
    average: Float[Tensor, " sweep"],
    levels: Mapping[str, float],
    title: str,
) -> go.Figure:
    """The share of a dimension of every represented feature against how often features are on, a line through the
    average shares m / ‖W‖²_F, and the fractions of regular shapes.

    Dots of one model are spread sideways at random, so that they can be told apart.
    """
    if nothing(dimensionality) or not represented.any():
        return empty(title, "Nothing to draw: no feature is represented.")
    spread = np.random.default_rng(0)
    x, y = [], []
    for often, values, keep in zip(probability.tolist(), dimensionality, represented, strict=True):
        kept = numbers(values[keep], 4)
        y += kept
        x += numbers(often * 1.045 ** spread.uniform(-1, 1, len(kept)))
    dots = go.Scattergl if len(x) > 20_000 else go.Scatter
    marker, hover = {"size": 3.5, "opacity": 0.6, "color": PALETTE[0]}, "share %{y:.3f}<extra></extra>"
    cloud = dots(x=x, y=y, mode="markers", marker=marker, hovertemplate=hover, name="one feature")
    fig = go.Figure(cloud, layout={"height": 440})
    line = {"color": PALETTE[3], "width": 1.5}
    fig.add_scatter(
        x=numbers(probability),
        y=numbers(average),
        mode="lines",
        line=line,
        name="average, m / ‖W‖²",
        hovertemplate="p = %{x:.3f}: %{y:.3f}<extra></extra>",
    )
    finish(fig, title, "feature probability p (log scale), rarer to the right", "share of a dimension")
    fig.update_layout(legend_itemsizing="constant")
    frame.levels(fig, levels)
    fig.update_xaxes(type="log", tickvals=[1, 0.5, 0.3, 0.2, 0.1, 0.05], range=[0.02, math.log10(0.045)])
    return fig.update_yaxes(range=[0, 1.05])


def dimensionality_histogram(
    dimensionality: Float[Tensor, " features"], levels: Mapping[str, float], title: str
) -> go.Figure:
    """How many features have which share of a dimension, in bins of 0.01, with the fractions of regular shapes."""
    labels = "share of a dimension", "features (bins of 0.01)"
    hover = "share %{x:.3f}: %{y:,}"
    fig = kinds.histogram({"": dimensionality}, title, *labels, bins=(0, 0.01), mark=levels, hover=hover)
    names = sorted((note for note in fig.layout.annotations if note.text in levels), key=lambda note: note.x)
    for i, note in enumerate(names):  # 3/8 and 2/5 are closer than their names are wide
        note.update(xanchor="center", yshift=14 * (i % 2))
    return fig.update_xaxes(range=[0, 1.02])


def phase_diagram(
    share: Float[Tensor, "probabilities importances"],
    probability: Float[Tensor, " probabilities"],
    importance: Float[Tensor, " importances"],
    boundary: Float[Tensor, " importances"] | None,
    title: str,
) -> go.Figure:
    """The second feature's share of the dimension over importance and probability, with the closed form's boundary.

    Where equally important features do not share, the start decides which one is dropped: a tie, without a colour.
    """
    if nothing(share):
        return empty(title)
    tie = torch.isclose(importance.float(), torch.ones(())) & ((share - 0.5).abs() > 0.1)
    kept = {"tickvals": [0, 0.5, 1], "ticktext": ["0: dropped", "1/2: shares", "1: alone"]}
    heat = go.Heatmap(
        x=packed(importance),
        y=packed(probability),
        z=packed(share.masked_fill(tie, torch.nan)),
        zmin=0,
        zmax=1,
        colorscale=[[0, PALETTE[7]], [0.5, PALETTE[5]], [1, PALETTE[0]]],
        colorbar={"title": {"text": frame.apart("share of feature 2")}, **kept},
        hovertemplate="importance %{x:.2f}<br>probability %{y:.3f}<br>share of feature 2: %{z:.2f}<extra></extra>",
    )
    fig = go.Figure(heat, layout={"height": 470, "showlegend": False})
    if boundary is not None:
        line = {"color": "black", "width": 3, "dash": "dash"}
        fig.add_scatter(x=packed(importance), y=packed(boundary), mode="lines", line=line, name="closed form")
        at = 3 * len(importance) // 4  # its name above it, where all is of one light colour
        x, y = (math.log10(float(values[at])) for values in (importance, boundary))
        name = {"text": "closed form", "font": {"size": 12, "color": "black"}, "xanchor": "right"}
        fig.add_annotation(x=x, y=y, yshift=12, showarrow=False, **name)
    for row, column in tie.nonzero().tolist():
        x, y = (math.log10(float(values[at])) for values, at in ((importance, column), (probability, row)))
        fig.add_annotation(x=x, y=y, text="tie", showarrow=False)
    finish(
        fig,
        title,
        "importance I of feature 2, log scale (feature 1 has 1)",
        "feature probability p (log scale), sparser above",
    )
    fig.update_xaxes(type="log", tickvals=[0.1, 0.3, 1, 3, 10], showgrid=False)
    return fig.update_yaxes(type="log", tickvals=[0.01, 0.03, 0.1, 0.3, 1], autorange="reversed", showgrid=False)


def matrices(
    panels: Sequence[Float[Tensor, "rows columns"]],
    names: Sequence[str],
    title: str,
    *,
    x: str,
    y: str,
    legend: str,
    y_ticks: Sequence[str] | None = None,
    share: bool = False,
    numbers: bool = False,
) -> go.Figure:
    """Matrices side by side on one colour scale: signed weights, or with `share` numbers between 0 and 1.

    With `numbers` every cell shows its value.
    """
    return kinds.heat(
        dict(zip(names, panels, strict=True)),
        title,
        x,
        y,
        unit=legend,
        rows=y_ticks,
        signed=not share,
        limit=1 if share else None,
        written=(lambda value: f"{round(value, 2) + 0.0:.2f}") if numbers else None,
        hover=f"{y} %{{y}}, {x} %{{x}}: %{{z:.2f}}",
        cell=48 if numbers else 38,
    )


def _arrows(W_2N: Tensor, colours: Sequence[str], labels: Sequence[str], tips: bool) -> list[go.Scatter]:
    return [
        go.Scatter(
            x=[0, float(W_2N[0, i])],
            y=[0, float(W_2N[1, i])],
            mode="lines+markers+text" if tips else "lines+markers",
            text=["", labels[i]],
            textposition="top center" if W_2N[1, i] >= 0 else "bottom center",
            line={"color": colours[i % len(colours)], "width": 3},
            marker={"size": [0, 9], "line_width": 0, "opacity": 1},
            name=labels[i],
            legendgroup=labels[i],
            showlegend=not tips,
            hovertemplate=f"feature {labels[i]}: (%{{x:.2f}}, %{{y:.2f}})<extra></extra>",
        )
        for i in range(W_2N.shape[1])
    ]


def _heat(z: Tensor, names: Sequence[str] | None = None, **how: object) -> go.Heatmap:
    return go.Heatmap(z=packed(z), x=names, y=names, coloraxis="coloraxis", hovertemplate=READ, **how)


def _signed(legend: str, scale: list) -> dict:
    return {"colorscale": scale, "cmin": -1.2, "cmax": 1.2, "colorbar": {"title": {"text": frame.apart(legend)}}}


def _rounded(z: Tensor) -> list[list[str]]:
    return [[f"{round(value, 1) + 0.0:.1f}" for value in row] for row in z.tolist()]
