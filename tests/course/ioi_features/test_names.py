"""Which names a feature stands for, and a model that changes its mind."""

import pytest
import torch

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.shipped import HOOK
from sae_tutorial.course.ioi_features import names


def test_the_share_of_a_names_sentences():
    active = torch.tensor([[1, 0], [0, 0], [1, 1], [1, 1]]).bool()
    share = names.switched_on(active, ["Tom", "Tom", "Ann", "Ann"], ["Ann", "Tom", "Zoe"])
    assert share.tolist() == [[1, 1], [0.5, 0], [0, 0]]


def test_strongest_words_are_named_once():
    acts = torch.tensor([[3.0, 0], [2, 1], [1, 2], [0, 3]])
    words = torch.tensor([5, 5, 6, 7])
    assert names.strongest_words(acts, words, lambda ids: f" w{ids[0]}", n=3) == ["w5 w6", "w7 w6 w5"]


def test_coins_with_the_same_odds_make_patterns_too():
    never, all_on = torch.zeros(5, 3).bool(), torch.ones(5, 3).bool()
    assert names.patterns_by_chance(never) == names.patterns_by_chance(all_on) == (1, 1, 1)
    one = torch.tensor([[1], [0]]).bool()  # two throws of a fair coin differ in half of the draws
    mean, least, most = names.patterns_by_chance(one, draws=2_000)
    assert mean == pytest.approx(1.5, abs=0.05) and (least, most) == (1, 2)


def test_each_sentence_draws_as_many_as_it_is_told_from_what_is_there():
    among = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    many = names.drawn(among, torch.tensor([2, 9, 0]), draws=20)
    assert all(one.sum(dim=1).tolist() == [2, 2, 0] and not (one & ~among).any() for one in many)
    assert len({tuple(one[0].tolist()) for one in many}) == 3, "all pairs come up"


def test_draws_are_told_by_their_ends():
    assert names.ends(torch.tensor([0.93, 0.96, 0.91])) == "91% to 96%" and names.ends(torch.tensor([0.92])) == "92%"


def test_with_all_axes_the_model_names_the_other(model):
    axes = Dictionary.of_axes("axes", torch.eye(model.cfg.d_model), torch.zeros(model.cfg.d_model))
    rows = names.change_of_mind(model, HOOK, axes, "Mary", "John", "Anna", [0, 4, 256])
    assert [row[0] for row in rows] == [0, 4, 256]
    (_, before, mary, anna), (_, after, no_mary, all_anna) = rows[0], rows[-1]
    assert before == "Mary" and after == "Anna" and mary > anna and all_anna > no_mary


@pytest.mark.parametrize("three", [("Mary", "Mary", "Anna"), ("Mary", "John", "Mary")])
def test_names_must_differ(model, three):
    axes = Dictionary.of_axes("axes", torch.eye(model.cfg.d_model), torch.zeros(model.cfg.d_model))
    with pytest.raises(ValueError, match="must be three different names"):
        names.change_of_mind(model, HOOK, axes, *three, [0])
