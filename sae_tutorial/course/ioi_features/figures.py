"""Figures of notebook 08: how few features carry the answer, and what a supervised dictionary says about the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import PALETTE, SEQUENTIAL, TEXT, finish

Triple = tuple[float, float, float]  # middle, low, high
Curve = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]  # x, mean, low, high
# Colour, dash and marker: one hue for a family, so that families can be told apart at a glance.
LOOKS = {
    "ReLU, L1 0.1": (PALETTE[3], "solid", "circle"),
    "ReLU, L1 0.03": (PALETTE[3], "dash", "square"),
    "ReLU, L1 0.01": (PALETTE[3], "dot", "diamond"),
    "ReLU, L1 0": (PALETTE[6], "solid", "x"),
    "Mutual Choice": (PALETTE[1], "solid", "square"),
    "Feature Choice": (PALETTE[2], "solid", "triangle-up"),
    "Mutual Choice, reference": (PALETTE[1], "dash", "square-open"),
    "Feature Choice, reference": (PALETTE[2], "dash", "triangle-up-open"),
    "PCA": (PALETTE[0], "solid", "circle"),
    "PCA, non-negative": (PALETTE[0], "dot", "circle-open"),
    "supervised": (PALETTE[4], "solid", "star"),
}


def look(name: str) -> tuple[str, str, str]:
    """Colour, dash and marker."""
    return LOOKS.get(name, (TEXT, "solid", "circle"))


def places(share: Float[Tensor, "hooks roles"], hooks: Sequence[str], roles: Sequence[str], title: str) -> go.Figure:
    """The share of the KL that is left when one position is patched at one hook: dark where the answer travels."""
    fig = go.Figure(
        go.Heatmap(
            z=_round(share, 3),
            x=list(roles),
            y=list(hooks),
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            texttemplate="%{z:.2f}",
            xgap=2,
            ygap=2,
            colorbar={"title": "KL left", "tickformat": ".0%"},
            hovertemplate="%{y}, %{x}: %{z:.0%} of the KL is left<extra></extra>",
        )
    )
    finish(fig, title, "position that is patched", "residual stream")
    fig.update_xaxes(showgrid=False)
    return fig.update_yaxes(showgrid=False, autorange="reversed", title_standoff=18).update_layout(height=360)


def bars(values: Mapping[str, Triple], title: str, x: str) -> go.Figure:
    """One horizontal bar for each dictionary, with its interval."""
    middle, low, high = zip(*values.values())
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": [h - m for m, h in zip(middle, high)],
        "arrayminus": [m - lo for m, lo in zip(middle, low)],
        "color": TEXT,
        "thickness": 1.5,
    }
    names, colours = list(values), [look(name)[0] for name in values]
    hover = "%{y}: %{x:.3g}<extra></extra>"
    bar = go.Bar(x=middle, y=names, orientation="h", marker_color=colours, error_x=whiskers, hovertemplate=hover)
    fig = finish(go.Figure(bar), title, x, "").update_yaxes(autorange="reversed")
    return fig.update_layout(showlegend=False, width=780, height=130 + 32 * len(names))


def carried(
    by_count: Mapping[str, Curve],
    by_size: Mapping[str, Curve],
    nothing: float,
    title: str,
    y: str = "KL (nats)",
    uninformed: float | None = None,
) -> go.Figure:
    """KL to the answer of the other sentence against the number of patched features (log) and the size of the edit.

    Bands are intervals over sentences. `nothing` is the KL without a patch, half of it is dashed; `uninformed` that of
    an answer which knows nothing of the sentence, dotted.
    """
    fig = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column, curves in enumerate((by_count, by_size), start=1):
        for name, (x, mean, low, high) in curves.items():
            colour, dash, symbol = look(name)
            xs = _round(x, 3)
            band = {"x": xs + xs[::-1], "y": _round(high, 3) + _round(low, 3)[::-1], "fill": "toself"}
            red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
            fill = {"fillcolor": f"rgba({red}, {green}, {blue}, 0.13)", "line_width": 0, "hoverinfo": "skip"}
            fig.add_scatter(**band, **fill, legendgroup=name, showlegend=False, mode="lines", row=1, col=column)
            fig.add_scatter(
                x=xs,
                y=_round(mean, 3),
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 6, "color": colour},
                hovertemplate=f"{name}<br>%{{x:.3g}}: KL %{{y:.2f}}<extra></extra>",
                row=1,
                col=column,
            )
        for level, dash, what in ((nothing / 2, "dash", "half"), (uninformed, "dot", "answer without receiver")):
            if level is not None:
                line = {"dash": dash, "color": TEXT, "width": 1}
                side = "top right" if dash == "dash" else "bottom right"
                note = {"annotation_text": what, "annotation_position": side, "annotation_font_size": 11}
                fig.add_hline(y=level, line=line, row=1, col=column, **(note if column == 2 else {}))
    finish(fig, title, "patched features (log scale)", y)
    fig.update_xaxes(type="log", dtick=1, row=1, col=1)
    fig.update_xaxes(title_text="size of the edit, mean |x′ − x| per token", row=1, col=2)
    fig.update_yaxes(range=[-0.2, 1.05 * nothing])
    legend = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
    return fig.update_layout(width=900, height=520, legend=legend, margin={"b": 150})


def orders(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> go.Figure:
    """KL against number of features for the same dictionary, thinned out in different orders."""
    fig = go.Figure()
    for i, (name, (x, y)) in enumerate(curves.items()):
        style = {"color": PALETTE[i], "dash": ("solid", "dash", "dot")[i % 3]}
        fig.add_scatter(x=list(x), y=[round(v, 3) for v in y], mode="lines+markers", name=name, line=style)
    finish(fig, title, "patched features (log scale)", "KL (nats), mean over sentences")
    fig.update_xaxes(type="log", dtick=math.log10(2), tickformat=".3~g")
    return fig.update_layout(legend={"x": 0.98, "xanchor": "right", "y": 0.98}, width=760)


def two_scores(scores: Mapping[str, tuple[float, float]], names: tuple[str, str], title: str, y: str) -> go.Figure:
    """Two bars for each dictionary."""
    fig = go.Figure()
    for i, name in enumerate(names):
        values = [round(pair[i], 3) for pair in scores.values()]
        hover = f"%{{x}}, {name}: %{{y:.2f}}<extra></extra>"
        fig.add_bar(x=list(scores), y=values, name=name, marker_color=PALETTE[(0, 1)[i]], hovertemplate=hover)
    fig.add_hline(y=1, line={"dash": "dash", "color": TEXT, "width": 1})
    finish(fig, title, "", y)
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return fig.update_layout(barmode="group", width=820, height=430, legend=legend, margin={"t": 100, "b": 110})


def controlled(
    success: Mapping[str, Mapping[str, Sequence[float]]],
    ks: Sequence[int],
    supervised: Mapping[str, float],
    unedited: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Share of predictions that follow an edit, against the number of edited features; a panel for each kind.

    Dashed: what follows the supervised edit. Dotted: what agrees without any edit.
    """
    fig = make_subplots(1, len(success), subplot_titles=list(success), shared_yaxes=True, horizontal_spacing=0.05)
    for column, (edit, lines) in enumerate(success.items(), start=1):
        for name, values in lines.items():
            colour, dash, symbol = look(name)
            fig.add_scatter(
                x=list(ks),
                y=[round(v, 3) for v in values],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": colour, "dash": dash},
                marker={"symbol": symbol, "size": 8},
                hovertemplate=f"{name}, %{{x}} edits: %{{y:.0%}}<extra></extra>",
                row=1,
                col=column,
            )
        for level, dash in ((supervised[edit], "dash"), (unedited[edit], "dot")):
            fig.add_hline(y=level, line={"dash": dash, "color": TEXT, "width": 1}, row=1, col=column)
    fig.update_xaxes(type="log", tickvals=list(ks), ticktext=list(map(str, ks)), title_text="edits per position (log)")
    finish(fig, title, "edits per position (log)", "predictions that follow")
    fig.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    legend = {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}
    return fig.update_layout(width=880, height=470, legend=legend, margin={"t": 100, "b": 140})


