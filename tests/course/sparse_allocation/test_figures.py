"""Figures of notebook 05 draw what they are given, where it belongs; controls show what they say."""

import pytest
import torch
from drawing import drawn, plain, written

from sae_tutorial.allocation import mutual_choice, token_choice
from sae_tutorial.course.sparse_allocation import figures as plots
from sae_tutorial.figures.looks import look
from sae_tutorial.figures.text import width_of

Z = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
WORDS = ["a", " b", "\n", "<b>"]
SHOWN = ["a", "·b", "↵", "&lt;b&gt;"]
BY_BUDGET = {
    "Token Choice": [token_choice(Z, k).to_dense() for k in (1, 2)],
    "Mutual Choice": [mutual_choice(Z, 4 * k).to_dense() for k in (1, 2)],
}
TITLES = ["one for each", "two for each"]


def test_the_table_is_grey_where_an_affinity_is_and_coloured_where_a_match_is():
    fig = plots.budget_explorer(Z, BY_BUDGET, [1, 2], WORDS, 2, TITLES)
    grey, filled = fig.data[0], fig.data[1]
    assert [list(row) for row in grey.z] == [pytest.approx(row, rel=1e-2) for row in Z.tolist()]
    codes = BY_BUDGET["Token Choice"][1]
    assert [[cell is not None for cell in row] for row in filled.z] == (codes > 0).tolist()
    assert SHOWN in [list(axis.ticktext or ()) for axis in fig.select_yaxes()] and grey.customdata[3][0] == "&lt;b&gt;"


def test_buttons_show_one_rule_and_the_slider_refills_all():
    fig = plots.budget_explorer(Z, BY_BUDGET, [1, 2], WORDS, 2, TITLES)
    assert [bool(trace.visible) for trace in fig.data[1:]] == [False] * 3 + [True] * 3, "the last rule is shown first"
    token, mutual = fig.layout.updatemenus[0].buttons
    assert token.args[0]["visible"] == [True] + [True] * 3 + [False] * 3
    assert mutual.args[0]["visible"] == [True] + [False] * 3 + [True] * 3
    slider = fig.layout.sliders[0]
    assert slider.active == 1 and [step.label for step in slider.steps] == ["1", "2"]
    new, _, where = slider.steps[0].args
    assert list(where) == list(range(1, 7)) and all(len(new[axis]) == 6 for axis in "xyz")
    assert list(new["x"][1]) == [1, 1, 1, 1], "bars of Token Choice at a budget of one"
    assert sum(new["y"][5]) == 4, "tokens per feature of Mutual Choice"
    start = slider.steps[1].args[0]
    assert [list(row) for row in start["z"][3]] == [list(row) for row in fig.data[4].z], (
        "what is shown is the active step"
    )


def test_the_title_follows_the_budget_and_no_button_makes_it_false():
    fig = plots.budget_explorer(Z, BY_BUDGET, [1, 2], WORDS, 2, TITLES)
    assert fig.layout.title.text == "two for each"
    assert [step.args[1]["title.text"] for step in fig.layout.sliders[0].steps] == TITLES
    assert all(step.method == "update" for step in fig.layout.sliders[0].steps)
    assert all(button.method == "restyle" for button in fig.layout.updatemenus[0].buttons)


def test_thresholds_are_counted_each_in_its_panel():
    each = {"Token Choice": torch.tensor([0.25, 0.25, 0.75]), "Feature Choice": torch.tensor([0.5, 0.0, 0.0, 0.0])}
    fig = plots.thresholds(each, 0.5, "title", bins=3)
    token, feature = drawn(fig).values()
    assert token[1] == [0, 2, 1] and sum(feature[1]) == 1
    assert [trace.marker.color for trace in fig.data] == [look(n).colour for n in ("Token Choice", "Feature Choice")]
    assert [shape.x0 for shape in fig.layout.shapes] == [0.5, 0.5]
    assert (fig.layout.yaxis.title.text, fig.layout.yaxis2.title.text) == ("tokens", "features")
    assert "without 75% at 0" in " ".join(written(fig)).replace("<br>", " "), "what is left out is said"


def test_bars_of_kinds_have_their_interval():
    band = (torch.tensor([2.0, 3.0]), torch.tensor([1.5, 2.0]), torch.tensor([2.5, 4.5]))
    fig = plots.by_kind({"Mutual Choice": band}, ["word", "name"], "title", "features", level=2.5)
    assert drawn(fig) == {"Mutual Choice": (["name", "word"], [3, 2])}, "the largest mean first"
    bar = fig.data[0]
    assert plain(bar.error_y.array) == [1.5, 0.5] and plain(bar.error_y.arrayminus) == [1.0, 0.5]
    assert fig.layout.shapes[0].y0 == 2.5 and written(fig) == ["Token Choice: 2.5"]


def test_deciles_run_from_the_lowest_to_the_highest():
    fig = plots.by_decile({"length": torch.tensor([1.0, 2.0, 4.0])}, "title", "features", 2)
    assert drawn(fig) == {"length": ([1, 2, 3], [1, 2, 4])} and fig.layout.shapes[0].y0 == 2


