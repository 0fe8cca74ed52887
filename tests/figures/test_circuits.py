import json

import torch

from sae_tutorial.figures import circuits as plots


def fine(fig):
    assert fig.layout.title.text and fig.to_plotly_json()
    json.dumps(fig.to_plotly_json(), default=str)
    return fig


def test_signed_maps_are_centred_and_numbered():
    maps = {"a": torch.tensor([[0.5, -2.0], [0.0, 0.01]]), "b": torch.zeros(2, 2)}
    fig = fine(plots.signed_maps(maps, "title", ["x", "y"], "column", "unit"))
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-2, 2)
    assert [list(row) for row in fig.data[0].text] == [[".50", "-2.00"], ["", ""]]
    assert "column" in fig.data[0].hovertemplate
    many = fine(plots.signed_maps({str(i): torch.ones(2, 2) for i in range(5)}, "t", ["x", "y"], "c", "u", limit=1))
    assert len(many.data) == 5 and many.layout.coloraxis.cmax == 1


def test_lines_bars_and_looks():
    fig = fine(plots.by_depth({"right": torch.arange(3.0)}, ["e", "0", "1"], "title", "logits"))
    assert fig.data[0].name == "right"
    fig = fine(plots.bars({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 0.5, "y": 0.1}}, "title", "logits", level=1.0))
    assert len(fig.data) == 2 and fig.layout.showlegend and len(fig.layout.shapes) == 2
    fig = fine(plots.looks({"IO": torch.tensor([0.2]), "elsewhere": torch.tensor([0.8])}, ["1.2"], "title"))
    assert fig.layout.barmode == "stack"


def test_two_names_has_one_trace_for_each_kind():
    fig = fine(
        plots.two_names(
            torch.tensor([1.0, 0, 0]), torch.tensor([1.0, -1, 0]), ["a", "b", "c"], ["x", "y", "others"], "t"
        )
    )
    assert [trace.name for trace in fig.data] == ["both names alike", "x", "y", "others"]


def test_estimates_name_the_largest():
    fig = fine(plots.estimates(torch.tensor([0.1, 0.6]), torch.tensor([0.0, 0.9]), ["0.0", "0.1"], "title", named=1))
    assert list(fig.data[1].text) == ["", "0.1"] and len(fig.data) == 2


def test_completeness_roc_and_diagram():
    pair = (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.5]))
    assert len(fine(plots.completeness({"a": pair, "b": pair}, "title")).data) == 4
    line = torch.tensor([0.0, 1.0])
    fig = fine(plots.roc_curves({"one": (line, line, 0.5)}, "title", {"two": (line, line)}))
    assert [trace.name for trace in fig.data] == ["chance", "one (0.50)", "two"]
    nodes = {"a\nb": (0, 0, "#0072B2"), "c": (1, 1, "#E69F00")}
    fig = fine(plots.diagram(nodes, [("a\nb", "c", "says")], ["x", "y"], "title"))
    texts = [note.text for note in fig.layout.annotations]
    assert "a<br>b" in texts and "says" in texts
