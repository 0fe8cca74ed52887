"""Each term of the loss against its formula, written densely."""

import pytest
import torch
from synthetic import make, randn

from sae_tutorial.activations import memory
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.training import losses


def test_predicting_the_mean_costs_one():
    x = 5 + 3 * randn(1000, 4)
    variance = float((x - x.mean(0)).square().mean())
    assert losses.reconstruction(x.mean(0).expand_as(x), x, variance) == pytest.approx(1.0)
    assert losses.reconstruction(x, x, variance) == 0


def test_for_the_dead_alone_it_is_aux_k_and_reaches_the_encoder():
    sae = make("token_choice").double()
    u, residual, dead = randn(12, 8).double(), randn(12, 8, seed=1).double(), torch.arange(64) % 3 == 0
    affinities = sae.preactivations(u).detach()
    loss = losses.aux_zipf(sae, u, residual, affinities, dead.double(), k=5)
    loss.backward()
    sparse = {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}

    sae.zero_grad()
    z = sae.preactivations(u).relu() * dead
    z = z * (z >= z.detach().topk(5, dim=1).values[:, -1:])
    dense = ((z @ sae.W_dec - residual).square().sum(1) / residual.square().sum(1)).mean()
    dense.backward()
    torch.testing.assert_close(loss, dense)
    for name, gradient in sparse.items():
        torch.testing.assert_close(gradient, dict(sae.named_parameters())[name].grad)
    assert sparse["W_enc"][:, dead].any() and not sparse["W_enc"][:, ~dead].any()


def test_aux_zipf_is_louder_for_the_needier():
    sae, u, residual = make("token_choice"), randn(12, 8), randn(12, 8, seed=1)
    affinities = sae.preactivations(u).detach()
    assert losses.aux_zipf(sae, u, residual, affinities, torch.zeros(64), 5) == 0
    norms = []
    for shortfall in (0.2, 0.6, 1.0):  # one latent in need: its gradient grows with the need
        sae.zero_grad()
        losses.aux_zipf(sae, u, residual, affinities, shortfall * (torch.arange(64) == 7), 5).backward()
        norms.append(float(sae.W_enc.grad[:, 7].norm()))
    assert norms == sorted(norms) and norms[0] > 0


def test_matryoshka_is_the_mean_over_prefixes():
    dense, W_dec, b_dec, target = randn(10, 12).relu(), randn(12, 5, seed=1), randn(5, seed=2), randn(10, 5, seed=3)
    W_dec.requires_grad_()
    codes = SparseCodes.from_dense(dense)
    loss, x_hat = losses.matryoshka(codes, W_dec, b_dec, target, (3, 4, 5), variance=2.0)
    loss.backward()
    sparse_gradient, W_dec.grad = W_dec.grad, None
    prefixes = [dense[:, :m] @ W_dec[:m] + b_dec for m in (3, 7, 12)]
    expected = torch.stack([(p - target).square().mean() / 2 for p in prefixes]).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x_hat, prefixes[-1])
    torch.testing.assert_close(sparse_gradient, W_dec.grad)


def test_aux_zipf_leaves_out_tokens_that_miss_nothing():
    sae, u = make("mutual_choice"), torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    residual, dead = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)), (torch.arange(64) < 32).float()
    others = torch.arange(8) != 3
    expected = losses.aux_zipf(sae, u[others], residual[others], None, dead, 4)
    residual[3] = 0
    torch.testing.assert_close(losses.aux_zipf(sae, u, residual, None, dead, 4), expected)
    assert losses.aux_zipf(sae, u, 0 * residual, None, dead, 4) == 0


def test_aux_zipf_keeps_to_the_memory_of_a_block(monkeypatch):
    sae, u, residual = make("mutual_choice"), randn(8, 8), randn(8, 8, seed=1)
    dead, sizes, table_memory = (torch.arange(64) < 50).float(), [], sae.table_memory
    whole = losses.aux_zipf(sae, u, residual, sae.preactivations(u).detach(), dead, 4)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * 8 * 12)
    monkeypatch.setattr(
        type(sae), "table_memory", lambda _, n, f, dtype: sizes.append(n * f) or table_memory(n, f, dtype)
    )
    torch.testing.assert_close(losses.aux_zipf(sae, u, residual, None, dead, 4), whole)
    assert max(sizes) == 8 * 12
