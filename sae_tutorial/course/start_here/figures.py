"""Figures of notebook 00: whether it is the rule that a neuron answers to one thing."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.style import PALETTE


def words_per_neuron(
    neurons: Float[Tensor, " neurons"], marks: Mapping[str, float], title: str, bins: float = 0.25
) -> go.Figure:
    """Histogram over neurons of the effective number of words that they answer to, with a line for each of `marks`.

    Neurons below two words have a colour of their own, named in the legend: they are what the reader guessed.
    """
    x = "effective number of different words among the ten that a neuron answers to most"
    hover = "%{x:.2f} words: %{y} neurons"
    fig = kinds.histogram({"": neurons}, title, x, "neurons", bins=(0.75, bins), mark=dict(marks), hover=hover)
    if not fig.data:
        return fig
    fig.update_layout(height=fig.layout.height + 30, margin_t=fig.layout.margin.t + 30)
    fig.update_traces(marker_color=[PALETTE[3] if middle < 2 else PALETTE[0] for middle in fig.data[0].x])
    fig.update_shapes(line_dash="dash")
    order = sorted(marks.values())
    for note in fig.layout.annotations:  # the names of neighbours at three heights, so that no two of them meet
        rank = order.index(note.x)
        note.update(xanchor="left" if note.x == order[-1] else "right", yshift=15 * (rank % 3))
    for name, colour in {"two words or more": PALETTE[0], "fewer than two": PALETTE[3]}.items():
        fig.add_bar(x=[None], y=[None], name=name, marker_color=colour)
    return fig.update_layout(showlegend=True).update_traces(showlegend=False, selector=0)
