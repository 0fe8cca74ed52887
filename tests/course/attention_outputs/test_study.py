"""Kinds of source position, and the shares that they have of what makes features fire."""

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial.circuits.attention_features import Attribution, Matches
from sae_tutorial.course.attention_outputs import study

#         0  1  2  3  4  5  6  7  8  9
TOKENS = [0, 5, 6, 7, 8, 9, 5, 3, 4, 5]


def matches_at(*positions, tokens=TOKENS):
    n = len(positions)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Matches(torch.tensor([tokens]), zeros, torch.tensor(positions), torch.arange(n))


def test_every_source_is_of_one_kind_and_later_positions_of_none():
    matches = matches_at(9, 0, 4)
    kinds = study.source_kinds(matches)
    assert list(kinds) == list(study.SOURCES)
    counts = torch.stack(list(kinds.values())).sum(0)
    assert torch.equal(counts, (torch.arange(10) <= matches.positions[:, None]).long())


def test_kinds_by_hand():
    kinds = study.source_kinds(matches_at(9))
    where = {name: kind[0].nonzero()[:, 0].tolist() for name, kind in kinds.items()}
    # 5 stood at 1 and 6: what came after, 6 and 3, is induction; near are 5 to 8, unless they are something else
    assert where["start"] == [0] and where["itself"] == [9] and where["induction"] == [2, 7]
    assert where["twin"] == [1, 6] and where["previous"] == [8] and where["near"] == [5]
    assert where["middle"] == [3, 4] and where["far"] == []


def test_the_first_token_after_a_twin_that_begins_the_row_is_no_induction():
    kinds = study.source_kinds(matches_at(3, tokens=[5, 6, 7, 5]))
    assert not kinds["induction"].any() and kinds["start"][0].tolist() == [True, False, False, False]


def test_shares_are_of_what_raises_and_are_taken_over_matches():
    heads = torch.zeros(2, 3, 10)
    heads[0, 0, 7], heads[0, 1, 8], heads[0, 2, 3] = 3.0, 1.0, -9.0
    heads[1, 2, 9] = 2.0
    found = Attribution(heads, torch.zeros(2))
    kinds = study.source_kinds(matches_at(9, 9))
    of_kinds = study.shares(found, kinds, each=2)
    assert_close(of_kinds["induction"], torch.tensor([0.375]))
    assert_close(of_kinds["previous"], torch.tensor([0.125]))
    assert_close(of_kinds["itself"], torch.tensor([0.5]))
    assert_close(torch.stack(list(of_kinds.values())).sum(0), torch.ones(1))
    assert study.families(of_kinds) == ["itself"] and study.families(of_kinds, 0.6) == [study.MIXED]
    assert_close(study.head_parts(found, each=1), torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))


def test_a_feature_that_nothing_raises_has_no_shares():
    found = Attribution(-torch.ones(1, 2, 10), torch.zeros(1))
    assert not torch.stack(list(study.shares(found, study.source_kinds(matches_at(9)), 1).values())).any()


@pytest.fixture(scope="module")
def evidence(model):
    from sae_tutorial import SAEConfig, SparseAutoencoder, story_tokens
    from sae_tutorial.activations.forward import read_hook
    from sae_tutorial.evaluation.feature_evidence import feature_evidence

    sae = SparseAutoencoder(SAEConfig(d_in=256, d_sae=40, k=4, rule="token_choice"), seed=0)
    sae.hook_name = "blocks.1.attn.hook_z"
    tokens = story_tokens(12 * 64, 64, seed=1)
    with read_hook(model, sae.hook_name) as read:
        x = read(tokens).flatten(0, 1).flatten(1)
    sae.mean.copy_(x.mean(0))
    sae.scale.fill_(float((x - x.mean(0)).square().mean().sqrt()))
    return sae, feature_evidence(sae, model, tokens)


def test_strongest_matches_are_active_where_they_say(model, evidence):
    from sae_tutorial.circuits.attention_features import direct_feature_attribution

    sae, found = evidence
    features, matches = study.strongest_matches(found, 5)
    assert len(matches) == 5 * len(features) > 0
    assert torch.equal(matches.features.view(-1, 5)[:, 0], features)
    rows = matches.rows.view(-1, 5).sort(1).values
    assert (rows.diff(dim=1) > 0).all(), "each from another row"
    strength = direct_feature_attribution(model, sae, matches).total.view(-1, 5)
    assert (strength > 0).all() and (strength.diff(dim=1) <= 1e-4).all(), "the strongest first"


@pytest.mark.parametrize(("least", "words"), [(0, "keeps 1 to"), (10_000, "keeps 1 to")])
def test_strongest_matches_that_nobody_kept(evidence, least, words):
    with pytest.raises(ValueError, match=words):
        study.strongest_matches(evidence[1], least)
