"""What makes a feature of attention outputs fire: parts that add up to its pre-activation, whatever they are."""

import pytest
import torch
from grouped_model import grouped_model
from tiny_model import tiny_model
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.circuits import attention_features as af


@pytest.fixture(scope="module", params=[tiny_model, grouped_model])
def model(request, tmp_path_factory):
    """One of GPT-2's kind, and one with rotary positions, RMSNorm and values that heads share."""
    return request.param(tmp_path_factory.mktemp("tokenizer"))


def sae_of(model, layer=1, seed=0, **more):
    d_in = model.cfg.n_heads * model.cfg.d_head
    sae = SparseAutoencoder(SAEConfig(d_in=d_in, d_sae=40, k=4, rule="token_choice", **more), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (sae.mean, sae.b_enc, sae.b_dec):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    sae.scale.fill_(1.7)
    sae.hook_name = f"blocks.{layer}.attn.hook_z"
    return sae


@pytest.fixture(scope="module")
def matches(model):
    tokens = torch.randint(model.cfg.d_vocab, (3, 12), generator=torch.Generator().manual_seed(3))
    return af.Matches(tokens, *(torch.tensor(x) for x in ([0, 1, 2, 2, 0], [0, 5, 11, 3, 11], [0, 39, 7, 7, 20])))


def preactivations(model, sae, matches):
    with read_hook(model, sae.hook_name) as read:
        z = read(matches.tokens)[matches.rows, matches.positions].flatten(1)
    return sae.preactivations(sae.normalise(z)).gather(1, matches.features[:, None])[:, 0]


@pytest.mark.parametrize("more", [{}, {"b_dec": False}, {"tied": True}])
def test_heads_and_sources_add_up_to_the_preactivation(model, matches, more):
    sae = sae_of(model, **more)
    found = af.direct_feature_attribution(model, sae, matches)
    assert found.heads.shape == (5, model.cfg.n_heads, 12)
    assert_close(found.total, preactivations(model, sae, matches), atol=1e-5, rtol=1e-4)
    later = torch.arange(12)[None] > matches.positions[:, None]
    assert not found.heads.masked_select(later[:, None]).any(), "no source lies behind the position that reads"


def test_one_match_alone_is_the_same(model, matches):
    sae = sae_of(model)
    together = af.direct_feature_attribution(model, sae, matches)
    assert_close(af.direct_feature_attribution(model, sae, matches[1:2]).heads, together.heads[1:2])
    assert af.direct_feature_attribution(model, sae, matches[:0]).heads.shape == (0, model.cfg.n_heads, 12)


def test_only_a_source_that_holds_something_brings_something(model, matches):
    """Planted: all values but those at position 2 are set to zero."""

    def only_there(v, hook):
        return v * (torch.arange(v.shape[1]) == 2)[:, None, None]

    sae = sae_of(model)
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_v", only_there)]):
        found = af.direct_feature_attribution(model, sae, matches).heads
    assert found[1:, :, 2].abs().min() > 0 and not found[..., torch.arange(12) != 2].any()


def test_only_the_head_that_a_feature_reads_brings_something(model, matches):
    sae = sae_of(model)
    with torch.no_grad():
        sae.W_enc.view(model.cfg.n_heads, -1, 40)[1:] = 0
        sae.W_dec.view(40, model.cfg.n_heads, -1)[:, 1:] = 0
    found = af.direct_feature_attribution(model, sae, matches).heads
    assert found[:, 0].any() and not found[:, 1:].any()
    shares = af.head_shares(sae, model.cfg.n_heads)
    assert_close(shares[:, 0], torch.ones(40))
    assert not shares[:, 1:].any()


def test_writers_add_up_to_the_preactivation(model, matches):
    sae = sae_of(model)
    found = af.writers(model, sae, matches)
    assert found.names == ("embed", "attn 0", "mlp 0") and found.parts.shape == (5, 3, 12)
    assert_close(found.total, preactivations(model, sae, matches), atol=1e-5, rtol=1e-4)
    direct = af.direct_feature_attribution(model, sae, matches)
    moved = direct.heads.sum((1, 2)) - found.parts.sum((1, 2))  # the biases of values
    assert_close(moved, found.constant - direct.constant, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
def test_the_pulled_back_direction_is_what_a_change_of_the_stream_does(model, matches):
    """A small change at one source, with patterns and LayerNorm scales held: the oracle is the model itself."""
    sae, name = sae_of(model), "blocks.1.hook_resid_pre"
    held = ["blocks.1.attn.hook_pattern", "blocks.1.ln1.hook_scale"]
    with read_hooks(model, held, fused=False) as read:
        was = read(matches.tokens)
    step = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(1))

    def moved(x, hook):
        return x + step * (torch.arange(x.shape[1]) == 1)[:, None]

    hooks = [(name, moved)] + [(one, lambda x, hook, value=was[one]: value) for one in held]
    with model.hooks(fwd_hooks=hooks), read_hook(model, sae.hook_name, fused=False) as read:
        z = read(matches.tokens)[matches.rows, matches.positions].flatten(1)
    after = sae.preactivations(sae.normalise(z)).gather(1, matches.features[:, None])[:, 0]
    told = af.pulled_back(model, sae, matches)[:, 1] @ step
    assert_close(told, after - preactivations(model, sae, matches), atol=2e-5, rtol=1e-3)


def test_an_earlier_layer_is_its_features_and_a_rest(model, matches):
    sae, upstream = sae_of(model), sae_of(model, layer=0, seed=1)
    by_feature, rest = af.from_features(model, upstream, af.pulled_back(model, sae, matches), matches)
    whole = af.writers(model, sae, matches)
    assert by_feature.shape == (5, 12, 40)
    assert_close(by_feature.sum(2) + rest, whole.parts[:, whole.names.index("attn 0")], atol=1e-5, rtol=1e-4)
    assert int((by_feature != 0).sum(2).max()) <= 4


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("rows", [3, 0, 0, 0, 0], "matches.rows must be 5 numbers from 0 to 2"),
        ("positions", [0, 0, 0, 0, -1], "matches.positions must be 5 numbers from 0 to 11"),
        ("features", [0, 0, 0, 0, 40], "matches.features must be 5 numbers from 0 to 39"),
        ("rows", [0], "matches.rows must be"),
    ],
)
def test_matches_that_do_not_exist(model, matches, name, change, words):
    fields = {field: getattr(matches, field) for field in ("tokens", "rows", "positions", "features")}
    with pytest.raises(ValueError, match=words):
        af.direct_feature_attribution(model, sae_of(model), af.Matches(**fields | {name: torch.tensor(change)}))


def test_an_sae_that_reads_something_else(model, matches):
    sae = sae_of(model)
    sae.hook_name = "blocks.1.hook_resid_post"
    with pytest.raises(ValueError, match="attribution to heads needs one on 'blocks.N.attn.hook_z'"):
        af.writers(model, sae, matches)
