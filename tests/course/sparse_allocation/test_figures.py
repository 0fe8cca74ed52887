"""Figures of notebook 05: right data in the right place, labelled axes, controls that show what they say."""

import math

import pytest
import torch

from sae_tutorial.allocation import mutual_choice, token_choice
from sae_tutorial.course.sparse_allocation import figures as plots
from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures import grid as grid_plots

Z = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
WORDS = ["a", " b", "\n", "d"]
BY_BUDGET = {
    "Token Choice": [token_choice(Z, k).to_dense() for k in (1, 2)],
    "Mutual Choice": [mutual_choice(Z, 4 * k).to_dense() for k in (1, 2)],
}
BAND = (torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.5]), torch.tensor([4.0, 2.5]))
TWO = [Interval.of([0.1, 0.2]), Interval.of([0.3])]


def explorer():
    return plots.budget_explorer(Z, BY_BUDGET, [1, 2], WORDS, 2, "title")


FIGURES = {
    "tables": lambda: plots.tables(Z, {"Token Choice": BY_BUDGET["Token Choice"][1]}, WORDS, "title"),
    "prices": lambda: plots.prices({"of each token": Z[:, 0], "of each feature": Z[0]}, 0.5, "title"),
    "by_kind": lambda: plots.by_kind({"Mutual Choice": BAND}, ["name", "word"], "title", "features", level=2),
    "by_decile": lambda: plots.by_decile({"length": Z[0], "surprise": Z[1]}, "title", "features", 2),
    "trade": lambda: plots.trade({"Mutual Choice": Z[0]}, {"Mutual Choice": Z[1]}, list("vwxyz"), "title", "x", "y"),
    "company": lambda: plots.company([1, 2, 2, 3], 2, "title"),
    "rank_density": lambda: plots.rank_density({"Token Choice": Z[0], "Mutual Choice": Z[1]}, 1e-3, "title"),
    "differences": lambda: grid_plots.differences([("Mutual Choice", "k = 32", one) for one in TWO], "title", "x"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_titles_and_axis_labels(name):
    fig = FIGURES[name]()
    assert fig.layout.title.text == "title"
    assert fig.layout.xaxis.title.text
    assert name in ("tables", "differences") or fig.layout.yaxis.title.text, "those two name their rows"


def test_tables_fill_the_matches_and_count_them():
    codes = BY_BUDGET["Token Choice"][1]
    fig = FIGURES["tables"]()
    grey, filled, rows, columns = fig.data
    assert sum(cell is not None for row in filled.z for cell in row) == 8
    assert list(rows.text) == ["2"] * 4
    assert list(columns.text) == [str(n) for n in (codes > 0).sum(0).tolist()]
    assert list(fig.layout.yaxis.ticktext) == ["a", "·b", "↵", "d"]


def test_buttons_show_one_rule_and_the_slider_refills_all():
    fig = explorer()
    assert [bool(trace.visible) for trace in fig.data[1:]] == [False] * 3 + [True] * 3, "the last rule is shown first"
    token, mutual = fig.layout.updatemenus[0].buttons
    assert token.args[0]["visible"] == [True] + [True] * 3 + [False] * 3
    assert mutual.args[0]["visible"] == [True] + [False] * 3 + [True] * 3
    slider = fig.layout.sliders[0]
    assert slider.active == 1 and [step.label for step in slider.steps] == ["1", "2"]
    new, where = slider.steps[0].args
    assert list(where) == list(range(1, 7)) and all(len(new[axis]) == 6 for axis in "xyz")
    assert list(new["x"][1]) == [1, 1, 1, 1], "bars of Token Choice at a budget of one"
    assert sum(new["y"][5]) == 4, "tokens per feature of Mutual Choice"
    start, _ = slider.steps[1].args
    assert [list(row) for row in start["z"][3]] == [list(row) for row in fig.data[4].z], (
        "what is shown is the active step"
    )


def test_bars_have_their_interval():
    bar = FIGURES["by_kind"]().data[0]
    assert list(bar.error_y.array) == [1.0, 0.5] and list(bar.error_y.arrayminus) == [1.0, 0.5]


def test_dead_features_lie_at_the_floor():
    fig = plots.rank_density({"Token Choice": torch.tensor([0.5, 0.1, 0.0, 0.0])}, 0.01, "title")
    assert list(fig.data[0].y) == [0.5, 0.1, 0.01, 0.01]
    assert "50.0% dead" in fig.data[0].name


def test_pareto_has_a_line_per_method_and_panel_and_no_whisker_for_one_seed():
    summary = {"Token Choice": {"l0": [Interval.of([16, 16]), Interval.of([32])], "fvu": TWO, "recovered": TWO}}
    fig = grid_plots.pareto(summary, "title", {"fvu": "FVU", "recovered": "CE"})
    assert len(fig.data) == 2 and [bool(t.showlegend) for t in fig.data] == [True, False]
    assert fig.data[0].error_y.array[1] == 0 and fig.data[0].error_y.array[0] > 0
    assert list(fig.data[0].customdata) == [2, 1]
    assert not any(math.isnan(v) for v in fig.data[0].y)
