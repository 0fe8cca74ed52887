"""Figures about circuits: maps of what patching does, who looks and writes where, and what a circuit is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE, empty
from sae_tutorial.figures.kinds import Curve, Span
from sae_tutorial.figures.looks import Look
from sae_tutorial.figures.style import CLEAR, DIVERGING, GRID, PALETTE, TEXT, WIDTH, finish
from sae_tutorial.figures.text import on, width_of

BESIDE = ("middle right", "middle left", "bottom right", "top left")


def signed_maps(
    maps: Mapping[str, Float[Tensor, "rows columns"]],
    title: str,
    columns: Sequence[str],
    x: str,
    unit: str,
    y: str = "layer",
    limit: float | None = None,
    show: float = 0.045,
) -> go.Figure:
    """Maps side by side on one scale that is centred on zero; every cell whose size is at least `show` has its number.
    Smaller ones are transparent: on a dark page a map of nearly nothing does not glare.

    Args:
        columns: names of the columns, the same in all maps.
        x, y: what columns and rows are.
        unit: what a cell says, as the title of the colour bar.
        limit: the end of the scale; None for the largest size found.
    """
    fig = kinds.heat(
        maps,
        title,
        x,
        y,
        unit=unit,
        columns=columns,
        signed=True,
        limit=limit,
        written=lambda value: f"{value:.2f}".replace("0.", ".", 1) if abs(value) >= show else "",
        hover=f"{y} %{{y}}, {x} %{{x}}: %{{z:.3f}}",
    )
    if fig.data:
        edge = min(0.49, show / fig.layout.coloraxis.cmax / 2)
        (_, blue), (_, grey), (_, vermilion) = DIVERGING
        near = [[0.5 - edge, grey], [0.5 - edge, CLEAR[1][1]], [0.5 + edge, CLEAR[1][1]], [0.5 + edge, grey]]
        fig.update_layout(coloraxis_colorscale=[[0, blue], *near, [1, vermilion]])
    return fig.update_xaxes(tickangle=0 if max(map(len, columns), default=0) < 4 else -60)


def by_depth(lines: Mapping[str, Float[Tensor, " depths"]], depths: Sequence[str], title: str, y: str) -> go.Figure:
    """One line for each name, from the embedding to the end."""
    curves = {name: Curve(depths, values) for name, values in lines.items()}
    return kinds.lines(curves, title, "the stream, read after", y, level={"_zero": 0}, hover="%{x}: %{y:.2f}")


def two_names(
    right: Float[Tensor, " parts"],
    wrong: Float[Tensor, " parts"],
    names: Sequence[str],
    kinds_: Sequence[str],
    title: str,
) -> go.Figure:
    """What each component adds to the right name (across) and to the wrong one (up), against other names.

    `kinds_` says what kind each is; those that are "others" are grey, and have their names on hover only. Names stand
    right of their dots where there is room: what leaves the right name alone lies on one upright line.
    """
    curves = {}
    for kind in dict.fromkeys(kinds_):
        where = [i for i, one in enumerate(kinds_) if one == kind]
        mine = [names[i] for i in where]
        plain = {"look": Look(PALETTE[6])} if kind == "others" else {"text": mine}
        curves[kind] = Curve(right[where], wrong[where], about=mine, **plain)
    hover = "%{customdata}: right %{x:.2f}, wrong %{y:.2f}"
    labels = "added to the right name, logits above other names", "added to the wrong name"
    return kinds.dots(curves, title, *labels, hover=hover, diagonal=True, size=9, height=460, beside=BESIDE)


def looks(shares: Mapping[str, Float[Tensor, " heads"]], heads: Sequence[str], title: str) -> go.Figure:
    """Stacked bars: how the attention of each head is divided over some places."""
    colours = (PALETTE[0], PALETTE[1], PALETTE[3], "rgba(128, 128, 128, 0.35)")
    groups = {
        name: Curve(heads, values, look=Look(colour))
        for (name, values), colour in zip(shares.items(), colours, strict=False)
    }
    hover, y = "head %{x}: %{y:.0%}", "attention from the last token"
    fig = kinds.bars(groups, title, "head (layer.head)", y, stacked=True, hover=hover)
    return fig.update_yaxes(tickformat=".0%", range=[0, 1])


def bars(
    values: Mapping[str, Mapping[str, float | Span]],
    title: str,
    y: str,
    x: str = "",
    level: float | None = None,
    form: str = ".2f",
) -> go.Figure:
    """Groups of bars: one colour for each name, one group for each of its keys. A value may come with the ends of its
    interval, (value, low, high). `level`: a dashed line across; `form`: how values are written on hover, and the axis
    too if they are percentages."""
    groups = {}
    for name, row in values.items():
        spans = [value if isinstance(value, tuple) else (value, None, None) for value in row.values()]
        middle, low, high = (list(ends) for ends in zip(*spans)) if spans else ([], None, None)
        known = any(isinstance(value, tuple) for value in row.values())
        groups[name] = Curve(list(row), middle, low if known else None, high if known else None)
    across = {} if level is None else {"_level": level}
    fig = kinds.bars(groups, title, x, y, level=across, hover=f"%{{x}}: %{{y:{form}}}", height=420)
    fig.update_yaxes(tickformat=form if form.endswith("%") else None)
    return fig.add_hline(y=0, line=RULE)


def estimates(
    guess: Float[Tensor, " parts"], real: Float[Tensor, " parts"], names: Sequence[str], title: str, named: int = 6
) -> go.Figure:
    """An estimate (across) against what was measured (up); on the diagonal it is right. The largest have names."""
    large = set(real.abs().nan_to_num(0).topk(min(named, len(names))).indices.tolist())
    text = [name if i in large else "" for i, name in enumerate(names)]
    hover = "head %{customdata}: estimate %{x:.2f}, measured %{y:.2f}"
    curves = {"heads": Curve(guess, real, text=text, about=names)}
    labels = "estimate from one gradient (share brought back)", "patched (share brought back)"
    return kinds.dots(curves, title, *labels, hover=hover, diagonal=True, height=420)


def completeness(
    pairs: Mapping[str, tuple[Float[Tensor, " subsets"], Float[Tensor, " subsets"]]], title: str
) -> go.Figure:
    """The whole model without K (across) against the circuit without K (up); on the diagonal nothing is missing."""
    panels = {name: {name: Curve(whole, part)} for name, (whole, part) in pairs.items()}
    hover = "model without K %{x:.2f}, circuit without K %{y:.2f}"
    labels = "model without K (logits)", "circuit without K (logits)"
    return kinds.dots(panels, title, *labels, hover=hover, diagonal=True).update_layout(showlegend=False)


def roc_curves(
    curves: Mapping[str, tuple[Tensor, Tensor, float]], title: str, points: Mapping[str, tuple[Tensor, Tensor]]
) -> go.Figure:
    """Curves (wrong, right, area) with the diagonal of chance; `points` are drawn as markers without a line."""
    drawn = {"chance": Curve([0, 1], [0, 1], look=Look(TEXT, "dash"))} if curves or points else {}
    drawn |= {f"{name} ({area:.2f})": Curve(wrong, right) for name, (wrong, right, area) in curves.items()}
    for (name, (wrong, right)), symbol in zip(points.items(), ("diamond", "x"), strict=False):
        drawn[name] = Curve(wrong, right, look=Look(PALETTE[3], marker=symbol), mode="markers")
    labels = "share of the other heads that is found", "share of the circuit's heads that is found"
    fig = kinds.lines(drawn, title, *labels, mode="lines", hover="%{x:.0%}: %{y:.0%}", size=10, height=460)
    return fig.update_xaxes(tickformat=".0%").update_yaxes(tickformat=".0%")


def diagram(
    nodes: Mapping[str, tuple[float, float, str]],
    edges: Sequence[tuple[str, str, str]],
    columns: Sequence[str],
    title: str,
) -> go.Figure:
    """A circuit as a drawing. Tokens run to the right, layers upwards. What an arrow carries is written right of it, or
    left of it where another one comes to the same box from below.

    Args:
        nodes: label -> (place of its token in `columns`, height, colour).
        edges: (from, to, what is carried), labels of nodes.
        columns: names of the tokens, under the drawing.
    """
    if not nodes or not columns:
        return empty(title, "Nothing to draw: the circuit has no parts.")
    fig = go.Figure(layout={"height": 460, "showlegend": False})
    low, high = (f(y for _, y, _ in nodes.values()) for f in (min, max))
    unit, rise = (WIDTH - 80) / len(columns), 330 / (high - low + 1)  # px from one token, one layer, to the next
    half = {label: max(width_of(line, 11) for line in label.split("\n")) / 2 + 5 for label in nodes}

    def reach(label: str, across: float, up: float) -> float:
        """From the middle of a box to a little outside it, px, in this direction."""
        wide, tall = half[label], 6.5 * label.count("\n") + 12
        return 3 + math.hypot(across, up) * min(wide / max(abs(across), 1e-9), tall / max(abs(up), 1e-9))

    for start, end, _ in edges:
        (x0, y0, colour), (x1, y1, _) = nodes[start], nodes[end]
        way = (unit * (x1 - x0), rise * (y1 - y0))
        tail = {"ax": x0, "ay": y0, "axref": "x", "ayref": "y", "startstandoff": reach(start, *way)}
        head = {"x": x1, "y": y1, "xref": "x", "yref": "y", "standoff": reach(end, *way)}
        fig.add_annotation(**tail, **head, arrowhead=2, arrowwidth=1.6, arrowcolor=colour, text="")
    for label, (x, y, colour) in nodes.items():
        box = {"bgcolor": colour, "bordercolor": GRID, "borderpad": 4, "font": {"color": on(colour), "size": 11}}
        fig.add_annotation(x=x, y=y, text=label.replace("\n", "<br>"), showarrow=False, **box)
    for start, end, what in edges:  # last, so that no arrow runs over them; beside rising arrows, above level ones
        (x0, y0, _), (x1, y1, _) = nodes[start], nodes[end]
        middle = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "showarrow": False}
        wide, level = width_of(what, 11), abs(y1 - y0) <= 0.2
        gap = unit * abs(x1 - x0) - half[start] - half[end]
        up = (10 if gap > wide else 28) if level else 0  # where the boxes leave too little between them, above those
        under = any(other == end and nodes[sender][1] < y0 for sender, other, _ in edges)  # an arrow on the right
        aside = (half[start] - half[end]) / 2 if level else (wide / 2 + 8) * (-1 if under else 1)
        fig.add_annotation(**middle, text=what, xshift=aside, yshift=up, font={"size": 12, "color": TEXT})
    fig.add_scatter(x=[0, len(columns) - 1], y=[low, high], mode="markers", marker={"opacity": 0}, hoverinfo="skip")
    finish(fig, title)
    fig.update_xaxes(tickvals=list(range(len(columns))), ticktext=list(columns), range=[-0.7, len(columns) - 0.3])
    fig.update_xaxes(showgrid=False, zeroline=False)
    return fig.update_yaxes(visible=False, range=[low - 0.5, high + 0.5])
