"""Figures of the grid draw what they are given, where it belongs."""

import pytest
from drawing import drawn

from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures import grid as plots
from sae_tutorial.figures.looks import look

TWO = [Ratio(0.15, 0.1, 0.2, 0.01, 2, 40), Ratio(0.3, 0.3, 0.3, 0.01, 1, 40)]


def test_differences_have_a_row_for_each_comparison():
    rows = [("Mutual Choice", "k = 16", TWO[0]), ("Token Choice", "k = 32", TWO[1])]
    fig = plots.differences(rows, "title", "x")
    assert drawn(fig) == {"Mutual Choice": (pytest.approx([0.15]), [0]), "Token Choice": ([0.3], [1])}
    assert fig.layout.yaxis.ticktext == ("Mutual Choice, k = 16", "Token Choice, k = 32")
    assert fig.data[0].error_x.array[0] > 0 == fig.data[1].error_x.array[0]
    assert fig.data[0].customdata[0][3] == "seeds: 2" and fig.data[0].marker.symbol == look("mutual_choice").marker
    assert fig.layout.shapes[-1].x0 == 0


def test_a_method_alone_is_not_said_in_every_line():
    fig = plots.differences([("Mutual Choice", f"k = {k}", TWO[0]) for k in (16, 32)], "title", "x")
    assert fig.layout.yaxis.ticktext == ("k = 16", "k = 32")
