"""Figures of notebook 03 draw what they are given, where it belongs."""

import pytest
import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.course.directions import figures as plots
from sae_tutorial.course.directions import hierarchy


def test_histograms_count_and_mark_chance():
    fig = plots.word_histograms({"a": torch.tensor([1.0, 1.0, 2.0]), "b": torch.tensor([1.0])}, 4.5, "t")
    assert drawn(fig) == {"a": ([1, 1.25, 1.5, 1.75, 2], [2, 0, 0, 0, 1]), "b": ([1], [1])}
    assert fig.layout.shapes[0].x0 == 4.5 and fig.layout.barmode == "overlay"


def test_hit_rates_have_a_bar_per_relation_and_way():
    rates = {"he → she": {"arithmetic": 0.6, "neighbour": 0.5}, "up": {"arithmetic": 0.1, "neighbour": 0}}
    fig = plots.hit_rates(rates, "t")
    assert drawn(fig) == {"arithmetic": (list(rates), [0.6, 0.1]), "neighbour": (list(rates), [0.5, 0])}


def test_the_number_line_has_the_truth_across_and_what_was_said_up():
    value = torch.arange(10.0)
    fig = plots.number_line(value.tolist(), {"all": (value, value + 1), "digit": (value % 5, value)}, "t")
    assert drawn(fig)["all"] == (value.tolist(), (value + 1).tolist())
    assert drawn(fig)["digit"] == ((value % 5).tolist(), value.tolist())
    assert fig.data[1].customdata[3] == "03" and plain(fig.data[1].marker.color) == value.tolist()
    assert "true" in fig.layout.xaxis.title.text and "read" in fig.layout.yaxis.title.text


def test_the_gaussian_is_marked_at_three_on_a_log_axis():
    fig = plots.kurtosis_boxes({"a": torch.tensor([3.0, 5.0]), "b": torch.tensor([50.0])}, "t")
    assert {name: x for name, (x, _) in drawn(fig).items()} == {"a": [3, 5], "b": [50]}
    assert fig.layout.xaxis.type == "log" and fig.layout.shapes[0].x0 == 3
    assert fig.layout.annotations[0].x == pytest.approx(0.4771, abs=1e-3)  # annotations want log10 there


def test_curves_begin_at_one_direction():
    curve = torch.tensor([0.0, 0.25, 0.5])
    fig = plots.explained_curves({"PCA": curve, "first k": curve / 2}, 0.4, "the token", "t", ["first k"])
    assert drawn(fig) == {"PCA": ([1, 2], [0.25, 0.5]), "first k": ([1, 2], [0.125, 0.25])}
    assert [trace.line.dash for trace in fig.data] == ["solid", "dash"]
    assert fig.layout.shapes[0].y0 == 0.4 and written(fig) == ["the token"]


def test_boxes_of_words_mark_chance():
    fig = plots.words_by_dictionary({"PCA": torch.tensor([3.0, 4.0])}, 5.0, "t")
    assert drawn(fig)["PCA"][0] == [3, 4] and fig.layout.shapes[0].x0 == 5.0


def test_the_staircase_is_drawn_where_it_was_built():
    scores = torch.arange(20.0).view(5, 4) / 20
    fig = plots.staircase(scores, list("abcde"), hierarchy.RUNGS, [0, 1, 2, 3, 4], "t")
    assert cells(fig) == [[round(v, 4) for v in row] for row in scores.tolist()]
    x, y = drawn(fig)["2"]
    assert x[:4] == [-0.5, -0.5, 0.5, 0.5] and y[:4] == [-0.5, 0.5, 0.5, 1.5]
    assert plain(fig.layout.yaxis.ticktext) == list("abcde") and fig.layout.yaxis.autorange == "reversed"
    assert plain(fig.layout.xaxis.ticktext) == list(hierarchy.RUNGS)


def test_angles_are_coloured_by_a_cyclic_scale():
    angles, values = torch.tensor([[0.5, 1.0], [2.0, -3.0]]), torch.tensor([0.25, 0.75])
    fig = plots.coloured_by(angles, {"u": values, "length": values * 2}, ["u"], "t")
    assert drawn(fig) == {"1": ([0.5, 2], [1, -3]), "2": ([0.5, 2], [1, -3])} and written(fig) == ["u", "length"]
    first, second = fig.data
    assert plain(first.marker.color) == [0.25, 0.75] and plain(second.marker.color) == [0.5, 1.5]
    assert first.marker.colorscale != second.marker.colorscale


def test_the_path_shows_distractors_once_in_the_legend():
    lengths = torch.arange(10.0).view(2, 5)
    fig = plots.lasso_path([1.0, 0.1], lengths, list("uvabc"), ["u", "v"], "t")
    named = [trace.name for trace in fig.data if trace.showlegend]
    assert sorted(named) == ["distractors", "u", "v"] and len(fig.data) == 5
    assert drawn(fig)["v"] == ([1, 0.1], [1, 6]) and drawn(fig)["distractors"] == ([1, 0.1], [2, 7])
    assert fig.data[-1].name == "v", "coloured lines lie on top"
    assert fig.layout.xaxis.autorange == "reversed"
