"""Rules that compare z + β·z·|W_dec g|: against a dense oracle, against Token Choice where β is 0, with a planted
direction that only gradients know, at inference, in training and in files."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make, randn, store_and_held_out
from torch.testing import assert_close

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, allocation, load_sae, save_sae, train
from sae_tutorial.activations import memory
from sae_tutorial.allocation import fast, rules
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.rescaling import folded, unit_decoder_
from sae_tutorial.autoencoder.thresholds import measure_thresholds, scale_thresholds_
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import unit_rows_, with_rule
from sae_tutorial.training.step import Trainee

KINDS = [
    ("gradient_choice", {}),
    ("gradient_choice", {"beta": 4.0, "tied": True}),
    ("mutual_choice", {"beta": 0.5}),
    ("mutual_choice", {"beta": 2.0, "relative": True, "floor": 0.2}),
    ("matryoshka", {"beta": 1.0}),
    ("feature_choice", {"beta": 1.0}),
    ("gradient_choice", {"d_out": 5}),
]
every_kind = pytest.mark.parametrize("rule, more", KINDS, ids=str)
SHORT = dict(steps=12, batch_size=128, progress=False)


def an_sae(rule, more, **sizes):
    sae = make(rule, **sizes, **more)
    if sae.config.floor:
        sae.subsidy.copy_(1 + 19 * torch.rand(sae.config.d_sae, generator=torch.Generator().manual_seed(5)) ** 4)
    return sae


def inputs(sae, n=40, seed=2):
    """Tokens, and gradients of every length, in the units inside."""
    u = randn(n, sae.config.d_in, seed=seed)
    return u, randn(n, sae.config.width_out, seed=seed + 100) * torch.exp(randn(n, 1, seed=seed + 200))


def oracle(sae, u, g):
    """The matches of a batch, with affinities as values, from whole tables and full sorts, as the formula stands."""
    z = sae.preactivations(u).detach()
    bids = z * sae.nearness(u)[:, None] if sae.config.relative else z
    bids = bids * sae.subsidy if sae.config.floor else bids
    score = bids + sae.config.gradient_weight * bids * (g @ sae.W_dec.detach().T).abs()
    if sae.config.how.owner == "token":
        chosen = rules.token_choice(score, sae.config.n_matches(1))
    elif sae.config.how.owner == "feature":
        chosen = rules.feature_choice(score, sae.capacity(len(u)))
    else:
        chosen = rules.mutual_choice(score, sae.config.n_matches(len(u)))
    return (chosen.to_dense() > 0) * z


# ---------------------------------------------------------------------- the choice


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 60),
    d_in=st.integers(1, 40),
    seed=st.integers(0, 1000),
    double=st.booleans(),
    quiet=st.sampled_from([0.0, -2.0, -8.0]),
)
def test_property_matches_are_the_oracles(kind, n, d_in, seed, double, quiet):
    """Whether half of all affinities are positive, or few, or none."""
    sae = an_sae(*kind, d_in=d_in)
    sae.b_enc.data += quiet
    sae = sae.double() if double else sae
    u, g = (t.to(sae.W_dec) for t in inputs(sae, n, seed))
    with torch.no_grad():
        found = sae.encode_normalised(u, True, g)
        listed = sae.from_bids(u, matching.match(sae, u, gradients=g))
    for codes in (found, listed):
        assert_close(codes.to_dense(), oracle(sae, u, g), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rare", [0.0, 1.1])
@every_kind
def test_ties_go_to_the_lowest_token_and_feature(rule, more, rare, monkeypatch):
    """Whole numbers, nearly all of them ties, from a table of scores or from a list."""
    monkeypatch.setattr(matching, "RARE", rare)
    sae = an_sae(rule, more)
    if sae.config.relative:
        pytest.skip("lengths are no whole numbers")
    with torch.no_grad():
        for p in (sae.W_enc, sae.b_enc, sae.b_dec, sae.W_dec):
            p.copy_((2 * p).round())
    u, g = (t.round() for t in inputs(sae))
    codes = sae.from_bids(u, matching.match(sae, u, gradients=g))
    assert torch.equal(codes.to_dense(), oracle(sae, u, g))


@every_kind
@pytest.mark.parametrize("at_once", [1, 64 * 7, 64 * 100])
def test_blocks_equal_the_whole(rule, more, at_once, monkeypatch):
    sae = an_sae(rule, more)
    u, g = inputs(sae)
    expected = oracle(sae, u, g)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * at_once)
    assert_close(sae.from_bids(u, matching.match(sae, u, gradients=g)).to_dense(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quiet", [0.0, -1.9])
@every_kind
def test_rounded_scores_nominate_and_exact_ones_decide(rule, more, quiet):
    sae = an_sae(rule, more, d_sae=256)
    sae.b_enc.data += quiet
    u, g = inputs(sae, 200)
    exact = oracle(sae, u, g)
    found = sae.from_bids(u, matching.match(sae, u, gradients=g, dtype=torch.bfloat16))
    assert found.values.dtype == torch.float32
    assert abs(len(found) - int((exact > 0).sum())) <= 3, "what is hardly positive may round to nothing"
    assert ((found.to_dense() > 0) == (exact > 0)).float().mean() > 0.9995
    same = (found.to_dense() > 0) & (exact > 0)
    assert_close(found.to_dense()[same], exact[same], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [rules, fast], ids=["rules", "fast"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(0, 14), beta=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
def test_the_rule_is_token_choice_of_scores_and_keeps_affinities(module, seed, k, beta):
    generator = torch.Generator().manual_seed(seed)
    z, t = (torch.randint(-3, 4, (9, 12), generator=generator).double() for _ in range(2))
    expected = rules.token_choice(z * (1 + beta * t.abs()), k).to_dense() > 0
    found = module.gradient_choice(z, t, k, beta)
    assert torch.equal(found.to_dense(), expected * z)
    if beta == 0:
        plain = module.token_choice(z, k)
        assert torch.equal(found.values, plain.values) and torch.equal(found.features, plain.features)


def test_the_rule_lets_gradients_through_and_names_what_is_no_number():
    z, t = randn(5, 8).requires_grad_(), randn(5, 8, seed=1)
    allocation.gradient_choice(z, t, 3).values.sum().backward()
    assert torch.equal(z.grad > 0, allocation.gradient_choice(z.detach(), t, 3).to_dense() > 0)
    t[2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"affinities\[2, 3\] is nan"):
        allocation.gradient_choice(z.detach().abs() + 1, t, 3)


def test_a_direction_that_the_loss_listens_to_is_chosen_however_weak():
    """Feature 0 is the weakest of ten, and the gradient points along it alone."""
    sae = SparseAutoencoder(SAEConfig(16, 16, "gradient_choice", k=3, beta=10.0))
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(16))
        sae.W_enc.copy_(torch.eye(16))
    sae.gradient_scale.fill_(1.0)
    x, g = torch.zeros(4, 16), torch.zeros(4, 16)
    x[:, :10] = torch.arange(1.0, 11.0) + 10
    g[1:, 0] = torch.tensor([1.0, -1.0, 0.01])
    chosen = sae.encode(x, batch_rule=True, gradients=g).to_dense()
    assert [row.nonzero()[:, 0].tolist() for row in chosen] == [[7, 8, 9], [0, 8, 9], [0, 8, 9], [7, 8, 9]]
    assert torch.equal(chosen[1:3, 0], x[1:3, 0]), "values are affinities, not scores"
    plain = with_rule(sae, "token_choice", beta=None)
    assert [row.nonzero()[:, 0].tolist() for row in plain.encode(x).to_dense()] == [[7, 8, 9]] * 4


def test_the_choice_of_training_needs_gradients_and_says_so():
    sae = make("gradient_choice")
    x = randn(5, 8)
    with pytest.raises(ValueError, match="gradient_choice SAE looks at gradients of the loss: give gradients=…"):
        sae.encode(x, batch_rule=True)
    for other, batch_rule in ((sae, False), (make("mutual_choice"), True)):
        with pytest.raises(ValueError, match="gradients are for batch_rule=True and an SAE with a beta"):
            other.encode(x, batch_rule, gradients=x)
    with pytest.raises(ValueError, match=r"gradients must be \(tokens, 8\), a row for each token, got \(5, 7\)"):
        sae.encode(x, batch_rule=True, gradients=x[:, 1:])
    with pytest.raises(ValueError, match=r"gradients\[1, 2\] is inf: gradients must be finite"):
        sae.encode(
            x, batch_rule=True, gradients=x.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.inf))
        )
    with pytest.raises(ValueError, match="no unit of gradients yet; `train` takes it"):
        SparseAutoencoder(sae.config).encode(x, batch_rule=True, gradients=x)


# ---------------------------------------------------------------------- β = 0, and what the config says


def test_with_beta_0_training_is_token_choices_bit_for_bit():
    store, held_out, _ = store_and_held_out(n_tokens=2000)
    plain = SparseAutoencoder(SAEConfig(16, 48, "token_choice", k=3))
    without = SparseAutoencoder(SAEConfig(16, 48, "gradient_choice", k=3, beta=0))
    runs = [train(sae, ActivationStore.from_tensor(store.rows(slice(None))), **SHORT) for sae in (plain, without)]
    for (name, a), b in zip(plain.named_parameters(), without.parameters()):
        assert torch.equal(a, b), name
    assert (runs[0].metrics["loss"] == runs[1].metrics["loss"]).all()
    mine, its = without.encode(held_out, batch_rule=True), plain.encode(held_out)
    assert torch.equal(mine.values, its.values) and torch.equal(mine.features, its.features)
    assert "gradient_scale" not in without.state_dict()


def test_beta_is_a_setting_of_rules_with_a_budget_and_1_where_the_rule_is_named_for_it():
    def of(rule, **more):
        return SAEConfig(8, 64, rule, **({} if rule in ("relu", "gated", "jumprelu") else {"k": 4}) | more)

    weights = {rule: of(rule).gradient_weight for rule in ("gradient_choice", "token_choice", "mutual_choice", "relu")}
    assert weights == {"gradient_choice": 1, "token_choice": 0, "mutual_choice": 0, "relu": 0}
    assert of("mutual_choice").how.thresholds == "one" and of("mutual_choice", beta=1).how.thresholds == "each"
    with pytest.raises(
        ValueError, match="no meaning for rule='token_choice'; 'gradient_choice' is token_choice with it"
    ):
        of("token_choice", beta=1)
    for rule in ("relu", "gated", "jumprelu"):
        with pytest.raises(ValueError, match="beta=2 has no meaning for rule='.*'; leave it out"):
            of(rule, beta=2)
    with pytest.raises(ValueError, match="beta must be a finite number, 0 or more"):
        of("gradient_choice", beta=-1)
    with pytest.raises(ValueError, match="k must be a whole number for gradient_choice"):
        of("gradient_choice", k=2.5)


# ---------------------------------------------------------------------- training


@every_kind
def test_a_step_equals_dense_autograd_of_the_oracles_choice(rule, more):
    if rule == "matryoshka" or "d_out" in more:
        pytest.skip("losses of their own")
    sae = an_sae(rule, more)
    u, g = inputs(sae)
    losses = Trainee(sae, TrainSettings(encoder_dtype="float32"), variance=1.0).budget_losses(u, u, g)
    chosen = oracle(sae, u, g) > 0
    dense = ((sae.preactivations(u).relu() * chosen) @ sae.W_dec + sae.b_dec - u).square().mean()
    assert_close(losses.loss, dense)
    [mine] = torch.autograd.grad(losses.loss, [sae.W_dec])
    [theirs] = torch.autograd.grad(dense, [sae.W_dec])
    assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_training_looks_at_the_stores_gradients():
    """The same activations with other gradients make another SAE; a multiple of them makes the same."""
    x = store_and_held_out(n_tokens=2000)[0].rows(slice(None))
    g = randn(*x.shape, seed=9)
    saes = []
    for gradients in (g, 1024 * g, g.roll(1, 0)):
        saes.append(SparseAutoencoder(SAEConfig(16, 48, "gradient_choice", k=3)))
        train(saes[-1], ActivationStore.from_tensor(x, gradients=gradients), **SHORT)
    assert torch.equal(saes[0].W_dec, saes[1].W_dec) and not torch.equal(saes[0].W_dec, saes[2].W_dec)
    assert saes[1].gradient_scale == 1024 * saes[0].gradient_scale == pytest.approx(1024, rel=0.05)


def test_a_store_without_gradients_is_refused_with_the_fix():
    x = randn(500, 16)
    for rule, more in (("gradient_choice", {}), ("mutual_choice", {"beta": 0.5})):
        sae = SparseAutoencoder(SAEConfig(16, 48, rule, k=3, **more))
        with pytest.raises(
            ValueError, match=f"store has no gradients, by which rule='{rule}'.*harvest it with gradients=True"
        ):
            train(sae, ActivationStore.from_tensor(x), **SHORT)
        with pytest.raises(ValueError, match="gradients that are all equal"):
            train(sae, ActivationStore.from_tensor(x, gradients=torch.zeros_like(x)), **SHORT)
        assert sae.tokens_seen == 0


def test_a_transcoder_takes_the_gradients_of_what_it_predicts():
    x, y = randn(500, 16), randn(500, 5, seed=1)
    sae = SparseAutoencoder(SAEConfig(16, 48, "gradient_choice", k=3, d_out=5))
    with pytest.raises(ValueError, match="target_store has no gradients"):
        train(sae, ActivationStore.from_tensor(x), target_store=ActivationStore.from_tensor(y), **SHORT)
    target = ActivationStore.from_tensor(y, gradients=3 * y)
    train(sae, ActivationStore.from_tensor(x), target_store=target, **SHORT)
    assert sae.gradient_scale == pytest.approx(3, rel=0.1)


def test_features_of_another_rule_go_on_with_gradients():
    store, _, _ = store_and_held_out(n_tokens=2000)
    sae = SparseAutoencoder(SAEConfig(16, 48, "token_choice", k=3))
    train(sae, store, **SHORT)
    other = with_rule(sae, "gradient_choice", beta=2.0)
    train(other, store, **SHORT)
    assert other.gradient_scale == pytest.approx(store.gradients.scale)


# ---------------------------------------------------------------------- inference


@every_kind
def test_at_inference_each_feature_fires_as_often_as_in_training(rule, more):
    sae = an_sae(rule, more, d_sae=32)
    pairs = [(u * sae.scale + sae.mean, g * sae.gradient_scale) for u, g in (inputs(sae, 300, i) for i in range(4))]
    measure_thresholds(sae, iter(pairs))
    assert sae.threshold.shape == (32,)
    trained = [sae.encode(x, batch_rule=True, gradients=g) for x, g in pairs]
    counts = [
        sum(c.features.bincount(minlength=32) for c in codes) for codes in (trained, [sae.encode(x) for x, _ in pairs])
    ]
    # A feature that has not as many positive affinities in a batch as its capacity allows has them in others.
    assert_close(counts[0], counts[1], rtol=0.05 if rule == "feature_choice" else 0, atol=0)
    whole, few = sae.encode(pairs[0][0]), sae.encode(pairs[0][0][7:9])
    assert_close(few.to_dense(), whole.to_dense()[7:9])


def test_thresholds_want_pairs_and_scale_without_them():
    sae = an_sae("gradient_choice", {})
    x = randn(300, 8)
    with pytest.raises(
        ValueError, match=r"batches\[0\] has no gradients, by which this gradient_choice SAE chooses: give pairs"
    ):
        measure_thresholds(sae, [x])
    measure_thresholds(sae, [(x, randn(300, 8, seed=4))])
    scale_thresholds_(sae, [x], 2.0)
    assert len(sae.encode(x)) == pytest.approx(600, abs=2)


def test_a_feature_that_the_loss_listens_to_gets_a_low_threshold():
    """Two features of equal strength; gradients lie along the first."""
    sae = SparseAutoencoder(SAEConfig(8, 8, "gradient_choice", k=1, beta=5.0))
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(8))
        sae.W_enc.copy_(torch.eye(8))
    sae.gradient_scale.fill_(1.0)
    x = torch.zeros(2000, 8)
    x[:, :2] = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) + 0.01
    g = torch.zeros(2000, 8)
    g[:, 0] = 1
    measure_thresholds(sae, [(x, g)])
    assert sae.threshold[0] < 0.2 < 0.8 < sae.threshold[1]


# ---------------------------------------------------------------------- files


@every_kind
def test_round_trips(rule, more, tmp_path):
    sae = an_sae(rule, more)
    x, g = randn(40, 8), randn(40, sae.config.width_out, seed=1)
    loaded = load_sae(save_sae(sae, tmp_path / "exact"))
    assert loaded.config == sae.config and torch.equal(loaded(x), sae(x))
    assert all(torch.equal(a, b) for a, b in zip(sae.state_dict().values(), loaded.state_dict().values()))
    lean = load_sae(save_sae(sae, tmp_path / "lean", exact=False))
    for other in (folded(sae), lean):
        for options in ({}, {"batch_rule": True, "gradients": g}):
            assert torch.equal(other.encode(x, **options).to_dense() > 0, sae.encode(x, **options).to_dense() > 0)
        assert_close(other(x), sae(x), rtol=1e-4, atol=1e-4)
    sae.gradient_scale.zero_()
    with pytest.raises(ValueError, match="gradient_scale must not be 0"):
        save_sae(sae, tmp_path / "exact")


def test_equal_rows_of_another_norm_make_the_same_choices():
    for rescale in (unit_rows_, unit_decoder_):
        sae = an_sae("gradient_choice", {"b_dec": False})
        x, g = randn(40, 8), randn(40, 8, seed=1)
        with torch.no_grad():
            sae.W_dec.mul_(8.0)
        before = sae.encode(x, batch_rule=True, gradients=g)
        rescale(sae)
        assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
        after = sae.encode(x, batch_rule=True, gradients=g)
        assert torch.equal(before.features, after.features)
        assert_close(after.values, 8 * before.values)


@pytest.mark.parametrize("format", ["saelens", "dictionary_learning", "sparsify"])
@every_kind
def test_other_libraries_hold_the_thresholds_of_each_feature_or_refuse_by_name(rule, more, format, tmp_path):
    sae = an_sae(rule, more)
    if format == "sparsify" or sae.config.relative or (format == "dictionary_learning" and sae.config.is_transcoder):
        with pytest.raises(ValueError, match=f"rule='{rule}'|token's length|no transcoders"):
            save_sae(sae, tmp_path, format=format)
        return
    loaded = load_sae(save_sae(sae, tmp_path, format=format))
    assert loaded.config.rule == "jumprelu"
    x = randn(40, 8)
    assert_close(loaded.encode(x).to_dense(), sae.encode(x).to_dense(), rtol=1e-4, atol=1e-4)
