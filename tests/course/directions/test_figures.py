"""Figures of notebook 03 draw what they are given, where it belongs."""

import pytest
import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.course.directions import figures as plots
from sae_tutorial.course.directions import hierarchy


def test_a_curve_says_how_many_neurons_have_fewer_words():
    fig = plots.word_shares({"a": torch.tensor([1.5, 1.5, 3.0, 9.0]), "b": torch.tensor([2.0])}, {"chance": 4.5}, "t")
    (x, a), (_, b) = drawn(fig).values()
    share = {round(at, 2): (left, right) for at, left, right in zip(x, a, b)}
    assert share[1.0] == (0, 0) and share[2.0] == (0.5, 0) and share[2.1] == (0.5, 1) and share[8.0] == (0.75, 1)
    assert fig.layout.shapes[0].x0 == 4.5 and "chance" in written(fig)


def test_kinds_of_curves_have_colours_and_ways_have_dashes():
    names = ["neurons, top", "neurons, half", "random, top", "random, half"]
    lines = [t.line for t in plots.word_shares(dict.fromkeys(names, torch.tensor([2.0])), {}, "t").data]
    assert lines[0].color == lines[1].color != lines[2].color == lines[3].color
    assert lines[0].dash == lines[2].dash != lines[1].dash == lines[3].dash


def test_hit_rates_have_a_bar_per_relation_and_way():
    rates = {"he → she": {"arithmetic": 0.6, "neighbour": 0.5}, "up": {"arithmetic": 0.1, "neighbour": 0}}
    fig = plots.hit_rates(rates, "t")
    assert drawn(fig) == {"arithmetic": (list(rates), [0.6, 0.1]), "neighbour": (list(rates), [0.5, 0])}


def test_the_number_line_has_the_truth_across_and_what_was_said_up():
    value = torch.arange(10.0)
    fig = plots.number_line(value.tolist(), {"all": (10 * value, value + 1), "digit": (value % 5, value)}, "t")
    assert drawn(fig)["all"] == ((10 * value).tolist(), (value + 1).tolist())
    assert drawn(fig)["digit"] == ((value % 5).tolist(), value.tolist())
    assert fig.data[1].customdata[3] == "03"
    assert fig.layout.xaxis.range[1] > 90 and fig.layout.xaxis2.range[1] < 5, "each panel has axes of its own"
    assert fig.layout.yaxis2.matches is None and fig.layout.yaxis2.showticklabels is not False
    assert "true" in fig.layout.xaxis.title.text and "read" in fig.layout.yaxis.title.text


def test_the_gaussian_is_marked_at_three_on_a_log_axis():
    fig = plots.kurtosis_boxes({"a": torch.tensor([3.0, 5.0]), "b": torch.tensor([50.0])}, "t")
    assert {name: x for name, (x, _) in drawn(fig).items()} == {"a": [3, 5], "b": [50]}
    assert fig.layout.xaxis.type == "log" and fig.layout.shapes[0].x0 == 3
    assert fig.layout.annotations[0].x == pytest.approx(0.4771, abs=1e-3)  # annotations want log10 there


def test_each_dictionary_has_a_bar_for_each_number_of_directions():
    explained = {"PCA": {1: 0.1, 8: 0.4}, "positions": {1: 0.3, 8: 0.7}}
    fig = plots.explained_bars(explained, 0.5, "the token", "t")
    assert {name: x for name, (x, _) in drawn(fig).items()} == {"1 per token": [0.1, 0.3], "8 per token": [0.4, 0.7]}
    assert fig.data[0].y == ("PCA", "positions") and fig.layout.yaxis.autorange == "reversed"
    assert fig.layout.shapes[0].x0 == 0.5 and written(fig) == ["the token"]
    assert len({bar.marker.color for bar in fig.data}) == 2


def test_the_staircase_is_drawn_where_it_was_built():
    scores = torch.arange(20.0).view(5, 4) / 20
    fig = plots.staircase(scores, list("abcde"), hierarchy.RUNGS, [0, 1, 2, 3, 4], "t")
    assert cells(fig) == [[round(v, 4) for v in row] for row in scores.tolist()]
    x, y = drawn(fig)["2"]
    assert x[:4] == [-0.5, -0.5, 0.5, 0.5] and y[:4] == [-0.5, 0.5, 0.5, 1.5]
    assert plain(fig.layout.yaxis.ticktext) == list("abcde") and fig.layout.yaxis.autorange == "reversed"
    assert plain(fig.layout.xaxis.ticktext) == list(hierarchy.RUNGS)
