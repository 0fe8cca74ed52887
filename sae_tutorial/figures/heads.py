"""Figures about attention heads: where they look, how they overlap, what they score, what breaks without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import empty, nothing, panels
from sae_tutorial.figures.kinds import NO_FILL, Curve
from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT
from sae_tutorial.figures.text import numbers, quoted

TAKES, TAKEN = "this token takes", "is taken from this token"


def _percent(pattern: Float[Tensor, "positions positions"]) -> np.ndarray:
    """Shares as whole percents in single bytes: many patterns in one figure would otherwise fill a notebook."""
    return (100 * pattern.detach().cpu()).nan_to_num(0).round().numpy().astype(np.uint8)


def attention_grid(patterns: Float[Tensor, "layers heads positions positions"], title: str) -> go.Figure:
    """Every head's pattern as a small picture: one row per layer, one column per head."""
    if nothing(patterns):
        return empty(title)
    n_layers, n_heads = patterns.shape[:2]
    names: dict[str, Any] = {
        "column_titles": [f"head {head}" for head in range(n_heads)],
        "row_titles": [f"layer {layer}" for layer in range(n_layers)],
    }
    room: dict[str, Any] = {"columns": n_heads, "height": 92 + 70 * n_layers, "above": 16, "gap": 0.012}
    close: dict[str, Any] = {"vertical_spacing": 0.02, "shared_xaxes": True}
    fig, places = panels([""] * (n_layers * n_heads), title, **room, **close, **names)
    for place, pattern in zip(places, patterns.flatten(0, 1), strict=True):
        fig.add_heatmap(
            z=_percent(pattern),
            coloraxis="coloraxis",
            hovertemplate="position %{y} takes %{z}% from position %{x}"
            + f"<extra>layer {place['row'] - 1} head {place['col'] - 1}</extra>",
            **place,
        )
    fig.update_xaxes(visible=False).update_yaxes(visible=False, autorange="reversed")
    scale = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": {"title": "attention", "ticksuffix": "%"}}
    fig.update_layout(coloraxis=scale, margin={"l": 20, "b": 34}).update_annotations(font_size=11)
    note = "rows: the position that takes · columns: the position that is taken from"
    foot: dict[str, Any] = {"xref": "paper", "yref": "paper", "x": 0, "y": 0, "yshift": -26, "xanchor": "left"}
    return fig.add_annotation(text=note, showarrow=False, **foot)


def pattern_maps(
    patterns: Mapping[str, Float[Tensor, "positions positions"]], tokens: Sequence[str], title: str
) -> go.Figure:
    """The patterns of a few heads side by side, over the same tokens, whose names must differ."""
    percents = {name: _percent(pattern) for name, pattern in patterns.items()}
    names: dict[str, Any] = {"columns": tokens, "rows": tokens, "cell": 20}
    hover = "%{y} takes %{z}% from %{x}"
    fig = kinds.heat(percents, title, TAKEN, TAKES, unit="attention (%)", limit=100, hover=hover, **names)
    return fig.update_xaxes(tickangle=-60, dtick=1).update_yaxes(dtick=1)


def habit(pattern: Float[Tensor, "positions positions"], tokens: Sequence[str]) -> str:
    """Where this head mostly looks, as half a sentence: the place that is strongest for at least half of the tokens, or
    else where the last one looks.

    Copying is only spoken of where at least a third of the tokens are repeated ones: one word said twice proves little.
    """
    strongest = pattern.argmax(-1).tolist()
    rows = range(1, len(tokens))
    if not rows:
        return "a single token has nobody else to look at"
    follows = {i: tokens.index(tokens[i]) + 1 for i in rows if tokens[i] in tokens[:i]}  # after the first copy
    copied = [strongest[i] == after for i, after in follows.items()]
    if len(copied) >= len(tokens) // 3 and sum(copied) > len(copied) / 2:
        return f"{sum(copied) / len(copied):.0%} of the repeated tokens look most at what followed their first copy"
    shares = {
        "the one before": sum(strongest[i] == i - 1 for i in rows) / len(rows),
        "themselves": sum(strongest[i] == i for i in rows) / len(rows),
        "the BOS token": sum(strongest[i] == 0 for i in rows) / len(rows),
    }
    place = max(shares, key=shares.__getitem__)
    if shares[place] < 0.5:  # no habit: then the token from which the model goes on
        return f"{quoted(tokens[-1])} looks most at {quoted(tokens[strongest[-1]])}: {pattern[-1].max():.0%}"
    return f"{shares[place]:.0%} of the tokens look most at {place}"


