"""SAEConfig says no in words, and SparseAutoencoder does the same to raw activations whichever way it is asked."""

import copy

import numpy as np
import pytest
import torch
from synthetic import make

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations import memory
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.rescaling import folded, unit_decoder_

RULES = BUDGET_RULES + PENALTY_RULES
VARIANTS = [{}, {"tied": True}, {"b_dec": False}, {"d_out": 5}, {"d_out": 5, "skip": True}]


def tokens(n=40, d_in=8):
    return 1 + 3 * torch.randn(n, d_in, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(d_in=0), "d_in must be a whole number"),
        (dict(d_sae=2.5), "d_sae must be a whole number"),
        (dict(d_out=-1), "d_out must be a whole number"),
        (dict(rule="topk"), "rule must be one of token_choice.*got 'topk'"),
        (dict(k=None), "needs k"),
        (dict(k=0), "k must be a finite number, greater than 0, got 0"),
        (dict(k=65), "k must be at most d_sae=64, got 65"),
        (dict(k="3"), "k must be a number, got '3'"),
        (dict(k=True), "k must be a number, got True"),
        (dict(rule="matryoshka", groups=(32.0, 32.0)), r"groups\[0\] must be a whole number, 1 or more, got 32.0"),
        (dict(rule="token_choice", k=2.5), "whole number for token_choice, got 2.5"),
        (dict(rule="relu"), "k=4 is a budget, but rule='relu' has none"),
        (dict(groups=(32, 32)), "groups are for rule='matryoshka'"),
        (dict(rule="matryoshka", groups=(32, 16)), r"sum to d_sae=64, got \(32, 16\)"),
        (dict(capacity="power"), "capacity must be one of uniform, zipf, fitted, got 'power'"),
        (dict(zipf_exponent=-1), "zipf_exponent must be a finite number, 0 or more, got -1"),
        (dict(zipf_offset=-1), "zipf_offset must be a finite number, greater than -1"),
        (dict(tied=True, d_out=5), "tied=True shares one matrix"),
        (dict(skip=True), "skip=True would let the input through"),
    ],
)
def test_config_says_what_is_wrong(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        SAEConfig(**{"d_in": 8, "d_sae": 64, "k": 4, **wrong})


def test_matryoshka_groups_have_a_default_and_take_lists():
    assert SAEConfig(8, 64, "matryoshka", 4).group_sizes == (2, 4, 8, 16, 34)
    assert SAEConfig(8, 64, "matryoshka", 4, groups=[16, 48]).group_sizes == (16, 48)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_encode_and_decode_equal_the_formulas(rule, more):
    sae, x = make(rule, **more), tokens()
    u = (x - sae.mean) / sae.scale
    centre = 0 if sae.config.is_transcoder else sae.b_dec
    pre = (u - centre) @ sae.W_enc + sae.b_enc
    if rule == "token_choice":
        dense = pre.relu() * (pre >= pre.topk(4, dim=1).values[:, -1:])
    elif rule == "gated":
        dense = ((pre - sae.b_enc) * sae.r_mag.exp() + sae.b_mag).relu() * (pre > 0)
    else:
        dense = pre.relu() * (pre > sae.threshold)
    codes = sae.encode(x)
    torch.testing.assert_close(codes.to_dense(), dense)
    x_hat = dense @ sae.W_dec + sae.b_dec
    scale, mean = (sae.out_scale, sae.out_mean) if sae.config.is_transcoder else (sae.scale, sae.mean)
    torch.testing.assert_close(sae.decode(codes), x_hat * scale + mean)
    if sae.config.skip:
        x_hat = x_hat + u @ sae.W_skip.T
    torch.testing.assert_close(sae(x), x_hat * scale + mean)
    torch.testing.assert_close(sae.affinities(x), pre.relu())


@pytest.mark.parametrize("rule", BUDGET_RULES)
def test_batch_rule_spends_the_budget(rule):
    sae = make(rule)
    gradients = tokens().flip(0) if sae.config.gradient_weight else None
    assert len(sae.encode(tokens(), batch_rule=True, gradients=gradients)) == 4 * 40


@pytest.mark.parametrize("rule", RULES)
def test_a_code_does_not_depend_on_its_neighbours(rule):
    sae, x = make(rule), tokens()
    torch.testing.assert_close(sae.encode(x).to_dense()[:7], sae.encode(x[:7]).to_dense())


def test_long_inputs_are_encoded_piece_by_piece(monkeypatch):
    sae, x = make("mutual_choice"), tokens()
    whole = sae.encode(x)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * 64 * 7)
    pieces = sae.encode(x)
    assert torch.equal(whole.tokens, pieces.tokens) and torch.equal(whole.features, pieces.features)
    torch.testing.assert_close(whole.values, pieces.values)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_encode_equal_dense_autograd(rule):
    sae, x = make(rule).double(), tokens().double().requires_grad_()
    codes = sae.encode(x)
    weights = torch.randn(len(codes), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (codes.values * weights).sum().backward()
    other, x_other = copy.deepcopy(sae), x.detach().clone().requires_grad_()
    other.zero_grad()
    pre = other.preactivations(other.normalise(x_other))
    dense = other.magnitudes(pre) if rule == "gated" else pre.relu()
    (dense[codes.tokens, codes.features] * weights).sum().backward()
    torch.testing.assert_close(x.grad, x_other.grad)
    for (name, p), q in zip(sae.named_parameters(), other.parameters()):
        if name not in ("W_dec", "threshold"):
            torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_folded_and_rescaled_weights_are_the_same_function(rule, more):
    sae, x = make(rule, **more), tokens()
    raw = folded(sae)
    assert raw.scale == 1 and not raw.mean.any()
    torch.testing.assert_close(raw.encode(x).to_dense(), sae.encode(x).to_dense(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(raw(x), sae(x), atol=1e-4, rtol=1e-4)
    exact, precise = copy.deepcopy(sae).double(), folded(copy.deepcopy(sae).double())
    torch.testing.assert_close(precise(x.double()), exact(x.double()), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(precise.encode(x).to_dense(), exact.encode(x).to_dense(), atol=1e-12, rtol=1e-12)
    unit_decoder_(raw)
    torch.testing.assert_close(raw.W_dec.norm(dim=1), torch.ones(64))
    torch.testing.assert_close(raw(x), sae(x), atol=1e-4, rtol=1e-4)


def test_capacities_follow_ranks():
    sae = make("feature_choice")
    sae.rank.copy_(torch.arange(64).flip(0))
    capacity = sae.capacity(40)
    assert capacity.sum() == 160 and capacity.min() >= 1
    assert (capacity.diff() >= 0).all()  # the last feature has the first rank
    uniform = SparseAutoencoder(SAEConfig(8, 64, "feature_choice", 4, capacity="uniform"))
    assert set(uniform.capacity(40).tolist()) == {2, 3}


def test_leading_dimensions_and_other_dtypes():
    sae, x = make("mutual_choice"), tokens()
    torch.testing.assert_close(sae(x.view(4, 10, 8)), sae(x).view(4, 10, 8))
    torch.testing.assert_close(sae(x[0]), sae(x[:1])[0])
    assert sae(x.double()).dtype == torch.float32
    with pytest.raises(ValueError, match="flatten the positions first"):
        sae.encode(x.view(4, 10, 8))
    with pytest.raises(ValueError, match=r"x must be \(tokens, 8\), got shape \(40, 7\)"):
        sae.encode(x[:, :7])
    with pytest.raises(ValueError, match=r"x must be \(tokens, 8\), got shape"):
        sae(torch.tensor(1.0))


def test_nan_is_refused_by_name():
    sae, x = make("mutual_choice"), tokens()
    for value in (torch.nan, torch.inf, -torch.inf):
        x[3, 2] = value
        for asks in (sae, sae.encode):
            with pytest.raises(ValueError, match=rf"x\[3, 2\] is {value}"):
                asks(x)


@pytest.mark.parametrize("rule", ["mutual_choice", "matryoshka", "feature_choice"])
def test_an_unmeasured_threshold_is_an_error_not_a_relu(rule):
    sae = SparseAutoencoder(SAEConfig(8, 64, rule, 4))
    with pytest.raises(ValueError, match="no inference threshold yet"):
        sae.encode(tokens())
    assert len(sae.encode(tokens(), batch_rule=True)) == 160


def test_same_seed_same_weights_and_copies_are_whole():
    config = SAEConfig(8, 64, "gated")
    a, b, c = SparseAutoencoder(config, seed=3), SparseAutoencoder(config, seed=3), SparseAutoencoder(config, seed=4)
    assert torch.equal(a.W_dec, b.W_dec) and not torch.equal(a.W_dec, c.W_dec)
    assert a.W_enc.T.is_contiguous() and copy.deepcopy(a).W_enc.T.is_contiguous()  # the sparse products like it so
    sae = make("feature_choice")
    again = SparseAutoencoder(sae.config, seed=9)
    again.load_state_dict(sae.state_dict())
    torch.testing.assert_close(again(tokens()), sae(tokens()), rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [np.ones((3, 8), "float32"), [[1.0] * 8], None])
def test_what_is_no_tensor_is_named(wrong):
    sae = make("mutual_choice", d_out=5)
    for name, method in {
        "x": [sae, sae.encode, sae.affinities, sae.normalise],
        "y": [sae.normalise_target],
        "u": [sae.encode_normalised, sae.preactivations, sae.bids],
        "bids": [sae.allocate, sae.allocate_by_threshold],
    }.items():
        for one in method:
            with pytest.raises(
                TypeError, match=rf"^{name} must be a tensor, got \w+; convert it: torch.as_tensor\({name}\)"
            ):
                one(wrong)
    with pytest.raises(TypeError, match="codes must be SparseCodes, as encode returns them"):
        sae.decode(wrong)


def test_numbers_and_sizes_that_do_not_fit_are_named():
    sae, x = make("mutual_choice"), tokens()
    with pytest.raises(TypeError, match="x must hold real numbers, got torch.complex64"):
        sae.encode(x.to(torch.complex64))
    with pytest.raises(ValueError, match="codes have 24 features, this SAE has d_sae=64"):
        sae.decode(make("mutual_choice", d_sae=24).encode(x))
    for rule in ("mutual_choice", "feature_choice", "token_choice", "relu"):
        for allocate in (make(rule).allocate, make(rule).allocate_by_threshold):
            with pytest.raises(ValueError, match=r"bids must be \(tokens, 64\), got shape \(40, 24\)"):
                allocate(torch.rand(40, 24))
    with pytest.raises(ValueError, match=r"x\[0, 1\] is 1e\+300.*in the precision of the SAE, torch.float32"):
        sae.encode(torch.tensor([[0.0, 1e300] + [0.0] * 6], dtype=torch.float64))
    assert len(sae.encode(x[:0])) == 0


def test_it_says_whether_it_was_trained():
    sae = make("relu")
    assert not sae.started and "0 tokens seen" in repr(sae) and "elsewhere" not in repr(sae)
    sae.tokens_seen.fill_(1234)
    assert sae.started and "1,234 tokens seen" in repr(sae)
    other = make("relu")
    other.imported = True
    assert other.started and "trained elsewhere, 0 tokens seen" in repr(other)
    other.take_origin(sae)
    assert not other.imported
