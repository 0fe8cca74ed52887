"""Figures of notebook 03: neurons, arithmetic, special axes, dictionaries, the hierarchy, two wheels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.course.start_here.figures import after, before
from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT, finish
from sae_tutorial.figures.text import floats, on

TWILIGHT = "Twilight"  # cyclic: an angle of −π and one of π are the same place


def contexts_by_group(groups: Mapping[str, Sequence[Context]], title: str, x: str) -> go.Figure:
    """One bar per place in the text, coloured by group: as `start_here.neuron_contexts`, but for several sources.

    The text before, and the token in bold, stand left of the bar; the text goes on inside it, or behind a short one.
    """
    fig = go.Figure()
    longest = max(context.activation for contexts in groups.values() for context in contexts)
    labels: list[str] = []
    for index, (name, contexts) in enumerate(groups.items()):
        rows = list(range(len(labels), len(labels) + len(contexts)))
        labels += [before(context, width=34) for context in contexts]
        colour = PALETTE[index % len(PALETTE)]
        fig.add_bar(
            x=[round(context.activation, 3) for context in contexts],
            y=rows,
            orientation="h",
            name=name,
            marker_color=colour,
            text=[after(context, 34) for context in contexts],
            textposition=["inside" if context.activation > 0.5 * longest else "outside" for context in contexts],
            insidetextanchor="start",
            textangle=0,
            insidetextfont={"color": on(colour), "size": 12},
            outsidetextfont={"color": TEXT, "size": 12},
            hovertemplate="%{text}<br>%{x:.2f}<extra></extra>",
        )
    finish(fig, title, x, "")
    fig.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, autorange="reversed", showgrid=False, tickfont={"size": 12}
    )
    return fig.update_layout(
        width=860,
        height=190 + 23 * len(labels),
        title={"x": 0.02, "xref": "container"},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
        margin={"t": 110},
    )


def word_histograms(counts: Mapping[str, Float[Tensor, " neurons"]], chance: float, title: str) -> go.Figure:
    """How many different words each neuron's places hold, one histogram per way to choose the places."""
    fig = go.Figure()
    for index, (name, values) in enumerate(counts.items()):
        fig.add_histogram(
            x=floats(values, 3),
            xbins={"start": 0.875, "size": 0.25},
            name=name,
            marker_color=PALETTE[index],
            opacity=0.65,
            hovertemplate="%{x} words: %{y} neurons<extra></extra>",
        )
    line = {"color": TEXT, "dash": "dash"}
    fig.add_vline(x=chance, line=line, annotation_text="places by lot", annotation_position="top")
    finish(fig, title, "effective number of different words at ten places", "neurons (bins of 0.25)")
    return fig.update_layout(barmode="overlay", margin={"t": 90}, legend={"x": 1, "xanchor": "right", "y": 0.95})


def hit_rates(rates: Mapping[str, Mapping[str, float]], title: str) -> go.Figure:
    """Grouped bars: for each relation the share of right answers, one colour per way to answer."""
    fig = go.Figure()
    relations = list(rates)
    for index, way in enumerate(next(iter(rates.values()))):
        fig.add_bar(
            x=relations,
            y=[round(rates[relation][way], 4) for relation in relations],
            name=way,
            marker_color=PALETTE[index],
            hovertemplate="%{x}<br>" + way + ": %{y:.0%}<extra></extra>",
        )
    finish(fig, title, "relation", "share of questions answered right")
    fig.update_yaxes(range=[0, 1], tickformat=".0%")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return fig.update_layout(width=820, legend=legend, margin={"t": 110})


