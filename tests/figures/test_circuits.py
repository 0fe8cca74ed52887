"""Figures of circuits draw what they are given, where it belongs."""

import pytest
import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.figures import circuits as plots
from sae_tutorial.figures.style import PALETTE
from sae_tutorial.figures.text import width_of


def test_signed_maps_are_centred_and_numbered():
    maps = {"a": torch.tensor([[0.5, -2.0], [0.0, 0.01]]), "b": torch.zeros(2, 2)}
    fig = plots.signed_maps(maps, "title", ["x", "y"], "column", "unit")
    assert cells(fig) == [[0.5, -2], [0, 0.01]] and drawn(fig)["1"] == (["x", "y"], ["0", "1"])
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-2, 2)
    assert [plain(row) for row in fig.data[0].text] == [[".50", "-2.00"], ["", ""]]
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
    assert fig.layout.barmode == "stack" and fig.layout.yaxis.range == (0, 1) and fig.layout.yaxis.tickformat == ".0%"


def test_two_names_has_the_right_name_across_and_the_wrong_one_up():
    right, wrong = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.75, -1.0, 0.25])
    fig = plots.two_names(right, wrong, ["a", "b", "c"], ["x", "y", "others"], "t")
    assert drawn(fig) == {"1": ([-1, 1], [-1, 1]), "x": ([1], [0.75]), "y": ([0], [-1]), "others": ([0.5], [0.25])}
    assert [plain(trace.customdata) for trace in fig.data[1:]] == [["a"], ["b"], ["c"]]
    assert plain(fig.data[1].text) == ["a"] and fig.data[3].text is None and fig.data[3].marker.color == PALETTE[6]
    assert "right name" in fig.layout.xaxis.title.text and "wrong name" in fig.layout.yaxis.title.text


def test_estimates_name_the_largest():
    guess, real = torch.tensor([0.1, 0.6]), torch.tensor([0.0, 0.9])
    fig = plots.estimates(guess, real, ["0.0", "0.1"], "title", named=1)
    diagonal, heads = fig.data
    assert plain(diagonal.x) == plain(diagonal.y) == [0, 0.9]
    assert drawn(fig)["heads"] == ([0.1, 0.6], [0, 0.9])
    assert plain(heads.text) == ["", "0.1"] and plain(heads.customdata) == ["0.0", "0.1"]


def test_completeness_has_the_model_across_and_the_circuit_up():
    pairs = {name: (torch.tensor([1.0, 2.0]) * n, torch.tensor([1.0, 1.5]) * n) for name, n in (("a", 1), ("b", 2))}
    fig = plots.completeness(pairs, "title")
    assert drawn(fig)["a"] == ([1, 2], [1, 1.5]) and drawn(fig)["b"] == ([2, 4], [2, 3])
    assert [trace.xaxis for trace in fig.data] == ["x", "x", "x2", "x2"] and written(fig) == ["a", "b"]
    assert "model" in fig.layout.xaxis.title.text and "circuit" in fig.layout.yaxis.title.text


def test_roc_curves_have_the_wrong_across_and_the_right_up():
    wrong, right = torch.tensor([0.0, 0.25]), torch.tensor([0.5, 1.0])
    fig = plots.roc_curves({"one": (wrong, right, 0.5)}, "title", {"two": (wrong[:1], right[:1])})
    assert drawn(fig) == {"chance": ([0, 1], [0, 1]), "one (0.50)": ([0, 0.25], [0.5, 1]), "two": ([0], [0.5])}
    assert [trace.mode for trace in fig.data] == ["lines", "lines", "markers"]


def test_a_diagram_has_boxes_arrows_and_what_they_carry():
    nodes = {"a\nb": (0, 0, "#0072B2"), "c": (1, 1, "#E69F00"), "d": (2, 1, "#009E73")}
    fig = plots.diagram(nodes, [("a\nb", "c", "says"), ("c", "d", "louder")], ["x", "y", "z"], "title")
    notes = {note.text: note for note in fig.layout.annotations if note.text}
    assert set(notes) == {"a<br>b", "c", "d", "says", "louder"}
    assert (notes["a<br>b"].x, notes["a<br>b"].y, notes["a<br>b"].bgcolor) == (0, 0, "#0072B2")
    arrow = fig.layout.annotations[0]
    assert (arrow.ax, arrow.ay, arrow.x, arrow.y, arrow.arrowcolor) == (0, 0, 1, 1, "#0072B2")
    assert notes["says"].xshift > 0 and notes["louder"].yshift > 0, "right of rising arrows, above level ones"
    assert plain(fig.layout.xaxis.ticktext) == ["x", "y", "z"]


def test_what_two_arrows_into_one_box_carry_is_kept_apart():
    nodes = {"a": (0, 0, "#0072B2"), "b": (0, 1, "#E69F00"), "a box\nof two lines": (1, 2, "#009E73")}
    edges = [("a", "a box\nof two lines", "low"), ("b", "a box\nof two lines", "high")]
    fig = plots.diagram(nodes, edges, ["x", "y"], "title")
    notes = {note.text: note for note in fig.layout.annotations if note.text}
    assert notes["low"].xshift > 0 > notes["high"].xshift


def test_an_arrow_ends_outside_its_boxes():
    nodes = {"a": (0, 0, "#0072B2"), "a box that is wide": (1, 0, "#E69F00"), "above": (0, 1, "#009E73")}
    edges = [("a", "a box that is wide", ""), ("a", "above", "")]
    level, upright = plots.diagram(nodes, edges, ["x", "y"], "title").layout.annotations[:2]
    assert level.standoff > width_of("a box that is wide", 11) / 2 and level.startstandoff < level.standoff
    assert upright.standoff == upright.startstandoff < 20


def test_bars_may_have_intervals():
    fig = plots.bars(
        {"a": {"x": (0.5, 0.25, 1.0), "y": (1.0, 1.0, 1.0)}, "b": {"x": 0.5}}, "title", "share", form=".0%"
    )
    with_ends, without = fig.data
    assert plain(with_ends.error_y.array) == [0.5, 0] and plain(with_ends.error_y.arrayminus) == [0.25, 0]
    assert without.error_y.array is None and fig.layout.yaxis.tickformat == ".0%"


@pytest.mark.parametrize(("label", "up"), [("c", 10), ("a very long name of a box", 28)])
def test_what_a_level_arrow_carries_is_not_written_over_boxes(label, up):
    nodes = {"b": (0, 0, "#0072B2"), label: (1, 0, "#E69F00")}
    fig = plots.diagram(nodes, [("b", label, "carried over to it, all of it")], ["x", "y", "z"], "title")
    assert fig.layout.annotations[-1].yshift == up
