"""Figures of notebook 00: whether it is the rule that a neuron answers to one thing."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds


def words_per_neuron(
    neurons: Float[Tensor, " neurons"], marks: Mapping[str, float], title: str, bins: float = 0.25
) -> go.Figure:
    """Histogram over neurons of the effective number of words that they answer to, with a line for each of `marks`."""
    x = "effective number of different words among the ten that a neuron answers to most"
    hover = "%{x:.2f} words: %{y} neurons"
    fig = kinds.histogram({"": neurons}, title, x, "neurons", bins=(0.875, bins), mark=dict(marks), hover=hover)
    last = max(marks.values(), default=0.0)  # the largest stands right of its line, so that no two names meet
    fig.for_each_annotation(lambda note: note.update(xanchor="left" if note.x == last else "right"))
    return fig
