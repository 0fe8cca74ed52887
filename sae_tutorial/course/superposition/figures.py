"""Figures of the toy models: feature directions, WᵀW, feature geometry, phase diagram."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import DIVERGING, GRID, NAME, PALETTE, SEQUENTIAL, TEXT, finish

REACH = 1.35  # half the width of a panel of directions: trained norms reach about 1.15


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
    n_panels, _, n_features = W.shape
    labels = labels or [str(i) for i in range(n_features)]
    rows = -(-n_panels // columns)
    fig = make_subplots(
        rows, columns, subplot_titles=list(names), horizontal_spacing=0.03, vertical_spacing=0.32 / max(rows, 2)
    )
    for panel in range(n_panels):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        for trace in _arrows(W[panel], colours, labels, tips=False):
            fig.add_trace(trace.update(showlegend=panel == 0), **place)
    _square_axes(fig)
    finish(fig, title, "", "")
    _legend(fig, "feature", y=-40 / (175 * rows))
    fig.update_annotations(font_size=12)
    height = 175 * rows + 115
    return fig.update_layout(width=790, height=height, margin={"t": 85, "l": 20, "b": 30})


def directions_slider(
    W: Float[Tensor, "steps 2 features"],
    gram: Float[Tensor, "steps features features"],
    steps: Sequence[str],
    title: str,
) -> go.Figure:
    """A slider over models: their feature directions on the left, their WᵀW on the right. Works without a kernel."""
    n_steps, _, n_features = W.shape
    labels = [str(i) for i in range(n_features)]
    fig = make_subplots(1, 2, subplot_titles=["feature directions", "WᵀW: what output i hears of feature j"])
    for step in range(n_steps):
        for trace in _arrows(W[step], PALETTE, labels, tips=True):
            fig.add_trace(trace.update(visible=step == n_steps - 1), 1, 1)
        heat = _heat(gram[step], labels, labels, "output %{y}, feature %{x}: %{z:.2f}<extra></extra>")
        fig.add_trace(heat.update(visible=step == n_steps - 1, text=_rounded(gram[step]), texttemplate="%{text}"), 1, 2)
    per_step = n_features + 1
    buttons = [
        {"method": "update", "label": name, "args": [{"visible": _only(step, n_steps, per_step)}]}
        for step, name in enumerate(steps)
    ]
    slider = {"active": n_steps - 1, "steps": buttons, "pad": {"t": 60}, "font": {"size": 11}}
    slider["currentvalue"] = {"prefix": "feature probability p = "}
    finish(fig, title, "hidden dimension 1", "hidden dimension 2")
    fig.update_xaxes(range=[-REACH, REACH], row=1, col=1)
    fig.update_yaxes(range=[-REACH, REACH], scaleanchor="x", row=1, col=1)
    fig.update_xaxes(title_text="feature j", constrain="domain", showgrid=False, row=1, col=2)
    fig.update_yaxes(title_text="output i", autorange="reversed", showgrid=False, scaleanchor="x2", row=1, col=2)
    fig.update_annotations(font_size=13)
    fig.update_xaxes(type="category", row=1, col=2)
    fig.update_yaxes(type="category", row=1, col=2)
    return fig.update_layout(sliders=[slider], coloraxis=_signed("weight"), width=790, height=530, showlegend=False)


def gram_and_norms(
    gram: Float[Tensor, "panels features features"],
    norms: Float[Tensor, "panels features"],
    interference: Float[Tensor, "panels features"],
    names: Sequence[str],
    title: str,
) -> go.Figure:
    """WᵀW above, the norm of every feature below, coloured by the interference that it suffers from the others."""
    n_panels, n_features = norms.shape
    spacing = {"horizontal_spacing": 0.03, "vertical_spacing": 0.06}
    fig = make_subplots(2, n_panels, subplot_titles=list(names), row_heights=[0.55, 0.45], **spacing)
    for panel in range(n_panels):
        heat = _heat(gram[panel], None, None, "output %{y}, feature %{x}: %{z:.2f}<extra></extra>")
        fig.add_trace(heat, 1, panel + 1)
        bars = go.Bar(
            y=list(range(n_features)),
            x=_array(norms[panel]),
            orientation="h",
            marker={"color": _array(interference[panel]), "coloraxis": "coloraxis2", "line_width": 0},
            hovertemplate="feature %{y}<br>norm %{x:.2f}<br>interference %{marker.color:.2f}<extra></extra>",
        )
        fig.add_trace(bars, 2, panel + 1)
        fig.update_xaxes(title_text="norm ‖W<sub>i</sub>‖", range=[0, 1.3], tickvals=[0, 1], row=2, col=panel + 1)
    finish(fig, title, "", "output i")
    fig.update_yaxes(autorange="reversed", showticklabels=False, ticks="", showgrid=False)
    fig.update_yaxes(title_text="feature i", row=2, col=1)
    fig.update_xaxes(showticklabels=False, ticks="", row=1)
    fig.update_annotations(font_size=12)
    top = {**_signed("W<sup>T</sup>W")["colorbar"], "len": 0.5, "y": 0.78}
    low = {"title": "interference", "len": 0.42, "y": 0.2, "outlinewidth": 0, "thickness": 14}
    return fig.update_layout(
        coloraxis={**_signed("")} | {"colorbar": top},
        coloraxis2={"colorscale": SEQUENTIAL, "colorbar": low, "cmin": 0},
        bargap=0,
        width=790,
        height=520,
        showlegend=False,
        margin={"t": 90},
    )


def dimensions_per_feature(
    inverse_density: Float[Tensor, " sweep"], d_star: Float[Tensor, " sweep"], title: str
) -> go.Figure:
    """D* = M / ‖W‖²_F along a sweep of sparsity, with the two plateaus marked."""
    fig = go.Figure(
        go.Scatter(
            x=_array(inverse_density),
            y=_array(d_star),
            mode="lines+markers",
            hovertemplate="1/(1−S) = %{x:.2f}<br>D* = %{y:.3f}<extra></extra>",
        )
    )
    for level, name in ((1.0, "1: as many as dimensions"), (0.5, "1/2: two share one")):
        fig.add_hline(y=level, line={"dash": "dot", "color": TEXT, "width": 1.5}, annotation_text=name)
    fig.update_xaxes(type="log", tickvals=[1, 2, 3, 5, 10, 20])
    fig.update_yaxes(range=[0, 1.12])
    return finish(fig, title, "1/(1 − S) = 1/p, dense to sparse (log scale)", "dimensions per feature learned, D*")


def dimensionality_cloud(
    inverse_density: Float[Tensor, " sweep"],
    dimensionality: Float[Tensor, "sweep features"],
    represented: Tensor,
    levels: dict[str, float],
    title: str,
) -> go.Figure:
    """D_i of every represented feature against sparsity, with the fractions of regular shapes as lines."""
    x, y = [], []
    for inverse, values, keep in zip(inverse_density.tolist(), dimensionality, represented, strict=True):
        kept = [round(value, 4) for value in values[keep].sort().values.tolist()]
        y += kept
        x += [
            round(inverse * 1.045 ** (2 * i / max(len(kept) - 1, 1) - 1), 4) for i in range(len(kept))
        ]  # fan out sideways
    dots = go.Scattergl if len(x) > 20_000 else go.Scatter
    marker = {"size": 3.5, "opacity": 0.6}
    hover = "D<sub>i</sub> = %{y:.3f}<extra></extra>"
    fig = go.Figure(dots(x=x, y=y, mode="markers", marker=marker, hovertemplate=hover))
    _levels(fig, levels, fig.add_hline)
    fig.update_xaxes(type="log", tickvals=[1, 2, 3, 5, 10, 20])
    fig.update_yaxes(range=[0, 1.05])
    finish(fig, title, "1/(1 − S) = 1/p, dense to sparse (log scale)", "dimensionality D<sub>i</sub> of one feature")
    return fig.update_layout(height=440, margin={"r": 60})


def dimensionality_histogram(
    dimensionality: Float[Tensor, " features"], levels: dict[str, float], title: str
) -> go.Figure:
    """How many features have which D_i, in bins of 0.01, with the fractions of regular shapes as lines."""
    bars = go.Histogram(
        x=_array(dimensionality),
        xbins={"start": 0, "end": 1.0001, "size": 0.01},
        marker_line_width=0,
        hovertemplate="D<sub>i</sub> %{x}: %{y} features<extra></extra>",
    )
    fig = go.Figure(bars)
    _levels(fig, levels, fig.add_vline)
    fig.update_xaxes(range=[0, 1.02])
    finish(fig, title, "dimensionality D<sub>i</sub> (share of a dimension)", "features (bins of 0.01)")
    return fig.update_layout(margin={"t": 90})


def phase_diagram(
    share: Float[Tensor, "probabilities importances"],
    probability: Float[Tensor, " probabilities"],
    importance: Float[Tensor, " importances"],
    boundary: Float[Tensor, " importances"] | None,
    title: str,
) -> go.Figure:
    """D of the second feature over sparsity and relative importance, with the boundary of the closed form over it."""
    hover = "importance %{x:.2f}<br>probability %{y:.3f}<br>D of feature 2: %{z:.2f}<extra></extra>"
    heat = go.Heatmap(
        x=_array(importance),
        y=_array(probability),
        z=_array(share),
        zmin=0,
        zmax=1,
        colorscale=[[0, "#F0E442"], [0.35, "#56B4E9"], [0.65, "#56B4E9"], [1, "#0072B2"]],
        colorbar={
            "title": {"text": "D of feature 2", "side": "right"},
            "tickvals": [0, 0.5, 1],
            "outlinewidth": 0,
            "thickness": 16,
        },
        hovertemplate=hover,
    )
    heat.colorbar.ticktext = ["0: dropped", "1/2: shares", "1: alone"]
    fig = go.Figure(heat)
    if boundary is not None:
        line = {"color": "black", "width": 3, "dash": "dash"}
        fig.add_trace(go.Scatter(x=_array(importance), y=_array(boundary), mode="lines", line=line, name="closed form"))
    fig.update_xaxes(type="log", tickvals=[0.1, 0.3, 1, 3, 10], showgrid=False)
    fig.update_yaxes(type="log", tickvals=[0.01, 0.03, 0.1, 0.3, 1], autorange="reversed", showgrid=False)
    finish(fig, title, "importance of feature 2, relative to feature 1", "feature probability p, sparser above")
    return fig.update_layout(height=470, showlegend=False)


def matrices(
    panels: Sequence[Float[Tensor, "rows columns"]],
    names: Sequence[str],
    title: str,
    *,
    x: str,
    y: str,
    legend: str,
    x_ticks: Sequence[str] | None = None,
    y_ticks: Sequence[str] | None = None,
    share: bool = False,
    numbers: bool = False,
) -> go.Figure:
    """Matrices side by side on one colour scale: signed weights, or with `share` numbers between 0 and 1.

    With `numbers` every cell shows its value.
    """
    fig = make_subplots(1, len(panels), subplot_titles=list(names), horizontal_spacing=0.07)
    for place, panel in enumerate(panels, start=1):
        rows, columns = (list(map(str, range(size))) for size in panel.shape)
        heat = _heat(panel, x_ticks or columns, y_ticks or rows, f"{y} %{{y}}, {x} %{{x}}: %{{z:.2f}}<extra></extra>")
        if numbers:
            heat.update(text=_rounded(panel, 2), texttemplate="%{text}")
        fig.add_trace(heat, 1, place)
        fig.update_xaxes(title_text=x, row=1, col=place)
    limit = max(float(panel.abs().max()) for panel in panels)
    colours = _signed(legend, limit)
    if share:
        colours |= {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1}
    finish(fig, title, x, y)
    fig.update_xaxes(showgrid=False, type="category")
    fig.update_yaxes(showgrid=False, type="category", autorange="reversed")
    fig.update_annotations(font_size=13)
    return fig.update_layout(coloraxis=colours, margin={"t": 90})


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


def _heat(z: Tensor, x: Sequence[str] | None, y: Sequence[str] | None, hover: str) -> go.Heatmap:
    return go.Heatmap(z=np.round(_array(z), 3), x=x, y=y, coloraxis="coloraxis", hovertemplate=hover)


def _signed(legend: str, limit: float = 1.2) -> dict:
    bar = {"title": legend, "outlinewidth": 0, "thickness": 14}
    return {"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar}


def _levels(fig: go.Figure, levels: dict[str, float], add_line: Callable) -> None:
    """Thin dotted lines with their fraction written at the end."""
    across = add_line == fig.add_hline
    for name, value in levels.items():
        style = {"dash": "dot", "color": PALETTE[3], "width": 1}
        add_line(value, line=style)
        shift = 6 * ((name == "2/5") - (name == "3/8"))  # these two are neighbours
        place = {"x": 1, "y": value, "xref": "paper", "xanchor": "left", "yshift": shift}
        if not across:
            place = {"x": value, "y": 1, "yref": "paper", "yanchor": "bottom", "xshift": shift}
        fig.add_annotation(text=name, showarrow=False, font={"size": 11, "color": PALETTE[3]}, **place)


def _square_axes(fig: go.Figure) -> None:
    fig.update_xaxes(range=[-REACH, REACH], showticklabels=False, ticks="", zerolinecolor=GRID)
    fig.update_yaxes(range=[-REACH, REACH], showticklabels=False, ticks="", zerolinecolor=GRID)
    for axis in fig.select_yaxes():
        axis.scaleanchor = axis.anchor


def _legend(fig: go.Figure, title: str, y: float) -> None:
    fig.update_layout(template=NAME, legend={"orientation": "h", "title_text": title, "x": 0, "y": y})


def _only(step: int, n_steps: int, per_step: int) -> list[bool]:
    return [index // per_step == step for index in range(n_steps * per_step)]


def _rounded(z: Tensor, digits: int = 1) -> list[list[str]]:
    return [[f"{round(value, digits) + 0.0:.{digits}f}" for value in row] for row in z.tolist()]


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().cpu(), dtype=np.float32)  # half the size in a notebook, and enough for a figure
