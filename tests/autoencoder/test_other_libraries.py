"""Files written by the real SAELens (3 to 6), sparsify, dictionary_learning and Gemma Scope: we compute what they
computed; and what we write for them, they compute as we do.

`scripts/make_peer_fixtures.py` had them write these, with inputs, codes and reconstructions in `example.safetensors`,
and wrote down what they made of our SAEs in `read_by_*.json`.
"""

import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from sae_tutorial import load_sae, save_sae
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.saving import load_metadata

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
FOLDERS = {str(p.parent.relative_to(PEERS)): p.parent for p in sorted(PEERS.rglob("example.safetensors"))}
UNSET = PEERS / "dictionary_learning" / "batchtopk_threshold_unset"
GEMMA = next(folder for folder in FOLDERS.values() if "gemma" in str(folder))
OLD = ("saelens3", "saelens4", "saelens5")
RULES = {
    "saelens/topk": "token_choice",
    "saelens/topk_rescaled": "token_choice",
    "saelens/batchtopk": "jumprelu",
    "saelens/matryoshka": "jumprelu",
    "saelens/gated": "gated",
    "saelens3/standard": "relu",
    "saelens3/standard_topk": "token_choice",
    "saelens4/standard_topk": "token_choice",
    "saelens4/topk": "token_choice",
    "saelens5/standard_topk": "token_choice",
    "saelens5/topk": "token_choice",
    "saelens5/jumprelu": "jumprelu",
    "saelens5/gated": "gated",
    "sparsify/transcoder": "token_choice",
    "dictionary_learning/batchtopk": "mutual_choice",
    "dictionary_learning/matryoshka": "matryoshka",
    "dictionary_learning/jumprelu": "jumprelu",
}
# What SAELens before version 6 could write and we cannot express, and the words of the refusal.
REFUSED = {
    "layer_norm": "normalize_activations='layer_norm'.*cannot be loaded",
    "constant_norm_rescale": "normalize_activations='constant_norm_rescale'.*cannot be loaded",
    "tanh": "architecture 'standard' with activation function 'tanh-relu'",
    "gated_topk": "architecture 'gated' with activation function 'topk'",
}


def test_the_fixtures_are_there():
    assert len(FOLDERS) >= 50 and set(RULES) <= set(FOLDERS)
    assert {Path(name).parts[0] for name in FOLDERS} == {path.name for path in PEERS.glob("*/")}


