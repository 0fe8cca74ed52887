"""ActivationStore: what is harvested, how it lies on disk, how it is shuffled and normalised."""

import json
import subprocess
import sys
import textwrap
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial.activations import harvesting
from sae_tutorial.activations.files import write_once
from sae_tutorial.activations.forward import fused_forward, read_hook
from sae_tutorial.activations.kept_text import special_ids
from sae_tutorial.activations.shards import Moments
from sae_tutorial.activations.store import ActivationStore

BOS, PAD = 0, 1
N_LAYERS, D_MODEL, N_HEADS, VOCAB, CONTEXT = 3, 32, 4, 60, 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random GPT-2 whose LayerNorms and biases do something, as a bridge in compatibility mode."""
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=f"w{BOS}", eos_token=f"w{BOS}", pad_token=f"w{PAD}"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"n_layer": N_LAYERS, "n_embd": D_MODEL, "n_head": N_HEADS, "vocab_size": VOCAB, "n_positions": CONTEXT}
    hugging_face = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=BOS, eos_token_id=BOS)).eval()
    for parameter in hugging_face.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    bridge = TransformerBridge.boot_transformers(
        "gpt2", hf_model=hugging_face, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    bridge.enable_compatibility_mode()
    return bridge


@pytest.fixture(scope="module")
def tokens():
    """37 rows that begin with BOS; two are padded on the right."""
    tokens = torch.randint(2, VOCAB, (37, CONTEXT), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = BOS
    tokens[3, 10:] = PAD
    tokens[20, 1:] = PAD
    return tokens


def harvest(model, tokens, hook_name="blocks.1.hook_resid_post", **options):
    return ActivationStore.harvest(model, tokens, hook_name, progress=False, **{"batch_size": 4, **options})


def everything(store, **options):
    return list(store.batches(16, 3, drop_last=False, **options))


# ---------------------------------------------------------------------- what is harvested


@pytest.mark.parametrize(
    "hook_name",
    [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.2.hook_resid_pre",
        "blocks.1.hook_resid_mid",
        "blocks.2.hook_resid_post",
        "blocks.1.hook_mlp_out",
        "blocks.1.hook_attn_out",
        "blocks.1.attn.hook_z",
        "blocks.0.attn.hook_q",
        "blocks.1.mlp.hook_post",
        "blocks.1.ln2.hook_normalized",
    ],
)
def test_equals_run_with_cache_at_every_kept_token(model, tokens, hook_name):
    store = harvest(model, tokens, hook_name)
    _, cache = model.run_with_cache(tokens)
    expected = cache[hook_name].flatten(2)
    keep = tokens != PAD
    keep[:, 0] = False
    assert len(store) == int(keep.sum()) and store.d_in == expected.shape[-1]
    assert_close(store.rows(slice(None)), expected[keep], rtol=1e-4, atol=1e-5)
    rows, columns = store.locate(torch.arange(len(store)))
    assert torch.equal(store.tokens[rows, columns], tokens[keep])
    assert_close(store.rows(torch.tensor([5, 2])), expected[rows, columns][[5, 2]], rtol=1e-4, atol=1e-5)


def test_heads_are_concatenated_in_order(model, tokens):
    store = harvest(model, tokens[:2], "blocks.1.attn.hook_z")
    z_BSHd = model.run_with_cache(tokens[:2])[1]["blocks.1.attn.hook_z"]
    d_head = D_MODEL // N_HEADS
    assert store.d_in == D_MODEL
    assert_close(store.rows(slice(0, 1))[0, 2 * d_head : 3 * d_head], z_BSHd[0, 1, 2], rtol=1e-4, atol=1e-5)


def test_tokens_are_read_wherever_they_lie(model, tokens):
    """Tokens come from the CPU, whatever the model runs on: `.to` is asked of them, with the model's device."""
    asked = SimpleNamespace(to=lambda device: tokens[:2] if device == model.cfg.device else None)
    with read_hook(model, "hook_embed") as read:
        assert torch.equal(read(asked), read(tokens[:2]))


