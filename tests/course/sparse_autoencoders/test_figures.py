"""Figures of notebook 04: right data in the right place, labelled axes, nothing lost on the way."""

import pytest
import torch

from sae_tutorial.course.sparse_autoencoders import figures as plots
from sae_tutorial.course.superposition.toy_models import shape
from sae_tutorial.evaluation.contexts import Context

PENTAGON = shape("pentagon").T  # (5, 2)
CLOUD = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
PLACES = [Context("once upon a", " time", " there was", 0.4), Context("the <i>", " cat", " sat & slept", 0.2)]
RUNS = {"L1": [("α 0.1", 40.0, 0.2, 0.95), ("α 0.2", 20.0, 0.3, 0.9)], "TopK": [("k 8", 8.0, 0.3, 0.9)]}


def plane():
    rows = torch.stack([PENTAGON.flip(1), PENTAGON.roll(1, 0), PENTAGON])
    return plots.learning_plane(CLOUD, PENTAGON, rows, [0, 5, 20], "title")


def test_the_plane_plays_every_moment_and_ends_where_it_is_drawn():
    fig = plane()
    assert [frame.name for frame in fig.frames] == ["0", "5", "20"]
    slider = fig.layout.sliders[0]
    assert [step.label for step in slider.steps] == ["0", "5", "20"] and slider.active == 2
    assert fig.layout.updatemenus[0].buttons[0].method == "animate"
    assert fig.frames[-1].data[0].x == fig.data[3].x, "the still picture is the last moment"
    assert fig.frames[0].data[0].x == fig.data[2].x and list(fig.frames[0].traces) == [3]
    assert fig.data[3].x[1] == pytest.approx(float(PENTAGON[0, 0]), abs=1e-3)
    assert len(fig.to_json()) < 20_000


def test_contexts_are_coloured_by_feature_and_text_is_no_markup():
    fig = plots.feature_contexts({"feature 1": PLACES, "feature 2": PLACES[:1]}, "title")
    assert [bar.name for bar in fig.data] == ["feature 1", "feature 2"]
    assert [y for bar in fig.data for y in bar.y] == [0, 1, 2]
    assert len(fig.layout.yaxis.ticktext) == 3 and "<b>" in fig.layout.yaxis.ticktext[0]
    assert "&lt;i&gt;" in fig.layout.yaxis.ticktext[1]


def test_shares_above_are_shares_above():
    fig = plots.shares_above({"a": torch.tensor([3.0, 1.0, 2.0, 4.0])}, "title", "value", mark=(2.5, "here"))
    assert list(fig.data[0].x) == [1, 2, 3, 4]
    assert list(fig.data[0].y) == [1, 0.75, 0.5, 0.25]
    large = plots.shares_above({"random": torch.rand(100_000)}, "title", "value")
    assert len(large.data[0].x) <= 400


def test_lines_of_the_closed_form_start_at_zero():
    true = {"α": torch.tensor([0.5, 1.5])}
    fig = plots.learned_against_true(true, {"α": true["α"] - 0.2}, {"α": 0.2}, "title")
    line = fig.data[2]
    assert list(line.x) == pytest.approx([0.2, 1.5]) and list(line.y) == pytest.approx([0, 1.3])


def test_curves_keep_first_and_last_step():
    values = list(range(1000))
    fig = plots.curves({"one": {"a": values, "b": values}, "two": {"a": values}}, "title", ticks={"two": ".0%"})
    assert all(trace.x[0] == 0 and trace.x[-1] == 999 and len(trace.x) <= 400 for trace in fig.data)
    assert [bool(trace.showlegend) for trace in fig.data] == [True, True, False]
    assert fig.layout.yaxis2.tickformat == ".0%"


def test_pareto_shows_each_run_in_both_panels():
    fig = plots.pareto(RUNS, "title")
    assert [trace.name for trace in fig.data] == ["L1", "L1", "TopK", "TopK"]
    assert list(fig.data[0].y) == [0.2, 0.3] and list(fig.data[1].y) == [0.95, 0.9]
    assert fig.layout.xaxis.type == fig.layout.xaxis2.type == "log"


def test_recovery_map_marks_the_truth():
    fig = plots.recovery_map(torch.tensor([[0.5, 0.6], [0.9, 0.95]]), [32, 64], [0.1, 0.3], "title", truth=64)
    assert list(fig.data[0].y) == ["32", "64 = truth"] and list(fig.data[0].x) == ["0.1", "0.3"]


@pytest.mark.parametrize(
    "fig",
    [
        plane(),
        plots.shares_above({"a": torch.rand(5)}, "title", "value"),
        plots.learned_against_true({"a": torch.rand(5)}, {"a": torch.rand(5)}, {"a": 0.1}, "title"),
        plots.pareto(RUNS, "title"),
        plots.recovery_map(torch.rand(1, 2), [8], [0.1, 0.2], "title"),
        plots.curves({"FVU": {"a": [1.0, 2.0]}}, "title"),
    ],
    ids=["plane", "shares", "scatter", "pareto", "map", "curves"],
)
def test_titles_and_axis_labels(fig):
    assert fig.layout.title.text == "title"
    assert fig.layout.xaxis.title.text
    assert fig.layout.yaxis.title.text or fig.layout.annotations, "an axis label, or a heading above the panel"