@pytest.mark.parametrize("name", [n for n, f in FOLDERS.items() if f != UNSET and f.name not in REFUSED])
def test_codes_and_reconstructions_are_theirs(name, tmp_path):
    folder = FOLDERS[name]
    example = load_file(folder / "example.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = load_sae(folder, scaling_factor=0.5 if folder.name == "scaled" else None)
    assert_close(sae.encode(example["x"]).to_dense(), example["codes"], rtol=1e-5, atol=1e-5)
    assert_close(sae(example["x"]), example["x_hat"], rtol=1e-5, atol=1e-5)
    assert example["codes"].count_nonzero() > 20
    assert sae.config.rule == RULES.get(name, sae.config.rule)
    assert sae.imported and sae.started and "trained elsewhere, 0 tokens seen" in repr(sae)
    again = load_sae(save_sae(sae, tmp_path))
    assert torch.equal(again(example["x"]), sae(example["x"])) and again.imported


def test_a_threshold_that_was_never_set_is_not_taken_for_a_relu(tmp_path):
    example = load_file(UNSET / "example.safetensors")
    shutil.copytree(UNSET, tmp_path / "older")
    state = torch.load(UNSET / "ae.pt", weights_only=True)
    del state["threshold"]
    torch.save(state, tmp_path / "older" / "ae.pt")  # as early versions wrote it
    for folder in (UNSET, tmp_path / "older"):
        with pytest.warns(UserWarning, match="BatchTopKSAE has no inference threshold.*measure_thresholds"):
            sae = load_sae(folder)
        with pytest.raises(ValueError, match="no inference threshold yet"):
            sae.encode(example["x"])
        assert len(sae.encode(example["x"], batch_rule=True)) <= sae.config.k * len(example["x"])


# ---------------------------------------------------------------------- SAELens's configs


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_fixed_scale_or_our_rules_cannot_express_is_refused_by_name(version, name):
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        load_sae(PEERS / version / name)
    assert "fold" not in str(caught.value) and "save_inference_model" not in str(caught.value)


def test_architectures_of_saelens_that_we_do_not_have():
    with pytest.raises(ValueError, match="'matryoshka_batchtopk'.*save_inference_model"):
        load_sae(PEERS / "saelens" / "in_the_middle_of_training")
    for name in ("abstopk", "matching_pursuit"):
        with pytest.raises(ValueError, match=f"architecture '{name}'.*not among") as caught:
            load_sae(PEERS / "saelens" / f"unknown_{name}")
        assert "save_inference_model" not in str(caught.value)


def changed(folder, tmp_path, weights=lambda w: w, **changes):
    """A copy of a SAELens folder with changes to its config (None removes a key) and weights."""
    new = tmp_path / "changed"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    cfg = json.loads((new / "cfg.json").read_text()) | changes
    (new / "cfg.json").write_text(json.dumps({name: value for name, value in cfg.items() if value is not None}))
    save_file(weights(load_file(new / "sae_weights.safetensors")), new / "sae_weights.safetensors")
    return new


def codes_of(folder, **options):
    example = load_file(folder / "example.safetensors")
    sae = load_sae(folder, **options)
    return sae, sae.encode(example["x"]).to_dense(), example


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_fn": "topk", "activation_fn_str": None},  # as versions before 3.0 call it
        {"architecture": None},  # before there were others
        {"architecture": "topk"},
        {"architecture": "topk", "k": 4, "activation_fn_kwargs": None, "activation_fn_str": None},  # version 6
        {"architecture": "topk", "activation_fn_kwargs": {"k": 4, "signed": False}},
        {"normalize_activations": False},
        {"normalize_activations": None},
        {"noise_scale": 0.1, "reshape_activations": "none", "hook_head_index": 2},
    ],
    ids=str,
)
def test_other_ways_to_write_the_same(changes, tmp_path):
    sae, codes, example = codes_of(changed(PEERS / "saelens5" / "standard_topk", tmp_path, **changes))
    assert sae.config.rule == "token_choice" and sae.config.k == 4
    assert_close(codes, example["codes"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"activation_fn_kwargs": None}, "needs k"),
        ({"activation_fn_kwargs": {"k": 4, "signed": True}}, "'topk' {'signed': True}"),
        ({"architecture": ["relu"]}, r"architecture \['relu'\]"),
        ({"activation_fn_str": "gelu"}, "activation function 'gelu'"),
        ({"architecture": "topk", "activation_fn_str": "relu"}, "architecture 'topk' with activation function 'relu'"),
        ({"normalize_activations": "covariance_whitening"}, "'covariance_whitening'.*cannot be loaded"),
        ({"normalize_activations": "constant_scalar_rescale"}, "'constant_scalar_rescale'.*cannot be loaded"),
        ({"normalize_activations": True}, "√d_in.*load_sae.folder, scaling_factor"),
    ],
    ids=str,
)
def test_configs_that_mean_something_else_are_refused(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load_sae(changed(PEERS / "saelens5" / "standard_topk", tmp_path, **changes))


def test_a_scaling_factor_is_refused_where_it_means_nothing(tmp_path):
    for factor in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="scaling_factor must be a finite number, greater than 0"):
            load_sae(PEERS / "saelens" / "scaled", scaling_factor=factor)
    with pytest.raises(ValueError, match="scaling_factor=0.5 is not needed"):
        load_sae(PEERS / "saelens" / "topk", scaling_factor=0.5)
    with pytest.raises(ValueError, match="scaling_factor=0.5 is not for .*ae.pt; leave scaling_factor out"):
        load_sae(PEERS / "dictionary_learning" / "topk", scaling_factor=0.5)
    transcoder = changed(PEERS / "saelens" / "transcoder", tmp_path, normalize_activations="expected_average_only_in")
    with pytest.raises(ValueError, match="input and output.*cannot be loaded"):
        load_sae(transcoder, scaling_factor=0.5)


