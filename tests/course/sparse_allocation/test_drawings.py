"""Drawings of notebook 05 show the rules as they are."""

import re

import pytest
import torch

from sae_tutorial.course.sparse_allocation import drawings
from sae_tutorial.figures.looks import look

RULES = ("Token Choice", "Mutual Choice", "Feature Choice")


def filled(svg, shape, colour):
    return len(re.findall(rf'<{shape} [^>]*fill="{colour}"', svg))


def test_the_three_rules_give_away_ten_matches_each_and_differ():
    codes = drawings.codes()
    assert [int((code > 0).sum()) for code in codes.values()] == [10, 10, 10]
    assert (codes["Token Choice"] > 0).sum(1).tolist() == [2] * 5
    assert (codes["Feature Choice"] > 0).sum(0).tolist() == [2] * 5
    assert (codes["Mutual Choice"] > 0).sum(0)[-1] == 0, "the last feature gets nothing"
    assert codes["Mutual Choice"].sum() > max(codes[name].sum() for name in ("Token Choice", "Feature Choice"))


@pytest.mark.parametrize("rule", RULES)
def test_matches_have_the_colour_of_their_rule(rule):
    assert filled(drawings.three_rules().svg(), "rect", look(rule).colour) == 10
    assert filled(drawings.thresholds().svg(), "circle", look(rule).colour) == 10


def test_a_threshold_parts_matches_from_the_others():
    z, chosen = drawings.AFFINITIES, drawings.codes()["Token Choice"] > 0
    cuts = torch.tensor(drawings.between(z, chosen))
    assert torch.equal(z > cuts[:, None], chosen)
    assert "threshold" in drawings.thresholds().alt and "Mutual Choice" in drawings.three_rules().alt
