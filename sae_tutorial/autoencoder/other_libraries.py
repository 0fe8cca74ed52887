"""The files of four other libraries, read into a SparseAutoencoder that does what theirs does.

    SAELens 3 to 6        cfg.json + sae_weights.safetensors
    sparsify              cfg.json + sae.safetensors
    dictionary_learning   config.json + ae.pt
    Gemma Scope           params.npz

Features keep their order and their strength; those that they scale by the norm of their decoder row come out with rows
of unit norm. An encoder that does not subtract b_dec gets b_enc + b_dec W_enc as its bias, which is the same function.

`read_*` make an SAE of the files of a folder; `about_*` return what they tell about where it belongs, as `model_name`,
`hook_name` and `hook_name_out` where that is known.
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_tutorial.activations.arguments import as_number
from sae_tutorial.autoencoder.config import RULES
from sae_tutorial.autoencoder.folders import Files
from sae_tutorial.autoencoder.reading import assemble, config_of, matrix, pick, read_json, read_tensors
from sae_tutorial.autoencoder.rescaling import unit_decoder_
from sae_tutorial.autoencoder.sae import UNSET, SparseAutoencoder

CFG, SAELENS_WEIGHTS, SPARSIFY_WEIGHTS = "cfg.json", "sae_weights.safetensors", "sae.safetensors"
CONFIG, DICTIONARY_WEIGHTS, GEMMA_WEIGHTS = "config.json", "ae.pt", "params.npz"


class Layout(NamedTuple):
    """How another library stores one of our rules. `names` are its names of our weights; one that ends in ".weight" is
    the transpose, as torch's nn.Linear has it."""

    rule: str
    names: dict[str, str]
    subtracts_b_dec: bool = True


PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
ENCODER = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
LINEAR = ENCODER | {"decoder.weight": "W_dec"}
THRESHOLD = {"threshold": "threshold"}
GATED = {"gate_bias": "b_enc", "r_mag": "r_mag", "mag_bias": "b_mag", "decoder_bias": "b_dec"}
SPARSIFY = Layout("token_choice", ENCODER | {"W_dec": "W_dec", "b_dec": "b_dec"})
GEMMA = Layout("jumprelu", PLAIN | THRESHOLD, subtracts_b_dec=False)
DICTIONARIES = {
    "AutoEncoder": Layout("relu", LINEAR | {"bias": "b_dec"}),
    "AutoEncoderNew": Layout("relu", LINEAR | {"decoder.bias": "b_dec"}, subtracts_b_dec=False),
    "AutoEncoderTopK": Layout("token_choice", LINEAR | {"b_dec": "b_dec"}),
    "BatchTopKSAE": Layout("mutual_choice", LINEAR | {"b_dec": "b_dec"} | THRESHOLD),
    "MatryoshkaBatchTopKSAE": Layout("matryoshka", PLAIN | THRESHOLD),
    "GatedAutoEncoder": Layout("gated", {"encoder.weight": "W_enc", "decoder.weight": "W_dec"} | GATED),
    "JumpReluAutoEncoder": GEMMA,
}
# SAELens's architectures, and our rule.
SAELENS = {"standard": "relu", "topk": "token_choice", "jumprelu": "jumprelu", "gated": "gated"}
SAELENS |= dict.fromkeys(("transcoder", "skip_transcoder"), "relu")
SAELENS |= dict.fromkeys(("jumprelu_transcoder", "jumprelu_skip_transcoder"), "jumprelu")
IN_TRAINING = ("batchtopk", "matryoshka_batchtopk")  # what SAELens turns into jumprelu at the end
STRUCTURE = ("architecture", "d_in", "d_sae", "dtype", "device", "metadata")  # the rest of an old cfg.json is metadata
RENAMED = {"hook_point": "hook_name", "hook_point_layer": "hook_layer", "hook_point_head_index": "hook_head_index"}


def read_saelens(files: Files, scaling_factor: float | None = None) -> SparseAutoencoder:
    """As `sae.save_model(folder)` of SAELens 3 to 6 writes it. `scaling_factor`: what activations were multiplied by,
    for an SAE whose folder states that they were, but not by how much."""
    file, weights = files[CFG], _float32(read_tensors(files[SAELENS_WEIGHTS]))
    cfg = read_json(file)
    architecture, k = _architecture(cfg, file)
    is_transcoder, skip = "transcoder" in architecture, "skip" in architecture
    factor = _input_factor(cfg, scaling_factor, file, is_transcoder)
    sizes = {"d_in": pick(cfg, "d_in", file), "d_sae": pick(cfg, "d_sae", file)}
    d_out = cfg.get("d_out", cfg["d_in"]) if is_transcoder else None
    config = config_of(file, rule=SAELENS[architecture], k=k, d_out=d_out, skip=skip, **sizes)
    if "b_gate" in weights:
        weights["b_enc"] = weights.pop("b_gate")
    finetuned = [weights.pop(name) for name in ("scaling_factor", "finetuning_scaling_factor") if name in weights]
    if finetuned and not torch.allclose(finetuned[0], torch.ones(())):
        if not cfg.get("finetuning_scaling_factor"):
            raise ValueError(f"{file}: the weights have a scaling_factor, but finetuning_scaling_factor is not set")
        weights["W_dec"] = finetuned[0].reshape(-1, 1) * matrix(weights, "W_dec", file)
    subtracts_b_dec = not is_transcoder and bool(cfg.get("apply_b_dec_to_input", True))
    sae = assemble(config, weights, files[SAELENS_WEIGHTS], subtracts_b_dec=subtracts_b_dec)
    sae.scale.fill_(1 / factor)
    return unit_decoder_(sae) if cfg.get("rescale_acts_by_decoder_norm") else sae


