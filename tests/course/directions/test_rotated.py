import math

import pytest
import torch
from grouped_model import grouped_model
from tiny_model import rows, tiny_model

from sae_tutorial.course.directions import rotated
from sae_tutorial.course.directions.search import random_rotation


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@torch.no_grad()
def test_the_same_functions_in_their_own_place_change_nothing(model):
    tokens = rows(padded=False)
    assert rotated.loss_with(model, tokens) == pytest.approx(model(tokens, return_type="loss").item(), abs=1e-4)


@torch.no_grad()
def test_a_rotation_that_keeps_the_mean_is_nothing_to_layer_norm_and_something_to_gelu(model):
    tokens, width = rows(padded=False), model.cfg.d_model
    plain, neurons = rotated.loss_with(model, tokens), model.cfg.d_mlp
    turned = rotated.in_rotated_axes(rotated.layer_norm, random_rotation(width, seed=1, keep=torch.ones(width)))
    assert rotated.loss_with(model, tokens, stream=turned) == pytest.approx(plain, abs=1e-3)
    turned = rotated.in_rotated_axes(rotated.gelu, random_rotation(neurons, seed=1))
    assert abs(rotated.loss_with(model, tokens, neurons=turned) - plain) > 0.05


def test_functions_without_favourite_axes_do_not_notice_a_rotation():
    turn = random_rotation(5)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    length = rotated.in_rotated_axes(lambda v: v / v.norm(dim=1, keepdim=True), turn)
    assert torch.allclose(length(x), x / x.norm(dim=1, keepdim=True), atol=1e-5)
    assert not torch.allclose(rotated.in_rotated_axes(torch.relu, turn)(x), x.relu(), atol=0.1)


def test_other_architectures_are_not_measured(tmp_path):
    assert math.isnan(rotated.loss_with(grouped_model(tmp_path), torch.zeros(1, 4, dtype=torch.long)))
