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
def test_steps_equal_plain_adam_on_the_clipped_projected_gradient(more, monkeypatch):
    monkeypatch.setattr("sae_tutorial.training.optimiser.BLOCK", 24)  # several blocks, the last one smaller
    sae = unit_decoder_(make("relu", **more))
    plain, u = copy.deepcopy(sae), torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    optimiser = UnitAdam(sae, SETTINGS)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=0.01, eps=SETTINGS.eps, foreach=False)
    for _ in range(3):
        norm = optimiser.step(loss_of(sae, u), lr=0.01)
        adam.zero_grad()
        loss_of(plain, u).backward()
        with torch.no_grad():
            W, gradient = plain.W_dec, plain.W_dec.grad
            gradient -= (gradient * W).sum(1, keepdim=True) * W
            expected = torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
            adam.step()
            W /= W.norm(dim=1, keepdim=True)
        assert norm == pytest.approx(float(expected), rel=1e-4) and norm > SETTINGS.clip
        for (name, p), q in zip(sae.named_parameters(), plain.parameters()):
            torch.testing.assert_close(p, q, msg=name)
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))


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
        optimiser._project = lambda: None  # leaves the gradient as it came
        optimiser.step(loss(sae), lr=0.01)
        for p, q in zip(sae.parameters(), other.parameters()):
            assert torch.equal(p.grad, q.grad)
        assert products._spare.get() is None  # nothing is held between two steps
    if not sae.config.tied:  # where two gradients are added up, the sum may be elsewhere
        assert places == [p.grad.data_ptr() for p in matrices]