def about_saelens(files: Files) -> dict[str, Any]:
    """From version 6 on, `metadata`; before, everything beside the architecture."""
    cfg = read_json(files[CFG])
    if isinstance(cfg.get("metadata"), dict):
        return cfg["metadata"]
    return {RENAMED.get(name, name): value for name, value in cfg.items() if name not in STRUCTURE}


def _architecture(cfg: dict[str, Any], file: Path) -> tuple[str, float | None]:
    """One of SAELENS, and k. Before version 6, an activation function was named beside the architecture."""
    named, activation = cfg.get("architecture", "standard"), cfg.get("activation_fn_str", cfg.get("activation_fn"))
    given = cfg.get("activation_fn_kwargs")
    options = {name: value for name, value in given.items() if value} if isinstance(given, dict) else {}
    k = options.pop("k", cfg.get("k"))
    if (named, activation) == ("standard", "topk"):
        named = "topk"
    usual = "topk" if named == "topk" else "relu"
    if isinstance(named, str) and named in SAELENS and activation in (None, usual) and not options:
        return named, k if named == "topk" else None
    what = f"architecture {named!r} with activation function {activation or usual!r} {options or ''}"
    advice = "; SAELens converts it: training_sae.save_inference_model(folder)" if named in IN_TRAINING else ""
    raise ValueError(f"{file}: {what} is not among those that can be read, {', '.join(SAELENS)}{advice}")


def _input_factor(cfg: dict[str, Any], factor: Any, file: Path, is_transcoder: bool) -> float:
    """What activations are multiplied by before the weights see them, and reconstructions divided by."""
    how = cfg.get("normalize_activations")
    if how in (None, False, "none"):
        if factor is not None:
            raise ValueError(f"scaling_factor={factor!r} is not needed: the weights in {file} take raw activations")
        return 1.0
    if how not in (True, "expected_average_only_in") or is_transcoder:
        why = "treats every token, or input and output, in its own way, which a fixed mean and scale cannot express"
        raise ValueError(f"{file}: normalize_activations={how!r} {why}; this SAE cannot be loaded")
    if factor is None:
        what = "multiplied activations by a number that the folder does not give, √d_in / (their mean norm)"
        raise ValueError(f"{file}: normalize_activations={how!r} {what}. Give it: load_sae(folder, scaling_factor=...)")
    if not 0 < as_number("scaling_factor", factor) < math.inf:
        raise ValueError(f"scaling_factor must be a finite number, greater than 0, got {factor!r}")
    return float(factor)


def read_sparsify(files: Files) -> SparseAutoencoder:
    """As `sparse_coder.save_to_disk(folder)` of sparsify writes it."""
    file, cfg = files[SPARSIFY_WEIGHTS], read_json(files[CFG])
    theirs = _float32(read_tensors(file))
    if cfg.get("activation", "topk") != "topk" or cfg.get("signed"):
        raise ValueError(f"{files[CFG]}: only activation='topk' can be read, and signed=False; it holds {cfg}")
    transcode, skip = bool(cfg.get("transcode")), "W_skip" in theirs
    weights = _ours(theirs, SPARSIFY.names | ({"W_skip": "W_skip"} if skip else {}), file)
    D, F = weights["W_enc"].shape
    if cfg.get("d_in", D) != D or (cfg.get("num_latents") or F) != F:
        raise ValueError(f"{file} does not fit {files[CFG]}: W_enc is {(D, F)}, not (d_in, num_latents)")
    d_out = matrix(weights, "W_dec", file).shape[1] if transcode or skip else None
    k = pick(cfg, "k", files[CFG])
    config = config_of(files[CFG], d_in=D, d_sae=F, rule=SPARSIFY.rule, k=k, d_out=d_out, skip=skip)
    return assemble(config, weights, file, subtracts_b_dec=not transcode)


def about_sparsify(files: Files) -> dict[str, Any]:
    """The folder is named after the module that was read; the model stands in the config.json above it."""
    run = files.folder.parent / CONFIG
    about = {"model_name": read_json(run)["model"]} if run.is_file() and "model" in read_json(run) else {}
    return about if read_json(files[CFG]).get("transcode") else about | _hook(files.folder.name)


