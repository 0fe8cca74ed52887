"""The start: a geometric median that shrugs at outliers, and reconstructions as long as the input."""

import pytest
import torch
from synthetic import make, store_and_held_out, superposed
from torch.testing import assert_close

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, TrainSettings, train
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.training.loop import prepared
from sae_tutorial.training.start import geometric_median, start_, unit_rows_, with_rule


def test_geometric_median_minimises_the_summed_distance():
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    points[:20] += 100
    median = geometric_median(points, tolerance=1e-12)
    assert median.norm() < 0.5 and points.mean(0).norm() > 10
    toward = (points - median) / (points - median).norm(dim=1, keepdim=True)
    assert toward.sum(0).norm() < 1e-3  # the pulls cancel


def test_geometric_median_survives_equal_points():
    assert torch.equal(geometric_median(torch.ones(5, 2)), torch.ones(2))
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert geometric_median(points).norm() < 1e-2


@torch.no_grad()
@pytest.mark.parametrize("rule, k", [("token_choice", 3), ("mutual_choice", 3), ("feature_choice", 3), ("relu", None)])
def test_first_reconstructions_are_as_long_as_the_input(rule, k):
    x, _ = superposed(1000)
    sae = SparseAutoencoder(SAEConfig(16, 64, rule, k))
    sae.mean.copy_(x.mean(0))
    start_(sae, x)
    u = sae.normalise(x)
    part = sae.encode_normalised(u, batch_rule=True) @ sae.W_dec
    assert part.norm(dim=1).mean() == pytest.approx(float((u - sae.b_dec).norm(dim=1).mean()), rel=1e-2)
    torch.testing.assert_close(sae.b_dec.detach(), geometric_median(u))
    cosine = torch.nn.functional.cosine_similarity(sae.W_enc.T, sae.W_dec, dim=1)
    torch.testing.assert_close(cosine, torch.ones(64))  # encoder = decoderᵀ


@torch.no_grad()
def test_transcoders_start_small_and_tied_ones_keep_unit_rows():
    x, _ = superposed(1000)
    transcoder = SparseAutoencoder(SAEConfig(16, 64, "token_choice", 3, d_out=6))
    y = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)) + 2
    start_(transcoder, x, y)
    part = (transcoder.encode(x) @ transcoder.W_dec).norm(dim=1).mean()
    assert part == pytest.approx(0.1 * float((y - transcoder.b_dec).norm(dim=1).mean()), rel=0.01)
    tied = start_(SparseAutoencoder(SAEConfig(16, 64, "relu", tied=True)), x)
    torch.testing.assert_close(tied.W_dec.norm(dim=1), torch.ones(64))


