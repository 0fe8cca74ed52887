"""Figures of lesson 07: R² of many SAEs at once, laws and capacities compared, and a head start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sae_tutorial.course.zipf_densities.head_start import Twins
from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import GREY, OTHERS, VERMILION, Look

MARKERS = ("circle", "square", "diamond", "x")  # of laws and capacities
PAPER = (0.982, 0.996)  # R², all ranks and the middle ones, as a summary of Ayonrinde 2024 reports them
MIDDLE_TICKS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def two_r_squared(groups: Mapping[str, Sequence[tuple[float, float, str]]], title: str) -> go.Figure:
    """A dot for each SAE, (R² over all ranks, R² in the middle ones, what it is): a colour for each group; what is
    random is grey and open, a marker for each group of it. The middle's is drawn as 1 − R² on a logarithmic axis,
    upside down: most of it lies so near to 1 that one poor fit would leave the others a line."""
    curves = {name: _squares(rows) for name, rows in groups.items() if rows}
    random = [name for name in curves if name.startswith("random")]
    for name, marker in zip(random, MARKERS):
        curves[name] = replace(curves[name], look=Look(GREY, "dot", f"{marker}-open"))
    curves["a summary of the paper"] = replace(
        _squares([(*PAPER, "a summary of the paper")]), look=Look(VERMILION, "solid", "star")
    )
    y = "R², middle (log scale of 1 − R²)"
    fig = kinds.dots(curves, title, "R², all ranks", y, log="y", hover="%{customdata}", size=9)
    left = [value for curve in curves.values() for value in curve.y]
    ends = (math.log10(1.25 * max(left)), math.log10(min(left) / 1.25))
    return fig.update_yaxes(
        range=ends, tickvals=[1 - r for r in MIDDLE_TICKS], ticktext=[f"{r:g}" for r in MIDDLE_TICKS]
    )


def _squares(rows: Sequence[tuple[float, float, str]]) -> Curve:
    told = [f"{what}<br>all ranks {whole:.3f}, middle {middle:.3f}" for whole, middle, what in rows]
    return Curve([row[0] for row in rows], [1 - row[1] for row in rows], about=told)


def compared(
    found: Mapping[str, Mapping[str, Mapping[str, Ratio]]], title: str, labels: Mapping[str, str], rival: str
) -> go.Figure:
    """What `measured.against` found: a panel for each measure, labelled as told, below each other; a curve for each
    method, a point with whiskers for each place: how much more it has than the rival, in percent. A point that rests on
    two seeds says so: its whiskers are Student's t with one degree of freedom."""
    panels = {labels[measure]: curves for measure, curves in found.items()}
    how: dict[str, Any] = {"hover": "%{customdata}: %{y:+.1f}%", "size": 8, "whiskers": True, "level": {"_same": 0}}
    how["beside"] = ("middle right",)  # not on the whiskers

    def percent(ratio: Ratio) -> list[float]:
        return [100 * end for end in (ratio.mean, ratio.low, ratio.high)]

    def few(ratio: Ratio) -> str:
        return "2 seeds" if ratio.seeds == 2 else ""

    return _by_place(panels, title, [f"% more than {rival}"] * len(panels), 0.2, percent, few, **how)


def budgets(found: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> go.Figure:
    """Rule -> law -> place -> the share of the budget that the law misplaces: a panel for each rule, below each other,
    a curve for each law, a dot for each place."""
    how: dict[str, Any] = {"hover": "%{customdata}: %{y:.0%}", "size": 9}
    fig = _by_place(found, title, "budget misplaced", 0.12, lambda share: [share], **how)
    return fig.update_yaxes(tickformat=".0%", rangemode="tozero")


def _by_place(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str,
    y: str | Sequence[str],
    apart: float,
    ends: Callable[[Any], list[float]],
    says: Callable[[Any], str] | None = None,
    **how: Any,
) -> go.Figure:
    """Panel -> curve -> place -> value, panels below each other, places along x, the dots of a place `apart`; `ends`
    has a value's middle, and the ends of its interval if it has one; `says`, what stands beside it."""
    places = list(dict.fromkeys(place for curves in panels.values() for of in curves.values() for place in of))

    def curve(shift: int, of: Mapping[str, Any]) -> Curve:
        spans: dict[str, Any] = dict(zip(("y", "low", "high"), map(list, zip(*map(ends, of.values())))))
        at = [places.index(place) + apart * (shift - 1) for place in of]
        text = [says(value) for value in of.values()] if says else None
        return Curve(at, **spans, text=text, about=list(of), look=Look(OTHERS[shift], "solid", MARKERS[shift]))

    sets = {
        panel: {name: curve(shift, of) for shift, (name, of) in enumerate(curves.items()) if of}
        for panel, curves in panels.items()
    }
    fig = kinds.dots(sets, title, "", y, height=520, columns=1, **how)
    for row in range(1, len(sets)):
        fig.update_xaxes(showticklabels=False, row=row)
    words = [place.replace(", ", ",<br>") for place in places]
    return fig.update_xaxes(
        tickvals=list(range(len(places))), ticktext=words, tickangle=0, range=[-0.5, len(places) - 0.5]
    )


def shares_after(panels: Mapping[str, Mapping[str, Sequence[Twins]]], title: str, wakes: int) -> go.Figure:
    """Panel -> name -> twins: the share of matches that the half with the head start has over the steps, the mean of
    the twins with a band from the lowest to the highest; and in grey that of the same features without one. The
    others wake up at the step `wakes`."""
    sets = {}
    for panel, groups in panels.items():
        sets[panel] = {name: _band([t.share(1) for t in twins], twins[0].moments) for name, twins in groups.items()}
        plain = next(iter(groups.values()))
        sets[panel]["half A, without"] = _band(
            [t.share(0) for t in plain], plain[0].moments, Look(GREY, "solid", "circle-open")
        )
    hover = "step %{x:,}: %{y:.0%}"
    fig = kinds.lines(
        sets, title, "step", "share of matches", log="x", hover=hover, height=400, mark={"B wakes up": wakes}
    )
    return fig.update_yaxes(tickformat=".0%", range=[0, 1.03])


def _band(shares: Sequence[Sequence[float]], moments: Sequence[int], look: Look | None = None) -> Curve:
    values = np.array(shares)
    return Curve(moments, values.mean(axis=0), values.min(axis=0), values.max(axis=0), look=look)
