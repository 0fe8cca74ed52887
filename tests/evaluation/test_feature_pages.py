"""Pages of features: against the whole table of codes, and with what was planted."""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.evaluation.feature_evidence import feature_evidence
from sae_tutorial.evaluation.feature_pages import (
    TOGETHER,
    _spread,
    feature_pages,
    promoted_tokens,
    read_passages,
    tokens_in_use,
)


@pytest.fixture(scope="module")
def read(model):
    """An SAE, a text, the evidence with the codes of the whole text, and that table: (rows, positions, features)."""
    sae, tokens = reference_sae("mutual_choice"), story_tokens(8_192, 64, source="books")
    evidence = feature_evidence(sae, model, tokens, keep_codes=True, progress=False)
    return sae, tokens, evidence, evidence.codes.to_dense().detach().view(*tokens.shape, -1)


@pytest.fixture(scope="module")
def chosen(read):
    """Features of different densities."""
    _, _, evidence, _ = read
    order = evidence.counts.argsort(descending=True)
    return order[[5, 50, 500, 2000]].tolist()


def test_a_passage_is_the_text_around_a_place_with_the_activations_there(read, chosen, model):
    sae, tokens, evidence, table = read
    places = {f: evidence.top(f, 5) for f in chosen}
    found = read_passages(evidence, sae, model, places, width=6)
    for feature, its in places.items():
        for place in its:
            row, at = divmod(place, 64)
            passage = found[feature][place]
            first = at - passage.at
            part = slice(first, first + len(passage.tokens))
            assert 1 <= first and at < part.stop <= at + 7 and at - first <= 6
            assert torch.equal(passage.tokens, tokens[row, part])
            assert torch.allclose(passage.activations, table[row, part, feature])
            assert passage.peak == pytest.approx(float(table[row, at, feature]))


def test_passages_begin_and_end_between_words(read, chosen, model):
    sae, tokens, evidence, _ = read
    decode = model.tokenizer.decode
    places = {f: evidence.top(f) for f in chosen}
    found = read_passages(evidence, sae, model, places, width=6)
    for its in found.values():
        for place, passage in its.items():
            row, at = divmod(place, 64)
            first, stop = at - passage.at, at - passage.at + len(passage.tokens)
            if 1 < first < at:
                assert not decode([tokens[row, first]])[:1].isalpha()
            if at + 1 < stop < 64:
                assert not decode([tokens[row, stop]])[:1].isalpha()


def test_without_kept_codes_the_rows_are_read_again_and_the_pages_are_the_same(read, chosen, model):
    sae, _, evidence, _ = read
    one = feature_pages(evidence, sae, model, chosen)
    two = feature_pages(replace(evidence, codes=None), sae, model, chosen)
    for a, b in zip(one, two, strict=True):
        assert (a.feature, a.similar, a.together, a.raised) == (b.feature, b.similar, b.together, b.raised)
        pairs = [*zip(a.strongest, b.strongest), *zip(sum(a.groups, []), sum(b.groups, []))]
        assert all(torch.equal(x.tokens, y.tokens) for x, y in pairs)
        assert all(torch.allclose(x.activations, y.activations, atol=1e-3) for x, y in pairs)


def test_a_page_says_what_the_table_says(read, chosen, model):
    sae, tokens, evidence, table = read
    for page in feature_pages(evidence, sae, model, chosen):
        mine = table[..., page.feature]
        assert page.density == pytest.approx(float((mine > 0).sum() / evidence.n_positions))
        assert page.largest == pytest.approx(float(mine.max()))
        assert page.rank == 1 + int((evidence.counts > evidence.counts[page.feature]).sum()) or page.rank > 1
        peaks = [passage.peak for passage in page.strongest]
        assert peaks == sorted(peaks, reverse=True) and len(peaks) == min(10, int((mine[:, :-1] > 0).any(1).sum()))
        groups = [[p.peak for p in group] for group in page.groups]
        assert all(min(a) >= max(b) for a, b in zip(groups, groups[1:]))
        assert len(page.sampled) == min(100, int((mine > 0).sum()))


