"""Figures of notebook 01: predictions, the residual stream, the logit lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import empty, ink, nothing
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.style import PALETTE, TEXT, finish
from sae_tutorial.figures.tables import Table
from sae_tutorial.figures.text import label, numbers


def next_tokens(tokens: Sequence[str], probabilities: Float[Tensor, " k"], title: str) -> go.Figure:
    """Horizontal bars: the likeliest next tokens, the likeliest on top."""
    curve = Curve([label(token) for token in tokens], probabilities)
    labels = "probability of being next", "token (· is a space)"
    fig = kinds.bars({"": curve}, title, *labels, lying=True, hover="%{y}: %{x:.1%}")
    return fig.update_xaxes(tickformat=".0%", rangemode="tozero")


def contributions(names: Sequence[str], values: Float[Tensor, " parts"], title: str, x: str) -> go.Figure:
    """A waterfall: what each part adds to one number, and the sum of all at the end."""
    if nothing(values):
        return empty(title)
    fig = go.Figure(
        go.Waterfall(
            x=[*numbers(values), None],
            y=[*names, "sum"],
            orientation="h",
            measure=["relative"] * len(names) + ["total"],
            text=[f"{v:+.2f}" for v in [*values.tolist(), values.nansum().item()]],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": PALETTE[0]}},
            decreasing={"marker": {"color": PALETTE[3]}},
            totals={"marker": {"color": PALETTE[6]}},
            connector={"line": {"color": TEXT, "width": 0.5}},
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    fig.update_layout(height=150 + 26 * len(names), showlegend=False)
    finish(fig, title, x, "written by")
    reached = [0.0, *values.nan_to_num(0).double().cumsum(0).tolist()]
    pad = 0.14 * (max(reached) - min(reached)) or 1  # room for the numbers
    fig.update_xaxes(range=[min(reached) - pad, max(reached) + pad])
    return fig.update_yaxes(autorange="reversed", type="category")


def lens_table(
    depths: Sequence[str],
    tokens: Sequence[str],
    guesses: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "depths positions"],
    title: str,
) -> go.Figure:
    """What the model would say next if it stopped after each layer: rows are depths, columns the tokens read so far.

    A guess too long for its cell is cut; it is whole on hover.
    """
    if nothing(probabilities):
        return empty(title)
    unit, columns = "probability", list(range(len(tokens)))
    fig = kinds.heat(
        {"": probabilities}, title, "token read last", "read after", unit=unit, limit=1, rows=depths, cell=42
    )
    letters = max(3, 68 // max(1, len(tokens)) + 2)
    short = [[label(t if len(t) <= letters else t[: letters - 1] + "…") for t in row] for row in guesses]
    inks = [[ink(p) for p in row] for row in probabilities.tolist()]
    fig.update_traces(
        x=columns,
        text=[[f'<span style="color:{c}">{t}</span>' for c, t in zip(*row)] for row in zip(inks, short)],
        texttemplate="%{text}",
        textfont_size=10,
        customdata=[[label(t) for t in row] for row in guesses],
        hovertemplate="after %{y}: %{customdata} (%{z:.0%})<extra></extra>",
    )
    ticks = {"tickvals": columns, "ticktext": [label(t) for t in tokens], "tickangle": -45}
    bar = {"orientation": "h", "thickness": 10, "len": 0.5, "x": 0.99, "xanchor": "right"}
    bar |= {
        "xref": "container",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "title": {"text": unit, "side": "bottom"},
    }
    bar["tickformat"] = ".0%"
    fig.update_layout(height=fig.layout.height + 50)
    return fig.update_xaxes(**ticks, type="linear").update_layout(coloraxis_colorbar=bar)


def parameter_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Parameters of each group, down, in each model, across, with their shares; the last row is the total."""
    totals = {model: sum(groups.values()) for model, groups in counts.items()}
    rows = [
        (group, *(f"{of[group]:,} ({of[group] / max(totals[model], 1):.0%})" for model, of in counts.items()))
        for group in next(iter(counts.values()), {})
    ]
    return Table(["parameters", *counts], [*rows, ("total", *(f"{total:,}" for total in totals.values()))])
