"""save_sae and load_sae: ours come back bit for bit, whatever was folded on the way; what is wrong is said in words."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic import make
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, load_sae, save_sae
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.saving import load_metadata

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
