"""Figures of circuits draw what they are given, where it belongs."""

import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.figures import circuits as plots
from sae_tutorial.figures.style import PALETTE


def test_signed_maps_are_centred_and_numbered():
    maps = {"a": torch.tensor([[0.5, -2.0], [0.0, 0.01]]), "b": torch.zeros(2, 2)}
    fig = plots.signed_maps(maps, "title", ["x", "y"], "column", "unit")
    assert cells(fig) == [[0.5, -2], [0, 0.01]] and drawn(fig)["1"] == (["x", "y"], ["0", "1"])
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-2, 2)
    assert [plain(row) for row in fig.data[0].text] == [[".50", "-2.0"], ["", ""]]
    assert fig.layout.yaxis.autorange == "reversed" and fig.layout.xaxis.title.text == "column"
    assert "layer %{y}, column %{x}" in fig.data[0].hovertemplate
    scale = fig.layout.coloraxis.colorscale
    assert [round(at, 3) for at, _ in scale] == [0, 0.489, 0.489, 0.511, 0.511, 1], "clear where no number is written"
    many = plots.signed_maps({str(i): torch.ones(2, 2) for i in range(5)}, "t", ["x", "y"], "c", "u", limit=1)
    assert len(many.data) == 5 and many.layout.coloraxis.cmax == 1


def test_by_depth_runs_from_the_embedding_to_the_end():
    fig = plots.by_depth({"right": torch.tensor([-1.0, 2.0, 3.0])}, ["e", "0", "1"], "title", "logits")
    assert drawn(fig) == {"right": (["e", "0", "1"], [-1, 2, 3])}
    assert fig.layout.shapes[0].y0 == 0 and fig.layout.yaxis.title.text == "logits"


def test_bars_have_a_group_for_each_key():
    fig = plots.bars({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 0.5, "y": 0.1}}, "title", "logits", level=1.5)
    assert drawn(fig) == {"a": (["x", "y"], [1, 2]), "b": (["x", "y"], [0.5, 0.1])}
    assert fig.layout.showlegend and [shape.y0 for shape in fig.layout.shapes] == [1.5, 0]


def test_looks_are_stacked_to_all_of_the_attention():
    shares = {"IO": torch.tensor([0.2]), "S1": torch.tensor([0.1]), "elsewhere": torch.tensor([0.7])}
    fig = plots.looks(shares, ["1.2"], "title")
    assert drawn(fig) == {"IO": (["1.2"], [0.2]), "S1": (["1.2"], [0.1]), "elsewhere": (["1.2"], [0.7])}
    assert fig.data[0].marker.color == PALETTE[2], "green, as the receiver is everywhere in the lesson"
    assert fig.layout.barmode == "stack" and fig.layout.yaxis.range == (0, 1) and fig.layout.yaxis.tickformat == ".0%"


def test_two_names_has_the_right_name_across_and_the_wrong_one_up():
    right, wrong = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.75, -1.0, 0.25])
    fig = plots.two_names(right, wrong, ["a", "b", "c"], ["x", "y", "others"], "t")
    assert drawn(fig) == {"1": ([-1, 1], [-1, 1]), "x": ([1], [0.75]), "y": ([0], [-1]), "others": ([0.5], [0.25])}
    _, others, x, y = fig.data
    assert [plain(trace.customdata) for trace in (x, y, others)] == [["a"], ["b"], ["c"]]
    assert plain(x.text) == ["a"] and others.text is None and others.marker.color == PALETTE[6]
    assert others.legendrank > 1000 and x.marker.color != y.marker.color, "below all dots, and last in the legend"
    fig = plots.two_names(right, wrong, ["a", "b", "c"], ["x", "y", "others"], "t", {"y": PALETTE[5]})
    assert fig.data[3].marker.color == PALETTE[5]
    assert "right name" in fig.layout.xaxis.title.text and "wrong name" in fig.layout.yaxis.title.text


def test_completeness_has_the_model_across_and_the_circuit_up():
    some = torch.tensor([1.0, 2.0])
    pairs = {name: {"drawn": (some * n, some * n / 2), "class": (some + n, some)} for name, n in (("a", 1), ("b", 2))}
    fig = plots.completeness(pairs, "title")
    _, drawn_a, class_a, _, drawn_b, class_b = fig.data
    assert (plain(drawn_a.x), plain(drawn_a.y), plain(drawn_b.x)) == ([1, 2], [0.5, 1], [2, 4])
    assert (plain(class_a.x), plain(class_b.x), plain(class_b.y)) == ([2, 3], [3, 4], [1, 2])
    assert [trace.xaxis for trace in fig.data] == ["x"] * 3 + ["x2"] * 3 and written(fig) == ["a", "b"]
    assert drawn_a.marker.symbol == drawn_b.marker.symbol != class_a.marker.symbol and fig.layout.showlegend
    assert "model" in fig.layout.xaxis.title.text and "circuit" in fig.layout.yaxis.title.text


def test_bars_may_have_intervals():
    fig = plots.bars(
        {"a": {"x": (0.5, 0.25, 1.0), "y": (1.0, 1.0, 1.0)}, "b": {"x": 0.5}}, "title", "share", form=".0%"
    )
    with_ends, without = fig.data
    assert plain(with_ends.error_y.array) == [0.5, 0] and plain(with_ends.error_y.arrayminus) == [0.25, 0]
    assert without.error_y.array is None and fig.layout.yaxis.tickformat == ".0%"
