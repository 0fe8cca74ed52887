"""Intervals over seeds, and bootstraps over sentences."""

import math

import pytest
import torch

from sae_tutorial.evaluation.intervals import Interval, bootstrap, paired_ratio


def test_intervals_over_sentences():
    values = torch.randn(2, 400, generator=torch.Generator().manual_seed(0)) + torch.tensor([[0.0], [5.0]])
    mean, low, high = bootstrap(values)
    assert torch.allclose(mean, values.mean(1)) and (low < mean).all() and (mean < high).all()
    half_width = 1.96 * values.std(1) / 20
    assert torch.allclose(high - low, 2 * half_width, rtol=0.15)


def test_paired_ratios_take_infinity():
    mine, theirs = torch.tensor([1.0, 2.0, math.inf, 2.0, 1.0]), torch.tensor([4.0, 4.0, 4.0, 4.0, math.inf])
    middle, low, high = paired_ratio(mine, theirs)
    assert middle == 0.5 and low <= middle <= high
    assert paired_ratio(torch.full((5,), math.inf), theirs)[0] == math.inf
    assert paired_ratio(theirs, theirs) == (1.0, 1.0, 1.0)


def test_interval_is_students_t():
    one = Interval.of([1.0, 2.0, 3.0])
    assert (one.mean, one.n) == (2.0, 3)
    assert one.high - one.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert one.text(".1f") == "2.0 ± 2.5"


def test_one_seed_has_no_interval_and_decides_nothing():
    one = Interval.of([5.0])
    assert math.isnan(one.low) and one.text(".1f") == "5.0" and one.verdict(above=0) == "open"
    with pytest.raises(ValueError, match="empty"):
        Interval.of([])
