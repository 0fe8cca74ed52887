"""Counts of training: which features are silent, how dense all are, and their ranks."""

import math

import pytest
import torch

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations.ranks import Grid
from sae_tutorial.allocation.zipf import middle_law
from sae_tutorial.training.usage import MOST_SUBSIDY, SUBSIDY_RATE, FeatureUsage, floors, rerank_, subsidise_


def test_density_is_a_mean_first_and_forgets_later():
    use = FeatureUsage(2, window=4)
    for density in (0.1, 0.2, 0.3, 0.4):
        use.count(torch.tensor([density, 0.0]), n_tokens=10)
    assert use.density.tolist() == pytest.approx([0.25, 0.0])
    use.count(torch.tensor([0.65, 1.0]), n_tokens=10)
    assert use.density.tolist() == pytest.approx([0.75 * 0.25 + 0.65 / 4, 0.25])


def test_silence_is_counted_in_tokens_and_ends_with_a_match():
    use = FeatureUsage(2, window=4)
    for density in ([0.1, 0.0], [0.0, 0.0], [0.0, 0.1]):
        use.count(torch.tensor(density), n_tokens=10)
    assert use.silent.tolist() == [20, 0]
    assert use.dead(after=20).tolist() == [True, False] and not use.dead(after=21).any()
    assert use.n_dead(after=20) == 1 and use.n_dead(after=30) == 0 and math.isnan(use.n_dead(after=31))


def test_demand_is_what_open_competition_would_give():
    use = FeatureUsage(3, window=4)
    affinities = torch.tensor([[3.0, 1.0, 0.0], [2.0, -1.0, 0.5]])
    use.count_demand(affinities, n_matches=3, n_tokens=2, n_features=3, grid=Grid())
    assert use.demand.tolist() == [1.0, 0.5, 0.0]


def test_ranks_follow_demand_and_ties_stay_in_place():
    sae = SparseAutoencoder(SAEConfig(4, 4, "feature_choice", 1))
    rerank_(sae, torch.tensor([0.0, 0.3, 0.0, 0.5]))
    assert sae.rank.tolist() == [2, 1, 3, 0]
    rerank_(sae, torch.tensor([0.0, 0.0, 0.0, 0.0]))
    assert sae.rank.tolist() == [2, 1, 3, 0]
    assert sae.zipf_law.tolist() == [1.0, 10.0]


def test_a_fitted_law_is_found_in_the_middle_ranks():
    density = 0.3 / (torch.arange(1, 401) + 5.0) ** 0.8
    density[200:] *= 0.1  # the low end does not follow
    law = middle_law(density)
    assert law.exponent == pytest.approx(0.8, abs=1e-3) and law.offset == pytest.approx(5, abs=0.1)
    sae = SparseAutoencoder(SAEConfig(4, 400, "feature_choice", 1, capacity="fitted"))
    rerank_(sae, density.double().float())
    assert sae.zipf_law.tolist() == pytest.approx([0.8, 5], abs=0.1)
    assert middle_law(density[:15]) is None
    with_a_head = density.clone()
    with_a_head[:2] *= 50  # nor do the few most frequent features
    assert middle_law(with_a_head) == middle_law(density) and middle_law(density).ranks == (5, 200)


def test_what_died_has_no_density_left():
    """Else a law that is fitted to the living would be fitted to the remains of the dead."""
    generator, rank = torch.Generator().manual_seed(0), torch.arange(1, 1001)
    usage, p = FeatureUsage(1000, window=10), (0.5 / (rank + 10)).clamp(max=1)
    for batch in range(200):
        fired = torch.binomial(torch.full((1000,), 512.0), p, generator=generator) / 512
        fired[300:] *= batch < 20  # 700 latents die
        usage.count(fired, 512)
    assert (usage.density[300:] == 0).all() and (usage.density[:300] > 0).float().mean() > 0.95
    assert abs(middle_law(usage.density).exponent - 1) < 0.25
    again = FeatureUsage(1000, window=10)
    again.restore(usage.state())
    assert all(torch.equal(again.without[name], usage.without[name]) for name in ("density", "demand"))


def test_subsidies_rise_below_the_floor_and_fall_back_to_1_above():
    sae = SparseAutoencoder(SAEConfig(4, 4, "mutual_choice", 2, floor=0.2))
    assert floors(sae).tolist() == pytest.approx([0.2 * 2 / 4] * 4)
    density = torch.tensor([0.0, 0.05, 0.1, 3.0])  # nothing, half the floor, the floor, far above
    subsidise_(sae, density)
    rate = math.exp(SUBSIDY_RATE)
    assert sae.subsidy.tolist() == pytest.approx([rate, rate**0.5, 1, 1])
    for _ in range(200):
        subsidise_(sae, density)
    assert sae.subsidy.tolist() == pytest.approx([MOST_SUBSIDY, MOST_SUBSIDY, 1, 1])
    subsidise_(sae, torch.full((4,), 0.2))
    assert sae.subsidy.tolist() == pytest.approx([MOST_SUBSIDY / rate, MOST_SUBSIDY / rate, 1, 1])


def test_a_zipf_floor_falls_with_the_rank_and_sums_to_the_same():
    sae = SparseAutoencoder(SAEConfig(4, 4, "mutual_choice", 2, floor=0.2, floor_shape="zipf", zipf_offset=0))
    sae.rank.copy_(torch.tensor([3, 0, 1, 2]))
    least = floors(sae)
    assert least.sum() == pytest.approx(0.2 * 2) and least[1] == pytest.approx(4 * float(least[0]))
