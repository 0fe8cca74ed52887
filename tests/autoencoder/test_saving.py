"""save_sae and load_sae: ours come back bit for bit, whatever was folded on the way; what is wrong is said in words."""

import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic import make
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, load_sae, save_sae
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.saving import WITHOUT_CHECKSUMS, load_metadata
from sae_tutorial.autoencoder.shipped import pack, unpack
from sae_tutorial.training.start import with_rule

RULES = BUDGET_RULES + PENALTY_RULES
VARIANTS = [{}, {"tied": True}, {"b_dec": False}, {"d_out": 5}, {"d_out": 5, "skip": True}]


def trained(rule, **more):
    """As `make`, and with every buffer away from its default."""
    sae = make(rule, d_sae=24, **more)
    sae.rank.copy_(torch.randperm(24, generator=torch.Generator().manual_seed(3)))
    sae.zipf_law.copy_(torch.tensor([1.1, 1 / 3], dtype=torch.float64))
    sae.tokens_seen.fill_(12345)
    return sae


def tokens(n=40, d_in=8):
    return 1 + 3 * torch.randn(n, d_in, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_round_trip_is_exact(rule, more, tmp_path):
    sae = trained(rule, **more)
    loaded = load_sae(save_sae(sae, tmp_path / "sae"))
    assert loaded.config == sae.config
    state, again = sae.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys()
    for name in state:
        assert state[name].dtype == again[name].dtype and torch.equal(state[name], again[name]), name
    assert [(n, p.requires_grad) for n, p in sae.named_parameters()] == [
        (n, p.requires_grad) for n, p in loaded.named_parameters()
    ]
    assert torch.equal(sae(tokens()), loaded(tokens()))
    assert loaded.W_enc.T.is_contiguous() == sae.W_enc.T.is_contiguous()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_without_the_exact_part_the_function_is_the_same(rule, more, tmp_path):
    sae = trained(rule, **more)
    loaded = load_sae(save_sae(sae, tmp_path, exact=False))
    assert loaded.scale == 1 and torch.equal(loaded.mean, torch.zeros(8))
    assert_close(loaded(tokens()), sae(tokens()), rtol=1e-4, atol=1e-4)
    assert loaded.tokens_seen == 12345 and torch.equal(loaded.rank, sae.rank)
    assert "W_dec" not in load_file(tmp_path / "sae_tutorial.safetensors")


@pytest.mark.parametrize("rule", RULES)
def test_the_saelens_files_stand_alone_and_read_raw_activations(rule, tmp_path):
    sae = trained(rule)
    files = [path.name for path in save_sae(sae, tmp_path, format="saelens").iterdir()]
    assert sorted(files) == ["cfg.json", "sae_weights.safetensors"]
    loaded = load_sae(tmp_path)
    kept = {"relu": "relu", "token_choice": "token_choice", "gated": "gated"}
    assert loaded.config.rule == kept.get(rule, "jumprelu")
    assert_close(loaded.encode(tokens()).to_dense(), sae.encode(tokens()).to_dense(), rtol=1e-4, atol=1e-4)
    assert_close(loaded(tokens()), sae(tokens()), rtol=1e-4, atol=1e-4)


def test_nothing_is_stored_twice_where_there_is_no_normalisation(tmp_path):
    sae = trained("token_choice")
    sae.mean.zero_()
    sae.scale.fill_(1)
    save_sae(sae, tmp_path)
    assert not {"W_enc", "W_dec", "b_enc", "b_dec"} & load_file(tmp_path / "sae_tutorial.safetensors").keys()


@pytest.mark.parametrize(
    "rule, more, architecture",
    [
        ("relu", {}, "standard"),
        ("token_choice", {}, "topk"),
        ("mutual_choice", {}, "jumprelu"),
        ("feature_choice", {}, "jumprelu"),
        ("matryoshka", {}, "jumprelu"),
        ("jumprelu", {}, "jumprelu"),
        ("gated", {}, "gated"),
        ("relu", {"d_out": 5}, "transcoder"),
        ("relu", {"d_out": 5, "skip": True}, "skip_transcoder"),
        ("mutual_choice", {"d_out": 5}, "jumprelu_transcoder"),
        ("feature_choice", {"d_out": 5, "skip": True}, "jumprelu_skip_transcoder"),
        ("token_choice", {"d_out": 5}, "topk_transcoder"),
    ],
)
def test_saelens_is_told_what_it_is(rule, more, architecture, tmp_path):
    save_sae(trained(rule, **more), tmp_path, model_name="stories", hook_name="blocks.1.attn.hook_z", layer=1)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert cfg["architecture"] == architecture
    assert (cfg["d_in"], cfg["d_sae"], cfg["dtype"], cfg["normalize_activations"]) == (8, 24, "float32", "none")
    assert cfg["apply_b_dec_to_input"] == ("d_out" not in more)
    assert cfg["reshape_activations"] == "hook_z" and cfg.get("d_out") == more.get("d_out")
    metadata = load_metadata(tmp_path)
    assert (metadata["model_name"], metadata["hook_name"], metadata["layer"]) == ("stories", "blocks.1.attn.hook_z", 1)
    assert "context_size" not in metadata


def test_saving_again_replaces_everything(tmp_path):
    save_sae(trained("gated"), tmp_path)
    second = trained("token_choice", d_out=5)
    save_sae(second, tmp_path)
    assert torch.equal(load_sae(tmp_path)(tokens()), second(tokens()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cfg.json",
        "sae_tutorial.json",
        "sae_tutorial.safetensors",
        "sae_weights.safetensors",
    ]


def test_a_loaded_sae_goes_on_training(tmp_path):
    loaded = load_sae(save_sae(trained("mutual_choice"), tmp_path))
    loaded(tokens()).square().sum().backward()
    assert loaded.W_enc.grad.abs().sum() > 0 and loaded.W_dec.grad.abs().sum() > 0


def test_other_dtypes_come_back_too(tmp_path):
    sae = SparseAutoencoder(SAEConfig(8, 24, "token_choice", 4)).bfloat16()
    loaded = load_sae(save_sae(sae, tmp_path))
    assert loaded.W_dec.dtype == torch.bfloat16 and torch.equal(loaded.W_enc, sae.W_enc)


def test_refuses_to_save_an_sae_that_others_would_read_as_relu(tmp_path):
    for rule in ("mutual_choice", "feature_choice", "matryoshka"):
        with pytest.raises(ValueError, match="no inference threshold.*measure_thresholds"):
            save_sae(SparseAutoencoder(SAEConfig(8, 24, rule, 4)), tmp_path)
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------- what is wrong is said


@pytest.fixture
def folder(tmp_path):
    return save_sae(trained("mutual_choice"), tmp_path / "sae")


@pytest.fixture
def plain(tmp_path):
    """The same as SAELens writes it."""
    return save_sae(trained("mutual_choice"), tmp_path / "plain", format="saelens")


def change(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_folders_without_an_sae(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is a file; give the folder"):
        load_sae(folder / "cfg.json")
    with pytest.raises(FileNotFoundError, match="several SAEs; give the folder of one: sae"):
        load_sae(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="none of sae_tutorial.json, sae_weights.safetensors"):
        load_sae(tmp_path / "empty")


def test_damaged_files_are_named(folder, plain):
    weights = folder / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="sae_weights.safetensors is damaged"):
        load_sae(folder)
    weights.write_bytes(whole)
    (folder / "sae_tutorial.json").write_text("{")
    with pytest.raises(ValueError, match="sae_tutorial.json is damaged, it is no JSON"):
        load_sae(folder)
    (plain / "cfg.json").unlink()
    with pytest.raises(FileNotFoundError, match="cfg.json is missing"):
        load_sae(plain)


def test_versions_from_the_future(folder):
    change(folder / "sae_tutorial.json", format="sae_tutorial SAE, version 3")
    with pytest.raises(ValueError, match="version 3.*use the version that wrote it"):
        load_sae(folder)


def test_weights_that_do_not_fit_their_config(plain):
    change(plain / "cfg.json", d_sae=12)
    with pytest.raises(ValueError, match=r"does not fit its config.*W_dec is \(24, 8\), not \(12, 8\)"):
        load_sae(plain)
    change(plain / "cfg.json", d_sae=24)
    weights = load_file(plain / "sae_weights.safetensors")
    del weights["threshold"]
    save_file(weights | {"other": torch.ones(24)}, plain / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="threshold is missing; other is unknown"):
        load_sae(plain)


def test_saelens_folders_that_are_not_what_they_seem(plain):
    change(plain / "cfg.json", architecture="batchtopk")
    with pytest.raises(ValueError, match="architecture 'batchtopk'.*save_inference_model"):
        load_sae(plain)
    change(plain / "cfg.json", architecture="jumprelu", normalize_activations="layer_norm")
    with pytest.raises(ValueError, match="normalize_activations='layer_norm'.*cannot express"):
        load_sae(plain)
    change(plain / "cfg.json", architecture="topk", normalize_activations="none", k=None)
    with pytest.raises(ValueError, match="needs k"):
        load_sae(plain)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(d_in="8"), "does not describe an SAE: d_in must be a whole number, 1 or more, got '8'"),
        (dict(k=99), "does not describe an SAE: k must be at most d_sae=24, got 99"),
        (dict(k=2.5), "does not describe an SAE: k must be a whole number for token_choice, got 2.5"),
    ],
)
def test_configs_that_make_no_sense_are_named_with_their_file(plain, changes, words):
    change(plain / "cfg.json", architecture="topk", **dict(k=4) | changes)
    with pytest.raises(ValueError, match=f"cfg.json {words}"):
        load_sae(plain)
    cfg = json.loads((plain / "cfg.json").read_text())
    del cfg["d_in"]
    (plain / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(ValueError, match="cfg.json: 'd_in' is missing; it holds "):
        load_sae(plain)


def test_our_own_file_is_named_too(folder):
    whole = json.loads((folder / "sae_tutorial.json").read_text())
    change(folder / "sae_tutorial.json", config=whole["config"] | {"later": 1})
    with pytest.raises(ValueError, match="sae_tutorial.json does not describe an SAE: .*'later'"):
        load_sae(folder)
    change(folder / "sae_tutorial.json", config=None)
    with pytest.raises(ValueError, match="sae_tutorial.json: config must be an object, it is None"):
        load_sae(folder)


def test_null_is_no_normalisation_and_nan_is_no_weight(plain):
    change(plain / "cfg.json", normalize_activations=None)
    load_sae(plain)
    weights = load_file(plain / "sae_weights.safetensors")
    weights["W_enc"][3, 2] = torch.nan
    save_file(weights, plain / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="sae_weights.safetensors: W_enc holds NaN"):
        load_sae(plain)


def test_saelens_encoders_that_do_not_subtract_b_dec(plain):
    change(plain / "cfg.json", apply_b_dec_to_input=False)
    weights, x = load_file(plain / "sae_weights.safetensors"), tokens()
    pre = x @ weights["W_enc"] + weights["b_enc"]
    expected = (pre.relu() * (pre > weights["threshold"])) @ weights["W_dec"] + weights["b_dec"]
    assert_close(load_sae(plain)(x), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_files_of_others_are_read_in_float32(plain):
    weights = load_file(plain / "sae_weights.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, plain / "sae_weights.safetensors")
    assert load_sae(plain).W_dec.dtype == torch.float32


def test_pickles_with_code_in_them_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"encoder.weight": Trap()}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_sae(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_dictionary_learning_without_its_config(tmp_path):
    torch.save({"encoder.weight": torch.zeros(16, 8), "encoder.bias": torch.zeros(16)}, tmp_path / "ae.pt")
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "CrossCoder"}}))
    with pytest.raises(ValueError, match="dict_class .*must be one of AutoEncoder.*got 'CrossCoder'"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK", "k": 4}}))
    with pytest.raises(ValueError, match="'decoder.weight' is missing; it holds encoder.bias, encoder.weight"):
        load_sae(tmp_path)
    torch.save({"encoder.weight": torch.zeros(3), "decoder.weight": torch.zeros(3)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"ae.pt: encoder.weight must be a matrix, it has shape \(3,\)"):
        load_sae(tmp_path)
    torch.save([1, 2], tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="ae.pt must hold tensors by name"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": None}))
    with pytest.raises(ValueError, match="config.json: trainer must be an object with dict_class, it is None"):
        load_sae(tmp_path)


def test_the_config_is_what_it_was(tmp_path):
    sae = trained("matryoshka", groups=(8, 16))
    assert load_sae(save_sae(sae, tmp_path)).config == replace(sae.config, groups=(8, 16))


# ---------------------------------------------------------------------- numbers and names that come along


def test_metadata_of_every_kind(tmp_path):
    save_sae(
        trained("relu"),
        tmp_path,
        model_name=Path("models") / "mine",
        context_size=np.int64(128),
        lr=np.float32(0.5),
        steps=torch.tensor(30),
        path=[Path("a"), {"b": np.bool_(True), "c": np.arange(2)}],
        nothing=None,
    )
    found = load_metadata(tmp_path)
    assert found["model_name"] == "models/mine" and found["context_size"] == 128
    assert (found["lr"], found["steps"], found["path"]) == (0.5, 30, ["a", {"b": True, "c": [0, 1]}])
    assert "nothing" not in found and load_sae(tmp_path).model_name == "models/mine"


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value", [object(), 1j, {1, 2}, b"x", float("nan"), np.inf, torch.tensor(1j), {(1, 2): 3}, LOOP]
)
@pytest.mark.parametrize("name", ["model_name", "data"])
def test_metadata_that_json_cannot_hold_is_named_before_anything_is_written(name, value, tmp_path):
    sae = trained("token_choice")
    save_sae(sae, tmp_path, data="kept")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        TypeError, match=f"^{name} cannot be written as JSON, it is .*text, finite numbers, lists and dicts"
    ):
        save_sae(trained("gated"), tmp_path, **{name: value})
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("format", [None, "saelens"])
def test_where_it_belongs_is_saved_and_loaded(format, tmp_path):
    sae = trained("relu", d_out=5)
    sae.model_name, sae.hook_name, sae.target_hook_name = (
        "stories",
        "blocks.1.ln2.hook_normalized",
        "blocks.1.hook_mlp_out",
    )
    loaded = load_sae(save_sae(sae, tmp_path, format=format))
    for name in ("model_name", "hook_name", "target_hook_name"):
        assert getattr(loaded, name) == getattr(sae, name)
    assert load_metadata(tmp_path)["hook_name_out"] == "blocks.1.hook_mlp_out"
    assert loaded.imported == (format is not None)
    save_sae(sae, tmp_path, hook_name="blocks.0.hook_resid_post")
    assert load_sae(tmp_path).hook_name == "blocks.0.hook_resid_post" and sae.hook_name.startswith("blocks.1")
    fresh = load_sae(save_sae(trained("relu"), tmp_path / "fresh"))
    assert fresh.model_name is fresh.hook_name is fresh.target_hook_name is None and not fresh.imported


def test_copies_keep_where_they_belong(tmp_path):
    sae = trained("mutual_choice")
    sae.model_name, sae.hook_name, sae.target_hook_name, sae.imported = "stories", "hook", "target", True
    pack(sae, tmp_path)
    copies = [copy.deepcopy(sae), folded(sae), with_rule(sae, "token_choice"), sae.double(), unpack(tmp_path)]
    for other in copies:
        assert (other.model_name, other.hook_name, other.target_hook_name, other.imported) == (
            "stories",
            "hook",
            "target",
            True,
        )
    assert not SparseAutoencoder(sae.config).imported


def test_home_is_understood_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert save_sae(trained("relu"), "~/saes/one", lr=1) == tmp_path / "saes" / "one"
    assert load_sae("~/saes/one").config.rule == "relu" and load_metadata("~/saes/one")["lr"] == 1
    assert not (tmp_path / "~").exists()
    for bad in (None, 3, ""):
        for use in (load_sae, load_metadata, lambda folder: save_sae(trained("relu"), folder)):
            with pytest.raises(TypeError, match="folder must be the path"):
                use(bad)


# ---------------------------------------------------------------------- values that no SAE can work with

BAD = {
    "W_enc": (torch.nan, "W_enc holds NaN"),
    "W_dec": (torch.inf, "W_dec holds inf"),
    "b_enc": (-torch.inf, "b_enc holds inf"),
    "b_dec": (torch.nan, "b_dec holds NaN"),
    "threshold": (torch.nan, "threshold holds NaN"),
    "mean": (torch.inf, "mean holds inf"),
    "scale": (0.0, "scale must be greater than 0, it is 0.0"),
    "zipf_law": (-2.0, "zipf_law must be"),
    "rank": (0, "rank must hold each of 0 to 23 once"),
    "tokens_seen": (-1, "tokens_seen must be 0 or more, it is -1"),
}
MORE = {
    "scale": [-1.0, torch.inf, torch.nan],
    "rank": [24, -1],
    "out_scale": [0.0, torch.nan],
    "threshold": [-torch.inf],
}
CASES = [(name, value, words) for name, (value, words) in BAD.items()]
CASES += [(name, value, name) for name, values in MORE.items() for value in values]


def spoil(tensors, name, value):
    with torch.no_grad():
        tensors[name][(-1,) * tensors[name].dim()] = value


def as_before_checksums(folder):
    """The folder as earlier versions wrote it."""
    ours = json.loads((folder / "sae_tutorial.json").read_text())
    old = {"format": WITHOUT_CHECKSUMS, "config": ours["config"]}
    (folder / "sae_tutorial.json").write_text(json.dumps(old))
    return folder


@pytest.mark.parametrize("name, value, words", CASES)
def test_bad_values_are_neither_saved_nor_loaded(name, value, words, tmp_path):
    sae = trained("feature_choice", **({"d_out": 5} if name == "out_scale" else {}))
    as_before_checksums(save_sae(sae, tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    bad = copy.deepcopy(sae)
    spoil(bad.state_dict(), name, value)
    with pytest.raises(
        ValueError, match=f"cannot be saved: {words}|no inference threshold" if name == "threshold" else words
    ):
        save_sae(bad, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    for file in (tmp_path / "sae_tutorial.safetensors", tmp_path / "sae_weights.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            spoil(tensors, name, value)
            save_file(tensors, file)
    with pytest.raises(ValueError, match=f"sae_weights.safetensors: {words}"):
        load_sae(tmp_path)


def test_weights_that_overflow_once_the_scale_is_in_them(tmp_path):
    sae = trained("relu").half()
    sae.scale.fill_(60_000)
    with torch.no_grad():
        sae.W_dec.mul_(3)
    with pytest.raises(ValueError, match="torch.float16 cannot hold this SAE.*use sae.float"):
        save_sae(sae, tmp_path / "sae")
    save_sae(sae.float(), tmp_path / "sae")


def test_features_that_may_never_match_are_no_damage(tmp_path):
    sae = trained("feature_choice")
    sae.threshold[3] = torch.inf
    for format in (None, "saelens", "dictionary_learning"):
        loaded = load_sae(save_sae(sae, tmp_path / str(format), format=format))
        assert torch.equal(loaded.threshold, sae.threshold) or format == "dictionary_learning"
        torch.testing.assert_close(loaded(tokens()), sae(tokens()), rtol=1e-4, atol=1e-4)


def test_weights_of_the_wrong_kind(tmp_path):
    save_sae(trained("relu"), tmp_path, format="saelens")
    weights = load_file(tmp_path / "sae_weights.safetensors")
    for name, other in (("W_enc", torch.int32), ("b_enc", torch.bool)):
        save_file(weights | {name: weights[name].to(other)}, tmp_path / "sae_weights.safetensors")
        with pytest.raises(ValueError, match=f"one floating-point precision.*{name} in {other}"):
            load_sae(tmp_path)
    folder = as_before_checksums(save_sae(trained("relu"), tmp_path / "ours"))
    exact = load_file(folder / "sae_tutorial.safetensors")
    save_file(exact | {"W_dec": exact["W_dec"].half()}, folder / "sae_tutorial.safetensors")
    with pytest.raises(ValueError, match="one floating-point precision.*W_dec in torch.float16"):
        load_sae(folder)


# ---------------------------------------------------------------------- precision


@pytest.mark.parametrize("rule", RULES)
def test_no_buffer_is_in_double_precision(rule, tmp_path):
    """Some devices have none. Earlier versions kept zipf_law in it."""
    folder = as_before_checksums(save_sae(trained(rule), tmp_path))
    exact = load_file(folder / "sae_tutorial.safetensors")
    save_file(exact | {"zipf_law": exact["zipf_law"].double()}, folder / "sae_tutorial.safetensors")
    loaded = load_sae(folder)
    for sae in (loaded, loaded.to(torch.float16), loaded.to(torch.bfloat16)):
        assert {t.dtype for t in sae.state_dict().values() if t.is_floating_point()} == {sae.W_dec.dtype}
        assert sae.W_dec.dtype != torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("exact", [True, False])
def test_every_precision_comes_back(dtype, exact, tmp_path):
    sae = trained("feature_choice").to(dtype)
    loaded = load_sae(save_sae(sae, tmp_path, exact=exact))
    assert {t.dtype for t in loaded.state_dict().values() if t.is_floating_point()} == {dtype}
    x = tokens().to(dtype)
    if exact:
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in sae.state_dict().items())
    elif dtype == torch.float64:
        torch.testing.assert_close(loaded(x), sae(x), rtol=1e-10, atol=1e-10)  # folding loses nothing on the way


# ---------------------------------------------------------------------- damage


def flips(content, n, seed=0):
    """The content with one bit flipped, n times at random places."""
    chance = random.Random(seed)
    for _ in range(n):
        place = chance.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        yield bytes(damaged)


@pytest.mark.parametrize(
    "name", ["sae_weights.safetensors", "sae_tutorial.safetensors", "sae_tutorial.json", "cfg.json"]
)
def test_a_flipped_bit_in_our_files_is_noticed(folder, name):
    before, file = load_sae(folder).state_dict(), folder / name
    whole, noticed = file.read_bytes(), 0
    for damaged in flips(whole, 120):
        file.write_bytes(damaged)
        try:
            after = load_sae(folder).state_dict()
        except ValueError as error:
            noticed += 1
            assert str(file) in str(error) and "weights_only" not in str(error)
        else:
            assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert noticed == 120 or name.endswith("json")


@pytest.mark.parametrize("peer", ["dictionary_learning/batchtopk/ae.pt", "gemma"])
def test_a_flipped_bit_in_a_zip_file_is_noticed(peer, tmp_path):
    peers = Path(__file__).parents[1] / "fixtures" / "peers"
    source = next(peers.rglob("params.npz")) if peer == "gemma" else peers / peer
    for file in source.parent.iterdir():
        shutil.copy(file, tmp_path)
    before, noticed = load_sae(tmp_path).state_dict(), 0
    for damaged in flips(source.read_bytes(), 200):
        (tmp_path / source.name).write_bytes(damaged)
        try:
            after = load_sae(tmp_path).state_dict()
        except ValueError as error:
            noticed += 1
            assert source.name in str(error) and "weights_only" not in str(error)
        else:
            assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert noticed > 100


def test_files_of_two_saves_are_no_sae(folder, tmp_path):
    other = save_sae(trained("mutual_choice"), tmp_path / "other")
    sae = load_sae(other)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.add_(1)
    save_sae(sae, other)
    for name in ("sae_weights.safetensors", "sae_tutorial.safetensors", "sae_tutorial.json"):
        kept = (folder / name).read_bytes()
        shutil.copy(other / name, folder / name)
        with pytest.raises(ValueError, match="is damaged or was changed: it is not what was saved"):
            load_sae(folder)
        (folder / name).write_bytes(kept)
    load_sae(folder)


def test_a_save_that_an_earlier_version_did_not_finish(folder):
    (folder / "sae_tutorial.json").unlink()
    for use in (load_sae, load_metadata):
        with pytest.raises(ValueError, match="sae_tutorial.safetensors without sae_tutorial.json: .* interrupted"):
            use(folder)


def test_folders_of_earlier_versions_load(folder):
    before = load_sae(folder).state_dict()
    after = load_sae(as_before_checksums(folder)).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    ours = json.loads((folder / "sae_tutorial.json").read_text())
    (folder / "sae_tutorial.json").write_text(json.dumps(ours | {"format": "sae_tutorial SAE, version 2"}))
    with pytest.raises(ValueError, match="it is not what was saved"):  # of this version, checksums are demanded
        load_sae(folder)


def test_no_memory_is_taken_because_our_config_says_so(folder):
    whole = json.loads((folder / "sae_tutorial.json").read_text())
    for name, value in (("d_sae", 20_000_000), ("d_sae", 10**18), ("d_in", 10**15), ("d_sae", 1e30), ("d_out", 10**12)):
        change(folder / "sae_tutorial.json", **whole | {"config": whole["config"] | {name: value}})
        with pytest.raises(ValueError, match=r"sae_tutorial.json is damaged or was changed|whole number"):
            load_sae(folder)
        with pytest.raises(ValueError, match=r"sae_weights.safetensors does not fit its config|whole number"):
            load_sae(as_before_checksums(folder))
    (folder / "sae_tutorial.json").write_text(json.dumps(whole))
    change(folder / "sae_tutorial.json", config=whole["config"] | {"k": 5})  # fits, but is not what was saved
    with pytest.raises(ValueError, match="sae_tutorial.json is damaged or was changed"):
        load_sae(folder)
