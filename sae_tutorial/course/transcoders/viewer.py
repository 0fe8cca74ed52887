"""A circuit to click on: every node of its graph shows what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go

from sae_tutorial.circuits.transcoder_circuits import Node, Trace
from sae_tutorial.circuits.transcoder_graph import Graph
from sae_tutorial.course.transcoders.study import named
from sae_tutorial.course.widgets import with_picture
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence
from sae_tutorial.evaluation.feature_pages import feature_pages
from sae_tutorial.figures.feature_graph import feature_graph
from sae_tutorial.figures.feature_report import page_html, words_of
from sae_tutorial.figures.text import visible


def drawn_graph(trace: Trace, graph: Graph, title: str) -> go.Figure:
    """The graph of a trace, its nodes named for a reader."""
    words = [visible(word) for word in words_of(trace.model)(trace.tokens.tolist())]
    return feature_graph(graph, ["BOS", *words[1:]], title, {node: named(trace, node) for node in graph.nodes})


def graph_viewer(trace: Trace, graph: Graph, evidence: Mapping[int, FeatureEvidence], title: str) -> Any:
    """The graph, and below it what the node is about that was clicked last, or chosen from the menu: of a feature its
    page, where `evidence` has its layer, and of any node what adds to it.

    Returns an ipywidgets box: the figure, the menu, and the page.
    """
    import ipywidgets

    figure, page = go.FigureWidget(drawn_graph(trace, graph, title)), ipywidgets.HTML()
    nodes = sorted(graph.nodes, key=lambda node: -node.layer)
    names = {named(trace, node): node for node in nodes}
    menu = ipywidgets.Dropdown(options=list(names), description="Node")

    def show(change: Any = None) -> None:
        page.value = node_html(trace, graph, evidence, names[menu.value])

    def clicked(points_of: Any, points: Any, state: Any) -> None:
        if points.point_inds:
            menu.value = named(trace, Node(*points_of.customdata[points.point_inds[0]]))

    menu.observe(show, names="value")
    show()
    for one in figure.data:
        if one.customdata is not None:
            one.on_click(clicked)
    return with_picture([figure, menu, page], lambda: drawn_graph(trace, graph, title))


def node_html(trace: Trace, graph: Graph, evidence: Mapping[int, FeatureEvidence], node: Node) -> str:
    """What a node is about: its name, what adds to it, and of a feature its page."""
    adds = {there: value for (there, here), value in graph.edges.items() if here == node}
    rows = [(named(trace, there), adds[there]) for there in sorted(adds, key=lambda there: -abs(adds[there]))]
    if node in graph.rest:
        rows.append(("all that is not shown", graph.rest[node]))
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{value:+.2f}</td></tr>" for name, value in rows)
    table = f'<table style="font-size:12px">{cells}</table>' if rows else "<p>It was not followed further.</p>"
    head = f"<p><b>{escape(named(trace, node))}</b> adds {graph.nodes[node]:+.2f}</p>{table}"
    by = trace.mlps[node.layer].by if node.kind == "feature" else None
    if by is None or node.layer not in evidence:
        return head
    [found] = feature_pages(evidence[node.layer], by.transcoder, trace.model, [node.number])
    return head + page_html(found, words_of(trace.model))