def test_scaling_factors_among_the_weights(tmp_path):
    """Versions before 3 kept one that was 1 everywhere, and called it so; later it had to be asked for."""
    finetuned = PEERS / "saelens3" / "finetuned"

    def renamed(weights):
        return {name.removeprefix("finetuning_"): tensor for name, tensor in weights.items()}

    sae, codes, example = codes_of(changed(finetuned, tmp_path, renamed))
    assert_close(sae(example["x"]), example["x_hat"], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="finetuning_scaling_factor is not set"):
        load_sae(changed(finetuned, tmp_path, renamed, finetuning_scaling_factor=False))
    _, codes, example = codes_of(
        changed(PEERS / "saelens3" / "standard", tmp_path, lambda w: w | {"scaling_factor": torch.ones(16)})
    )
    assert_close(codes, example["codes"], rtol=1e-5, atol=1e-5)


def test_no_memory_is_taken_because_a_config_says_so(tmp_path):
    for changes in ({"d_sae": 20_000_000}, {"d_in": 10**18}, {"d_sae": 1e30}, {"d_sae": 10**30}):
        for kind in ("topk", "transcoder", "gated"):
            with pytest.raises(ValueError, match=r"is .*, not |must be a whole number"):
                load_sae(changed(PEERS / "saelens" / kind, tmp_path, **changes))
    with pytest.raises(ValueError, match=r"sae.safetensors does not fit .*cfg.json: W_enc is \(8, 16\)"):
        cfg = json.loads((PEERS / "sparsify" / "topk" / "cfg.json").read_text()) | {"num_latents": 20_000_000}
        (tmp_path / "cfg.json").write_text(json.dumps(cfg))
        shutil.copy(PEERS / "sparsify" / "topk" / "sae.safetensors", tmp_path)
        load_sae(tmp_path)


# ---------------------------------------------------------------------- where an SAE belongs


def test_metadata_says_what_the_others_say(tmp_path):
    assert load_metadata(PEERS / "saelens" / "topk")["sae_lens_version"].startswith("6")
    assert load_metadata(PEERS / "dictionary_learning" / "topk")["submodule_name"] == "resid"
    assert load_metadata(PEERS / "sparsify" / "topk") == {}
    for version in OLD:
        found, sae = load_metadata(PEERS / version / "head"), load_sae(PEERS / version / "head")
        assert found["model_name"] == sae.model_name == "gpt2-small" and found["context_size"] == 128
        assert found["hook_name"] == sae.hook_name == "blocks.3.attn.hook_q" and found["hook_head_index"] == 2
        assert not {"d_in", "architecture", "dtype"} & found.keys()
    older = changed(PEERS / "saelens3" / "head", tmp_path, hook_name=None, hook_point="blocks.1.hook_resid_post")
    assert load_metadata(older)["hook_name"] == load_sae(older).hook_name == "blocks.1.hook_resid_post"


def test_names_of_folders_that_name_the_hook(tmp_path):
    shutil.copytree(PEERS / "sparsify" / "topk", tmp_path / "run" / "layers.10")
    shutil.copytree(PEERS / "sparsify" / "transcoder", tmp_path / "run" / "layers.10.mlp")
    (tmp_path / "run" / "config.json").write_text('{"model": "EleutherAI/pythia-160m", "dataset": "pile"}')
    sae = load_sae(tmp_path / "run" / "layers.10")
    assert (sae.model_name, sae.hook_name) == ("EleutherAI/pythia-160m", "blocks.10.hook_resid_post")
    assert load_metadata(tmp_path / "run" / "layers.10.mlp") == {"model_name": "EleutherAI/pythia-160m"}
    found = load_metadata(GEMMA)
    assert found == {"model_name": "gemma-2-2b", "hook_name": "blocks.3.hook_resid_post"}
    shutil.copytree(PEERS / "dictionary_learning" / "topk", tmp_path / "topk")
    config = json.loads((tmp_path / "topk" / "config.json").read_text())
    config["trainer"] |= {"submodule_name": "resid_post_layer_8", "lm_name": "google/gemma-2-2b"}
    (tmp_path / "topk" / "config.json").write_text(json.dumps(config))
    sae = load_sae(tmp_path / "topk")
    assert (sae.model_name, sae.hook_name) == ("google/gemma-2-2b", "blocks.8.hook_resid_post")


def test_a_config_that_has_nothing_to_do_with_it_is_left_alone(tmp_path):
    for name in ("saelens/topk", "sparsify/topk"):
        folder = tmp_path / name
        shutil.copytree(PEERS / name, folder)
        before = load_metadata(folder)
        (folder / "config.json").write_text('{"trainer": {"lm_name": "another"}, "model_type": "gpt2"}')
        assert load_metadata(folder) == before and load_sae(folder).model_name is None


