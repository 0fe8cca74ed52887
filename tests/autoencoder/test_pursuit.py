"""Gradient pursuit against a loop over tokens, on dictionaries whose answer is known, and on bad input."""

import pytest
import torch

from sae_tutorial import SparseCodes
from sae_tutorial.autoencoder import pursuit
from sae_tutorial.autoencoder.pursuit import gradient_pursuit
from sae_tutorial.evaluation.ground_truth import random_directions, sparse_strengths


def one_by_one(x, dictionary, l0):
    """The definition, token by token."""
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for target, code, rounds in zip(x, codes, l0):
        held = []
        for _ in range(rounds):
            left = target - code @ dictionary
            fit = dictionary @ left
            held = sorted({*held, int(fit.argmax())})
            gradient = torch.zeros_like(code)
            gradient[held] = fit[held]
            move = gradient @ dictionary
            if move.any():
                code += (move @ left) / (move @ move) * gradient
                code.clamp_(min=0)
    return codes


@pytest.fixture(scope="module")
def planted():
    """200 tokens, each a sum of about 3 of 64 directions in 32 dimensions."""
    truth = random_directions(64, 32, seed=0).double()
    strengths = sparse_strengths(200, 3 / 64, n=64, seed=1).double()
    return truth, strengths, strengths @ truth


@pytest.mark.parametrize("at_once", [None, 7])
def test_it_is_the_loop_over_tokens(planted, monkeypatch, at_once):
    truth, _, x = planted
    if at_once:
        monkeypatch.setattr(pursuit, "at_once", lambda *_: at_once)
    l0 = torch.randint(0, 12, (len(x),), generator=torch.Generator().manual_seed(0))
    codes = gradient_pursuit(x, truth, l0)
    assert isinstance(codes, SparseCodes) and (codes.l0() <= l0).all() and (codes.values > 0).all()
    assert torch.allclose(codes.to_dense(), one_by_one(x, truth, l0.tolist()), atol=1e-10)


def test_on_orthogonal_directions_it_is_exact(planted):
    axes = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.double)).Q
    strengths = sparse_strengths(100, 3 / 32, n=32, seed=2).double()
    codes = gradient_pursuit(strengths @ axes, axes, (strengths > 0).sum(1))
    near = (codes.to_dense() - strengths).abs().max()
    assert near < 0.2, "few rounds leave little to move"
    assert torch.equal(codes.to_dense() > 0, strengths > 0)


def test_more_rounds_leave_less(planted):
    truth, _, x = planted
    left = [float((gradient_pursuit(x, truth, k).to_dense() @ truth - x).square().sum()) for k in (0, 1, 2, 4, 8, 16)]
    assert left == sorted(left, reverse=True) and left[0] == pytest.approx(float(x.square().sum()))
    assert left[-1] < 0.02 * left[0]


def test_a_feature_taken_up_twice_is_held_once():
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    codes = gradient_pursuit(torch.tensor([[3.0, 0.0], [0.0, 0.0], [-1.0, -1.0]]), dictionary, 5)
    assert codes.to_dense().tolist() == [[3, 0], [0, 0], [0, 0]], "and what no feature serves stays empty"
    assert codes.l0().tolist() == [1, 0, 0]
    assert len(gradient_pursuit(torch.zeros(0, 2), dictionary, 3)) == 0


@pytest.mark.parametrize(
    ("x", "dictionary", "l0", "says"),
    [
        (torch.zeros(3), torch.eye(3), 1, r"x must have two dimensions, got shape \(3,\)"),
        (torch.zeros(2, 3), torch.eye(4), 1, "x has 3 numbers per token, the dictionary's directions have 4"),
        (torch.full((2, 3), torch.nan), torch.eye(3), 1, "x holds NaN or inf"),
        (torch.zeros(2, 3), torch.eye(3), -1, "l0 must be one number of at least 0"),
        (torch.zeros(2, 3), torch.eye(3), torch.tensor([1]), "one for each of the 2 tokens"),
    ],
)
def test_bad_input_is_named(x, dictionary, l0, says):
    with pytest.raises(ValueError, match=says):
        gradient_pursuit(x, dictionary, l0)


def test_wrong_kinds_are_named():
    with pytest.raises(TypeError, match="l0 must hold whole numbers"):
        gradient_pursuit(torch.zeros(2, 3), torch.eye(3), torch.ones(2))
    with pytest.raises(TypeError, match="dictionary must be a tensor"):
        gradient_pursuit(torch.zeros(2, 3), [[1.0, 0.0, 0.0]], 1)
