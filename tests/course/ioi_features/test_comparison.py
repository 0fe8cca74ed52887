"""Dictionaries against PCA: what a span spans, and what a verdict needs."""

import math

import pytest
import torch

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.circuits.feature_patching import Edit
from sae_tutorial.course.ioi_features import comparison as c
from sae_tutorial.course.ioi_features.feature_order import Stages
from sae_tutorial.evaluation.ground_truth import random_directions
from sae_tutorial.evaluation.intervals import paired_ratio


def stages(losses, counts=(8, 4, 2, 0)):
    """Every sentence with the same losses, those of `losses` for `counts` features; edits as large as the count."""
    loss = torch.tensor(losses)[:, None].expand(-1, 5)
    sizes = torch.tensor(counts).float()
    return Stages(sizes, loss, sizes[:, None].expand(-1, 5), tuple(torch.arange(9)[None] < n for n in counts))


def test_a_span_is_the_middle_seed_and_the_outer_ends():
    assert c.spanned([(1.0, 0.5, 2.0), (3.0, 2.9, 3.1), (2.0, 1.9, 2.1)]) == (2.0, 0.5, 3.1)
    assert c.spanned([(1.0, 0.5, 2.0)]) == (1.0, 0.5, 2.0)
    assert c.medians(torch.tensor([[1.0, 2.0, 9.0], [4.0, 4.0, 4.0], [0.0, 3.0, 3.0]])) == (3.0, 2.0, 4.0)


def test_needs_are_those_of_each_seed():
    counts, sizes = c.needed([stages([0.0, 2, 6, 8]), stages([0.0, 4, 6, 8])])
    assert counts.shape == (2, 5) and counts[:, 0].tolist() == [3.0, 4.0] and torch.equal(counts, sizes)


def test_one_seed_that_disagrees_leaves_a_claim_open():
    theirs = 10 + torch.rand(40, generator=torch.Generator().manual_seed(0))
    better, worse = theirs / 2, theirs * 2
    assert c.verdict(c.against(torch.stack([better] * 3), theirs)) == "holds"
    assert c.verdict(c.against(torch.stack([better, better, worse]), theirs)) == "open"
    assert c.verdict(c.against(torch.stack([worse] * 2), theirs)) == "fails"
    assert c.against(better[None], theirs) == paired_ratio(better, theirs)


def test_spans_in_words():
    assert c.in_words((0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75] holds"
    assert c.in_words((2.0, 0.9, math.inf)) == "2.00 [0.90, ∞] open"
    assert c.in_words((math.inf, 1.5, math.inf)) == "∞ [1.50, ∞] fails"
    assert c.in_words((math.inf,) * 3) == "never there: fails"
    assert c.in_words((1.2, 1.004, 1.5)) == "1.20 [1.004, 1.50] fails", "two digits would not say which side of 1"


def test_a_claim_is_answered_by_all_levels():
    low, high, across = (0.5, 0.4, 0.6), (2.0, 1.5, 3.0), (1.0, 0.5, 2.0)
    levels = [{"way": {"a": low, "b": high, "c": low}}, {"way": {"a": low, "b": high, "c": across}}]
    assert [c.overall(levels, "way", name) for name in "abc"] == ["yes", "no", "in part"]
    assert c.overall(levels, "way", "a", "c") == "a: yes; c: in part"


def test_a_curve_of_seeds_has_their_mean_and_outer_ends():
    x, mean, low, high = c.curve([stages([0.0, 2, 6, 8]), stages([1.0, 4, 6, 8])], "count")
    assert x.tolist() == [2, 4, 8] and mean.tolist() == [6, 3, 0.5], "no features have no place on a log axis"
    assert low.tolist() == [6, 2, 0] and high.tolist() == [6, 4, 1]
    x, mean, *_ = c.curve([stages([0.0, 2, 6, 8])], "size")
    assert x.tolist() == [0, 2, 4, 8] and mean.tolist() == [8, 6, 2, 0]


def test_a_curve_leaves_out_a_stage_that_only_some_seeds_have():
    x, mean, *_ = c.curve([stages([0.0, 2, 6, 8]), stages([4.0, 6, 8], counts=(3, 2, 0))], "count")
    assert x.tolist() == [2] and mean.tolist() == [6]


def test_answers_are_counted_with_the_features_that_are_left():
    """Two sentences, one feature each that brings the new name; with none, nobody says it."""
    edit = Edit(torch.zeros(2, 1, 3), torch.ones(2, 1, 4), random_directions(4, 3), torch.ones(2, dtype=torch.long))
    chosen = (torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool))
    one = Stages(torch.tensor([4.0, 0]), torch.zeros(2, 2), torch.zeros(2, 2), chosen)
    run = lambda x: torch.where((x != 0).any(-1), 1.0, 0.0) * torch.tensor([[0.0, 2.0, 3.0]])  # noqa: E731
    new, old = torch.tensor([1, 2]), torch.tensor([0, 0])
    assert c.answers_with(run, [edit], [one], 4, new, old) == (0.5, 1.0)
    assert c.answers_with(run, [edit, edit], [one, one], 3, new, old) == pytest.approx((0.0, 0.0))


def test_a_row_about_a_dictionary():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    mean, axes = x.mean(0), torch.eye(6)
    two = [Dictionary.of_axes("axes", axes[:n], mean) for n in (6, 3)]
    name, seeds, features, l0, fvu, apart = c.quality("axes", two, x)
    half = float((x - mean)[:, 3:].square().sum() / (x - mean).square().sum())
    assert (name, seeds, features, l0) == ("axes", 2, 6, "4.5")
    assert float(fvu) == pytest.approx(half / 2, abs=1e-3) and float(apart) == pytest.approx(half, abs=1e-4)


def test_against_pca_has_both_sets_and_both_measures():
    quick, slow = [stages([0.0, 2, 6, 8])], [stages([0.0, 6, 7, 8])]
    found = c.against_pca({"PCA": slow, "SAE": quick, "supervised": quick}, {"PCA": slow, "SAE": slow})
    assert list(found) == list(c.WAYS) and all(list(level) == ["SAE"] for level in found.values())
    counts = [float(c.needed(one)[0][0, 0]) for one in (quick, slow)]
    assert found["patches, shared set"]["SAE"][0] == pytest.approx(counts[0] / counts[1])
    assert found["patches, own"]["SAE"] == pytest.approx((1, 1, 1))
    assert found["edit, shared set"]["SAE"][0] == pytest.approx(counts[0] / counts[1])


def test_intervals_of_several_levels_in_one_line():
    levels = [{"own": {"a": (0.5, 0.4, 0.6), "b": (2.0, 1.5, 2.5)}}, {"own": {"a": (0.25, 0.2, 0.3), "b": (1, 1, 1)}}]
    text = c.intervals(levels, "own", "a", "b")
    assert text == "a: 0.50 [0.40, 0.60], 0.25 [0.20, 0.30]; b: 2.00 [1.50, 2.50], 1.00 [1.00, 1.00]"
