"""Known features: the data is what it says, and recovery is judged fairly."""

import pytest
import torch

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.evaluation import ground_truth


def test_directions_are_unit_vectors_and_reproducible():
    directions = ground_truth.random_directions(20, 6, seed=3)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(20))
    assert torch.equal(directions, ground_truth.random_directions(20, 6, seed=3))
    assert not torch.equal(directions, ground_truth.random_directions(20, 6, seed=4))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_autoencoder_starts_at_the_truth(seed):
    sae = SparseAutoencoder(SAEConfig(16, 20, "relu"), seed=seed)
    best = ground_truth.best_cosines(ground_truth.random_directions(20, 16, seed=seed), sae.W_dec)
    assert best.max() < 0.99


def test_strengths_are_on_as_often_as_asked_and_never_faint():
    frequency = torch.tensor([0.5, 0.1, 0.02])
    strengths = ground_truth.sparse_strengths(50_000, frequency)
    torch.testing.assert_close((strengths > 0).float().mean(0), frequency, atol=0.01, rtol=0)
    on = strengths[strengths > 0]
    assert 0.5 <= on.min() and on.max() <= 1.5
    assert ground_truth.sparse_strengths(10, 0.3, n=4).shape == (10, 4)


@pytest.mark.parametrize("arguments", [(10, 0.3), (10, torch.ones(3), 3), (10, 0.0, 3), (10, 1.5, 3)])
def test_frequencies_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match="frequency"):
        ground_truth.sparse_strengths(*arguments)


def test_cosines_ignore_norms_and_respect_signs():
    truth = torch.eye(3)
    dictionary = torch.tensor([[5.0, 0, 0], [0, -2.0, 0], [1.0, 0, 1.0]])
    best = ground_truth.best_cosines(truth, dictionary)
    torch.testing.assert_close(best, torch.tensor([1.0, 0.0, 0.5**0.5]))
    assert ground_truth.mean_max_cosine(truth, dictionary) == pytest.approx(float(best.mean()))
    assert ground_truth.mean_max_cosine(truth, 3 * truth) == pytest.approx(1)


def test_mmcs_of_random_dictionaries_grows_with_their_size():
    truth = ground_truth.random_directions(50, 16, seed=0)
    values = [ground_truth.mean_max_cosine(truth, ground_truth.random_directions(n, 16, seed=1)) for n in (8, 64, 512)]
    assert 0 < values[0] < values[1] < values[2] < 0.95


def test_mutual_neighbours_pair_every_row_once():
    """One row of `one` that two of the others resemble is paired with the nearer; noise below the cosine is no pair."""
    axes = torch.eye(6)
    others = torch.stack([axes[0], axes[0] + 0.3 * axes[5], axes[1] * 7, axes[2] + axes[3]])
    assert ground_truth.mutual_neighbours(axes[:4], others) == 0.75, "0 with 0, 1 with 2, and 2 or 3 with their sum"
    assert ground_truth.mutual_neighbours(axes[:4], others, cosine=0.9) == 0.5
    assert ground_truth.mutual_neighbours(others, axes[:4]) == 0.75
    permuted = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    assert ground_truth.mutual_neighbours(permuted, permuted.flip(0)) == 1.0
