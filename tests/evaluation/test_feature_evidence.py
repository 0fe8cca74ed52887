"""One pass over a text against the whole table of codes; and that the pieces it is read in do not matter."""

import pytest
import torch

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.evaluation import feature_evidence as module
from sae_tutorial.evaluation.feature_evidence import _hashed, feature_evidence


@pytest.fixture(scope="module")
def read():
    """A text, the codes of all of its positions as one table, and the evidence, read in pieces of two rows."""
    model, sae, tokens = (
        load_language_model("stories"),
        reference_sae("mutual_choice"),
        story_tokens(7 * 64, 64, seed=0),
    )
    with read_hook(model, sae.hook_name) as hook, torch.no_grad():
        table = sae.encode(hook(tokens).flatten(0, 1)).to_dense()
    table.view(*tokens.shape, -1)[:, 0] = 0  # BOS is left out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "rows_per_pass", lambda *_: 2)
        found = feature_evidence(sae, model, tokens, n_top=3, n_sampled=8, progress=False)
    return model, sae, tokens, table, found


def test_counts_and_largest_are_those_of_the_table(read):
    *_, tokens, table, found = read
    assert found.n_positions == tokens[:, 1:].numel()
    assert torch.equal(found.counts, (table > 0).sum(0))
    assert torch.allclose(found.largest, table.amax(0), rtol=1e-4)
    assert torch.allclose(found.density, (table > 0).sum(0) / found.n_positions)


def test_the_strongest_are_one_a_row(read):
    *_, tokens, table, found = read
    by_row = table.view(*tokens.shape, -1)[:, :-1].amax(1)  # with a next token: (rows, features)
    expected = by_row.topk(3, dim=0).values.T
    assert torch.allclose(found.strongest.value, expected, rtol=1e-4)
    for feature in found.counts.topk(20).indices.tolist():
        places = found.top(feature)
        assert len({place // tokens.shape[1] for place in places}) == len(places) == 3
        assert all(place % tokens.shape[1] < tokens.shape[1] - 1 for place in places)
        assert torch.allclose(table[places, feature], expected[feature], rtol=1e-4)
        assert found.top(feature, 2) == places[:2]


def test_the_sample_is_of_the_feature_s_own_matches(read):
    *_, table, found = read
    for feature in range(0, len(found.counts), 97):
        places = found.sampled.place[feature]
        places = places[places >= 0]
        assert len(places) == min(8, int(found.counts[feature])) == len(places.unique())
        assert (table[places, feature] > 0).all()
        groups = found.by_strength(feature, 4)
        assert sorted(sum(groups, [])) == sorted(places.tolist())
        values = [float(table[place, feature]) for group in groups for place in group]
        assert values == sorted(values, reverse=True)


def test_pieces_do_not_matter(read):
    model, sae, tokens, _, found = read
    whole = feature_evidence(sae, model, tokens, n_top=3, n_sampled=8, progress=False)
    assert torch.equal(whole.sampled.place, found.sampled.place)
    same = whole.strongest.place == found.strongest.place
    assert same.float().mean() > 0.999, "but for ties that rounding decides"


def test_codes_of_the_whole_text_are_kept_if_wanted(read):
    model, sae, tokens, table, found = read
    assert found.codes is None
    whole = feature_evidence(sae, model, tokens, n_top=3, n_sampled=8, keep_codes=True, progress=False)
    assert torch.allclose(whole.codes.to_dense(), table, atol=1e-3)


def test_what_is_kept_does_not_grow_with_the_text(read):
    model, sae, tokens, _, found = read
    more = feature_evidence(sae, model, tokens.repeat(2, 1), n_top=3, n_sampled=8, progress=False)
    assert more.strongest.place.shape == found.strongest.place.shape and torch.equal(more.counts, 2 * found.counts)


def test_a_hash_is_spread_evenly_and_tells_pairs_apart():
    place, feature = torch.meshgrid(torch.arange(3_000), torch.arange(50), indexing="ij")
    values = _hashed(place.flatten(), feature.flatten())
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.005
    counts = torch.histc(values, 20, 0, 1)
    assert (counts / len(values) - 0.05).abs().max() < 0.003
    by_pair = values.view(3_000, 50)
    assert abs(torch.corrcoef(torch.stack([by_pair[:, 0], by_pair[:, 1]]))[0, 1]) < 0.06
    assert abs(torch.corrcoef(torch.stack([by_pair[:-1, 0], by_pair[1:, 0]]))[0, 1]) < 0.06


def test_massive_activations_are_left_out(read):
    model, sae, tokens, _, found = read
    none = feature_evidence(sae, model, tokens, n_top=1, n_sampled=1, max_norm=0.01, progress=False)
    assert none.n_positions == 0 and none.top(0) == [] and none.by_strength(0) == [[]]
    every = feature_evidence(sae, model, tokens, n_top=1, n_sampled=1, max_norm=None, progress=False)
    assert every.n_positions == found.n_positions


def test_bad_input_is_named(read):
    model, sae, tokens, *_ = read
    with pytest.raises(ValueError, match="n_top must be at least 1, got 0"):
        feature_evidence(sae, model, tokens, n_top=0)
    with pytest.raises(ValueError, match="not a hook of this model"):
        feature_evidence(sae, model, tokens, "blocks.1.hook_resid", progress=False)