def test_trade_has_what_is_given_across_and_what_is_gained_up():
    given = torch.tensor([-10.0, 0.0, 20.0])
    moves = {"Mutual Choice": (given, given / -100), plots.ALONE: (given / 2, given / -200)}
    fig = plots.trade(moves, ["name", "word", "mark"], "title", "x", "y")
    assert drawn(fig) == {
        "Mutual Choice": ([-10, 0, 20], [0.1, 0, -0.2]),
        plots.ALONE: ([-5, 0, 10], [0.05, 0, -0.1]),
    }
    assert fig.data[1].marker.color == look("Token Choice").colour
    assert plain(fig.data[0].text) == plain(fig.data[0].customdata) == ["name", "word", "mark"]
    assert fig.data[0].marker.symbol == look("Mutual Choice").marker


def test_names_in_a_trade_do_not_collide():
    """Kinds that lie side by side have their names above and below, or not at all."""
    names = ["sentence start", "punctuation", "common word", "rare word", "name"]
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 40.0])
    fig = plots.trade({"Mutual Choice": (x, x * 0)}, names, "title", "x", "y")
    (dots,) = fig.data
    boxes = []
    for at, text, side in zip(dots.x, dots.text, dots.textposition):
        middle = (
            430 / 40 * at
            + (width_of(text, 11) / 2 + 7) * ("right" in side)
            - (width_of(text, 11) / 2 + 7) * ("left" in side)
        )
        row = {"top": 1, "bottom": -1}.get(side.split()[0], 0)
        boxes.append((middle - width_of(text, 11) / 2, middle + width_of(text, 11) / 2, row, text))
    written_ = [box for box in boxes if box[3]]
    assert len(written_) >= 3
    for i, one in enumerate(written_):
        assert not any(one[2] == other[2] and one[0] < other[1] and other[0] < one[1] for other in written_[:i])


def test_errors_are_told_against_one_way_to_fill():
    fvu = {"Token Choice": {"a rule": 0.3, "other": 0.2}, "Mutual Choice": {"a rule": 0.1, "other": 0.1}}
    fig = plots.crossed(fvu, "other", "title")
    assert [[round(float(v), 3) for v in row] for row in fig.data[0].z] == [[0.5, 0], [0, 0]]
    assert list(fig.data[0].x) == ["a<br>rule", "other"] and "0.2000" in fig.data[0].y[0]
    assert fig.data[0].text[0][0] == "+50.0%"


def test_company_counts_batches():
    fig = plots.company([1, 2, 2, 4], 3, "title")
    assert drawn(fig) == {"Mutual Choice": ([1, 2, 4], [1, 2, 1])}
    assert fig.layout.shapes[0].x0 == 3 and written(fig) == ["by the trained threshold, in any batch"]


LAWS = {0.0: torch.tensor([2, 2, 2]), 1.0: torch.tensor([4, 1, 1])}


def test_the_slider_changes_capacities_and_the_title_and_leaves_the_demand():
    fig = plots.capacity_explorer(torch.tensor([1, 0, 5]), LAWS, ["equal", "steep"])
    assert drawn(fig) == {"Mutual Choice": ([1, 2, 3], [5, 1, None]), "capacity": ([1, 2, 3], [2, 2, 2])}
    first, second = fig.layout.sliders[0].steps
    assert fig.layout.title.text == "equal" and second.args[1] == {"title.text": "steep"}
    assert list(first.args[0]["y"][0]) == [2, 2, 2] and list(second.args[0]["y"][0]) == [4, 1, 1]
    assert list(second.args[2]) == [1] and [first.label, second.label] == ["0", "1"]
    low, high = fig.layout.yaxis.range
    assert 10**low < 1 and 10**high > 5, "no step leaves the axis"
    stays = plots.capacity_explorer(torch.tensor([1, 0, 5]), LAWS, ["equal", "steep"], stays=1.0)
    assert drawn(stays)["exponent 1"] == ([1, 2, 3], [4, 1, 1]) and stays.data[2].line.dash == "dot"


def test_densities_fall_and_dead_features_lie_on_the_line():
    density = {"Mutual Choice": torch.tensor([0.0, 0.5, 0.0, 0.25]), "Feature Choice": torch.full((4,), 0.125)}
    fig = plots.densities(density, 0.01, "title")
    assert drawn(fig) == {
        "Mutual Choice: 50.0% dead": ([1, 2, 3, 4], [0.5, 0.25, 0.01, 0.01]),
        "Feature Choice: 0.0% dead": ([1, 2, 3, 4], [0.125] * 4),
    }
    assert fig.layout.shapes[0].y0 == 0.01 and "never fired" in written(fig)
    assert fig.data[0].line.color == look("Mutual Choice").colour
    both = plots.densities({f"Feature Choice, {kind}": torch.ones(3) for kind in ("Zipf", "uniform")}, 0.01, "title")
    assert both.data[0].line.color != both.data[1].line.color
