"""Nothing that an SAE is to find may be drawn from the numbers that it starts with: it would find what it was given."""

import pytest
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder
from sae_tutorial.course.ioi_features import toys
from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.course.zipf_densities import fits
from sae_tutorial.evaluation import ground_truth

D = 64


def noise(seed: int, round_: bool) -> torch.Tensor:
    store = ActivationStore.from_tensor(torch.randn(400, D, generator=torch.Generator().manual_seed(99)))
    return fits.gaussian_like(store, 300, seed, round_) - store.mean


DATA = {
    "directions": lambda seed: ground_truth.random_directions(64, D, seed),
    "strengths": lambda seed: ground_truth.sparse_strengths(300, 1.0, D, seed) - 1,
    "two attributes": lambda seed: toys.two_attributes(300, 32, D, (2.0, 1.0), seed)[0],
    "one attribute": lambda seed: toys.two_attributes(300, 32, D, (2.0, 0.0), seed)[0],
    "two clusters": lambda seed: toys.two_clusters(300, D, seed=seed)[0],
    "noise": lambda seed: noise(seed, False),
    "round noise": lambda seed: noise(seed, True),
}
STARTS = {
    "SAE": lambda seed: SparseAutoencoder(SAEConfig(D, 96, "relu"), seed=seed).W_dec.detach(),
    "by hand": lambda seed: by_hand.random_rows(96, D, seed).detach(),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(4))
def test_no_dictionary_starts_at_the_truth(data, start, seed):
    assert ground_truth.best_cosines(DATA[data](seed), STARTS[start](seed)).max() < 0.7
