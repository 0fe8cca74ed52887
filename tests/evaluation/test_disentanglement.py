"""Features that are one attribute's alone change it and nothing else; mixtures, random ones and full swaps do not."""

import pytest
import torch
from synthetic import make, randn

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.evaluation.disentanglement import Attributed, attributed, disentanglement, principal_axes
from sae_tutorial.evaluation.examples import coordinates, random_sae

D, A, V, N = 32, 3, 4, 800
AXES = torch.linalg.qr(randn(D, D)).Q.T[: A * V]  # a direction for each value of each attribute


def data(seed=0, strengths=(3, 3, 3)):
    values = torch.randint(V, (N, A), generator=torch.Generator().manual_seed(seed))
    on = torch.nn.functional.one_hot(values, V).flatten(1).float()
    x = on * torch.tensor(strengths).repeat_interleave(V) @ AXES + 0.3 * randn(N, D, seed=seed) + 1
    return attributed(x, {name: values[:, a].tolist() for a, name in enumerate(("name", "place", "object"))})


CLEAN = Dictionary.of_axes("clean", AXES, torch.ones(D))
MIXED = Dictionary.of_axes("mixed", torch.linalg.qr(randn(A * V, A * V, seed=4)).Q @ AXES, torch.ones(D))


def test_clean_features_cause_and_isolate():
    found = disentanglement(CLEAN, data(), ns=(1, 4), n_pairs=200)
    assert (found.read > 0.98).all()
    assert found.cause(4) > 0.98 and found.isolation(4) > 0.98 and found.score(4) > 0.98
    for a in range(A):
        assert set(found.features[4][a].tolist()) == set(range(a * V, a * V + V))
    assert found.cause(1) < 0.8  # the base's old value is still there
    assert len(found.caused[4][0]) == len(found.isolated[4][0]) == 200
    assert len(disentanglement(CLEAN, data(), ns=(4, 4), n_pairs=200).caused[4]) == A  # asked twice, counted once


def test_mixed_and_random_features_score_less():
    asked = data()
    clean = disentanglement(CLEAN, asked, ns=(4,)).score(4)
    for other in (MIXED, coordinates(D), random_sae(make("relu", d_in=D, d_sae=64), asked.x)):
        assert 0.4 < disentanglement(other, asked, ns=(4,)).score(4) < clean - 0.15


def test_to_do_nothing_or_all_scores_a_half():
    asked = data()
    nothing = Dictionary("nothing", lambda x: x @ AXES.T * torch.ones(A * V) * 1e-9, AXES, torch.ones(D))
    idle = disentanglement(nothing, asked, ns=(1,))
    assert idle.cause(1) == 0 and idle.isolation(1) == 1 and idle.score(1) == 0.5
    one = torch.cat([AXES.sum(0, keepdim=True)])
    assert disentanglement(Dictionary("one", lambda x: x @ one.T, one, torch.ones(D)), asked, ns=(1,)).score(1) < 0.7


def test_features_of_both_attributes_at_once_do_not_isolate_a_rare_value():
    """A feature for each combination; the second attribute has one value nine times in ten. Pairs that agree in it
    would be isolated by that alone."""
    generator = torch.Generator().manual_seed(1)
    values = torch.stack(
        [torch.randint(V, (2000,), generator=generator), torch.rand(2000, generator=generator) < 0.1], 1
    )
    parts = torch.cat([torch.nn.functional.one_hot(values[:, 0], V), torch.nn.functional.one_hot(values[:, 1], 2)], 1)
    x = 3 * parts.float() @ AXES[: V + 2] + 0.3 * randn(2000, D) + 1
    asked = attributed(x, {"name": values[:, 0].tolist(), "place": values[:, 1].tolist()})
    joint = (AXES[:V, None] + AXES[None, V : V + 2]).flatten(0, 1)

    def encode(x_ND):
        best = ((x_ND - 1) @ joint.T).argmax(1)
        return 3 * torch.nn.functional.one_hot(best, len(joint)).float()

    assert disentanglement(Dictionary("joint", encode, joint, torch.ones(D)), asked, ns=(8,)).score(8) < 0.6
    apart = Dictionary.of_axes("apart", AXES[: V + 2], torch.ones(D))
    assert disentanglement(apart, asked, ns=(4,)).score(4) > 0.95


def test_principal_axes_need_no_sae_where_attributes_differ_in_strength():
    asked = data(strengths=(8, 4, 2))
    found = disentanglement(principal_axes(asked), asked, ns=(V - 1,))
    assert found.score(V - 1) > 0.95 and (found.held > 0.99).all()


def test_what_is_held_is_what_changes_when_all_is_swapped():
    """A dictionary without the directions of one attribute cannot change it, whatever is swapped."""
    asked, without = data(), AXES[V:]
    part = Dictionary("part", lambda x: (x - 1) @ without.T, without, torch.ones(D))
    held = disentanglement(part, asked, ns=(V,)).held
    assert held[0] < 0.05 and (held[1:] > 0.99).all()


def test_the_same_seed_gives_the_same_pairs():
    asked = data()
    one, again = (disentanglement(MIXED, asked, ns=(2,), n_pairs=50) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.caused[2], again.caused[2]))
    assert torch.equal(one.by_attribute(2), again.by_attribute(2))


def test_what_cannot_be_asked_is_named():
    asked = data()
    with pytest.raises(ValueError, match="1 attributes"):
        attributed(asked.x, {"name": [0] * N})
    with pytest.raises(ValueError, match="place: 3 values, 2 of them different, for 800"):
        attributed(asked.x, {"place": [0, 1, 1], "name": [0] * N})
    with pytest.raises(ValueError, match="name: 800 values, 1 of them"):
        attributed(asked.x, {"name": [0] * N, "place": [0] * N})
    with pytest.raises(TypeError, match="bfloat16; give float32"):
        attributed(asked.x.bfloat16(), {"name": asked.value[:, 0].tolist(), "place": asked.value[:, 1].tolist()})
    with pytest.raises(ValueError, match="1 attributes"):
        Attributed(("name",), asked.x, asked.value[:, :1], asked.test)
    same = attributed(asked.x, {"name": asked.value[:, 0], "place": asked.value[:, 0]})
    assert disentanglement(CLEAN, same, ns=(4,), n_pairs=50).score(4) <= 0.5
    with pytest.raises(ValueError, match="differ in all attributes"):
        disentanglement(CLEAN, attributed(asked.x[:8], {"name": [0, 1] * 4, "place": [0, 1, 1, 0] * 2}), n_pairs=2)
    with pytest.raises(ValueError, match="sae reads 8 numbers"):
        disentanglement(make("relu"), asked)
    with pytest.raises(ValueError, match="ns is empty"):
        disentanglement(CLEAN, asked, ns=())
    with pytest.raises(ValueError, match="n=9: features were swapped in numbers of 1"):
        disentanglement(CLEAN, asked, ns=(1,), n_pairs=5).score(9)
