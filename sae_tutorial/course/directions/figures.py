"""Figures of notebook 03: words of neurons, arithmetic, special axes, dictionaries, the ladder of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import DASHES, marks
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import BLUE, GREEN, SKY, Look
from sae_tutorial.figures.style import PALETTE


def word_shares(
    counts: Mapping[str, Float[Tensor, " neurons"]], marks: Mapping[str, float], title: str, *, most: float = 8.0
) -> go.Figure:
    """Share of neurons with fewer than so many different words at their positions, a curve per way to choose them.

    "kind, way" names a curve: each kind has a colour, and each way a dash.
    """
    grid = [1 + 0.05 * i for i in range(round((most - 1) / 0.05) + 1)]
    kinds_of, ways = (list(dict.fromkeys(name.partition(", ")[part] for name in counts)) for part in (0, 2))
    curves = {}
    for name, n in counts.items():
        kind, _, way = name.partition(", ")
        look = Look(PALETTE[kinds_of.index(kind)], ("solid", *DASHES)[ways.index(way)])
        curves[name] = Curve(grid, [float((n < at).float().mean()) for at in grid], look=look)
    x, y = "effective number of different words", "share with fewer than that"
    fig = kinds.lines(curves, title, x, y, mode="lines", mark=marks, hover="%{y:.0%} have fewer than %{x:.2f}")
    return fig.update_yaxes(range=[0, 1.02], tickformat=".0%")


def hit_rates(rates: Mapping[str, Mapping[str, float]], title: str) -> go.Figure:
    """Grouped bars: for each relation the share of right answers, one colour per way to answer."""
    ways = next(iter(rates.values()), {})
    groups = {way: Curve(list(rates), [row[way] for row in rates.values()]) for way in ways}
    fig = kinds.bars(groups, title, "relation", "share of questions answered right", hover="%{x}: %{y:.0%}")
    return fig.update_yaxes(range=[0, 1], tickformat=".0%")


def number_line(
    truth: Sequence[float], panels: Mapping[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]], title: str
) -> go.Figure:
    """One panel per question, with axes of its own: what a linear map of held-out embeddings says, against the truth.

    A dashed line shows where the two are equal.
    """
    words, look = [f"{int(value):02d}" for value in truth], Look(BLUE)
    drawn = {name: {name: Curve(right, said, about=words, look=look)} for name, (right, said) in panels.items()}
    labels, hover = ("true value", ["value that is read"] * len(panels)), "“%{customdata}”: says %{y:.1f}"
    fig = kinds.dots(drawn, title, *labels, hover=hover, diagonal=True).update_layout(showlegend=False)
    if not fig.data:
        return fig
    for column, (right, _) in enumerate(panels.values(), 1):
        low, high = float(right.min()), float(right.max())
        fig.update_xaxes(range=[low - 0.06 * (high - low), high + 0.06 * (high - low)], col=column)
    return fig


def kurtosis_boxes(kurtosis: Mapping[str, Float[Tensor, " coordinates"]], title: str) -> go.Figure:
    """One box per basis: the kurtosis of its coordinates, on a log axis, with the Gaussian's 3 as a line."""
    x, mark = "kurtosis E[z⁴] of one coordinate (log scale)", {"Gaussian: 3": 3}
    return kinds.strips(kurtosis, title, x, box=True, points=False, mark=mark, ticks=[2, 3, 5, 10, 30, 100, 300])


def explained_bars(
    explained: Mapping[str, Mapping[int, float]], level: float, level_name: str, title: str
) -> go.Figure:
    """A row for each dictionary, one bar for each number of directions per token; an upright line at `level`."""
    counts = next(iter(explained.values()), {})
    shades = dict(zip(counts, (Look(SKY), Look(BLUE), Look(GREEN)), strict=False))
    bars = {
        f"{k} per token": Curve(list(explained), [row[k] for row in explained.values()], look=shades.get(k))
        for k in counts
    }
    x, y = "variance explained, held-out positions", ""
    fig = kinds.bars(bars, title, x, y, lying=True, hover="%{y}: %{x:.0%}", height=160 + 40 * len(explained), above=18)
    if fig.data:
        marks(fig, {level_name: level})
        fig.update_xaxes(range=[0, 1], tickformat=".0%")
    return fig


def staircase(
    scores: Float[Tensor, "representations rungs"],
    representations: Sequence[str],
    rungs: Sequence[str],
    climbed: Sequence[int],
    title: str,
) -> go.Figure:
    """Every representation's measurement on every rung; a line marks how far each was built to climb."""
    labels = "property", "representation"
    fig = kinds.heat({"": scores}, title, *labels, unit="measured", limit=1, written=".2f", cell=46)
    if not fig.data:
        return fig
    steps = [(rung - 0.5, row + half) for row, rung in enumerate(climbed) for half in (-0.5, 0.5)]
    x, y = zip(*steps)
    fig.update_traces(x=list(range(len(rungs))), y=list(range(len(representations))))
    fig.add_scatter(x=x, y=y, mode="lines", line={"color": PALETTE[3], "width": 5}, hoverinfo="skip")
    fig.update_xaxes(type="linear", tickvals=list(range(len(rungs))), ticktext=list(rungs))
    return fig.update_yaxes(type="linear", tickvals=list(range(len(representations))), ticktext=list(representations))
