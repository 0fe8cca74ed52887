import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from drawing import says_nothing_is_there, written

from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures import frame
from sae_tutorial.figures.text import width_of


@pytest.mark.parametrize(
    "data",
    [
        (),
        [[], {}],
        [torch.zeros(0), np.zeros((0, 3))],
        [{"a": torch.tensor([math.nan]), "b": [math.inf, None]}],
        [{"a": {"l0": [Interval(math.nan, math.nan, math.nan, 0.0)]}}, "text"],
    ],
)
def test_nothing_is_there(data):
    data = [one if "l0" not in str(one) else {"a": [math.nan]} for one in data]
    assert frame.nothing(*data)


@pytest.mark.parametrize(
    "data",
    [0, 1.5, np.float32(2), torch.tensor([math.nan, 0.0]), {"a": [[], [0]]}, [Context("", "", "", 0.0)], np.array([3])],
)
def test_something_is_there(data):
    assert not frame.nothing([], data)


def test_an_empty_figure_says_why():
    fig = frame.empty("title", "Nothing to draw: no feature fires.")
    assert says_nothing_is_there(fig) and fig.layout.title.text == "title"
    assert written(fig) == ["Nothing to draw: no feature fires."]


def test_panels_have_headings_and_shared_labels():
    fig, places = frame.panels(["one", "two", "three"], "title", "x", "y", columns=2)
    assert places == [{"row": 1, "col": 1}, {"row": 1, "col": 2}, {"row": 2, "col": 1}]
    assert written(fig) == ["one", "two", "three"]
    layout = fig.layout
    assert [axis.title.text for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3)] == ["", "x", "x"], "lowest ones"
    assert [axis.title.text for axis in (layout.yaxis, layout.yaxis2, layout.yaxis3)] == ["y", "", "y"], "leftmost ones"


def test_panels_may_have_labels_of_their_own():
    fig, _ = frame.panels(["one", "two"], "title", ["a", "b"], ["c", "d"])
    assert [fig.layout[axis].title.text for axis in ("xaxis", "xaxis2", "yaxis", "yaxis2")] == ["a", "b", "c", "d"]
    assert fig.layout.yaxis2.matches is None, "each has its own scale"


def test_long_headings_fit_above_their_panel_and_get_room():
    short, _ = frame.panels(["a", "b", "c"], "title")
    long, _ = frame.panels(["a heading of many words that is longer than its panel", "b", "c"], "title")
    lines = written(long)[0].split("<br>")
    assert len(lines) > 1 and all(width_of(line, 13) < 620 / 3 for line in lines)
    assert long.layout.margin.t > short.layout.margin.t


def test_headings_make_way_for_what_stands_above_the_axes():
    fig, _ = frame.panels(["one"], "title", above=18)
    assert fig.layout.annotations[0].yshift == 18


def test_levels_lie_where_they_are_told_with_their_names():
    fig, places = frame.panels(["a", "b"], "title")
    fig.add_scatter(x=[0, 1], y=[0, 3], **places[1])
    frame.levels(fig, {"half": 0.5, "_hidden": 2}, **places[1])
    assert [shape.y0 for shape in fig.layout.shapes] == [0.5, 2] == [shape.y1 for shape in fig.layout.shapes]
    assert {shape.xref for shape in fig.layout.shapes} == {"x2 domain"}
    (note,) = (note for note in fig.layout.annotations if note.text == "half")
    assert (note.y, note.xref, note.yref) == (0.5, "x2 domain", "y2") and "_hidden" not in written(fig)


def test_names_on_logarithmic_axes_stand_at_their_lines():
    fig = go.Figure()
    frame.levels(fig, {"level": 100}, log=True)
    frame.marks(fig, {"mark": 1000}, log=True)
    assert [note.y for note in fig.layout.annotations if note.text == "level"] == [2]
    assert [note.x for note in fig.layout.annotations if note.text == "mark"] == [3]


def test_names_of_neighbouring_marks_turn_away_from_each_other():
    fig = go.Figure()
    frame.marks(fig, {"right": 2.0, "left": 1.0})
    assert {shape.x0 for shape in fig.layout.shapes} == {1, 2}
    assert {note.text: (note.x, note.xanchor) for note in fig.layout.annotations} == {
        "left": (1, "right"),
        "right": (2, "left"),
    }


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1, 10_000], None),
        ([256, 1024, 4096], (256, 1024, 4096)),
        (np.linspace(0.21, 3, 50), (0.2, 0.5, 1, 2, 5)),
        (np.linspace(0.41, 1.2, 50), (0.3, 0.5, 0.7, 1, 1.5, 2)),
        ([], (1,)),
        ([0, -1, math.nan, 3.0], (3,)),
    ],
)
def test_a_logarithmic_axis_has_ticks_to_read_off(values, ticks):
    axis = go.Figure()
    frame.log_axis(axis.update_xaxes, values)
    axis = axis.layout.xaxis
    assert axis.type == "log"
    assert axis.dtick == 1 if ticks is None else axis.tickvals == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("values", "ticks", "form"),
    [
        ([50, 3_000], [50, 1_000, 3_000], {"tickformat": ",.3~r"}),
        ([0.001, 10_000], None, {"tickformat": ",.3~r"}),
        ([0.001, 0.01], None, {"tickformat": ",.3~r"}),
        ([1e-5, 1], None, {"exponentformat": "power"}),
        ([1e-5, 1e-4], [1e-5, 2e-5, 1e-4], {"ticktext": ["10<sup>−5</sup>", "2·10<sup>−5</sup>", "10<sup>−4</sup>"]}),
    ],
)
def test_a_logarithmic_axis_writes_thousands_in_full_and_small_numbers_as_powers(values, ticks, form):
    axis = go.Figure()
    frame.log_axis(axis.update_xaxes, values, ticks)
    said = axis.layout.xaxis.to_plotly_json()
    shown = {name: said[name] for name in ("tickformat", "exponentformat", "ticktext") if name in said}
    assert {name: list(v) if name == "ticktext" else v for name, v in shown.items()} == form
