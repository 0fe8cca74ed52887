"""Kinds of figures. A figure that shows nothing special is a call of one of these, and says what its data are called.

lines, dots   curves, with bands or whiskers; clouds of dots, with names beside them
bars          groups side by side or on top of each other, upright or lying
intervals     a dot with a bar for each row
strips        every value as a dot, in a row for each group; or its box
histogram     counts of values
heat          numbers as colours

Data have names, and names have the looks of `looks.py`. For panels side by side, `lines`, `dots` and `histogram` take a
mapping from headings to such data, `heat` several maps. Where no number is finite, all return a figure that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sae_tutorial.figures.frame import RULE, apart, empty, faint, flattened, levels, log_axis, marks, nothing, panels
from sae_tutorial.figures.looks import Look, looks
from sae_tutorial.figures.style import CLEAR, DIVERGING, HEIGHT, SEQUENTIAL, TEXT, WIDTH, finish
from sae_tutorial.figures.text import numbers, on, packed, width_of, wrap

Span = tuple[float, float, float]  # middle, low end, high end
Named = Mapping[str, float]
NO_FILL = "rgba(0, 0, 0, 0)"


@dataclass(frozen=True)
class Curve:
    """What is drawn under one name: values y over x; perhaps the ends of an interval around each, a text beside each,
    and what the hover text calls `%{customdata}`; a look, a `mode` and colours of single dots or bars of its own."""

    x: Any
    y: Any
    low: Any = None
    high: Any = None
    text: Sequence[str] | None = None
    about: Sequence[Any] | None = None
    look: Look | None = None
    mode: str | None = None
    colours: Any = None


Curves = Mapping[str, Curve]


def lines(
    curves: Curves | Mapping[str, Curves],
    title: str,
    x: Any,
    y: Any,
    *,
    mode: str = "lines+markers",
    log: str = "",
    ticks: Sequence[float] | None = None,
    level: Named | None = None,
    mark: Named | None = None,
    hover: str = "%{x:.3~g}: %{y:.3~g}",
    whiskers: bool = False,
    diagonal: bool = False,
    size: float = 7,
    beside: Sequence[str] = (),
    **how: Any,
) -> go.Figure:
    """A line for each name, with a marker at each point; `low` and `high` are drawn as a band around it.

    Args:
        x, y: labels of the axes, with units; one for each panel, or the same for all.
        mode: "lines" without markers, "markers" without lines.
        log: which axes are logarithmic, "", "x", "y" or "xy"; `ticks` where a logarithmic x axis has its ticks.
        level, mark: name -> where a dashed line goes across or upright.
        hover: how the hover text of a point says x and y, in plotly's words: "%{x} steps: %{y:.2f}".
        whiskers: draw intervals as bars on each point instead.
        diagonal: a dashed line where x and y are equal.
        beside: sides of `SIDES` on which a text stands rather than on others, the best first.
        columns, height, gap, above: as for `panels`.

    A name that begins with "_" is not in the legend. A `text` is written beside its point where it covers no other.
    """
    sets = _by_panel(curves)
    every = [curve for panel in sets.values() for curve in panel.values()]
    if nothing([curve.y for curve in every]):
        return empty(title)
    found = looks(name for panel in sets.values() for name in panel)
    fig, places = panels(list(sets), title, x, y, **{"above": 18 if mark else 0} | how)
    room = (500 / (how.get("columns") or len(sets)) - 30, how.get("height", HEIGHT) - 130)  # of a panel, px
    seen: set[str] = set()
    for place, panel in zip(places, sets.values(), strict=True):
        if diagonal:
            known = [v for c in panel.values() for v in flattened(numbers([c.x, c.y])) if v is not None]
            ends, rule = [min(known), max(known)], RULE | {"dash": "dash"}
            fig.add_scatter(x=ends, y=ends, mode="lines", line=rule, hoverinfo="skip", showlegend=False, **place)
        sides = _beside(panel, mode, log, room, beside, diagonal)
        for name, curve in panel.items():
            shown = name not in seen and not name.startswith("_")
            seen.add(name)
            look, xs, ys = curve.look or found[name], numbers(curve.x), numbers(curve.y)
            low, high = numbers(curve.low), numbers(curve.high)
            if low is not None and not whiskers:
                around = {"x": xs + xs[::-1], "y": high + low[::-1], "fill": "toself", "legendgroup": name}
                quiet = {"mode": "lines", "line_width": 0, "hoverinfo": "skip", "showlegend": False}
                fig.add_scatter(**around, fillcolor=faint(look.colour, 0.15), **quiet, **place)
            marker = {"symbol": look.marker, "size": size, "color": look.colour}
            if curve.colours is not None:
                marker |= {"color": numbers(curve.colours), "colorscale": SEQUENTIAL, "line": RULE | {"width": 0.5}}
            line = {"color": look.colour, "dash": look.dash, "width": 2}
            fig.add_scatter(
                x=xs,
                y=ys,
                mode=(curve.mode or mode) + ("+text" if name in sides else ""),
                name=name,
                legendgroup=name,
                showlegend=shown,
                line=line,
                marker=marker,
                error_y=_whiskers(ys, low, high, look.colour) if whiskers else None,
                customdata=curve.about if curve.about is not None else curve.text,
                hovertemplate=f"{hover}<extra>{name.lstrip('_')}</extra>",
                **sides.get(name, {}),
                **place,
            )
        names = level if place is places[-1] else {f"_{name}": at for name, at in (level or {}).items()}
        levels(fig, names or {}, log="y" in log, **place)
        marks(fig, mark or {}, log="x" in log, **place)
    if "x" in log:
        log_axis(fig.update_xaxes, [numbers(curve.x) for curve in every], ticks)
    if "y" in log:
        log_axis(fig.update_yaxes, [numbers(curve.y) for curve in every])
    return fig.update_layout(showlegend=sum(not name.startswith("_") for name in seen) > 1)


def dots(curves: Curves | Mapping[str, Curves], title: str, x: Any, y: Any, **how: Any) -> go.Figure:
    """A dot for each pair of values; all else as for `lines`."""
    return lines(curves, title, x, y, mode="markers", **how)


def bars(
    groups: Curves,
    title: str,
    x: str,
    y: str,
    *,
    lying: bool = False,
    stacked: bool = False,
    level: Named | None = None,
    hover: str = "%{x}: %{y:.3~g}",
    height: int = HEIGHT,
    above: int = 0,
) -> go.Figure:
    """Bars of one colour for each name; a `Curve` holds keys and their values, `low` and `high` the ends of intervals.

    Upright bars have their keys below, in lines or slanted; `lying` ones left, the first on top. With `stacked` the
    bars of a key add up. `colours` gives each bar a colour of its own, `text` is written into the bars.
    """
    if nothing([curve.y for curve in groups.values()]):
        return empty(title)
    found, keys = looks(groups), {name: numbers(curve.x) for name, curve in groups.items()}
    room = 0.85 * (WIDTH - 80) / max(map(len, keys.values()))
    words = [key for own in keys.values() for key in own if isinstance(key, str)]
    narrow = lying or any(width_of(word, 13) > room for key in words for word in key.split())
    fig = go.Figure(layout={"height": height, "barmode": "stack" if stacked else "group", "bargap": 0.2})
    for name, curve in groups.items():
        own = [key if narrow or not isinstance(key, str) else wrap(key, room, 13) for key in keys[name]]
        values, colour = numbers(curve.y), (curve.look or found[name]).colour
        error = _whiskers(values, numbers(curve.low), numbers(curve.high), TEXT)
        fig.add_bar(
            **({"x": values, "y": own, "error_x": error} if lying else {"x": own, "y": values, "error_y": error}),
            orientation="h" if lying else "v",
            name=name,
            marker_color=colour if curve.colours is None else list(curve.colours),
            text=curve.text,
            textposition="inside" if curve.text else None,
            insidetextanchor="middle",
            textangle=0,
            insidetextfont={"color": on(colour)} if curve.text else None,
            customdata=curve.about,
            hovertemplate=f"{hover}<extra>{name}</extra>",
        )
    levels(fig, level or {})
    finish(fig, title, x, y, above=above).update_layout(showlegend=len(groups) > 1, legend_traceorder="normal")
    if lying:
        return fig.update_yaxes(type="category", autorange="reversed")
    return fig.update_xaxes(type="category", tickangle=-35 if narrow else 0) if words else fig


def intervals(
    groups: Mapping[str, Mapping[str, Span]],
    title: str,
    x: str,
    *,
    mark: Named | None = None,
    form: str = ".3~g",
    about: Mapping[str, str] | None = None,
    shared: bool = False,
) -> go.Figure:
    """A row for each (middle, low end, high end): a dot with a bar, in the look of its group. NaN ends: no bar.

    `about` says more of a row on hover. With `shared`, groups have the rows of the first, in any order: a row holds a
    dot for each of them.
    """
    if nothing(groups):
        return empty(title)
    groups = {name: rows for name, rows in groups.items() if rows}
    of_rows = [next(iter(groups.values()))] if shared else list(groups.values())
    found, labels = looks(groups), [wrap(row, 0.35 * WIDTH, 12) for rows in of_rows for row in rows]
    tall = max(30, 16 * len(groups)) if shared else 30
    step = min(0.2, 0.64 / max(1, len(groups) - 1))  # between the dots of a row, so that rows stay apart
    fig = go.Figure(layout={"height": 120 + tall * len(labels), "showlegend": len(groups) > 1})
    told = f"%{{customdata[0]}}: %{{x:{form}}} (%{{customdata[1]:{form}}} to %{{customdata[2]:{form}}}) "
    start: float = -step / 2 * (len(groups) - 1) if shared else 0  # a dot's row, or a little above it
    for group, rows in groups.items():
        middle, low, high = (numbers([span[i] for span in rows.values()]) for i in range(3))
        row_of = {row: i for i, row in enumerate(of_rows[0] if shared else rows)}
        fig.add_scatter(
            x=middle,
            y=[start + row_of[row] for row in rows],
            mode="markers",
            name=group,
            marker={"size": 9, "color": found[group].colour, "symbol": found[group].marker},
            error_x=_whiskers(middle, low, high, found[group].colour),
            customdata=[(row, *ends, (about or {}).get(row, "")) for row, *ends in zip(rows, low, high)],
            hovertemplate=f"{told}%{{customdata[3]}}<extra>{group}</extra>",
        )
        start += step if shared else len(rows)
    marks(fig, mark or {})
    finish(fig, title, wrap(x, 0.55 * WIDTH, 14), above=18 if mark else 0)
    rows_ = {"tickvals": list(range(len(labels))), "ticktext": labels, "tickfont": {"size": 12}, "zeroline": False}
    return fig.update_yaxes(**rows_, range=[len(labels) - 0.5, -0.5])


def strips(
    groups: Mapping[str, Any],
    title: str,
    x: str,
    *,
    box: bool = False,
    points: bool = True,
    mark: Named | None = None,
    ticks: Sequence[float] | None = None,
    form: str = ".3~g",
) -> go.Figure:
    """A row for each group, the first on top: every value as a dot; with `box` their box, and `points` says if the dots
    are there too. With `ticks` the axis is logarithmic."""
    if nothing(groups):
        return empty(title)
    found = looks(groups)
    fig = go.Figure(layout={"height": 125 + (52 if box else 40) * len(groups), "showlegend": False})
    for name, values in groups.items():
        colour = found[name].colour
        how = (
            {"boxpoints": "all", "jitter": 0.7, "pointpos": 0, "hoveron": "points"} if points else {"hoveron": "boxes"}
        )
        fig.add_box(
            x=numbers(values),
            name=name,
            orientation="h",
            marker={"color": colour, "size": 4 if box else 8, "opacity": 0.6 if points else 1.0},
            line={"color": colour if box else NO_FILL, "width": 1.5},
            fillcolor=NO_FILL,
            hovertemplate=f"%{{x:{form}}}<extra>{name}</extra>" if points else None,
            **how,
        )
    marks(fig, mark or {}, log=ticks is not None)
    finish(fig, title, x, above=18 if mark else 0).update_yaxes(autorange="reversed")
    if ticks is not None:
        log_axis(fig.update_xaxes, [], ticks)
    return fig


def histogram(
    groups: Mapping[str, Any],
    title: str,
    x: Any,
    y: Any,
    *,
    bins: tuple[float, float] | int = 40,
    mark: Named | None = None,
    hover: str = "%{x:.3~g}: %{y:,}",
    above: int = 0,
) -> go.Figure:
    """How many values lie in each bin, names over each other in one panel, seen through.

    `bins`: (where one begins, its width), or how many there are between 0 and the largest value.
    """
    if nothing(groups):
        return empty(title)
    sets = _by_panel(groups)
    found = looks(name for panel in sets.values() for name in panel)
    fig, places = panels(list(sets), title, x, y, above=18 if mark else above)
    for place, panel in zip(places, sets.values(), strict=True):
        for name, values in panel.items():
            kept = np.array([v for v in flattened(numbers(values)) if v is not None], float)
            counts, edges = np.histogram(kept, _edges(kept, bins))
            fig.add_bar(
                x=numbers((edges[1:] + edges[:-1]) / 2),
                y=counts.tolist(),
                width=numbers(0.94 * np.diff(edges)),
                name=name,
                marker={"color": found[name].colour, "line_width": 0},
                opacity=0.65 if len(panel) > 1 else 1.0,
                hovertemplate=f"{hover}<extra>{name}</extra>",
                **place,
            )
        marks(fig, mark or {}, **place)
    return fig.update_layout(barmode="overlay", showlegend=any(len(panel) > 1 for panel in sets.values()))


def heat(
    maps: Mapping[str, Any],
    title: str,
    x: str,
    y: str,
    *,
    unit: str,
    columns: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    signed: bool = False,
    limit: float | None = None,
    written: str | Callable[[float], str] | None = None,
    hover: str = "%{y}, %{x}: %{z:.3~g}",
    cell: int = 30,
    form: str | None = None,
) -> go.Figure:
    """Maps side by side on one scale of colours, rows down from the top; as many beside each other as have room.

    Args:
        maps: heading -> (rows, columns), all of one shape; one map may have the heading "".
        unit: what a colour says, beside its scale.
        columns, rows: their names; numbers from 0 without.
        signed: from −limit to limit around a neutral zero; else from 0 to limit. Without `limit`, to the largest found.
        written: how a number is written into its cell, as ".2f" or a function; not at all without. NaN is a gap.
        cell: height of a row, px, at least. form: how the scale's ticks are written, as ".0%".
    """
    if nothing(maps):
        return empty(title)
    every = [packed(values) for values in maps.values()]
    tall, wide = every[0].shape
    side_by_side = min(max(1, int((WIDTH - 130) / ((17 if written else 10) * wide + 20))), len(maps))
    n_rows = -(-len(maps) // side_by_side)
    inner = max(150, n_rows * tall * cell + 60 * (n_rows - 1))  # the scale has a title that needs some height
    fig, places = panels(list(maps), title, x, y, columns=side_by_side, height=inner + 110, gap=0.03)
    say = f"{{:{written}}}".format if isinstance(written, str) else written
    for place, name, values in zip(places, maps, every, strict=True):
        told: dict[str, Any] = {}
        if say:
            text = [["" if math.isnan(v) else say(v) for v in line] for line in values.tolist()]
            told = {"text": text, "texttemplate": "%{text}", "textfont": {"size": 10}, "xgap": 1, "ygap": 1}
        fig.add_heatmap(
            z=values,
            x=list(map(str, range(wide) if columns is None else columns)),
            y=list(map(str, range(tall) if rows is None else rows)),
            coloraxis="coloraxis",
            hovertemplate=f"{hover}<extra>{name}</extra>",
            **told,
            **place,
        )
    far = limit or max(float(np.nanmax(np.abs(values))) for values in every if np.isfinite(values).any()) or 1.0
    quiet = {"showgrid": False, "zeroline": False, "type": "category", "ticks": ""}
    fig.update_xaxes(**quiet).update_yaxes(**quiet, autorange="reversed")
    scale = (DIVERGING if written else CLEAR) if signed else SEQUENTIAL
    bar = {"title": {"text": apart(wrap(unit, inner, 13))}, "tickformat": form}
    axis = {"colorscale": scale, "cmin": -far if signed else 0, "cmax": far, "colorbar": bar}
    return fig.update_layout(coloraxis=axis, showlegend=False)


# ---------------------------------------------------------------------- how they do it


def _by_panel(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Panels as they are; names without panels in one that has no heading."""
    return dict(data) if isinstance(next(iter(data.values()), None), Mapping) else {"": data}