@pytest.mark.gpu
def test_a_hook_is_read_on_the_gpu_from_tokens_on_the_cpu():
    from sae_tutorial import load_language_model, story_tokens

    model, tokens = load_language_model("stories", device="cuda"), story_tokens(4 * 32, 32)
    store = ActivationStore.harvest(model, tokens, "blocks.1.hook_resid_post", progress=False)
    with read_hook(model, "blocks.1.hook_resid_post") as read:
        acts_BSD = read(tokens)
    assert acts_BSD.is_cuda
    assert_close(acts_BSD[:, 1:].flatten(0, 1).cpu(), store.rows(slice(None)), rtol=1e-3, atol=1e-3)


def test_nothing_behind_the_hook_is_computed(model, tokens):
    ran = []
    watched = [model.blocks[1].mlp, model.blocks[2], model.ln_final, model.unembed]
    handles = [module.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, module in enumerate(watched)]
    try:
        harvest(model, tokens, "blocks.1.hook_resid_mid")
        assert ran == []
        harvest(model, tokens[:4], "blocks.1.hook_resid_post")
        assert set(ran) == {0}
    finally:
        for handle in handles:
            handle.remove()


def test_fused_forward_equals_the_bridge_and_leaves_no_trace(model, tokens):
    plain = model(tokens)
    config = model.original_model.config
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    before = config._attn_implementation
    with fused_forward(model), fused_forward(model):
        assert config._attn_implementation == "sdpa"
        assert_close(model(tokens), plain, rtol=1e-4, atol=1e-5)
    assert config._attn_implementation == before
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert torch.equal(model(tokens), plain)


def test_fused_forward_keeps_attention_that_somebody_listens_to(model, tokens):
    seen = []
    with model.hooks([("blocks.1.attn.hook_pattern", lambda pattern, hook: seen.append(pattern))]):
        with fused_forward(model):
            model(tokens[:2])
    assert seen[0].shape == (2, N_HEADS, CONTEXT, CONTEXT)


def test_disagreement_of_the_fused_forward_falls_back_with_a_warning(model, tokens, monkeypatch):
    monkeypatch.setattr("sae_tutorial.activations.forward._fused_gelu", lambda x: x)
    with pytest.warns(UserWarning, match="disagrees"):
        store = harvest(model, tokens)
    expected = model.run_with_cache(tokens)[1]["blocks.1.hook_resid_post"]
    assert_close(store.rows(slice(0, 23)), expected[0, 1:])


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
    store = harvest(model, tokens[5:9])
    assert len(store) == 4 * CONTEXT  # there is no tokenizer that could tell what BOS is
    store = harvest(model, tokens[5:9], hook_name, bos_id=BOS)
    expected = model.run_with_cache(tokens[5:9])[1][hook_name][:, 1:].flatten(2).flatten(0, 1)
    assert_close(store.rows(slice(None)), expected, rtol=1e-4, atol=1e-5)


def test_training_mode_is_put_back_and_dropout_is_off(model, tokens):
    model.train()
    try:
        noisy = harvest(model, tokens)
        assert model.training
    finally:
        model.eval()
    assert torch.equal(noisy.rows(slice(None)), harvest(model, tokens).rows(slice(None)))


def test_what_is_dropped_is_a_choice(model, tokens):
    assert len(harvest(model, tokens, bos_id=None, pad_id=None)) == tokens.numel()
    assert len(harvest(model, tokens, pad_id=None)) == tokens.numel() - len(tokens)
    assert len(harvest(model, tokens[4:9, 1:])) == 5 * (CONTEXT - 1)
    assert len(harvest(model, tokens[4:9, 1:], bos_id="any")) == 5 * (CONTEXT - 2)
    # A pad id inside a row is text (GPT-2 pads with its end-of-text token); only the run at the end is padding.
    inside = tokens[5:7].clone()
    inside[0, 7] = PAD
    assert len(harvest(model, inside)) == inside.numel() - 2
    # The same id for BOS and padding.
    shared = tokens[5:7].clone()
    shared[1, 20:] = BOS
    assert len(harvest(model, shared, pad_id=BOS)) == shared.numel() - 2 - (CONTEXT - 20)


