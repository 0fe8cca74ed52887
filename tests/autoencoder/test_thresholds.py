"""Inference thresholds let in, on held-out tokens, what the rule of batches lets in during training."""

import pytest
import torch
from synthetic import make, superposed

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, train
from sae_tutorial.autoencoder.thresholds import measure_thresholds, scale_thresholds_


def untrained(rule, **more):
    sae = SparseAutoencoder(SAEConfig(16, 64, rule, 3, **more))
    with torch.no_grad():
        sae.b_enc.copy_(0.3 * torch.randn(64, generator=torch.Generator().manual_seed(5)))
    return sae


@pytest.mark.parametrize("rule", ["mutual_choice", "matryoshka"])
def test_one_threshold_equals_the_quantile_of_all_affinities(rule):
    sae, (x, _) = untrained(rule), superposed(4096)
    measure_thresholds(sae, x.split(512))
    assert (sae.affinities(x) > sae.threshold).sum() == 3 * 4096
    assert len(sae.encode(x)) == 3 * 4096


@pytest.mark.parametrize("capacity", ["uniform", "zipf"])
def test_thresholds_of_features_equal_the_quantiles_of_their_affinities(capacity):
    sae, (x, _) = untrained("feature_choice", capacity=capacity), superposed(4096)
    measure_thresholds(sae, x.split(512))
    positive = (sae.affinities(x) > 0).sum(0)
    counts = (sae.affinities(x) > sae.threshold).sum(0)
    assert torch.equal(counts, torch.minimum(8 * sae.capacity(512), positive))


def test_rare_features_get_their_share_on_held_out_tokens():
    """One token per batch and feature: the mean over batches of the weakest match would let in about half of that."""
    sae = SparseAutoencoder(SAEConfig(16, 64, "feature_choice", k=0.25, capacity="uniform"))
    x = torch.randn(96 * 256, 16, generator=torch.Generator().manual_seed(0))
    assert set(sae.capacity(256).tolist()) == {1}
    measure_thresholds(sae, x[: 64 * 256].split(256))
    assert len(sae.encode(x[64 * 256 :])) == pytest.approx(32 * 64, rel=0.1)  # 2048 expected, give or take 55
    naive = torch.stack([sae.affinities(part).amax(0) for part in x[: 64 * 256].split(256)]).mean(0)
    sae.threshold.copy_(naive)
    assert len(sae.encode(x[64 * 256 :])) < 0.75 * 32 * 64


def test_budgets_below_one_per_feature_rotate():
    """64 features share 16 matches per batch; over 32 batches every feature has had its turn."""
    sae = SparseAutoencoder(SAEConfig(16, 64, "feature_choice", k=0.125))
    x = torch.randn(64 * 128, 16, generator=torch.Generator().manual_seed(0))
    measure_thresholds(sae, x.split(128))
    counts = (sae.affinities(x) > sae.threshold).sum(0)
    assert counts.sum() == 64 * 16 and counts.min() >= 1


def test_every_feature_gets_a_threshold_however_short_its_turns_are():
    """64 features share one match per batch: it takes 512 batches until each has had its share."""
    x, _ = superposed(12_000)
    sae = SparseAutoencoder(SAEConfig(16, 64, "feature_choice", k=1 / 8))
    run = train(sae, ActivationStore.from_tensor(x[:8000]), steps=100, batch_size=8, progress=False)
    assert sae.threshold[run.density > 0].isfinite().all()
    assert len(sae.encode(x[:8000])) / 8000 == pytest.approx(1 / 8, rel=0.1)
    assert len(sae.encode(x[8000:])) / 4000 == pytest.approx(1 / 8, rel=0.15)  # 500 expected, give or take 30


def test_fewer_batches_than_a_rotation_leave_nobody_out():
    sae = SparseAutoencoder(SAEConfig(16, 64, "feature_choice", k=0.125))
    measure_thresholds(sae, superposed(256)[0].split(128))
    assert sae.threshold.isfinite().all()


