"""One step: the sparse way equals the dense way, and the bfloat16 way ends at the same matches."""

import pytest
import torch
from synthetic import gradients, make, randn

from sae_tutorial.allocation.zipf import middle_law
from sae_tutorial.autoencoder.config import BUDGET_RULES
from sae_tutorial.training import losses as objectives
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here
from sae_tutorial.training.step import Trainee


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


def test_encoder_dtype_auto_is_bfloat16_only_where_it_is_fast():
    cpu = torch.device("cpu")
    assert encoder_dtype_here("bfloat16", cpu) == torch.bfloat16
    assert encoder_dtype_here("float32", cpu) == torch.float32
    assert encoder_dtype_here("auto", cpu) in (torch.float32, torch.bfloat16)


def test_aux_terms_enter_the_loss():
    sae, u = make("token_choice"), randn(40, 8)
    trainee = Trainee(sae, TrainSettings(dead_after=100, aux_k=0.5, encoder_dtype="float32"), variance=1.0)
    assert trainee.budget_losses(u, u).aux == 0  # none is dead yet
    trainee.usage.silent[:20] = 100
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


def test_the_law_of_aux_zipf_is_fitted_where_ranks_are_decided_and_stays_in_between():
    """A law that followed every batch would follow those that fire less and less."""
    sae, u = make("mutual_choice"), randn(40, 8)
    trainee = Trainee(sae, TrainSettings(steps=100, aux_zipf=0.1, aux_k=0.0, rerank_every=8), variance=1.0)
    assert trainee.underused_latents() is None, "no law yet"
    laws = []
    for step in range(20):
        trainee.advance(randn(40, 8, seed=step), u)
        laws.append(trainee.law)
    changes = [step for step in range(1, 20) if laws[step] != laws[step - 1]]
    assert changes == [1, 2, 4, 8, 16]
    assert trainee.law == laws[16] != middle_law(trainee.usage.density)


def test_feature_choice_asks_for_demand_at_first_always_and_then_at_every_tenth_step():
    """Demand decides ranks, which change until the rate decays: it must not be that of the first steps for ever."""
    sae = make("feature_choice")
    trainee = Trainee(sae, TrainSettings(steps=100), variance=1.0)
    counted = []
    for step in range(41):
        trainee.advance(randn(40, 8, seed=step), randn(40, 8, seed=step))
        counted.append(trainee.usage.updates["demand"])
    assert [step for step in range(41) if counted[step] > ([0, *counted])[step]] == [*range(10), 10, 20, 30, 40]
