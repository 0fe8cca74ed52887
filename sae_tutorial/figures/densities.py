"""Figures of densities: density against rank, laws beside data, and residuals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import Look, looks
from sae_tutorial.figures.style import TEXT

RANK = "rank (1 = most frequent)"
DENSITY = "density (share of tokens)"
POINTS = 120  # of a curve: every rank at the head, then evenly on the logarithmic axis
HOVER = "rank %{x:,}: %{y:.3~g}"


def thinned(n_ranks: int) -> np.ndarray:
    """Ranks, counted from 1, that are enough to draw a curve of `n_ranks`; none of none."""
    return np.unique(np.geomspace(1, n_ranks, POINTS).round().astype(int)) if n_ranks else np.zeros(0, dtype=int)


def rank_density(
    curves: Mapping[str, Float[np.ndarray, " features"]],
    title: str,
    *,
    laws: Mapping[str, Float[np.ndarray, " ranks"]] | None = None,
    middle: tuple[int, int] | None = None,
    floor: float | None = None,
    x: str = RANK,
    y: str = DENSITY,
) -> go.Figure:
    """Values in falling order on log axes, a line for each name. Tensors do as well.

    `laws` hold their values at ranks 1, 2, … and are drawn dashed; one that has the name of a curve takes its colour.
    `middle` marks ranks by a band. Values of 0 have no place on a log axis: they are left out, or, with a `floor`,
    drawn there, and the legend says how many of them there are.
    """
    found, drawn = looks(curves), {}
    for name, values in curves.items():
        ordered = np.sort(np.asarray(values, dtype=float))[::-1]
        dead = f": {np.mean(ordered == 0):.1%} dead" if floor else ""
        ordered = np.maximum(ordered, floor) if floor else ordered[ordered > 0]
        drawn[f"{name}{dead}"] = _curve(ordered, found[name]._replace(dash="solid") if laws else found[name])
    for place, (name, values) in enumerate((laws or {}).items()):
        own = name in curves
        dash = "dash" if own else ("dash", "dot", "dashdot")[place % 3]
        line = Look(found[name].colour if own else TEXT, dash)
        drawn[f"{name}: law" if own else name] = _curve(np.asarray(values, dtype=float), line)
    level = {"never fired": floor} if floor else {}
    fig = kinds.lines(drawn, title, x, y, mode="lines", log="xy", hover=HOVER, level=level, height=430)
    if middle is not None and fig.data:
        fig.add_vrect(*middle, fillcolor=TEXT, opacity=0.12, line_width=0, layer="below")
    return fig


def residuals(
    curves: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
    title: str,
    *,
    band: tuple[str, int, int] | None = None,
) -> go.Figure:
    """Density divided by what a law says, along the ranks: name -> (falling density, law at its ranks). Ticks are
    factors of two. `band` marks ranks: (what they are, first, last)."""
    drawn = {name: _curve(np.asarray(density) / np.asarray(law)) for name, (density, law) in curves.items()}
    hover = "rank %{x:,}: %{y:.2f} × the law"
    above = 18 if band else 0
    how: dict[str, Any] = {"mode": "lines", "log": "xy", "hover": hover, "level": {"_law": 1}, "above": above}
    fig = kinds.lines(drawn, title, RANK, "density ÷ law", **how)
    if not fig.data:
        return fig
    ends = np.log2([float(edge(curve.y)) for curve in drawn.values() for edge in (np.min, np.max)])
    powers = range(math.floor(min(ends.min(), -1)), math.ceil(max(ends.max(), 1)) + 1)
    names = [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    fig.update_yaxes(tickvals=[2.0**power for power in powers], ticktext=names)
    if band is not None:
        look = {"fillcolor": TEXT, "opacity": 0.12, "line_width": 0, "layer": "below"}
        fig.add_vrect(band[1], band[2], **look)
        middle = (math.log10(band[1]) + math.log10(band[2])) / 2
        fig.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", text=band[0], showarrow=False)
    return fig


def _curve(ordered: np.ndarray, look: Look | None = None) -> Curve:
    ranks = thinned(len(ordered))
    return Curve(ranks, ordered[ranks - 1], look=look)
