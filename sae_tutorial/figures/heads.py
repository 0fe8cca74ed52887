"""Figures about attention heads: where they look, how they overlap, what they score, what breaks without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT, finish, wrap
from sae_tutorial.figures.text import floats, label, packed


def attention_grid(patterns: Float[Tensor, "layers heads positions positions"], title: str) -> go.Figure:
    """Every head's pattern as a small picture: one row per layer, one column per head."""
    n_layers, n_heads = patterns.shape[:2]
    fig = make_subplots(
        n_layers,
        n_heads,
        horizontal_spacing=0.012,
        vertical_spacing=0.02,
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=[f"head {h}" for h in range(n_heads)],
        row_titles=[f"layer {layer}" for layer in range(n_layers)],
    )
    for layer in range(n_layers):
        for head in range(n_heads):
            fig.add_heatmap(
                z=packed(patterns[layer, head]),
                coloraxis="coloraxis",
                row=layer + 1,
                col=head + 1,
                hovertemplate="position %{y} takes %{z:.0%} from position %{x}<extra>"
                + f"layer {layer} head {head}</extra>",
            )
    fig.update_xaxes(showticklabels=False, ticks="", showgrid=False, constrain="domain")
    fig.update_yaxes(showticklabels=False, ticks="", showgrid=False, autorange="reversed")
    fig.update_layout(template="sae_tutorial", title_text=wrap(title), width=760, height=110 + 92 * n_layers)
    fig.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"title": "attention", "tickformat": ".0%"},
        }
    )
    fig.update_annotations(font_size=11)
    note = "rows: the position that takes · columns: the position that is taken from"
    fig.add_annotation(text=note, xref="paper", yref="paper", x=0, y=0, yshift=-26, xanchor="left", showarrow=False)
    return fig


def attention_picker(
    patterns: Float[Tensor, "layers heads positions positions"], tokens: Sequence[str], first: tuple[int, int]
) -> go.Figure:
    """One head's pattern in full, beginning with `first` = (layer, head), and a menu that needs no kernel."""
    n_layers, n_heads = patterns.shape[:2]
    names = [label(token) for token in tokens]
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}

    def heading(layer: int, head: int) -> str:
        return f"Layer {layer} head {head}: {habit(patterns[layer, head], tokens)}"

    chosen = first[0] * n_heads + first[1]
    fig = go.Figure()
    buttons = []
    for number in range(n_layers * n_heads):
        layer, head = divmod(number, n_heads)
        fig.add_heatmap(
            z=packed(patterns[layer, head]),
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            visible=number == chosen,
            colorbar={"title": "attention", "tickformat": ".0%"},
            hovertemplate="%{y} takes %{z:.1%} from %{x}<extra></extra>",
        )
        shown = [other == number for other in range(n_layers * n_heads)]
        change = [{"visible": shown}, {"title.text": wrap(heading(layer, head), 62)}]
        buttons.append({"label": f"layer {layer} head {head}", "method": "update", "args": change})
    finish(fig, heading(*first), "is taken from this token", "this token takes")
    fig.update_xaxes(**ticks, tickangle=-60)
    fig.update_yaxes(**ticks, autorange="reversed")
    menu = {
        "buttons": buttons,
        "active": chosen,
        "x": 1.0,
        "xanchor": "right",
        "y": 1.0,
        "yanchor": "top",
        "font": {"color": "#333333"},
        "bgcolor": "#EFEFEF",
        "pad": {"r": 6, "t": 6},
    }
    return fig.update_layout(updatemenus=[menu], height=560, width=640)


def habit(pattern: Float[Tensor, "positions positions"], tokens: Sequence[str]) -> str:
    """Where this head mostly looks, as half a sentence: the place that is strongest for most of the tokens.

    Copying is only spoken of where at least a third of the tokens are repeated ones: one word said twice proves little.
    """
    strongest = pattern.argmax(-1).tolist()
    rows = range(1, len(tokens))
    follows = {i: tokens.index(tokens[i]) + 1 for i in rows if tokens[i] in tokens[:i]}  # after the first copy
    copied = [strongest[i] == after for i, after in follows.items()]
    if len(copied) >= len(tokens) // 3 and sum(copied) > len(copied) / 2:
        return f"{sum(copied) / len(copied):.0%} of the repeated tokens look most at what followed their first copy"
    shares = {
        "the one before": sum(strongest[i] == i - 1 for i in rows) / len(rows),
        "themselves": sum(strongest[i] == i for i in rows) / len(rows),
        "the start mark": sum(strongest[i] == 0 for i in rows) / len(rows),
    }
    place = max(shares, key=shares.__getitem__)
    return f"{shares[place]:.0%} of the tokens look most at {place}"