def overlaps(
    groups: Mapping[str, Float[Tensor, " pairs"]], expected: float, title: str, largest: str = ""
) -> go.Figure:
    """One row of dots per group of head pairs, against the overlap that random spaces of the same size have. `largest`
    names the pair that overlaps most."""
    unit = "overlap of two spaces (mean squared cosine; 1 = the same)"
    rounded = {name: values.detach().round(decimals=3) for name, values in groups.items()}
    fig = kinds.strips(rounded, title, unit, box=True, mark={f"chance: {expected:.3f}": expected}, form=".3f")
    if not fig.data:
        return fig
    fig.update_traces(line={"color": TEXT, "width": 1})  # boxes behind dots of the same colour would not be seen
    if largest:
        row = max(rounded, key=lambda name: rounded[name].max().item())
        at = {"x": rounded[row].max().item(), "y": row, "xanchor": "center", "yshift": 16}
        fig.add_annotation(text=largest, showarrow=False, **at)
    return fig.update_xaxes(rangemode="tozero")


def loss_by_position(losses: Float[Tensor, " positions"], length: int, title: str) -> go.Figure:
    """Loss of each token of a sequence that says the same `length` tokens twice."""
    curve = Curve(list(range(1, len(losses) + 1)), losses)
    hover, x = "token %{x}: %{y:.2f} nats", "position in the sequence (tokens)"
    fig = kinds.lines({"loss": curve}, title, x, "loss (nats)", mode="lines", hover=hover, above=20)
    if not fig.data:
        return fig
    fig.add_vrect(x0=length + 0.5, x1=2 * length + 0.5, fillcolor=PALETTE[1], opacity=0.15, line_width=0)
    for at, text in ((length / 2, "first time"), (1.5 * length, "again")):
        fig.add_annotation(x=at, y=1, yref="paper", yanchor="bottom", text=text, showarrow=False)
    return fig.update_yaxes(rangemode="tozero")


def head_maps(scores: Mapping[str, Float[Tensor, "layers heads"]], title: str) -> go.Figure:
    """One map per score: layers down, heads across, the value in every cell."""
    return kinds.heat(
        scores,
        title,
        "head",
        "layer",
        unit="score",
        limit=1,
        written=lambda value: f"{value:.2f}".removeprefix("0")[:3] if value >= 0.095 else "",  # a cell is narrow
        hover="layer %{y} head %{x}: %{z:.2f}",
    )


def knockouts(
    losses: Mapping[str, float],
    controls: Float[Tensor, " draws"],
    title: str,
    others: str = "without as many others",
) -> go.Figure:
    """Loss on a repetition: one bar per model, and the mean of the controls with a circle for each random draw.

    The losses are written above the bars: one may be so small that its bar cannot be seen."""
    others = f"{others} ({len(controls)} draws)"
    values = {**losses, others: controls.mean().item()}
    colours = [PALETTE[6], *PALETTE[3 : 2 + len(losses)], PALETTE[5]]
    curve = Curve(list(values), list(values.values()), colours=colours)
    fig = kinds.bars({"loss": curve}, title, "", "loss on the repetition (nats)", hover="%{y:.2f} nats")
    if not fig.data:
        return fig
    for at, value in zip(fig.data[0].x, fig.data[0].y, strict=True):
        if value is None:
            continue
        beside = 28 if at == fig.data[0].x[-1] else 0  # of the circles
        fig.add_annotation(x=at, y=value, text=f"{value:.2g}", showarrow=False, yshift=10, xshift=beside)
    fig.add_box(  # of which only the points are drawn, beside each other: several draws may have the same loss
        x=[fig.data[0].x[-1]] * len(controls),
        y=numbers(controls),
        boxpoints="all",
        jitter=0.8,
        pointpos=0,
        hoveron="points",
        line={"color": NO_FILL},
        fillcolor=NO_FILL,
        marker={"color": TEXT, "size": 7, "symbol": "circle-open"},
        hovertemplate="one random draw: %{y:.2f} nats<extra></extra>",
        showlegend=False,
    )
    return fig.update_yaxes(rangemode="tozero")
