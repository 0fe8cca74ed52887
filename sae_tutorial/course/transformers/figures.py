"""Figures of notebook 01: predictions, parameters, the residual stream, the logit lens, sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT, finish
from sae_tutorial.figures.text import floats, label, on


def next_tokens(tokens: Sequence[str], probabilities: Float[Tensor, " k"], title: str) -> go.Figure:
    """Horizontal bars: the likeliest next tokens, the likeliest on top."""
    names = [label(token) for token in tokens]
    bars = go.Bar(
        x=floats(probabilities),
        y=names,
        orientation="h",
        marker_color=PALETTE[0],
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    fig = finish(go.Figure(bars), title, "probability of being next", "token (· is a space)")
    fig.update_xaxes(tickformat=".0%", rangemode="tozero")
    return fig.update_yaxes(autorange="reversed", type="category")


def parameter_shares(groups: Mapping[str, Mapping[str, int]], title: str) -> go.Figure:
    """One stacked bar per model: the share of its parameters in each group; counts on hover."""
    models = list(groups)
    fig = go.Figure()
    for index, group in enumerate(next(iter(groups.values()))):
        counts = [groups[model][group] for model in models]
        shares = [count / sum(groups[model].values()) for count, model in zip(counts, models)]
        fig.add_bar(
            x=shares,
            y=models,
            orientation="h",
            name=group,
            marker_color=PALETTE[index],
            customdata=counts,
            text=[f"{share:.0%}" if share > 0.04 else "" for share in shares],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            insidetextfont={"color": on(PALETTE[index])},
            hovertemplate=group + ": %{customdata:,} parameters (%{x:.1%})<extra>%{y}</extra>",
        )
    finish(fig, title, "share of all parameters", "")
    fig.update_xaxes(tickformat=".0%", range=[0, 1])
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(
        barmode="stack", legend={"traceorder": "normal", "orientation": "h", "y": -0.25}, height=320
    )


def contributions(names: Sequence[str], values: Float[Tensor, " parts"], title: str, x: str) -> go.Figure:
    """A waterfall: what each part adds to one number, and the sum of all at the end."""
    fig = go.Figure(
        go.Waterfall(
            x=floats(values) + [None],
            y=[*names, "sum"],
            orientation="h",
            measure=["relative"] * len(names) + ["total"],
            text=[f"{v:+.2f}" for v in values.tolist()] + [f"{values.sum():+.2f}"],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": PALETTE[0]}},
            decreasing={"marker": {"color": PALETTE[3]}},
            totals={"marker": {"color": PALETTE[6]}},
            connector={"line": {"color": TEXT, "width": 0.5}},
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    finish(fig, title, x, "written by")
    reached = [0.0, *values.double().cumsum(0).tolist()]
    pad = 0.14 * (max(reached) - min(reached))  # room for the numbers
    fig.update_xaxes(range=[min(reached) - pad, max(reached) + pad])
    fig.update_yaxes(autorange="reversed", type="category")
    return fig.update_layout(height=170 + 26 * len(names), showlegend=False, margin={"r": 60})


def lens_curves(
    depths: Sequence[str], losses: Float[Tensor, " depths"], top_1: Float[Tensor, " depths"], title: str
) -> go.Figure:
    """Loss and accuracy of the prediction that is read off after each block."""
    fig = make_subplots(1, 2, horizontal_spacing=0.14)
    fig.add_scatter(
        x=depths,
        y=floats(losses),
        mode="lines+markers",
        line_color=PALETTE[0],
        hovertemplate="%{x}: %{y:.2f} nats<extra></extra>",
    )
    fig.add_scatter(
        x=depths,
        y=floats(top_1),
        mode="lines+markers",
        line_color=PALETTE[1],
        hovertemplate="%{x}: %{y:.1%}<extra></extra>",
        row=1,
        col=2,
    )
    finish(fig, title, "read after", "loss (nats per token)")
    fig.update_yaxes(rangemode="tozero")
    fig.update_xaxes(title_text="read after", type="category", row=1, col=2)
    fig.update_yaxes(title_text="its best guess is the next token", tickformat=".0%", row=1, col=2)
    return fig.update_layout(showlegend=False)


def lens_table(
    depths: Sequence[str],
    tokens: Sequence[str],
    guesses: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "depths positions"],
    title: str,
) -> go.Figure:
    """What the model would say next if it stopped after each block: rows are depths, columns the tokens read so far."""
    values = floats(probabilities, 3)
    heat = go.Heatmap(
        z=values,
        x=list(range(len(tokens))),
        y=list(depths),
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        colorbar={"title": "probability", "tickformat": ".0%"},
        customdata=[[label(t) for t in row] for row in guesses],
        hovertemplate="after %{y}: %{customdata} (%{z:.0%})<extra></extra>",
    )
    fig = finish(go.Figure(heat), title, "token read last", "read after")
    for row, depth in enumerate(depths):
        for column, guess in enumerate(guesses[row]):
            colour = "#111111" if values[row][column] > 0.55 else "#F5F5F5"
            fig.add_annotation(
                x=column, y=depth, text=label(guess), showarrow=False, font={"size": 11, "color": colour}
            )
    fig.update_xaxes(
        tickvals=list(range(len(tokens))), ticktext=[label(t) for t in tokens], tickangle=-45, showgrid=False
    )
    fig.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return fig.update_layout(width=max(700, 140 + 62 * len(tokens)), height=150 + 42 * len(depths))


def temperatures(
    probabilities: Mapping[float, Float[Tensor, " vocab"]], tokens: Sequence[str], title: str
) -> go.Figure:
    """The same prediction at several temperatures, for the tokens given, likeliest first."""
    fig = go.Figure()
    for index, (temperature, values) in enumerate(probabilities.items()):
        fig.add_bar(
            x=[label(t) for t in tokens],
            y=floats(values[: len(tokens)]),
            name=f"τ = {temperature:g}",
            marker_color=PALETTE[index],
            hovertemplate="%{x}: %{y:.1%}<extra>" + f"τ = {temperature:g}</extra>",
        )
    finish(fig, title, "next token, likeliest first", "probability")
    fig.update_xaxes(type="category")
    return fig.update_yaxes(tickformat=".0%").update_layout(
        barmode="group", legend={"x": 0.98, "xanchor": "right", "y": 0.98}
    )
