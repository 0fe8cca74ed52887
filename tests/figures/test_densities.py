"""Figures of densities draw what they are given, where it belongs."""

import numpy as np
import pytest
import torch
from drawing import drawn, plain, written

from sae_tutorial.figures import densities as plots
from sae_tutorial.figures.looks import look

ZIPF = 1 / np.arange(1, 1001)


def test_curves_are_sorted_thinned_and_without_zeros():
    values = np.concatenate([np.zeros(5), np.random.default_rng(0).permutation(ZIPF)])
    laws = {"Token Choice": ZIPF, "a rival": ZIPF / 2}
    fig = plots.rank_density({"Token Choice": values}, "title", laws=laws, middle=(10, 100))
    data, own, rival = fig.data
    assert data.x[0] == 1 and data.x[-1] == 1000 and len(data.x) <= plots.POINTS
    assert plain(data.y) == pytest.approx([1 / r for r in data.x], rel=1e-3)
    assert plain(rival.y) == pytest.approx([0.5 / r for r in rival.x], rel=1e-3)
    assert [trace.name for trace in fig.data] == ["Token Choice", "Token Choice: law", "a rival"]
    assert data.line.color == look("Token Choice").colour == own.line.color != rival.line.color
    assert data.line.dash == "solid" and own.line.dash == "dash"
    assert fig.layout.xaxis.type == fig.layout.yaxis.type == "log"
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (10, 100)


def test_dead_features_lie_at_the_floor_and_are_counted():
    fig = plots.rank_density({"Token Choice": torch.tensor([0.5, 0.0, 0.1, 0.0])}, "title", floor=0.01)
    assert drawn(fig) == {"Token Choice: 50.0% dead": ([1, 2, 3, 4], [0.5, 0.1, 0.01, 0.01])}
    assert written(fig) == ["never fired"] and fig.layout.shapes[0].y0 == 0.01
    assert fig.layout.annotations[0].y == -2, "where the line is, on a log axis"
    alone = plots.rank_density({"Token Choice": torch.zeros(3)}, "title", floor=0.01)
    assert drawn(alone) == {"Token Choice: 100.0% dead": ([1, 2, 3], [0.01] * 3)}


def test_residuals_are_density_over_law():
    fig = plots.residuals({"a": (ZIPF * 3, ZIPF)}, "title")
    assert plain(fig.data[0].y) == pytest.approx([3.0] * len(fig.data[0].x))
    assert fig.layout.shapes[0].y0 == 1


def test_residuals_have_ticks_at_factors_of_two():
    fig = plots.residuals({"a": (ZIPF * np.linspace(0.3, 1.3, 1000), ZIPF)}, "title", band=("most", 10, 100))
    assert fig.layout.yaxis.ticktext == ("1/4", "1/2", "1", "2") and fig.layout.yaxis.tickvals == (0.25, 0.5, 1, 2)
    assert written(fig) == ["most"] and fig.layout.annotations[0].x == pytest.approx(1.5), "log₁₀ of the middle"
    assert (10, 100) in [(shape.x0, shape.x1) for shape in fig.layout.shapes]
