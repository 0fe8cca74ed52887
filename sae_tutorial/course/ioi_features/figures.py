"""Figures of notebook 09: how few features carry the answer, and what a supervised dictionary says about the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import levels, log_axis, marks
from sae_tutorial.figures.kinds import Curve, Span
from sae_tutorial.figures.looks import LOOKS, Look
from sae_tutorial.figures.style import PALETTE

Band = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]  # x, mean, low, high
DASHES = ("solid", "dash", "dot")


def places(share: Float[Tensor, "hooks roles"], hooks: Sequence[str], roles: Sequence[str], title: str) -> go.Figure:
    """The share of the KL that is left when one position is patched at one hook: dark where the answer travels."""
    names: dict[str, Any] = {"columns": roles, "rows": hooks, "hover": "%{y}, %{x}: %{z:.0%} of the KL is left"}
    axes: dict[str, Any] = {"x": "position that is patched", "y": "residual stream", "unit": "share of the KL left"}
    return kinds.heat({"": share}, title, **axes, **names, limit=1, written=".0%", cell=46, form=".0%")


def carried(
    by_count: Mapping[str, Band],
    by_size: Mapping[str, Band],
    nothing: float,
    title: str,
    y: str = "KL (nats)",
    uninformed: float | None = None,
    bands: bool = True,
) -> go.Figure:
    """KL to the answer of the other sentence against the number of patched features (log) and the size of the edit.

    Bands are intervals over sentences. `nothing` is the KL without a patch, half of it is dashed; `uninformed` that of
    an answer which knows nothing of the sentence, dotted.
    """
    panels = {
        panel: {name: Curve(*band) if bands else Curve(band[0], band[1]) for name, band in curves.items()}
        for panel, curves in (("how many features", by_count), ("how large an edit", by_size))
    }
    level = {"half": nothing / 2} | ({} if uninformed is None else {"uninformed": uninformed})
    x = ["patched features (log scale)", "size of the edit, mean |x′ − x| per token"]
    how: dict[str, Any] = {"level": level, "hover": "%{x:.3g}: KL %{y:.2f}", "size": 6, "height": 520}
    fig = kinds.lines(panels, title, x, y, **how)
    if fig.data:
        log_axis(lambda **axis: fig.update_xaxes(**axis, row=1, col=1), [band[0] for band in by_count.values()])
    fig.update_annotations(selector={"text": "uninformed"}, yanchor="bottom")  # below its line are curves
    highs = [float(value) for band in by_count.values() for value in band[3 if bands else 1]]
    return fig.update_yaxes(range=[-0.2, 1.04 * max([nothing, *highs])]) if fig.data else fig


def orders(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, nothing: float | None = None
) -> go.Figure:
    """KL against number of features, a pair of orders for each dictionary in which features are left out: a line with
    small dots for the first, open diamonds for the second. What comes before a colon is the dictionary's name.
    `nothing` is the KL without a patch, which a logarithmic axis cannot show at 0 features."""
    drawn = {}
    for i, (name, (x, y)) in enumerate(curves.items()):
        known = LOOKS.get(name.split(":")[0], Look(PALETTE[i // 2]))
        look, mode = known._replace(marker=("circle", "diamond-open")[i % 2]), ("lines+markers", "markers")[i % 2]
        drawn[name] = Curve(x, y, look=look, mode=mode)
    level = {} if nothing is None else {"no patch": nothing}
    labels = "patched features (log scale)", "KL (nats), mean over sentences"
    return kinds.lines(drawn, title, *labels, log="x", level=level)


def two_scores(scores: Mapping[str, tuple[float, float]], names: tuple[str, str], title: str, y: str) -> go.Figure:
    """Two bars for each dictionary."""
    groups = {name: Curve(list(scores), [pair[i] for pair in scores.values()]) for i, name in enumerate(names)}
    return kinds.bars(groups, title, "", y, level={"_all": 1}, hover="%{x}: %{y:.2f}", height=430)


def controlled(
    success: Mapping[str, Mapping[str, Sequence[Span]]],
    ks: Sequence[int],
    supervised: Mapping[str, float],
    unedited: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Share of predictions that follow an edit, with its interval, against the number of edited features; a panel for
    each kind, with dashed lines for what follows the supervised edit and what agrees without any edit."""
    panels = {
        edit: {name: _with_interval(ks, spans) for name, spans in curves.items()} for edit, curves in success.items()
    }
    labels, hover = ("edits per position (log)", "predictions that follow"), "%{x} edits: %{y:.0%}"
    fig = kinds.lines(panels, title, *labels, log="x", hover=hover, height=470)
    for place, edit in enumerate(success if fig.data else ()):
        levels(fig, {"supervised": supervised[edit], "no edit": unedited[edit]}, end=0.4, row=1, col=place + 1)
    return fig.update_yaxes(range=[-0.09, 1.03], tickformat=".0%")


