"""Figures of the lesson draw what they are given, where it belongs."""

from dataclasses import replace

import pytest
import torch
from drawing import drawn, plain

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.course.zipf_densities import figures as plots
from sae_tutorial.course.zipf_densities.head_start import Twins
from sae_tutorial.evaluation.intervals import Ratio


def test_each_sae_is_a_dot_and_the_paper_a_star():
    fig = plots.two_r_squared({"Token Choice": [(0.9, 0.99, "k = 16"), (0.95, 0.995, "k = 32")], "nobody": []}, "title")
    assert {name: x for name, (x, _) in drawn(fig).items()} == {
        "Token Choice": [0.9, 0.95],
        "a summary of the paper": [0.982],
    }
    assert plain(fig.data[0].y) == pytest.approx([0.01, 0.005]) and plain(fig.data[1].y) == pytest.approx([0.004])
    worst, best = fig.layout.yaxis.range  # better is higher, and every dot is inside
    assert 10**worst > 0.01 and 10**best < 0.004 and "0.99" in fig.layout.yaxis.ticktext
    random = plots.two_r_squared({f"random: {n}": [(0.9, 0.99, "no SAE")] for n in (1, 2)}, "title")
    assert [trace.marker.symbol for trace in random.data[:2]] == ["circle-open", "square-open"]
    assert list(fig.data[0].customdata)[1] == "k = 32<br>all ranks 0.950, middle 0.995"


def test_compared_has_a_panel_for_each_measure_and_percent():
    ratio = Ratio(0.1, 0.05, 0.2, 0.01, 3, 10)
    found = {"error": {"a": {"k = 16": ratio, "k = 32": ratio}, "b": {"k = 32": ratio}}, "kl": {"a": {"k = 32": ratio}}}
    fig = plots.compared(found, "title", {"error": "error", "kl": "KL"}, "Token Choice")
    first = fig.data[0]
    assert plain(first.y) == [10, 10] and plain(first.error_y.array) == pytest.approx([10, 10])
    assert plain(first.error_y.arrayminus) == pytest.approx([5, 5])
    assert "2 seeds" not in fig.to_json()
    two = plots.compared({"error": {"a": {"k = 16": replace(ratio, seeds=2)}}}, "title", {"error": "error"}, "rival")
    assert "2 seeds" in two.to_json()
    assert fig.layout.xaxis.ticktext == ("k = 16", "k = 32") and round(fig.data[1].x[0]) == 1
    assert "Token Choice" in fig.layout.yaxis.title.text


def test_budgets_have_a_panel_for_each_rule_and_a_dot_for_each_place():
    found = {
        "Token Choice": {"guess": {"k = 16": 0.1, "SmolLM2, k = 16": 0.2}, "fit": {"SmolLM2, k = 16": 0.3}},
        "b": {},
    }
    fig = plots.budgets(found, "title")
    assert [plain(trace.y) for trace in fig.data if trace.name] == [[0.1, 0.2], [0.3]]
    assert round(fig.data[1].x[0]) == 1 and "SmolLM2,<br>k = 16" in fig.layout.xaxis.ticktext


def test_shares_are_the_mean_of_the_twins_with_their_range():
    sae = SparseAutoencoder(SAEConfig(2, 4, "token_choice", 1))
    lucky = torch.tensor([True, True, False, False])
    pairs = []
    for half in (0.4, 0.3):
        with_it = torch.tensor([half, half, 0.5 - half, 0.5 - half])
        pairs.append(Twins(sae, sae, lucky, [1, 10], [(torch.full((4,), 0.25), with_it)] * 2))
    fig = plots.shares_after({"lots": {"with": pairs}}, "title", wakes=5)
    assert "B wakes up" in fig.to_json()
    by_name = {trace.name: trace for trace in fig.data if trace.name and trace.mode != "lines"}
    assert plain(by_name["with"].y) == pytest.approx([0.7, 0.7])
    assert plain(by_name["half A, without"].y) == pytest.approx([0.5, 0.5])
    band = next(trace for trace in fig.data if trace.fill == "toself" and trace.legendgroup == "with")
    assert sorted(set(round(value, 6) for value in plain(band.y))) == [0.6, 0.8]
