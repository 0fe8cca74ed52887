import pytest
import torch

from sae_tutorial.course.directions import search as directions
from sae_tutorial.evaluation.ground_truth import random_directions


def gaussian(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def sparse_sources(n=8_000, dims=6, seed=0):
    """Rarely loud sources, mixed by a matrix that is not orthogonal: x, and the mixing directions as unit rows."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(n, dims, generator=generator) < 0.1
    sources = on * torch.rand(n, dims, generator=generator)
    mixing = torch.nn.functional.normalize(torch.randn(dims, dims, generator=generator), dim=1)
    return sources @ mixing, mixing


def test_variance_explained():
    x = gaussian(100, 3) + 5
    assert directions.variance_explained(x, x) == 1
    assert directions.variance_explained(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert directions.variance_explained(x, torch.zeros_like(x)) < 0


def test_excess_kurtosis_of_known_distributions():
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    coin = (uniform < 0.1).float()  # (1 − 6p(1 − p)) / (p(1 − p)) for a coin
    x = torch.stack([gaussian(100_000), uniform, coin], dim=1)
    expected = torch.tensor([0.0, -1.2, (1 - 6 * 0.09) / 0.09])
    assert torch.allclose(directions.excess_kurtosis(3 * x + 1), expected, atol=0.15)


def test_the_strongest_tokens_and_those_at_half_strength():
    x = torch.tensor([[1.0, 10, 4, 5, 12, -11, 7], [6.0, -9, 0, 1, 2, 3, -4]]).T
    top, half = directions.top_and_half(x, 2)
    assert top.T.tolist() == [[4, 1], [0, 5]]
    assert [sorted(column) for column in half.T.tolist()] == [[3, 6], [4, 5]]  # half is 5.5, and 2.25
    wide = gaussian(50, 300)
    assert directions.top_and_half(wide, 3)[1][:, 200:].equal(directions.top_and_half(wide[:, 200:], 3)[1])


def test_a_random_rotation_is_orthogonal_and_may_keep_a_vector():
    turn = directions.random_rotation(9, seed=1)
    assert torch.allclose(turn @ turn.T, torch.eye(9), atol=1e-5)
    ones = torch.ones(9)
    kept = directions.random_rotation(9, seed=1, keep=ones)
    assert torch.allclose(kept @ kept.T, torch.eye(9), atol=1e-5)
    assert torch.allclose(kept @ ones, ones, atol=1e-5)
    assert (kept - torch.eye(9)).abs().max() > 0.3


def test_principal_directions_are_orthonormal_and_sorted():
    x = gaussian(500, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0])
    found = directions.principal_directions(x)
    assert torch.allclose(found @ found.T, torch.eye(4), atol=1e-5)
    assert found.abs().argmax(1).tolist() == [1, 3, 0, 2]


def test_ica_finds_planted_sources_and_their_readers():
    x, mixing = sparse_sources()
    readers, writers = directions.independent_directions(x, 6, steps=100)
    match = (writers @ mixing.T).abs()
    assert match.amax(1).min() > 0.98 and sorted(match.argmax(1).tolist()) == list(range(6))
    heard = (readers @ mixing.T).abs()  # a reader hears its own source and no other
    assert heard.sort(dim=1).values[:, -2].max() < 0.1
    assert ((x - x.mean(0)) @ readers.T).pow(3).mean(0).min() > 0  # the loud side is positive


def test_ica_leaves_empty_dimensions_out():
    x, _ = sparse_sources(n=2_000)
    readers, writers = directions.independent_directions(torch.cat([x, -x.sum(1, keepdim=True)], dim=1), 7, steps=5)
    assert readers.shape == writers.shape == (6, 7) and readers.isfinite().all()


def test_cluster_centres_find_separate_clusters():
    where = torch.tensor([[10.0, 0], [0, 10.0], [-10.0, -10.0]])
    x = where.repeat(100, 1) + 0.1 * gaussian(300, 2)
    centres = min(
        (directions.cluster_centres(x, 3, seed=seed) for seed in range(5)),
        key=lambda c: (x - c[directions.nearest(x, c)]).square().sum(),
    )
    assert torch.cdist(where, centres).amin(1).max() < 0.2
    assert torch.equal(directions.nearest(where, where), torch.arange(3))
    with pytest.raises(ValueError, match="n=301"):
        directions.cluster_centres(x, 301)


def test_pursuit_on_an_orthonormal_dictionary_takes_the_largest():
    x = gaussian(30, 8)
    chosen, errors = directions.pursuit(x, torch.eye(8), 3)
    largest = x.abs().topk(3, dim=1)
    assert torch.equal(chosen, largest.indices)
    expected = x.square().sum(1) - largest.values.square().sum(1)
    assert torch.allclose(errors[3], expected, atol=1e-4)
    assert torch.allclose(errors[0], x.square().sum(1))


def test_pursuit_leaves_what_least_squares_leaves():
    x, dictionary = gaussian(20, 12, seed=1), random_directions(40, 12)
    chosen, errors = directions.pursuit(x, dictionary, 5)
    for row in range(20):
        atoms = dictionary[chosen[row]].T
        fit = atoms @ torch.linalg.lstsq(atoms, x[row, :, None]).solution
        assert float((x[row, :, None] - fit).square().sum()) == pytest.approx(float(errors[5, row]), abs=1e-3)
        assert chosen[row].unique().numel() == 5
    assert (errors.diff(dim=0) <= 1e-5).all()


def test_pursuit_finds_a_planted_sparse_code():
    dictionary = random_directions(100, 64)
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randperm(100, generator=generator)[:3] for _ in range(50)])
    x = dictionary[codes].sum(1)
    chosen, errors = directions.pursuit(x, dictionary, 3)
    right = (chosen.sort(1).values == codes.sort(1).values).all(1)
    assert right.float().mean() > 0.9 and errors[3][right].max() < 1e-4


@pytest.mark.parametrize("k", [0, 7])
def test_pursuit_refuses_a_k_that_makes_no_sense(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        directions.pursuit(gaussian(3, 6), torch.eye(6), k)


def test_a_reconstruction_leaves_what_pursuit_leaves():
    x, dictionary = gaussian(50, 12, seed=1), random_directions(40, 12)
    for k in (1, 4):
        left = (x - directions.reconstruction(x, dictionary, k, chunk=16)).square().sum(1)
        assert torch.allclose(left, directions.pursuit(x, dictionary, k)[1][k], atol=1e-4)


def test_the_curve_starts_at_the_mean_and_ends_at_one():
    x = gaussian(200, 6) + 4
    mean, frame = x.mean(0), directions.principal_directions(x)
    curve = directions.pursuit_curve(x, mean, frame, 6, chunk=64)
    assert len(curve) == 7 and curve[0] == pytest.approx(0, abs=1e-5) and curve[6] == pytest.approx(1, abs=1e-4)
    for k in (1, 3):
        guess = mean + directions.reconstruction(x - mean, frame, k)
        assert curve[k] == pytest.approx(directions.variance_explained(x, guess), abs=1e-4)


def test_covariant_directions_have_the_covariance_of_x():
    x = torch.randn(4_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.0]) + 5
    found = directions.covariant_directions(x, 20_000)
    assert torch.allclose(found.norm(dim=1), torch.ones(20_000), atol=1e-5) and found[:, 2].abs().max() < 1e-3
    assert torch.allclose(found.square().mean(0), torch.tensor([0.75, 0.25, 0.0]), atol=0.02)  # σ₁ / (σ₁ + σ₂)
    assert torch.equal(found, directions.covariant_directions(x, 20_000))
    assert not torch.equal(found, directions.covariant_directions(x, 20_000, seed=1))