def test_batch_size_does_not_change_what_is_harvested(model, tokens):
    assert_close(harvest(model, tokens, batch_size=37).rows(slice(None)), harvest(model, tokens).rows(slice(None)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[0], r"got \(24,\) int64.*tokens\[None\]"),
        (lambda t: t.int(), r"int64.*int32.*tokens.long\(\)"),
        (lambda t: t.tolist(), "got list"),
        (lambda t: t + VOCAB, "0..59"),
        (lambda t: t - 5, "-5"),
        (lambda t: torch.cat([t, t], 1), r"24 tokens at most.*tokens\[:, :24\]"),
        (lambda t: t.flip(1).where(t.flip(1) != BOS, 5), "row 3 begins with a run of pad_id=1.*left"),
        (lambda t: torch.full_like(t, PAD), "nothing is left"),
    ],
)
def test_wrong_tokens_are_named(model, tokens, change, message):
    with pytest.raises(ValueError, match=message):
        harvest(model, change(tokens))


@pytest.mark.parametrize(
    ("hook_name", "message"),
    [
        ("blocks.1.resid_post", "Did you mean 'blocks.1.hook_resid_post'"),
        ("zzzz", "See list"),
        ("blocks.1.attn.hook_pattern", "one number per pair of tokens"),
        ("blocks.1.attn.hook_result", "set_use_attn_result"),
    ],
)
def test_wrong_hooks_are_named(model, tokens, hook_name, message):
    with pytest.raises(ValueError, match=message):
        harvest(model, tokens, hook_name)


def test_a_hook_that_never_fires_and_other_refusals(model, tokens, tmp_path):
    with pytest.raises(RuntimeError, match=r"exists but did not fire"):
        harvest(model, tokens, "blocks.0.attn.qkv.hook_out")  # q, k and v are computed one by one
    with pytest.raises(ValueError, match=r"float16 is not stored"):
        harvest(model, tokens, dtype=torch.float16)
    with model.hooks([("blocks.0.hook_resid_post", lambda x, hook: 2 * x)]):
        with pytest.raises(ValueError, match="reset_hooks"):
            harvest(model, tokens, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "name, value", [("batch_size", 0), ("batch_size", -1), ("shard_bytes", 0), ("shard_bytes", -9)]
)
def test_sizes_below_one_are_named_before_anything_is_written(model, tokens, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}={value} must be at least 1: "):
        harvest(model, tokens, cache_dir=tmp_path / "cache", **{name: value})
    assert not list(tmp_path.iterdir())


def test_nan_is_named(model, tokens):
    def poison(x, hook):
        return x.index_fill(2, torch.tensor([5]), float("nan"))

    with model.hooks([("blocks.0.hook_resid_post", poison)]):
        with pytest.raises(ValueError, match="rows 0 to 3 of tokens: activation 0, coordinate 0 is NaN"):
            harvest(model, tokens)
    acts = torch.zeros(9_000_000, 2)
    acts[8_999_999, 1] = float("inf")
    with pytest.raises(ValueError, match="activation 8999999, coordinate 1"):
        ActivationStore.from_tensor(acts)


# ---------------------------------------------------------------------- on disk


SMALL = {"shard_bytes": 8 * CONTEXT * D_MODEL * 4}  # two forward passes of four rows in each shard


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_disk_equals_memory_and_is_found_again(model, tokens, tmp_path, monkeypatch):
    in_memory = harvest(model, tokens)
    on_disk = harvest(model, tokens, cache_dir=tmp_path, **SMALL)
    assert len(list(on_disk.folder.glob("shard_*.bin"))) == 5
    assert not list(on_disk.folder.glob("*unfinished"))
    assert torch.equal(on_disk.rows(slice(None)), in_memory.rows(slice(None)))
    assert_close(on_disk.mean, in_memory.mean, rtol=1e-6, atol=1e-7)
    assert on_disk.scale == pytest.approx(in_memory.scale, rel=1e-12)
    for ours, theirs in zip(everything(on_disk, buffer_bytes=5000), everything(in_memory)):
        assert torch.equal(ours, theirs)

    monkeypatch.setattr("sae_tutorial.activations.harvesting.read_hook", None)  # from here on the model must not run
    assert harvest(model, tokens, cache_dir=tmp_path).folder == on_disk.folder
    opened = ActivationStore.open(on_disk.folder)
    assert torch.equal(opened.rows(torch.tensor([9, 3])), in_memory.rows(torch.tensor([9, 3])))
    assert opened.hook_name == "blocks.1.hook_resid_post" and torch.equal(opened.tokens, tokens)


