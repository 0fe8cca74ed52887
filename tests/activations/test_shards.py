"""Moments that merge, and shards that come back as they were written."""

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial.activations.shards import Moments, Shard, gather_rows
from sae_tutorial.activations.store import ActivationStore


def test_the_measurement_is_numerically_stable():
    """A spread of 1 around 30,000, where E[x²] - E[x]² in float32 is all rounding."""
    acts = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0)) + 30_000
    store = ActivationStore.from_tensor(acts)
    exact = (acts.double() - acts.double().mean(0)).square().mean().sqrt().item()
    assert store.scale == pytest.approx(exact, rel=1e-12)
    parts = [Moments.of(part) for part in acts.split([1, 7, 9_992, 190_000])]
    assert Moments.merged(parts).scale == pytest.approx(exact, rel=1e-10)


def test_moments_of_nothing_change_nothing():
    acts = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nothing = Moments(0, torch.zeros(3, dtype=torch.float64), 0.0)
    merged = Moments.merged([nothing, Moments.of(acts[:20]), nothing, Moments.of(acts[20:])])
    assert merged.n == 50 and Moments.merged([nothing, nothing]).n == 0
    assert_close(merged.mean, acts.mean(0))
    assert merged.spread == pytest.approx((acts - acts.mean(0)).square().sum().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shard_comes_back_as_it_was_written(dtype, tmp_path):
    acts = torch.randn(7, 5).to(dtype)
    left_out = torch.tensor([[3, 0, 12.5], [9, 255, 1e3 / 3]], dtype=torch.float64)
    Shard.write(tmp_path / "a.bin", "key", acts, Moments.of(acts), left_out)
    shard = Shard.read(tmp_path / "a.bin", "key", 9, 5, dtype)
    shard.verify()
    assert torch.equal(shard.map(), acts)
    assert torch.equal(shard.moments.mean, Moments.of(acts).mean) and shard.moments.spread == Moments.of(acts).spread
    assert torch.equal(shard.left_out, left_out)


def test_rows_are_gathered_across_shards_that_may_be_empty(tmp_path):
    acts = torch.arange(60.0).view(20, 3)
    shards = []
    for i, part in enumerate(acts.split([4, 0, 1, 15])):
        moments = Moments.of(part) if len(part) else Moments(0, torch.zeros(3), 0.0)
        Shard.write(tmp_path / f"{i}.bin", "key", part, moments, torch.empty(0, 3))
        shards.append(Shard.read(tmp_path / f"{i}.bin", "key", len(part), 3, torch.float32))
        shards[-1].verify()
    for wanted in ([0, 3, 4, 5, 19], [4], [], list(range(20))):
        positions = torch.tensor(wanted, dtype=torch.int64)
        assert torch.equal(gather_rows(shards, positions, torch.empty(len(wanted), 3)), acts[positions])
