"""Figures of notebook 00: what one neuron answers to, and whether that is the rule."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures.style import PALETTE, TEXT, finish
from sae_tutorial.figures.text import label, on


def neuron_contexts(contexts: Sequence[Context], title: str) -> go.Figure:
    """One bar per place in the text: how strongly the neuron answers, coloured by token.

    The text before, and the token in bold, stand left of the bar; the text goes on inside it, or behind it where
    the bar is shorter than a tenth of the longest.
    """
    fig = go.Figure()
    tokens = list(dict.fromkeys(context.token for context in contexts))
    longest = max(context.activation for context in contexts)
    room = 78 / longest  # characters that fit into a bar, per unit of activation
    short = [row for row, context in enumerate(contexts) if context.activation < 0.1 * longest]
    for index, token in enumerate(tokens):
        colour = PALETTE[index % len(PALETTE)]
        mine = [row for row, context in enumerate(contexts) if context.token == token]
        fig.add_bar(
            x=[round(contexts[row].activation, 3) for row in mine],
            y=mine,
            orientation="h",
            marker_color=colour,
            text=["" if row in short else after(contexts[row], int(room * contexts[row].activation)) for row in mine],
            textposition="inside",
            insidetextanchor="start",
            textangle=0,
            insidetextfont={"color": on(colour), "size": 12},
            customdata=[before(contexts[row]) + after(contexts[row]) for row in mine],
            hovertemplate="%{customdata}<br>activation %{x:.2f}<extra></extra>",
        )
    if short:  # behind the bar, and right of zero even where the bar goes left
        fig.add_scatter(
            x=[max(0.0, round(contexts[row].activation, 3)) for row in short],
            y=short,
            mode="text",
            text=[after(contexts[row]) for row in short],
            textposition="middle right",
            textfont={"color": TEXT, "size": 12},
            hoverinfo="skip",
        )
    finish(fig, title, "activation of the neuron (after GELU)", "")
    rows = list(range(len(contexts)))
    fig.update_yaxes(
        tickvals=rows,
        ticktext=[before(c) for c in contexts],
        autorange="reversed",
        showgrid=False,
        tickfont={"size": 12},
    )
    return fig.update_layout(
        width=860, height=140 + 24 * len(rows), showlegend=False, title={"x": 0.02, "xref": "container"}
    )


def before(context: Context, width: int = 40) -> str:
    """The words before the token, at most `width` characters of them, and the token in bold."""
    text = _one_line(context.before)
    if len(text) > width:
        text = "… " + text[-width:].partition(" ")[2]
    gap = " " if context.token.startswith(" ") or not context.before[-1:].strip() else ""
    return f"{_plain(text)}{gap}<b>{_plain(label(context.token.strip() or context.token))}</b>"


def after(context: Context, width: int = 40) -> str:
    """The words behind the token, cut between words to at most `width` characters."""
    text = _one_line(context.after)
    if len(text) > width:
        kept = text[: max(0, width - 2)].rpartition(" ")[0]
        text = f"{kept} …" if kept else ""
    return _plain(text)


def words_per_neuron(
    neurons: Float[Tensor, " neurons"], chance: float, shown: float, title: str, bins: float = 0.25
) -> go.Figure:
    """Histogram over neurons of the effective number of words that they answer to.

    `chance` marks what words drawn at random would give, `shown` the neuron of the figure before.
    """
    fig = go.Figure(
        go.Histogram(
            x=[round(value, 3) for value in neurons.tolist()],
            xbins={"start": 0.875, "size": bins},
            marker_color=PALETTE[0],
            hovertemplate="%{x} words: %{y} neurons<extra></extra>",
        )
    )
    marks = sorted([(chance, "random words", TEXT), (shown, "the neuron above", PALETTE[3])])
    for (x, text, colour), side in zip(marks, ("top left", "top right")):
        fig.add_vline(
            x=x,
            line={"color": colour, "dash": "dash"},
            annotation_text=text,
            annotation_position=side,
            annotation_font_color=colour,
            annotation_yanchor="bottom",
        )
    finish(fig, title, "effective number of different words among the ten that a neuron answers to most", "neurons")
    return fig.update_layout(bargap=0.06, margin={"t": 90})


def _one_line(text: str) -> str:
    """Without line breaks and broken characters, and with a bar where one story ends and another begins."""
    lead = " " if text[:1].isspace() else ""
    return lead + " ".join(text.replace("<|endoftext|>", " | ").replace("\ufffd", "").split())


def _plain(text: str) -> str:
    """Plotly reads a little HTML; text from a model is not meant as such."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
