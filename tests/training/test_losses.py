"""Each term of the loss against its formula, written densely."""

import pytest
import torch
from synthetic import make

from sae_tutorial.allocation import SparseCodes, ZipfFit
from sae_tutorial.autoencoder import matching as choosing
from sae_tutorial.training import losses as objectives


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_predicting_the_mean_costs_one():
    x = 5 + 3 * randn(1000, 4)
    variance = float((x - x.mean(0)).square().mean())
    assert objectives.reconstruction(x.mean(0).expand_as(x), x, variance) == pytest.approx(1.0)
    assert objectives.reconstruction(x, x, variance) == 0


def test_l1_and_p_norm_agree_at_p_1_and_count_at_p_0():
    z = randn(10, 6).relu()
    assert objectives.l1(z, 10, norm=2.0) == pytest.approx(float(z.sum() / 20))
    assert objectives.p_norm(z, 10, 1.0, norm=2.0) == pytest.approx(float(objectives.l1(z, 10, norm=2.0)))
    assert objectives.p_norm(z, 10, 1e-6) == pytest.approx(float((z > 0).sum() / 10), rel=1e-4)
    with pytest.raises(ValueError, match="p must be greater than 0"):
        objectives.p_norm(z, 10, 0.0)


def test_p_goes_down_in_stairs_and_excludes_its_end():
    stairs = [objectives.annealed_p(i / 100, p_end=0.0) for i in range(101)]
    assert stairs[0] == 1 and min(stairs) == pytest.approx(0.1)
    assert sorted(set(stairs), reverse=True) == pytest.approx([1 - i / 10 for i in range(10)])
    assert stairs == sorted(stairs, reverse=True)


def test_aux_k_equals_its_dense_form_and_reaches_the_encoder():
    sae = make("token_choice").double()
    u, residual, dead = randn(12, 8).double(), randn(12, 8, seed=1).double(), torch.arange(64) % 3 == 0
    affinities = sae.preactivations(u).detach()
    loss = objectives.aux_k(sae, u, residual, affinities, dead, k=5)
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


def test_aux_zipf_is_aux_k_for_the_dead_and_louder_for_the_needier():
    sae, u, residual = make("token_choice"), randn(12, 8), randn(12, 8, seed=1)
    affinities = sae.preactivations(u).detach()
    dead = torch.arange(64) < 20
    assert objectives.aux_zipf(sae, u, residual, affinities, dead.float(), 5) == objectives.aux_k(
        sae, u, residual, affinities, dead, 5
    )
    assert objectives.aux_zipf(sae, u, residual, affinities, torch.zeros(64), 5) == 0
    norms = []
    for shortfall in (0.2, 0.6, 1.0):  # one latent in need: its gradient grows with the need
        sae.zero_grad()
        objectives.aux_zipf(sae, u, residual, affinities, shortfall * (torch.arange(64) == 7), 5).backward()
        norms.append(float(sae.W_enc.grad[:, 7].norm()))
    assert norms == sorted(norms) and norms[0] > 0


def test_shortfall_is_0_on_target_and_1_for_the_dead():
    law = ZipfFit(exponent=1.0, offset=0.0, scale=0.1, r_squared=1.0, ranks=(1, 8))
    target = law.density(torch.arange(1, 9)).float()
    assert not objectives.zipf_shortfall(target, law, part=0.5).any()
    density = target.clone()
    density[6], density[7] = target[6] / 4, 0.0
    shortfall = objectives.zipf_shortfall(density, law, part=0.5)
    assert shortfall.tolist() == pytest.approx([0] * 6 + [0.5, 1.0])
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objectives.zipf_shortfall(density[shuffled], law, part=0.5), shortfall[shuffled])
    with pytest.raises(ValueError, match="part must be"):
        objectives.zipf_shortfall(density, law, part=0.0)


def test_jumprelu_gradients_are_the_stated_ones():
    z = torch.tensor([[0.5, 0.96, 1.04, 2.0]], requires_grad=True)
    theta = torch.ones(4, requires_grad=True)
    out = objectives.jumprelu(z, theta, bandwidth=0.1)
    assert out.tolist() == [[0, 0, pytest.approx(1.04), 2.0]]
    out.sum().backward()
    assert z.grad.tolist() == [[0, 0, 1, 1]]
    assert theta.grad.tolist() == pytest.approx([0, -10, -10, 0])  # −θ/ε inside the window
    z.grad = theta.grad = None
    count = objectives.jumprelu_l0(z, theta, n_tokens=1, bandwidth=0.1)
    count.backward()
    assert count == 2 and z.grad is None
    assert theta.grad.tolist() == pytest.approx([0, -10, -10, 0])  # −1/ε


def test_matryoshka_is_the_mean_over_prefixes():
    dense, W_dec, b_dec, target = randn(10, 12).relu(), randn(12, 5, seed=1), randn(5, seed=2), randn(10, 5, seed=3)
    W_dec.requires_grad_()
    codes = SparseCodes.from_dense(dense)
    loss, x_hat = objectives.matryoshka(codes, W_dec, b_dec, target, (3, 4, 5), variance=2.0)
    loss.backward()
    sparse_gradient, W_dec.grad = W_dec.grad, None
    prefixes = [dense[:, :m] @ W_dec[:m] + b_dec for m in (3, 7, 12)]
    expected = torch.stack([(p - target).square().mean() / 2 for p in prefixes]).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x_hat, prefixes[-1])
    torch.testing.assert_close(sparse_gradient, W_dec.grad)


def test_aux_k_leaves_out_tokens_that_miss_nothing():
    sae, u = make("mutual_choice"), torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    residual, dead = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(64) < 32
    others = torch.arange(8) != 3
    expected = objectives.aux_k(sae, u[others], residual[others], None, dead, 4)
    residual[3] = 0
    torch.testing.assert_close(objectives.aux_k(sae, u, residual, None, dead, 4), expected)
    assert objectives.aux_k(sae, u, 0 * residual, None, dead, 4) == 0


def test_aux_k_keeps_to_the_memory_of_a_block(monkeypatch):
    sae, u, residual = make("mutual_choice"), randn(8, 8), randn(8, 8, seed=1)
    dead, sizes, memory = torch.arange(64) < 50, [], sae.table_memory
    whole = objectives.aux_k(sae, u, residual, sae.preactivations(u).detach(), dead, 4)
    monkeypatch.setitem(choosing.AT_ONCE, "cpu", 8 * 12)
    monkeypatch.setattr(type(sae), "table_memory", lambda _, n, f, dtype: sizes.append(n * f) or memory(n, f, dtype))
    torch.testing.assert_close(objectives.aux_k(sae, u, residual, None, dead, 4), whole)
    assert max(sizes) == 8 * 12