def number_line(
    truth: Sequence[float], panels: Mapping[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]], title: str
) -> go.Figure:
    """One panel per question: what a linear map of held-out embeddings says, against what is true."""
    fig = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.1)
    for column, (right, said) in enumerate(panels.values(), start=1):
        low, high = float(right.min()), float(right.max())
        diagonal = {"x": [low, high], "y": [low, high], "mode": "lines", "line": {"color": TEXT, "dash": "dot"}}
        fig.add_trace(go.Scatter(**diagonal, hoverinfo="skip"), 1, column)
        marker = {"color": list(truth), "colorscale": SEQUENTIAL, "size": 8, "line": {"color": TEXT, "width": 0.5}}
        dots = go.Scatter(
            x=floats(right),
            y=floats(said, 2),
            mode="markers",
            marker=marker,
            text=[f"{int(value):02d}" for value in truth],
            hovertemplate="“%{text}”: says %{y:.1f}<extra></extra>",
        )
        fig.add_trace(dots, 1, column)
        fig.update_xaxes(title_text="true value", row=1, col=column)
    finish(fig, title, "true value", "value read from the embedding")
    fig.update_annotations(font_size=13)
    return fig.update_layout(showlegend=False, width=790, margin={"t": 90})


def kurtosis_boxes(kurtosis: Mapping[str, Float[Tensor, " coordinates"]], title: str) -> go.Figure:
    """One box per basis: the kurtosis of its coordinates, on a log axis, with the Gaussian's 3 as a line."""
    fig = go.Figure()
    for index, (name, values) in enumerate(kurtosis.items()):
        fig.add_box(
            x=floats(values, 2),
            name=name,
            marker={"color": PALETTE[index], "size": 3},
            line_width=1.5,
            hoverinfo="x",
        )
    fig.add_vline(x=3, line={"color": TEXT, "dash": "dash"})
    place = {"x": math.log10(3), "y": 1, "yref": "y domain", "yanchor": "bottom", "showarrow": False}  # on a log axis
    fig.add_annotation(text="Gaussian: 3", **place)
    finish(fig, title, "kurtosis E[z⁴] of one coordinate (log scale)", "")
    fig.update_xaxes(type="log", tickvals=[2, 3, 5, 10, 30, 100, 300])
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(showlegend=False, margin={"t": 95}, height=340)


def explained_curves(
    curves: Mapping[str, Float[Tensor, " steps"]], level: float, level_name: str, title: str, dashed: Sequence[str] = ()
) -> go.Figure:
    """Share of variance explained against the number of directions per token, from 1 on; one line per dictionary."""
    fig = go.Figure()
    for index, (name, curve) in enumerate(curves.items()):
        fig.add_scatter(
            x=list(range(1, len(curve))),
            y=floats(curve[1:]),
            mode="lines",
            name=name,
            line={"color": PALETTE[index % len(PALETTE)], "width": 2.5, "dash": "dash" if name in dashed else "solid"},
            hovertemplate=name + "<br>%{x} per token: %{y:.1%}<extra></extra>",
        )
    fig.add_hline(y=level, line={"color": TEXT, "dash": "dot"})
    note = {"x": math.log10(4), "y": level, "yanchor": "bottom", "showarrow": False}  # a log axis wants log10
    fig.add_annotation(text=level_name, font_size=12, **note)
    finish(fig, title, "directions used per token (log scale)", "variance explained, held-out tokens")
    fig.update_xaxes(type="log", tickvals=[1, 2, 4, 8, 16, 32, 64])
    fig.update_yaxes(range=[0, 1], tickformat=".0%")
    return fig.update_layout(width=820, height=430)


def words_by_dictionary(counts: Mapping[str, Float[Tensor, " directions"]], chance: float, title: str) -> go.Figure:
    """One box per dictionary: the effective number of words that its directions answer to."""
    fig = go.Figure()
    for index, (name, values) in enumerate(counts.items()):
        fig.add_box(
            x=floats(values, 2), name=name, marker={"color": PALETTE[index % len(PALETTE)], "size": 3}, hoverinfo="x"
        )
    line = {"color": TEXT, "dash": "dash"}
    fig.add_vline(x=chance, line=line, annotation_text="words by lot", annotation_position="top")
    finish(fig, title, "effective number of words among the ten that a direction answers to", "")
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(showlegend=False, margin={"t": 95}, height=400)


