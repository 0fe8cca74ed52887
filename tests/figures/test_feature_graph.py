"""A circuit of features is drawn where it belongs: tokens across, layers up."""

from sae_tutorial.circuits.transcoder_circuits import Node
from sae_tutorial.circuits.transcoder_graph import Graph
from sae_tutorial.figures.feature_graph import ADDS, ASIDE, TAKES, WIDTHS, feature_graph

END = Node("logit", 2, 3, 7)
LATE, EARLY, OTHER = Node("feature", 1, 3, 5), Node("feature", 0, 1, 8), Node("feature", 0, 1, 9)
HEAD, WORD = Node("head", 1, 1, 2), Node("token", -1, 1)
GRAPH = Graph(
    nodes={END: 4.0, LATE: 3.0, HEAD: 2.0, EARLY: 1.5, WORD: -0.1, OTHER: 0.5},
    edges={(LATE, END): 3.0, (HEAD, LATE): 2.0, (EARLY, HEAD): 1.5, (WORD, EARLY): -0.1, (OTHER, HEAD): 0.5},
    rest={END: 1.0},
)
TOKENS = ["BOS", " 17", "43", " to"]


def points(fig):
    return {
        Node(*node): (x, y, said)
        for trace in fig.data
        if trace.customdata is not None
        for node, x, y, said in zip(trace.customdata, trace.x, trace.y, trace.hovertext)
    }


def test_nodes_stand_at_their_tokens_and_layers():
    fig = feature_graph(GRAPH, TOKENS, "title", {LATE: "later years"})
    found = points(fig)
    assert found.keys() == GRAPH.nodes.keys()
    rows = [fig.layout.yaxis.ticktext[int(found[node][1])] for node in (WORD, EARLY, HEAD, LATE, END)]
    assert rows == ["embeddings", "MLP 0", "heads 1", "MLP 1", "logits"]
    assert len(fig.layout.yaxis.ticktext) == 6
    assert [text.split("<br>")[1] for text in fig.layout.xaxis.ticktext] == ["1", "3"]
    assert "17" in fig.layout.xaxis.ticktext[0] and found[END][0] == fig.layout.xaxis.tickvals[1]
    assert found[LATE][0] == found[END][0] + ASIDE, "edges to the MLP before do not run through it"
    assert found[EARLY][0] < fig.layout.xaxis.tickvals[0] < found[OTHER][0], "side by side, the larger on the left"
    assert found[OTHER][0] - found[EARLY][0] == 1 and fig.layout.xaxis.tickvals[1] > 2, "each has room for its name"
    [written] = [trace.text for trace in fig.data if trace.name == "feature"]
    assert set(written) == {"1.5", "0.8", "0.9"}
    assert found[LATE][2] == "later years: +3.00" and found[HEAD][2] == "head 1.2: +2.00"
    assert found[WORD][2] == "embedding: -0.10"


def test_edges_have_the_sign_and_width_of_what_they_add():
    fig = feature_graph(GRAPH, TOKENS, "title")
    lines = [trace for trace in fig.data if trace.mode == "lines"]
    drawn = {(trace.line.color, trace.line.width): len(trace.x) // 3 for trace in lines}
    assert drawn == {(ADDS, WIDTHS[2]): 3, (ADDS, WIDTHS[1]): 1, (TAKES, WIDTHS[0]): 1}
    found = points(fig)
    (negative,) = (trace for trace in lines if trace.line.color == TAKES)
    assert list(zip(negative.x, negative.y))[:2] == [found[WORD][:2], found[EARLY][:2]]
    assert sum(bool(trace.showlegend) for trace in lines) == 2
