"""Figures of notebook 05: tables of affinities that fill up, who gets the budget, and which features starve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.looks import below, look
from sae_tutorial.figures.style import PALETTE, TEXT, finish
from sae_tutorial.figures.text import floats, label

Band = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]  # mean, low end, high end


# ---------------------------------------------------------------------- the table that fills up


def tables(
    affinities: Float[Tensor, "tokens features"],
    chosen: Mapping[str, Float[Tensor, "tokens features"]],
    tokens: Sequence[str],
    title: str,
) -> go.Figure:
    """One table per rule: grey where a token and a feature have an affinity, in colour where they were matched, deeper
    the stronger it is.

    Behind each row and below each column stands how many matches it got. `chosen` holds dense codes.
    """
    n_tokens, n_features = affinities.shape
    fig = make_subplots(1, len(chosen), subplot_titles=list(chosen), shared_yaxes=True, horizontal_spacing=0.055)
    top = float(affinities.max())
    for place, (name, codes) in enumerate(chosen.items(), start=1):
        fig.add_trace(_heat(affinities, tokens, top), 1, place)
        fig.add_trace(_heat(codes, tokens, top, look(name)[0]), 1, place)
        rows, columns = (codes > 0).sum(1).tolist(), (codes > 0).sum(0).tolist()
        fig.add_trace(_counts([n_features + 0.1] * n_tokens, list(range(n_tokens)), rows), 1, place)
        fig.add_trace(_counts(list(range(n_features)), [n_tokens] * n_features, columns), 1, place)
    fig.update_xaxes(title_text="feature", tickvals=[], range=[-0.6, n_features + 0.7], showgrid=False, zeroline=False)
    fig.update_yaxes(range=[n_tokens + 0.5, -0.6], showgrid=False, zeroline=False, ticks="")
    finish(fig, title, "feature", "")
    names = {"tickvals": list(range(n_tokens)), "ticktext": [label(token) for token in tokens]}
    fig.update_layout(yaxis=names, width=900, height=150 + 21 * n_tokens, margin={"t": 90})
    return fig.update_annotations(font_size=14)


def budget_explorer(
    affinities: Float[Tensor, "tokens features"],
    chosen: Mapping[str, Sequence[Float[Tensor, "tokens features"]]],
    budgets: Sequence[int],
    tokens: Sequence[str],
    start: int,
    title: str,
) -> go.Figure:
    """The same table with a slider for the budget and a button for each rule; needs no kernel.

    `chosen` holds, for each rule, dense codes for each budget (features per token); `start` is the budget shown first,
    with the last rule. Bars show features per token, and tokens per feature.
    """
    n_tokens, n_features = affinities.shape
    grid = {"rows": 2, "cols": 2, "row_heights": [0.22, 0.78], "column_widths": [0.78, 0.22]}
    fig = make_subplots(**grid, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02, vertical_spacing=0.03)
    top, names, first = float(affinities.max()), list(chosen), list(budgets).index(start)
    fig.add_trace(_heat(affinities, tokens, top), 2, 1)
    for name in names:
        codes, shown = chosen[name][first], name == names[-1]
        heat = _heat(codes, tokens, top, look(name)[0])
        per_token, per_feature = _sums(codes)
        bar = {"marker_color": look(name)[0], "visible": shown, "showlegend": False}
        fig.add_trace(heat.update(visible=shown), 2, 1)
        across = go.Bar(
            x=per_token, y=list(range(n_tokens)), orientation="h", **bar, hovertemplate="%{x}<extra></extra>"
        )
        fig.add_trace(across, 2, 2)
        fig.add_trace(
            go.Bar(x=list(range(n_features)), y=per_feature, **bar, hovertemplate="%{y}<extra></extra>"), 1, 1
        )
    steps = []
    for i, budget in enumerate(budgets):
        new: dict[str, list] = {"x": [], "y": [], "z": []}
        for name in names:
            codes = chosen[name][i]
            per_token, per_feature = _sums(codes)
            new["z"] += [_cells(codes), None, None]
            new["x"] += [list(range(n_features)), per_token, list(range(n_features))]
            new["y"] += [list(range(n_tokens)), list(range(n_tokens)), per_feature]
        where = list(range(1, 1 + 3 * len(names)))
        steps.append({"label": str(budget), "method": "restyle", "args": [new, where]})
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"visible": [True] + [n == name for n in names for _ in range(3)]}],
        }
        for name in names
    ]
    finish(fig, title, "", "tokens")
    most = max(max(_sums(codes)[0]) for each in chosen.values() for codes in each)
    fig.update_xaxes(ticks="", zeroline=False, row=1, col=1)
    fig.update_yaxes(ticks="", zeroline=False, row=2, col=2)
    fig.update_xaxes(showgrid=False, zeroline=False, tickvals=[], title_text="feature", row=2, col=1)
    fig.update_xaxes(range=[0, most + 0.5], title_text="features", row=2, col=2)
    fig.update_yaxes(range=[0, n_tokens + 0.5], title_text="tokens", row=1, col=1)
    text = {"tickvals": list(range(n_tokens)), "ticktext": [label(token) for token in tokens]}
    fig.update_yaxes(range=[n_tokens - 0.4, -0.6], showgrid=False, zeroline=False, ticks="", **text, row=2, col=1)
    slider = {
        "active": first,
        "steps": steps,
        "pad": {"t": 40},
        "currentvalue": {"prefix": "budget, features per token: "},
    }
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "active": len(names) - 1}
    place = {
        "x": 0,
        "xanchor": "left",
        "y": 1.03,
        "yanchor": "bottom",
        "font": {"color": TEXT},
        "bgcolor": "rgba(0,0,0,0)",
    }
    fig.update_layout(
        sliders=[slider], updatemenus=[menu | place], width=800, height=640, margin={"t": 120}, title_y=0.97
    )
    return fig


def _heat(z: Tensor, named: Sequence[str], top: float, colour: str | None = None) -> go.Heatmap:
    """Matches in a colour that deepens with the affinity; without a colour, all affinities in one faint grey."""
    red, green, blue = (int((colour or "#808080")[i : i + 2], 16) for i in (1, 3, 5))
    faint, deep = (0.2, 0.2) if colour is None else (0.4, 1.0)
    return go.Heatmap(
        z=_cells(z),
        zmin=0,
        zmax=top,
        colorscale=[[0, f"rgba({red}, {green}, {blue}, {faint})"], [1, f"rgba({red}, {green}, {blue}, {deep})"]],
        showscale=False,
        xgap=1,
        ygap=1,
        customdata=[[label(token)] * z.shape[1] for token in named],
        hovertemplate="%{customdata}, feature %{x}: %{z:.2f}<extra></extra>",
    )


def _cells(z: Tensor) -> list[list[float | None]]:
    """Plain numbers; a gap where there is no affinity."""
    return [[v if v > 0 else None for v in row] for row in floats(z, 2)]


def _counts(x: list, y: list, counts: Sequence[int]) -> go.Scatter:
    text = [str(count) for count in counts]
    font = {"size": 10, "color": TEXT}
    return go.Scatter(x=x, y=y, text=text, mode="text", textfont=font, hoverinfo="skip", showlegend=False)


def _sums(codes: Tensor) -> tuple[list[int], list[int]]:
    return (codes > 0).sum(1).tolist(), (codes > 0).sum(0).tolist()


# ---------------------------------------------------------------------- prices


def prices(each: Mapping[str, Float[Tensor, " buyers"]], everybody: float, title: str, bins: int = 40) -> go.Figure:
    """A histogram of prices per panel (one price for each token, or each feature), with the price for all as a line."""
    fig = make_subplots(1, len(each), subplot_titles=[f"price {name}" for name in each], horizontal_spacing=0.1)
    colours = (look("Token Choice")[0], look("Feature Choice")[0])
    for place, (name, values) in enumerate(each.items(), start=1):
        end = max(float(values.quantile(0.995)), 1.3 * everybody)
        counts, edges = np.histogram(values.clamp(max=end).numpy(), bins=bins, range=(0, end))
        middle = [round(float(v), 3) for v in (edges[1:] + edges[:-1]) / 2]
        hover = "price %{x:.2f}: %{y}<extra></extra>"
        bars = go.Bar(
            x=middle, y=counts.tolist(), marker_color=colours[(place - 1) % 2], name=name, hovertemplate=hover
        )
        fig.add_trace(bars, 1, place)
        line = {"color": look("Mutual Choice")[0], "dash": "dash", "width": 2}
        note = {"annotation_text": "Mutual Choice", "annotation_font_color": look("Mutual Choice")[0]}
        fig.add_vline(x=everybody, line=line, row=1, col=place, **(note if place == 1 else {}))
        fig.update_xaxes(title_text="price: the weakest affinity that gets in", row=1, col=place)
        fig.update_yaxes(range=[0, 1.18 * int(counts.max())], row=1, col=place)  # room for the note
    finish(fig, title, "price: the weakest affinity that gets in", "tokens")
    fig.update_yaxes(title_text="features", row=1, col=2)
    fig.update_layout(bargap=0.05, showlegend=False, width=860, margin={"t": 110})
    return fig


# ---------------------------------------------------------------------- who gets the budget


def by_kind(
    bands: Mapping[str, Band], kinds: Sequence[str], title: str, y: str, level: float | None = None
) -> go.Figure:
    """Grouped bars with 95 % intervals: one group for each kind of token, one colour for each rule."""
    fig = go.Figure()
    for name, (mean, low, high) in bands.items():
        whiskers = {
            "array": floats(high - mean, 3),
            "arrayminus": floats(mean - low, 3),
            "color": TEXT,
            "thickness": 1.5,
        }
        hover = f"{name}<br>%{{x}}: %{{y:.3g}}<extra></extra>"
        fig.add_bar(
            x=list(kinds),
            y=floats(mean, 3),
            error_y=whiskers,
            name=name,
            marker_color=look(name)[0],
            hovertemplate=hover,
        )
    if level is not None:
        fig.add_hline(y=level, line={"dash": "dash", "color": TEXT, "width": 1})
    finish(fig, title, "kind of token", y)
    return fig.update_layout(barmode="group", width=820, height=420, legend=below(), margin={"b": 110})


def by_decile(curves: Mapping[str, Float[Tensor, " deciles"]], title: str, y: str, level: float) -> go.Figure:
    """A line for each quantity: the mean of y over tokens, sorted by it and cut into equal parts."""
    fig = go.Figure()
    for i, (name, mean) in enumerate(curves.items()):
        x = list(range(1, len(mean) + 1))
        line = {"color": PALETTE[i], "dash": ("solid", "dash", "dot", "dashdot")[i % 4]}
        fig.add_scatter(x=x, y=floats(mean, 2), mode="lines+markers", name=name, line=line)
    fig.add_hline(y=level, line={"dash": "dash", "color": TEXT, "width": 1})
    finish(fig, title, "tenth of the tokens, from the lowest value of the quantity to the highest", y)
    fig.update_xaxes(dtick=1)
    return fig.update_layout(width=800, height=430, legend=below(), margin={"b": 110})


def trade(
    given: Mapping[str, Float[Tensor, " kinds"]],
    gained: Mapping[str, Float[Tensor, " kinds"]],
    kinds: Sequence[str],
    title: str,
    x: str,
    y: str,
) -> go.Figure:
    """One dot for each kind of token and rule: features beyond the even share against the change of the error."""
    fig = go.Figure()
    for i, name in enumerate(given):
        colour, symbol = look(name)
        fig.add_scatter(
            x=floats(given[name], 3),
            y=floats(gained[name], 3),
            mode="markers+text",
            text=list(kinds) if i == 0 else None,
            textposition=above_and_below(given[name]),
            textfont={"size": 11, "color": TEXT},
            name=name,
            customdata=list(kinds),
            marker={"size": 11, "color": colour, "symbol": symbol},
            cliponaxis=False,
            hovertemplate=f"{name}, %{{customdata}}<br>%{{x:+.1f}} features, error %{{y:+.0%}}<extra></extra>",
        )
    fig.add_hline(y=0, line={"color": TEXT, "width": 1})
    fig.add_vline(x=0, line={"color": TEXT, "width": 1})
    finish(fig, title, x, y)
    fig.update_yaxes(tickformat="+.0%")
    return fig.update_layout(width=800, height=460, legend=below(), margin={"b": 110})


def above_and_below(x: Float[Tensor, " n"]) -> list[str]:
    """Where to write beside dots: by turns from left to right, so that neighbours do not collide."""
    turn = x.argsort().argsort() % 2
    return ["bottom center" if odd else "top center" for odd in turn.tolist()]


def company(counts: Sequence[int], alone: int, title: str) -> go.Figure:
    """How many features one and the same token gets in different batches, and how many the threshold gives it."""
    values, batches = np.unique(list(counts), return_counts=True)
    hover = "%{x} features in %{y} batches<extra></extra>"
    fig = go.Figure(go.Bar(x=values, y=batches, marker_color=look("Mutual Choice")[0], hovertemplate=hover))
    colour = look("Token Choice")[0]
    note = {"annotation_text": "by the threshold, in any batch", "annotation_font_color": colour}
    fig.add_vline(x=alone, line={"color": colour, "width": 3}, **note)
    finish(fig, title, "features of the token", "batches")
    fig.update_xaxes(dtick=max(1, int(np.ptp(values)) // 12))
    fig.update_yaxes(range=[0, 1.15 * int(batches.max())])
    return fig.update_layout(bargap=0.08)


# ---------------------------------------------------------------------- features that starve


def rank_density(densities: Mapping[str, Float[Tensor, " features"]], floor: float, title: str) -> go.Figure:
    """Density against rank, both on log axes, a line for each SAE. Features that never fired lie at `floor`, dashed."""
    fig = go.Figure()
    for name, density in densities.items():
        y = np.sort(density.numpy())[::-1]
        rank = np.unique(np.geomspace(1, len(y), 150).round().astype(int))
        colour, _ = look(name)
        dead = float((density == 0).float().mean())
        values = [float(f"{max(v, floor):.3g}") for v in y[rank - 1]]
        hover = f"{name}<br>rank %{{x}}: %{{y:.2%}} of the tokens<extra></extra>"
        line = {"color": colour, "width": 2.5}
        fig.add_scatter(x=rank, y=values, mode="lines", line=line, name=f"{name}: {dead:.1%} dead", hovertemplate=hover)
    fig.add_hline(y=floor, line={"dash": "dash", "color": TEXT, "width": 1})
    place = {"x": 0, "xref": "x domain", "xanchor": "left", "y": math.log10(floor), "yanchor": "bottom"}
    fig.add_annotation(text="never fired", showarrow=False, font={"color": TEXT, "size": 12}, **place)
    finish(
        fig, title, "rank of the feature, the most frequent first (log scale)", "density, share of tokens (log scale)"
    )
    fig.update_xaxes(type="log", dtick=1)
    fig.update_yaxes(type="log", dtick=1, tickformat="~p")
    return fig.update_layout(width=800, height=450, legend=below(), margin={"b": 120})
