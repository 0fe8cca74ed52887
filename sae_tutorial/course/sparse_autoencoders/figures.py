"""Figures of notebook 04: directions found in a plane, what features answer to, what a penalty costs, who dies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.course.start_here.figures import after, before
from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures.style import NAME, PALETTE, SEQUENTIAL, TEXT, finish
from sae_tutorial.figures.text import floats, on

REACH = 1.75  # half the width of the plane
AT_ONCE = 400  # points of a curve that are worth storing


def learning_plane(
    cloud: Float[Tensor, "points 2"],
    truth: Float[Tensor, "features 2"],
    rows: Float[Tensor, "moments features 2"],
    steps: Sequence[int],
    title: str,
) -> go.Figure:
    """A dictionary that learns, in two dimensions: activations as dots, true directions as crosses, rows as lines.

    Play button and slider go through the moments and need no kernel. What is stored as a picture is the last moment.
    """
    dots = {"size": 3.5, "color": TEXT, "opacity": 0.45}
    crosses = {"size": 15, "symbol": "x-thin", "line": {"width": 3, "color": PALETTE[3]}}
    fig = go.Figure(
        [
            go.Scatter(**_xy(cloud), mode="markers", marker=dots, name="activations x", hoverinfo="skip"),
            go.Scatter(**_xy(1.55 * truth), mode="markers", marker=crosses, name="true directions", hoverinfo="skip"),
            go.Scatter(
                **_spokes(rows[0]), mode="lines", line={"color": PALETTE[5], "dash": "dot"}, name="at the start"
            ),
            go.Scatter(**_spokes(rows[-1]), mode="lines", line={"color": PALETTE[0], "width": 4}, name="learned rows"),
        ]
    )
    fig.update_traces(hovertemplate="(%{x:.2f}, %{y:.2f})<extra></extra>", selector={"mode": "lines"})
    names = [str(step) for step in steps]
    fig.frames = [
        go.Frame(name=name, data=[go.Scatter(**_spokes(moment))], traces=[3]) for name, moment in zip(names, rows)
    ]
    quick = {"frame": {"duration": 120, "redraw": False}, "transition": {"duration": 0}, "fromcurrent": False}
    jump = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate"}
    play = {"type": "buttons", "showactive": False, "x": 0.0, "y": -0.13, "xanchor": "left", "yanchor": "top"}
    play["buttons"] = [{"label": "▶ play", "method": "animate", "args": [None, quick]}]
    play |= {"bgcolor": "rgba(128, 128, 128, 0.2)", "bordercolor": TEXT, "font": {"color": TEXT}}
    slider = {"active": len(names) - 1, "x": 0.2, "len": 0.8, "y": -0.08, "pad": {"t": 25}, "font": {"size": 11}}
    slider["currentvalue"] = {"prefix": "training step "}
    slider["steps"] = [{"label": name, "method": "animate", "args": [[name], jump]} for name in names]
    finish(fig, title, "x<sub>1</sub>", "x<sub>2</sub>")
    fig.update_xaxes(range=[-REACH, REACH], constrain="domain")
    fig.update_yaxes(range=[-REACH, REACH], scaleanchor="x")
    return fig.update_layout(updatemenus=[play], sliders=[slider], width=700, height=620, margin={"b": 110})


def feature_contexts(groups: Mapping[str, Sequence[Context]], title: str) -> go.Figure:
    """The strongest places of some features: a bar for each place, coloured by feature, the text beside and inside."""
    fig = go.Figure()
    room = 58 / max(context.activation for places in groups.values() for context in places)  # characters in a bar
    labels: list[str] = []
    for index, (name, places) in enumerate(groups.items()):
        colour = PALETTE[index % len(PALETTE)]
        fig.add_bar(
            x=[round(place.activation, 3) for place in places],
            y=list(range(len(labels), len(labels) + len(places))),
            orientation="h",
            name=name,
            marker_color=colour,
            text=[after(place, int(room * place.activation)) for place in places],
            textposition="inside",
            insidetextanchor="start",
            textangle=0,
            insidetextfont={"color": on(colour), "size": 12},
            customdata=[before(place) + after(place) for place in places],
            hovertemplate="%{customdata}<br>%{x:.2f}<extra>" + name + "</extra>",
        )
        labels += [before(place) for place in places]
    finish(fig, title, "strength of the feature (units in which E|x|² = 1)", "")
    fig.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, autorange="reversed", showgrid=False)
    fig.update_yaxes(tickfont={"size": 12})
    legend = {
        "orientation": "h",
        "title_text": "feature (share of tokens)",
        "x": 0.01,
        "xref": "container",
        "yref": "container",
    }
    legend |= {"y": 0.01, "yanchor": "bottom"}
    fig.update_layout(width=860, height=190 + 24 * len(labels), legend=legend, margin={"b": 100}, bargap=0.15)
    return fig.update_layout(title={"x": 0.02, "xref": "container"})


def shares_above(
    groups: Mapping[str, Tensor], title: str, x: str, *, mark: tuple[float, str] | None = None, y: str = "share above"
) -> go.Figure:
    """For each group, the share of its values that are larger than x: whole distributions, one line each."""
    fig = go.Figure()
    for index, (name, values) in enumerate(groups.items()):
        ordered = values.detach().flatten().sort().values
        keep = _some(len(ordered))
        share = [round(1 - place / len(ordered), 4) for place in keep]
        style = {"color": PALETTE[index % len(PALETTE)], "width": 2.5}
        if name.startswith("random"):
            style |= {"color": TEXT, "dash": "dot"}
        hover = name + ": %{y:.0%} are above %{x:.2f}<extra></extra>"
        fig.add_scatter(x=floats(ordered[keep], 3), y=share, mode="lines", line=style, name=name, hovertemplate=hover)
    if mark is not None:
        fig.add_vline(x=mark[0], line={"color": TEXT, "dash": "dash", "width": 1}, annotation_text=mark[1])
    fig.update_yaxes(tickformat=".0%", range=[0, 1.03])
    return finish(fig, title, x, y)


def learned_against_true(
    true: Mapping[str, Float[Tensor, " points"]],
    learned: Mapping[str, Float[Tensor, " points"]],
    offsets: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Coefficients as they went in and as they came out, one colour per penalty, with lines learned = true − offset."""
    fig = go.Figure()
    top = max(float(values.max()) for values in true.values())
    fig.add_scatter(x=[0, top], y=[0, top], mode="lines", line={"color": TEXT, "dash": "dot"}, name="no bias")
    for index, (name, values) in enumerate(true.items()):
        colour = PALETTE[index]
        dots = {"size": 4, "color": colour, "opacity": 0.55}
        hover = "true %{x:.2f}, learned %{y:.2f}<extra>" + name + "</extra>"
        places = {"x": floats(values, 3), "y": floats(learned[name], 3)}
        fig.add_scatter(**places, mode="markers", marker=dots, name=name, legendgroup=name, hovertemplate=hover)
        line = {"color": colour, "width": 1.5}
        y = [max(0.0, -offsets[name]), top - offsets[name]]
        x = [max(0.0, offsets[name]), top]
        fig.add_scatter(x=x, y=y, mode="lines", line=line, legendgroup=name, showlegend=False, hoverinfo="skip")
    finish(fig, title, "true strength s", "learned strength c")
    return fig.update_layout(height=430, legend={"itemsizing": "constant"})


def curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    *,
    x: str = "training step",
    ticks: Mapping[str, str] | None = None,
    tops: Mapping[str, float] | None = None,
) -> go.Figure:
    """Panels side by side, each with the same runs as lines over training steps.

    `ticks` holds number formats of a panel's axis, `tops` where it ends: a first step may be out of all proportion.
    """
    fig = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.09)
    for place, (panel, lines) in enumerate(panels.items(), start=1):
        for index, (name, values) in enumerate(lines.items()):
            keep = _some(len(values))
            hover = name + "<br>step %{x}: %{y:.3g}<extra></extra>"
            style = {"color": PALETTE[index % len(PALETTE)], "width": 2.5}
            y = [float(f"{float(values[step]):.4g}") for step in keep]
            trace = go.Scatter(x=keep, y=y, mode="lines", line=style, name=name, legendgroup=name, hovertemplate=hover)
            fig.add_trace(trace.update(showlegend=place == 1), 1, place)
        fig.update_xaxes(title_text=x, row=1, col=place)
        top = (tops or {}).get(panel)
        fig.update_yaxes(rangemode="tozero", tickformat=(ticks or {}).get(panel), row=1, col=place)
        fig.update_yaxes(range=None if top is None else [0, top], row=1, col=place)
    finish(fig, title, x, "")  # the headings of the panels name the other axis
    fig.update_annotations(font_size=13)
    fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"})
    return fig.update_layout(template=NAME, width=790, height=400, margin={"t": 100})


