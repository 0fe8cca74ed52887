import pytest
import torch

from sae_tutorial.course.directions import hierarchy


@pytest.mark.parametrize("seed", [0, 1])
def test_each_measurement_separates_its_rung(seed):
    for made in hierarchy.ladder(seed=seed):
        scores = hierarchy.climb(made, samples=1000, seed=seed)
        assert all(score > 0.95 for score in scores[: made.rungs]), (made.name, scores)
        assert made.rungs == 4 or scores[made.rungs] < 0.9, (made.name, scores)


def test_the_ladder_has_one_representation_per_rung():
    made = hierarchy.ladder(dims=12, n_features=3)
    assert [r.rungs for r in made] == [0, 1, 2, 3, 4] and len(hierarchy.RUNGS) == 4
    for r in made:
        assert r.represent(torch.rand(5, r.n_features)).shape == (5, 12)
        assert r.represent(torch.zeros(1, r.n_features)).abs().max() < 1e-6  # nothing on, nothing there
    with pytest.raises(ValueError, match="dims=12"):
        hierarchy.ladder(dims=12, n_features=7)


def test_same_effect_at_its_landmarks():
    e = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert hierarchy.same_effect(e[:1].repeat(10, 1)) == pytest.approx(1)
    assert hierarchy.same_effect(torch.eye(8)) == pytest.approx(0)
    assert hierarchy.same_effect(torch.stack([e[0], -e[0]])) == pytest.approx(-1)
    assert abs(hierarchy.same_effect(e)) < 0.1
    right, up = torch.tensor([[1.0, 0.0]]).repeat(500, 1), torch.tensor([[0.0, 1.0]]).repeat(500, 1)
    assert hierarchy.same_effect(torch.cat([right, up])) == pytest.approx(0.5, abs=0.01)
    assert hierarchy.same_effect(torch.cat([right, -right])) == pytest.approx(0, abs=0.01)
    pairs = [float(e[i] @ e[j]) for i in range(5) for j in range(5) if i != j]
    mean_square = float(e[:5].square().sum(1).mean())
    assert hierarchy.same_effect(e[:5]) == pytest.approx(sum(pairs) / len(pairs) / mean_square, abs=1e-5)


def test_an_entangled_feature_always_reverses_the_next_one():
    """Its step is ± its own direction, less twice the next one at that one's strength: 1 / (1 + 4/3) is common."""
    entangled = hierarchy.ladder()[0]
    assert hierarchy.climb(entangled)[0] == pytest.approx(3 / 7, abs=0.05)


def test_linear_fit_recovers_a_map_and_its_share():
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(400, 3, generator=generator), torch.randn(5, 3, generator=generator)
    found, share = hierarchy.linear_fit(x, x @ W.T + 7)
    assert torch.allclose(found, W, atol=1e-4) and share == pytest.approx(1, abs=1e-5)
    _, none = hierarchy.linear_fit(x, torch.randn(400, 5, generator=generator))
    assert none < 0.05


def test_alignment():
    assert hierarchy.alignment(torch.tensor([[0, 2.0], [-3, 0]])) == 1
    assert hierarchy.alignment(torch.ones(4, 2)) == pytest.approx(0.25)