def f1_map(
    f1: Float[Tensor, "dictionaries columns"], rows: Sequence[str], columns: Sequence[str], title: str
) -> go.Figure:
    """Mean best F1 of a single feature, for each dictionary and each attribute at a position."""
    heat = go.Heatmap(z=_round(f1, 3), x=list(columns), y=list(rows), colorscale=SEQUENTIAL, zmin=0, zmax=1)
    heat.update(texttemplate="%{z:.2f}", xgap=2, ygap=2, colorbar={"title": "best F1"})
    heat.update(hovertemplate="%{y}: %{x}, F1 %{z:.2f}<extra></extra>")
    fig = finish(go.Figure(heat), title, "attribute, and the position that is read", "")
    fig.update_xaxes(showgrid=False)
    fig.update_yaxes(showgrid=False, autorange="reversed")
    return fig.update_layout(width=820, height=170 + 30 * len(rows))


def occlusion(found: Mapping[str, Sequence[float]], x: Sequence[float], title: str, x_title: str) -> go.Figure:
    """Share of values with a feature of their own, against what is varied, a line for each attribute."""
    fig = go.Figure()
    for i, (name, share) in enumerate(found.items()):
        style = {"color": PALETTE[i], "dash": ("solid", "dash")[i % 2]}
        fig.add_scatter(x=list(x), y=list(share), mode="lines+markers", name=name, line=style)
    finish(fig, title, x_title, "values with a feature of their own")
    return fig.update_yaxes(range=[-0.03, 1.03], tickformat=".0%").update_layout(width=720)


def splitting(
    prices: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    dots: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
) -> go.Figure:
    """Total loss against the price λ: lines are formulas, dots are autoencoders that were trained."""
    fig = go.Figure()
    for i, (name, values) in enumerate(losses.items()):
        line = {"color": PALETTE[i], "dash": ("solid", "dash", "dot")[i % 3]}
        fig.add_scatter(x=list(prices), y=[round(v, 2) for v in values], mode="lines", name=name, line=line)
    for i, (name, pairs) in enumerate(dots.items()):
        x, y = zip(*pairs)
        marker = {"color": PALETTE[3 + i], "size": 10, "symbol": ("circle", "diamond")[i % 2]}
        fig.add_scatter(x=x, y=[round(v, 2) for v in y], mode="markers", name=name, marker=marker)
    finish(fig, title, "price λ of one unit of a code", "total loss per token: error² + λ · L1")
    return fig.update_layout(
        width=760, height=420, legend={"x": 0.98, "xanchor": "right", "y": 0.02, "yanchor": "bottom"}
    )


def _round(values: Tensor, digits: int) -> list:
    """Nested lists of plain numbers."""
    scale = 10**digits
    return ((values.detach().cpu().double() * scale).round() / scale).tolist()
