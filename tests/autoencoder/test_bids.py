"""Rules that compare affinities by the token's length (relative) or with subsidies (floor): choices against a dense
oracle, thresholds that look at one token alone, files, and what other libraries cannot hold."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make, randn
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, allocation, load_sae, save_sae
from sae_tutorial.activations import memory
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.saving import WITHOUT_CHECKSUMS
from sae_tutorial.autoencoder.shipped import pack, unpack
from sae_tutorial.autoencoder.thresholds import measure_thresholds
from sae_tutorial.training.start import with_rule

KINDS = [
    ("mutual_choice", {"relative": True}),
    ("mutual_choice", {"floor": 0.2}),
    ("mutual_choice", {"relative": True, "floor": 0.2}),
    ("matryoshka", {"relative": True, "floor": 0.2}),
    ("feature_choice", {"relative": True}),
]
every_kind = pytest.mark.parametrize("rule, more", KINDS, ids=str)


def an_sae(rule, more, d_in=8, **sizes):
    """Random weights, tokens off the origin, and subsidies of every size where there are any."""
    sae = make(rule, d_in=d_in, **sizes, **more)
    if sae.config.floor:
        sae.subsidy.copy_(1 + 19 * torch.rand(sae.config.d_sae, generator=torch.Generator().manual_seed(5)) ** 4)
    return sae


def tokens(n=40, d_in=8, seed=2):
    """Lengths from a tenth to thirty times the usual one."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d_in, generator=generator) * torch.exp(torch.randn(n, 1, generator=generator))


def oracle_bids(sae, u):
    """Token by token and feature by feature, as the formula stands."""
    centre = torch.zeros(sae.config.d_in) if sae.centre is None else sae.centre.detach()
    z = (u - centre) @ sae.W_enc.detach() + sae.b_enc.detach()
    if sae.config.relative:
        z = z * sae.config.d_in**0.5 / (u - centre).norm(dim=1, keepdim=True)
    return z * sae.subsidy if sae.config.floor else z


def oracle(sae, u):
    """The matches of a batch, with affinities as values, from whole tables and full sorts."""
    bids = oracle_bids(sae, u)
    if sae.config.how.owner == "feature":
        chosen = allocation.rules.feature_choice(bids, sae.capacity(len(u)))
    else:
        chosen = allocation.rules.mutual_choice(bids, sae.config.n_matches(len(u)))
    return (chosen.to_dense() > 0) * sae.preactivations(u).detach()


@every_kind
@pytest.mark.parametrize("variant", [{}, {"tied": True}, {"b_dec": False}], ids=str)
def test_the_choice_is_the_formulas(rule, more, variant):
    sae, u = an_sae(rule, more | variant), tokens()
    with torch.no_grad():
        assert_close(sae.bids(u), oracle_bids(sae, u), rtol=1e-4, atol=1e-5)
        found = sae.encode_normalised(u, batch_rule=True)
    assert_close(found.to_dense(), oracle(sae, u), rtol=1e-4, atol=1e-5)
    plain = with_rule(sae, rule, torch.rand(sae.config.d_sae), relative=False, floor=0.0)
    assert not torch.equal(found.to_dense() > 0, plain.encode_normalised(u, batch_rule=True).to_dense() > 0)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 60),
    d_in=st.integers(1, 40),
    seed=st.integers(0, 1000),
    double=st.booleans(),
)
def test_property_matches_are_the_oracles(kind, n, d_in, seed, double):
    sae, u = an_sae(*kind, d_in=d_in), tokens(n, d_in, seed)
    if double:
        sae, u = sae.double(), u.double()
    with torch.no_grad():
        found = sae.encode_normalised(u, batch_rule=True)
    assert_close(found.to_dense(), oracle(sae, u).to(u.dtype), rtol=1e-3, atol=1e-4)


@every_kind
@pytest.mark.parametrize("at_once", [1, 64 * 7, 64 * 100])
def test_blocks_equal_the_whole(rule, more, at_once, monkeypatch):
    sae, u = an_sae(rule, more), tokens()
    expected = oracle(sae, u)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * at_once)
    assert_close(sae.from_bids(u, matching.match(sae, u)).to_dense(), expected, rtol=1e-4, atol=1e-5)