def test_an_interrupted_harvest_resumes_and_ends_with_the_same_bytes(model, tokens, tmp_path, monkeypatch):
    whole = harvest(model, tokens, cache_dir=tmp_path / "whole", **SMALL)
    passes = Counter()
    real = read_hook

    def interrupted_after(n):
        from contextlib import contextmanager

        @contextmanager
        def opened(model, hook_name, *, fused=True):
            with real(model, hook_name, fused=fused) as read:

                def counted(tokens):
                    if len(tokens) > 1:  # not the probe
                        passes["n"] += 1
                        if passes["n"] > n:
                            raise KeyboardInterrupt
                    return read(tokens)

                yield counted

        return opened

    monkeypatch.setattr("sae_tutorial.activations.harvesting.read_hook", interrupted_after(5))
    with pytest.raises(KeyboardInterrupt):
        harvest(model, tokens, cache_dir=tmp_path / "parts", **SMALL)
    folder = tmp_path / "parts" / whole.folder.name
    assert len(list(folder.glob("shard_*.bin"))) == 2
    with pytest.raises(ValueError, match=r"shard_00002.bin or its .json is missing.*Harvest again"):
        ActivationStore.open(folder)

    passes.clear()
    monkeypatch.setattr("sae_tutorial.activations.harvesting.read_hook", interrupted_after(10**9))
    resumed = harvest(model, tokens, cache_dir=tmp_path / "parts", batch_size=16)  # the first cut is kept
    assert passes["n"] == 10 - 4 - 1  # ten in all, four done before; the row that is alone in the last is not counted
    assert files(resumed.folder) == files(whole.folder)


def test_two_that_begin_together_agree_on_one_cut(model, tokens, tmp_path, monkeypatch):
    """Between our look for a manifest and our own, another process wrote one with another batch size."""
    whole = harvest(model, tokens, cache_dir=tmp_path / "whole", batch_size=4, **SMALL)
    ours = tmp_path / "ours" / whole.folder.name
    real = harvesting.write_once

    def too_late(path, content):
        if path == ours / "harvest.json" and not path.exists():
            path.write_bytes((whole.folder / "harvest.json").read_bytes())
        real(path, content)

    monkeypatch.setattr(harvesting, "write_once", too_late)
    assert harvest(model, tokens, cache_dir=tmp_path / "ours", batch_size=16, **SMALL).folder == ours
    assert files(ours) == files(whole.folder)


@pytest.mark.parametrize("links", [True, False])
def test_only_the_first_writes(links, tmp_path, monkeypatch):
    def no_links(*paths):
        raise PermissionError("no hard links on this file system")

    if not links:
        monkeypatch.setattr("os.link", no_links)
    for content in (b"first", b"second"):
        write_once(tmp_path / "file", content)
    assert files(tmp_path) == {"file": b"first"}


