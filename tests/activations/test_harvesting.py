"""Harvests: what is read and left out, in memory and on disk, interrupted, resumed, damaged."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from tiny_model import BOS, CONTEXT, D_MODEL, PAD, VOCAB, harvest
from torch.testing import assert_close

from sae_tutorial.activations import files, harvesting
from sae_tutorial.activations.harvesting import Harvest
from sae_tutorial.activations.shards import Shard
from sae_tutorial.activations.store import ActivationStore

HOOK = "blocks.1.hook_resid_post"
SMALL = {"shard_bytes": 8 * CONTEXT * D_MODEL * 4}  # two forward passes of four rows in each shard


def everything(store):
    return store.rows(slice(None))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ---------------------------------------------------------------------- what is harvested


@pytest.mark.parametrize(
    "hook_name",
    [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.1.hook_resid_mid",
        "blocks.1.hook_resid_post",
        "blocks.1.hook_mlp_out",
        "blocks.1.hook_attn_out",
        "blocks.1.attn.hook_z",
        "blocks.0.attn.hook_q",
        "blocks.1.mlp.hook_post",
        "blocks.1.ln2.hook_normalized",
        "blocks.0.ln1.hook_scale",
        "ln_final.hook_normalized",
    ],
)
def test_equals_run_with_cache_at_every_kept_token(tiny, tokens, hook_name):
    store = harvest(tiny, tokens, hook_name)
    _, cache = tiny.run_with_cache(tokens)
    expected = cache[hook_name].flatten(2)
    keep = tokens != PAD
    keep[:, 0] = False
    assert len(store) == int(keep.sum()) and store.d_in == expected.shape[-1]
    assert_close(everything(store), expected[keep], rtol=1e-4, atol=1e-5)
    rows, columns = store.locate(torch.arange(len(store)))
    assert torch.equal(store.tokens[rows, columns], tokens[keep])
    assert_close(store.rows(torch.tensor([5, 2])), expected[rows, columns][[5, 2]], rtol=1e-4, atol=1e-5)


def test_heads_are_concatenated_in_order(tiny, tokens):
    store = harvest(tiny, tokens[:2], "blocks.1.attn.hook_z")
    z_BSHd = tiny.run_with_cache(tokens[:2])[1]["blocks.1.attn.hook_z"]
    d_head = z_BSHd.shape[-1]
    assert store.d_in == D_MODEL
    assert_close(store.rows(slice(0, 1))[0, 2 * d_head : 3 * d_head], z_BSHd[0, 1, 2], rtol=1e-4, atol=1e-5)


def test_disagreement_of_the_fused_forward_falls_back_with_a_warning(tiny, tokens, monkeypatch):
    monkeypatch.setattr("sae_tutorial.activations.forward._fused_layer_norm", lambda norm, x: x)
    with pytest.warns(UserWarning, match="disagrees"):
        store = harvest(tiny, tokens)
    expected = tiny.run_with_cache(tokens)[1][HOOK]
    assert_close(store.rows(slice(0, CONTEXT - 1)), expected[0, 1:])


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("hook_name", ["blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "blocks.0.hook_mlp_out"])
def test_other_families_of_models(tokens, family, hook_name):
    import transformers

    from sae_tutorial.activations.language_model import load_language_model

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
             "vocab_size": VOCAB, "max_position_embeddings": CONTEXT}  # fmt: skip
    if family == "llama":
        config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, initializer_range=0.3)
    else:
        config = transformers.GPTNeoXConfig(**sizes, initializer_range=0.3)
    model = load_language_model(transformers.AutoModelForCausalLM.from_config(config).eval())
    store = harvest(model, tokens[8:12])
    assert len(store) == 4 * CONTEXT  # there is no tokenizer that could tell what BOS is
    store = harvest(model, tokens[8:12], hook_name, bos_id=BOS)
    expected = model.run_with_cache(tokens[8:12])[1][hook_name][:, 1:].flatten(2).flatten(0, 1)
    assert_close(everything(store), expected, rtol=1e-4, atol=1e-5)


def test_batch_size_does_not_change_what_is_harvested(tiny, tokens):
    assert_close(everything(harvest(tiny, tokens, batch_size=37)), everything(harvest(tiny, tokens)))


@pytest.mark.parametrize("hook_name", ["blocks.1.attn.hook_pattern", "blocks.1.attn.hook_attn_scores"])
def test_hooks_of_pairs_of_tokens_are_refused(tiny, tokens, hook_name):
    with pytest.raises(ValueError, match=rf"{hook_name}' gives activations of shape .*not one vector per token"):
        harvest(tiny, tokens, hook_name)


def test_hooks_that_must_be_switched_on_say_so(tiny, tokens):
    with pytest.raises(ValueError, match="set_use_attn_result"):
        harvest(tiny, tokens, "blocks.1.attn.hook_result")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number, 1 or more, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number, 1 or more, got 2.5"),
        ({"batch_size": "x"}, TypeError, "batch_size must be a whole number, 1 or more, got 'x'"),
        ({"shard_bytes": -9}, ValueError, "shard_bytes must be a whole number, 1 or more, got -9"),
        ({"shard_bytes": None}, TypeError, "shard_bytes must be a whole number, 1 or more, got None"),
        ({"max_norm": 1}, ValueError, "max_norm must be greater than 1, or None, got 1"),
        ({"max_norm": float("nan")}, ValueError, "max_norm must be greater than 1, or None, got nan"),
        ({"max_norm": "x"}, TypeError, "max_norm must be a number, got 'x'"),
        ({"dtype": torch.float16}, ValueError, "dtype=torch.float16 is not stored: take torch.float32"),
        ({"dtype": "float32"}, ValueError, "dtype='float32' is not stored: take torch.float32 or torch.bfloat16"),
        ({"cache_dir": 3}, TypeError, "cache_dir must be the path of a file or folder, got 3"),
        ({"bos_id": "x"}, TypeError, "bos_id must be a whole number, 0 or more, got 'x'"),
        ({"like": 3}, ValueError, "like must be a store that was harvested from these tokens, got 3"),
        ({"hook_name": None}, ValueError, "hook_name=None is not a hook of this model"),
        ({"tokens": "text"}, ValueError, r"tokens must be a \(n, context\) tensor of token ids, got str"),
        ({"model": None}, TypeError, "model must be what load_language_model returns, got NoneType"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named_before_anything_is_written(tiny, tokens, tmp_path, options, error, message):
    given = {"model": tiny, "tokens": tokens, "hook_name": HOOK, "cache_dir": tmp_path / "cache"} | options
    with pytest.raises(error, match=message):
        ActivationStore.harvest(**given, progress=False)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_and_torch_are_numbers(tiny, tokens, tmp_path):
    numbers = {
        "batch_size": np.int64(4),
        "max_norm": torch.tensor(10.0),
        "bos_id": np.int32(BOS),
        "pad_id": torch.tensor(PAD),
    }
    store = harvest(tiny, tokens, cache_dir=tmp_path, shard_bytes=np.int64(SMALL["shard_bytes"]), **numbers)
    assert store.folder == harvest(tiny, tokens, cache_dir=tmp_path).folder


def poison(place, value):
    """A hook that puts a value at (row, column, coordinate) of the first batch that it sees, twice read or not."""

    def hook(acts, hook):
        acts = acts.clone()
        acts[place] = value
        return acts

    return [(HOOK, hook)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named(tiny, tokens, value):
    with tiny.hooks(poison((0, 3, 5), value)):
        with pytest.raises(ValueError, match="rows 0 to 3 of tokens: activation 2, coordinate 5 is NaN or infinite"):
            harvest(tiny, tokens)


# ---------------------------------------------------------------------- enormous activations


@pytest.fixture(scope="module")
def massive(tmp_path_factory):
    """A model with enormous activations at the tokens 7 (about 1,000 times the median norm) and 11 (about 40 times)."""
    model = tiny_model.tiny_model(tmp_path_factory.mktemp("tokenizer"))
    with torch.no_grad():
        model.embed.original_component.weight[7] *= 20_000
        model.embed.original_component.weight[11] *= 600
    return model


def found_in(store):
    return store.tokens[store.locate(torch.arange(len(store)))]


def left_out(model, tokens, hook_name=HOOK, **options):
    with pytest.warns(UserWarning, match="are left out of the store"):
        return harvest(model, tokens, hook_name, **options)


def test_tokens_with_enormous_activations_are_left_out_and_reported(massive, tokens):
    whole = harvest(massive, tokens, max_norm=None)
    large = (found_in(whole) == 7) | (found_in(whole) == 11)
    norms = everything(whole).norm(dim=1)
    n = int(large.sum())
    with pytest.warns(UserWarning) as said:
        store = harvest(massive, tokens)
    (message,) = [str(one.message) for one in said]
    assert f"{n} of {len(whole)} tokens have activations above max_norm=10.0 times the median norm at {HOOK}" in message
    assert torch.equal(everything(store), everything(whole)[~large])
    assert torch.equal(found_in(store), found_in(whole)[~large])
    assert_close(store.mean, everything(whole)[~large].double().mean(0).float())
    assert store.scale < whole.scale / 5
    rows, columns, ratios = store.left_out.T
    assert torch.equal(torch.stack([rows, columns]).long(), torch.stack(whole.locate(large.nonzero()[:, 0])))
    assert_close(ratios, (norms[large] / norms[~large].median()).double(), rtol=0.2, atol=0)
    assert f"(up to {ratios.max():.0f} times)" in message
    assert whole.left_out.shape == (0, 3)


def test_the_threshold_is_a_choice(massive, tokens):
    store = left_out(massive, tokens, max_norm=100)
    assert (store.tokens[tuple(store.left_out[:, :2].long().T)] == 7).all() and (found_in(store) == 11).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(harvest(massive, tokens, max_norm=1e6)) == len(harvest(massive, tokens, max_norm=None))


def test_where_nothing_is_enormous_nothing_changes(tiny, tokens, model):
    from sae_tutorial import story_tokens

    stories = story_tokens(8 * 64, 64)
    for one, text, hook_name in ((tiny, tokens, HOOK), (model, stories, "blocks.3.hook_mlp_out")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = harvest(one, text, hook_name)
        kept = harvest(one, text, hook_name, max_norm=None)
        assert torch.equal(everything(store), everything(kept)) and len(store.left_out) == 0
        assert store.text_hash == kept.text_hash


def test_what_is_left_out_is_the_same_on_disk(massive, tokens, tmp_path):
    tokens = tokens.clone()
    tokens[8:16, 1:] = 7  # a shard of its own, with nothing in it
    in_memory = left_out(massive, tokens)
    on_disk = left_out(massive, tokens, cache_dir=tmp_path, **SMALL)
    opened = ActivationStore.open(on_disk.folder)
    assert len(list(on_disk.folder.glob("shard_*.bin"))) == 5
    for store in (on_disk, opened, left_out(massive, tokens, cache_dir=tmp_path)):
        assert store.folder == on_disk.folder
        assert torch.equal(everything(store), everything(in_memory))
        assert torch.equal(found_in(store), found_in(in_memory))
        assert torch.equal(store.left_out, in_memory.left_out)
        assert store.scale == pytest.approx(in_memory.scale, rel=1e-12)
        assert store.text_hash == in_memory.text_hash
    batches, expected = (list(store.batches(16, 3)) for store in (opened, in_memory))
    assert all(map(torch.equal, batches, expected)) and len(batches) == len(expected) > 10


def test_hooks_beside_one_another_are_read_in_one_pass(tiny, tokens):
    """What an MLP reads and writes, and something of another width: each as if it had been harvested alone."""
    names = ["blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out", "blocks.1.mlp.hook_post"]
    alone = [harvest(tiny, tokens, name) for name in names]
    passes: list[int] = []
    with tiny.hooks(fwd_hooks=[("hook_embed", lambda x, hook: passes.append(len(x)))]):
        store = harvest(tiny, tokens, names[0], beside=names[1:])
        together = passes.copy()
        harvest(tiny, tokens, names[2])
    assert 2 * together == passes
    assert list(store.beside) == names[1:] and not alone[0].beside
    for name, one, other in zip(names, [store, *store.beside.values()], alone):
        assert one.hook_name == name and one.d_in == other.d_in and one.text_hash == other.text_hash
        assert_close(everything(one), everything(other))
        assert_close(one.mean, other.mean)
        assert one.scale == pytest.approx(other.scale)


def test_what_is_enormous_at_one_hook_is_left_out_at_all(massive, tokens):
    source = left_out(massive, tokens)
    normalised = "blocks.0.ln2.hook_normalized"
    for names in ((HOOK, normalised), (normalised, HOOK)):
        store = left_out(massive, tokens, names[0], beside=names[1:])
        assert_close(store.left_out, source.left_out)
        for name, one in ((names[0], store), *store.beside.items()):
            assert_close(everything(one), everything(harvest(massive, tokens, name, like=source)))


def test_what_cannot_be_read_beside(tiny, tokens, tmp_path):
    for more, words in (
        (dict(beside=["blocks.0.hook_mlp_ou"]), "Did you mean"),
        (dict(beside=[HOOK], gradients=True), "with gradients=True harvest one hook at a time"),
        (dict(beside=[HOOK], cache_dir=tmp_path), "harvest one hook at a time, the second with like="),
        (dict(beside=["blocks.0.attn.hook_pattern"]), "hook_pattern' gives activations of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            harvest(tiny, tokens, "blocks.0.hook_mlp_out", **more)
    with pytest.raises(TypeError, match="put it in a list"):
        harvest(tiny, tokens, HOOK, beside="blocks.0.hook_mlp_out")


def test_two_hooks_can_leave_out_the_same_tokens(massive, tokens, tmp_path):
    source = left_out(massive, tokens)
    other = "blocks.0.ln2.hook_normalized"
    apart = harvest(massive, tokens, other)  # nothing is enormous after a normalisation
    assert len(apart) > len(source) and apart.text_hash != source.text_hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = harvest(massive, tokens, other, like=source)
        on_disk = harvest(massive, tokens, other, like=source, cache_dir=tmp_path, **SMALL)
    large = (found_in(apart) == 7) | (found_in(apart) == 11)
    for store in (together, on_disk, ActivationStore.open(on_disk.folder)):
        assert store.text_hash == source.text_hash
        assert torch.equal(everything(store), everything(apart)[~large])
    assert on_disk.folder != harvest(massive, tokens, other, cache_dir=tmp_path).folder
    for wrong in (harvest(massive, tokens[:8], other), harvest(massive, tokens, other, bos_id=None), 3):
        with pytest.raises(ValueError, match="like must be a store that was harvested from these tokens, got"):
            harvest(massive, tokens, other, like=wrong)


# ---------------------------------------------------------------------- on disk


def test_disk_equals_memory_and_is_found_again(tiny, tokens, tmp_path, monkeypatch):
    in_memory = harvest(tiny, tokens)
    on_disk = harvest(tiny, tokens, cache_dir=tmp_path, **SMALL)
    assert len(list(on_disk.folder.glob("shard_*.bin"))) == 5
    assert not list(on_disk.folder.glob("*unfinished"))
    assert torch.equal(everything(on_disk), everything(in_memory))
    assert_close(on_disk.mean, in_memory.mean, rtol=1e-6, atol=1e-7)
    assert on_disk.scale == pytest.approx(in_memory.scale, rel=1e-12)
    ours, theirs = on_disk.batches(16, 3, buffer_bytes=5000), in_memory.batches(16, 3)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    monkeypatch.setattr("sae_tutorial.activations.harvesting.read_hooks", None)  # from here on the model must not run
    assert harvest(tiny, tokens, cache_dir=tmp_path).folder == on_disk.folder
    opened = ActivationStore.open(str(on_disk.folder))
    assert torch.equal(opened.rows(torch.tensor([9, 3])), in_memory.rows(torch.tensor([9, 3])))
    assert opened.hook_name == HOOK and torch.equal(opened.tokens, tokens)
    assert opened.text_hash == on_disk.text_hash == in_memory.text_hash


def test_a_tilde_is_the_home_folder(tiny, tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = harvest(tiny, tokens, cache_dir="~/acts")
    assert store.folder.parent == tmp_path / "home" / "acts" and not (tmp_path / "~").exists()
    assert len(ActivationStore.open(f"~/acts/{store.folder.name}")) == len(store)
    with pytest.raises(TypeError, match="folder must be the path of a file or folder, got None"):
        ActivationStore.open(None)


@pytest.fixture(params=["plain", "massive"])
def subject(request, tiny, massive):
    """A model, and one with tokens to be left out."""
    return {"plain": tiny, "massive": massive}[request.param]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_an_interrupted_harvest_resumes_and_ends_with_the_same_bytes(subject, tokens, tmp_path, monkeypatch):
    whole = harvest(subject, tokens, cache_dir=tmp_path / "whole", **SMALL)
    shards = []
    real = Harvest._read

    def interrupted_after(n):
        def read(self, *args):
            shards.append(args)
            if len(shards) > n:
                raise KeyboardInterrupt
            return real(self, *args)

        return read

    monkeypatch.setattr(Harvest, "_read", interrupted_after(2))
    with pytest.raises(KeyboardInterrupt):
        harvest(subject, tokens, cache_dir=tmp_path / "parts", **SMALL)
    folder = tmp_path / "parts" / whole.folder.name
    assert len(list(folder.glob("shard_*.bin"))) == 2
    with pytest.raises(ValueError, match=r"shard_00002.bin or its .json is missing.*Harvest again"):
        ActivationStore.open(folder)

    shards.clear()
    monkeypatch.setattr(Harvest, "_read", interrupted_after(10**9))
    monkeypatch.setattr(Harvest, "_plan", None)  # the first cut and the first median are kept
    resumed = harvest(subject, tokens, cache_dir=tmp_path / "parts", batch_size=16)
    assert len(shards) == 3
    assert contents(resumed.folder) == contents(whole.folder)


KILLED = """
import sys
import torch, tiny_model
from tiny_model import harvest
from pathlib import Path
from sae_tutorial.activations import shards
real = shards.write_atomically
def slow(path, content):
    if path.name == "shard_00002.bin":
        def half(file):
            file.write(bytes(content)[:10])
            file.flush()
            print("now", flush=True)
            sys.stdin.read()
        return real(path, half)
    return real(path, content)
