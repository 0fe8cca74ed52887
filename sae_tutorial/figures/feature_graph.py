"""A circuit of features as a picture: tokens across, layers up, and how much each part adds to what is above it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from sae_tutorial.circuits.transcoder_circuits import Node
from sae_tutorial.circuits.transcoder_graph import Graph
from sae_tutorial.figures.frame import empty, nothing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, YELLOW
from sae_tutorial.figures.style import TEXT, finish
from sae_tutorial.figures.text import label

MARKERS = {  # kind -> what it is called, colour, symbol
    "logit": ("logits", TEXT, "star"),
    "feature": ("feature", GREEN, "circle"),
    "head": ("head", ORANGE, "square"),
    "skip": ("skip path", SKY, "diamond"),
    "error": ("error of a transcoder", VERMILION, "x"),
    "mlp": ("MLP without a transcoder", GREY, "hexagon"),
    "token": ("embedding", PINK, "triangle-up"),
    "position": ("position", YELLOW, "triangle-down"),
    "bias": ("biases", GREY, "cross"),
}
NUMBERED = ("feature", "head")
NARROWEST = 1.6  # a column, in nodes
ADDS, TAKES = VERMILION, BLUE  # edges, as signed maps have them
WIDTHS = (1.2, 2.5, 5.0)  # px, for edges of up to a tenth of the largest, up to a third, and above
SIZES = (8.0, 20.0)  # px of the smallest and the largest node
ASIDE = 0.25  # of every second MLP's nodes, so that edges to the MLP before do not run through them


class Place(NamedTuple):
    x: float
    y: float


def feature_graph(
    graph: Graph, tokens: Sequence[str], title: str, names: Mapping[Node, str] | None = None
) -> go.Figure:
    """The nodes of a graph at their tokens (across) and layers (up); a head stands at the token that it brings from.

    tokens: all of the text, of which those with a node are shown.
    names: what hovering over a node says; its kind, layer and number where it is left out. `customdata` of each point
        is its node, so a click can be answered.

    Edges are as wide as what they add, vermilion where that is positive and blue where it is negative.
    """
    if nothing(graph.edges):
        return empty(title)
    n_layers = 1 + max(node.layer for node in graph.nodes)
    columns = sorted({node.position for node in graph.nodes})
    cells = _cells(graph)
    middles, wide = _middles(cells, columns)
    where = {
        node: Place(middles[column] + (i + 0.5 - len(nodes) / 2) + (ASIDE if row % 4 == 0 else 0), row)
        for (column, row), nodes in cells.items()
        for i, node in enumerate(nodes)
    }
    fig = go.Figure(layout={"height": 130 + 48 * (2 * n_layers + 1)})
    for trace in _edges(graph, where):
        fig.add_trace(trace)
    for trace in _nodes(graph, where, names or {}):
        fig.add_trace(trace)
    finish(fig, title, "token (and its position)")
    rows = ["embeddings"] + [name for layer in range(n_layers) for name in (f"heads {layer}", f"MLP {layer}")]
    last = max(_row(node) for node in graph.nodes)
    rows = [*rows[:last], "logits"] if any(node.kind == "logit" for node in graph.nodes) else rows[: last + 1]
    fig.update_yaxes(tickvals=list(range(len(rows))), ticktext=rows, range=[-0.6, len(rows) - 0.4], zeroline=False)
    words = [f"{label(tokens[position])}<br>{position}" for position in columns]
    fig.update_xaxes(tickvals=[middles[position] for position in columns], ticktext=words, range=[-0.2, wide + 0.2])
    return fig.update_xaxes(showgrid=False, zeroline=False)


def _row(node: Node) -> int:
    """0 for embeddings, then heads and MLP of each layer."""
    if node.layer < 0:
        return 0
    return 2 * node.layer + (1 if node.kind in ("head", "logit") else 2)


def _cells(graph: Graph) -> dict[tuple[int, int], list[Node]]:
    """The nodes at each token and row, the one that adds most first: it stands on the left."""
    cells: dict[tuple[int, int], list[Node]] = defaultdict(list)
    for node in sorted(graph.nodes, key=lambda node: -abs(graph.nodes[node])):
        cells[node.position, _row(node)].append(node)
    return cells


def _middles(cells: Mapping[tuple[int, int], list[Node]], columns: Sequence[int]) -> tuple[dict[int, float], float]:
    """Where each token's column has its middle, and how wide all are; a column is as wide as its fullest row needs."""
    found, end = {}, 0.0
    for column in columns:
        width = max(NARROWEST, *(len(nodes) for (at, _), nodes in cells.items() if at == column))
        found[column] = end + width / 2
        end += width
    return found, end


def _edges(graph: Graph, where: Mapping[Node, Place]) -> list[go.Scatter]:
    """One trace for each sign and width."""
    largest = max((abs(value) for value in graph.edges.values()), default=1.0) or 1.0
    groups: dict[tuple[bool, float], list[tuple[Node, Node]]] = defaultdict(list)
    for pair, value in graph.edges.items():
        share = abs(value) / largest
        groups[value > 0, WIDTHS[(share > 0.1) + (share > 1 / 3)]].append(pair)
    traces = []
    for (adds, width), pairs in sorted(groups.items(), key=lambda group: group[0]):
        x, y = ([at for pair in pairs for at in (*(where[node][i] for node in pair), None)] for i in (0, 1))
        line, name = {"color": ADDS if adds else TAKES, "width": width}, "adds" if adds else "takes away"
        shown = {"showlegend": width == max(w for sign, w in groups if sign == adds), "legendgroup": name}
        trace = go.Scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip", opacity=0.6, **shown)
        traces.append(trace)
    return traces


def _nodes(graph: Graph, where: Mapping[Node, Place], names: Mapping[Node, str]) -> list[go.Scatter]:
    """One trace for each kind."""
    start = next(iter(graph.nodes))
    largest = max(abs(value) for node, value in graph.nodes.items() if node != start) or 1.0
    traces = []
    for kind, (name, colour, symbol) in MARKERS.items():
        mine = [node for node in graph.nodes if node.kind == kind]
        shares = [min(1.0, abs(graph.nodes[node]) / largest) for node in mine]
        sizes = [SIZES[0] + (SIZES[1] - SIZES[0]) * share**0.5 for share in shares]
        if mine:
            said = [f"{names.get(node, _plain(node))}: {graph.nodes[node]:+.2f}" for node in mine]
            points = {"x": [where[node].x for node in mine], "y": [where[node].y for node in mine]}
            marker = {"color": colour, "symbol": symbol, "size": sizes, "line": {"width": 1, "color": TEXT}}
            how: dict[str, Any] = {
                "mode": "markers",
                "name": name,
                "hovertemplate": "%{hovertext}<extra></extra>",
                "hovertext": said,
            }
            if kind in NUMBERED:
                written = [f"{node.layer}.{node.number}" for node in mine]
                how |= {"mode": "markers+text", "text": written, "textposition": "bottom center", "textfont_size": 11}
            traces.append(go.Scatter(**points, **how, customdata=[list(node) for node in mine], marker=marker))
    return traces


def _plain(node: Node) -> str:
    number = f".{node.number}" if node.kind in NUMBERED else ""
    return MARKERS[node.kind][0] + (f" {node.layer}{number}" if node.layer >= 0 and node.kind != "logit" else "")
