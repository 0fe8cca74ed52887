"""The SAEs that notebook 04 trains side by side."""

import torch

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.course.sparse_autoencoders.sweeps import small_saes, train_pair
from sae_tutorial.evaluation.ground_truth import mean_max_cosine, random_directions, sparse_strengths

REAL = random_directions(6, 8, seed=0)
X = 3 * sparse_strengths(4000, 1 / 6, n=6, seed=1) @ REAL


def test_small_saes_come_size_by_size_and_find_the_truth_where_the_penalty_suits():
    saes = small_saes(X, [6, 12], [0.2, 3.0], 300)
    assert [len(sae.W_dec) for sae in saes] == [6, 6, 12, 12]
    found = [mean_max_cosine(REAL, sae.W_dec) for sae in saes]
    assert min(found[0], found[2]) > 0.9
    assert saes[1].encode(X).l0().float().mean() < 0.5 * saes[0].encode(X).l0().float().mean()


def test_a_pair_is_watched_while_it_trains():
    one, other = (SparseAutoencoder(SAEConfig(8, 6, "relu", tied=True, b_dec=False), seed=seed) for seed in (1, 2))
    store = ActivationStore.from_tensor(X)
    shared = train_pair(one, other, store, steps=300, batch_size=256, lr=1e-2, l1=0.2, log_every=50, progress=False)
    steps, shares = zip(*shared)
    assert list(steps) == sorted(steps) and len(steps) >= 5
    assert shares[0] < 0.5 < 0.8 < shares[-1] and torch.isfinite(one.W_dec).all()
