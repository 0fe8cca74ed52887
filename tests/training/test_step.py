"""One step: the sparse way equals the dense way, and the bfloat16 way ends at the same matches."""

import math

import pytest
import torch
from synthetic import make

from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.training import losses as objectives
from sae_tutorial.training import step as training_step
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here
from sae_tutorial.training.step import Trainee


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(sae, loss):
    sae.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rule", BUDGET_RULES)
@pytest.mark.parametrize("more", [{}, {"tied": True}, {"d_out": 5, "skip": True}], ids=str)
def test_sparse_gradients_equal_dense_autograd(rule, more):
    sae, u = make(rule, **more), randn(40, 8)
    target = randn(40, 5, seed=1) if sae.config.is_transcoder else u
    losses = Trainee(sae, TrainSettings(encoder_dtype="float32"), variance=1.0).budget_losses(u, target)
    sparse = gradients(sae, losses.loss)

    chosen = sae.allocate(sae.preactivations(u).detach()).to_dense() > 0
    z = sae.preactivations(u).relu() * chosen
    base = sae.b_dec + (u @ sae.W_skip.T if sae.config.skip else 0)
    ends = torch.tensor(sae.config.group_sizes).cumsum(0) if rule == "matryoshka" else [64]
    dense = sum((z[:, :m] @ sae.W_dec[:m] + base - target).square().mean() for m in ends) / len(ends)
    torch.testing.assert_close(losses.loss, dense)
    expected = gradients(sae, dense)
    assert sparse.keys() == expected.keys()
    for name in sparse:
        torch.testing.assert_close(sparse[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


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
        monkeypatch.setattr(training_step, "SPARSE_BELOW", share)
        losses = Trainee(sae, settings, variance=1.0).penalty_losses(u, u)
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
        monkeypatch.setattr(training_step, "SPARSE_BELOW", share)
        losses = Trainee(sae, settings, variance=1.0).penalty_losses(u, u)
        gradient.append(gradients(sae, losses.loss)["threshold"])
    torch.testing.assert_close(*gradient, atol=1e-6, rtol=1e-4)


def test_relu_loss_is_the_fvu_plus_unitless_l1():
    sae, u = make("relu"), randn(40, 8)
    losses = Trainee(sae, TrainSettings(l1=0.1, penalty_warmup=0.0), variance=1.0).penalty_losses(u, u)
    z = sae.preactivations(u).relu()
    fvu = (z @ sae.W_dec + sae.b_dec - u).square().mean()
    torch.testing.assert_close(losses.loss, fvu + 0.1 * z.sum(1).mean() / math.sqrt(8))


def test_gated_loss_has_its_three_terms():
    sae, u = make("gated"), randn(40, 8)
    losses = Trainee(sae, TrainSettings(l1=0.1, penalty_warmup=0.0), variance=1.0).penalty_losses(u, u)
    gate = (u - sae.b_dec) @ sae.W_enc + sae.b_enc
    magnitude = ((u - sae.b_dec) @ sae.W_enc * sae.r_mag.exp() + sae.b_mag).relu()
    fvu = (((gate > 0) * magnitude) @ sae.W_dec + sae.b_dec - u).square().mean()
    auxiliary = (gate.relu() @ sae.W_dec + sae.b_dec - u).square().mean()
    torch.testing.assert_close(losses.loss, fvu + auxiliary + 0.1 * gate.relu().sum(1).mean() / math.sqrt(8))


def test_encoder_dtype_auto_is_bfloat16_only_where_it_is_fast():
    cpu = torch.device("cpu")
    assert encoder_dtype_here("bfloat16", cpu) == torch.bfloat16
    assert encoder_dtype_here("float32", cpu) == torch.float32
    assert encoder_dtype_here("auto", cpu) in (torch.float32, torch.bfloat16)


def test_annealed_penalty_is_continuous():
    sae, u = make("relu"), randn(40, 8)
    trainee = Trainee(sae, TrainSettings(steps=100, l1=0.1, p_end=0.0, penalty_warmup=0.0), variance=1.0)
    penalties = []
    for trainee.step in range(100):
        penalties.append(float(trainee.penalty_losses(u, u).penalty.detach()))
    assert penalties == pytest.approx([penalties[0]] * 100, rel=1e-4)  # weights stand still, so it must not move
    assert trainee.p == pytest.approx(0.1)


def test_aux_terms_enter_the_loss():
    sae, u = make("token_choice"), randn(40, 8)
    trainee = Trainee(sae, TrainSettings(dead_after=100, aux_k=0.5, encoder_dtype="float32"), variance=1.0)
    assert trainee.budget_losses(u, u).aux == 0  # nobody is dead yet
    trainee.use.silent[:20] = 100
    losses = trainee.budget_losses(u, u)
    assert losses.aux > 0
    torch.testing.assert_close(losses.loss.detach(), losses.fvu.detach() + 0.5 * losses.aux)
    dead = (torch.arange(64) < 20).float()
    residual = u - (sae.encode_normalised(u) @ sae.W_dec + sae.b_dec).detach()
    aux = objectives.aux_zipf(sae, u, residual, sae.preactivations(u).detach(), dead, k=4)
    torch.testing.assert_close(losses.aux, aux.detach())


@pytest.mark.parametrize("rule", ["mutual_choice", "matryoshka"])
def test_the_weakest_match_is_remembered_and_changes_nothing(rule):
    sae, u = make(rule), randn(40, 8)
    trainee = Trainee(sae, TrainSettings(encoder_dtype="float32"), variance=1.0)
    expected = sae.allocate(sae.preactivations(u).detach())
    for guess in (None, 0.01, 3.0, 1e9):
        trainee.weakest = guess
        _, codes = trainee.choose(u)
        assert torch.equal(codes.to_dense(), expected.to_dense())
        assert trainee.weakest == float(expected.values.min())
    with torch.no_grad():
        sae.b_enc -= 100
    _, codes = trainee.choose(u)
    assert len(codes) == 0 and trainee.weakest is None
