"""ActivationStore: shuffled batches, positions, normalisation, and what a store knows about itself."""

import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from tiny_model import CONTEXT, harvest
from torch.testing import assert_close

from sae_tutorial.activations.shards import Moments, Shard
from sae_tutorial.activations.store import ActivationStore

# ---------------------------------------------------------------------- shuffling


def numbered(n, d=3):
    """Row i holds the number i, so that a batch tells which positions it took."""
    return torch.arange(n, dtype=torch.float32)[:, None].expand(n, d).contiguous()


@pytest.fixture(params=["memory", "disk"])
def numbered_store(request, tmp_path):
    """1,000 numbered rows; on disk in uneven shards, read through a buffer of 5 batches."""
    acts = numbered(1000)
    store = ActivationStore.from_tensor(acts)
    if request.param == "disk":
        shards = []
        for i, part in enumerate(acts.split([100, 1, 399, 500])):
            Shard.write(tmp_path / f"{i}.bin", "key", part, Moments.of(part), torch.empty(0, 3))
            shards.append(Shard.read(tmp_path / f"{i}.bin", "key", len(part), 3, torch.float32))
        store = ActivationStore(Moments.of(acts), shards=shards)
        real = store.batches
        store.batches = lambda *a, **k: real(*a, **{"buffer_bytes": 5 * 64 * 12, **k})
    return store


def seen(batches):
    return torch.cat([batch[:, 0] for batch in batches]).long()


def test_each_epoch_visits_each_position_once(numbered_store):
    batches = list(numbered_store.batches(64, 7, drop_last=False))
    assert [len(b) for b in batches] == [64] * 15 + [40]
    assert torch.equal(seen(batches).sort().values, torch.arange(1000))
    dropped = list(numbered_store.batches(64, 7))
    assert torch.equal(seen(dropped), seen(batches)[:960])


def test_same_seed_same_batches_and_different_seeds_and_epochs_differ(numbered_store):
    once, again, other = (seen(numbered_store.batches(64, seed)) for seed in (7, 7, 8))
    assert torch.equal(once, again) and not torch.equal(once, other)
    two = seen(numbered_store.batches(64, 7, epochs=2))
    assert torch.equal(two[:960], once) and not torch.equal(two[960:], once)
    assert len(two[960:].unique()) == 960


@pytest.mark.parametrize("start", [0, 1, 4, 5, 14, 15, 16, 37])
def test_resuming_gives_the_batches_of_an_uninterrupted_run(numbered_store, start):
    whole = list(numbered_store.batches(64, 7, epochs=3))
    resumed = numbered_store.batches(64, 7, epochs=3, start_batch=start)
    assert len(resumed) == len(whole) - start
    for ours, theirs in zip(resumed, whole[start:], strict=True):
        assert torch.equal(ours, theirs)


def test_batches_know_their_length_and_can_go_on_for_ever(numbered_store):
    batches = numbered_store.batches(64, 0)
    assert len(batches) == 15
    next(batches)
    assert len(batches) == 14
    endless = numbered_store.batches(64, 0, epochs=None)
    assert len([next(endless) for _ in range(40)]) == 40
    with pytest.raises(TypeError, match="for ever"):
        len(endless)
    assert list(numbered_store.batches(64, 0, start_batch=99)) == []


def test_the_shuffle_is_uniform_over_the_whole_store(numbered_store):
    """Where each position lands, over 400 seeds: every (tenth of the store, tenth of the epoch) is equally likely."""
    counts = torch.zeros(10, 10)
    neighbours = 0
    for seed in range(400):
        order = seen(numbered_store.batches(100, seed))
        counts += torch.histogramdd(torch.stack([order / 100, torch.arange(1000) / 100], 1).floor(), [10, 10],
                                    range=[0.0, 10.0, 0.0, 10.0]).hist  # fmt: skip
        neighbours += int(((order[1:] - order[:-1]).abs() == 1).sum())
    expected = 400 * 1000 / 100
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < 81 + 4 * (2 * 81) ** 0.5  # 81 degrees of freedom (slightly fewer in effect: less spread)
    assert abs(neighbours / 400 - 2) < 0.4  # neighbours stay neighbours as often as chance has it: 2 pairs of 999


def test_batches_belong_to_the_caller(numbered_store):
    """Kept or overwritten batches change neither the store nor the batches that follow."""
    kept = []
    for batch in numbered_store.batches(64, 7):
        kept.append(batch.clone())
        batch.fill_(-1)
    assert torch.equal(seen(kept), seen(list(numbered_store.batches(64, 7))))


