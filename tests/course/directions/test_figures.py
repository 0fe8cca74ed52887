import pytest
import torch

from sae_tutorial.course.directions import figures as plots
from sae_tutorial.course.directions import hierarchy
from sae_tutorial.evaluation.contexts import Context


def context(activation):
    return Context(before="once upon a", token=" time", after=" there was", activation=activation)


def test_contexts_keep_their_groups_apart():
    fig = plots.contexts_by_group({"loud": [context(2.0), context(1.5)], "quiet": [context(0.5)]}, "t", "activation")
    assert [trace.name for trace in fig.data] == ["loud", "quiet"]
    assert [list(trace.y) for trace in fig.data] == [[0, 1], [2]] and len(fig.layout.yaxis.ticktext) == 3


def test_histograms_mark_chance():
    fig = plots.word_histograms({"a": torch.rand(30) * 4 + 1, "b": torch.rand(30) * 4 + 1}, 4.5, "t")
    assert len(fig.data) == 2 and fig.layout.shapes[0].x0 == 4.5


def test_hit_rates_have_a_bar_per_relation_and_way():
    fig = plots.hit_rates(
        {"he → she": {"arithmetic": 0.6, "neighbour": 0.5}, "up": {"arithmetic": 0.1, "neighbour": 0}}, "t"
    )
    assert [trace.name for trace in fig.data] == ["arithmetic", "neighbour"]
    assert list(fig.data[0].x) == ["he → she", "up"] and list(fig.data[1].y) == [0.5, 0]


def test_the_number_line_has_a_diagonal_and_dots_per_panel():
    value = torch.arange(10.0)
    fig = plots.number_line(value.tolist(), {"all": (value, value + 1), "digit": (value % 5, value)}, "t")
    assert len(fig.data) == 4 and fig.data[1].text[3] == "03" and list(fig.data[0].x) == [0, 9]


def test_the_gaussian_is_marked_at_three_on_a_log_axis():
    fig = plots.kurtosis_boxes({"a": torch.rand(20) + 3, "b": torch.rand(20) * 50 + 3}, "t")
    assert fig.layout.xaxis.type == "log" and fig.layout.shapes[0].x0 == 3
    assert fig.layout.annotations[0].x == pytest.approx(0.4771, abs=1e-3)  # annotations want log10 there


def test_curves_begin_at_one_direction():
    curve = torch.linspace(0, 0.8, 9)
    fig = plots.explained_curves({"PCA": curve, "first k": curve / 2}, 0.4, "the token", "t", ["first k"])
    assert list(fig.data[0].x) == list(range(1, 9)) and fig.data[0].y[0] == pytest.approx(0.1)
    assert [trace.line.dash for trace in fig.data] == ["solid", "dash"]


def test_boxes_of_words_mark_chance():
    fig = plots.words_by_dictionary({"PCA": torch.rand(20) + 3}, 5.0, "t")
    assert fig.layout.shapes[0].x0 == 5.0


def test_the_staircase_is_drawn_where_it_was_built():
    fig = plots.staircase(torch.rand(5, 4), list("abcde"), hierarchy.RUNGS, [0, 1, 2, 3, 4], "t")
    assert list(fig.data[1].x[:4]) == [-0.5, -0.5, 0.5, 0.5] and list(fig.data[1].y[:2]) == [-0.5, 0.5]


def test_angles_are_coloured_by_a_cyclic_scale():
    angles, values = torch.rand(20, 2), torch.rand(20)
    fig = plots.coloured_by(angles, {"u": values, "length": values}, ["u"], "t")
    first, second = (trace.marker.colorscale for trace in fig.data)
    assert first != second and len(fig.data[0].x) == 20


def test_the_path_shows_distractors_once_in_the_legend():
    fig = plots.lasso_path([1.0, 0.1], torch.rand(2, 5), list("uvabc"), ["u", "v"], "t")
    named = [trace.name for trace in fig.data if trace.showlegend]
    assert sorted(named) == ["distractors", "u", "v"] and len(fig.data) == 5
