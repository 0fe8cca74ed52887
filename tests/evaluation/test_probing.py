"""Sparse probing: planted features are chosen and answer; what is not there is not found; the regression is exact."""

import math

import pytest
import scipy.optimize
import torch
from synthetic import make, randn
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.evaluation.examples import Examples, coordinates, random_sae
from sae_tutorial.evaluation.ground_truth import random_directions, sparse_strengths
from sae_tutorial.evaluation.intervals import bootstrap
from sae_tutorial.evaluation.probing import (
    by_mean_difference,
    dense_probing,
    logistic_regression,
    sparse_probing,
)

D, F, N = 24, 60, 1200


def planted(parents=(7,), seed=0):
    """Activations that are sums of known directions; the label is whether one of `parents` is on. The dictionary that
    knows, and the examples."""
    directions, strengths = random_directions(F, D), sparse_strengths(N, 0.05, F, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(N, generator=generator) < 0.5
    which = torch.randint(len(parents), (N,), generator=generator)
    for place, parent in enumerate(parents):
        strengths[:, parent] = 1.0 * (label & (which == place))
    x = strengths @ directions + 3
    test = torch.arange(N) >= 800
    table = torch.cat([x, strengths], dim=1)

    def encode(x_ND):
        nearest = torch.cdist(x_ND.double(), table[:, :D].double()).argmin(1)
        return table[nearest, D:]

    knows = Dictionary("knows", encode, directions, torch.full((D,), 3.0))
    return knows, Examples.of("planted", x, label, test)


def test_a_planted_feature_is_chosen_and_answers():
    knows, examples = planted()
    found = sparse_probing(knows, [examples, examples], ks=(1, 5))
    assert found.features[1][0].tolist() == [7] and found.features[5][0][0] == 7
    assert found.accuracy(1) == 1 and found.by_task(1).shape == (2,)
    assert all(float(end) == 1 for end in bootstrap(found.by_task(1), resamples=20))
    assert len(found.right[1][0]) == int(examples.test.sum())
    assert sparse_probing(knows, [examples], ks=(1, 1)).by_task(1).shape == (1,)  # asked twice, counted once
    assert dense_probing([examples]).accuracy() > 0.9


def test_a_property_of_three_features_needs_three():
    knows, examples = planted(parents=(3, 11, 30))
    found = sparse_probing(knows, [examples], ks=(1, 2, 3))
    assert set(found.features[3][0].tolist()) == {3, 11, 30}
    assert found.accuracy(3) == 1
    assert 0.6 < found.accuracy(1) < found.accuracy(2) < 0.9


def test_coordinates_and_random_features_know_less_and_chance_is_a_half():
    knows, examples = planted()
    for other in (coordinates(D), random_sae(knows, examples.tokens)):
        assert 0.4 < sparse_probing(other, [examples], ks=(1,)).accuracy(1) < 0.85
    guess = Examples.of(
        "coin", examples.x, torch.rand(N, generator=torch.Generator().manual_seed(5)) < 0.5, examples.test
    )
    assert abs(sparse_probing(knows, [guess], ks=(2,)).accuracy(2) - 0.5) < 0.08
    assert abs(dense_probing([guess]).accuracy() - 0.5) < 0.08


def test_what_a_reconstruction_has_lost_is_not_found_in_it():
    knows, examples = planted()
    without = Dictionary("lost", lambda x: knows.encode(x) * (torch.arange(F) != 7), knows.directions, knows.constant)
    assert dense_probing([examples], knows).accuracy() > 0.9
    assert dense_probing([examples], without).accuracy() < 0.65


def test_examples_of_several_tokens_are_judged_by_their_means():
    knows, single = planted()
    twice = Examples("rows", single.tokens.repeat_interleave(2, 0), torch.arange(2 * N) // 2, single.label, single.test)
    one, two = (sparse_probing(knows, [examples], ks=(2,)) for examples in (single, twice))
    assert torch.equal(one.features[2][0], two.features[2][0]) and torch.equal(one.right[2][0], two.right[2][0])


def test_features_are_in_the_order_of_their_mean_difference():
    x = torch.tensor([[0.0, 1.0, 5.0, 5.0], [0.0, 3.0, 5.0, 1.0], [9.0, 2.0, 5.0, 3.0]])
    label = torch.tensor([True, True, False])
    assert by_mean_difference(x, label).tolist() == [0, 1, 2, 3]


def objective(w, x, y, l2, weight):
    scores = x @ w[:-1] + w[-1]
    return (weight * torch.nn.functional.softplus(-(2 * y - 1) * scores)).sum() + l2 / 2 * (w[:-1] ** 2).sum()


@pytest.mark.parametrize("l2", [1.0, 0.01])
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (30.0, 500.0)])
def test_logistic_regression_is_the_minimum_that_scipy_finds(l2, scale, offset):
    x, label = randn(200, 5).double(), randn(200, 2, seed=1) > 0.3
    label[:, 0] |= x[:, 2] > 0.5
    x, weight = scale * x + offset, 0.5 + torch.rand(200, 2, generator=torch.Generator().manual_seed(2)).double()
    probe = logistic_regression(x, label, l2, weight)
    for c in range(2):

        def value(w, c=c):
            w = torch.tensor(w, requires_grad=True)
            loss = objective(w, (x - x.mean(0)) / scale, label[:, c].double(), l2 / scale**2, weight[:, c])
            loss.backward()
            return float(loss.detach()), w.grad.numpy()

        best = scipy.optimize.minimize(value, torch.zeros(6).double().numpy(), jac=True, tol=1e-12)
        assert_close(probe.weight[:, c] * scale, torch.tensor(best.x[:-1]), atol=1e-4, rtol=1e-4)
        here = torch.cat([probe.weight[:, c], probe.bias[c : c + 1]])
        assert float(objective(here, x, label[:, c].double(), l2, weight[:, c])) == pytest.approx(best.fun, rel=1e-6)


def test_regression_on_inputs_that_do_not_vary_says_what_is_more_frequent():
    probe = logistic_regression(torch.ones(10, 2), torch.tensor([[True]] * 7 + [[False]] * 3))
    assert_close(probe(torch.ones(1, 2))[0, 0], torch.tensor(math.log(7 / 3)), atol=1e-3, rtol=1e-3)


def test_what_cannot_be_probed_is_named():
    knows, examples = planted()
    with pytest.raises(ValueError, match="ks has 61"):
        sparse_probing(knows, [examples], ks=(61,))
    with pytest.raises(ValueError, match="0 tasks"):
        sparse_probing(knows, [])
    with pytest.raises(ValueError, match="sae reads 8 numbers"):
        sparse_probing(make("relu"), [examples])
    with pytest.raises(ValueError, match="examples is empty"):
        dense_probing([])
    with pytest.raises(ValueError, match="k=3: there are probes with 1, 2 inputs"):
        sparse_probing(knows, [examples], ks=(1, 2)).accuracy(3)
    with pytest.raises(ValueError, match="yes and with no"):
        logistic_regression(torch.zeros(3, 2), torch.ones(3, 1).bool())
    with pytest.raises(ValueError, match="finite"):
        logistic_regression(torch.full((3, 2), torch.nan), torch.ones(3, 1).bool())
    with pytest.raises(ValueError, match=r"x is \(3,\)"):
        logistic_regression(torch.zeros(3), torch.ones(3, 1).bool())
    with pytest.raises(ValueError, match="transcoder"):
        sparse_probing(SparseAutoencoder(SAEConfig(8, 16, "relu", d_out=4)), [examples])