def test_positions_come_along(numbered_store):
    for batch, positions in numbered_store.batches(64, 7, with_positions=True):
        assert torch.equal(batch[:, 0].long(), positions)
        assert torch.equal(numbered_store.rows(positions), batch)
        break
    with pytest.raises(ValueError, match="made from a tensor"):
        numbered_store.locate(positions)
    for wrong in (torch.tensor([1000]), [3, -1], -1):
        with pytest.raises(ValueError, match=r"positions must lie in 0..999"):
            numbered_store.rows(wrong)
    with pytest.raises(ValueError, match=r"positions must be integers from 0 to 999, got torch.float32"):
        numbered_store.rows([0.5])
    assert torch.equal(numbered_store.rows([7, 3]), numbered_store.rows(torch.tensor([7, 3])))
    assert numbered_store.rows([]).shape == (0, 3) and numbered_store.rows(5).tolist() == [[5, 5, 5]]


def test_positions_outside_the_store_are_not_located(tiny, tokens):
    store = harvest(tiny, tokens)
    assert [place.tolist() for place in store.locate([0, CONTEXT - 1])] == [[0, 1], [1, 1]]
    for wrong in (-1, [0, len(store)]):
        with pytest.raises(ValueError, match=rf"positions must lie in 0..{len(store) - 1}, got"):
            store.locate(wrong)
    for wrong in ("x", None, ["a"]):
        with pytest.raises(TypeError, match="positions must be integers, in a list or a tensor, got"):
            store.rows(wrong)


@pytest.mark.parametrize("name", ["batch_size", "seed", "epochs", "start_batch", "buffer_bytes"])
def test_wrong_numbers_are_named(numbered_store, name):
    least = 0 if name in ("seed", "start_batch") else 1
    for wrong in (2.5, "x", True, [3], torch.ones(2)) + (() if name == "epochs" else (None,)):
        with pytest.raises(TypeError, match=rf"{name} must be a (whole )?number"):
            numbered_store.batches(**{"batch_size": 8, name: wrong})
    with pytest.raises(ValueError, match=f"{name} must be a whole number, {least} or more, got {least - 1}"):
        numbered_store.batches(**{"batch_size": 8, name: least - 1})


def test_numbers_of_numpy_and_torch_are_numbers(numbered_store):
    numbers = {"batch_size": np.int64(64), "seed": torch.tensor(7), "epochs": np.int8(1), "start_batch": np.array(2)}
    assert torch.equal(seen(numbered_store.batches(**numbers)), seen(numbered_store.batches(64, 7, start_batch=2)))


def test_a_batch_larger_than_the_store_is_refused(numbered_store):
    with pytest.raises(ValueError, match=r"batch_size=1001 is larger than the store \(1000 positions\)"):
        numbered_store.batches(1001, 0)
    assert len(next(numbered_store.batches(1001, 0, drop_last=False))) == 1000


@pytest.mark.parametrize(
    "wrong", [torch.randn(3), torch.ones(3, 3).long(), torch.randn(0, 4), torch.randn(4, 0), torch.ones(2, 2) * 1j]
)
def test_tensors_of_another_kind_are_refused(wrong):
    with pytest.raises(ValueError, match=r"acts must be a floating \(positions, d_in\) tensor, got"):
        ActivationStore.from_tensor(wrong)


@pytest.mark.parametrize("wrong", [[[1.0, 2.0]], np.ones((3, 2)), None, "acts"])
def test_what_is_no_tensor_is_refused(wrong):
    with pytest.raises(TypeError, match="acts must be a tensor, got"):
        ActivationStore.from_tensor(wrong)


def test_what_is_not_finite_is_named_by_its_place():
    acts = torch.zeros(9_000_000, 2)
    acts[8_999_999, 1] = float("inf")
    with pytest.raises(ValueError, match="activation 8999999, coordinate 1"):
        ActivationStore.from_tensor(acts)


# ---------------------------------------------------------------------- what a store knows about itself


def test_a_store_knows_itself_again(tiny, tokens, tmp_path):
    store = harvest(tiny, tokens)
    about = store.about()
    on_disk = harvest(tiny, tokens, cache_dir=tmp_path)
    for same in (store, on_disk, ActivationStore.open(on_disk.folder), harvest(tiny, tokens, batch_size=37)):
        assert same.differs_from(about) is None
    rounded = harvest(tiny, tokens, dtype=torch.bfloat16)  # as on a machine that computes a little differently
    assert rounded.differs_from(about) is None
    assert (
        ActivationStore.from_tensor(store.rows(slice(None))).differs_from(about) is None
    )  # no text, no hook: not compared
    torch.save(about, tmp_path / "about.pt")  # as in a checkpoint
    assert store.differs_from(torch.load(tmp_path / "about.pt", weights_only=True)) is None


