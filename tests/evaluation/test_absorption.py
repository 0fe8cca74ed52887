"""Feature absorption: what was planted is found where it was planted, and nowhere else."""

import pytest
import torch
from synthetic import make, randn

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.course.judged_by_tasks.planted import LETTERS, WORDS, D, planted_absorption
from sae_tutorial.evaluation.absorption import f1_scores, feature_absorption, property_probe
from sae_tutorial.evaluation.examples import WordExamples, coordinates, random_sae
from sae_tutorial.evaluation.ground_truth import random_directions


def test_planted_absorption_is_found_and_only_there():
    sae, words, taken = planted_absorption(lambda word, letter: letter == 0 and word % 3 == 0)
    found = feature_absorption(sae, words)
    a = found.of("a")
    assert [one.name for one in found.properties] == ["a", "b", "c"] and not found.left_out
    assert a.main.tolist() == [0] and a.f1 > 0.95
    assert torch.equal(a.full, taken[a.words]) and 0.2 < float(found.rates[0]) < 0.5
    assert torch.equal(a.absorber[a.full], LETTERS + a.words[a.full])  # the word's own feature
    assert torch.equal(a.fraction, a.full.float())
    for other in ("b", "c"):
        assert not found.of(other).full.any() and not found.of(other).fraction.any()
        assert found.of(other).main_f1 == 1
    assert found.rate == pytest.approx(float(a.full.double().mean()) / 3) and found.n_main == 1


def test_without_absorption_there_is_none():
    sae, words, _ = planted_absorption()
    found = feature_absorption(sae, words)
    assert found.rate == 0 and found.fraction == 0


def test_partial_absorption_is_no_full_one_but_has_its_fraction():
    sae, words, taken = planted_absorption(lambda word, letter: letter == 0 and word % 3 == 0, left_to_main=0.25)
    a = feature_absorption(sae, words).of("a")
    assert not a.full.any()
    assert torch.allclose(a.fraction[taken[a.words]], torch.tensor(0.75), atol=0.03)
    assert not a.fraction[~taken[a.words]].any()


def test_a_letter_in_two_features_is_split_and_not_absorbed():
    """Two features of which each speaks for half of the words are both main features: splitting, no absorption."""
    sae, words, _ = planted_absorption()
    half = torch.arange(WORDS) % 2 == 0

    def encode(x_ND):
        codes = sae.encode(x_ND)
        even = half[torch.cdist(x_ND, words.x).argmin(1)]
        return torch.cat([codes, codes[:, :1] * even[:, None]], 1) * torch.cat(
            [(~even).float()[:, None], torch.ones(len(x_ND), codes.shape[1])], 1
        )

    two = Dictionary("split", encode, torch.cat([sae.directions, sae.directions[:1]]), sae.constant)
    a = feature_absorption(two, words).of("a")
    assert set(a.main.tolist()) <= {0, LETTERS + WORDS} and not a.full.any()


def test_the_constant_counts_as_unexplained_unless_taken_away():
    sae, words, taken = planted_absorption(lambda word, letter: letter == 0 and word % 3 == 0)
    shift = -30 * random_directions(LETTERS, D, seed=1)[0]
    moved = WordExamples(words.names, words.x + shift, words.token, words.labels, words.test)
    there = Dictionary("moved", lambda x: sae.encode(x - shift), sae.directions, shift)
    raw, centred = (feature_absorption(there, moved, centred=choice).of("a") for choice in (False, True))
    assert not raw.full.any()  # the projection is below 0: by SAEBench's definition that is none
    assert torch.equal(centred.full, taken[centred.words])


def test_properties_that_are_not_there_are_left_out():
    sae, words, _ = planted_absorption()
    coin = torch.rand(WORDS, 1, generator=torch.Generator().manual_seed(8)) < 0.2
    both = WordExamples((*words.names, "coin"), words.x, words.token, torch.cat([words.labels, coin], 1), words.test)
    found = feature_absorption(sae, both)
    assert len(found.properties) == 3 and found.left_out.keys() == {"coin"} and found.left_out["coin"] < 0.6
    with pytest.raises(ValueError, match="least_f1=0.9"):
        feature_absorption(sae, WordExamples(("coin",), words.x, words.token, coin, words.test), least_f1=0.9)


def test_baselines_run_and_are_repeatable():
    sae, words, _ = planted_absorption()
    for other in (random_sae(make("jumprelu", d_in=D, d_sae=300), words.x), coordinates(D)):
        one, again = (feature_absorption(other, words, max_k=3) for _ in range(2))
        assert torch.equal(one.rates, again.rates) and torch.equal(one.fractions, again.fractions)
    assert feature_absorption(coordinates(D), words).rate == 0  # a coordinate is never silent


def test_the_probe_is_the_minimum_of_the_benchmarks_loss():
    """On examples that can be separated, where all of the length of a direction is up to the penalty."""
    x = 3 * randn(300, 6)
    label = torch.stack([x[:, 0] > 2, x[:, 1] + x[:, 2] > 4], 1)
    layer = torch.nn.Linear(6, 2)
    rare = (~label).sum(0) / label.sum(0)
    solver = torch.optim.LBFGS(layer.parameters(), max_iter=500, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        fit = torch.nn.BCEWithLogitsLoss(pos_weight=rare)(layer(x), label.float())
        total = fit + 1e-4 / 2 * layer.weight.square().sum()  # what weight_decay=1e-4 adds to the gradient of Adam
        total.backward()
        return total

    solver.step(loss)
    probe = property_probe(x, label)
    assert torch.allclose(probe.weight, layer.weight.T, rtol=0.03, atol=0.01)


def test_the_length_of_directions_does_not_matter():
    sae, words, taken = planted_absorption(lambda word, letter: letter == 0 and word % 3 == 0)
    long = Dictionary("long", lambda x: sae.encode(x) / 10, 10 * sae.directions, sae.constant)
    found = feature_absorption(long, words).of("a")
    assert torch.equal(found.full, taken[found.words]) and torch.equal(found.fraction, found.full.float())


def test_f1_by_hand():
    says = torch.tensor([[True, False], [True, False], [False, False]])
    label = torch.tensor([[True, True], [False, True], [True, False]])
    assert f1_scores(says, label).tolist() == [0.5, 0.0]


def test_what_cannot_be_judged_is_named():
    sae, words, _ = planted_absorption()
    with pytest.raises(ValueError, match="sae reads 8 numbers"):
        feature_absorption(make("relu"), words)
    with pytest.raises(ValueError, match="no property has both"):
        feature_absorption(sae, WordExamples(("a",), words.x, words.token, words.labels[:, :1] & False, words.test))
    with pytest.raises(ValueError, match="'z' is not among a, b, c"):
        feature_absorption(sae, words).of("z")
    with pytest.raises(ValueError, match="max_k"):
        feature_absorption(sae, words, max_k=0)
