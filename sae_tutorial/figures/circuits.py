"""Figures about circuits: maps of what patching does, who looks and writes where, and what a circuit is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import DIVERGING, GRID, PALETTE, TEXT, finish, wrap
from sae_tutorial.figures.text import floats, on


def signed_maps(
    maps: Mapping[str, Float[Tensor, "rows columns"]],
    title: str,
    columns: Sequence[str],
    x: str,
    unit: str,
    y: str = "layer",
    limit: float | None = None,
    per_row: int = 3,
    show: float = 0.045,
) -> go.Figure:
    """Maps side by side on one scale that is centred on zero; every cell whose size is at least `show` has its number.

    Args:
        columns: names of the columns, the same in all maps.
        x, y: what columns and rows are.
        unit: what a cell says, as the title of the colour bar.
        limit: the end of the scale; None for the largest size found.
    """
    n_columns = min(per_row, len(maps))
    n_rows = -(-len(maps) // n_columns)
    gaps = {"horizontal_spacing": 0.035, "vertical_spacing": 0.4 / n_rows}
    fig = make_subplots(n_rows, n_columns, subplot_titles=list(maps), shared_yaxes=True, **gaps)
    for place, (name, values) in enumerate(maps.items()):
        row, col = divmod(place, n_columns)
        fig.add_heatmap(
            z=floats(values, 3),
            x=list(columns),
            coloraxis="coloraxis",
            row=row + 1,
            col=col + 1,
            text=[
                [f"{value:.2f}".replace("0.", ".", 1) if abs(value) >= show else "" for value in line]
                for line in values.tolist()
            ],
            texttemplate="%{text}",
            textfont={"size": 10},
            hovertemplate=f"{y} %{{y}}, {x} %{{x}}: %{{z:.3f}}<extra>{name}</extra>",
        )
        fig.update_xaxes(title_text=x if row == n_rows - 1 else "", type="category", row=row + 1, col=col + 1)
        fig.update_yaxes(title_text=y if col == 0 else "", row=row + 1, col=col + 1)
    first = next(iter(maps.values()))
    end = limit or max(float(values.abs().max()) for values in maps.values())
    fig.update_layout(template="sae_tutorial", title_text=wrap(title, 88))
    fig.update_xaxes(showgrid=False, tickangle=0 if len(columns) < 12 else -60)
    fig.update_yaxes(showgrid=False, autorange="reversed", dtick=1)
    bar = {"title": {"text": wrap(unit, 14), "font": {"size": 12}}}
    fig.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -end, "cmax": end, "colorbar": bar})
    fig.update_annotations(font_size=13)
    height = 150 + n_rows * (70 + 30 * first.shape[0]) + 50 * (n_rows - 1)
    return fig.update_layout(width=900 if len(maps) > 1 else 760, height=height, margin_t=90)


def by_depth(lines: Mapping[str, Float[Tensor, " depths"]], depths: Sequence[str], title: str, y: str) -> go.Figure:
    """One line for each name, from the embedding to the end."""
    fig = go.Figure()
    for (name, values), colour in zip(lines.items(), PALETTE, strict=False):
        fig.add_scatter(
            x=list(depths),
            y=floats(values, 3),
            name=name,
            mode="lines+markers",
            line_color=colour,
            hovertemplate="%{x}: %{y:.2f}<extra>" + name + "</extra>",
        )
    fig.add_hline(y=0, line={"color": TEXT, "width": 1})
    return finish(fig, title, "the stream, read after", y)


def two_names(
    right: Float[Tensor, " parts"],
    wrong: Float[Tensor, " parts"],
    names: Sequence[str],
    kinds: Sequence[str],
    title: str,
) -> go.Figure:
    """What each component adds to the right name (across) and to the wrong one (up), against other names."""
    fig = go.Figure()
    low, high = float(right.min()), float(right.max())
    fig.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": TEXT, "dash": "dash", "width": 1},
        name="both names alike",
        hoverinfo="skip",
    )
    sides = ("top left", "bottom right")
    for number, kind in enumerate(dict.fromkeys(kinds)):
        where = [i for i, one in enumerate(kinds) if one == kind]
        plain = kind == "others"
        fig.add_scatter(
            x=floats(right[where], 3),
            y=floats(wrong[where], 3),
            name=kind,
            mode="markers" if plain else "markers+text",
            text=[names[i] for i in where],
            textposition=sides[number % 2],
            textfont={"size": 11},
            marker={"color": PALETTE[6] if plain else PALETTE[number], "size": 6 if plain else 10},
            hovertemplate="%{text}: right %{x:.2f}, wrong %{y:.2f}<extra></extra>",
        )
    finish(fig, title, "added to the right name, logits above other names", "added to the wrong name")
    return fig.update_layout(height=460, legend={"orientation": "h", "y": -0.18})


def looks(shares: Mapping[str, Float[Tensor, " heads"]], heads: Sequence[str], title: str) -> go.Figure:
    """Stacked bars: how the attention of each head is divided over some places."""
    fig = go.Figure()
    for (name, values), colour in zip(
        shares.items(), (PALETTE[0], PALETTE[1], PALETTE[3], "rgba(128, 128, 128, 0.35)"), strict=False
    ):
        fig.add_bar(
            x=list(heads),
            y=floats(values, 3),
            name=name,
            marker_color=colour,
            hovertemplate="head %{x} takes %{y:.0%} from " + name + "<extra></extra>",
        )
    finish(fig, title, "head (layer.head)", "attention from the last token")
    fig.update_xaxes(type="category")
    fig.update_yaxes(tickformat=".0%", range=[0, 1])
    return fig.update_layout(barmode="stack", legend={"orientation": "h", "y": -0.22})


def bars(
    values: Mapping[str, Mapping[str, float]], title: str, y: str, x: str = "", level: float | None = None
) -> go.Figure:
    """Groups of bars: one colour for each name, one group for each of its keys. `level`: a dashed line across."""
    fig = go.Figure()
    for (name, row), colour in zip(values.items(), PALETTE, strict=False):
        fig.add_bar(
            x=[wrap(key, 16) for key in row],
            y=[round(float(value), 3) for value in row.values()],
            name=name,
            marker_color=colour,
            hovertemplate="%{x}: %{y:.2f}<extra>" + name + "</extra>",
        )
    if level is not None:
        fig.add_hline(y=level, line={"color": TEXT, "dash": "dash"})
    fig.add_hline(y=0, line={"color": TEXT, "width": 1})
    finish(fig, title, x, y)
    fig.update_xaxes(type="category")
    return fig.update_layout(legend={"orientation": "h", "y": -0.24}, showlegend=len(values) > 1, height=420)


def estimates(
    guess: Float[Tensor, " parts"], real: Float[Tensor, " parts"], names: Sequence[str], title: str, named: int = 6
) -> go.Figure:
    """An estimate (across) against what was measured (up); on the diagonal it is right. The largest have names."""
    fig = go.Figure()
    ends = [min(float(guess.min()), float(real.min())), max(float(guess.max()), float(real.max()))]
    fig.add_scatter(x=ends, y=ends, mode="lines", line={"color": TEXT, "dash": "dash", "width": 1}, hoverinfo="skip")
    large = set(real.abs().topk(min(named, len(names))).indices.tolist())
    fig.add_scatter(
        x=floats(guess, 3),
        y=floats(real, 3),
        mode="markers+text",
        text=[name if i in large else "" for i, name in enumerate(names)],
        customdata=list(names),
        textposition="top center",
        textfont={"size": 11},
        marker={"color": PALETTE[0], "size": 8},
        hovertemplate="head %{customdata}: estimate %{x:.2f}, measured %{y:.2f}<extra></extra>",
    )
    finish(fig, title, "estimate from one gradient (share brought back)", "patched (share brought back)")
    return fig.update_layout(showlegend=False, height=420)


def completeness(
    pairs: Mapping[str, tuple[Float[Tensor, " subsets"], Float[Tensor, " subsets"]]], title: str
) -> go.Figure:
    """The whole model without K (across) against the circuit without K (up); on the diagonal nothing is missing."""
    fig = make_subplots(1, len(pairs), subplot_titles=list(pairs), horizontal_spacing=0.1)
    for col, (name, (whole, part)) in enumerate(pairs.items(), start=1):
        ends = [min(float(whole.min()), float(part.min())), max(float(whole.max()), float(part.max()))]
        look = {"color": TEXT, "dash": "dash", "width": 1}
        fig.add_scatter(x=ends, y=ends, mode="lines", line=look, hoverinfo="skip", row=1, col=col)
        fig.add_scatter(
            x=floats(whole, 3),
            y=floats(part, 3),
            mode="markers",
            marker={"color": PALETTE[col - 1], "size": 8},
            hovertemplate="model without K %{x:.2f}, circuit without K %{y:.2f}<extra>" + name + "</extra>",
            row=1,
            col=col,
        )
        fig.update_xaxes(title_text="model without K (logits)", row=1, col=col)
    finish(fig, title, "model without K (logits)", "circuit without K (logits)")
    fig.update_annotations(font_size=13)
    return fig.update_layout(showlegend=False, width=820, margin_t=90)


def roc_curves(
    curves: Mapping[str, tuple[Tensor, Tensor, float]], title: str, points: Mapping[str, tuple[Tensor, Tensor]]
) -> go.Figure:
    """Curves (wrong, right, area) with the diagonal of chance; `points` are drawn as markers without a line."""
    fig = go.Figure()
    look = {"color": TEXT, "dash": "dash", "width": 1}
    fig.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=look, name="chance", hoverinfo="skip")
    for (name, (wrong, right, area)), colour in zip(curves.items(), PALETTE, strict=False):
        fig.add_scatter(
            x=floats(wrong),
            y=floats(right),
            mode="lines",
            line={"color": colour, "shape": "linear"},
            name=f"{name} ({area:.2f})",
        )
    for (name, (wrong, right)), symbol in zip(points.items(), ("diamond", "x"), strict=False):
        fig.add_scatter(
            x=floats(wrong),
            y=floats(right),
            mode="markers",
            marker={"color": PALETTE[3], "size": 10, "symbol": symbol},
            name=name,
        )
    finish(fig, title, "share of the other heads that is found", "share of the circuit's heads that is found")
    fig.update_xaxes(tickformat=".0%")
    fig.update_yaxes(tickformat=".0%")
    return fig.update_layout(height=460)


def diagram(
    nodes: Mapping[str, tuple[float, float, str]],
    edges: Sequence[tuple[str, str, str]],
    columns: Sequence[str],
    title: str,
) -> go.Figure:
    """A circuit as a drawing. Tokens run to the right, layers upwards.

    Args:
        nodes: label -> (place of its token in `columns`, height, colour).
        edges: (from, to, what is carried), labels of nodes.
        columns: names of the tokens, under the drawing.
    """
    fig = go.Figure()
    for start, end, what in edges:
        (x0, y0, colour), (x1, y1, _) = nodes[start], nodes[end]
        tail = {"ax": x0, "ay": y0, "axref": "x", "ayref": "y", "startstandoff": 26}
        head = {"x": x1, "y": y1, "xref": "x", "yref": "y", "standoff": 26, "arrowhead": 2, "arrowwidth": 1.6}
        fig.add_annotation(**tail, **head, arrowcolor=colour, text="")
        aside = "right" if abs(y1 - y0) > 0.2 else "center"  # to the left of a rising arrow, above a level one
        middle = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "yshift": 9, "xanchor": aside, "showarrow": False}
        fig.add_annotation(**middle, text=what, font={"size": 11, "color": colour})
    for label, (x, y, colour) in nodes.items():
        box = {"bgcolor": colour, "bordercolor": GRID, "borderpad": 5, "font": {"color": on(colour), "size": 12}}
        fig.add_annotation(x=x, y=y, text=label.replace("\n", "<br>"), showarrow=False, **box)
    low, high = (f(y for _, y, _ in nodes.values()) for f in (min, max))
    fig.add_scatter(x=[0, len(columns) - 1], y=[low, high], mode="markers", marker={"opacity": 0}, hoverinfo="skip")
    finish(fig, title, "", "")
    fig.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=list(columns),
        range=[-0.7, len(columns) - 0.3],
        showgrid=False,
        zeroline=False,
    )
    fig.update_yaxes(visible=False, range=[low - 0.5, high + 0.5])
    return fig.update_layout(height=460, width=820, showlegend=False)
