"""The contexts of a feature: places in a text, how strong the feature (or neuron) is there, and the words around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures.frame import NOTHING, empty
from sae_tutorial.figures.style import PALETTE, TEXT, WIDTH, finish
from sae_tutorial.figures.text import after, before, on, width_of

SIZE, BEFORE = 12, 30  # of the letters, px; and how many of them stand left of a bar
SILENT = "Nothing to draw: it is active at none of these places."


def feature_contexts(
    groups: Mapping[str, Sequence[Context]] | Sequence[Context], title: str, x: str, legend: str = ""
) -> go.Figure:
    """One bar for each place, coloured by group, groups in the order given; without groups, by token and unnamed.

    The text before, and the token in bold, stand left of the bar; the text goes on inside it, or beside a bar that
    is too short for it. `legend` says what the names of groups are.
    """
    named = isinstance(groups, Mapping)
    if not isinstance(groups, Mapping):
        tokens = dict.fromkeys(context.token for context in groups)
        groups = {token: [context for context in groups if context.token == token] for token in tokens}
    groups = {name: [c for c in contexts if math.isfinite(c.activation)] for name, contexts in groups.items()}
    places = [context for contexts in groups.values() for context in contexts]
    longest = max((abs(context.activation) for context in places), default=0)
    if longest == 0:
        return empty(title, SILENT if places else NOTHING)
    labels = [before(context, BEFORE) for context in places]
    room = (WIDTH - 50 - max(width_of(text, SIZE) for text in labels)) / longest  # px for each unit of activation
    fig = go.Figure(layout={"height": 110 + 24 * len(labels) + 30 * named, "bargap": 0.15})
    beside: list[tuple[int, Context]] = []
    start = 0
    for index, (name, contexts) in enumerate(groups.items()):
        colour = PALETTE[index % len(PALETTE)]
        inside = [int(room * max(context.activation, 0) / (0.53 * SIZE)) - 1 for context in contexts]  # letters
        beside += [(start + row, context) for row, context in enumerate(contexts) if inside[row] < 12]
        fig.add_bar(
            x=[round(context.activation, 3) for context in contexts],
            y=list(range(start, start + len(contexts))),
            orientation="h",
            name=name,
            marker_color=colour,
            text=[after(context, letters) if letters >= 12 else "" for context, letters in zip(contexts, inside)],
            textposition="inside",
            insidetextanchor="start",
            textangle=0,
            constraintext="none",
            insidetextfont={"color": on(colour), "size": SIZE},
            customdata=[before(context) + after(context) for context in contexts],
            hovertemplate="%{customdata}<br>%{x:.2f}" + (f"<extra>{name}</extra>" if named else "<extra></extra>"),
        )
        start += len(contexts)
    if beside:  # right of zero even where the bar goes left
        fig.add_scatter(
            x=[max(0.0, round(context.activation, 3)) for _, context in beside],
            y=[row for row, _ in beside],
            mode="text",
            text=[after(context, int((room * (longest - max(0, context.activation))) / 6.4)) for _, context in beside],
            textposition="middle right",
            textfont={"color": TEXT, "size": SIZE},
            hoverinfo="skip",
            showlegend=False,
        )
    finish(fig, title, x)
    fig.update_yaxes(tickvals=list(range(start)), ticktext=labels, autorange="reversed", showgrid=False)
    fig.update_yaxes(tickfont={"size": SIZE}, ticks="", ticklabelstandoff=6)
    return fig.update_layout(showlegend=named, legend={"title_text": legend, "traceorder": "normal"})