def f1_map(
    f1: Float[Tensor, "dictionaries columns"], rows: Sequence[str], columns: Sequence[str], title: str
) -> go.Figure:
    """Mean best F1 of a single feature, for each dictionary and each attribute at a position."""
    names: dict[str, Any] = {"columns": columns, "rows": rows, "hover": "%{y}: %{x}, F1 %{z:.2f}"}
    x = "attribute, and the position that is read"
    return kinds.heat({"": f1}, title, x, "", unit="best F1", limit=0.6, written=".2f", **names)


def name_patterns(
    share: Float[Tensor, "names features"], names: Sequence[str], features: Sequence[int], title: str
) -> go.Figure:
    """In which share of the sentences with a receiver each feature is active: a row for each feature."""
    told: dict[str, Any] = {"rows": [f"{j:,}" for j in features], "columns": names, "form": ".0%"}
    labels: dict[str, Any] = {"x": "name of the receiver", "y": "feature", "unit": "on in"}
    fig = kinds.heat({"": share.T}, title, **labels, **told, limit=1, cell=24, hover="%{y}, %{x}: on in %{z:.0%}")
    return fig.update_xaxes(tickangle=-60, tickvals=list(range(len(names))), tickfont={"size": 11})


def minds(rows: Sequence[tuple[int, str, float, float]], receiver: str, instead: str, giver: str) -> go.Figure:
    """The probabilities of two names against the number of patched features, and above them what the model says, which
    may be neither; rows as of `names.change_of_mind`."""
    ns = [row[0] for row in rows]
    there = next((f"with {n} features the model says {instead}" for n, word, *_ in rows if word == instead), None)
    title = f"{giver} and {receiver}, patched towards {instead}: {there or f'the model never says {instead}'}"
    drawn = {name: Curve(ns, [row[i] for row in rows], look=_turn(i - 2)) for i, name in ((2, receiver), (3, instead))}
    how: dict[str, Any] = {"hover": "%{x} features: %{y:.0%}", "height": 370, "above": 44}
    fig = kinds.lines(drawn, title, "patched features", "probability", **how)
    for n, word, *_ in rows if fig.data else ():
        said = {"text": f"“{word}”", "textangle": -50, "font": {"size": 11}, "showarrow": False}
        fig.add_annotation(x=n, y=1, yref="paper", yanchor="bottom", **said)
    if fig.data:
        fig.add_annotation(
            x=0, xref="paper", xanchor="right", xshift=-14, y=1, yref="paper", yshift=22, text="says", showarrow=False
        )
    return fig.update_yaxes(range=[-0.03, 1.03], tickformat=".0%").update_xaxes(tickvals=ns)


def occlusion(
    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
    predicted: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Share of values with a feature of their own, a line for each attribute; in each panel, called by it, against
    what is varied: (x, name -> shares); a control may end early. Upright in the first panel: where a formula says that
    an attribute is gone."""
    drawn = {
        what: {name: Curve(x[: len(share)], share, look=_turn(i)) for i, (name, share) in enumerate(found.items())}
        for what, (x, found) in panels.items()
    }
    fig = kinds.lines(drawn, title, "", "values with a feature of their own", hover="%{x}: %{y:.0%}", above=18)
    for name, at in predicted.items() if fig.data else ():  # each alone, so that its words stand over it
        marks(fig, {f"{name}: predicted": at}, row=1, col=1)
    return fig.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")


def splitting(
    penalties: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    dots: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
) -> go.Figure:
    """Total loss against the penalty λ: lines are formulas, dots are autoencoders that were trained."""
    drawn = {name: Curve(penalties, values, look=_turn(i)) for i, (name, values) in enumerate(losses.items())}
    for i, (name, pairs) in enumerate(dots.items()):
        look = Look(PALETTE[3 + i], marker=("circle", "diamond")[i % 2])
        drawn[name] = Curve([x for x, _ in pairs], [y for _, y in pairs], look=look, mode="markers")
    labels = "penalty λ of one unit of a code", "total loss per token: error² + λ · L1"
    return kinds.lines(drawn, title, *labels, mode="lines", size=10, hover="λ %{x:.3~g}: %{y:.2f}", height=420)


def _with_interval(x: Sequence[float], spans: Sequence[Span]) -> Curve:
    middle, low, high = zip(*spans, strict=True)
    return Curve(x, middle, low, high)


def _turn(place: int) -> Look:
    return Look(PALETTE[place % 6], DASHES[place % 3])
