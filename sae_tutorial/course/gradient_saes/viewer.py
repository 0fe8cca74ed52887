"""A text, and which features of a token would be exchanged if the gradient had a say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
import torch
from torch import Tensor

from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.course.gradient_saes import study
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.figures.feature_report import words_of
from sae_tutorial.figures.kinds import Curve, dots
from sae_tutorial.figures.looks import BLUE, ORANGE, Look
from sae_tutorial.figures.text import label

SHOWN = 12  # features in the table


@torch.no_grad()
def tables(text: study.Text, sae: SparseAutoencoder) -> tuple[Tensor, Tensor]:
    """Affinities and sensitivities at each position of a text of one row, (positions, F) each."""
    with torch.enable_grad():
        gradients = text.gradients()
    return sae.affinities(text.x), study.in_units(gradients, text) @ sae.W_dec.T


def by_either(
    z: Tensor, sensitivity: Tensor, k: int, position: int, beta: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one position of these tables, (F,) each: affinity, sensitivity, and whether either way chooses it."""
    here = slice(position, position + 1)
    by_z, by_score = (study.chosen(z[here], sensitivity[here], k, one)[0] > 0 for one in (0.0, beta))
    return z[position], sensitivity[position].abs(), by_z, by_score


def choice_viewer(
    sae: SparseAutoencoder, model: Any, text: str = "Tom gave the big red ball to his sister, and she smiled."
) -> Any:
    """Type a text, choose a token and β, and see which features enter and which leave.

    Returns an ipywidgets box: a line for text, sliders for the token and for β, and a table.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Text", continuous_update=False, layout=WIDE)
    token = ipywidgets.IntSlider(4, 1, 12, description="Token")
    beta = ipywidgets.FloatSlider(1.0, min=0.0, max=8.0, step=0.25, description="β")
    table = ipywidgets.HTML()
    read: dict[str, Any] = {}

    def begin(change: Any = None) -> None:
        ids = model.to_tokens(sentence.value, truncate=False)
        read["words"] = words_of(model)(ids[0].tolist())
        if len(read["words"]) > 2:
            read["tables"] = tables(study.Text(model, str(sae.hook_name), ids), sae)
        token.max = max(1, ids.shape[1] - 2)  # the last token has no next one, and so no loss
        show()

    def at_sliders() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, sensitivity = read["tables"]
        return by_either(z, sensitivity, int(sae.config.k or 0), token.value, beta.value)

    def show(change: Any = None) -> None:
        if len(read["words"]) < 3:
            table.value = "<p>Type two words or more: a gradient needs a next token.</p>"
            return
        table.value = as_html(read["words"], token.value, *at_sliders())

    def still() -> go.Figure:
        z, sensitivity, by_z, by_score = at_sliders()
        groups = {"in both": by_z & by_score, "leaves": by_z & ~by_score, "enters": ~by_z & by_score}
        colours = {"in both": None, "leaves": Look(BLUE, marker="x-open"), "enters": Look(ORANGE, marker="diamond")}
        curves = {
            name: Curve(z[of].tolist(), sensitivity[of].tolist(), look=colours[name])
            for name, of in groups.items()
            if of.any()
        }
        word = label(read["words"][token.value])
        title = f"At “{word.strip()}” with β = {beta.value:g}, {int((by_z & ~by_score).sum())} features are exchanged"
        return dots(curves, title, "affinity z", "sensitivity |W_dec g|")

    sentence.observe(begin, names="value")
    for slider in (token, beta):
        slider.observe(show, names="value")
    begin()
    return with_picture([sentence, token, beta, table], still)


def as_html(words: Sequence[str], position: int, z: Tensor, sensitivity: Tensor, by_z: Tensor, by_score: Tensor) -> str:
    """The text with its token marked, and the features that leave and enter, the largest affinities first."""
    marked = [f"<b>{escape(word)}</b>" if i == position else escape(word) for i, word in enumerate(words) if i]
    n = int((by_z & ~by_score).sum())
    said = f"<p>{''.join(marked)}</p><p>{n} of {int(by_z.sum())} features are exchanged.</p>"
    rows = []
    for name, of in (("leaves", by_z & ~by_score), ("enters", by_score & ~by_z)):
        features = of.nonzero()[:, 0]
        for f in features[z[features].argsort(descending=True)][:SHOWN].tolist():
            rows.append(f"<tr><td>{f}</td><td>{z[f]:.2f}</td><td>{sensitivity[f]:.2f}</td><td>{name}</td></tr>")
    head = "<tr><th>feature</th><th>affinity z</th><th>|W<sub>dec</sub> g|</th><th></th></tr>"
    return said + (f'<table style="font-size:12px">{head}{"".join(rows)}</table>' if rows else "")
