"""A text, and what an SAE leaves out at each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.evaluation.dark_matter import ErrorParts, reconstructed
from sae_tutorial.figures.feature_report import words_of
from sae_tutorial.figures.kinds import Curve, bars
from sae_tutorial.figures.looks import BLUE, ORANGE
from sae_tutorial.figures.text import label

LONGEST, BAR = 40, 260  # tokens, px of the longest bar


@torch.no_grad()
def parts_of_text(
    sae: Any, model: Any, A: Float[Tensor, "d d"], text: str, spread: float
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The words of a text, and the squared lengths of the error and of its nonlinear part at each, over `spread`. At
    one token the second may be the larger: the two parts are at right angles on average only."""
    ids = model.to_tokens(text, truncate=False)[:, : LONGEST + 1]
    with read_hook(model, str(sae.hook_name)) as read:
        x = read(ids)[0, 1:].float()
    parts = ErrorParts(x, reconstructed(sae, x), A)
    named = {"error": parts.error, "nonlinear": parts.nonlinear}
    return words_of(model)(ids[0, 1:].tolist()), {n: (p.square().sum(1) / spread).numpy() for n, p in named.items()}


def error_viewer(
    sae: Any, model: Any, A: Float[Tensor, "d d"], spread: float, text: str = "The old king gave his crown to a fish."
) -> Any:
    """Type a text, and see what is left out at each token, and how much of it is nonlinear, as shares of the variance.

    Returns an ipywidgets box: a line for text, and a table of bars.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Text", continuous_update=False, layout=WIDE)
    table = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        table.value = as_html(*parts_of_text(sae, model, A, sentence.value, spread))

    def still() -> go.Figure:
        words, sizes = parts_of_text(sae, model, A, sentence.value, spread)
        keys = [f"{i} {label(word)}" for i, word in enumerate(words, 1)]
        title = f"Most is left out at “{words[int(sizes['error'].argmax())].strip()}”"
        groups = {"all of the error": Curve(keys, sizes["error"])}
        groups["nonlinear error"] = Curve(keys, sizes["nonlinear"])
        return bars(groups, title, "token", "squared length, share of the variance")

    sentence.observe(show, names="value")
    show()
    return with_picture([sentence, table], still)


def as_html(words: Sequence[str], sizes: dict[str, np.ndarray]) -> str:
    """A row for each token: the word, bars for the error and for its nonlinear part, and the error in percent."""
    if not words:
        return "<p>Type a text.</p>"
    scale = BAR / max(float(sizes["error"].max()), float(sizes["nonlinear"].max()), 1e-9)
    rows = []
    for word, error, rest in zip(words, sizes["error"], sizes["nonlinear"], strict=True):
        strips = "".join(
            f'<div style="height:6px;width:{scale * value:.0f}px;background:{colour}"></div>'
            for value, colour in ((error, BLUE), (rest, ORANGE))
        )
        shown = escape(word.strip() or repr(word)[1:-1])
        rows.append(f"<tr><td>{shown}</td><td>{strips}</td><td>{error:.1%}</td></tr>")
    head = "<tr><th>token</th><th>error (blue), nonlinear error (orange)</th><th>left out</th></tr>"
    return f'<table style="font-size:12px">{head}{"".join(rows)}</table>'