shards.write_atomically = slow
folder = Path(sys.argv[1])
model = tiny_model.tiny_model(folder / "tokenizer")
harvest(model, tiny_model.rows(37), cache_dir=folder / "acts", shard_bytes=int(sys.argv[2]))
"""


def test_a_killed_harvest_goes_on_and_leaves_nothing_unfinished(tiny, tokens, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(SMALL["shard_bytes"])]
    path = os.pathsep.join([str(Path(tiny_model.__file__).parent), str(Path(harvesting.__file__).parents[2])])
    killed = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    assert killed.stdout.readline() == b"now\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (folder,) = (tmp_path / "acts").iterdir()
    assert len(list(folder.glob("*.unfinished"))) == 1
    resumed = harvest(tiny, tokens, cache_dir=tmp_path / "acts", **SMALL)
    assert resumed.folder == folder
    assert contents(folder) == contents(harvest(tiny, tokens, cache_dir=tmp_path / "whole", **SMALL).folder)


def test_a_full_disk_is_named_and_leaves_what_was_finished(tiny, tokens, tmp_path, monkeypatch):
    real = files.os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_size > 10_000:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"shard_00000.bin cannot be written .*full: make room"):
            harvest(tiny, tokens, cache_dir=tmp_path, **SMALL)
    (folder,) = tmp_path.iterdir()
    assert sorted(contents(folder)) == ["harvest.json", "tokens.npz"]
    assert len(harvest(tiny, tokens, cache_dir=tmp_path)) == len(harvest(tiny, tokens))


def test_two_that_begin_together_agree_on_one_cut(tiny, tokens, tmp_path, monkeypatch):
    """Between our look for a manifest and our own, another process wrote one with another batch size."""
    whole = harvest(tiny, tokens, cache_dir=tmp_path / "whole", batch_size=4, **SMALL)
    ours = tmp_path / "ours" / whole.folder.name
    real = harvesting.write_once

    def too_late(path, content):
        if path == ours / "harvest.json" and not path.exists():
            path.write_bytes((whole.folder / "harvest.json").read_bytes())
        real(path, content)

    monkeypatch.setattr(harvesting, "write_once", too_late)
    assert harvest(tiny, tokens, cache_dir=tmp_path / "ours", batch_size=16, **SMALL).folder == ours
    assert contents(ours) == contents(whole.folder)


def test_a_model_that_carries_hooks_is_not_cached(tiny, tokens, tmp_path):
    with tiny.hooks([("blocks.0.hook_resid_post", lambda x, hook: 2 * x)]):
        with pytest.raises(ValueError, match="reset_hooks"):
            harvest(tiny, tokens, cache_dir=tmp_path)


def test_the_key_depends_on_what_was_harvested(tiny, tokens, tmp_path):
    def with_another_weight():
        weight = tiny.blocks[1].mlp.out.weight  # after the hook, but the key speaks of the model
        with torch.no_grad():
            kept, weight[0, 0] = weight[0, 0].clone(), 7.0
            try:
                return harvest(tiny, tokens[:4], "blocks.0.hook_mlp_out", cache_dir=tmp_path).folder
            finally:
                weight[0, 0] = kept

    folders = [
        harvest(tiny, tokens[:4], cache_dir=tmp_path).folder,
        harvest(tiny, tokens[:5], cache_dir=tmp_path).folder,
        with_another_weight(),
        harvest(tiny, tokens[:4], "blocks.0.hook_mlp_out", cache_dir=tmp_path).folder,
        harvest(tiny, tokens[:4], cache_dir=tmp_path, dtype=torch.bfloat16).folder,
        harvest(tiny, tokens[:4], cache_dir=tmp_path, bos_id=None).folder,
        harvest(tiny, tokens[:4], cache_dir=tmp_path, max_norm=9).folder,
        harvest(tiny, tokens[:4], cache_dir=tmp_path, max_norm=None).folder,
    ]
    assert len(set(folders)) == len(folders)
    assert harvest(tiny, tokens[:4], cache_dir=tmp_path, max_norm=10).folder in folders
    assert harvest(tiny, tokens[:4], cache_dir=tmp_path, bos_id=BOS).folder in folders


def test_bfloat16_takes_half_the_space_and_rounds_only(tiny, tokens, tmp_path):
    full = harvest(tiny, tokens)
    half = harvest(tiny, tokens, cache_dir=tmp_path, dtype=torch.bfloat16, **SMALL)
    assert sum(f.stat().st_size for f in half.folder.glob("*.bin")) == len(half) * D_MODEL * 2
    assert torch.equal(everything(half), everything(full).bfloat16().float())
    assert next(half.batches(8)).dtype == torch.float32
    # Normalisation is measured on what is stored.
    assert_close(half.mean, everything(half).double().mean(0).float())


def test_an_all_padding_stretch_leaves_no_empty_shard(tiny, tokens, tmp_path):
    padded = tokens.clone()
    padded[8:16, 1:] = PAD
    store = harvest(tiny, padded, cache_dir=tmp_path, **SMALL)
    assert len(list(store.folder.glob("shard_*.bin"))) == 4
    assert torch.equal(everything(store), everything(harvest(tiny, padded)))


# ---------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def good(tiny, tokens, tmp_path_factory):
    """The files of an intact harvest, and what it is called."""
    store = harvest(tiny, tokens, cache_dir=tmp_path_factory.mktemp("good"), **SMALL)
    return store.folder.name, contents(store.folder)


@pytest.fixture
def folder(good, tmp_path):
    folder = tmp_path / good[0]
    folder.mkdir()
    for name, content in good[1].items():
        (folder / name).write_bytes(content)
    return folder


def flip(file, bit=0, place=None):
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["shard_00001.json", "harvest.json", "shard_00001.bin", "tokens.npz"])
def test_flipped_bits_and_cut_files_are_noticed_and_named(tiny, tokens, folder, name):
    """In each of many places: an error that names the file, from `open` and from `harvest`, or no difference at all."""
    whole = (folder / name).read_bytes()
    expected = ActivationStore.open(folder)
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        if trial % 8:
            flip(folder / name, int(generator.integers(8)), int(generator.integers(len(whole))))
        else:
            (folder / name).write_bytes(whole[: int(generator.integers(len(whole)))])
        for attempt in (lambda: ActivationStore.open(folder), lambda: harvest(tiny, tokens, cache_dir=folder.parent)):
            try:
                store = attempt()
            except ValueError as error:
                assert str(folder / name) in str(error) and "harvest again" in str(error)
                refused += 1
            else:
                assert torch.equal(everything(store), everything(expected)) and store.scale == expected.scale
                assert torch.equal(store.mean, expected.mean) and torch.equal(store.tokens, expected.tokens)
        (folder / name).write_bytes(whole)
    assert refused > 30


@pytest.mark.parametrize("name", ["shard_00001.json", "shard_00001.bin", "tokens.npz", "harvest.json"])
def test_what_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name.split(".")[0]):
        ActivationStore.open(folder)


@pytest.mark.parametrize("content", ["{}", "[1", "3", '{"spec": {}, "plan": {}}', ""])
def test_a_manifest_or_record_of_another_kind_is_named(folder, content):
    for name, message in (("shard_00001.json", "harvest again"), ("harvest.json", "Delete the folder")):
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged, .*of an older version.*{message}"):
            ActivationStore.open(folder)
    (folder / "harvest.json").write_bytes(files.sealed({"spec": {}}))
    with pytest.raises(
        ValueError, match=r"harvest.json is damaged, of an older version, or of another harvest \('plan'\)"
    ):
        ActivationStore.open(folder)


def test_a_renamed_folder_and_a_foreign_manifest_are_refused(tiny, tokens, folder):
    other = harvest(tiny, tokens, "blocks.0.hook_resid_post", cache_dir=folder.parent)
    (folder / "harvest.json").write_bytes((other.folder / "harvest.json").read_bytes())
    with pytest.raises(
        ValueError, match=r"harvest.json .* of another harvest \(its key is [0-9a-f]{16}\). Delete the folder"
    ):
        ActivationStore.open(folder)


def test_a_foreign_shard_is_refused_and_the_fix_works(tiny, tokens, folder, good):
    other = harvest(tiny, tokens, "blocks.0.hook_resid_post", cache_dir=folder.parent, **SMALL)
    for name in ("shard_00001.bin", "shard_00001.json"):
        (folder / name).write_bytes((other.folder / name).read_bytes())
    ours, theirs = (json.loads((f / "shard_00000.json").read_text())["key"] for f in (folder, other.folder))
    for attempt in (
        lambda: ActivationStore.open(folder, verify=False),
        lambda: harvest(tiny, tokens, cache_dir=folder.parent),
    ):
        with pytest.raises(ValueError, match=rf"shard_00001.json is of another harvest: .*{theirs}.*{ours}"):
            attempt()
    (folder / "shard_00001.json").unlink()  # what the error says
    harvest(tiny, tokens, cache_dir=folder.parent)
    assert contents(folder) == good[1]


def test_other_rows_or_widths_than_expected_are_refused(tmp_path):
    from sae_tutorial.activations.shards import Moments

    acts = torch.randn(5, 3)
    Shard.write(tmp_path / "a.bin", "key", acts, Moments.of(acts), torch.empty(0, 3))
    for positions, d_in in ((6, 3), (5, 4)):
        with pytest.raises(ValueError, match=r"a.json is of another harvest: .*\('key', 5, 3\), expected"):
            Shard.read(tmp_path / "a.bin", "key", positions, d_in, torch.float32)
    with pytest.raises(ValueError, match="a.bin holds 60 bytes, expected 30"):
        Shard.read(tmp_path / "a.bin", "key", 5, 3, torch.bfloat16)
