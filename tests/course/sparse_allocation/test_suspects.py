"""Rank correlations, alone and beside others, on numbers whose relation is known."""

import math

import pytest
import torch

from sae_tutorial.course.sparse_allocation.suspects import rank_effects, tenth_effects, tenths

GENERATOR = torch.Generator().manual_seed(0)
CAUSE, NOISE = torch.randn(4000, generator=GENERATOR), torch.randn(4000, generator=GENERATOR)


def test_what_only_goes_along_with_the_cause_has_no_part_of_its_own():
    shadow = CAUSE + NOISE  # goes along with the cause, and with nothing else
    found = rank_effects(CAUSE.exp(), {"cause": CAUSE, "shadow": shadow})
    assert found["cause"] == pytest.approx((1, 1), abs=1e-6), "any monotone transformation has the same ranks"
    assert found["shadow"][0] > 0.6 and abs(found["shadow"][1]) < 1e-6


def test_signs_and_shapes():
    found = rank_effects(CAUSE.view(40, 100), {"against": -CAUSE.view(40, 100), "nothing": NOISE.view(40, 100)})
    assert found["against"] == pytest.approx((-1, -1), abs=1e-6)
    assert abs(found["nothing"][0]) < 0.05


def test_a_quantity_without_spread_has_none():
    found = rank_effects(CAUSE, {"same": torch.ones(4000), "cause": CAUSE})
    assert all(math.isnan(value) for value in found["same"]) and found["cause"][1] == pytest.approx(1)
    assert math.isnan(rank_effects(CAUSE, {"same": torch.ones(4000)})["same"][0])


def test_tenths_go_from_the_lowest_value_to_the_highest():
    given = torch.arange(20.0)
    assert tenths(given, -given).tolist() == [18.5, 16.5, 14.5, 12.5, 10.5, 8.5, 6.5, 4.5, 2.5, 0.5]


def test_tenths_as_categories_see_a_u():
    given = CAUSE.abs() + 0.1 * NOISE  # falls and rises with its cause: no correlation of ranks
    assert abs(rank_effects(given, {"cause": CAUSE})["cause"][0]) < 0.05
    found = tenth_effects(given, {"cause": CAUSE, "nothing": NOISE.flip(0), "shadow": CAUSE.exp()})
    assert found["cause"][0] > 0.8 and found["nothing"][0] < 0.02
    assert found["shadow"] == pytest.approx((found["cause"][0], 0), abs=1e-6), "the same tenths explain the same"


def test_what_tenths_add_beside_the_others():
    found = tenth_effects(CAUSE + NOISE, {"cause": CAUSE, "noise": NOISE})
    assert all(0.35 < value < 0.6 for effect in found.values() for value in effect), "two halves that do not overlap"
    same = tenth_effects(torch.ones(4000), {"cause": CAUSE})["cause"]
    assert all(math.isfinite(value) for value in same)
