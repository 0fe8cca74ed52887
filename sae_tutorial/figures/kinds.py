"""Kinds of figures. A figure that shows nothing special is a call of one of these, and says what its data are called.

lines, dots   curves, with bands or whiskers; clouds of dots, with names beside them
bars          groups side by side or on top of each other, upright or lying
intervals     a dot with a bar for each row
strips        every value as a dot, in a row for each group; or its box
histogram     counts of values
heat          numbers as colours

`lines`, `dots` and `histogram` take a mapping from names to data, or for panels side by side a mapping from panels to
such mappings; `heat` a map or several. Names have the looks of `looks.py`. Where no number is finite, all of
them return a figure that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sae_tutorial.figures.frame import RULE, beside, empty, faint, flattened, levels, log_axis, marks, nothing, panels
from sae_tutorial.figures.frame import whiskers as error_bars
from sae_tutorial.figures.looks import Look, looks
from sae_tutorial.figures.style import CLEAR, DIVERGING, HEIGHT, SEQUENTIAL, TEXT, WIDTH, finish
from sae_tutorial.figures.text import numbers, on, packed, width_of, wrap

Span = tuple[float, float, float]  # middle, low end, high end
NO_FILL = "rgba(0, 0, 0, 0)"
SHORT = ".3~g"  # how a number is written on hover if nothing else is said


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


# ---------------------------------------------------------------------- lines and dots


def lines(
    curves: Curves | Mapping[str, Curves],
    title: str,
    x: Any,
    y: Any,
    *,
    mode: str = "lines+markers",
    log: str = "",
    ticks: Sequence[float] | None = None,
    level: Mapping[str, float] | None = None,
    mark: Mapping[str, float] | None = None,
    hover: str = f"%{{x:{SHORT}}}: %{{y:{SHORT}}}",
    whiskers: bool = False,
    diagonal: bool = False,
    size: float = 7,
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
        columns, height, gap, above: as for `panels`.

    A name that begins with "_" is not in the legend. A `text` is written beside its point where it covers no other.
    """
    if nothing([c.y for c in _all(curves)]):
        return empty(title)
    sets = _by_panel(curves)
    found = looks(name for panel in sets.values() for name in panel)
    fig, places = panels(list(sets), title, x, y, **{"above": 18 if mark else 0} | how)
    room = (500 / (how.get("columns") or len(sets)) - 30, how.get("height", HEIGHT) - 130)
    seen: set[str] = set()
    for place, panel in zip(places, sets.values(), strict=True):
        if diagonal:
            known = [v for c in panel.values() for v in flattened(numbers([c.x, c.y])) if v is not None]
            ends, rule = [min(known), max(known)], RULE | {"dash": "dash"}
            fig.add_scatter(x=ends, y=ends, mode="lines", line=rule, hoverinfo="skip", showlegend=False, **place)
        sides = _sides(panel, mode, log, room)
        for name, curve in panel.items():
            look, xs, ys = curve.look or found[name], numbers(curve.x), numbers(curve.y)
            error = None
            if curve.low is not None and whiskers:
                error = error_bars(ys, numbers(curve.low), numbers(curve.high), look.colour)
            elif curve.low is not None:
                around = {"x": xs + xs[::-1], "y": numbers(curve.high) + numbers(curve.low)[::-1], "fill": "toself"}
                quiet = {"mode": "lines", "line_width": 0, "hoverinfo": "skip", "showlegend": False}
                fig.add_scatter(**around, fillcolor=faint(look.colour, 0.15), legendgroup=name, **quiet, **place)
            marker = {"symbol": look.marker, "size": size, "color": look.colour}
            if curve.colours is not None:
                marker |= {"color": numbers(curve.colours), "colorscale": SEQUENTIAL, "line": RULE | {"width": 0.5}}
            about = curve.about if curve.about is not None else curve.text
            fig.add_scatter(
                x=xs,
                y=ys,
                mode=(curve.mode or mode) + ("+text" if name in sides else ""),
                name=name,
                legendgroup=name,
                showlegend=name not in seen and not name.startswith("_"),
                line={"color": look.colour, "dash": look.dash, "width": 2},
                marker=marker,
                error_y=error,
                customdata=None if about is None else list(about),
                hovertemplate=f"{hover}<extra>{name.lstrip('_')}</extra>",
                **sides.get(name, {}),
                **place,
            )
            seen.add(name)
        levels(fig, level or {}, log="y" in log, named=place is places[-1], **place)
        marks(fig, mark or {}, log="x" in log, **place)
    if "x" in log:
        log_axis(fig.update_xaxes, [numbers(c.x) for c in _all(curves)], ticks)
    if "y" in log:
        log_axis(fig.update_yaxes, [numbers(c.y) for c in _all(curves)])
    return fig.update_layout(showlegend=len([name for name in seen if not name.startswith("_")]) > 1)


def dots(curves: Curves | Mapping[str, Curves], title: str, x: Any, y: Any, **how: Any) -> go.Figure:
    """A dot for each pair of values; all else as for `lines`."""
    return lines(curves, title, x, y, mode="markers", **how)