@pytest.fixture(scope="module")
def store():
    generator = torch.Generator().manual_seed(0)
    return ActivationStore.from_tensor(
        torch.randn(600, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    )


@pytest.fixture(scope="module")
def first(store):
    sae = SparseAutoencoder(SAEConfig(8, 24, "mutual_choice", k=4))
    return train(sae, store, steps=20, batch_size=64, decay=0.0, progress=False)


def test_the_features_stay_and_the_densest_comes_first(first):
    sae = with_rule(first.sae, "feature_choice", first.density)
    x = torch.randn(30, 8)
    assert_close(sae.affinities(x), first.sae.affinities(x))
    assert sae.rank[first.density.argmax()] == 0 and sorted(sae.rank.tolist()) == list(range(24))
    assert sae.config.rule == "feature_choice" and first.sae.config.rule == "mutual_choice"
    with pytest.raises(ValueError, match="no inference threshold yet"):
        sae.encode(x)


def test_the_copy_shares_nothing_with_the_original(first):
    sae = with_rule(first.sae, "mutual_choice")
    before = first.sae.W_dec.clone()
    with torch.no_grad():
        sae.W_dec.zero_()
    assert torch.equal(first.sae.W_dec, before)


def test_it_trains_on_from_there(first, store):
    again = with_rule(first.sae, "feature_choice", first.density)
    run = train(again, store, steps=20, batch_size=64, progress=False)
    assert run.metrics["fvu"][0] < first.metrics["fvu"][0] and again.tokens_seen == 40 * 64
    assert (again.threshold >= 0).all()


def test_says_what_is_wrong(first):
    with pytest.raises(ValueError, match=r"density must be \(24,\)"):
        with_rule(first.sae, "feature_choice")
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        with_rule(first.sae, "feature_choice", torch.ones(3))
    with pytest.raises(ValueError, match=r"has other weights than 'mutual_choice' \(W_dec, W_enc, b_enc\): start anew"):
        with_rule(first.sae, "token_choice", d_sae=12)
    with pytest.raises(ValueError, match=r"rule='gated' has other weights than 'mutual_choice' \(b_mag, r_mag\)"):
        with_rule(first.sae, "gated", k=None)
    assert with_rule(make("token_choice", d_sae=24), "mutual_choice").config.rule == "mutual_choice"


def imported(rule, seed=0, **more):
    """An SAE as another library may have trained it: rows of any norm, no mean, no scale."""
    sae = make(rule, d_in=16, d_sae=256, **more)
    with torch.no_grad():
        sae.W_dec.mul_(0.05 * (60 ** torch.rand(256, 1, generator=torch.Generator().manual_seed(seed))))
        sae.mean.zero_()
        sae.scale.fill_(1)
        sae.tokens_seen.fill_(1)
    return sae


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"tied": True}], ids=str)
@pytest.mark.parametrize("rule", BUDGET_RULES + PENALTY_RULES)
def test_training_begins_with_the_function_that_there_is(rule, more):
    """Whatever the norms of its decoder rows: not one match changes, in training or at inference."""
    store, x, _ = store_and_held_out()
    for seed in range(3):
        sae, before = imported(rule, seed, **more), imported(rule, seed, **more)
        trainee = prepared(sae, TrainSettings(encoder_dtype="float32"), store, None)
        gradients = x.mean(0) - x if sae.config.gradient_weight else None
        for batch_rule in (True, False):
            more_of_training = {"gradients": gradients} if batch_rule else {}
            new, old = (one.encode(x, batch_rule=batch_rule, **more_of_training) for one in (sae, before))
            assert len(old) > 0 and torch.equal(new.tokens, old.tokens) and torch.equal(new.features, old.features)
            assert_close(sae.decode(new), before.decode(old), rtol=1e-4, atol=1e-4)
        if rule in BUDGET_RULES:
            chosen = trainee.choose(x, None if gradients is None else sae.in_units(gradients))[1].features
            assert torch.equal(chosen, before.encode(x, batch_rule=True, gradients=gradients).features)
        if rule not in ("token_choice", "gradient_choice", "mutual_choice", "matryoshka") and not more:
            assert_close(sae.W_dec.norm(dim=1), torch.ones(256))
        else:
            ratio = sae.W_dec / before.W_dec
            assert ratio.unique().numel() == 1 and float(ratio[0, 0].log2()) == round(float(ratio[0, 0].log2()))
            assert more or 0.7 < sae.W_dec.norm(dim=1).mean() < 1.42


@pytest.mark.parametrize("rule", ["token_choice", "mutual_choice", "matryoshka", "relu"])
def test_rows_keep_the_norms_that_they_begin_with(rule):
    store, x, _ = store_and_held_out()
    sae = imported(rule, tied=rule == "relu")
    before = sae.W_dec.detach().clone()
    train(sae, store, steps=20, batch_size=256, progress=False)
    ratio = sae.W_dec.norm(dim=1) / before.norm(dim=1)
    assert_close(ratio, ratio[:1].expand(256), rtol=1e-4, atol=0)
    assert torch.cosine_similarity(sae.W_dec, before).min() < 0.99, "they turn"


def test_a_decoder_of_zeros_is_left_alone_and_learns():
    sae = imported("token_choice")
    with torch.no_grad():
        sae.W_dec.zero_()
    unit_rows_(sae)
    assert not sae.W_dec.any()
    store, _, _ = store_and_held_out()
    train(sae, store, steps=3, batch_size=256, progress=False)
    norm = sae.W_dec.norm(dim=1)
    assert_close(norm[norm > 0], torch.ones(int((norm > 0).sum())))
    assert (norm > 0).any()


def test_another_rule_keeps_precision_and_what_is_frozen():
    sae = SparseAutoencoder(SAEConfig(8, 24, "token_choice", k=4)).double()
    sae.W_dec.requires_grad_(False)
    other = with_rule(sae, "mutual_choice")
    assert other.W_dec.dtype == torch.float64 and torch.equal(other.W_dec, sae.W_dec)
    assert not other.W_dec.requires_grad and other.W_enc.requires_grad
