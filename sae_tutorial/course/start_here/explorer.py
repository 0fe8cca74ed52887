"""A viewer of notebook 00: choose neurons or features, type a number, and see its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.course.widgets import with_picture
from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.style import PALETTE

Kinds = Mapping[str, tuple[Float[Tensor, "words units"], Float[Tensor, " units"]]]


def word_viewer(shown: Kinds, words: Sequence[str], number: int = 0) -> Any:
    """See the ten words on which the mean activation of a neuron or feature is largest, and how many they count as.

    `shown`: name of a kind -> (mean by word, effective number of words); it begins with `number` of the first kind.
    Returns an ipywidgets box: kind and number in a row, and the page.
    """
    import ipywidgets

    kind = ipywidgets.ToggleButtons(options=list(shown), style={"button_width": "90px"})
    box = ipywidgets.BoundedIntText(value=number, min=0, max=_last(shown, kind.value), description="Number")
    page = ipywidgets.HTML()

    def draw(change: Any = None) -> None:
        page.value = words_html(*shown[kind.value], words, box.value)

    def switch(change: Any) -> None:
        box.max = _last(shown, kind.value)  # a number beyond it becomes the last
        draw()

    def still() -> go.Figure:
        means, effective = shown[kind.value]
        top, values = _top(means, words, box.value)
        title = f"The ten words of {kind.value} {box.value} count as {float(effective[box.value]):.1f}"
        return kinds.bars({"": Curve(top, values)}, title, "mean activation", "", lying=True, hover="%{y}: %{x:.2f}")

    kind.observe(switch, names="value")
    box.observe(draw, names="value")
    draw()
    return with_picture([ipywidgets.HBox([kind, box]), page], still)


def words_html(
    means: Float[Tensor, "words units"], effective: Float[Tensor, " units"], words: Sequence[str], number: int
) -> str:
    """Its ten words, a bar as long as the mean activation beside each; those only on which it is active at all."""
    top, values = _top(means, words, number)
    longest = max([*values, 1e-9])
    rows = []
    for word, value in zip(top, values):
        style = f"background:{PALETTE[0]};height:12px;width:{max(0, round(250 * value / longest))}px"
        rows.append(f'<td>{escape(word)}</td><td><div style="{style}"></div></td><td>{value:.2f}</td>')
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    few = len(top) < min(10, len(words))
    said = f"It is active on {len(top)} of our words." if few else f"Its ten words count as {effective[number]:.1f}."
    return f"<p>{said}</p><table>{table}</table>"


def _last(shown: Kinds, kind: str) -> int:
    return shown[kind][0].shape[1] - 1


def _top(means: Tensor, words: Sequence[str], number: int) -> tuple[list[str], list[float]]:
    """The ten words of one neuron or feature, and its means on them. A mean of 0 is no word: a feature has many."""
    top = means[:, number].topk(min(10, len(words)))
    found = [(words[i].strip(), value) for i, value in zip(top.indices.tolist(), top.values.tolist()) if value != 0]
    return [word for word, _ in found], [value for _, value in found]