@pytest.mark.parametrize("rule", ["mutual_choice", "feature_choice"])
def test_equal_affinities_stay_together_near_the_budget(rule):
    """Activations of 40 kinds, so that hundreds of affinities are equal at every cut."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.multinomial(1 / torch.arange(1.0, 41), 6000, replacement=True, generator=generator)
    x = torch.randn(40, 16, generator=generator)[kinds]
    sae = SparseAutoencoder(SAEConfig(16, 64, rule, 4))
    train(sae, ActivationStore.from_tensor(x[:4000]), steps=100, batch_size=256, progress=False)
    assert len(sae.encode(x[4000:])) / 2000 == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("rule", ["mutual_choice", "feature_choice"])
def test_batches_may_differ(rule):
    """All matches are in the last batch, far more than its own budget."""
    sae, (x, _) = SparseAutoencoder(SAEConfig(16, 64, rule, 2, capacity="uniform")), superposed(64)
    batches = [torch.zeros(64, 16)] * 6 + [x]
    measure_thresholds(sae, iter(batches))
    positive = (sae.affinities(x) > 0).sum(0)
    wanted = torch.minimum(7 * sae.capacity(64), positive).sum() if rule == "feature_choice" else 7 * 128
    assert len(sae.encode(torch.cat(batches))) == wanted


def test_other_rules_are_left_alone_and_no_batches_is_an_error():
    sae = SparseAutoencoder(SAEConfig(16, 64, "token_choice", 3))
    assert measure_thresholds(sae, []).threshold == 0
    with pytest.raises(ValueError, match="batches is empty"):
        measure_thresholds(untrained("mutual_choice"), [])


@pytest.mark.parametrize("rule", ["mutual_choice", "feature_choice"])
def test_batches_without_tokens_set_nothing(rule):
    sae, (x, _) = untrained(rule), superposed(256)
    for batches, place in (([x[:0]], 0), ([x, x[:0]], 1), (iter([x[:0], x]), 0)):
        with pytest.raises(ValueError, match=rf"batches\[{place}\] has no tokens"):
            measure_thresholds(sae, batches)
        assert (sae.threshold < 0).all()
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        measure_thresholds(sae, [x.tolist()])


@pytest.mark.parametrize("rule", ["mutual_choice", "matryoshka", "feature_choice", "jumprelu"])
@pytest.mark.parametrize("l0", [0.5, 3, 6.5])
def test_one_factor_gives_any_l0_and_keeps_the_proportions(rule, l0):
    sae, (x, _) = make(rule, d_in=16), superposed(3000)
    before = sae.threshold.detach().clone()
    factor = scale_thresholds_(sae, iter(x.split(700)), l0)
    assert len(sae.encode(x)) == round(l0 * 3000)
    torch.testing.assert_close(sae.threshold.detach(), before * factor)


def test_relative_bids_are_scaled_too():
    sae, (x, _) = make("mutual_choice", d_in=16, relative=True, floor=0.1), superposed(3000)
    sae.subsidy.copy_(torch.linspace(1, 5, 64))
    scale_thresholds_(sae, x.split(700), 5)
    assert len(sae.encode(x)) == 5 * 3000


def test_what_cannot_be_scaled_is_said():
    x = superposed(500)[0]
    for sae in (make("token_choice", d_in=16), make("relu", d_in=16), untrained("mutual_choice")):
        with pytest.raises(ValueError, match="no thresholds to scale"):
            scale_thresholds_(sae, [x], 3)
    sae = make("feature_choice", d_in=16)
    with pytest.raises(ValueError, match="batches is empty"):
        scale_thresholds_(sae, [], 3)
    sae.threshold.mul_(1e-8)  # small, but there
    scale_thresholds_(sae, [x], 3)
    assert len(sae.encode(x)) == 1500
    with pytest.raises(ValueError, match="l0=60 is out of reach"):
        scale_thresholds_(sae, [x], 60)
    sae.threshold[:60] = torch.inf  # these stay out
    with pytest.raises(ValueError, match="l0=5 is out of reach"):
        scale_thresholds_(sae, [x], 5)
    sae.threshold[:] = 0.0  # and these stay in
    with pytest.raises(ValueError, match="l0=3 is out of reach"):
        scale_thresholds_(sae, [x], 3)
