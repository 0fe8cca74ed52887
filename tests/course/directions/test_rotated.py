import pytest
import torch
from grouped_model import grouped_model
from tiny_model import rows, tiny_model

from sae_tutorial.course.directions import rotated
from sae_tutorial.course.directions.search import random_rotation


@torch.no_grad()
def test_the_loss_follows_what_is_put_in_place(tmp_path):
    model, tokens, hook = tiny_model(tmp_path), rows(padded=False), "blocks.0.hook_resid_post"
    plain = model(tokens, return_type="loss").item()
    assert rotated.loss_with(model, tokens, hook, lambda x: x) == pytest.approx(plain, abs=1e-5)
    assert abs(rotated.loss_with(model, tokens, hook, torch.zeros_like) - plain) > 0.01
    assert model(tokens, return_type="loss").item() == pytest.approx(plain, abs=1e-5), "no hook stays behind"


@torch.no_grad()
def test_the_first_loss_of_few_is_on_the_layers_own_axes(tmp_path):
    model, tokens, hook = tiny_model(tmp_path), rows(padded=False), "blocks.0.hook_resid_post"
    eye = torch.eye(model.cfg.d_model)
    own, same, turned = rotated.losses_of_few(model, tokens, hook, 0.25, [eye, random_rotation(len(eye), seed=1)])
    assert own == rotated.loss_with(model, tokens, hook, lambda x: rotated.strongest(x, 0.25))
    assert own == pytest.approx(same, abs=1e-5) and abs(own - turned) > 1e-4


@torch.no_grad()
def test_noise_goes_through_the_models_own_nonlinearity(tmp_path):
    model, tokens = tiny_model(tmp_path), rows(padded=False)
    before, after = rotated.noise_through_mlp(model, tokens, 0, batch=1)
    _, seen = model.run_with_cache(tokens)
    assert torch.allclose(before, seen["blocks.0.mlp.hook_pre"][:, 1:].flatten(0, 1), atol=1e-5)
    real = seen["blocks.0.mlp.hook_post"][:, 1:].flatten(0, 1)
    assert after.shape == real.shape and not torch.allclose(after, real, atol=0.1)
    mean, sd = before.mean(0), before.std(0)
    draws = torch.Generator().manual_seed(0)
    noise = [mean + sd * torch.randn(1, tokens.shape[1], len(mean), generator=draws) for _ in tokens]
    by_hand = torch.nn.functional.gelu(torch.cat(noise)[:, 1:].flatten(0, 1), approximate="tanh")
    assert torch.allclose(after, by_hand, atol=1e-5)
    assert rotated.noise_through_mlp(model, tokens, 0, batch=1)[1].equal(after), "no noise stays behind"


@torch.no_grad()
def test_both_inputs_of_a_gated_mlp_become_noise(tmp_path):
    model, tokens = grouped_model(tmp_path), rows(padded=False)[:1]
    before, after = rotated.noise_through_mlp(model, tokens, 1)
    _, seen = model.run_with_cache(tokens)
    gate, linear = (seen[f"blocks.1.mlp.{name}"] for name in ("hook_pre", "hook_pre_linear"))
    assert torch.allclose(before, gate[0, 1:], atol=1e-5)
    draws, noise = torch.Generator().manual_seed(0), []
    for x in (gate, linear):
        mean, sd = x[0, 1:].mean(0), x[0, 1:].std(0)
        noise.append(mean + sd * torch.randn(x.shape, generator=draws))
    assert torch.allclose(after, (torch.nn.functional.silu(noise[0]) * noise[1])[0, 1:], atol=1e-4)


def test_the_strongest_coordinates_of_each_vector_stay():
    x = torch.tensor([[1.0, -3.0, 2.0, 0.5], [0.0, 0.1, 0.0, -0.2]])
    assert rotated.strongest(x, 0.5).tolist() == [[0, -3, 2, 0], pytest.approx([0, 0.1, 0, -0.2])]
    assert rotated.strongest(x, 1).equal(x) and (rotated.strongest(x, 0.01) != 0).sum(1).tolist() == [1, 1]
    with pytest.raises(ValueError, match="share=0"):
        rotated.strongest(x, 0)


def test_the_squared_length_that_the_strongest_coordinates_hold():
    x = torch.tensor([[3.0, 0.0, -4.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    assert rotated.held_by_strongest(x, 0.25) == pytest.approx((16 + 4) / (25 + 16))
    assert rotated.held_by_strongest(x.repeat(2000, 1), 1) == pytest.approx(1)


def test_few_coordinates_are_enough_only_on_axes_that_features_are_aligned_with():
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(200, 32, generator=generator) * (torch.rand(200, 32, generator=generator) < 0.1)
    turn = random_rotation(32, seed=1)

    def lost(x, R):
        return float((rotated.in_rotated_axes(lambda v: rotated.strongest(v, 0.25), R)(x) - x).square().sum())

    assert lost(sparse, torch.eye(32)) < 1e-6 < 10 < lost(sparse, turn)
    gaussian = torch.randn(200, 32, generator=generator)
    assert lost(gaussian, torch.eye(32)) == pytest.approx(lost(gaussian, turn), rel=0.1)


def test_functions_without_favourite_axes_do_not_notice_a_rotation():
    turn = random_rotation(5)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    length = rotated.in_rotated_axes(lambda v: v / v.norm(dim=1, keepdim=True), turn)
    assert torch.allclose(length(x), x / x.norm(dim=1, keepdim=True), atol=1e-5)
    assert not torch.allclose(rotated.in_rotated_axes(torch.relu, turn)(x), x.relu(), atol=0.1)