def test_the_key_depends_on_what_was_harvested(model, tokens, tmp_path):
    def with_another_weight():
        weight = model.blocks[2].mlp.out.weight  # behind the hook, but the key speaks of the model
        with torch.no_grad():
            kept, weight[0, 0] = weight[0, 0].clone(), 7.0
            try:
                return harvest(model, tokens[:4], cache_dir=tmp_path).folder
            finally:
                weight[0, 0] = kept

    folders = [
        harvest(model, tokens[:4], cache_dir=tmp_path).folder,
        harvest(model, tokens[:5], cache_dir=tmp_path).folder,
        with_another_weight(),
        harvest(model, tokens[:4], "blocks.0.hook_mlp_out", cache_dir=tmp_path).folder,
        harvest(model, tokens[:4], cache_dir=tmp_path, dtype=torch.bfloat16).folder,
        harvest(model, tokens[:4], cache_dir=tmp_path, bos_id=None).folder,
    ]
    assert len(set(folders)) == len(folders)


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip_a_byte(f / "shard_00001.bin"), r"shard_00001.bin is corrupted.*Delete this file"),
        (lambda f: (f / "shard_00001.bin").write_bytes(b"12"), r"shard_00001.bin holds 2 bytes"),
        (lambda f: (f / "shard_00001.json").write_text("{}"), r"shard_00001.json is not the record"),
        (lambda f: (f / "shard_00001.json").write_text("[1"), r"shard_00001.json is not the record"),
        (lambda f: flip_a_byte(f / "tokens.npy"), r"tokens.npy is missing or corrupted"),
        (lambda f: (f / "harvest.json").write_text("{}"), r"harvest.json is damaged"),
        (lambda f: (f / "harvest.json").unlink(), r"has no harvest.json"),
    ],
)
def test_damage_is_refused_with_the_file_and_the_fix(model, tokens, tmp_path, damage, message):
    store = harvest(model, tokens, cache_dir=tmp_path, **SMALL)
    damage(store.folder)
    with pytest.raises(ValueError, match=message):
        ActivationStore.open(store.folder)


def test_a_foreign_shard_is_refused_and_the_fix_works(model, tokens, tmp_path):
    store = harvest(model, tokens, cache_dir=tmp_path, **SMALL)
    other = harvest(model, tokens, "blocks.0.hook_resid_post", cache_dir=tmp_path, **SMALL)
    good = files(store.folder)
    for name in ("shard_00001.bin", "shard_00001.json"):
        (store.folder / name).write_bytes((other.folder / name).read_bytes())
    for attempt in (
        lambda: ActivationStore.open(store.folder, verify=False),
        lambda: harvest(model, tokens, cache_dir=tmp_path),
    ):
        with pytest.raises(ValueError, match=r"shard_00001.bin belongs to another harvest"):
            attempt()
    (store.folder / "shard_00001.bin").unlink()  # what the error says
    harvest(model, tokens, cache_dir=tmp_path)
    assert files(store.folder) == good


def test_bfloat16_takes_half_the_space_and_rounds_only(model, tokens, tmp_path):
    full = harvest(model, tokens)
    half = harvest(model, tokens, cache_dir=tmp_path, dtype=torch.bfloat16, **SMALL)
    assert sum(f.stat().st_size for f in half.folder.glob("*.bin")) == len(half) * D_MODEL * 2
    assert torch.equal(half.rows(slice(None)), full.rows(slice(None)).bfloat16().float())
    assert everything(half)[0].dtype == torch.float32
    # Normalisation is measured on what is stored.
    assert_close(half.mean, half.rows(slice(None)).double().mean(0).float())


def test_an_all_padding_stretch_leaves_no_empty_shard(model, tokens, tmp_path):
    padded = tokens.clone()
    padded[8:16, 1:] = PAD
    store = harvest(model, padded, cache_dir=tmp_path, **SMALL)
    assert len(list(store.folder.glob("shard_*.bin"))) == 4
    assert torch.equal(store.rows(slice(None)), harvest(model, padded).rows(slice(None)))


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
        from sae_tutorial.activations.shards import Shard

        shards = []
        for i, part in enumerate(acts.split([100, 1, 399, 500])):
            shards.append(Shard(tmp_path / f"{i}.bin", "key", len(part), 3, torch.float32))
            shards[-1].write(part, Moments.of(part))
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


def test_positions_outside_the_store_are_not_located(model, tokens):
    store = harvest(model, tokens)
    assert [place.tolist() for place in store.locate([0, 23])] == [[0, 1], [1, 1]]
    for wrong in (-1, [0, len(store)]):
        with pytest.raises(ValueError, match=rf"positions must lie in 0..{len(store) - 1}, got"):
            store.locate(wrong)


