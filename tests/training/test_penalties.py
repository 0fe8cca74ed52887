"""What rules without a budget pay: penalties, and how thresholds learn."""

import math

import pytest
import torch
from synthetic import gradients, make, randn, store_and_held_out

from sae_tutorial import SAEConfig, SparseAutoencoder, train
from sae_tutorial.autoencoder.config import PENALTY_RULES, RULES
from sae_tutorial.training import penalties
from sae_tutorial.training.settings import PENALTIES, TrainSettings


def test_l1_and_p_norm_agree_at_p_1_and_count_at_p_0():
    z = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)).relu()
    assert penalties.p_norm(z, 10, norm=2.0) == pytest.approx(float(z.sum() / 20))
    assert penalties.p_norm(z, 10, 1e-6) == pytest.approx(float((z > 0).sum() / 10), rel=1e-4)
    with pytest.raises(ValueError, match="p must be greater than 0"):
        penalties.p_norm(z, 10, 0.0)


def test_p_goes_down_in_stairs_and_excludes_its_end():
    stairs = [penalties.annealed_p(i / 100, p_end=0.0) for i in range(101)]
    assert stairs[0] == 1 and min(stairs) == pytest.approx(0.1)
    assert sorted(set(stairs), reverse=True) == pytest.approx([1 - i / 10 for i in range(10)])
    assert stairs == sorted(stairs, reverse=True)


def test_jumprelu_gradients_are_the_stated_ones():
    z = torch.tensor([[0.5, 0.96, 1.04, 2.0]], requires_grad=True)
    theta = torch.ones(4, requires_grad=True)
    out = penalties.jumprelu(z, theta, bandwidth=0.1)
    assert out.tolist() == [[0, 0, pytest.approx(1.04), 2.0]]
    out.sum().backward()
    assert z.grad.tolist() == [[0, 0, 1, 1]]
    assert theta.grad.tolist() == pytest.approx([0, -10, -10, 0])  # −θ/ε inside the window
    z.grad = theta.grad = None
    count = penalties.jumprelu_l0(z, theta, n_tokens=1, bandwidth=0.1)
    count.backward()
    assert count == 2 and z.grad is None
    assert theta.grad.tolist() == pytest.approx([0, -10, -10, 0])  # −1/ε


@pytest.mark.parametrize("rule", PENALTY_RULES)
def test_penalty_rules_are_the_same_on_a_table_and_on_a_list(rule, monkeypatch):
    sae, u = make(rule), randn(40, 8)
    with torch.no_grad():
        sae.b_enc -= 1.0  # few positive affinities, many of them near a threshold
    if rule == "gated":
        with torch.no_grad():
            sae.b_mag += 0.5
    settings = TrainSettings(l1=0.1, l0=0.1, bandwidth=0.2, penalty_warmup=0.0)
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(penalties, "SPARSE_BELOW", share)
        losses = penalties.PenaltyLosses(sae, settings, variance=1.0)(u, u, step=0)
        results.append((losses.loss.detach(), losses.density, gradients(sae, losses.loss)))
    (loss_a, density_a, dense), (loss_b, density_b, sparse) = results
    torch.testing.assert_close(loss_a, loss_b)
    torch.testing.assert_close(density_a, density_b)
    for name in dense:
        torch.testing.assert_close(dense[name], sparse[name], atol=1e-6, rtol=1e-4, msg=name)


def test_low_thresholds_are_the_same_on_a_table_and_on_a_list(monkeypatch):
    """Near a threshold of almost 0 lie affinities of 0, too; they fire on no side of it."""
    sae, u, gradient = make("jumprelu"), randn(40, 8), []
    with torch.no_grad():
        sae.threshold.fill_(1e-4)
    settings = TrainSettings(l0=0.1, bandwidth=0.2, penalty_warmup=0.0)
    for share in (0.0, 2.0):
        monkeypatch.setattr(penalties, "SPARSE_BELOW", share)
        losses = penalties.PenaltyLosses(sae, settings, variance=1.0)(u, u, step=0)
        gradient.append(gradients(sae, losses.loss)["threshold"])
    torch.testing.assert_close(*gradient, atol=1e-6, rtol=1e-4)


