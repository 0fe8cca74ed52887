"""Figures about circuits: maps of what patching does, who looks and writes where, and what a circuit is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE
from sae_tutorial.figures.kinds import Curve, Span
from sae_tutorial.figures.looks import GREEN, ORANGE, PINK, VERMILION, Look
from sae_tutorial.figures.style import CLEAR, DIVERGING, PALETTE

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
        written=lambda value: _brief(value) if abs(value) >= show else "",
        hover=f"{y} %{{y}}, {x} %{{x}}: %{{z:.3f}}",
    )
    if fig.data:
        edge = min(0.49, show / fig.layout.coloraxis.cmax / 2)
        (_, blue), (_, grey), (_, vermilion) = DIVERGING
        near = [[0.5 - edge, grey], [0.5 - edge, CLEAR[1][1]], [0.5 + edge, CLEAR[1][1]], [0.5 + edge, grey]]
        fig.update_layout(coloraxis_colorscale=[[0, blue], *near, [1, vermilion]])
    fig.update_yaxes(ticklabelstandoff=5)  # a layer's number beside a cell's would read as one number
    return fig.update_xaxes(tickangle=0 if max(map(len, columns), default=0) < 4 else -60)


def _brief(value: float) -> str:
    """At most four characters, as many as a cell of eight columns holds: ".54", "-.07", "-1.2"."""
    return f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}".replace("0.", ".", 1)


def by_depth(
    lines: Mapping[str, Float[Tensor, " depths"]],
    depths: Sequence[str],
    title: str,
    y: str,
    colours: Mapping[str, str] | None = None,
) -> go.Figure:
    """One line for each name, from the embedding to the end, in its colour of `colours` where it has one."""
    looks = {name: Look(colour) for name, colour in (colours or {}).items()}
    curves = {name: Curve(depths, values, look=looks.get(name)) for name, values in lines.items()}
    return kinds.lines(curves, title, "residual stream, read after", y, level={"_zero": 0}, hover="%{x}: %{y:.2f}")


def two_names(
    right: Float[Tensor, " parts"],
    wrong: Float[Tensor, " parts"],
    names: Sequence[str],
    kinds_: Sequence[str],
    title: str,
    colours: Mapping[str, str] | None = None,
) -> go.Figure:
    """What each component adds to the right name (across) and to the wrong one (up), against other names.

    `kinds_` says what kind each is; those that are "others" are grey, below all dots, and have their names on hover
    only. `colours` are those of kinds. Names stand right of their dots where there is room: what leaves the right name
    alone lies on one upright line.
    """
    curves = {}
    for kind in sorted(dict.fromkeys(kinds_), key=lambda kind: kind != "others"):  # drawn first
        where = [i for i, one in enumerate(kinds_) if one == kind]
        mine = [names[i] for i in where]
        colour = PALETTE[6] if kind == "others" else (colours or {}).get(kind)
        look, text = Look(colour) if colour else None, None if kind == "others" else mine
        curves[kind] = Curve(right[where], wrong[where], about=mine, text=text, look=look)
    hover = "%{customdata}: right %{x:.2f}, wrong %{y:.2f}"
    labels = "added to the right name (logits above other names)", "added to the wrong name (logits)"
    fig = kinds.dots(curves, title, *labels, hover=hover, diagonal=True, size=9, height=460, beside=BESIDE)
    return fig.update_traces(legendrank=2000, selector={"name": "others"})


def looks(shares: Mapping[str, Float[Tensor, " heads"]], heads: Sequence[str], title: str) -> go.Figure:
    """Stacked bars: how the attention of each head is divided over some places; "elsewhere" is a faint grey."""
    colours = iter((GREEN, ORANGE, VERMILION, PINK))  # the receiver green, the giver twice, and what is neither
    groups = {
        name: Curve(heads, values, look=Look("rgba(128, 128, 128, 0.35)" if name == "elsewhere" else next(colours)))
        for name, values in shares.items()
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


def completeness(
    pairs: Mapping[str, Mapping[str, tuple[Float[Tensor, " subsets"], Float[Tensor, " subsets"]]]], title: str
) -> go.Figure:
    """The whole model without K (across) against the circuit without K (up); on the diagonal nothing is missing.

    `pairs`: measure -> what kind of subset K is -> whole model and circuit without it; a panel for each measure, a
    colour and a symbol for each kind of subset.
    """
    symbols = "circle", "diamond-open", "square-open"
    panels = {
        measure: {
            kind: Curve(whole, part, look=Look(PALETTE[2 * i], marker=symbols[i]))
            for i, (kind, (whole, part)) in enumerate(kinds_.items())
        }
        for measure, kinds_ in pairs.items()
    }
    hover = "model without K %{x:.2f}, circuit without K %{y:.2f}"
    labels = "model without K (logits)", "circuit without K (logits)"
    return kinds.dots(panels, title, *labels, hover=hover, diagonal=True, size=9)
