"""Figures of notebook 05: tables of affinities that fill up, who gets the budget, and which features die."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.figures import kinds
from sae_tutorial.figures.frame import RULE, empty, faint, levels, marks
from sae_tutorial.figures.frame import panels as panels_
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import SKY, Look, look
from sae_tutorial.figures.style import PALETTE, titled
from sae_tutorial.figures.text import label, numbers

Band = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]  # mean, low end, high end
ALONE = "Token Choice SAE, one threshold"  # another rule's SAE, filled as Mutual Choice fills
OWN = {
    "Feature Choice, uniform": Look(SKY, "dash", "triangle-down"),  # where it stands beside Zipf capacities
    ALONE: look("Token Choice"),
}
NOBODY = "Nothing to draw: no token has an affinity with a feature."


# ---------------------------------------------------------------------- the table that fills up


def budget_explorer(
    affinities: Float[Tensor, "tokens features"],
    chosen: Mapping[str, Sequence[Float[Tensor, "tokens features"]]],
    budgets: Sequence[int],
    tokens: Sequence[str],
    start: int,
    titles: Sequence[str],
) -> go.Figure:
    """A table of affinities with a slider for the budget and a button for each rule; needs no kernel.

    Grey where a token and a feature have an affinity, in colour where they were matched, deeper the stronger it is.

    `chosen` holds, for each rule, dense codes for each budget (features per token); `start` is the budget shown first,
    with the last rule. Bars count the matches of each row and column. `titles` has one for each budget; it is shown
    with that budget whichever rule is chosen, so it must name the rules that it speaks of.
    """
    if not chosen or not (affinities > 0).any():
        return empty(titles[0] if titles else "Budgets", NOBODY)
    n_tokens, n_features = affinities.shape
    x, y = ["", "", f"{n_features} features", "matches"], ["matches", "", "", ""]
    grid: dict[str, Any] = {
        "row_heights": [0.22, 0.78],
        "column_widths": [0.78, 0.22],
        "shared_xaxes": True,
        "shared_yaxes": True,
    }
    room: dict[str, Any] = {"columns": 2, "height": 610, "above": 34, "gap": -0.05, "vertical_spacing": 0.03}
    budgets, names, top = list(budgets), list(chosen), float(affinities.max())
    first = budgets.index(start)
    longest = max(titles, key=lambda title: titled(title).count("<br>"))
    fig, (over, _, table, beside) = panels_([""] * 4, longest, x, y, **room, **grid)
    rows, columns = list(range(n_tokens)), list(range(n_features))
    fig.add_trace(_heat(affinities, tokens, top), **table)
    for name in names:
        codes, colour = chosen[name][first], look(name).colour
        per_token, per_feature = _sums(codes)
        bar = {"marker_color": colour, "visible": name == names[-1], "showlegend": False}
        fig.add_trace(_heat(codes, tokens, top, colour).update(visible=name == names[-1]), **table)
        fig.add_bar(x=per_token, y=rows, orientation="h", **bar, hovertemplate="%{x}<extra></extra>", **beside)
        fig.add_bar(x=columns, y=per_feature, **bar, hovertemplate="%{y}<extra></extra>", **over)
    steps = []
    for i, budget in enumerate(budgets):
        new: dict[str, list] = {"x": [], "y": [], "z": []}
        for name in names:
            per_token, per_feature = _sums(chosen[name][i])
            new["z"] += [_cells(chosen[name][i]), None, None]
            new["x"] += [columns, per_token, columns]
            new["y"] += [rows, rows, per_feature]
        args = [new, {"title.text": titled(titles[i])}, list(range(1, 1 + 3 * len(names)))]
        steps.append({"label": str(budget), "method": "update", "args": args})
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"visible": [True] + [n == name for n in names for _ in range(3)]}],
        }
        for name in names
    ]
    most = max(max(_sums(codes)[0]) for each in chosen.values() for codes in each)
    fig.update_xaxes(ticks="", zeroline=False, **over)
    fig.update_yaxes(range=[0, n_tokens + 0.5], **over)
    fig.update_xaxes(showgrid=False, zeroline=False, tickvals=[], **table)
    text = {"tickvals": rows, "ticktext": [label(token) for token in tokens]}
    fig.update_yaxes(range=[n_tokens - 0.4, -0.6], showgrid=False, zeroline=False, ticks="", **text, **table)
    fig.update_xaxes(range=[0, most + 0.5], **beside)
    fig.update_yaxes(ticks="", zeroline=False, **beside)
    slider = {"active": first, "steps": steps, "pad": {"t": 40}}
    slider["currentvalue"] = {"prefix": "budget, features per token: "}
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "active": len(names) - 1}
    menu |= {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"size": 11}, "pad": {"l": -50}}
    return fig.update_layout(sliders=[slider], updatemenus=[menu], title_text=titled(titles[first]))


def _heat(z: Tensor, named: Sequence[str], top: float, colour: str | None = None) -> go.Heatmap:
    """Matches in a colour that deepens with the affinity; without a colour, all affinities in one faint grey."""
    pale, deep = (0.2, 0.2) if colour is None else (0.4, 1.0)
    return go.Heatmap(
        z=_cells(z),
        zmin=0,
        zmax=top,
        colorscale=[[end, faint(colour or "#808080", alpha)] for end, alpha in ((0, pale), (1, deep))],
        showscale=False,
        xgap=1,
        ygap=1,
        customdata=[[label(token)] * z.shape[1] for token in named],
        hovertemplate="%{customdata}, feature %{x}: %{z:.2f}<extra></extra>",
    )


def _cells(z: Tensor) -> list[list[float | None]]:
    """Plain numbers; a gap where there is no affinity."""
    return [[v if v is not None and v > 0 else None for v in row] for row in numbers(z, 3)]


def _sums(codes: Tensor) -> tuple[list[int], list[int]]:
    return (codes > 0).sum(1).tolist(), (codes > 0).sum(0).tolist()


# ---------------------------------------------------------------------- thresholds


def thresholds(each: Mapping[str, Float[Tensor, " owners"]], everybody: float, title: str, bins: int = 40) -> go.Figure:
    """A histogram per panel: by rule, the thresholds of each of its owners; the one of Mutual Choice is a line.

    Thresholds of 0, where all positive affinities get in, are left out, and the heading says how many they are.
    """
    panels = {}
    for name, values in each.items():
        known = values[values.isfinite()]
        above = known[known > 0]
        end = max(float(above.quantile(0.97)), 1.3 * everybody) if len(above) else 0.0
        closed = 1 - len(above) / max(1, len(known))
        share = f" (without {closed:.0%} at 0)" if closed >= 0.005 else ""  # one line, as the other heading
        panels[f"{name}{share}"] = {name: above.clamp(max=end)}
    x, y = "threshold; the last bar holds all above", [name.split()[0].lower() + "s" for name in each]
    fig = kinds.histogram(panels, title, [x] * len(panels), y, bins=bins, hover="threshold %{x:.2f}: %{y}", above=18)
    for column in range(1, len(panels) + 1 if fig.data else 0):
        marks(fig, {"Mutual Choice": everybody}, colour=look("Mutual Choice").colour, row=1, col=column)
    return fig


# ---------------------------------------------------------------------- who gets the budget


def by_kind(
    bands: Mapping[str, Band], kinds_: Sequence[str], title: str, y: str, level: float | None = None
) -> go.Figure:
    """Grouped bars with 95 % intervals: one group for each kind of token, one colour for each rule.

    Kinds go down from the largest mean of the first rule; `level` is what Token Choice gives to every token.
    """
    means = next((band[0] for band in bands.values()), torch.zeros(0))
    order = means.nan_to_num(-1).argsort(descending=True, stable=True)
    names = [kinds_[i] for i in order.tolist()]
    groups = {
        name: Curve(names, mean[order], low=low[order], high=high[order]) for name, (mean, low, high) in bands.items()
    }
    across = {} if level is None else {f"Token Choice: {level:g}": level}
    return kinds.bars(groups, title, "kind of token", y, level=across, hover="%{x}: %{y:.3g}", height=420)


def by_decile(curves: Mapping[str, Float[Tensor, " deciles"]], title: str, y: str, level: float) -> go.Figure:
    """A line for each quantity: the mean of y over tokens, sorted by it and cut into equal parts."""
    dashes = ("solid", "dash", "dot", "dashdot")
    drawn = {
        name: Curve(list(range(1, len(mean) + 1)), mean, look=Look(PALETTE[i % 6], dashes[i % 4]))
        for i, (name, mean) in enumerate(curves.items())
    }
    x = "tenth of the tokens, from the lowest value of the quantity to the highest"
    fig = kinds.lines(drawn, title, x, y, level={"_level": level}, hover="tenth %{x}: %{y:.1f}", height=440)
    return fig.update_xaxes(dtick=1)


def trade(
    moves: Mapping[str, tuple[Float[Tensor, " kinds"], Float[Tensor, " kinds"]]],
    kinds_: Sequence[str],
    title: str,
    x: str,
    y: str,
) -> go.Figure:
    """A dot for each kind of token: its features beyond the even share against the change of its error; `moves` holds
    both, for each way to share out."""
    drawn = {
        name: Curve(given, gained, text=kinds_, about=kinds_, look=OWN.get(name))
        for name, (given, gained) in moves.items()
    }
    hover = "%{customdata}: %{x:+.1f} features, error %{y:+.0%}"
    fig = kinds.dots(drawn, title, x, y, hover=hover, size=11, height=460)
    fig.add_hline(y=0, line=RULE).add_vline(x=0, line=RULE)
    return fig.update_yaxes(tickformat="+.0%")


def crossed(fvu: Mapping[str, Mapping[str, float]], against: str, title: str) -> go.Figure:
    """A row for each SAE, a column for each way to fill its table: by how much the error is above that of `against`,
    whose FVU stands beside the name of the SAE."""
    ways = list(next(iter(fvu.values()), {}))
    above = torch.tensor([[row[way] / row[against] - 1 for way in ways] for row in fvu.values()])
    rows = [f"{name}<br>(FVU {row[against]:.4f})" for name, row in fvu.items()]
    unit = f"error against {against}"
    shown: dict[str, Any] = {"columns": [way.replace(" ", "<br>", 1) for way in ways], "rows": rows, "cell": 52}
    shown |= {"signed": True, "written": "+.1%", "form": "+.0%", "hover": "%{y}, filled by %{x}: %{z:+.1%}"}
    return kinds.heat({"": above}, title, "filled by", "trained with", unit=unit, **shown)


def company(counts: Sequence[int], alone: int, title: str) -> go.Figure:
    """How many features one and the same token gets in different batches, and how many the threshold gives it."""
    values, batches = np.unique(list(counts), return_counts=True)
    curve, hover = Curve(values, batches), "%{x} features in %{y} batches"
    fig = kinds.bars({"Mutual Choice": curve}, title, "features of the token", "batches", hover=hover, above=18)
    if not fig.data:
        return fig
    marks(fig, {"by the trained threshold, in any batch": alone})
    return fig.update_xaxes(dtick=max(1, int(np.ptp(values)) // 12)).update_layout(bargap=0.08)


def capacity_explorer(
    demand: Float[Tensor, " features"],
    laws: Mapping[float, Float[Tensor, " features"]],
    titles: Sequence[str],
    stays: float | None = None,
) -> go.Figure:
    """Capacities against rank, with a slider for the exponent of their law, beside the demand; needs no kernel.

    `demand` is how many matches each feature has under Mutual Choice. `laws` holds the capacities by exponent, rank 1
    first, and `titles` says what comes of each. The first law is shown first; that with the exponent `stays` is dotted
    in every frame, as a picture of the notebook shows one frame only.
    """
    ordered = demand.sort(descending=True).values.double()
    ranks = np.unique(np.geomspace(1, max(1, len(ordered)), 90).round().astype(int))
    wanted = ordered.where(ordered > 0, torch.nan)[ranks - 1] if len(ordered) else ordered
    if not laws or not bool(wanted.isfinite().any()):
        return empty(titles[0] if titles else "Capacities", NOBODY)
    given = [capacity.double()[ranks - 1] for capacity in laws.values()]
    drawn = {
        "Mutual Choice": Curve(ranks, wanted, look=look("Mutual Choice")),
        "capacity": Curve(ranks, given[0], look=look("Feature Choice, Zipf")),
    }
    if stays is not None:
        dotted = Look(look("Feature Choice, Zipf").colour, "dot")
        drawn[f"exponent {stays:g}"] = Curve(ranks, laws[stays].double()[ranks - 1], look=dotted)
    x, y, hover = "rank of the feature (1 = most wanted)", "tokens in the batch", "rank %{x:,}: %{y:,} tokens"
    fig = kinds.lines(drawn, max(titles, key=len), x, y, mode="lines", log="xy", hover=hover, height=470)
    every = torch.stack([*given, wanted]).nan_to_num(1.0).clamp(min=1).log10()
    fig.update_yaxes(range=[float(every.min()) - 0.1, float(every.max()) + 0.1])
    steps = [
        {"label": f"{s:g}", "method": "update", "args": [{"y": [numbers(own)]}, {"title.text": titled(title)}, [1]]}
        for s, own, title in zip(laws, given, titles, strict=True)
    ]
    slider = {"active": 0, "steps": steps, "pad": {"t": 60}, "currentvalue": {"prefix": "exponent: "}}
    return fig.update_layout(sliders=[slider], title_text=titled(titles[0]))


def densities(each: Mapping[str, Float[Tensor, " features"]], floor: float, title: str) -> go.Figure:
    """Density against rank, the most frequent feature first, for each SAE.

    Ranks are on a straight axis, so that the length on the line "never fired" is the share of dead features, which the
    legend repeats. Dead features are drawn at `floor`.
    """
    drawn = {}
    for name, values in each.items():
        ordered = values.sort(descending=True).values
        ranks = np.unique(np.linspace(1, len(ordered), min(len(ordered), 130)).round().astype(int))
        dead = float((ordered == 0).float().mean()) if len(ordered) else 0.0
        drawn[f"{name}: {dead:.1%} dead"] = Curve(
            ranks, ordered.clamp(min=floor)[ranks - 1], look=OWN.get(name, look(name))
        )
    x, y, hover = "rank (1 = most frequent)", "density (share of tokens)", "rank %{x:,}: %{y:.2%}"
    fig = kinds.lines(drawn, title, x, y, mode="lines", log="y", hover=hover, height=430)
    if fig.data:
        levels(fig, {"never fired": floor}, log=True, end=0.3)
    return fig
