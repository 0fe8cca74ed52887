"""Figures of notebook 03: words of neurons, arithmetic, special axes, dictionaries, the hierarchy, two wheels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import empty, levels, nothing, panels
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import Look, looks
from sae_tutorial.figures.style import PALETTE, SEQUENTIAL
from sae_tutorial.figures.text import numbers

TWILIGHT = "Twilight"  # cyclic: an angle of −π and one of π are the same place


def word_histograms(counts: Mapping[str, Float[Tensor, " neurons"]], chance: float, title: str) -> go.Figure:
    """How many different words each neuron's places hold, one histogram per way to choose the places."""
    x, mark = "effective number of different words at ten places", {"places by lot": chance}
    hover = "%{x:.2f} words: %{y} neurons"
    return kinds.histogram(counts, title, x, "neurons (bins of 0.25)", bins=(0.875, 0.25), mark=mark, hover=hover)


def hit_rates(rates: Mapping[str, Mapping[str, float]], title: str) -> go.Figure:
    """Grouped bars: for each relation the share of right answers, one colour per way to answer."""
    ways = next(iter(rates.values()), {})
    groups = {way: Curve(list(rates), [row[way] for row in rates.values()]) for way in ways}
    fig = kinds.bars(groups, title, "relation", "share of questions answered right", hover="%{x}: %{y:.0%}")
    return fig.update_yaxes(range=[0, 1], tickformat=".0%")


def number_line(
    truth: Sequence[float], panels: Mapping[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]], title: str
) -> go.Figure:
    """One panel per question: what a linear map of held-out embeddings says, against what is true."""
    words = [f"{int(value):02d}" for value in truth]
    drawn = {name: {name: Curve(right, said, about=words, colours=truth)} for name, (right, said) in panels.items()}
    labels, hover = ("true value", "value read from the embedding"), "“%{customdata}”: says %{y:.1f}"
    return kinds.dots(drawn, title, *labels, hover=hover, diagonal=True).update_layout(showlegend=False)


def kurtosis_boxes(kurtosis: Mapping[str, Float[Tensor, " coordinates"]], title: str) -> go.Figure:
    """One box per basis: the kurtosis of its coordinates, on a log axis, with the Gaussian's 3 as a line."""
    x, mark = "kurtosis E[z⁴] of one coordinate (log scale)", {"Gaussian: 3": 3}
    return kinds.strips(kurtosis, title, x, box=True, points=False, mark=mark, ticks=[2, 3, 5, 10, 30, 100, 300])


def explained_curves(
    curves: Mapping[str, Float[Tensor, " steps"]], level: float, level_name: str, title: str, dashed: Sequence[str] = ()
) -> go.Figure:
    """Share of variance explained against the number of directions per token, from 1 on; one line per dictionary."""
    found = {n: one._replace(dash="dash" if n in dashed else one.dash) for n, one in looks(curves).items()}
    drawn = {n: Curve(list(range(1, len(curve))), curve[1:], look=found[n]) for n, curve in curves.items()}
    labels = "directions used per token (log scale)", "variance explained, held-out tokens"
    how: dict[str, Any] = {
        "mode": "lines",
        "log": "x",
        "ticks": [1, 2, 4, 8, 16, 32, 64],
        "hover": "%{x} per token: %{y:.1%}",
    }
    fig = kinds.lines(drawn, title, *labels, **how, height=430)
    if fig.data:
        levels(fig, {level_name: level}, end=0.62)
    return fig.update_yaxes(range=[0, 1], tickformat=".0%")


def words_by_dictionary(counts: Mapping[str, Float[Tensor, " directions"]], chance: float, title: str) -> go.Figure:
    """One box per dictionary: the effective number of words that its directions answer to."""
    x, mark = "effective number of words among the ten that a direction answers to", {"words by lot": chance}
    return kinds.strips(counts, title, x, box=True, points=False, mark=mark)


def staircase(
    scores: Float[Tensor, "representations rungs"],
    representations: Sequence[str],
    rungs: Sequence[str],
    climbed: Sequence[int],
    title: str,
) -> go.Figure:
    """Every representation's measurement on every rung; a line marks how far each was built to climb."""
    labels = "rung, measured", "representation"
    fig = kinds.heat({"": scores}, title, *labels, unit="measured", limit=1, written=".2f", cell=46)
    if not fig.data:
        return fig
    steps = [(rung - 0.5, row + half) for row, rung in enumerate(climbed) for half in (-0.5, 0.5)]
    x, y = zip(*steps)
    fig.update_traces(x=list(range(len(rungs))), y=list(range(len(representations))))
    fig.add_scatter(x=x, y=y, mode="lines", line={"color": PALETTE[3], "width": 5}, hoverinfo="skip")
    fig.update_xaxes(type="linear", tickvals=list(range(len(rungs))), ticktext=list(rungs))
    return fig.update_yaxes(type="linear", tickvals=list(range(len(representations))), ticktext=list(representations))


def coloured_by(
    angles: Float[Tensor, "points 2"], values: Mapping[str, Float[Tensor, " points"]], cyclic: Sequence[str], title: str
) -> go.Figure:
    """The same points, laid out by their two angles, once for every function and coloured by its values."""
    if nothing(angles, values):
        return empty(title)
    fig, places = panels(list(values), title, "angle u (rad)", "angle v (rad)", height=300, gap=0.03)
    for place, (name, value) in zip(places, values.items(), strict=True):
        dots = go.Scattergl if len(value) > 5000 else go.Scatter
        scale = TWILIGHT if name in cyclic else SEQUENTIAL
        points = dots(
            x=numbers(angles[:, 0], 3),
            y=numbers(angles[:, 1], 3),
            mode="markers",
            marker={"color": numbers(value, 3), "colorscale": scale, "size": 4},
            hovertemplate=name + ": %{marker.color:.2f}<extra></extra>",
        )
        fig.add_trace(points, **place)
    ticks = {"tickvals": [-np.pi, 0, np.pi], "ticktext": ["−π", "0", "π"], "range": [-3.3, 3.3], "showgrid": False}
    return fig.update_xaxes(**ticks).update_yaxes(**ticks).update_layout(showlegend=False)


def lasso_path(
    penalties: Sequence[float],
    lengths: Float[Tensor, "penalties functions"],
    names: Sequence[str],
    shown: Sequence[str],
    title: str,
) -> go.Figure:
    """Each function's use along the path, from the penalty that allows none to small ones; `shown` ones in colour."""
    order = sorted(range(len(names)), key=lambda j: names[j] in shown)  # coloured lines lie on top
    others = [names[j] for j in order if names[j] not in shown]
    curves = {}
    for j in order:
        place = list(shown).index(names[j]) if names[j] in shown else None
        look = Look(PALETTE[6]) if place is None else Look(PALETTE[place], "dash" if place % 2 else "solid")
        name = names[j] if place is not None else "distractors" if names[j] == others[0] else f"_{names[j]}"
        curves[name] = Curve(penalties, lengths[:, j], about=[names[j]] * len(penalties), look=look)
    labels = "penalty λ, as a share of the largest useful one (log scale)", "use of a function, ‖B<sub>·j·</sub>‖ / √N"
    hover = "%{customdata}: %{y:.2f} at λ = %{x:.3f} of the largest"
    fig = kinds.lines(curves, title, *labels, mode="lines", log="x", ticks=[1, 0.3, 0.1, 0.03, 0.01], hover=hover)
    for trace in fig.data[len(others) :]:
        trace.line.width = 4
    return fig.update_xaxes(autorange="reversed")
