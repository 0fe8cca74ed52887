"""Removing a planted property removes it and nothing else; entangled or random features cannot."""

import pytest
import torch
from synthetic import make, randn

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.evaluation.concept_removal import (
    correlation_removal,
    mean_differences,
    targeted_perturbation,
)
from sae_tutorial.evaluation.examples import Examples, coordinates, random_sae

D, C, N = 32, 4, 900
AXES = torch.linalg.qr(randn(D, D)).Q.T  # rows of length 1, at right angles
STRENGTHS = torch.tensor([3.0, 6.0, 3.0, 3.0])


def activations(has, seed, middle=0.0):
    return STRENGTHS * (has.float() - middle) @ AXES[:C] + 0.5 * randn(len(has), D, seed=seed) + 2


def some(*p, n=N, seed=0):
    """Which of the C properties each of n activations has."""
    return torch.rand(n, C, generator=torch.Generator().manual_seed(seed)) < torch.tensor(p)


def dictionary(directions):
    """What is in the activations, in non-negative amounts of these directions, by least squares."""
    inverse = torch.linalg.pinv(directions)
    return Dictionary("planted", lambda x: ((x - 2) @ inverse).clamp(min=0), directions, torch.full((D,), 2.0))


CLEAN = dictionary(AXES)
TANGLED = dictionary(
    torch.cat([(AXES[0] + AXES[1])[None], (AXES[1] - AXES[0])[None], (AXES[2] + AXES[3])[None], AXES[4:]])
)


def questions():
    test = torch.arange(N) >= 600
    tables = [some(0.5, 0.5, 0.5, 0.5, seed=c) for c in range(C)]
    return [Examples.of(f"q{c}", activations(has, c), has[:, c], test) for c, has in enumerate(tables)]


def test_clean_features_remove_their_property_alone():
    found = targeted_perturbation(CLEAN, questions(), ns=(1, 2))
    drops = found.drops(1)
    assert (drops.diagonal() > 0.4).all() and (drops - drops.diagonal().diag()).abs().max() < 0.02
    assert found.score(1) > 0.4 and found.by_question(1).shape == (C,)
    assert all(right.double().mean() > 0.97 for right in found.clean)


def test_tangled_and_random_features_do_not():
    asked = questions()
    tangled = targeted_perturbation(TANGLED, asked, ns=(1,))
    assert tangled.score(1) < targeted_perturbation(CLEAN, asked, ns=(1,)).score(1) - 0.1
    random = random_sae(CLEAN, asked[0].x)
    assert targeted_perturbation(random, asked, ns=(1,)).score(1) < 0.25
    assert targeted_perturbation(coordinates(D), asked, ns=(1,)).score(1) < 0.25


def test_a_feature_that_speaks_against_the_property_is_not_taken_away_with_it():
    """Two features come with the property, one towards the probe and one, weaker, against it: to take both away would
    leave a part of the property there."""
    asked = questions()
    against = (AXES[4] - AXES[0]) / 2**0.5
    directions = torch.cat([AXES[:4], against[None]])

    def encode(x):
        strength = (x - 2) @ AXES.T
        has = (strength[:, 0] > 1.5).float()[:, None]
        return torch.cat([strength[:, :1] + 3 * has, strength[:, 1:4], 6 * 2**0.5 * has], 1)

    both = Dictionary("both", encode, directions, torch.full((D,), 2.0))
    found = targeted_perturbation(both, asked[:2], ns=(1, 5))
    one, many = (found.drops(n)[0, 0] for n in (1, 5))
    assert one > 0.4 and many == one


def test_mean_differences_need_no_sae():
    asked = questions()
    assert targeted_perturbation(mean_differences(asked), asked, ns=(1,)).score(1) > 0.35


# A feature for each value of each property: without both, an activation lies in the middle.
SIDES = Dictionary.of_axes("sides", AXES, torch.full((D,), 2.0), non_negative=True)


def biased_by(strong=1, wanted=0):
    """Two properties that come together in training, and examples of either where they do not."""
    test = torch.arange(N) >= 600
    together = some(0.5, 0.5, 0.5, 0.5, seed=5)
    together[:, strong] = together[:, wanted]
    free = [some(0.5, 0.5, 0.5, 0.5, seed=seed) for seed in (6, 7)]
    return (
        Examples.of("both", activations(together, 5, 0.5), together[:, wanted], test),
        Examples.of("wanted", activations(free[0], 6, 0.5), free[0][:, wanted], test),
        Examples.of("unwanted", activations(free[1], 7, 0.5), free[1][:, strong], test),
    )


def test_without_the_unwanted_property_a_biased_probe_is_right_again():
    found = correlation_removal(SIDES, *biased_by(), ns=(1, 2))
    weak, strong = found.directions
    assert weak.wanted == "wanted" and weak.unwanted == "unwanted" and found.harder is weak
    assert weak.original.double().mean() < 0.7 and weak.clean.double().mean() > 0.97
    assert found.score(2) == weak.score(2) > 0.9
    assert weak.score(1) < 0.7  # one side of the unwanted property is still there
    assert strong.original.double().mean() > weak.original.double().mean()


def test_random_features_bring_nothing_back():
    data = biased_by()
    assert abs(correlation_removal(random_sae(SIDES, data[0].x), *data, ns=(2,)).score(2)) < 0.3
    assert abs(correlation_removal(coordinates(D), *data, ns=(2,)).score(2)) < 0.5


def test_where_nothing_was_lost_the_score_is_zero():
    _, wanted, unwanted = biased_by()
    found = correlation_removal(SIDES, wanted, wanted, unwanted, ns=(1,))
    assert found.directions[0].score(1) == 0


def test_scores_are_those_of_the_definition_by_hand():
    found = targeted_perturbation(CLEAN, questions(), ns=(1,))
    drops = found.drops(1)
    for c in range(C):
        others = [float(drops[c, j]) for j in range(C) if j != c]
        assert float(found.by_question(1)[c]) == pytest.approx(float(drops[c, c]) - sum(others) / len(others))
    one = correlation_removal(SIDES, *biased_by(), ns=(1,)).directions[0]
    before, clean, after = (float(r.double().mean()) for r in (one.original, one.clean, one.changed[1]))
    assert one.score(1) == pytest.approx((after - before) / (clean - before))


def test_what_cannot_be_asked_is_named():
    asked = questions()
    with pytest.raises(ValueError, match="examples has 1 question"):
        targeted_perturbation(CLEAN, asked[:1])
    with pytest.raises(ValueError, match="sae reads 8 numbers"):
        targeted_perturbation(make("relu"), asked)
    with pytest.raises(ValueError, match="ns is empty"):
        targeted_perturbation(CLEAN, asked, ns=())
    with pytest.raises(ValueError, match="n=3: features were taken away in numbers of 1"):
        targeted_perturbation(CLEAN, asked[:2], ns=(1,)).score(3)
