"""What the page of many GPUs computes: closed forms, and grids that fit."""

import many_gpus as page
import pytest

RATES = page.Rates("round", product=1e12, table=1e9, rows=1e9, stream=1e9, memory=8e9, link=1e9, network=1e8)


def test_one_device_sends_nothing_and_two_halve_what_each_has_to_do():
    one = page.parts_of_step(RATES, 128, 4096, 1024, 8)
    assert one["x̂ sent"] == one["gradients sent"] == 0
    assert one["product"] == pytest.approx(2 * 1024 * 128 * 4096 / 1e12)
    assert one["choice"] == pytest.approx(1024 * 4096 * 2 / 1e9)
    by_tokens = page.parts_of_step(RATES, 128, 4096, 1024, 8, tokens=2)
    by_features = page.parts_of_step(RATES, 128, 4096, 1024, 8, features=2)
    for halves in (by_tokens, by_features):
        assert halves["product"] == one["product"] / 2
        assert halves["sparse products"] == one["sparse products"] / 2
    assert by_tokens["weights"] == one["weights"] and by_features["weights"] == one["weights"] / 2
    assert by_tokens["x̂ sent"] == by_features["gradients sent"] == 0
    assert by_features["x̂ sent"] == pytest.approx(1024 * 128 * 4 / 1e9), "each has half of it, and gets the other"


def test_no_more_gradients_are_sent_than_rows_matched():
    few = page.parts_of_step(RATES, 128, 1_000_000, 16, 2, tokens=2)
    assert few["gradients sent"] == pytest.approx(16 * 2 * 128 * 2 * 4 / 1e9)


def test_the_best_grid_fits_and_is_the_fastest_that_does():
    plan = page.best(RATES, 1024, 262_144, 4096, 16, 16)
    assert plan is not None and plan.tokens * plan.features == 16 and plan.memory <= RATES.memory
    for tokens, features in page.grids(16):
        seconds = sum(page.parts_of_step(RATES, 1024, 262_144, 4096, 16, tokens, features).values())
        assert seconds >= plan.seconds or page.memory(RATES, 1024, 262_144, 4096, tokens, features) > RATES.memory
    assert page.best(RATES, 1024, 262_144, 4096, 16, 1) is None, "weights and moments alone are 9 GB"


def test_slow_links_between_nodes_are_used_where_ranks_are_more_than_a_node_has():
    inside, outside = (page.parts_of_step(RATES, 128, 4096, 1024, 8, features=n)["x̂ sent"] for n in (8, 16))
    assert outside / inside == pytest.approx(10 * (15 / 16) / (7 / 8))
