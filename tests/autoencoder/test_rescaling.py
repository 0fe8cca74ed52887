"""Folding the normalisation of a store into an SAE's weights changes nothing but the units."""

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.rescaling import fold_normalisation


@pytest.mark.parametrize("subtracts_b_dec", [True, False])
def test_folding_into_the_weights_is_exact(subtracts_b_dec):
    generator = torch.Generator().manual_seed(0)
    acts = 5 * torch.randn(400, 12, generator=generator, dtype=torch.float64) + 3
    store = ActivationStore.from_tensor(acts)
    shapes = {"W_enc": (12, 30), "b_enc": (30,), "W_dec": (30, 12), "b_dec": (12,), "threshold": (30,)}
    weights = {n: torch.randn(*shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}

    def run(x, w):
        shift = w["b_dec"] if subtracts_b_dec else 0
        codes = ((x - shift) @ w["W_enc"] + w["b_enc"]).relu()
        codes = codes * (codes > w["threshold"])
        return codes, codes @ w["W_dec"] + w["b_dec"]

    codes, reconstruction = run(store.normalise(acts), weights)
    folded = fold_normalisation(weights, store.mean, store.scale, subtracts_b_dec=subtracts_b_dec)
    codes_raw, reconstruction_raw = run(acts, folded)
    assert (codes > 0).any()
    assert_close(codes_raw, codes)
    assert_close(reconstruction_raw, store.denormalise(reconstruction))


def test_folding_a_transcoder_takes_the_normalisation_of_its_output():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, d, generator=generator).double() * 3 + d for d in (6, 4))
    source, target = ActivationStore.from_tensor(x), ActivationStore.from_tensor(y)
    weights = {"W_enc": torch.randn(6, 9), "b_enc": torch.randn(9), "W_dec": torch.randn(9, 4), "b_dec": torch.randn(4)}
    w = {name: value.double() for name, value in weights.items()}
    folded = fold_normalisation(
        w, source.mean, source.scale, subtracts_b_dec=False, out_mean=target.mean, out_scale=target.scale
    )
    predicted = (source.normalise(x) @ w["W_enc"] + w["b_enc"]).relu() @ w["W_dec"] + w["b_dec"]
    raw = (x @ folded["W_enc"] + folded["b_enc"]).relu() @ folded["W_dec"] + folded["b_dec"]
    assert_close(raw, target.denormalise(predicted))
    with pytest.raises(ValueError, match="subtracts_b_dec=True"):
        fold_normalisation(w, source.mean, source.scale, out_mean=target.mean)