def test_relu_loss_is_the_fvu_plus_unitless_l1():
    sae, u = make("relu"), randn(40, 8)
    losses = penalties.PenaltyLosses(sae, TrainSettings(l1=0.1, penalty_warmup=0.0), variance=1.0)(u, u, step=0)
    z = sae.preactivations(u).relu()
    fvu = (z @ sae.W_dec + sae.b_dec - u).square().mean()
    torch.testing.assert_close(losses.loss, fvu + 0.1 * z.sum(1).mean() / math.sqrt(8))


def test_jumprelu_with_a_target_pays_for_the_square_of_its_distance():
    sae, u = make("jumprelu"), randn(40, 8)
    settings = TrainSettings(target_l0=5, penalty_warmup=0.0)
    losses = penalties.PenaltyLosses(sae, settings, variance=1.0)(u, u, step=0)
    l0 = float(losses.density.sum())
    torch.testing.assert_close(losses.penalty, torch.tensor((l0 / 5 - 1) ** 2))
    torch.testing.assert_close(losses.loss, losses.fvu + losses.penalty)
    assert settings.penalty_at(999, sae.config) == 1


@pytest.mark.parametrize("target", [4, 8])
def test_jumprelu_comes_to_its_target_from_either_side(target):
    store, held_out, _ = store_and_held_out()
    sae = SparseAutoencoder(SAEConfig(16, 64, "jumprelu"))
    options = {"target_l0": target, "l0": 10.0, "bandwidth": 0.03}
    train(sae, store, steps=400, batch_size=256, progress=False, **options)
    assert len(sae.encode(held_out)) / len(held_out) == pytest.approx(target, rel=0.15)


@pytest.mark.parametrize("rule", ["relu", "token_choice"])
def test_a_target_is_no_setting_of_other_rules(rule):
    sae = SparseAutoencoder(SAEConfig(16, 64, rule, k=None if rule == "relu" else 4))
    with pytest.raises(ValueError, match="target_l0"):
        train(sae, store_and_held_out()[0], steps=2, target_l0=4.0, progress=False)


def test_gated_loss_has_its_three_terms():
    sae, u = make("gated"), randn(40, 8)
    losses = penalties.PenaltyLosses(sae, TrainSettings(l1=0.1, penalty_warmup=0.0), variance=1.0)(u, u, step=0)
    gate = (u - sae.b_dec) @ sae.W_enc + sae.b_enc
    magnitude = ((u - sae.b_dec) @ sae.W_enc * sae.r_mag.exp() + sae.b_mag).relu()
    fvu = (((gate > 0) * magnitude) @ sae.W_dec + sae.b_dec - u).square().mean()
    auxiliary = (gate.relu() @ sae.W_dec + sae.b_dec - u).square().mean()
    torch.testing.assert_close(losses.loss, fvu + auxiliary + 0.1 * gate.relu().sum(1).mean() / math.sqrt(8))


def test_annealed_penalty_is_continuous():
    sae, u = make("relu"), randn(40, 8)
    terms = penalties.PenaltyLosses(sae, TrainSettings(steps=100, l1=0.1, p_end=0.0, penalty_warmup=0.0), variance=1.0)
    found = [float(terms(u, u, step).penalty.detach()) for step in range(100)]
    assert found == pytest.approx([found[0]] * 100, rel=1e-4)  # weights stand still, so it must not move
    assert terms.annealing[0] == pytest.approx(0.1)


@pytest.mark.parametrize("rule", PENALTY_RULES)
def test_without_a_coefficient_there_is_sparsity_and_with_0_there_is_none(rule):
    store, held_out, _ = store_and_held_out()
    name, l0 = RULES[rule].penalty, {}
    for given in (None, 0.0):
        sae = SparseAutoencoder(SAEConfig(16, 64, rule))
        run = train(sae, store, steps=200, batch_size=256, progress=False, **{name: given})
        l0[given] = len(sae.encode(held_out)) / len(held_out)
        assert run.metrics["fvu"][-1] < 0.35
    assert 2 < l0[None] < 0.6 * l0[0.0], l0


def test_penalties_rise_to_their_coefficient_or_to_the_default_of_their_rule():
    config, settings = make("jumprelu").config, TrainSettings(steps=100, penalty_warmup=0.1, l0=0.5)
    assert [settings.penalty_at(step, config) for step in (0, 4, 9, 50)] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    for rule in PENALTY_RULES:
        default = TrainSettings().penalty_at(999, make(rule).config)
        assert default == PENALTIES[RULES[rule].penalty] > 0
        assert f"{default:g}" in TrainSettings.__doc__, "what the default is stands in its help"
