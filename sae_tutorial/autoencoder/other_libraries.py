"""The folders of three other libraries, read into a SparseAutoencoder that does what theirs does.

    SAELens 6             cfg.json + sae_weights.safetensors
    sparsify              cfg.json + sae.safetensors
    dictionary_learning   config.json + ae.pt

What they call differently: their BatchTopK is our mutual_choice, and its threshold comes along; features that they
scale by the norm of their decoder row come out with rows of unit norm. An encoder that does not subtract b_dec gets
b_enc + b_dec W_enc as its bias, which is the same function. Features keep their order and their strength.

Letters of shapes: D = d_in, F = d_sae, O = d_out.
"""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_tutorial.autoencoder.config import RULES, SAEConfig
from sae_tutorial.autoencoder.rescaling import unit_decoder_
from sae_tutorial.autoencoder.sae import SparseAutoencoder

# SAELens's architectures: our rule, and whether they are transcoders (with a skip path).
SAELENS = {
    "standard": ("relu", False),
    "topk": ("token_choice", False),
    "jumprelu": ("jumprelu", False),
    "gated": ("gated", False),
    "transcoder": ("relu", True),
    "skip_transcoder": ("relu", True),
    "jumprelu_transcoder": ("jumprelu", True),
    "jumprelu_skip_transcoder": ("jumprelu", True),
}
DICTIONARY_LEARNING = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "token_choice",
    "BatchTopKSAE": "mutual_choice",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
}


def read_saelens(folder: Path) -> SparseAutoencoder:
    """`cfg.json` and `sae_weights.safetensors`, as `sae.save_model(folder)` of SAELens 6 writes them."""
    file, cfg = folder / "sae_weights.safetensors", read_json(folder / "cfg.json")
    weights = _float32(read_tensors(file))
    architecture = cfg.get("architecture", "standard")
    if architecture not in SAELENS:
        raise ValueError(
            f"{folder / 'cfg.json'}: architecture {architecture!r} is not among those that can be read, "
            f"{', '.join(SAELENS)}. If it was saved in the middle of a training, let SAELens convert it first: "
            "training_sae.save_inference_model(folder)"
        )
    if cfg.get("normalize_activations") not in (None, "none"):
        raise ValueError(
            f"{folder / 'cfg.json'}: normalize_activations={cfg['normalize_activations']!r} changes activations before "
            "the weights see them, and the folder does not say how. Fold it in with SAELens and save again: "
            "sae.fold_activation_norm_scaling_factor(factor)"
        )
    rule, is_transcoder = SAELENS[architecture]
    skip = "skip" in architecture
    config = config_of(
        folder / "cfg.json",
        d_in=_pick(cfg, "d_in", folder / "cfg.json"),
        d_sae=_pick(cfg, "d_sae", folder / "cfg.json"),
        rule=rule,
        k=_number(cfg, "k", folder / "cfg.json") if RULES[rule].owner == "token" else None,
        d_out=cfg.get("d_out", cfg["d_in"]) if is_transcoder else None,
        skip=skip,
    )
    if "b_gate" in weights:
        weights["b_enc"] = weights.pop("b_gate")
    sae = assemble(config, weights, file, subtracts_b_dec=cfg.get("apply_b_dec_to_input", not is_transcoder))
    return unit_decoder_(sae) if cfg.get("rescale_acts_by_decoder_norm") else sae