@every_kind
def test_rounded_bids_nominate_and_exact_ones_decide(rule, more):
    sae, u = an_sae(rule, more, d_sae=256), tokens(200)
    exact, found = oracle(sae, u), sae.from_bids(u, matching.match(sae, u, dtype=torch.bfloat16))
    assert found.values.dtype == torch.float32 and len(found) == int((exact > 0).sum())
    assert ((found.to_dense() > 0) == (exact > 0)).float().mean() > 0.9998
    same = (found.to_dense() > 0) & (exact > 0)
    assert_close(found.to_dense()[same], exact[same], rtol=1e-4, atol=1e-5)


@every_kind
def test_at_inference_a_token_is_read_alone_and_the_budget_is_met(rule, more):
    sae = an_sae(rule, more)
    batches = [sae.denormalise(tokens(300, seed=seed)) for seed in range(4)]
    measure_thresholds(sae, batches)
    whole = [sae.encode(x) for x in batches]
    matches = sum(len(codes) for codes in whole)
    assert matches == sum(len(sae.encode(x, batch_rule=True)) for x in batches) == 4 * 300 * 4
    assert_close(sae.encode(batches[0][7:9]).to_dense(), whole[0].to_dense()[7:9])
    bids = oracle_bids(sae, sae.normalise(batches[0]))
    assert torch.equal(whole[0].to_dense() > 0, bids > sae.threshold)