# ---------------------------------------------------------------------- dictionary_learning without its config


KINDS = {
    "standard": "AutoEncoder",
    "new": "AutoEncoderNew",
    "topk": "AutoEncoderTopK",
    "batchtopk": "BatchTopKSAE",
    "matryoshka": "MatryoshkaBatchTopKSAE",
    "gated": "GatedAutoEncoder",
    "jumprelu": "JumpReluAutoEncoder",
}


@pytest.mark.parametrize("name", KINDS)
def test_weights_alone_need_the_name_of_their_class(name, tmp_path):
    folder = PEERS / "dictionary_learning" / name
    file = shutil.copy(folder / "ae.pt", tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"config.json is missing.*(encoder.weight|W_enc).*load_sae\(folder, kind='AutoEncoder'\)",
    ):
        load_sae(tmp_path)
    with pytest.raises(ValueError, match="must be one of AutoEncoder, .*got 'SAE'"):
        load_sae(tmp_path, kind="SAE")
    example = load_file(folder / "example.safetensors")
    torch.save({"state_dict": torch.load(file, weights_only=True), "step": 12}, tmp_path / "ae.pt")
    for place in (tmp_path, tmp_path / "ae.pt"):
        sae = load_sae(place, kind=KINDS[name])
        assert_close(sae.encode(example["x"]).to_dense(), example["codes"], rtol=1e-5, atol=1e-5)
    assert load_metadata(tmp_path) == {}


