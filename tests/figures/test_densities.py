"""Figures of densities: right data in the right place, labelled axes."""

import numpy as np
import pytest

from sae_tutorial.figures import densities as plots

ZIPF = 1 / np.arange(1, 1001)


def test_curves_are_sorted_thinned_and_without_zeros():
    values = np.concatenate([np.zeros(5), np.random.default_rng(0).permutation(ZIPF)])
    fig = plots.rank_density(
        {"Token Choice": values}, "title", laws={"Token Choice": ZIPF, "a rival": ZIPF / 2}, middle=(10, 100)
    )
    data, own, rival = fig.data
    assert data.x[0] == 1 and data.x[-1] == 1000 and len(data.x) <= plots.POINTS
    assert list(data.y) == pytest.approx([1 / r for r in data.x], rel=1e-3)
    assert data.line.color == plots.COLOURS["Token Choice"] == own.line.color != rival.line.color
    assert own.line.dash and rival.line.dash and fig.layout.xaxis.type == fig.layout.yaxis.type == "log"
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (10, 100)


def test_residuals_are_density_over_law():
    fig = plots.residuals({"a": (ZIPF * 3, ZIPF)}, "title")
    assert list(fig.data[0].y) == pytest.approx([3.0] * len(fig.data[0].x))


def test_strips_keep_every_value():
    fig = plots.strips({"a": [0.9, 0.95], "b": [1.0]}, "title", "R²", {"paper": 0.982})
    assert [len(trace.x) for trace in fig.data] == [2, 1]
    assert fig.layout.annotations[0].text == "paper" and fig.layout.yaxis.ticktext == ("a", "b")


def test_intervals_reach_from_low_to_high():
    fig = plots.intervals(
        {"seeds": {"0": (1.0, 0.8, 1.3)}, "none": {}, "layers": {"1": (2.0, 1.0, 4.0)}}, "title", "exponent"
    )
    assert len(fig.data) == 2 and fig.data[1].y == (1,)
    assert fig.data[0].error_x.array[0] == pytest.approx(0.3) and fig.data[0].error_x.arrayminus[0] == pytest.approx(
        0.2
    )


def test_lines_draw_a_band_where_there_is_one():
    fig = plots.lines([1, 10], {"a": [0.1, 0.2], "b": ([1, 2], [0.5, 1], [2, 3])}, "title", "step", "Gini", mark=1.0)
    assert [trace.name for trace in fig.data if trace.name] == ["a", "b"] and len(fig.data) == 3


@pytest.mark.parametrize(
    "fig",
    [
        plots.rank_density({"a": ZIPF}, "title"),
        plots.residuals({"a": (ZIPF, ZIPF)}, "title"),
        plots.moved_budget(np.array([[0, 0.1], [0.1, 0], [0.5, 0.4]]), ["a", "b", "c"], ["a", "b"], "title"),
        plots.lines([1, 2], {"a": [1, 2]}, "title", "step", "Gini", logarithmic=False),
    ],
    ids=["rank_density", "residuals", "moved_budget", "lines"],
)
def test_titles_and_axis_labels(fig):
    assert fig.layout.title.text == "title"
    assert fig.layout.xaxis.title.text and fig.layout.yaxis.title.text