def staircase(
    scores: Float[Tensor, "representations rungs"],
    representations: Sequence[str],
    rungs: Sequence[str],
    climbed: Sequence[int],
    title: str,
) -> go.Figure:
    """Every representation's measurement on every rung; a line marks how far each was built to climb."""
    text = [[f"{value:.2f}" for value in row] for row in scores.tolist()]
    bar = {"title": "measured", "outlinewidth": 0, "thickness": 14}
    heat = go.Heatmap(
        z=floats(scores, 3),
        x=list(range(len(rungs))),
        y=list(range(len(representations))),
        text=text,
        texttemplate="%{text}",
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        colorbar=bar,
        hovertemplate="%{text}<extra></extra>",
    )
    fig = go.Figure(heat)
    steps_x, steps_y = [], []
    for row, rung in enumerate(climbed):
        steps_x += [rung - 0.5, rung - 0.5]
        steps_y += [row - 0.5, row + 0.5]
    fig.add_scatter(x=steps_x, y=steps_y, mode="lines", line={"color": PALETTE[3], "width": 5}, hoverinfo="skip")
    finish(fig, title, "rung, measured", "representation")
    fig.update_xaxes(tickvals=list(range(len(rungs))), ticktext=list(rungs), showgrid=False, zeroline=False)
    names = list(representations)
    fig.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, autorange="reversed", showgrid=False, zeroline=False
    )
    return fig.update_layout(showlegend=False, height=400, margin={"t": 90})


def coloured_by(
    angles: Float[Tensor, "points 2"], values: Mapping[str, Float[Tensor, " points"]], cyclic: Sequence[str], title: str
) -> go.Figure:
    """The same points, laid out by their two angles, once for every function and coloured by its values."""
    fig = make_subplots(1, len(values), subplot_titles=list(values), horizontal_spacing=0.03)
    for column, (name, value) in enumerate(values.items(), start=1):
        marker = {"color": floats(value, 2), "colorscale": TWILIGHT if name in cyclic else SEQUENTIAL, "size": 4}
        dots = go.Scattergl if len(value) > 5000 else go.Scatter
        points = dots(
            x=floats(angles[:, 0], 2),
            y=floats(angles[:, 1], 2),
            mode="markers",
            marker=marker,
            hovertemplate=name + ": %{marker.color:.2f}<extra></extra>",
        )
        fig.add_trace(points, 1, column)
        fig.update_xaxes(title_text="angle u (rad)", row=1, col=column)
        if column > 1:
            fig.update_yaxes(showticklabels=False, ticks="", row=1, col=column)
    ticks = {"tickvals": [-np.pi, 0, np.pi], "ticktext": ["−π", "0", "π"], "range": [-3.3, 3.3], "showgrid": False}
    fig.update_xaxes(**ticks)
    fig.update_yaxes(**ticks)
    finish(fig, title, "angle u (rad)", "angle v (rad)")
    fig.update_annotations(font_size=13)
    return fig.update_layout(showlegend=False, width=860, height=320, margin={"t": 95})


def lasso_path(
    penalties: Sequence[float],
    lengths: Float[Tensor, "penalties functions"],
    names: Sequence[str],
    shown: Sequence[str],
    title: str,
) -> go.Figure:
    """Each function's use along the path, from the penalty that allows none to small ones; `shown` ones in colour."""
    fig = go.Figure()
    order = sorted(range(len(names)), key=lambda j: names[j] in shown)  # coloured lines lie on top
    for j in order:
        coloured = names[j] in shown
        colour = PALETTE[list(shown).index(names[j])] if coloured else PALETTE[6]
        width, dash = (
            (4, "dash" if coloured and list(shown).index(names[j]) % 2 else "solid") if coloured else (1.5, "solid")
        )
        fig.add_scatter(
            x=list(penalties),
            y=floats(lengths[:, j], 4),
            mode="lines",
            name=names[j] if coloured else "distractors",
            legendgroup=names[j] if coloured else "distractors",
            showlegend=coloured or j == order[0],
            line={"color": colour, "width": width, "dash": dash},
            hovertemplate=names[j] + ": %{y:.2f} at λ = %{x:.3f} of the largest<extra></extra>",
        )
    finish(
        fig,
        title,
        "penalty λ, as a share of the largest useful one (log scale)",
        "use of a function, ‖B<sub>·j·</sub>‖ / √N",
    )
    fig.update_xaxes(type="log", autorange="reversed", tickvals=[1, 0.3, 0.1, 0.03, 0.01])
    return fig.update_layout(width=790, legend={"traceorder": "reversed"})