def test_kind_is_for_weights_alone(tmp_path):
    assert load_sae(PEERS / "dictionary_learning" / "topk", kind="AutoEncoderTopK").config.rule == "token_choice"
    with pytest.raises(ValueError, match="has dict_class='AutoEncoderTopK'; leave kind out"):
        load_sae(PEERS / "dictionary_learning" / "topk", kind="BatchTopKSAE")
    with pytest.raises(ValueError, match="kind='AutoEncoder' is not for .*cfg.json|is not for .*safetensors"):
        load_sae(PEERS / "sparsify" / "topk", kind="AutoEncoder")
    torch.save({"model": {}, "optimizer": {"lr": 1.0}}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="under the key 'state_dict'; it holds model, optimizer"):
        load_sae(tmp_path, kind="AutoEncoder")
    torch.save({3: torch.zeros(2)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="must hold tensors by name.*it holds 3"):
        load_sae(tmp_path, kind="AutoEncoder")
    for small in (torch.zeros(1).expand(10**12), torch.sparse_coo_tensor(size=(10**6, 10**6))):  # large only in name
        torch.save({"encoder.weight": small}, tmp_path / "ae.pt")
        with pytest.raises(ValueError, match="must hold tensors by name.*it holds encoder.weight"):
            load_sae(tmp_path, kind="AutoEncoder")


# ---------------------------------------------------------------------- Gemma Scope


def test_gemma_scope_by_file_and_with_other_names(tmp_path):
    example = load_file(GEMMA / "example.safetensors")
    arrays = dict(np.load(GEMMA / "params.npz"))
    pre = example["x"] @ torch.from_numpy(arrays["W_enc"]) + torch.from_numpy(
        arrays["b_enc"]
    )  # b_dec is not subtracted
    assert_close(pre.relu() * (pre > torch.from_numpy(arrays["threshold"])), example["codes"])
    assert load_sae(GEMMA / "params.npz").config.rule == "jumprelu"
    np.savez_compressed(tmp_path / "params.npz", **{n.replace("W_", "w_"): array for n, array in arrays.items()})
    assert_close(load_sae(tmp_path).encode(example["x"]).to_dense(), example["codes"])
    wide = arrays | {"W_dec": np.zeros((16, 5), "float32"), "b_dec": np.zeros(5, "float32")}
    np.savez(tmp_path / "params.npz", **wide)
    assert load_sae(tmp_path).config.d_out == 5  # a transcoder


def test_arrays_that_are_no_weights(tmp_path):
    arrays = dict(np.load(GEMMA / "params.npz"))
    np.savez(tmp_path / "params.npz", **arrays | {"b_enc": np.array([{}] * 16, dtype=object)}, allow_pickle=True)
    with pytest.raises(ValueError, match="params.npz is damaged"):
        load_sae(tmp_path)
    np.savez(tmp_path / "params.npz", **arrays | {"W_enc": arrays["W_enc"][:, :12]})
    with pytest.raises(ValueError, match=r"params.npz does not fit its config.*W_dec is \(16, 8\), not \(12, 8\)"):
        load_sae(tmp_path)
    np.savez_compressed(tmp_path / "params.npz", **arrays, more=np.zeros(50_000_000, dtype=np.int8))
    with pytest.raises(ValueError, match="params.npz is damaged .it would unpack to many times its size"):
        load_sae(tmp_path)


# ---------------------------------------------------------------------- the way back


def script():
    """`scripts/make_peer_fixtures.py` as a module: the SAEs that it had the others read."""
    path = Path(__file__).parents[2] / "scripts" / "make_peer_fixtures.py"
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("make_peer_fixtures", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.mark.parametrize("library", ["saelens", "sparsify", "dictionary_learning"])
def test_the_others_compute_what_we_compute(library, tmp_path):
    """Recorded by the script, in the library's own environment; and what we wrote for it, we read as well."""
    made, recorded = script(), json.loads((PEERS / f"read_by_{library}.json").read_text())["computed"]
    x, written = made.inputs()[: made.RECORDED], set()
    for name, sae in made.ours():
        if name not in recorded:
            with pytest.raises(ValueError, match="has no|can express"):
                save_sae(sae, tmp_path / name, format=library)
            assert not (tmp_path / name).exists()
            continue
        theirs = torch.zeros(len(x), sae.config.d_sae)
        for token, feature, strength in recorded[name]["codes"]:
            theirs[token, feature] = strength
        read = load_sae(save_sae(sae, tmp_path / name, format=library))
        for one in (sae, read):
            assert_close(one.encode(x).to_dense(), theirs, rtol=1e-5, atol=1e-5)
            assert_close(one(x), torch.tensor(recorded[name]["x_hat"]), rtol=1e-5, atol=1e-5)
        assert (read.model_name, read.hook_name) == {"sparsify": (None, None)}.get(
            library, ("stories", "blocks.1.hook_resid_post")
        )
        written.add(name)
    assert written == set(recorded)
    expected = {"saelens": set(BUDGET_RULES + PENALTY_RULES), "dictionary_learning": set(BUDGET_RULES + PENALTY_RULES)}
    assert expected.get(library, {"token_choice", "topk_transcoder"}) <= written


def test_our_own_folder_is_what_saelens_read(tmp_path):
    for name, sae in script().ours():
        if "topk" not in name:
            ours, theirs = save_sae(sae, tmp_path / name), save_sae(sae, tmp_path / f"{name}_there", format="saelens")
            for file in ("cfg.json", "sae_weights.safetensors"):
                assert (ours / file).read_bytes() == (theirs / file).read_bytes()


def test_a_folder_of_another_format_is_replaced(tmp_path):
    saes = dict(script().ours())
    for first in (None, "saelens", "sparsify", "dictionary_learning"):
        for second in (None, "saelens", "sparsify", "dictionary_learning"):
            save_sae(saes["token_choice"], tmp_path / "sae", format=first)
            other = saes["topk_transcoder" if second in (None, "sparsify") else "token_choice"]
            with torch.no_grad():
                other.b_enc.add_(0.01)
            x = script().inputs()
            assert_close(load_sae(save_sae(other, tmp_path / "sae", format=second))(x), other(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="format must be one of saelens, sparsify, dictionary_learning"):
        save_sae(saes["relu"], tmp_path / "sae", format="openai")


def test_a_budget_that_no_file_gives_is_asked_for(tmp_path):
    weights = torch.load(PEERS / "dictionary_learning" / "topk" / "ae.pt", weights_only=True)
    weights.pop("k", None)
    torch.save(weights, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r'ae.pt nor .*config.json gives k; .*"AutoEncoderTopK", "k": 32'):
        load_sae(tmp_path, kind="AutoEncoderTopK")
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderTopK", "k": 3}}')
    assert load_sae(tmp_path).config.k == 3


def test_groups_that_are_no_list_are_refused(tmp_path):
    weights = torch.load(PEERS / "dictionary_learning" / "matryoshka" / "ae.pt", weights_only=True)
    torch.save(weights | {"group_sizes": torch.tensor(16)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="ae.pt does not describe an SAE: groups must be a list, got 16"):
        load_sae(tmp_path, kind="MatryoshkaBatchTopKSAE")
