"""Contexts: a bar for each place, the text before on its left, the text after inside or beside it."""

import pytest
from drawing import drawn, plain, says_nothing_is_there

from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures.contexts import feature_contexts


def place(activation, token=" time", before="once upon a", after=" there was a very small house"):
    return Context(before, token, after, activation)


def test_bars_are_coloured_by_group_from_the_top():
    fig = feature_contexts(
        {"loud": [place(2.0), place(1.5)], "quiet": [place(1.25, " cat")]}, "t", "activation", "feature"
    )
    assert drawn(fig) == {"loud": ([2, 1.5], [0, 1]), "quiet": ([1.25], [2])}
    assert fig.layout.yaxis.autorange == "reversed" and fig.layout.xaxis.title.text == "activation"
    assert plain(fig.layout.yaxis.ticktext) == ["once upon a <b>time</b>"] * 2 + ["once upon a <b>cat</b>"]
    assert fig.data[0].marker.color != fig.data[1].marker.color
    assert fig.layout.showlegend and fig.layout.legend.title.text == "feature"


def test_inside_a_bar_stands_the_text_after():
    fig = feature_contexts({"a": [place(2.0)]}, "t", "x")
    (bar,) = fig.data
    assert plain(bar.text) == [" there was a very small house"] and bar.textposition == "inside"
    assert plain(bar.customdata) == ["once upon a <b>time</b> there was a very small house"]
    assert "once upon a" not in bar.text[0]


def test_without_groups_places_are_coloured_by_token():
    fig = feature_contexts([place(1.0), place(1.2), place(1.1, "ing")], "t", "x")
    assert drawn(fig) == {" time": ([1, 1.2], [0, 1]), "ing": ([1.1], [2])} and not fig.layout.showlegend


def test_text_stands_beside_a_bar_that_is_too_short_for_it():
    contexts = [place(2.5), place(0.1, after=" in the garden of"), place(-0.1, after=" at home")]
    fig = feature_contexts({"a": contexts}, "t", "x")
    bars, beside = fig.data
    assert bars.text[0] and plain(bars.text[1:]) == ["", ""]
    assert plain(beside.x) == [0.1, 0] and plain(beside.y) == [1, 2]
    assert [text.strip() for text in beside.text] == ["in the garden of", "at home"]


def test_text_of_a_model_is_no_markup():
    odd = place(2.0, " <i>", before="a <br> b", after=" sat & slept</b>")
    fig = feature_contexts([odd], "t", "x")
    assert fig.layout.yaxis.ticktext[0] == "a &lt;br&gt; b <b>&lt;i&gt;</b>"
    assert fig.data[0].text[0] == " sat &amp; slept&lt;/b&gt;"


@pytest.mark.parametrize("groups", [[], {}, {"a": [], "b": []}, [place(float("nan"))], {"dead": [place(0.0)] * 3}])
def test_a_dead_feature_has_an_empty_figure_that_says_so(groups):
    assert says_nothing_is_there(feature_contexts(groups, "t", "x"))


def test_a_place_without_a_value_is_left_out():
    fig = feature_contexts([place(1.0), place(float("nan"))], "t", "x")
    assert drawn(fig) == {" time": ([1], [0])} and len(fig.layout.yaxis.ticktext) == 1