def test_another_store_is_told_apart_in_words(tiny, tokens):
    store = harvest(tiny, tokens)
    about, acts = store.about(), store.rows(slice(None))
    other_text = tokens.roll(1, 0)
    order = torch.randperm(len(acts), generator=torch.Generator().manual_seed(0))
    cases = {
        "its hook_name is blocks.0.hook_resid_post and was": harvest(tiny, tokens, "blocks.0.hook_resid_post"),
        "its text_hash is": harvest(tiny, other_text),
        "its positions is": ActivationStore.from_tensor(acts[:-1]),
        "its d_in is": ActivationStore.from_tensor(acts[:, :-1]),
        "its scale is .* and was": ActivationStore.from_tensor(acts * 1.01),
        "or its mean is another": ActivationStore.from_tensor(acts + 0.01 * store.scale),
        "others, or in another order": ActivationStore.from_tensor(acts[order]),
    }
    for words, other in cases.items():
        assert re.search(words, other.differs_from(about)), words


def test_the_text_hash_is_that_of_the_tokens_that_are_kept(tiny, tokens):
    store = harvest(tiny, tokens)
    assert store.text_hash == harvest(tiny, tokens, "blocks.0.hook_mlp_out").text_hash
    others = [harvest(tiny, tokens.flip(0)), harvest(tiny, tokens, pad_id=None), harvest(tiny, tokens, bos_id=None)]
    assert store.text_hash not in [other.text_hash for other in others]
    assert ActivationStore.from_tensor(store.rows(slice(None))).text_hash is None


# ---------------------------------------------------------------------- normalisation


def test_normalised_activations_have_mean_zero_and_expected_norm_root_d():
    acts = torch.randn(5000, 20, generator=torch.Generator().manual_seed(0)) * torch.rand(20) * 7 + 100
    store = ActivationStore.from_tensor(acts)
    assert_close(store.mean, acts.double().mean(0).float())
    x = torch.cat(list(store.batches(16, 3, drop_last=False, normalise=True)))
    assert_close(x.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    assert x.square().sum(1).mean().item() == pytest.approx(20, rel=1e-4)
    assert_close(store.denormalise(store.normalise(acts)), acts)
    assert_close(store.normalise(acts[:7]), (acts[:7] - store.mean) / store.scale)


def test_equal_activations_have_no_scale():
    store = ActivationStore.from_tensor(torch.ones(10, 4))
    assert store.scale == 0
    with pytest.raises(ValueError, match="no scale"):
        next(store.batches(2, 0, normalise=True))
    with pytest.raises(ValueError, match="no scale"):
        store.normalise(torch.ones(4))


def test_a_store_says_what_it_is(tiny, tokens, tmp_path):
    assert repr(ActivationStore.from_tensor(torch.randn(1200, 8))) == "ActivationStore(1,200 × 8 float32, in memory)"
    store = harvest(tiny, tokens, cache_dir=tmp_path)
    assert "float32 of blocks.1.hook_resid_post, on disk at" in repr(store)


# ---------------------------------------------------------------------- memory


STREAM = """
    import resource, sys, time
    from pathlib import Path
    import torch
    from sae_tutorial.activations import ActivationStore
    from sae_tutorial.activations.shards import Moments, Shard

    folder, n, d, per_shard = Path(sys.argv[1]), int(sys.argv[2]), 256, 131_072
    block, shards = torch.randn(per_shard, d), []
    for i, a in enumerate(range(0, n, per_shard)):
        rows = block[: n - a]
        rows[:, 0] = torch.arange(a, a + len(rows))
        Shard.write(folder / f"{i}.bin", "key", rows, Moments(len(rows), rows[0].double(), 1.0), torch.empty(0, 3))
        shards.append(Shard.read(folder / f"{i}.bin", "key", len(rows), d, torch.float32))
    store = ActivationStore(Moments(n, torch.zeros(d, dtype=torch.float64), float(n)), shards=shards)
    visits, began = torch.zeros(n, dtype=torch.int8), time.perf_counter()
    for batch, positions in store.batches(4096, 0, drop_last=False, with_positions=True):
        assert torch.equal(batch[:, 0].long(), positions)
        visits[positions] += 1
    seconds = time.perf_counter() - began
    assert visits.eq(1).all()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, n / seconds)
"""


def stream(folder, n):
    """(peak resident GiB, rows per second) of a fresh process that writes and then streams n × 256 activations."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STREAM), str(folder), str(n)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_ten_million_activations_stream_in_under_two_gigabytes(tmp_path):
    """Needs 10 GB of disk. float32 counts positions exactly up to 16.7 million."""
    peak, rows_per_second = stream(tmp_path, 10_000_000)
    assert peak < 2, f"peak resident memory {peak:.2f} GiB at {rows_per_second:,.0f} rows/s"


def test_a_store_keeps_its_own_tokens(tiny, tokens):
    theirs = tokens.clone()
    store = harvest(tiny, theirs)
    theirs[:] = 5
    assert torch.equal(store.tokens, tokens)
