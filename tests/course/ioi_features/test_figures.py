"""Figures of notebook 09 draw what they are given, where it belongs."""

import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.course.ioi_features import figures as plots
from sae_tutorial.figures.looks import look

CURVE = (torch.tensor([1.0, 10.0]), torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.5]), torch.tensor([4.0, 1.5]))


def test_places_have_hooks_down_and_roles_across():
    fig = plots.places(torch.tensor([[0.5, 1.0], [0.25, 0.0]]), ["a", "b"], ["IO", "END"], "t")
    assert cells(fig) == [[0.5, 1], [0.25, 0]] and drawn(fig)["1"] == (["IO", "END"], ["a", "b"])
    assert fig.layout.yaxis.autorange == "reversed", "the first hook on top"
    assert [plain(row) for row in fig.data[0].text] == [["50%", "100%"], ["25%", "0%"]]


def test_carried_has_a_line_and_a_band_in_each_panel():
    other = tuple(values * 2 for values in CURVE)
    fig = plots.carried({"PCA": CURVE, "new": CURVE}, {"PCA": other, "new": other}, 4.0, "t")
    assert len(fig.data) == 8 and sum(bool(trace.showlegend) for trace in fig.data) == 2
    found = drawn(fig)
    assert found["PCA"] == ([1, 10], [3, 1]) and found["PCA 2"] == ([2, 20], [6, 2])
    assert found["1"] == ([1, 10, 10, 1], [4, 1.5, 0.5, 2])
    assert fig.layout.xaxis.type == "log" and fig.layout.xaxis2.type is None
    assert [shape.y0 for shape in fig.layout.shapes] == [2.0, 2.0]
    fig = plots.carried({"PCA": CURVE}, {"PCA": CURVE}, 4.0, "t", uninformed=1.5)
    assert sorted(shape.y0 for shape in fig.layout.shapes) == [1.5, 1.5, 2.0, 2.0]
    assert written(fig)[2:] == ["half", "uninformed"]
    assert fig.layout.yaxis.range[1] > 4, "bands are not cut"
    bare = plots.carried({"PCA": CURVE}, {"PCA": CURVE}, 4.0, "t", bands=False)
    assert len(bare.data) == 2


def test_orders_have_features_across_and_kl_up():
    fig = plots.orders({"a": ([1, 2], [3.0, 1.0]), "b": ([4], [2.0])}, "t")
    known = plots.orders({"PCA: quick": ([1, 2], [3.0, 1.0]), "PCA: slow": ([4], [2.0])}, "t")
    assert {trace.marker.color for trace in known.data} == {look("PCA").colour}
    assert drawn(fig) == {"a": ([1, 2], [3, 1]), "b": ([4], [2])} and fig.layout.xaxis.type == "log"
    assert [trace.mode for trace in fig.data] == ["lines+markers", "markers"], "no line where nothing was measured"
    level = plots.orders({"a": ([1, 2], [3.0, 1.0])}, "t", nothing=4.0)
    assert [shape.y0 for shape in level.layout.shapes] == [4.0] and "no patch" in written(level)


def test_two_scores_stand_beside_each_other():
    fig = plots.two_scores({"PCA": (0.5, 1.0), "SAE": (0.25, 0.75)}, ("one", "two"), "t", "y")
    assert drawn(fig) == {"one": (["PCA", "SAE"], [0.5, 0.25]), "two": (["PCA", "SAE"], [1, 0.75])}
    assert fig.layout.shapes[0].y0 == 1


def test_controlled_has_a_panel_for_each_kind_with_its_own_levels():
    success = {"a": {"PCA": [(0.1, 0, 0.2), (0.2, 0.1, 0.3)]}, "b": {"PCA": [(0, 0, 0), (1, 1, 1)]}}
    fig = plots.controlled(success, (2, 4), {"a": 0.5, "b": 1}, {"a": 0.2, "b": 0}, "t")
    found = drawn(fig)
    assert found["PCA"] == ([2, 4], [0.1, 0.2]) and found["PCA 2"] == ([2, 4], [0, 1])
    assert found["1"] == ([2, 4, 4, 2], [0.2, 0.3, 0.1, 0]), "the interval"
    levels = [(shape.xref, shape.y0) for shape in fig.layout.shapes]
    assert levels == [("x domain", 0.5), ("x domain", 0.2), ("x2 domain", 1), ("x2 domain", 0)]
    assert plain(fig.layout.xaxis.tickvals) == [2, 4], "every number of edits can be read off"


def test_f1_has_dictionaries_down_and_attributes_across():
    fig = plots.f1_map(torch.tensor([[0.5, 1.0, 0.0]]), ["a"], ["x", "y", "z"], "t")
    assert cells(fig) == [[0.5, 1, 0]] and drawn(fig)["1"] == (["x", "y", "z"], ["a"])


def test_occlusion_and_splitting_draw_lines_and_dots():
    fig = plots.occlusion(
        {
            "price": ((1, 2), {"strong": [1, 0.5], "weak": [0, 0.25], "control": [0.75]}),
            "room": ((3,), {"strong": [1]}),
        },
        {"strong": 2.5, "weak": 1.5},
        "t",
    )
    assert [(shape.x0, shape.xref) for shape in fig.layout.shapes] == [(2.5, "x"), (1.5, "x")], "in the first panel"
    assert [text for text in written(fig) if "predicted" in text] == ["strong: predicted", "weak: predicted"]
    assert drawn(fig) == {
        "strong": ([1, 2], [1, 0.5]),
        "weak": ([1, 2], [0, 0.25]),
        "control": ([1], [0.75]),
        "strong 2": ([3], [1]),
    }
    fig = plots.splitting([1, 2], {"formula": [3, 4]}, {"trained": [(1, 2), (1.5, 2.5)]}, "t")
    assert drawn(fig) == {"formula": ([1, 2], [3, 4]), "trained": ([1, 1.5], [2, 2.5])}
    assert [trace.mode for trace in fig.data] == ["lines", "markers"]


def test_a_change_of_mind_is_told_in_the_title():
    rows = [(0, "Mary", 0.9, 0.0), (4, "to", 0.1, 0.2), (6, "Anna", 0.0, 0.5)]
    fig = plots.minds(rows, "Mary", "Anna", "John")
    assert drawn(fig) == {"Mary": ([0, 4, 6], [0.9, 0.1, 0]), "Anna": ([0, 4, 6], [0, 0.2, 0.5])}
    assert [(note.x, note.text) for note in fig.layout.annotations][:3] == [(0, "“Mary”"), (4, "“to”"), (6, "“Anna”")]
    assert "with 6 features the model says Anna" in fig.layout.title.text.replace("<br>", " ")
    assert "never says Anna" in plots.minds(rows[:2], "Mary", "Anna", "John").layout.title.text.replace("<br>", " ")


def test_patterns_have_features_down_and_names_across():
    fig = plots.name_patterns(torch.tensor([[0.0, 1.0], [0.5, 0.25]]), ["Tom", "Ann"], [7, 1300], "t")
    assert cells(fig) == [[0, 0.5], [1, 0.25]] and drawn(fig)["1"] == (["Tom", "Ann"], ["7", "1,300"])
