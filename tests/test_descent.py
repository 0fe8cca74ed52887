"""Adam with clipped, projected gradients: against the same written with plain tensors."""

import copy

import pytest
import torch
from synthetic import make

from sae_tutorial.descent import Descent
from sae_tutorial.train_settings import TrainSettings

SETTINGS = TrainSettings(clip=0.01)


def loss_of(sae, u):
    return (sae.preactivations(u).relu() @ sae.W_dec + sae.b_dec - u).square().sum()


@pytest.mark.parametrize("more", [{}, {"tied": True}], ids=str)
def test_steps_equal_plain_adam_on_the_clipped_projected_gradient(more, monkeypatch):
    monkeypatch.setattr("sae_tutorial.descent.BLOCK", 24)  # several blocks, the last one smaller
    sae = make("relu", **more).unit_decoder_()
    plain, u = copy.deepcopy(sae), torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    descent = Descent(sae, SETTINGS)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=0.01, eps=SETTINGS.eps, foreach=False)
    for _ in range(3):
        norm = descent.step(loss_of(sae, u), lr=0.01)
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
    before, descent = copy.deepcopy(sae.state_dict()), Descent(sae, SETTINGS)
    with pytest.raises(FloatingPointError, match="training diverged: loss inf.*Lower lr"):
        descent.step(loss_of(sae, torch.full((20, 8), 1e30)), lr=0.01)
    for name, value in sae.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_resumed_descents_continue_exactly():
    u = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    sae = make("jumprelu")
    descent = Descent(sae, SETTINGS)
    descent.step(loss_of(sae, u), lr=0.01)
    other = copy.deepcopy(sae)
    resumed = Descent(other, SETTINGS)
    resumed.restore(copy.deepcopy(descent.state()))
    for trainee, one in ((descent, sae), (resumed, other)):
        trainee.step(loss_of(one, u), lr=0.01)
    assert all(torch.equal(p, q) for p, q in zip(sae.parameters(), other.parameters()))
