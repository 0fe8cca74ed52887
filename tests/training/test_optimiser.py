"""Adam with clipped, projected gradients: against the same written with plain tensors."""

import copy
import math

import pytest
import torch
from synthetic import make

from sae_tutorial.allocation import products
from sae_tutorial.autoencoder.rescaling import unit_decoder_
from sae_tutorial.training.optimiser import UnitAdam
from sae_tutorial.training.settings import TrainSettings

SETTINGS = TrainSettings(clip=0.01)


def loss_of(sae, u):
    return (sae.preactivations(u).relu() @ sae.W_dec + sae.b_dec - u).square().sum()


@pytest.mark.parametrize("more", [{}, {"tied": True}], ids=str)
@pytest.mark.parametrize("unequal", [False, True])
def test_steps_equal_plain_adam_on_the_clipped_projected_gradient(more, unequal, monkeypatch):
    monkeypatch.setattr("sae_tutorial.training.optimiser.BLOCK", 24)  # several blocks, the last one smaller
    sae = unit_decoder_(make("relu", **more))
    if unequal:
        with torch.no_grad():
            sae.W_dec.mul_(torch.linspace(0.3, 3, 64)[:, None])
    plain, u = copy.deepcopy(sae), torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    optimiser, norms = UnitAdam(sae, SETTINGS), sae.W_dec.detach().norm(dim=1, keepdim=True)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=0.01, eps=SETTINGS.eps, foreach=False)
    for _ in range(3):
        norm = optimiser.step(loss_of(sae, u), lr=0.01)
        adam.zero_grad()
        loss_of(plain, u).backward()
        with torch.no_grad():
            W, gradient = plain.W_dec, plain.W_dec.grad
            direction = torch.nn.functional.normalize(W, dim=1)
            gradient -= (gradient * direction).sum(1, keepdim=True) * direction
            expected = torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
            adam.step()
            W.copy_(torch.nn.functional.normalize(W, dim=1) * norms)
        assert norm == pytest.approx(float(expected), rel=1e-4) and norm > SETTINGS.clip
        for (name, p), q in zip(sae.named_parameters(), plain.named_parameters()):
            torch.testing.assert_close(p, q[1], msg=name)
        torch.testing.assert_close(sae.W_dec.norm(dim=1, keepdim=True), norms)


def test_a_row_of_zeros_moves_to_the_mean_norm():
    sae = make("relu")
    with torch.no_grad():
        sae.W_dec.mul_(2)
        sae.W_dec[[3, 5]] = 0
        sae.b_enc[3] = -100  # it gets no gradient
    optimiser = UnitAdam(sae, SETTINGS)
    optimiser.step(loss_of(sae, torch.randn(20, 8, generator=torch.Generator().manual_seed(0))), lr=0.01)
    assert not sae.W_dec[3].any() and float(sae.W_dec[5].detach().norm()) == pytest.approx(2, rel=1e-4)


def test_a_diverging_step_says_so_and_leaves_the_weights_alone():
    sae = make("relu")
    before, optimiser = copy.deepcopy(sae.state_dict()), UnitAdam(sae, SETTINGS)
    with pytest.raises(FloatingPointError, match="training diverged: loss inf.*Lower lr"):
        optimiser.step(loss_of(sae, torch.full((20, 8), 1e30)), lr=0.01)
    for name, value in sae.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_resumed_optimisers_continue_exactly():
    u = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    sae = make("jumprelu")
    optimiser = UnitAdam(sae, SETTINGS)
    optimiser.step(loss_of(sae, u), lr=0.01)
    other = copy.deepcopy(sae)
    resumed = UnitAdam(other, SETTINGS)
    resumed.restore(copy.deepcopy(optimiser.state()))
    for trainee, one in ((optimiser, sae), (resumed, other)):
        trainee.step(loss_of(one, u), lr=0.01)
    assert all(torch.equal(p, q) for p, q in zip(sae.parameters(), other.parameters()))


@pytest.mark.parametrize("rule, more", [("feature_choice", {}), ("token_choice", {"tied": True})], ids=str)
def test_gradients_take_the_memory_of_the_last_ones(rule, more, monkeypatch):
    monkeypatch.setattr("sae_tutorial.allocation.products.INTO_MEMORY", 8 * 5)  # several blocks, the last one smaller
    sae, u = unit_decoder_(make(rule, **more)), torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    optimiser, other = UnitAdam(sae, TrainSettings(clip=math.inf)), copy.deepcopy(sae)
    matrices = [sae.W_dec] if sae.config.tied else [sae.W_enc, sae.W_dec]

    def loss(one):
        return (one.encode_normalised(u, batch_rule=True) @ one.W_dec + one.b_dec - u).square().sum()

    optimiser.step(loss(sae), lr=0.01)
    places = [p.grad.data_ptr() for p in matrices]
    for _ in range(2):
        other.load_state_dict(sae.state_dict())
        other.zero_grad()
        loss(other).backward()
        optimiser._projected_norm = lambda: torch.ones(())  # leaves the gradient as it came
        optimiser.step(loss(sae), lr=0.01)
        for p, q in zip(sae.parameters(), other.parameters()):
            assert torch.equal(p.grad, q.grad)
        assert products._spare.get() is None  # nothing is held between two steps
    if not sae.config.tied:  # where two gradients are added up, the sum may be elsewhere
        assert places == [p.grad.data_ptr() for p in matrices]