def pareto(
    runs: Mapping[str, Sequence[tuple[str, float, float, float]]], title: str, recovered: str = "CE loss recovered"
) -> go.Figure:
    """What sparsity costs: error and CE loss recovered against L0. `runs`: name -> (label, L0, FVU, recovered)."""
    fig = make_subplots(1, 2, subplot_titles=["reconstruction: lower is better", "prediction: higher is better"])
    for index, (name, points) in enumerate(runs.items()):
        labels, *series = zip(*points)
        for column in (1, 2):
            trace = go.Scatter(
                x=[round(l0, 2) for l0 in series[0]],
                y=[round(value, 4) for value in series[column]],
                mode="lines+markers+text",
                text=labels,
                textposition=_corner(column, first=index == 0),
                textfont={"size": 10, "color": TEXT},
                line={"color": PALETTE[index], "width": 2.5},
                marker={"size": 8, "symbol": ["circle", "diamond", "square"][index % 3]},
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate=name + ", %{text}<br>L0 %{x:.1f}: %{y:.3f}<extra></extra>",
            )
            fig.add_trace(trace, 1, column)
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    l0 = [point[1] for points in runs.values() for point in points]
    span = [math.log10(min(l0) / 1.4), math.log10(max(l0) * 1.6)]  # labels stand beside their points
    axis = {"type": "log", "tickvals": ticks, "range": span, "title_text": "L0, features per token (log scale)"}
    for column in (1, 2):
        fig.update_xaxes(**axis, row=1, col=column)
    finish(fig, title, "L0, features per token (log scale)", "FVU, share of variance")
    fig.update_yaxes(title_text=f"{recovered}, share", row=1, col=2)
    fig.update_yaxes(rangemode="tozero", row=1, col=1)
    fig.update_annotations(font_size=13)
    fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"})
    return fig.update_layout(width=790, height=430, margin={"t": 100})


def recovery_map(
    values: Float[Tensor, "sizes penalties"],
    sizes: Sequence[int],
    penalties: Sequence[float],
    title: str,
    *,
    truth: int | None = None,
    legend: str = "MMCS",
) -> go.Figure:
    """A number for each dictionary size and penalty, written into its cell; `truth` marks the true size."""
    rows = [f"{size}" + (" = truth" if size == truth else "") for size in sizes]
    columns = [f"{penalty:g}" for penalty in penalties]
    heat = go.Heatmap(
        z=floats(values, 3),
        x=columns,
        y=rows,
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        texttemplate="%{z:.2f}",
        colorbar={"title": {"text": legend, "side": "right"}, "outlinewidth": 0, "thickness": 16},
        hovertemplate="%{y} features, α = %{x}: %{z:.3f}<extra></extra>",
    )
    fig = go.Figure(heat)
    fig.update_xaxes(type="category", showgrid=False)
    fig.update_yaxes(type="category", showgrid=False)
    return finish(fig, title, "L1 coefficient α", "rows of the dictionary")


def _xy(points: Float[Tensor, "n 2"]) -> dict[str, list]:
    return {"x": floats(points[:, 0], 3), "y": floats(points[:, 1], 3)}


def _spokes(rows: Float[Tensor, "n 2"]) -> dict[str, list]:
    """A line from the origin to each row, as one trace: None lifts the pen."""
    x, y = ([part for value in floats(rows[:, axis], 3) for part in (0.0, value, None)] for axis in (0, 1))
    return {"x": x, "y": y}


def _corner(column: int, first: bool) -> str:
    """Where the labels of a curve stand, so that two curves that run beside each other keep them apart."""
    above = "top" if first == (column == 1) else "bottom"
    return f"{above} {'right' if first else 'left'}"


def _some(n: int) -> list[int]:
    """Evenly spread indices below n, the last one among them, few enough to store."""
    count = min(n, AT_ONCE)
    return [round(place * (n - 1) / max(1, count - 1)) for place in range(count)]
