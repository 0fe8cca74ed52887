"""Several processes train what one would: the same matches, weights equal but for the order of sums, and clear ends."""

import re
import shutil

import numpy as np
import pytest
import several_processes as many
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, measure_thresholds, save_sae
from sae_tutorial.autoencoder.parts import cut
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.thresholds import scale_thresholds_
from sae_tutorial.training import with_rule


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_choose_together_what_one_process_chooses(world, tmp_path):
    """Whoever has which tokens and features, whatever ties, and whichever of them has nothing."""
    parts = [n for n in (1, 2, 4) if n <= world]
    found = many.in_processes(world, many.in_turn, tmp_path, many.selections, [(200, n) for n in parts])
    assert found == [[200] * len(parts)] * world


@pytest.fixture(scope="module")
def alone():
    return many.trained(12, 100)


def assert_alike(one, other, rtol):
    for name, (state, metrics, density) in one.items():
        theirs, their_metrics, their_density = other[name]
        for key, tensor in state.items():
            near = torch.isclose(theirs[key].double(), tensor.double(), rtol=rtol, atol=rtol)
            assert near.all(), f"{name}: {key}"
        for key, values in metrics.items():
            np.testing.assert_allclose(their_metrics[key], values, rtol=rtol, atol=rtol, err_msg=f"{name} {key}")
        torch.testing.assert_close(their_density, density, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("world, split", [(3, "tokens"), (3, "features"), (4, (2, 2))])
def test_training_is_that_of_one_process_but_for_the_order_of_sums(alone, world, split, tmp_path):
    """Every kind of rule, with batches that three ranks cannot share equally: weights, thresholds, counts, metrics."""
    found = many.in_processes(world, many.trained, tmp_path, 12, 100, tuple(many.CASES), split)
    for of_rank in found:
        assert_alike(alone, of_rank, rtol=2e-4)
    for name, (state, *_) in found[0].items():
        for other in found[1:]:
            assert all(torch.equal(tensor, other[name][0][key]) for key, tensor in state.items()), (
                f"{name}: ranks differ"
            )


def test_a_rank_needs_no_more_than_its_part_of_an_sae(tmp_path):
    whole, n_features, _ = many.trained_parts(12, 100, 1)
    assert n_features == 48
    for parts, n_features, said in many.in_processes(4, many.trained_parts, tmp_path, 12, 100, 2):
        assert_alike(whole, parts, rtol=2e-4)
        assert n_features == 24
        assert said.startswith("encode needs all features, and this part of an SAE has features ")


@pytest.mark.parametrize("config", [("token_choice", {"k": 3}), ("matryoshka", {"k": 2}), ("relu", {"d_out": 5})])
def test_parts_are_the_rows_of_the_whole(config):
    """Of the same seed, whether drawn alone or cut out; sizes that are no multiple of anything."""
    rule, fields = config
    whole = SparseAutoencoder(SAEConfig(7, 8203, rule, **fields), seed=3)
    whole.hook_name = "blocks.0.hook_resid_post"
    for rank, features in ((0, range(2735)), (1, range(2735, 5469)), (2, range(5469, 8203))):
        drawn, kept = SparseAutoencoder(whole.config, seed=3, part=(rank, 3)), cut(whole, (rank, 3))
        assert drawn.features == kept.features == features and kept.hook_name == whole.hook_name
        for name, tensor in whole.state_dict().items():
            dim = {"W_enc": 1}.get(name, 0 if len(whole.b_enc) in tensor.shape else None)
            rows = tensor if dim is None else tensor.index_select(dim, torch.tensor(features))
            assert torch.equal(drawn.state_dict()[name], rows) and torch.equal(kept.state_dict()[name], rows), name


def test_what_needs_the_whole_refuses_a_part(tmp_path):
    part, x = SparseAutoencoder(SAEConfig(4, 8, "mutual_choice", k=2), part=(0, 2)), torch.randn(20, 4)
    for what, act in {
        "encode": lambda: part.encode(x),
        "decode": lambda: part.decode(torch.randn(20, 8)),
        "cut": lambda: cut(part, (0, 2)),
        "scale_thresholds_": lambda: scale_thresholds_(part, [x], 1.0),
        "save_sae": lambda: save_sae(part, tmp_path / "sae"),
        "with_rule": lambda: with_rule(part, "token_choice"),
        "measure_thresholds": lambda: measure_thresholds(part, [x]),
        "folded": lambda: folded(part),
    }.items():
        with pytest.raises(
            ValueError, match=f"^{what} needs all features, and this part of an SAE has features 0 to 3"
        ):
            act()
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize("part", [(3, 3), (0, 9), "half"])
def test_parts_of_an_sae_that_are_none_are_refused(part):
    with pytest.raises((ValueError, TypeError), match="part"):
        SparseAutoencoder(SAEConfig(4, 8, "relu"), part=part)


def test_after_three_hundred_steps_the_error_is_within_noise(tmp_path):
    how = (300, 64, ("token_choice", "mutual_choice", "feature_choice"))
    [together, _] = many.in_processes(2, many.trained, tmp_path, *how)
    alone = many.trained(*how)
    for name, (_, metrics, _) in alone.items():
        ours, theirs = (float(of["fvu"][-50:].mean()) for of in (metrics, together[name][1]))
        assert abs(ours - theirs) < 0.02 * ours + 1e-4, (name, ours, theirs)


def test_saes_are_dealt_out_and_come_out_as_alone(tmp_path):
    alone, seen = many.swept()
    assert [n for _, n in seen] == [3] * len(seen)
    for world in (2, 4):  # with four, one has nothing to train
        found = many.in_processes(world, many.swept, tmp_path, str(tmp_path / f"{world}.pt"))
        for rank, (runs, their_seen) in enumerate(found):
            mine = len(range(rank, 3, world))
            assert [n for _, n in their_seen] == [mine] * (len(seen) if mine else 0)
            for (state, metrics, density, hook), (ours, our_metrics, our_density, our_hook) in zip(runs, alone):
                assert all(torch.equal(tensor, ours[key]) for key, tensor in state.items())
                assert all(np.array_equal(metrics[m], our_metrics[m], equal_nan=True) for m in metrics)
                assert torch.equal(density, our_density) and hook == our_hook


def test_when_one_process_is_gone_all_stop_and_any_number_goes_on(tmp_path):
    """One of three ends after 12 steps without a word. The others say so; two go on from step 10."""
    path = str(tmp_path / "checkpoint.pt")
    gone, *others = reversed(many.in_processes(3, many.stopped, tmp_path, path, 12, 2))
    assert gone is None
    for error in others:
        assert isinstance(error, ConnectionError) and "lost another process" in str(error)
        assert "goes on from the last checkpoint" in str(error)
    straight = many.stopped(str(tmp_path / "other.pt"), None, 0)
    for state, metrics, resumed_at in many.in_processes(2, many.stopped, tmp_path, path, None, 0):
        assert resumed_at == 10
        for key, tensor in straight[0].items():
            torch.testing.assert_close(state[key], tensor, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(metrics["fvu"], straight[1]["fvu"], rtol=1e-4)
    *_, resumed_at = many.stopped(path, None, 0)
    assert resumed_at == 20, "and one alone finds it finished"


def named(file):
    """A file's name without what makes it this save's."""
    return re.sub(r"run\.pt\.(step-\d+)\.\w+\.", r"\1 ", file)


def test_a_checkpoint_in_parts_is_gone_on_from_by_any_number(tmp_path):
    """Three share the features, and one ends after 12 steps. Others go on from step 10: four that share features and
    tokens, two that share tokens, one alone; and three from what one has written."""
    path, split = str(tmp_path / "run.pt"), "features"
    straight = many.stopped(str(tmp_path / "other.pt"), None, 0)
    many.in_processes(3, many.stopped, tmp_path, path, 12, 2, split)
    parts = sorted(file.name for file in tmp_path.glob("run.pt*"))
    assert [named(part) for part in parts] == ["run.pt", "step-10 part-1-of-3", "step-10 part-2-of-3"]
    for world, how in ((4, (2, 2)), (2, "tokens"), (1, "auto")):
        folder = tmp_path / str(world)
        folder.mkdir()
        for name in parts:
            shutil.copy(tmp_path / name, folder)
        for state, metrics, resumed_at in many.in_processes(
            world, many.stopped, folder, str(folder / "run.pt"), None, 0, how
        ):
            assert resumed_at == 10
            for key, tensor in straight[0].items():
                torch.testing.assert_close(state[key], tensor, rtol=2e-4, atol=2e-4)
            np.testing.assert_allclose(metrics["fvu"], straight[1]["fvu"], rtol=1e-4)
        left = sorted(named(file.name) for file in folder.glob("run.pt*"))
        assert left == ["run.pt"] + ["step-20 part-1-of-2"] * (how == (2, 2)), "parts of step 10 are gone"
    for *_, resumed_at in many.in_processes(3, many.stopped, tmp_path, str(tmp_path / "1" / "run.pt"), None, 0, split):
        assert resumed_at == 20


def test_parts_of_a_checkpoint_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "run.pt"
    many.in_processes(2, many.stopped, tmp_path, str(path), 12, 0, "features")
    [part], before = tmp_path.glob("run.pt.step-10.*.part-1-of-2"), path.read_bytes()
    whole = part.read_bytes()
    other = tmp_path / "other" / "run.pt"
    many.in_processes(2, many.stopped, other.parent, str(other), 12, 0, "features")
    [of_other] = other.parent.glob("run.pt.step-10.*.part-1-of-2")
    for harm, said in (
        (lambda: part.write_bytes(whole[:-500]), "damaged"),
        (lambda: shutil.copy(of_other, part), "no part of this checkpoint"),
        (lambda: shutil.copy(path, part), "no part of this checkpoint"),
        (part.unlink, "missing"),
    ):
        harm()
        with pytest.raises(ValueError, match=f"part-1-of-2 is {said}"):
            many.stopped(str(path), None, 0)
    assert path.read_bytes() == before


def test_splits_that_are_none_are_refused(tmp_path):
    each = [(("split", split),) for split in ("halves", (2, 3), (0, 2), "features")]
    for errors in many.in_processes(2, many.in_turn, tmp_path, many.refused, each):
        assert all(isinstance(error, ValueError) and "split" in str(error) for error in errors), errors


def test_ranks_that_are_given_different_things_refuse(tmp_path):
    each = [("steps",), ("store",), ("checkpoint",), ("frozen",), ("dtype",)]
    for errors in many.in_processes(2, many.in_turn, tmp_path, many.refused, [*each, ("setting",)]):
        *different, unknown = errors
        assert all("the same on every rank" in str(error) for error in different), errors
        assert isinstance(unknown, TypeError) and "unknown setting 'speed'" in str(unknown), "on all ranks"


def test_on_step_may_be_given_to_rank_0_alone(tmp_path):
    assert many.in_processes(2, many.told_on_rank_0, tmp_path) == [[10, 20], []]


def test_what_stops_on_step_stops_all(tmp_path):
    for error in many.in_processes(2, many.refused, tmp_path, "on_step"):
        assert isinstance(error, KeyError) and "enough" in str(error)


@pytest.mark.parametrize("world, splits", [(2, ["tokens", "features", "saes"]), (4, [(2, 2)])])
def test_an_error_on_one_rank_ends_the_training_of_all(world, splits, tmp_path):
    """At once, though its process goes on, and so does the group that they had before."""
    met = ["ConnectionError"] * (world - 1) + ["MemoryError"]
    for found in many.in_processes(world, many.in_turn, tmp_path, many.ended_by_one, [(split,) for split in splits]):
        assert found == [met] * len(splits)


def test_errors_reach_all_whatever_they_are(tmp_path):
    here, there = many.in_processes(2, many.errors_that_travel, tmp_path)
    assert here == ["Local: here", "TwoArguments: 1 and 2", "OSError: disk"]
    assert there == ["RuntimeError: Local: here", "RuntimeError: TwoArguments: 1 and 2", "OSError: disk"]


def test_aux_is_a_mean_over_all_tokens_that_miss_something(tmp_path):
    state, metrics = many.where_some_tokens_miss_nothing()
    assert metrics["aux"][-1] > 0
    for theirs, their_metrics in many.in_processes(2, many.where_some_tokens_miss_nothing, tmp_path):
        np.testing.assert_allclose(their_metrics["aux"], metrics["aux"], rtol=1e-4)
        for key, tensor in state.items():
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-4, atol=1e-5)


def test_what_rank_0_cannot_write_all_refuse(tmp_path):
    (tmp_path / "file").write_text("")
    for error in many.in_processes(2, many.refused, tmp_path, str(tmp_path / "file" / "checkpoint.pt")):
        assert isinstance(error, OSError) and not isinstance(error, ConnectionError) and "checkpoint" in str(error)


def test_ranks_harvest_shards_of_one_folder(tmp_path):
    whole, shards = many.harvested(tmp_path / "alone")
    found = many.in_processes(3, many.harvested, tmp_path, tmp_path / "together")
    assert sorted(name for _, mine in found for name in mine) == sorted(shards)
    assert all(mine for _, mine in found)
    assert all(torch.equal(rows, whole) for rows, _ in found)


def test_parts_of_batches_are_the_batches():
    store = ActivationStore.from_tensor(torch.randn(103, 4))
    for how in ({}, {"drop_last": False}, {"epochs": 2, "start_batch": 3}):
        whole = list(store.batches(20, 1, **how))
        parts = [list(store.batches(20, 1, part=(rank, 3), **how)) for rank in range(3)]
        assert all(torch.equal(torch.cat(of), batch) for batch, *of in zip(whole, *parts))
        assert {len(of) for of in parts} == {len(whole)}


@pytest.mark.parametrize("part", [(2, 2), (0, 0), 3, (0, 30)])
def test_parts_that_are_none_are_refused(part):
    store = ActivationStore.from_tensor(torch.randn(103, 4))
    with pytest.raises((ValueError, TypeError), match="part"):
        store.batches(20, part=part)
