"""Scores that rival codes, and toys in which the truth is planted."""

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial.circuits.discrete import node_scores
from sae_tutorial.course.discrete_circuits import study, tasks


def test_the_planted_toy_is_found_and_its_shuffled_labels_find_nothing():
    found = study.toy_areas(10, 2)
    planted, shuffled, quiet = found.values()
    assert min(planted) > 0.95, found
    assert abs(sum(shuffled) / 2 - 0.5) < 0.15, found
    assert min(quiet) > 0.95, "heads that say more are found with labels that mean nothing"


def test_toys_say_what_they_should():
    one = study.toy(10, 0)
    assert one.outputs.shape == (20, study.HEADS, study.WIDTH) and one.members.nonzero()[:, 0].tolist() == [4, 11]
    assert one.positive.sum() == 10 and torch.equal(one.outputs, study.toy(10, 0).outputs)
    quiet = study.quiet_toy(10, 0)
    spread = quiet.outputs.std(0).mean(1)
    assert spread[quiet.members].min() > 3 * spread[~quiet.members].max()


def test_a_probe_leaves_an_example_and_its_twin_out():
    labels = torch.arange(8) < 4
    outputs = torch.zeros(8, 4, 2)
    outputs[:4, 0, 0] = 1.0  # tells the kinds apart; the second says the same of twins, whatever their kind
    outputs[:, 1] = 5 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    outputs[:4, 2, 0] = torch.tensor([1.0, 1.0, 1.0, -1.0])
    found = study.probe(outputs, labels)
    assert found[0] == 1 and found[2] == pytest.approx(7 / 8)
    assert found[1] == 0.5, "with its twin in the mean of the other kind, it would be 0"
    assert found[3] == 0.5, "a head that always says the same"


def test_clusters_are_found():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(3, (10, 4), generator=generator)
    outputs = 10 * torch.eye(3)[kind] + 0.1 * torch.randn(10, 4, 3, generator=generator)
    found = study.k_means(outputs, clusters=6)
    for code in found.unique():
        assert len(kind[found == code].unique()) == 1, "no cluster holds two kinds"


def test_the_mean_difference_is_that_of_what_is_written(model):
    outputs = torch.zeros(4, 32, 32)
    outputs[:2, 9] = 1.0
    lengths = study.mean_difference(model, outputs, torch.arange(4) < 2)
    assert lengths[9] == pytest.approx(float(model.W_O[1, 1].sum(0).norm()), rel=1e-4)
    assert (lengths[torch.arange(32) != 9] == 0).all()


def test_the_spread_is_that_of_what_is_written_and_shuffled_labels_find_it(model):
    outputs = torch.zeros(6, 32, 32)
    outputs[::2, 9] = 1.0
    outputs[:, 3] = 5.0  # large, and always the same
    found = study.spread(model, outputs)
    assert found[9] == pytest.approx(float(model.W_O[1, 1].sum(0).norm()) / 2, rel=1e-4)
    null = torch.stack([study.mean_difference(model, outputs, labels) for labels in study.labels_at_random(6, 3)])
    assert null.shape == (study.SHUFFLES, 32) and null[:, 9].min() > 0
    for values in (found, null.mean(0)):
        assert (values[torch.arange(32) != 9] < 1e-4).all()


def test_prompts_against_others_of_the_same_kind():
    codes = torch.tensor([[1, 4], [2, 4], [7, 8], [7, 9]])  # two positives, two negatives; two heads
    more = torch.tensor([[1, 4], [3, 4], [7, 8], [7, 8]])
    found = study.same_kind(codes, more, 2)
    assert found["positives"].tolist() == [1, 0] and found["negatives"].tolist() == [0, 1]


def test_every_method_scores_every_head(model):
    task, other = (tasks.indirect_objects(model, 4, seed) for seed in (0, 1))
    read = study.Read.of(model, task)
    found = study.head_scores(model, task, read, other)
    assert len(found) == 9 and all(values.shape == (32,) for values in found.values())
    assert_close(found[study.BEYOND], found[study.SAE] - found[study.CHANCE])
    assert len(study.head_scores(model, task, read)) == 8


