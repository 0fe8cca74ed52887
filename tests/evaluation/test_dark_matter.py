"""What an SAE leaves out: planted errors come back as what they are, and losses are those of `evaluate`."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_model import D_MODEL, rows, tiny_model
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, SparseCodes, evaluate
from sae_tutorial.evaluation import dark_matter
from sae_tutorial.evaluation.dark_matter import (
    length_predictors,
    linear_map,
    r_squared,
    reconstructed,
    spliced_losses,
    split_error,
)

RESID = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"))


class Planted:
    """An "SAE" whose error is x M + noise of a given size that depends on the token alone."""

    def __init__(self, d, share=0.2, noise=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.M = share * torch.randn(d, d, generator=generator) / d**0.5
        self.noise = noise
        self.config = SimpleNamespace(d_sae=d)

    def encode(self, x):
        return SparseCodes.from_dense(x)

    def decode(self, codes):
        x = codes.to_dense()
        scrambled = (x * 1e4).sin() * self.noise  # not linear in x, and as good as random
        return x - x @ self.M - scrambled


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_an_error_that_is_linear_is_predicted_and_leaves_nothing():
    sae, x_fit, x = Planted(16), normal(400, 16), normal(300, 16, seed=1)
    parts = split_error(sae, x_fit, x)
    assert r_squared(parts.linear, parts.error) == pytest.approx(1, abs=1e-6)
    assert parts.nonlinear.abs().max() < 1e-4
    assert_close(parts.A, sae.M, atol=1e-4, rtol=0)
    assert_close(parts.reconstruction + parts.linear + parts.nonlinear, x)


def test_an_error_that_is_noise_is_not_predicted():
    parts = split_error(Planted(16, share=0, noise=0.3), normal(4_000, 16), normal(2_000, 16, seed=1))
    assert abs(r_squared(parts.linear, parts.error)) < 0.02


def test_of_a_mixture_the_planted_share_is_found():
    sae = Planted(16, share=0.3, noise=0.3)
    parts = split_error(sae, normal(4_000, 16), x := normal(2_000, 16, seed=1))
    linear = (x @ sae.M).square().sum()
    share = linear / (linear + ((x * 1e4).sin() * 0.3).square().sum())
    assert r_squared(parts.linear, parts.error) == pytest.approx(float(share), abs=0.03)


def test_r_squared_has_its_known_values():
    y = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert r_squared(y, y) == 1
    assert r_squared(y.mean(0).expand(2, 2), y) == 0
    assert r_squared(torch.zeros(2, 2), y) == pytest.approx(1 - 26 / 10)


def test_the_length_of_an_error_is_predicted_by_what_it_was_made_of():
    x_fit, x = normal(2_000, 8), normal(1_000, 8, seed=1)

    def error(x):
        direction = torch.nn.functional.normalize((x * 1e4).sin(), dim=1)
        return 0.1 * x.norm(dim=1, keepdim=True) * direction  # |error|² is |x|² / 100

    parts = dark_matter.ErrorParts(x, x - error(x), torch.zeros(8, 8))
    found = length_predictors(x_fit, error(x_fit), parts)
    assert found["its length"] == pytest.approx(1, abs=1e-4)
    assert found["activation"] < 0.1  # the length of a symmetric cloud is no linear function of x


def test_spliced_losses_are_those_of_evaluate(model):
    sae = SparseAutoencoder(SAEConfig(D_MODEL, 64, "jumprelu"))
    with torch.no_grad():
        sae.threshold.fill_(0.3)
        sae.b_enc.add_(0.1)
    text = rows(11)
    instead = {
        "x": lambda x: x,
        "SAE": partial(reconstructed, sae),
        "zero": torch.zeros_like,
        "SAE and its error": lambda x: reconstructed(sae, x) + (x - reconstructed(sae, x)),
    }
    losses, whole = spliced_losses(model, text, RESID, instead), evaluate(sae, model, text, RESID, progress=False)
    assert losses.increase("x") == pytest.approx(0, abs=1e-5)
    assert losses.increase("SAE and its error") == pytest.approx(0, abs=1e-5)
    assert losses.increase("SAE") == pytest.approx(whole.ce_spliced - whole.ce_clean, abs=1e-5)
    assert losses.increase("zero") == pytest.approx(whole.ce_zero - whole.ce_clean, abs=1e-5)
    assert losses.clean.sum() / losses.predictions.sum() == pytest.approx(whole.ce_clean, abs=1e-5)


@pytest.mark.parametrize("more", [{"hook_name": "blocks.9.nothing"}, {"tokens": torch.zeros(3)}])
def test_what_cannot_be_spliced_is_named(model, more):
    given = {"tokens": rows(), "hook_name": RESID, "instead": {}} | more
    with pytest.raises((ValueError, TypeError), match=r"blocks.9.nothing|tokens"):
        spliced_losses(model, **given)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(5, 2), torch.zeros(4, 2), r"shape \(5, 2\) and y \(4, 2\)"),
        (torch.zeros(5), torch.zeros(5), "two tables"),
        (torch.full((5, 2), torch.nan), torch.zeros(5, 2), "NaN or inf"),
        (torch.zeros(3, 3), torch.zeros(3, 1), "more tokens than numbers"),
    ],
)
def test_tables_that_no_map_can_be_fitted_to_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        linear_map(x, y)


def test_r_squared_refuses_what_does_not_vary():
    with pytest.raises(ValueError, match="nothing to predict"):
        r_squared(torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="two or more"):
        r_squared(torch.zeros(3, 2), torch.ones(3, 1))


def test_reconstructed_is_that_of_one_piece(monkeypatch):
    sae, x = Planted(8, noise=0.1), normal(50, 8)
    whole = reconstructed(sae, x)
    monkeypatch.setattr(dark_matter, "at_once", lambda device, size: 7)
    assert_close(reconstructed(sae, x), whole)
