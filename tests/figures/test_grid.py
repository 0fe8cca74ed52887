"""Figures of the grid draw what they are given, where it belongs."""

import math

import pytest
from drawing import drawn, plain, written

from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures import grid as plots
from sae_tutorial.figures.looks import look

TWO = [Interval.of([0.1, 0.2]), Interval.of([0.3])]


def test_pareto_has_a_line_per_method_and_panel_and_no_whisker_for_one_seed():
    l0 = [Interval.of([16, 16]), Interval.of([32])]
    summary = {"Token Choice": {"l0": l0, "fvu": TWO, "recovered": TWO[::-1]}}
    fig = plots.pareto(summary, "title", {"fvu": "FVU", "recovered": "CE"})
    assert drawn(fig) == {
        "Token Choice": ([16, 32], pytest.approx([0.15, 0.3])),
        "Token Choice 2": ([16, 32], pytest.approx([0.3, 0.15])),
    }
    assert written(fig) == ["FVU", "CE"] and [bool(t.showlegend) for t in fig.data] == [True, False]
    assert (
        fig.data[0].error_y.array[1] == 0 < fig.data[0].error_y.array[0] == pytest.approx(TWO[0].high - 0.15, rel=1e-3)
    )
    assert plain(fig.data[0].customdata) == [2, 1] and fig.data[0].line.color == look("token_choice").colour
    assert not any(math.isnan(v) for v in fig.data[0].y)
    assert fig.layout.yaxis2.matches is None, "measures have scales of their own"


def test_differences_have_a_row_for_each_comparison():
    rows = [("Mutual Choice", "k = 16", TWO[0]), ("Token Choice", "k = 32", TWO[1])]
    fig = plots.differences(rows, "title", "x")
    assert drawn(fig) == {"Mutual Choice": (pytest.approx([0.15]), [0]), "Token Choice": ([0.3], [1])}
    assert fig.layout.yaxis.ticktext == ("Mutual Choice, k = 16", "Token Choice, k = 32")
    assert fig.data[0].error_x.array[0] > 0 == fig.data[1].error_x.array[0]
    assert fig.data[0].customdata[0][3] == "seeds: 2" and fig.data[0].marker.symbol == look("mutual_choice").marker
    assert fig.layout.shapes[-1].x0 == 0
