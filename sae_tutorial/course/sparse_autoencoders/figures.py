"""Figures of notebook 04: directions found in a plane, what a penalty costs, what training does, what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import empty, ink, nothing
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import OTHERS, Look
from sae_tutorial.figures.style import PALETTE, TEXT, finish
from sae_tutorial.figures.text import numbers

REACH = 1.75  # half the width of the plane
PLANE_TITLES = {  # by how training ended, as `by_hand.ending` calls it
    "truth": "With a price on the code, five rows turn into the five directions that made the data",
    "cross": "Four rows form a cross that can write any point, and the fifth row hardly ever fires",
    "halfway": "All five rows stop halfway between two rays",
    "other": "Five rows that have not arrived anywhere yet",
}
PURSUED = ", pursuit"  # how the name of a dictionary that is read by a search ends
AT_ONCE = 400  # points of a curve that are worth storing
SOURCES = {  # where directions come from, each in the colour that `pareto` gives it beside TopK
    "SAE": Look(OTHERS[0]),
    "k-means": Look(OTHERS[2]),
    "sampled tokens": Look(OTHERS[3]),
    "random directions": Look(TEXT, "dot"),
}


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
    if nothing(rows):
        return empty(title)
    dots = {"size": 3.5, "color": TEXT, "opacity": 0.45}
    crosses = {"size": 15, "symbol": "x-thin", "line": {"width": 3, "color": PALETTE[3]}}
    start, learned = {"color": PALETTE[5], "dash": "dot"}, {"color": PALETTE[0], "width": 4}
    fig = go.Figure(
        [
            go.Scatter(**_xy(cloud), mode="markers", marker=dots, name="activations x", hoverinfo="skip"),
            go.Scatter(**_xy(1.55 * truth), mode="markers", marker=crosses, name="true directions", hoverinfo="skip"),
            go.Scatter(**_spokes(rows[0]), mode="lines", line=start, name="at the start"),
            go.Scatter(**_spokes(rows[-1]), mode="lines", line=learned, name="learned rows"),
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
    slider = {"active": len(names) - 1, "x": 0.2, "len": 0.8, "y": -0.08, "pad": {"t": 25}}
    slider["currentvalue"] = {"prefix": "training step "}
    slider["steps"] = [{"label": name, "method": "animate", "args": [[name], jump]} for name in names]
    fig.update_layout(updatemenus=[play], sliders=[slider], height=640)
    finish(fig, title, "x<sub>1</sub>", "x<sub>2</sub>", above=26)
    fig.update_xaxes(range=[-REACH, REACH], constrain="domain")
    fig.update_yaxes(range=[-REACH, REACH], scaleanchor="x")
    return fig.update_layout(legend={"xref": "paper", "x": 0, "yref": "paper", "y": 1}, margin_b=130)


def learned_against_true(
    true: Mapping[str, Float[Tensor, " points"]],
    learned: Mapping[str, Float[Tensor, " points"]],
    offsets: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Strengths as they went in and as they came out, one colour per penalty, with lines learned = true − offset, but
    never below zero."""
    if nothing(true):
        return empty(title)
    top = max(float(values.nan_to_num(0).max()) for values in true.values())
    curves = {"z = a": Curve([0, top], [0, top], look=Look(TEXT, "dot"), mode="lines")}
    for index, (name, values) in enumerate(true.items()):
        look, off = Look(PALETTE[index % len(PALETTE)]), offsets[name]
        curves[name] = Curve(values, learned[name], look=look)
        curves[f"_{name}"] = Curve([0, off, top], [0, 0, top - off], look=look, mode="lines")
    hover, labels = "true %{x:.2f}, learned %{y:.2f}", ("true strength a", "learned code z")
    fig = kinds.dots(curves, title, *labels, hover=hover, size=4, height=430)
    return fig.update_traces(marker_opacity=0.55, selector={"mode": "markers"}).update_layout(
        legend_itemsizing="constant"
    )


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
    The third run is dashed, so that one that it covers shows through.
    """
    names = list(dict.fromkeys(name for runs in panels.values() for name in runs))
    found = {name: Look(PALETTE[i], "dash" if i == 2 else "solid") for i, name in enumerate(names)}
    drawn = {
        panel: {
            name: Curve(_some(len(values)), [values[i] for i in _some(len(values))], look=found[name])
            for name, values in runs.items()
        }
        for panel, runs in panels.items()
    }
    own = [""] * len(panels)  # the headings name the axes
    fig = kinds.lines(drawn, title, x, own, mode="lines", hover="step %{x}: %{y:.3g}", height=400, gap=0.02)
    for place, panel in enumerate(panels if fig.data else ()):
        top = (tops or {}).get(panel)
        axis = {
            "rangemode": "tozero",
            "tickformat": (ticks or {}).get(panel),
            "range": None if top is None else [0, top],
        }
        fig.update_yaxes(**axis, row=1, col=place + 1)
    return fig


def pareto(runs: Mapping[str, Sequence[tuple[str, float, float]]], title: str) -> go.Figure:
    """What sparsity costs: the error that is left against L0. `runs`: name -> (label, L0, FVU); "" is no label.

    A name that ends in ", pursuit" is drawn without markers, for it has a point for every number of features, and
    dashed. "L1, pursuit" has the colour of "L1": the same dictionary, read by a search.
    """
    drawn: dict[str, Curve] = {}
    dictionaries = list(dict.fromkeys(name.removesuffix(PURSUED) for name in runs))
    for name, points in runs.items():
        labels, l0, fvu = zip(*points) if points else ([], [], [])
        pursued, i = name.endswith(PURSUED), dictionaries.index(name.removesuffix(PURSUED))
        look = Look(OTHERS[i % len(OTHERS)], "dash" if pursued else "solid", ("circle", "diamond")[i % 2])
        drawn[name] = Curve(
            l0, fvu, text=None if pursued else labels, look=look, mode="lines" if pursued else "lines+markers"
        )
    x, y = "L0, features per token (log scale)", "FVU, the share of variance left"
    hover = "L0 %{x:.1f}: %{y:.3f}"
    fig = kinds.lines(drawn, title, x, y, log="x", ticks=[5, 10, 20, 30, 50, 100], hover=hover, height=430)
    return fig.update_yaxes(rangemode="tozero", tickformat=".0%") if fig.data else fig


def recovery_map(
    values: Float[Tensor, "sizes penalties"],
    sizes: Sequence[int],
    penalties: Sequence[float],
    title: str,
    *,
    random: Sequence[float] | None = None,
    truth: int | None = None,
    legend: str = "MMCS",
) -> go.Figure:
    """A number for each dictionary size and penalty, written into its cell; `truth` marks the true size.

    `random` is what a dictionary of each size has before any training: a column of its own, the first.
    """
    columns, rows = [f"{penalty:g}" for penalty in penalties], [f"{size}" for size in sizes]
    if random is not None and len(values):
        columns, values = ["random rows", *columns], torch.cat([torch.tensor(random)[:, None], values], dim=1)
    rows = [row + (" = truth" if row == str(truth) else "") for row in rows]
    x, y = "sparsity coefficient λ", "features of the dictionary"
    hover = "%{y} features, λ = %{x}: %{z:.3f}"
    fig = kinds.heat({"": values}, title, x, y, unit=legend, limit=1, columns=columns, rows=rows, hover=hover, cell=46)
    if not fig.data:
        return fig
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            font = {"size": 13, "color": ink(value)}
            fig.add_annotation(x=column, y=row, text=f"{value:.2f}", showarrow=False, font=font)
    return fig.update_traces(xgap=1, ygap=1).update_yaxes(autorange=True)  # the smallest below


def _xy(points: Float[Tensor, "n 2"]) -> dict[str, list]:
    return {"x": numbers(points[:, 0], 3), "y": numbers(points[:, 1], 3)}


def _spokes(rows: Float[Tensor, "n 2"]) -> dict[str, list]:
    """A line from the origin to each row, as one trace: None lifts the pen."""
    x, y = ([part for value in numbers(rows[:, axis], 3) for part in (0.0, value, None)] for axis in (0, 1))
    return {"x": x, "y": y}


def _some(n: int) -> list[int]:
    """Evenly spread indices below n, the last one among them, few enough to store."""
    count = min(n, AT_ONCE)
    return [round(place * (n - 1) / max(1, count - 1)) for place in range(count)]