def test_the_most_similar_rows_have_the_largest_cosines(read, chosen, model):
    sae, _, evidence, _ = read
    unit = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    for page in feature_pages(evidence, sae, model, chosen, n_close=3):
        cosines = (unit @ unit[page.feature]).index_fill(0, torch.tensor([page.feature]), -1)
        assert [f for f, _ in page.similar] == cosines.topk(3).indices.tolist()
        assert [c for _, c in page.similar] == pytest.approx(cosines.topk(3).values.tolist(), abs=1e-5)


def test_together_is_the_correlation_of_being_active(read, model):
    """Of a feature with fewer matches than are looked at, it is exact."""
    sae, _, evidence, table = read
    few = (evidence.counts >= 10) & (evidence.counts <= TOGETHER)
    feature = int(few.nonzero()[0])
    [page] = feature_pages(evidence, sae, model, [feature])
    active = (table[:, 1:] > 0).flatten(0, 1).double()
    for other, phi in page.together:
        pair = torch.corrcoef(active[:, [feature, other]].T)[0, 1]
        assert phi == pytest.approx(float(pair), abs=1e-4)
    assert feature not in dict(page.together) and len(page.together) <= 5


def test_a_planted_companion_is_found(read, model):
    """A feature that is active exactly where another is, half as strong, is its first companion."""
    sae, tokens, evidence, table = read
    feature = int(evidence.counts.topk(200).indices[-1])
    silent = int((evidence.counts == 0).nonzero()[0])
    table = table.clone()
    table[..., silent] = table[..., feature] / 2
    codes = type(evidence.codes).from_dense(table.flatten(0, 1))
    counts = evidence.counts.index_copy(0, torch.tensor([silent]), evidence.counts[[feature]])
    [page] = feature_pages(replace(evidence, codes=codes, counts=counts), sae, model, [feature])
    assert page.together[0] == (silent, pytest.approx(1, abs=1e-3))


def test_tokens_in_use_and_what_is_promoted(read, chosen, model):
    sae, tokens, evidence, _ = read
    used = tokens_in_use(tokens, model.cfg.d_vocab)
    assert ((tokens[:, 1:] == used[0]).sum() >= 5) and (tokens[:, 1:] == used[-1]).sum() >= 5
    assert len(tokens_in_use(tokens[:1, :3], model.cfg.d_vocab)) == len(tokens[0, 1:3].unique())
    logits = (sae.W_dec[chosen[0]] * sae.scale).detach() @ model.W_U.detach()
    [(raised, lowered)] = promoted_tokens(evidence, sae, model, chosen[:1], 4)
    assert raised[0][1] == pytest.approx(float(logits[used].max()), abs=1e-4)
    assert lowered[0][1] == pytest.approx(float(logits[used].min()), abs=1e-4)


def test_a_transcoder_promotes_in_the_units_of_what_it_writes(read, chosen, model):
    sae, _, evidence, _ = read
    writes = {"W_dec": sae.W_dec, "scale": sae.scale, "out_scale": 3 * sae.scale}
    (plain, _), (more, _) = (
        promoted_tokens(evidence, one, model, chosen[:1], 4)[0] for one in (sae, type("Transcoder", (), writes)())
    )
    assert [by for _, by in more] == pytest.approx([3 * by for _, by in plain])


def test_a_decoder_that_does_not_write_to_the_stream_promotes_nothing(read, model):
    sae, _, evidence, _ = read
    narrow = type("Narrow", (), {"W_dec": sae.W_dec[:, :64], "scale": sae.scale})()
    assert promoted_tokens(evidence, narrow, model, [1, 2], 4) == [([], []), ([], [])]


@pytest.mark.parametrize("n, places", [(10, 2), (3, 5), (1, 1), (0, 4)])
def test_spread(n, places):
    found = _spread(list(range(n)), places)
    assert len(found) == min(n, places) and found == sorted(set(found))


def test_a_silent_feature_has_a_page(read, model):
    sae, _, evidence, _ = read
    silent = int((evidence.counts == 0).nonzero()[0])
    [page] = feature_pages(evidence, sae, model, [silent])
    assert page.density == 0 and page.strongest == [] and page.groups == [] and page.together == []
    assert len(page.similar) == 5 and not sqrt(page.largest)


def test_bad_features_are_named(read, model):
    sae, _, evidence, _ = read
    with pytest.raises(ValueError, match="features is empty"):
        feature_pages(evidence, sae, model, [])
    with pytest.raises(ValueError, match="between 0 and 4095, got 4096"):
        feature_pages(evidence, sae, model, [1, 4096])
