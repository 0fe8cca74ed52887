"""A text, and which features of a token would be exchanged if the gradient had a say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from torch import Tensor

from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.course.gradient_saes import study
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.figures.feature_report import words_of
from sae_tutorial.figures.kinds import Curve, dots
from sae_tutorial.figures.looks import BLUE, ORANGE, Look
from sae_tutorial.figures.text import label

SHOWN = 12  # features in the table


def by_either(
    text: study.Text, sae: SparseAutoencoder, position: int, beta: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one position of a text of one row, (F,) each: affinity, sensitivity, and whether either way chooses it."""
    k = int(sae.config.k or 32)
    z = study.affinities(sae, text.x[position : position + 1])
    sensitivity = study.in_units(text.gradients(), text)[position : position + 1] @ sae.W_dec.detach().T
    by_z, by_score = (study.chosen(z, sensitivity, k, one)[0] > 0 for one in (0.0, beta))
    return z[0], sensitivity[0].abs(), by_z, by_score


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
        read["text"] = study.Text(model, str(sae.hook_name), ids)
        read["words"] = words_of(model)(ids[0].tolist())
        token.max = max(1, ids.shape[1] - 2)  # the last token has no next one, and so no loss
        show()

    def show(change: Any = None) -> None:
        if read["text"].tokens.shape[1] < 3:
            table.value = "<p>Type two words or more: a gradient needs a next token.</p>"
            return
        table.value = as_html(read["words"], token.value, *by_either(read["text"], sae, token.value, beta.value))

    def still() -> go.Figure:
        z, sensitivity, by_z, by_score = by_either(read["text"], sae, token.value, beta.value)
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
