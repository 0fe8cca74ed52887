"""Figures of lesson 07: R² of many SAEs at once, laws and capacities compared, and a head start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def two_r_squared(groups: Mapping[str, Sequence[tuple[float, float, str]]], title: str) -> go.Figure:
    """A dot for each SAE, (R² over all ranks, R² in the middle ones, what it is): a colour for each group; what is
    random is an open grey circle."""
    curves = {
        name: Curve([row[0] for row in rows], [row[1] for row in rows], about=[row[2] for row in rows])
        for name, rows in groups.items()
        if rows
    }
    for name in curves:
        if name.startswith("random"):
            curves[name] = replace(curves[name], look=Look(GREY, "dot", "circle-open"))
    curves["a summary of the paper"] = Curve([PAPER[0]], [PAPER[1]], look=Look(VERMILION, "solid", "star"))
    hover = "%{customdata}<br>all ranks %{x:.3f}, middle %{y:.3f}"
    return kinds.dots(curves, title, "R², all ranks", "R², middle ranks", hover=hover, size=9)


def compared(
    found: Mapping[str, Mapping[str, Mapping[str, Ratio]]], title: str, labels: Mapping[str, str], rival: str
) -> go.Figure:
    """What `measured.against` found: a panel for each measure, labelled as told, below each other; a curve for each
    method, a point with whiskers for each place: how much more it has than the rival, in percent."""
    places = list(dict.fromkeys(place for curves in found.values() for of in curves.values() for place in of))
    sets = {
        labels[measure]: {
            name: Curve(
                [places.index(place) + 0.2 * (shift - 1) for place in of],
                [100 * ratio.mean for ratio in of.values()],
                [100 * ratio.low for ratio in of.values()],
                [100 * ratio.high for ratio in of.values()],
                about=list(of),
                look=Look(OTHERS[shift], "solid", MARKERS[shift]),
            )
            for shift, (name, of) in enumerate(curves.items())
        }
        for measure, curves in found.items()
    }
    how: dict[str, Any] = {"hover": "%{customdata}: %{y:+.1f}%", "height": 520, "size": 8, "columns": 1}
    fig = kinds.dots(sets, title, "", [f"% more than {rival}"] * len(sets), whiskers=True, level={"_same": 0}, **how)
    for row in range(1, len(sets)):
        fig.update_xaxes(showticklabels=False, row=row)
    return _at(fig, places)


def budgets(found: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> go.Figure:
    """Rule -> law -> place -> the share of the budget that the law misplaces: a panel for each rule, below each other,
    a curve for each law, a dot for each place."""
    places = list(dict.fromkeys(place for laws in found.values() for of in laws.values() for place in of))
    sets = {
        rule: {
            law: Curve(
                [places.index(place) + 0.12 * (shift - 1) for place in of],
                list(of.values()),
                about=list(of),
                look=Look(OTHERS[shift], "solid", MARKERS[shift]),
            )
            for shift, (law, of) in enumerate(laws.items())
        }
        for rule, laws in found.items()
    }
    how: dict[str, Any] = {"hover": "%{customdata}: %{y:.0%}", "height": 520, "size": 9, "columns": 1}
    fig = kinds.dots(sets, title, "", "budget misplaced", **how).update_yaxes(tickformat=".0%", rangemode="tozero")
    for row in range(1, len(sets)):
        fig.update_xaxes(showticklabels=False, row=row)
    return _at(fig, places)


def _at(fig: go.Figure, places: Sequence[str]) -> go.Figure:
    """Places named along x, at 0, 1, 2, …"""
    words = [place.replace(", ", ",<br>") for place in places]
    return fig.update_xaxes(
        tickvals=list(range(len(places))), ticktext=words, tickangle=0, range=[-0.5, len(places) - 0.5]
    )


def shares_after(panels: Mapping[str, Mapping[str, Sequence[Twins]]], title: str) -> go.Figure:
    """Panel -> name -> twins: the share of matches that the half with the head start has over the steps, the mean of
    the twins with a band from the lowest to the highest; and in grey that of the same features without one."""
    sets = {}
    for panel, groups in panels.items():
        sets[panel] = {name: _band([t.share(1) for t in twins], twins[0].moments) for name, twins in groups.items()}
        plain = next(iter(groups.values()))
        sets[panel]["half A, without"] = _band(
            [t.share(0) for t in plain], plain[0].moments, Look(GREY, "solid", "circle-open")
        )
    hover = "step %{x:,}: %{y:.0%}"
    fig = kinds.lines(sets, title, "step", "share of matches", log="x", hover=hover, height=400)
    return fig.update_yaxes(tickformat=".0%", range=[0, 1.03])


def _band(shares: Sequence[Sequence[float]], moments: Sequence[int], look: Look | None = None) -> Curve:
    values = np.array(shares)
    return Curve(moments, values.mean(axis=0), values.min(axis=0), values.max(axis=0), look=look)
