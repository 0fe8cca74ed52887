"""A text box of notebook 00: type the number of a neuron, and see its words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.course.widgets import with_picture
from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.style import PALETTE


def neuron_viewer(
    means: Float[Tensor, "words neurons"], words: Sequence[str], effective: Float[Tensor, " neurons"], neuron: int = 0
) -> Any:
    """Type a neuron, and see the ten words on which its mean activation is largest, and how many words they count as.

    Returns an ipywidgets box: the number, and its page.
    """
    import ipywidgets

    number = ipywidgets.BoundedIntText(value=neuron, min=0, max=means.shape[1] - 1, description="Neuron")
    page = ipywidgets.HTML()

    def draw(change: Any = None) -> None:
        page.value = words_html(means, words, effective, number.value)

    def still() -> go.Figure:
        top = means[:, number.value].topk(min(10, len(words)))
        title = f"The ten words of neuron {number.value} count as {float(effective[number.value]):.1f}"
        found = {"": Curve([words[i].strip() for i in top.indices.tolist()], top.values)}
        return kinds.bars(found, title, "mean activation", "", lying=True, hover="%{y}: %{x:.2f}")

    number.observe(draw, names="value")
    draw()
    return with_picture([number, page], still)


def words_html(
    means: Float[Tensor, "words neurons"], words: Sequence[str], effective: Float[Tensor, " neurons"], neuron: int
) -> str:
    """A neuron's ten words, a bar as long as its mean activation beside each."""
    top, rows = means[:, neuron].topk(min(10, len(words))), []
    longest = max(float(top.values[0]), 1e-9)
    for i, value in zip(top.indices.tolist(), top.values.tolist()):
        style = f"background:{PALETTE[0]};height:12px;width:{max(0, round(250 * value / longest))}px"
        rows.append(f'<td>{escape(words[i].strip())}</td><td><div style="{style}"></div></td><td>{value:.2f}</td>')
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<p>Its ten words count as {float(effective[neuron]):.1f}.</p><table>{table}</table>"
