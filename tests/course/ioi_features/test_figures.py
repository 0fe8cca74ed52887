"""Figures are made of what they are given."""

import torch

from sae_tutorial.course.ioi_features import figures as plots


def titled(fig, title):
    assert fig.layout.title.text.replace("<br>", " ") == title
    assert fig.layout.xaxis.title.text is not None
    return fig


def test_places():
    fig = titled(plots.places(torch.rand(3, 2), ["a", "b", "c"], ["IO", "END"], "t"), "t")
    assert len(fig.data[0].z) == 3 and list(fig.data[0].x) == ["IO", "END"]


def test_bars():
    values = {"PCA": (1.0, 0.5, 1.5), "Mutual Choice": (0.2, 0.1, 0.4)}
    fig = titled(plots.bars(values, "t", "x"), "t")
    assert list(fig.data[0].x) == [1.0, 0.2] and fig.data[0].type == "bar"
    assert list(fig.data[0].error_x.array) == [0.5, 0.2]


def test_carried_has_a_line_and_a_band_in_each_panel():
    curve = (torch.tensor([1.0, 10.0]), torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.5]), torch.tensor([4.0, 1.5]))
    fig = titled(plots.carried({"PCA": curve, "new": curve}, {"PCA": curve, "new": curve}, 4.0, "t"), "t")
    assert len(fig.data) == 8 and sum(trace.showlegend for trace in fig.data) == 2
    assert list(fig.data[1].y) == [3.0, 1.0] and fig.layout.xaxis.type == "log"
    assert [shape.y0 for shape in fig.layout.shapes] == [2.0, 2.0]
    fig = plots.carried({"PCA": curve}, {"PCA": curve}, 4.0, "t", uninformed=1.5)
    assert sorted(shape.y0 for shape in fig.layout.shapes) == [1.5, 1.5, 2.0, 2.0]
    assert [note.text for note in fig.layout.annotations] == ["half", "answer without receiver"]


def test_the_other_figures():
    titled(plots.orders({"a": ([1, 2], [3.0, 1.0])}, "t"), "t")
    fig = titled(plots.two_scores({"PCA": (0.5, 1.0)}, ("one", "two"), "t", "y"), "t")
    assert [list(trace.y) for trace in fig.data] == [[0.5], [1.0]]
    fig = titled(
        plots.controlled(
            {"a": {"PCA": [0.1, 0.2]}, "b": {"PCA": [0, 1]}}, (2, 4), {"a": 0.5, "b": 1}, {"a": 0.2, "b": 0}, "t"
        ),
        "t",
    )
    assert len(fig.data) == 2 and sorted(shape.y0 for shape in fig.layout.shapes) == [0, 0.2, 0.5, 1]
    titled(plots.f1_map(torch.rand(2, 3), ["a", "b"], ["x", "y", "z"], "t"), "t")
    assert len(titled(plots.occlusion({"loud": [1, 0], "faint": [0, 0]}, (1, 2), "t", "x"), "t").data) == 2
    assert len(titled(plots.splitting([1, 2], {"f": [3, 4]}, {"d": [(1, 2)]}, "t"), "t").data) == 2
