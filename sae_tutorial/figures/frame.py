"""What figures stand on: panels, lines across and upright, logarithmic axes, names beside dots, and what to show where
there is nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import HEIGHT, LINE, TEXT, WIDTH, finish
from sae_tutorial.figures.text import numbers, width_of, wrap

RULE = {"color": TEXT, "width": 1}  # of lines that are no data
DASHES = ("dash", "dot", "dashdot")
NOTHING = "Nothing to draw: there is no finite number here."


# ---------------------------------------------------------------------- nothing there


def nothing(*data: Any) -> bool:
    """Is there no finite number in any of these, however deep in mappings, sequences, tensors and data classes?"""
    return not any(_finite(one) for one in data)


def _finite(data: Any) -> bool:
    if is_dataclass(data):
        return any(_finite(value) for value in vars(data).values())
    if isinstance(data, Mapping):
        return any(_finite(value) for value in data.values())
    if isinstance(data, Tensor):
        return bool(data.isfinite().any())
    if isinstance(data, np.ndarray | Sequence) and not isinstance(data, str):
        return any(_finite(value) for value in data)
    return isinstance(data, int | float | np.number) and math.isfinite(data)


def empty(title: str, why: str = NOTHING) -> go.Figure:
    """A figure without data that says `why` there are none."""
    fig = finish(go.Figure(layout={"height": 160}), title)
    fig.update_xaxes(visible=False).update_yaxes(visible=False)
    middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    return fig.add_annotation(text=wrap(why, WIDTH - 100, 13), **middle)


# ---------------------------------------------------------------------- panels


def panels(
    names: Sequence[str],
    title: str,
    x: str | Sequence[str] = "",
    y: str | Sequence[str] = "",
    *,
    columns: int | None = None,
    height: int = HEIGHT,
    above: int = 0,
    gap: float = 0.05,
    **how: Any,
) -> tuple[go.Figure, list[dict[str, int]]]:
    """An empty figure with a panel for each name, and where they are: `fig.add_trace(trace, **places[0])`.

    A label that is one string belongs to all panels, and stands below the lowest and left of the leftmost; a sequence
    has one for each. Headings are broken into lines that fit. `gap` is the room between panels as a share of the width;
    `how` goes to plotly's `make_subplots`.
    """
    columns = min(columns or len(names), len(names))
    rows, own_y = -(-len(names) // columns), not isinstance(y, str)
    heads = [wrap(name, (WIDTH - 110) / columns - 12, 13) for name in names]
    room = LINE * max(head.count("<br>") + bool(head) for head in heads)
    between = {"horizontal_spacing": gap + 0.07 * own_y, "vertical_spacing": (38 + room) / height if rows > 1 else 0}
    fig = make_subplots(rows, columns, subplot_titles=heads, **{"shared_yaxes": not own_y} | between | how)
    fig.update_annotations(font_size=13, yshift=above if room else 0).update_layout(height=height)
    finish(fig, title, above=above + room)
    places = [{"row": i // columns + 1, "col": i % columns + 1} for i in range(len(names))]
    for i, place in enumerate(places):
        lowest, leftmost = i + columns >= len(names), place["col"] == 1
        fig.update_xaxes(title_text=(x if lowest else "") if isinstance(x, str) else x[i], **place)
        fig.update_yaxes(title_text=(y if leftmost else "") if isinstance(y, str) else y[i], **place)
    return fig, places


# ---------------------------------------------------------------------- lines that are no data, axes


def levels(
    fig: go.Figure, at: Mapping[str, float], *, log: bool = False, end: float = 1, named: bool = True, **place: int
) -> None:
    """Dashed lines across at some heights, with their names on them, the last letter at this share of the width; of
    several, the lowest has its name below.

    A name that begins with "_" is not written.
    """
    lowest = min(at.values(), default=0) if len(at) > 1 else -math.inf
    for i, (name, value) in enumerate(at.items()):
        fig.add_hline(value, line=RULE | {"dash": DASHES[i % 3]}, **place)
        if named and not name.startswith("_"):
            x, y = _axes(fig, place)
            over = {"xref": f"{x} domain", "yref": y, "xanchor": "right", "showarrow": False}
            over["yanchor"] = "top" if value == lowest else "bottom"
            height = math.log10(value) if log else value  # annotations want the logarithm there
            fig.add_annotation(text=name, x=end, y=height, font_size=12, **over)


def marks(fig: go.Figure, at: Mapping[str, float], *, log: bool = False, colour: str = TEXT, **place: int) -> None:
    """Dashed upright lines, with their names above the panel: neighbours to the left and right of their lines."""
    order = sorted(at, key=lambda name: at[name])
    for i, name in enumerate(order):
        fig.add_vline(at[name], line={"color": colour, "width": 1.5, "dash": DASHES[i % 3]}, **place)
        x, y = _axes(fig, place)
        side = "center" if len(order) == 1 else ("right" if i % 2 == 0 else "left")
        top = {"y": 1, "yref": f"{y} domain", "yanchor": "bottom", "xref": x, "xanchor": side, "showarrow": False}
        value = math.log10(at[name]) if log else at[name]
        fig.add_annotation(text=name, x=value, font={"size": 12, "color": colour}, **top)


def _axes(fig: go.Figure, place: Mapping[str, int]) -> tuple[str, str]:
    """What plotly calls the axes of a panel, as ("x2", "y2")."""
    if not place:
        return "x", "y"
    cell = fig.get_subplot(place["row"], place["col"])
    return cell.yaxis.anchor, cell.xaxis.anchor


def log_axis(update: Callable[..., Any], values: Any, ticks: Sequence[float] | None = None) -> None:
    """Make an axis logarithmic, with ticks where told; else at powers of ten, and where there are few of those at what
    was measured, or at numbers between."""
    flat = sorted({v for v in flattened(numbers(values)) if v is not None and v > 0} or {1.0})
    low, high = math.log10(flat[0]), math.log10(flat[-1])
    if ticks is None and high - low > 2.2:
        update(type="log", dtick=1, exponentformat="power", minor={"ticks": "outside", "ticklen": 3})
        return
    between = (1, 2, 5) if high - low > 1 else (1, 1.5, 2, 3, 5, 7)
    steps = [m * 10.0**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for m in between]
    near = [tick for tick in steps if low - 0.31 < math.log10(tick) < high + 0.31]
    update(type="log", tickvals=ticks or (flat if len(flat) <= 8 else near), tickformat=",.3~g")


def flattened(values: Any) -> list:
    """All that nested lists hold."""
    return [one for value in values for one in flattened(value)] if isinstance(values, list) else [values]


def whiskers(middle: list, low: list, high: list, colour: str) -> dict:
    """Plotly's error bars, from where they end. An end that is not known (None) has no bar."""
    above = [0 if h is None or m is None else h - m for m, h in zip(middle, high)]
    below = [0 if lo is None or m is None else m - lo for m, lo in zip(middle, low)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": colour, "thickness": 1.5}


def faint(colour: str, alpha: float) -> str:
    """A colour #RRGGBB, seen through."""
    return "rgba({}, {}, {}, {})".format(*bytes.fromhex(colour[1:]), alpha)


# ---------------------------------------------------------------------- names beside dots

SIDES = {"top center": (0, 1), "bottom center": (0, -1), "middle right": (1, 0), "middle left": (-1, 0)}
SIDES |= {"top right": (1, 1), "bottom left": (-1, -1), "top left": (-1, 1), "bottom right": (1, -1)}
Box = tuple[float, float, float, float]


def beside(
    dots: Sequence[tuple[float, float]],
    texts: Sequence[tuple[float, float, str]],
    room: tuple[float, float],
    size: float = 11,
) -> list[str]:
    """On which side of its dot each text can be written, in plotly's words, without covering a dot or an earlier text.

    "" where there is no room. `dots` are the places of all dots, those of `texts` (x, y, text) among them, `room` the
    px that they spread over.
    """
    ends = [[f(dot[axis] for dot in dots) for f in (min, max)] for axis in (0, 1)] if dots else []
    px = [room[axis] / ((high - low) or 1) for axis, (low, high) in enumerate(ends)]
    taken = [_box(x * px[0], y * px[1], 7, 7) for x, y in dots]
    found = []
    for x, y, text in texts:
        wide, tall = width_of(text, size), size + 1
        boxes = {
            side: _box(x * px[0] + right * (wide / 2 + 7), y * px[1] + up * (tall / 2 + 6), wide, tall)
            for side, (right, up) in (SIDES if text else {}).items()
        }
        free = [side for side, box in boxes.items() if not any(_meet(box, other) for other in taken)]
        found.append(free[0] if free else "")
        taken += [boxes[side] for side in free[:1]]
    return found


def _box(x: float, y: float, wide: float, tall: float) -> Box:
    return x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
