"""Figures of notebook 03: words of neurons, arithmetic, special axes, dictionaries, the ladder of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import marks
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import BLUE, GREEN, SKY, Look
from sae_tutorial.figures.style import PALETTE


def word_histograms(counts: Mapping[str, Float[Tensor, " neurons"]], chance: float, title: str) -> go.Figure:
    """How many different words are at each neuron's positions, one histogram per way to choose the positions."""
    x, mark = "effective number of different words at ten positions", {"random positions": chance}
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
    x, y = "variance explained, held-out tokens", ""
    fig = kinds.bars(bars, title, x, y, lying=True, hover="%{y}: %{x:.0%}", height=440, above=18)
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
