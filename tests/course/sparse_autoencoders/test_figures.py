"""Figures of notebook 04 draw what they are given, where it belongs."""

import pytest
import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.course.sparse_autoencoders import figures as plots
from sae_tutorial.course.superposition.toy_models import shape

PENTAGON = shape("pentagon").T  # (5, 2)
CLOUD = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
RUNS = {"L1": [("λ 0.1", 40.0, 0.2), ("λ 0.2", 20.0, 0.3)], "k-means, pursuit": [("", 1, 0.8), ("", 2, 0.6)]}


def test_the_plane_plays_every_moment_and_ends_where_it_is_drawn():
    rows = torch.stack([PENTAGON.flip(1), PENTAGON.roll(1, 0), PENTAGON])
    fig = plots.learning_plane(CLOUD, PENTAGON, rows, [0, 5, 20], "title")
    assert [frame.name for frame in fig.frames] == ["0", "5", "20"]
    slider = fig.layout.sliders[0]
    assert [step.label for step in slider.steps] == ["0", "5", "20"] and slider.active == 2
    assert fig.layout.updatemenus[0].buttons[0].method == "animate"
    assert fig.frames[-1].data[0].x == fig.data[3].x, "the still picture is the last moment"
    assert fig.frames[0].data[0].x == fig.data[2].x and list(fig.frames[0].traces) == [3]
    x, y = drawn(fig)["learned rows"]
    assert [x[1], y[1]] == pytest.approx(PENTAGON[0].tolist(), abs=1e-3) and x[2] is None
    assert drawn(fig)["activations x"][0] == pytest.approx(CLOUD[:, 0].tolist(), rel=1e-2)
    assert len(fig.to_json()) < 20_000


def test_lines_of_the_closed_form_are_zero_up_to_the_offset():
    true = {"α": torch.tensor([0.5, 1.5])}
    fig = plots.learned_against_true(true, {"α": true["α"] - 0.2}, {"α": 0.2}, "title")
    found = drawn(fig)
    assert found["α"] == ([0.5, 1.5], pytest.approx([0.3, 1.3]))
    assert found["_α"] == (pytest.approx([0, 0.2, 1.5]), pytest.approx([0, 0, 1.3]))
    assert found["z = a"] == ([0, 1.5], [0, 1.5])
    assert [trace.mode for trace in fig.data] == ["lines", "markers", "lines"]


def test_curves_keep_first_and_last_step():
    values = list(range(1000))
    panels = {"one": {"a": values, "b": values[::-1]}, "two": {"a": values}}
    fig = plots.curves(panels, "title", ticks={"two": ".0%"}, tops={"one": 5.0})
    assert all(trace.x[0] == 0 and trace.x[-1] == 999 and len(trace.x) <= 400 for trace in fig.data)
    assert all(y == x for x, y in zip(*drawn(fig)["a"])) and drawn(fig)["b"][1][0] == 999
    assert written(fig) == ["one", "two"] and fig.data[2].xaxis == "x2"
    assert fig.layout.yaxis2.tickformat == ".0%" and fig.layout.yaxis.range == (0, 5)
    assert fig.layout.yaxis2.range is None and fig.layout.yaxis2.matches is None


def test_pareto_has_markers_and_labels_only_where_something_was_trained():
    fig = plots.pareto(RUNS, "title")
    assert drawn(fig) == {"L1": ([40, 20], [0.2, 0.3]), "k-means, pursuit": ([1, 2], [0.8, 0.6])}
    assert plain(fig.data[0].customdata) == ["λ 0.1", "λ 0.2"] and fig.data[1].customdata is None
    assert "markers" in fig.data[0].mode and fig.data[1].mode == "lines" and fig.data[1].line.dash == "dash"
    assert fig.layout.xaxis.type == "log" and fig.layout.yaxis.rangemode == "tozero"


def test_recovery_map_marks_the_truth():
    fig = plots.recovery_map(torch.tensor([[0.5, 0.6], [0.9, 0.95]]), [32, 64], [0.1, 0.3], "title", truth=64)
    assert cells(fig) == [[0.5, 0.6], [0.9, 0.95]]
    assert drawn(fig)["1"] == (["0.1", "0.3"], ["32", "64 = truth"]) and fig.layout.yaxis.autorange is True
    assert written(fig) == ["0.50", "0.60", "0.90", "0.95"]


def test_numbers_of_the_map_are_dark_on_light_cells_and_what_random_rows_have_comes_first():
    fig = plots.recovery_map(torch.tensor([[0.95]]), [32], [0.1], "title", random=[0.3])
    assert drawn(fig)["1"][0] == ["random rows", "0.1"] and written(fig) == ["0.30", "0.95"]
    assert [note.font.color for note in fig.layout.annotations] == ["#FFFFFF", "#000000"]


def test_every_ending_has_a_title():
    assert set(plots.PLANE_TITLES) == set(by_hand.ENDINGS)


def test_a_third_run_is_dashed():
    fig = plots.curves({"one": {name: [1, 2] for name in "abc"}}, "title")
    assert [trace.line.dash for trace in fig.data] == ["solid", "solid", "dash"]