def test_the_setting_of_the_source_scores_heads_by_codes_of_all_prompts(model):
    task = tasks.TASKS["repeated words"](model, 6, seed=0)
    found = study.as_in_the_source(model, task, n_trained=4, steps=5)
    assert all(scores.shape == (32,) for scores in found.values()) and study.OF_PAIRS in found
    assert 0 < found[study.SAE].max() <= 6, "codes that only the six positive prompts have"
    assert found[study.OF_PAIRS].sum() == 2 * (32 * 32 // 4)
    again = study.as_in_the_source(model, task, n_trained=4, steps=5)
    assert torch.equal(found[study.SAE], again[study.SAE])
    assert torch.equal(study.as_in_the_source(model, task, seed=1, steps=5)[study.MEAN], found[study.MEAN])


def test_heads_of_the_best_pairs_are_counted():
    table = torch.tensor([[9.0, 5.0, 1.0, 1.0], [5.0, 9.0, 4.0, 0.0], [1.0, 4.0, 9.0, 0.0], [1.0, 0.0, 0.0, 9.0]])
    assert study.in_best_pairs(table).tolist() == [2, 4, 2, 0], "two pairs, either way round; no head with itself"


def test_shuffled_labels_average_to_what_is_expected():
    codes = torch.randint(0, 4, (20, 6), generator=torch.Generator().manual_seed(0))
    drawn = [labels for seed in range(20) for labels in study.labels_at_random(20, 10, seed)]
    many = torch.stack([study.node_scores(codes, labels) for labels in drawn])
    assert_close(many.mean(0), study.expected_scores(codes, 10), atol=0.06, rtol=0)


def test_labels_are_swapped_within_pairs():
    drawn = torch.stack(study.labels_swapped(10))
    assert drawn.shape == (study.SHUFFLES, 20) and (drawn[:, :10] != drawn[:, 10:]).all()
    assert 0.3 < drawn[:, :10].float().mean() < 0.7 and len(drawn.unique(dim=0)) > study.SHUFFLES // 2
    members = torch.arange(6) < 2
    assert study.area_over(lambda labels: members.float(), list(drawn), members) == 1
    first = [labels for labels in drawn if labels[0]]
    said = study.area_over(lambda labels: members.float() * (1 if labels[0] else -1), list(drawn), members)
    assert said == pytest.approx(len(first) / len(drawn)), "the mean over labels"


def test_curves_pairs_and_areas(model):
    members = torch.tensor([True, True, False, False])
    assert study.curve(torch.tensor([4.0, 3, 2, 1]), members) == [1.0] * 21
    assert study.curve(torch.ones(4), members) == pytest.approx(study.GRID)
    table = torch.arange(32 * 32).view(32, 32)
    listed = study.of_pairs(model, table)
    assert len(listed) == 6 * 64 and listed[0] == 8 and not {1, 32 * 8} & set(listed.tolist())
    codes, positive = torch.randint(0, 3, (6, 32)), torch.arange(6) < 3
    edges = study.edge_scores(codes, positive)
    assert_close(edges[study.SAE].diagonal(), node_scores(codes, positive))
    rows = [{"task": "a", "n": 10, "nodes": {"x": 0.2}, "curves": {"nodes": {"x": [0.0, 1.0]}}}]
    rows += [{"task": "a", "n": 10, "nodes": {"x": 0.4}, "curves": {"nodes": {"x": [0.5, 1.0]}}}, {"circuit": "a"}]
    assert study.areas_of(rows, "x", "a") == [0.2, 0.4] and study.areas_of(rows, "x", "a", 5) == []
    assert study.mean_curve(rows, "x", "a", "nodes") == [0.25, 1.0]
    assert study.span([0.2, 0.4])[0] == pytest.approx(0.3)