def overlaps(groups: Mapping[str, Float[Tensor, " pairs"]], expected: float, title: str) -> go.Figure:
    """One row of dots per group of head pairs, against the overlap that random spaces of the same size have."""
    fig = go.Figure()
    for index, (name, values) in enumerate(groups.items()):
        colour = PALETTE[6] if name.startswith("random") else PALETTE[index]
        fig.add_box(
            x=floats(values),
            name=name,
            orientation="h",
            boxpoints="all",
            jitter=0.7,
            pointpos=0,
            marker={"color": colour, "size": 4, "opacity": 0.55},
            line={"color": colour},
            fillcolor="rgba(0, 0, 0, 0)",
            hovertemplate="overlap %{x:.3f}<extra>" + name + "</extra>",
        )
    fig.add_vline(
        x=expected,
        line={"color": TEXT, "dash": "dash"},
        annotation_text=f"D/M = {expected:.3f}",
        annotation_position="bottom left",
    )
    finish(fig, title, "overlap of the two subspaces (mean squared cosine; 1 = the same space)", "")
    fig.update_xaxes(rangemode="tozero")
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(showlegend=False, height=150 + 62 * len(groups))


def loss_by_position(losses: Float[Tensor, " positions"], length: int, title: str) -> go.Figure:
    """Loss of each token of a sequence that says the same `length` tokens twice."""
    fig = go.Figure(
        go.Scatter(
            x=list(range(1, len(losses) + 1)),
            y=floats(losses),
            mode="lines",
            line_color=PALETTE[0],
            hovertemplate="token %{x}: %{y:.2f} nats<extra></extra>",
        )
    )
    fig.add_vrect(x0=length + 0.5, x1=2 * length + 0.5, fillcolor=PALETTE[1], opacity=0.15, line_width=0)
    for x, text in ((length / 2, "first time"), (1.5 * length, "again")):
        fig.add_annotation(x=x, y=1.02, yref="paper", yanchor="bottom", text=text, showarrow=False)
    return finish(fig, title, "position in the sequence (tokens)", "loss (nats)").update_yaxes(rangemode="tozero")


def head_maps(scores: Mapping[str, Float[Tensor, "layers heads"]], title: str) -> go.Figure:
    """One map per score: layers down, heads across, the value in every cell."""
    fig = make_subplots(1, len(scores), subplot_titles=list(scores), horizontal_spacing=0.06, shared_yaxes=True)
    for column, (name, values) in enumerate(scores.items(), start=1):
        fig.add_heatmap(
            z=floats(values, 3),
            coloraxis="coloraxis",
            row=1,
            col=column,
            texttemplate="%{text}",
            textfont={"size": 10},
            text=[[f"{value:.1f}" if value >= 0.095 else "" for value in row] for row in values.tolist()],
            hovertemplate="layer %{y} head %{x}: %{z:.2f}<extra>" + name + "</extra>",
        )
        fig.update_xaxes(title_text="head", dtick=1, showgrid=False, row=1, col=column)
    finish(fig, title, "head", "layer")
    fig.update_yaxes(autorange="reversed", dtick=1, showgrid=False)
    fig.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": {"title": "score"}})
    fig.update_annotations(font_size=13)
    return fig.update_layout(width=820, height=190 + 40 * next(iter(scores.values())).shape[0], margin={"t": 90})


def knockouts(losses: Mapping[str, float], controls: Float[Tensor, " draws"], title: str) -> go.Figure:
    """Loss on a repetition: one bar per model, and the mean of the controls with a circle for each random draw."""
    others = "without as many others"
    bars = {**losses, others: controls.mean().item()}
    colours = [PALETTE[6], *PALETTE[3 : 2 + len(losses)], PALETTE[5]]
    fig = go.Figure(
        go.Bar(
            x=[wrap(name, 16) for name in bars],
            y=[round(value, 4) for value in bars.values()],
            marker_color=colours,
            hovertemplate="%{y:.2f} nats<extra></extra>",
        )
    )
    fig.add_scatter(
        x=[wrap(others, 16)] * len(controls),
        y=floats(controls),
        mode="markers",
        marker={"color": TEXT, "size": 7, "symbol": "circle-open"},
        hovertemplate="one random draw: %{y:.2f} nats<extra></extra>",
    )
    finish(fig, title, "", "loss on the repetition (nats)")
    return fig.update_layout(showlegend=False).update_yaxes(rangemode="tozero")
