"""Resampling: the dead start again on badly reconstructed tokens, the living are left alone."""

import pytest
import torch
from synthetic import make, store_and_held_out
from torch.nn.functional import normalize

from sae_tutorial import SAEConfig, SparseAutoencoder, train
from sae_tutorial.training.optimiser import UnitAdam
from sae_tutorial.training.resampling import draw_by_squared_loss, resample_, squared_errors
from sae_tutorial.training.settings import TrainSettings


def small(tied=False, d_sae=12, rule="relu", k=None):
    sae = SparseAutoencoder(SAEConfig(8, d_sae, rule, k, tied=tied, b_dec=not tied), seed=1)
    with torch.no_grad():
        sae.b_enc.add_(0.1)
        if not tied:
            sae.b_dec.add_(0.3 * torch.randn(8, generator=torch.Generator().manual_seed(2)))
    return sae


U = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
DEAD = torch.arange(12) % 4 == 0


@pytest.mark.parametrize(
    "kind", [{}, {"tied": True}, {"rule": "mutual_choice", "k": 2}, {"rule": "token_choice", "k": 2}]
)
def test_only_the_dead_change(kind):
    sae, before, tied = small(**kind), small(**kind), "tied" in kind
    assert resample_(sae, U, DEAD) == 3
    for name in ("W_dec", "b_enc") + (() if tied else ("W_enc",)):
        new, old = getattr(sae, name), getattr(before, name)
        new, old = (new.T, old.T) if name == "W_enc" else (new, old)
        assert torch.equal(new[~DEAD], old[~DEAD]), name
        assert not (new[DEAD] == old[DEAD]).any(), name
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(12))


def test_new_latents_point_at_tokens_and_start_quietly():
    sae = small()
    living = sae.W_enc[:, ~DEAD].norm(dim=0).mean()
    resample_(sae, U, DEAD)
    tokens = normalize(U - sae.b_dec, dim=1)
    nearest = (sae.W_dec[DEAD] @ tokens.T).max(dim=1)
    torch.testing.assert_close(nearest.values, torch.ones(3))
    assert len(set(nearest.indices.tolist())) == 3, "without replacement"
    torch.testing.assert_close(sae.W_enc[:, DEAD], 0.2 * living * sae.W_dec[DEAD].T)
    assert (sae.b_enc[DEAD] == 0).all()


def test_tied_latents_keep_a_fifth_of_their_strength():
    sae = small(tied=True)
    resample_(sae, U, DEAD)
    nearest = (sae.W_dec[DEAD] @ normalize(U, dim=1).T).argmax(dim=1)
    own = sae.affinities(U[nearest])[torch.arange(3), DEAD.nonzero().flatten()]
    torch.testing.assert_close(own, 0.2 * U[nearest].norm(dim=1))


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_have_the_mean_norm_of_the_living_and_keep_it(tied):
    sae = small(tied=tied)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 2, 12)[:, None])
    optimiser, living = UnitAdam(sae, TrainSettings()), sae.W_dec.detach()[~DEAD].norm(dim=1).mean()
    resample_(sae, U, DEAD, optimiser)
    torch.testing.assert_close(sae.W_dec[DEAD].norm(dim=1), living.expand(3))
    before = sae.W_dec.detach().clone()
    optimiser.step((sae.affinities(U) @ sae.W_dec - U).square().sum(), lr=0.1)
    assert not torch.allclose(sae.W_dec, before)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), before.norm(dim=1))
    if tied:
        nearest = torch.nn.functional.cosine_similarity(before[DEAD][:, None], U[None], dim=2).argmax(dim=1)
        assert len(nearest.unique()) == 3


def test_the_badly_reconstructed_are_drawn():
    sae, u = small(), U.clone()
    u[7] *= 100
    assert squared_errors(sae, u).argmax() == 7
    resample_(sae, u, torch.arange(12) == 5)
    torch.testing.assert_close(sae.W_dec[5], normalize(u[7] - sae.b_dec, dim=0))


def test_draws_follow_the_squared_loss():
    loss = torch.tensor([1.0, 2.0, 0.0, 4.0])
    counts = torch.zeros(4)
    for seed in range(2000):
        counts[draw_by_squared_loss(loss, 1, seed)] += 1
    torch.testing.assert_close(counts / 2000, loss.square() / 21, atol=0.03, rtol=0)
    assert len(draw_by_squared_loss(loss, 10)) == 10, "with replacement where there are too few tokens"
    assert len(draw_by_squared_loss(torch.zeros(4), 2).unique()) == 2, "any token, if all are perfect"


def test_the_optimiser_forgets_the_dead_alone():
    sae = small()
    optimiser = UnitAdam(sae, TrainSettings(steps=10))
    for _ in range(3):
        optimiser.step(sae.affinities(U).sum() + (sae.W_dec * U[:12]).sum() + sae.b_dec.sum(), lr=1e-3)
    resample_(sae, U, DEAD, optimiser)
    for p, view in zip(optimiser.parameters, optimiser.views):
        moment = optimiser.adam.state[view]["exp_avg_sq"]
        if p is sae.b_dec:
            assert (moment > 0).all()
        else:
            assert (moment[DEAD] == 0).all() and (moment[~DEAD] > 0).any()


def test_refusals_say_why():
    with pytest.raises(ValueError, match="rule='gated'"):
        resample_(make("gated"), U, torch.zeros(64, dtype=torch.bool))
    with pytest.raises(ValueError, match="all latents are dead"):
        resample_(small(), U, torch.ones(12, dtype=torch.bool))
    with pytest.raises(ValueError, match="resample_at"):
        TrainSettings(resample_at=(1.5,))
    assert resample_(small(), U, torch.zeros(12, dtype=torch.bool)) == 0


@pytest.mark.parametrize("tied", [False, True])
def test_training_with_resampling_has_fewer_dead(tied):
    """Half of the latents start with a bias that no token overcomes."""
    store, _, _ = store_and_held_out()
    dead = {}
    for when in ((), (0.3, 0.5)):
        sae = SparseAutoencoder(SAEConfig(16, 64, "relu", tied=tied, b_dec=not tied, normalise=False))
        with torch.no_grad():
            sae.b_enc[:32] = -50
        changes = {"steps": 100, "batch_size": 256, "dead_after": 3000, "lr": 1e-2, "l1": 0.05}
        run = train(sae, store, resample_at=when, progress=False, **changes)
        dead[when] = run.metrics["dead"][-1]
    assert dead[()] > 0.2 and dead[(0.3, 0.5)] < 0.6 * dead[()], dead
    assert TrainSettings(resample_at=[0.5]).resample_at == (0.5,)


def test_a_resampled_latent_has_no_subsidy():
    sae, u = make("mutual_choice", floor=0.1), torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    sae.subsidy.fill_(20.0)
    dead = torch.arange(64) < 5
    resample_(sae, u, dead)
    assert (sae.subsidy[:5] == 1).all() and (sae.subsidy[5:] == 20).all()