def _by_panel(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Panels as they are; names without panels in one that has no heading."""
    return dict(data) if isinstance(next(iter(data.values())), Mapping) else {"": data}


def _all(curves: Mapping[str, Any]) -> list[Curve]:
    return [curve for panel in _by_panel(curves).values() for curve in panel.values()] if curves else []


def _sides(panel: Curves, mode: str, log: str, room: tuple[float, float]) -> dict[str, dict]:
    """For each curve with texts, how they are written beside their points."""

    def scaled(value: float | None, axis: str) -> float | None:
        return math.log10(value) if value and axis in log else value

    points = {
        name: [(scaled(x, "x"), scaled(y, "y")) for x, y in zip(numbers(c.x), numbers(c.y), strict=True)]
        for name, c in panel.items()
    }
    written = {name: list(c.text) for name, c in panel.items() if c.text is not None}
    if not written:
        return {}
    known = [p for at in points.values() for p in at if None not in p]
    for name, at in points.items():  # a line is covered as its points are
        if "lines" in (panel[name].mode or mode):
            known += [_between(a, b, i / 20) for a, b in zip(at, at[1:]) if None not in a + b for i in range(1, 20)]
    texts = [(*p, text) for name in written for p, text in zip(points[name], written[name]) if None not in p]
    sides, found = iter(beside(known, texts, room)), {}
    for name, texts_ in written.items():
        places = ["" if None in p else next(sides) for p in points[name]]
        text = [text if side else "" for text, side in zip(texts_, places)]
        font = {"size": 11, "color": TEXT}
        found[name] = {"text": text, "textposition": [side or "top center" for side in places], "textfont": font}
        found[name]["cliponaxis"] = False
    return found


def _between(a: tuple[float, float], b: tuple[float, float], part: float) -> tuple[float, float]:
    return a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])


# ---------------------------------------------------------------------- bars, intervals, strips, histograms


def bars(
    groups: Curves,
    title: str,
    x: str,
    y: str,
    *,
    lying: bool = False,
    stacked: bool = False,
    level: Mapping[str, float] | None = None,
    hover: str = f"%{{x}}: %{{y:{SHORT}}}",
    height: int = HEIGHT,
    above: int = 0,
) -> go.Figure:
    """Bars of one colour for each name; a `Curve` holds keys and their values, `low` and `high` the ends of intervals.

    Upright bars have their keys below, broken into lines or slanted; `lying` ones left, the first on top. With `stacked` the bars
    of a key add up. `colours` gives each bar a colour of its own, `text` is written into the bars.
    """
    if nothing([c.y for c in groups.values()]):
        return empty(title)
    found, names = looks(groups), [key for c in groups.values() for key in numbers(c.x) if isinstance(key, str)]
    room = 0.85 * (WIDTH - 80) / max(len(numbers(c.x)) for c in groups.values())
    narrow = any(width_of(word, 13) > room for name in names for word in name.split())
    fig = go.Figure(layout={"height": height, "barmode": "stack" if stacked else "group", "bargap": 0.2})
    for name, curve in groups.items():
        keys, values = numbers(curve.x), numbers(curve.y)
        if not lying and not narrow:
            keys = [wrap(key, room, 13) if isinstance(key, str) else key for key in keys]
        colour = (curve.look or found[name]).colour
        error = None if curve.low is None else error_bars(values, numbers(curve.low), numbers(curve.high), TEXT)
        fig.add_bar(
            **({"x": values, "y": keys, "error_x": error} if lying else {"x": keys, "y": values, "error_y": error}),
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
    update = fig.update_yaxes if lying else fig.update_xaxes
    if names:
        update(type="category", tickangle=-35 if narrow and not lying else 0)
    return fig.update_yaxes(autorange="reversed") if lying else fig


def intervals(
    groups: Mapping[str, Mapping[str, Span]],
    title: str,
    x: str,
    *,
    mark: Mapping[str, float] | None = None,
    form: str = SHORT,
    about: Mapping[str, str] | None = None,
) -> go.Figure:
    """A row for each (middle, low end, high end): a dot with a bar, in the look of its group. NaN ends: no bar.

    `about` says more of a row on hover.
    """
    if nothing(groups):
        return empty(title)
    groups = {name: rows for name, rows in groups.items() if rows}
    found, labels = looks(groups), [wrap(row, 0.35 * WIDTH, 12) for rows in groups.values() for row in rows]
    fig = go.Figure(layout={"height": 120 + 30 * len(labels)})
    start = 0
    for group, rows in groups.items():
        middle, low, high = (numbers([span[i] for span in rows.values()]) for i in range(3))
        told = f"%{{customdata[0]}}: %{{x:{form}}} (%{{customdata[1]:{form}}} to %{{customdata[2]:{form}}}) "
        fig.add_scatter(
            x=middle,
            y=list(range(start, start + len(rows))),
            mode="markers",
            name=group,
            marker={"size": 9, "color": found[group].colour, "symbol": found[group].marker},
            error_x=error_bars(middle, low, high, found[group].colour),
            customdata=[(row, *ends, (about or {}).get(row, "")) for row, *ends in zip(rows, low, high)],
            hovertemplate=f"{told}%{{customdata[3]}}<extra>{group}</extra>",
        )
        start += len(rows)
    marks(fig, mark or {})
    finish(fig, title, wrap(x, 0.55 * WIDTH, 14), above=18 if mark else 0)
    fig.update_yaxes(tickvals=list(range(start)), ticktext=labels, range=[start - 0.5, -0.5], zeroline=False)
    fig.update_yaxes(tickfont_size=12)
    return fig.update_layout(showlegend=len(groups) > 1)


def strips(
    groups: Mapping[str, Any],
    title: str,
    x: str,
    *,
    box: bool = False,
    points: bool = True,
    mark: Mapping[str, float] | None = None,
    ticks: Sequence[float] | None = None,
    form: str = SHORT,
) -> go.Figure:
    """A row for each group, the first on top: every value as a dot; with `box` their box, and `points` says if the dots
    are there too. With `ticks` the axis is logarithmic."""
    if nothing(groups):
        return empty(title)
    found = looks(groups)
    fig = go.Figure(layout={"height": 125 + (52 if box else 40) * len(groups), "showlegend": False})
    for name, values in groups.items():
        colour = TEXT if name.startswith("random") else found[name].colour
        fig.add_box(
            x=numbers(values),
            name=name,
            orientation="h",
            boxpoints="all" if points else "outliers",
            jitter=0.7,
            pointpos=0,
            marker={"color": colour, "size": 4 if box else 8, "opacity": 0.6 if points else 1.0},
            line={"color": colour if box else NO_FILL, "width": 1.5},
            fillcolor=NO_FILL,
            hoveron="points" if points else "boxes",
            hovertemplate=f"%{{x:{form}}}<extra>{name}</extra>" if points else None,
        )
    marks(fig, mark or {}, log=ticks is not None)
    finish(fig, title, x, above=18 if mark else 0)
    if ticks is not None:
        log_axis(fig.update_xaxes, [], ticks)
    return fig.update_yaxes(autorange="reversed")


def histogram(
    groups: Mapping[str, Any],
    title: str,
    x: Any,
    y: Any,
    *,
    bins: tuple[float, float] | int = 40,
    mark: Mapping[str, float] | None = None,
    hover: str = f"%{{x:{SHORT}}}: %{{y:,}}",
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
            kept = np.asarray([v for v in flattened(numbers(values)) if v is not None], dtype=float)
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


def _edges(values: np.ndarray, bins: tuple[float, float] | int) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if isinstance(bins, int):
        return np.linspace(min(0.0, low), high if high > min(0.0, low) else 1.0, bins + 1)
    start, width = bins
    first = start + width * math.floor((low - start) / width)
    return first + width * np.arange(2 + math.floor((high - first) / width))


# ---------------------------------------------------------------------- maps


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
    written: Callable[[float], str] | None = None,
    hover: str = f"%{{y}}, %{{x}}: %{{z:{SHORT}}}",
    cell: int = 30,
    form: str | None = None,
) -> go.Figure:
    """Maps side by side on one scale of colours, rows down from the top; as many beside each other as have room.

    Args:
        maps: heading -> (rows, columns), all of one shape; one map may have the heading "".
        unit: what a colour says, beside its scale.
        columns, rows: their names; numbers from 0 without.
        signed: from −limit to limit around a neutral zero; else from 0 to limit. Without `limit`, to the largest found.
        written: what is written into a cell; nothing without. NaN is a gap.
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
    for place, name, values in zip(places, maps, every, strict=True):
        text = [["" if math.isnan(v) else written(v) for v in line] for line in values.tolist()] if written else None
        fig.add_heatmap(
            z=values,
            x=list(map(str, range(wide) if columns is None else columns)),
            y=list(map(str, range(tall) if rows is None else rows)),
            coloraxis="coloraxis",
            text=text,
            texttemplate="%{text}" if text else None,
            textfont={"size": 10} if text else None,
            xgap=1 if written else 0,
            ygap=1 if written else 0,
            hovertemplate=f"{hover}<extra>{name}</extra>",
            **place,
        )
    far = limit or max(float(np.nanmax(np.abs(values))) for values in every if np.isfinite(values).any()) or 1.0
    quiet = {"showgrid": False, "zeroline": False, "type": "category", "ticks": ""}
    fig.update_xaxes(**quiet).update_yaxes(**quiet, autorange="reversed")
    axis = {"colorscale": (DIVERGING if written else CLEAR) if signed else SEQUENTIAL, "cmax": far}
    axis |= {"cmin": -far if signed else 0, "colorbar": {"title": {"text": wrap(unit, inner, 13)}, "tickformat": form}}
    return fig.update_layout(coloraxis=axis, showlegend=False)
