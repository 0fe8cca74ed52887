"""What figures stand on: panels, lines across and upright, logarithmic axes; and what to show where nothing is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from torch import Tensor

from sae_tutorial.figures.style import HEIGHT, LINE, SEQUENTIAL, TEXT, WIDTH, finish
from sae_tutorial.figures.text import numbers, wrap

RULE = {"color": TEXT, "width": 1}  # of lines that are no data
DASHES = ("dash", "dot", "dashdot")
IN_FULL = ",.3~r"  # ticks without exponents: "g" would write 1,000 as 1e+3
NOTHING = "Nothing to draw: there is no finite number here."


def nothing(*data: Any) -> bool:
    """Is there no finite number in any of these, however deep in mappings, sequences, tensors and data classes?"""
    return not any(_finite(one) for one in data)


def _finite(data: Any) -> bool:
    if is_dataclass(data) or isinstance(data, Mapping):
        return any(_finite(value) for value in (data if isinstance(data, Mapping) else vars(data)).values())
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
) -> tuple[go.Figure, list[dict[str, Any]]]:
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
    places: list[dict[str, Any]] = [{"row": i // columns + 1, "col": i % columns + 1} for i in range(len(names))]
    for i, place in enumerate(places):
        lowest, leftmost = i + columns >= len(names), place["col"] == 1
        fig.update_xaxes(title_text=(x if lowest else "") if isinstance(x, str) else x[i], **place)
        fig.update_yaxes(title_text=(y if leftmost else "") if isinstance(y, str) else y[i], **place)
    return fig, places


def apart(title: str) -> str:
    """A colour scale's title with an empty line before it: without it, plotly sets the title against the numbers."""
    return f"\u200b<br>{title}" if title else ""


def levels(fig: go.Figure, at: Mapping[str, float], *, log: bool = False, end: float = 1, **place: Any) -> None:
    """Dashed lines across at some heights, their names on them, the last letter at this share of the width.

    Of several, the lowest has its name below. A name that begins with "_" is not written.
    """
    lowest = min(at.values(), default=0) if len(at) > 1 else -math.inf
    for i, (name, value) in enumerate(at.items()):
        note: dict[str, Any] = {}
        if not name.startswith("_"):
            where = {"x": end, "xanchor": "right", "yanchor": "top" if value == lowest else "bottom"}
            note = {"annotation": {"text": name, "font_size": 12, **where}}
            note["annotation"]["y"] = math.log10(value) if log else value  # annotations want the logarithm there
        fig.add_hline(value, line=RULE | {"dash": DASHES[i % 3]}, **note, **place)


def marks(fig: go.Figure, at: Mapping[str, float], *, log: bool = False, colour: str = TEXT, **place: Any) -> None:
    """Dashed upright lines, their names above the panel: neighbours to the left and right of their lines."""
    order = sorted(at, key=lambda name: at[name])
    for i, name in enumerate(order):
        side = "center" if len(order) == 1 else ("right" if i % 2 == 0 else "left")
        note = {"text": name, "font": {"size": 12, "color": colour}, "xanchor": side, "y": 1, "yanchor": "bottom"}
        note["x"] = math.log10(at[name]) if log else at[name]
        fig.add_vline(at[name], line={"color": colour, "width": 1.5, "dash": DASHES[i % 3]}, annotation=note, **place)


def log_axis(update: Callable[..., Any], values: Any, ticks: Sequence[float] | None = None) -> None:
    """Make an axis logarithmic, with ticks where told; else at powers of ten, and where there are few of those at what
    was measured, or at numbers between. From 0.001 to 10,000 numbers are written in full, beyond as powers of ten."""
    flat = sorted({v for v in flattened(numbers(values)) if v is not None and v > 0} or {1.0})
    low, high = math.log10(flat[0]), math.log10(flat[-1])
    if ticks is None and high - low > 2.2:
        form: dict[str, Any] = {"tickformat": IN_FULL} if low >= -3 and high <= 4 else {"exponentformat": "power"}
        update(type="log", dtick=1, minor={"ticks": "outside", "ticklen": 3}, **form)
        return
    between = (1, 2, 5) if high - low > 1 else (1, 1.5, 2, 3, 5, 7)
    steps = [m * 10.0**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for m in between]
    near = [tick for tick in steps if low - 0.31 < math.log10(tick) < high + 0.31]
    at = list(ticks or (flat if len(flat) <= 8 else near))
    form = {"tickformat": IN_FULL} if min(at) >= 1e-4 else {"ticktext": [times_power(tick) for tick in at]}
    update(type="log", tickvals=at, **form)


def times_power(value: float) -> str:
    """A number as a tick with a power of ten: 2·10⁻⁵."""
    digits, exponent = f"{value:.2e}".split("e")
    factor = "" if float(digits) == 1 else f"{float(digits):g}·"
    return f"{factor}10<sup>{int(exponent)}</sup>".replace("-", "−")


def flattened(values: Any) -> list:
    """All that nested lists hold."""
    return [one for value in values for one in flattened(value)] if isinstance(values, list) else [values]


def ink(share: float) -> str:
    """Black or white for text on a map: the one that has more contrast, at least 4.5:1, with the colour that SEQUENTIAL
    has at this share of its scale. Black is pure, as no softer one is enough on the middle. NaN: the theme's colour."""
    if not math.isfinite(share):
        return TEXT
    ((red, green, blue),) = sample_colorscale(SEQUENTIAL, [min(max(share, 0.0), 1.0)], colortype="tuple")
    luminance = sum(w * _linear(part) for w, part in zip((0.2126, 0.7152, 0.0722), (red, green, blue)))
    return "#000000" if luminance > 0.179 else "#FFFFFF"  # at 0.179 both have the same contrast. Source: WCAG 2.1


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def faint(colour: str, alpha: float) -> str:
    """A colour #RRGGBB, seen through."""
    return "rgba({}, {}, {}, {})".format(*bytes.fromhex(colour[1:]), alpha)
