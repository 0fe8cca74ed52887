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


@pytest.fixture(scope="module")
def drawn(model, evidence):
    sae, found = evidence
    return sae, study.drawn_on(sae, model, found.tokens.repeat(3, 1))  # thrice, so that features have EACH rows


def test_what_a_dictionary_draws_on_adds_up(drawn):
    _, of = drawn
    F = len(of.features)
    assert F > 0 and len(of.matches) == F * study.EACH and set(of.kinds) == set(study.SOURCES)
    assert_close(torch.stack(list(of.kinds.values())).sum(0), torch.ones(F))
    assert len(of.families) == F and sum(of.of_families.values()) == pytest.approx(1)
    assert list(of.of_families) == [*study.SOURCES, study.MIXED]
    matches, found = of.of(F - 1)
    assert set(matches.features.tolist()) == {int(of.features[-1])} and len(found.heads) == len(matches) == study.EACH


def test_controls_read_as_the_sae_does_and_lie_where_they_should(evidence):
    sae, _ = evidence
    found = study.controls(sae, n_heads=8)
    assert {name: one.config.d_sae for name, one in found.items()} == {
        "coordinates": 512,
        "random, within a head": 40,
        "random, over all heads": 40,
    }
    for one in found.values():
        assert_close(one.W_enc.T.norm(dim=1), torch.ones(one.config.d_sae))
        assert torch.equal(one.W_dec, one.W_enc.T) and torch.equal(one.mean, sae.mean)
        assert (one.hook_name, one.config.k, float(one.scale)) == (sae.hook_name, sae.config.k, float(sae.scale))
    parts = found["random, within a head"].W_dec.detach().unflatten(1, (8, -1)).norm(dim=2)
    assert torch.equal(parts.argmax(1), torch.arange(40) % 8) and ((parts > 0).sum(1) == 1).all()
    assert_close(found["coordinates"].W_dec.detach().sum(0), torch.zeros(256))


def planted(families, heads):
    """Features of which each writes into one head only, with families that are given."""
    zeros = torch.zeros(0)
    of = study.DrawnOn(torch.arange(len(families)), matches_at(9), Attribution(zeros, zeros))
    of.__dict__["families"] = families
    sae = type("SAE", (), {"W_dec": torch.nn.functional.one_hot(torch.tensor(heads), 2).float().repeat(1, 1)})()
    return of, sae


def test_kinds_that_count_as_one():
    of_kinds = {"near": torch.tensor([0.3, 0.1]), "itself": torch.tensor([0.4, 0.8]), "far": torch.tensor([0.3, 0.1])}
    assert study.families(study.as_one(of_kinds, ())) == ["mixed", "itself"]
    joined = study.as_one(of_kinds, ("near", "far"))
    assert study.families(joined) == ["near", "itself"] and set(joined) == {"near", "itself"}
    of, sae = planted(["mixed"] * 4 + ["near"] * 4, [0, 0, 0, 0, 1, 1, 1, 1])
    assert study.one_family(of, sae, 2, n=4) == [0, 1]
    assert study.one_family(of, sae, 2, n=4, families=["far"] * 3 + ["near"] * 5) == [0.75, 1]


def test_a_head_of_one_family_and_one_of_several():
    families = ["induction", "induction", "induction", "mixed", "near", "far", "mixed", "mixed"]
    of, sae = planted(families, [0, 0, 0, 0, 1, 1, 1, 1])
    assert study.one_family(of, sae, 2, n=4) == [0.75, 0.25], "mixed is no family"


def test_writers_are_shares(model, drawn):
    sae, of = drawn
    found = study.of_writers(model, sae, of.matches[:40])
    assert list(found) == ["embed", "attn 0", "mlp 0"] and sum(found.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def sentences(model):
    from sae_tutorial.circuits.ioi import ioi_sentences

    return ioi_sentences(model, 24)


@pytest.mark.parametrize("role", ["S2", "END"])
def test_what_comes_from_names_is_a_share_of_the_whole(model, evidence, sentences, role):
    found = study.drawn_from_roles(evidence[0], model, sentences, role)
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) >= -1e-5
    assert (found["END"] == 0) == (role == "S2"), "nothing comes from later tokens"


def test_codes_at_a_role_are_those_of_z_there(model, evidence, sentences):
    sae, _ = evidence
    z, codes = study.codes_at(sae, model, sentences, "S2")
    assert z.shape == (24, 256) and codes.shape == (24, 40)
    assert_close(codes, sae.encode(z).to_dense())


def test_a_direction_that_tells_the_order_is_found_with_either_sign_and_noise_is_not():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(200, generator=generator) < 0.5
    noise = torch.randn(200, 30, generator=generator)
    for sign in (1, -1):
        told = noise.clone()
        told[:, 7] = sign * (first.float() + 0.1 * noise[:, 7])
        assert study.order_told(told, first) > 0.99
    assert 0.3 < study.order_told(noise, first) < 0.7


def test_a_direction_that_tells_the_order_by_a_word_of_each_pattern_fails_on_new_patterns():
    generator = torch.Generator().manual_seed(0)
    first, patterns = torch.rand(300, generator=generator) < 0.5, torch.arange(300) % 3
    values = torch.rand(300, 4, generator=generator)
    values[:, 0] += first.float()  # the order itself
    assert min(study.order_told_in_new_words(values, first, patterns)) > 0.99
    in_two = torch.where(patterns == 2, -first.float(), first.float())  # what goes with it in two patterns of three
    values[:, 0] = in_two
    assert study.order_told_in_new_words(values, first, patterns)[2] == 0, "turned round"


def test_patterns_are_templates(sentences):
    patterns = study.patterns_of(sentences)
    assert len(patterns.unique()) == len({one.template for one in sentences.frames})
    assert all((patterns[i] == patterns[j]) == (a.template == b.template) for i, a in enumerate(sentences.frames)
               for j, b in enumerate(sentences.frames))  # fmt: skip