def read_sparsify(folder: Path) -> SparseAutoencoder:
    """`cfg.json` and `sae.safetensors`, as `sparse_coder.save_to_disk(folder)` of sparsify writes them."""
    file, cfg = folder / "sae.safetensors", read_json(folder / "cfg.json")
    theirs = _float32(read_tensors(file))
    if cfg.get("activation", "topk") != "topk" or cfg.get("signed"):
        raise ValueError(
            f"{folder / 'cfg.json'}: activation={cfg.get('activation')!r}, signed={cfg.get('signed', False)} cannot be "
            "read, only activation='topk' and unsigned"
        )
    weights = _renamed(theirs, {"encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}, file)
    weights["W_enc"] = _matrix(theirs, "encoder.weight", file).T
    transcode, skip = bool(cfg.get("transcode")), "W_skip" in theirs
    if skip:
        weights["W_skip"] = theirs["W_skip"]
    F, D = theirs["encoder.weight"].shape
    d_out = _matrix(theirs, "W_dec", file).shape[1] if transcode or skip else None
    k = _number(cfg, "k", folder / "cfg.json")
    config = config_of(folder / "cfg.json", d_in=D, d_sae=F, rule="token_choice", k=k, d_out=d_out, skip=skip)
    return assemble(config, weights, file, subtracts_b_dec=not transcode)


def read_dictionary_learning(folder: Path) -> SparseAutoencoder:
    """`config.json` and `ae.pt`, as `trainSAE` of dictionary_learning writes them."""
    file = folder / "ae.pt"
    trainer = read_json(folder / "config.json").get("trainer")
    if not isinstance(trainer, dict):
        raise ValueError(f"{folder / 'config.json'}: trainer must be an object with dict_class, it is {trainer!r}")
    kind = trainer.get("dict_class")
    if not isinstance(kind, str) or kind not in DICTIONARY_LEARNING:
        raise ValueError(
            f"{folder / 'config.json'}: trainer.dict_class is {kind!r}; it must be one of "
            f"{', '.join(DICTIONARY_LEARNING)}. The weights alone do not say which"
        )
    theirs = _float32(read_tensors(file))
    names = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    if kind.startswith("AutoEncoder") or kind in ("BatchTopKSAE", "GatedAutoEncoder"):  # built of torch's nn.Linear
        for name in ("encoder.weight", "decoder.weight"):
            theirs[name] = _matrix(theirs, name, file).T
        bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
        names = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", bias.get(kind, "b_dec"): "b_dec"}
        names["gate_bias" if kind == "GatedAutoEncoder" else "encoder.bias"] = "b_enc"
    if kind == "GatedAutoEncoder":
        names |= {"r_mag": "r_mag", "mag_bias": "b_mag"}
    rule = DICTIONARY_LEARNING[kind]
    if RULES[rule].thresholds is not None:
        names["threshold"] = "threshold"
    weights = _renamed(theirs, names, file)
    k = groups = None
    if RULES[rule].owner is not None:
        k = float(theirs["k"]) if "k" in theirs else _number(trainer, "k", folder / "config.json")
    if RULES[rule].nested:
        groups = tuple(_pick(theirs, "group_sizes", file).tolist())
    D, F = _matrix(weights, "W_enc", file).shape
    sae = assemble(
        config_of(folder / "config.json", d_in=D, d_sae=F, rule=rule, k=k, groups=groups),
        weights,
        file,
        subtracts_b_dec=kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
    )
    if RULES[rule].measured and (sae.threshold < 0).any():
        warnings.warn(
            f"{file}: this {kind} has no inference threshold (it is {float(sae.threshold):g}). Measure one before you "
            "encode, measure_thresholds(sae, batches), or ask for encode(x, batch_rule=True).",
            stacklevel=3,
        )
    return unit_decoder_(sae) if kind in ("AutoEncoder", "GatedAutoEncoder", "JumpReluAutoEncoder") else sae


def assemble(
    config: SAEConfig, weights: dict[str, Tensor], file: Path, *, subtracts_b_dec: bool | None = None
) -> SparseAutoencoder:
    """The SAE with these weights, in the dtype that they have; every buffer that is not given keeps its start value.

    `subtracts_b_dec` says whether the encoder that the weights are from sees x − b_dec; None: as ours does.
    Raises ValueError that names `file` for weights that are missing, unknown or of another shape.
    """
    sae = SparseAutoencoder(config)
    start = sae.state_dict()
    wanted = {name: start[name].shape for name, _ in sae.named_parameters()}
    given = {name: weights[name].shape for name in weights}
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in start]
    problems += [
        f"{name} is {tuple(given[name])}, not {tuple(start[name].shape)}"
        for name in given
        if name in start and given[name] != start[name].shape
    ]
    if problems:
        raise ValueError(
            f"{file} does not fit its config ({config.rule}, {config.d_in} → {config.d_sae} → {config.width_out}): "
            + "; ".join(problems)
        )
    for name, tensor in weights.items():
        if tensor.isnan().any():
            raise ValueError(
                f"{file}: {name} holds NaN; the training that wrote it diverged, take an earlier checkpoint"
            )
    weights = dict(weights)
    ours = sae.centre is not None
    if subtracts_b_dec is not None and subtracts_b_dec != ours:
        shift_F = weights["b_dec"] @ weights["W_enc"] * (1 if ours else -1)
        weights["b_enc"] = weights["b_enc"] + shift_F
        if config.how.gated:
            weights["b_mag"] = weights["b_mag"] + shift_F * weights["r_mag"].exp()
    if "W_enc" in weights:
        weights["W_enc"] = weights["W_enc"].T.contiguous().T  # feature by feature, as the sparse products like it
    if "tokens_seen" not in weights:
        start["tokens_seen"] = torch.tensor(1)  # it was trained on who knows how many: `train` must not start it anew
    sae.load_state_dict({**start, **weights}, assign=True)
    return sae


# ---------------------------------------------------------------------- files


def config_of(file: Path, **fields: Any) -> SAEConfig:
    """The SAEConfig with these fields; where it refuses them, the error names the file that they are from."""
    try:
        return SAEConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe an SAE: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing; without it the weights beside it cannot be understood") from None
    except ValueError as error:
        raise ValueError(f"{file} is damaged, it is no JSON ({error}); save or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, not a {type(content).__name__}")
    return content


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU. Nothing in the file is executed: a pickle may hold tensors only."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, weights_only=True, map_location="cpu")
        if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
            raise ValueError(f"{file} must hold tensors by name, and holds something else")
        return {name: t.detach() for name, t in content.items()}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} holds more than tensors, and is not opened: loading it could run code") from error
    except (SafetensorError, RuntimeError, EOFError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error}); save or download it again") from error


def _float32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _pick(content: dict[str, Any], name: str, file: Path) -> Any:
    if name not in content:
        raise ValueError(f"{file}: {name!r} is missing; it holds {', '.join(sorted(content))}")
    return content[name]


def _matrix(weights: dict[str, Tensor], name: str, file: Path) -> Tensor:
    if _pick(weights, name, file).dim() != 2:
        raise ValueError(f"{file}: {name} must be a matrix, it has shape {tuple(weights[name].shape)}")
    return weights[name]


def _renamed(weights: dict[str, Tensor], names: dict[str, str], file: Path) -> dict[str, Tensor]:
    return {ours: _pick(weights, theirs, file) for theirs, ours in names.items()}


def _number(cfg: dict[str, Any], name: str, file: Path) -> float:
    if not isinstance(cfg.get(name), int | float):
        raise ValueError(f"{file}: {name} must be a number, it is {cfg.get(name)!r}")
    return cfg[name]