def _whiskers(middle: list, low: list | None, high: list | None, colour: str) -> dict | None:
    """Plotly's error bars, from where they end. An end that is not known (None) has no bar."""
    if low is None or high is None:
        return None
    above = [0 if h is None or m is None else h - m for m, h in zip(middle, high)]
    below = [0 if lo is None or m is None else m - lo for m, lo in zip(middle, low)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": colour, "thickness": 1.5}


def _edges(values: np.ndarray, bins: tuple[float, float] | int) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if isinstance(bins, int):
        return np.linspace(min(0.0, low), high if high > min(0.0, low) else 1.0, bins + 1)
    start, width = bins
    first = start + width * math.floor((low - start) / width)
    return first + width * np.arange(2 + math.floor((high - first) / width))


# Where a text can stand beside its point, the best place first.
SIDES = {"top center": (0, 1), "bottom center": (0, -1), "middle right": (1, 0), "middle left": (-1, 0)}
SIDES |= {"top right": (1, 1), "bottom left": (-1, -1), "top left": (-1, 1), "bottom right": (1, -1)}


def _beside(
    panel: Curves, mode: str, log: str, room: tuple[float, float], first: Sequence[str] = (), diagonal: bool = False
) -> dict[str, dict[str, Any]]:
    """How the texts of each curve are written: beside their points, where they cover no point, no line and no earlier
    text, nor with `diagonal` the line x = y; not at all where there is no room. `room` is what the points spread over,
    px; `first` are the best sides."""
    if all(curve.text is None for curve in panel.values()):
        return {}
    points = {name: _scaled(curve, log) for name, curve in panel.items()}
    low, high = (f(np.concatenate(list(points.values())), axis=0) for f in (np.nanmin, np.nanmax))
    pixels = {name: (at - low) / np.where(high > low, high - low, 1) * room for name, at in points.items()}
    rule = np.linspace(low.min(), high.max(), 100 if diagonal else 0)[:, None].repeat(2, 1)
    rule = (rule - low) / np.where(high > low, high - low, 1) * room
    covered = [
        np.linspace(at[:-1], at[1:], 20).reshape(-1, 2) if "lines" in (panel[name].mode or mode) and len(at) > 1 else at
        for name, at in pixels.items()
    ]
    boxes = [np.concatenate([at - 3.5, at + 3.5], axis=1) for at in covered]
    boxes.append(np.concatenate([rule - 1, rule + 1], axis=1))
    taken, found = np.concatenate(boxes), {}
    ways = {side: SIDES[side] for side in (*first, *SIDES)}
    for name, curve in panel.items():
        places = []
        for at, text in zip(pixels[name], curve.text or ()):
            half = np.array([width_of(text, 11) / 2, 6.0])
            spots = {side: at + np.array(way) * (half + [7, 6]) for side, way in ways.items()}
            corners = {side: np.concatenate([middle - half, middle + half]) for side, middle in spots.items()}
            meets = {side: (box[:2] < taken[:, 2:]) & (taken[:, :2] < box[2:]) for side, box in corners.items()}
            free = [side for side, both in meets.items() if text and np.isfinite(at).all() and not both.all(1).any()]
            places.append(free[0] if free else "")
            taken = np.concatenate([taken, *(corners[side][None] for side in free[:1])])
        if curve.text is not None:
            text_ = [text if side else "" for text, side in zip(curve.text, places)]
            where = {"textposition": [side or "top center" for side in places], "cliponaxis": False}
            found[name] = {"text": text_, "textfont": {"size": 11, "color": TEXT}, **where}
    return found


def _scaled(curve: Curve, log: str) -> np.ndarray:
    """The points of a curve as they lie on the axes, (n, 2); NaN where there is none."""
    x, y = (np.array([math.nan if v is None else v for v in numbers(one)], float) for one in (curve.x, curve.y))
    return np.stack([np.log10(x) if "x" in log else x, np.log10(y) if "y" in log else y], axis=1)
