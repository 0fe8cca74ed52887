"""Explorers made of ipywidgets. They draw plain HTML and SVG, so they work wherever ipywidgets do (JupyterLab, Colab).

A notebook always shows a figure beside a widget that needs no kernel.
"""

from __future__ import annotations

from html import escape
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.heads import attention_patterns

MAX_TOKENS = 40  # a longer sentence would not be readable


def attention_viewer(model: Any, text: str = "Once upon a time there was a little girl named Lily.") -> Any:
    """Type a sentence, choose a layer and a head, and see where each token looks.

    Returns an ipywidgets box: the sentence, a row with the two sliders, and the picture.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Sentence", continuous_update=False, layout={"width": "600px"})
    layer = ipywidgets.IntSlider(value=0, min=0, max=model.cfg.n_layers - 1, description="Layer")
    head = ipywidgets.IntSlider(value=0, min=0, max=model.cfg.n_heads - 1, description="Head")
    picture = ipywidgets.HTML()
    state: dict[str, Any] = {}

    def read(change: Any = None) -> None:
        ids = model.to_tokens(sentence.value)[:, :MAX_TOKENS]
        state["tokens"] = [model.tokenizer.decode([i]) for i in ids[0].tolist()]
        state["patterns"] = attention_patterns(model, ids)[:, 0]
        draw()

    def draw(change: Any = None) -> None:
        picture.value = pattern_svg(state["patterns"][layer.value, head.value], state["tokens"])

    sentence.observe(read, names="value")
    layer.observe(draw, names="value")
    head.observe(draw, names="value")
    read()
    return ipywidgets.VBox([sentence, ipywidgets.HBox([layer, head]), picture])


def pattern_svg(pattern: Float[Tensor, "positions positions"], tokens: list[str], cell: int = 18) -> str:
    """An attention pattern as SVG: rows take, columns are taken from; hover shows both tokens and the share.

    Raises ValueError if the pattern and the tokens disagree in length.
    """
    n = len(tokens)
    if tuple(pattern.shape) != (n, n):
        raise ValueError(f"pattern has shape {tuple(pattern.shape)}, but there are {n} tokens")
    names = [escape(token.replace("\n", "↵").strip() or "·") for token in tokens]
    left, top = 110, 110
    shapes = []
    for i, row in enumerate(torch.as_tensor(pattern).tolist()):
        y = top + i * cell
        shapes.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{names[i]}</text>')
        for j, share in enumerate(row[: i + 1]):
            shapes.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="#0072B2" '
                f'fill-opacity="{share:.2f}" stroke="#7F7F7F" stroke-opacity="0.25">'
                f"<title>{names[i]} takes {share:.0%} from {names[j]}</title></rect>"
            )
    for j, name in enumerate(names):
        x = left + j * cell + 12
        shapes.append(f'<text x="{x}" y="{top - 6}" transform="rotate(-60 {x} {top - 6})">{name}</text>')
    size = n * cell
    return (
        f'<svg width="{left + size + 60}" height="{top + size + 10}" font-family="sans-serif" font-size="12" '
        f'fill="#7F7F7F" role="img" aria-label="attention pattern">{"".join(shapes)}</svg>'
    )