def read_dictionary_learning(files: Files, kind: str | None = None) -> SparseAutoencoder:
    """As `trainSAE` of dictionary_learning writes it. `kind` is the class, where there is no config.json."""
    file, trainer = files[DICTIONARY_WEIGHTS], _trainer(files)
    theirs = _float32(read_tensors(file))
    name = trainer.get("dict_class", kind)
    if kind not in (None, name):
        raise ValueError(f"kind={kind!r}, but {files[CONFIG]} has dict_class={name!r}; leave kind out")
    if name is None and CONFIG not in files:
        raise FileNotFoundError(
            f"{files[CONFIG]} is missing, and the weights ({', '.join(sorted(theirs))}) do not tell what they are. "
            f"Name their class: load_sae(folder, kind='AutoEncoder') for example, one of {', '.join(DICTIONARIES)}"
        )
    if name not in list(DICTIONARIES):
        raise ValueError(f"{files[CONFIG]}: dict_class (kind) must be one of {', '.join(DICTIONARIES)}, got {name!r}")
    layout = DICTIONARIES[name]
    rule = RULES[layout.rule]
    if rule.measured:
        theirs.setdefault("threshold", torch.tensor(UNSET))  # early versions kept none
    weights = _ours(theirs, layout.names, file)
    D, F = matrix(weights, "W_enc", file).shape
    if rule.owner is not None and "k" not in theirs | trainer:
        example = f'{{"trainer": {{"dict_class": "{name}", "k": 32}}}}'
        raise ValueError(f"neither {file} nor {files[CONFIG]} gives k; write it into the latter, as in {example}")
    k = None if rule.owner is None else theirs.get("k", trainer.get("k"))
    groups = pick(theirs, "group_sizes", file).tolist() if rule.nested else None
    config = config_of(file, d_in=D, d_sae=F, rule=layout.rule, k=k, groups=groups)
    sae = assemble(config, weights, file, subtracts_b_dec=layout.subtracts_b_dec)
    if rule.measured and (sae.threshold < 0).any():
        warnings.warn(
            f"{file}: this {name} has no inference threshold (it is {float(sae.threshold):g}). Measure one before you "
            "encode, measure_thresholds(sae, batches), or ask for encode(x, batch_rule=True).",
            stacklevel=3,
        )
    return unit_decoder_(sae) if name == "AutoEncoder" else sae  # as its own loader does


def about_dictionary_learning(files: Files) -> dict[str, Any]:
    """The trainer's settings."""
    trainer = _trainer(files)
    about = {"model_name": trainer["lm_name"]} if "lm_name" in trainer else {}
    return about | _hook(str(trainer.get("submodule_name"))) | trainer


def _trainer(files: Files) -> dict[str, Any]:
    if CONFIG not in files:
        return {}
    trainer = read_json(files[CONFIG]).get("trainer")
    if not isinstance(trainer, dict):
        raise ValueError(f"{files[CONFIG]}: trainer must be an object with dict_class, it is {trainer!r}")
    return trainer


def read_gemma_scope(files: Files) -> SparseAutoencoder:
    """The JumpReLU SAEs of Lieberum et al. 2024: for raw activations, and an encoder that does not subtract b_dec."""
    file = files[GEMMA_WEIGHTS]
    theirs = {re.sub("^w_", "W_", name): tensor for name, tensor in _float32(read_tensors(file)).items()}
    weights = _ours(theirs, GEMMA.names, file)
    (D, F), (_, d_out) = matrix(weights, "W_enc", file).shape, matrix(weights, "W_dec", file).shape
    is_transcoder = d_out != D or "transcoder" in str(file)
    config = config_of(file, d_in=D, d_sae=F, rule=GEMMA.rule, d_out=d_out if is_transcoder else None)
    return assemble(config, weights, file, subtracts_b_dec=GEMMA.subtracts_b_dec)


def about_gemma_scope(files: Files) -> dict[str, Any]:
    """What the path tells, "google/gemma-scope-2b-pt-res/layer_20/…" on the hub."""
    found = re.search(r"gemma-scope-(\w+)-(pt|it)-(res|mlp|att)\b.*layer_(\d+)", str(files.folder))
    if found is None:
        return {}
    size, tuned, site, layer = found.groups()
    hook = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}[site]
    return {"model_name": f"gemma-2-{size}" + "-it" * (tuned == "it"), "hook_name": f"blocks.{layer}.{hook}"}


def _hook(module: str) -> dict[str, str]:
    """Our name of a module, where it is a whole layer: "layers.3", "h.3", "resid_post_layer_3"."""
    layer = re.search(r"(?:^|[._])(?:layers|layer|h)[._](\d+)$", module)
    return {"hook_name": f"blocks.{layer[1]}.hook_resid_post"} if layer else {}


def _float32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _ours(theirs: dict[str, Tensor], names: dict[str, str], file: Path) -> dict[str, Tensor]:
    """Their weights under our names, every matrix the way round that we have it."""
    linear = {name for name in names if name.endswith(".weight")}
    return {ours: matrix(theirs, n, file).T if n in linear else pick(theirs, n, file) for n, ours in names.items()}