def test_relative_means_that_length_decides_nothing():
    """Without a bias, a token that is a hundred times as long has the same features, a hundred times as strong."""
    sae = an_sae("mutual_choice", {"relative": True})
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    u = tokens()
    longer = u.clone()
    longer[::2] *= 100
    with torch.no_grad():
        before, after = (sae.encode_normalised(x, batch_rule=True).to_dense() for x in (u, longer))
    assert torch.equal(before > 0, after > 0)
    assert_close(after[::2], 100 * before[::2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_at_the_centre_has_nothing_to_say(dtype):
    sae = an_sae("mutual_choice", {"relative": True, "floor": 0.2})
    sae, u = sae.to(dtype), tokens().to(dtype)
    u[3] = sae.b_dec.detach()
    u[5] = sae.b_dec.detach() * (1 + 1e-8)
    measure_thresholds(sae, [sae.denormalise(u)])
    for batch_rule in (False, True):
        codes = sae.encode_normalised(u, batch_rule)
        assert codes.values.isfinite().all() and len(codes) > 0 and not codes.l0()[[3, 5]].any()
    assert sae.bids(u, torch.bfloat16).isfinite().all()


@every_kind
def test_gradients_are_those_of_affinities(rule, more):
    sae, u = an_sae(rule, more), tokens()
    codes = sae.encode_normalised(u, batch_rule=True)
    codes.values.square().sum().backward()
    z = sae.preactivations(u)
    chosen = torch.zeros_like(z, dtype=torch.bool)
    chosen[codes.tokens, codes.features] = True
    [expected] = torch.autograd.grad(z[chosen].square().sum(), [sae.W_enc])
    assert_close(sae.W_enc.grad, expected, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------- files


@every_kind
def test_round_trips(rule, more, tmp_path):
    sae = an_sae(rule, more)
    x = 1 + 3 * tokens()
    loaded = load_sae(save_sae(sae, tmp_path / "exact"))
    assert loaded.config == sae.config and torch.equal(loaded(x), sae(x))
    assert all(torch.equal(a, b) for a, b in zip(sae.state_dict().values(), loaded.state_dict().values()))
    lean = load_sae(save_sae(sae, tmp_path / "lean", exact=False))
    for other in (folded(sae), lean):
        assert torch.equal(other.encode(x).to_dense() > 0, sae.encode(x).to_dense() > 0)
        assert_close(other(x), sae(x), rtol=1e-4, atol=1e-4)
    pack(sae, tmp_path / "packed")
    assert unpack(tmp_path / "packed").config == replace_b_dec(sae.config)


def replace_b_dec(config):
    return SAEConfig(**vars(config) | {"b_dec": True, "tied": False})


@pytest.mark.parametrize("format", ["saelens", "dictionary_learning", "sparsify"])
@every_kind
def test_other_libraries_hold_floors_as_thresholds_and_refuse_lengths(rule, more, format, tmp_path):
    sae = an_sae(rule, more)
    x = 1 + 3 * tokens()
    if sae.config.relative or format == "sparsify":
        with pytest.raises(ValueError, match="token's length|sparsify can express"):
            save_sae(sae, tmp_path / "sae", format=format)
        assert not (tmp_path / "sae").exists()
        return
    loaded = load_sae(save_sae(sae, tmp_path / "sae", format=format))
    assert loaded.config.rule == "jumprelu" and not loaded.config.floor
    assert_close(loaded.encode(x).to_dense(), sae.encode(x).to_dense(), rtol=1e-4, atol=1e-4)


def test_a_folder_of_ours_does_not_pass_for_another_sae(tmp_path):
    """SAELens would read our relative SAE as one that chooses by affinities: the file names what it is."""
    save_sae(an_sae("mutual_choice", {"relative": True}), tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "relative_jumprelu"


def test_files_of_before_have_neither(tmp_path):
    sae = make("mutual_choice")
    save_sae(sae, tmp_path)
    ours = json.loads((tmp_path / "sae_tutorial.json").read_text())
    for name in ("relative", "floor", "floor_shape"):
        del ours["config"][name]
    ours["format"] = WITHOUT_CHECKSUMS
    (tmp_path / "sae_tutorial.json").write_text(json.dumps(ours))
    assert load_sae(tmp_path).config == sae.config


def test_a_subsidy_below_1_is_named(tmp_path):
    sae = an_sae("mutual_choice", {"floor": 0.2})
    sae.subsidy[3] = 0.5
    with pytest.raises(ValueError, match="subsidy must be 1 or more, its least is 0.5"):
        save_sae(sae, tmp_path)
    sae.subsidy[3] = torch.nan
    with pytest.raises(ValueError, match="subsidy holds NaN"):
        save_sae(sae, tmp_path)


def test_another_rule_forgets_them():
    sae = an_sae("mutual_choice", {"relative": True, "floor": 0.2})
    other = with_rule(sae, "token_choice", relative=False, floor=0.0)
    assert "subsidy" not in other.state_dict() and torch.equal(other.W_dec, sae.W_dec)
    back = with_rule(other, "mutual_choice", floor=0.1)
    assert torch.equal(back.subsidy, torch.ones(sae.config.d_sae))
    assert torch.equal(copy.deepcopy(sae).subsidy, sae.subsidy)


@pytest.mark.parametrize(
    "rule, fields, words",
    [
        ("token_choice", {"relative": True}, "relative=True compares tokens of a batch.*rule='token_choice'"),
        ("relu", {"relative": True}, "relative=True"),
        ("mutual_choice", {"relative": True, "d_out": 8}, "a transcoder, which measures from no b_dec"),
        ("feature_choice", {"floor": 0.1}, "floor=0.1 is for mutual_choice and matryoshka, not for 'feature_choice'"),
        ("mutual_choice", {"floor": 1.0}, "floor must be"),
        ("mutual_choice", {"floor": -0.1}, "floor must be"),
        ("mutual_choice", {"floor": float("nan")}, "floor must be"),
        ("mutual_choice", {"floor_shape": "zipf"}, "floor_shape='zipf' shapes a floor, and floor is 0"),
        ("mutual_choice", {"floor": 0.1, "floor_shape": "round"}, "floor_shape must be one of uniform, zipf"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(rule, fields, words):
    with pytest.raises(ValueError, match=words):
        SAEConfig(8, 64, rule, k=None if rule == "relu" else 4, **fields)
    with pytest.raises(TypeError, match="relative must be True or False"):
        SAEConfig(8, 64, "mutual_choice", k=4, relative="yes")


def test_bids_of_plain_rules_are_affinities():
    for rule in ("mutual_choice", "relu", "gated"):
        sae, u = make(rule), randn(40, 8)
        codes = sae.encode_normalised(u)
        assert torch.equal(sae.bids(u), sae.preactivations(u))
        assert sae.to_bids(u, codes) is codes is sae.from_bids(u, codes)
    assert isinstance(SparseAutoencoder(SAEConfig(8, 64, "mutual_choice", k=4, floor=0.1)).subsidy, torch.Tensor)