def test_wrong_numbers_are_named(numbered_store):
    with pytest.raises(ValueError, match=r"batch_size=1001 is larger than the store \(1000 positions\)"):
        numbered_store.batches(1001, 0)
    assert len(next(numbered_store.batches(1001, 0, drop_last=False))) == 1000
    for wrong in ({"batch_size": 0}, {"seed": -1}, {"start_batch": -1}, {"epochs": 0}):
        with pytest.raises(ValueError, match="at least"):
            numbered_store.batches(**{"batch_size": 8, "seed": 0, **wrong})
    for wrong in (torch.randn(3), torch.ones(3, 3).long(), torch.randn(0, 4)):
        with pytest.raises(ValueError, match="acts must be a floating"):
            ActivationStore.from_tensor(wrong)


# ---------------------------------------------------------------------- normalisation


def test_normalised_activations_have_mean_zero_and_expected_norm_root_d():
    acts = torch.randn(5000, 20, generator=torch.Generator().manual_seed(0)) * torch.rand(20) * 7 + 100
    store = ActivationStore.from_tensor(acts)
    assert_close(store.mean, acts.double().mean(0).float())
    x = torch.cat(everything(store, normalise=True))
    assert_close(x.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    assert x.square().sum(1).mean().item() == pytest.approx(20, rel=1e-4)
    assert_close(store.denormalise(store.normalise(acts)), acts)
    assert_close(store.normalise(acts[:7]), (acts[:7] - store.mean) / store.scale)


def test_the_measurement_is_numerically_stable():
    """A spread of 1 around 30,000, where E[x²] - E[x]² in float32 is all rounding."""
    acts = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0)) + 30_000
    store = ActivationStore.from_tensor(acts)
    exact = (acts.double() - acts.double().mean(0)).square().mean().sqrt().item()
    assert store.scale == pytest.approx(exact, rel=1e-12)
    parts = [Moments.of(part) for part in acts.split([1, 7, 9_992, 190_000])]
    assert Moments.merged(parts).scale == pytest.approx(exact, rel=1e-10)


def test_equal_activations_have_no_scale():
    store = ActivationStore.from_tensor(torch.ones(10, 4))
    assert store.scale == 0
    with pytest.raises(ValueError, match="no scale"):
        next(store.batches(2, 0, normalise=True))
    with pytest.raises(ValueError, match="no scale"):
        store.normalise(torch.ones(4))


def test_a_store_says_what_it_is(model, tokens, tmp_path):
    assert repr(ActivationStore.from_tensor(torch.randn(1200, 8))) == "ActivationStore(1,200 × 8 float32, in memory)"
    store = harvest(model, tokens, cache_dir=tmp_path)
    assert "float32 of blocks.1.hook_resid_post, on disk at" in repr(store)
    assert json.loads((store.folder / "harvest.json").read_text())["spec"]["bos_id"] == BOS


# ---------------------------------------------------------------------- memory


STREAM = """
    import resource, sys, time
    from pathlib import Path
    import torch
    from sae_tutorial.activations import ActivationStore
    from sae_tutorial.shards import Moments, Shard

    folder, n, d, per_shard = Path(sys.argv[1]), int(sys.argv[2]), 256, 131_072
    block, shards = torch.randn(per_shard, d), []
    for i, a in enumerate(range(0, n, per_shard)):
        rows = block[: n - a]
        rows[:, 0] = torch.arange(a, a + len(rows))
        shards.append(Shard(folder / f"{i}.bin", "key", len(rows), d, torch.float32))
        shards[-1].write(rows, Moments(len(rows), rows[0].double(), 1.0))
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


def test_an_end_mark_that_also_pads_is_text():
    """GPT-2's tokenizers name the end mark as padding; a piece of a story may well begin with it."""
    tokenizer = SimpleNamespace(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    assert special_ids(SimpleNamespace(tokenizer=tokenizer), "auto", "auto") == (0, None)
    assert special_ids(SimpleNamespace(tokenizer=tokenizer), "auto", 0) == (0, 0)
    tokenizer.pad_token_id = 1
    assert special_ids(SimpleNamespace(tokenizer=tokenizer), "auto", "auto") == (0, 1)
