"""The two toys in which a sum of directions hides."""

import pytest
import torch

from sae_tutorial.course.ioi_features import toys


def test_two_attributes_are_sums_of_two_vectors():
    x, has = toys.two_attributes(500, 4, 30, norms=(2.0, 1.0))
    assert (has.sum(1) == 2).all() and (has[:, :4].sum(1) == 1).all()
    vectors = torch.linalg.lstsq(has, x, driver="gelsd").solution
    assert torch.allclose(has @ vectors, x, atol=1e-4)
    same = (has[:, None] == has[None]).all(-1)
    assert torch.allclose(x[same[0]], x[0].expand(int(same[0].sum()), -1))


def test_clusters_and_the_cost_of_an_axis():
    x, sign = toys.two_clusters(20_000, d=5)
    assert (x[sign > 0, 0].mean() - 2).abs() < 0.05 and x[:, 1:].mean(0).abs().max() < 0.05
    codes = torch.linspace(0, 8, 4001)
    for price in (0.5, 2.0, 5.0):
        t = x[:200, 0]
        searched = ((t.abs()[:, None] - codes).square() + price * codes).min(1).values.mean()
        assert toys.axis_loss(t, price) == pytest.approx(float(searched), abs=1e-3)
        assert toys.axis_loss(t, price) <= float(t.square().mean())


def test_found_values_are_means_over_seeds():
    x, has = toys.two_attributes(600, 4, 30, norms=(2.0, 1.0))
    three = toys.values_found(x, has, [(16, 0.2)], 60, seeds=(0, 1))
    alone = [toys.values_found(x, has, [(16, 0.2)], 60, seeds=(seed,)) for seed in (0, 1)]
    for name, found in three.items():
        assert found[0] == pytest.approx(sum(one[name][0] for one in alone) / 2, abs=0.13)
    assert set(three) == {"strong", "weak"} and 0 <= min(map(min, three.values()))


def test_beside_nothing_more_values_are_found_than_beside_a_strong_one():
    alone, company = (toys.weak_beside(other, 1.0, [0.5], 150)[0] for other in (1e-6, 3.0))
    assert 0 <= company < alone <= 1


def test_a_feature_for_each_value_pays_for_its_codes():
    x, has = toys.two_attributes(8_192, 32, 64, norms=(2.0, 1.0))
    saes = toys.trained(x, [(96, 1e-6), (96, 5.0)], 3)
    ((losses, honest), (_, none)) = toys.trained_and_honest(saes, (2.0, 1.0), [1e-6, 5.0])
    assert len(losses) == 2 and min(losses) > honest
    assert 2.9e-6 < honest < 3e-6, "both codes at almost no price: the norms of 2 and 1, but for the attribute's mean"
    assert none == pytest.approx(float((x - x.mean(0)).square().sum(1).mean()), rel=0.02), "no feature pays"


def test_split_clusters_have_a_loss_and_two_scores_for_each_penalty():
    losses, trained, ideal = toys.split_clusters((1.0, 3.0), 60, 5)
    assert len(losses) == len(trained) == len(ideal) == 2 and losses[0] < losses[1]
    assert ideal == pytest.approx([0.96, 0.82], abs=0.03) and max(trained) <= 1
