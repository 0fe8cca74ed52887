"""SAEs in the formats of SAELens, sparsify and dictionary_learning: for each, the files by name.

All of them take raw activations, so `raw` comes from `folded`. In SAELens's eyes, Mutual Choice and Matryoshka are
`jumprelu` with one threshold for all features; Feature Choice, and whatever has a floor or a beta, is `jumprelu` with
one for each. No other library has thresholds that depend on the length of a token, as those of relative=True do.
"""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sae_tutorial.autoencoder import other_libraries as others
from sae_tutorial.autoencoder.reading import without_b_dec
from sae_tutorial.autoencoder.sae import UNSET, SparseAutoencoder

ARCHITECTURES = {"relu": "standard", "token_choice": "topk", "gated": "gated"}  # every other rule: jumprelu


def as_saelens(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`cfg.json` and `sae_weights.safetensors` of SAELens 6."""
    cfg = saelens_cfg(raw, about)
    _check_absolute(raw, "SAELens")
    if cfg["architecture"] not in others.SAELENS:
        raise ValueError(f"SAELens has no {cfg['architecture']} ({raw.config.rule} with d_out); leave format out")
    return {others.CFG: in_json(cfg), others.SAELENS_WEIGHTS: in_safetensors(under_saelens_names(raw))}


def as_sparsify(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`cfg.json` and `sae.safetensors` of sparsify, which has TopK only."""
    config = raw.config
    if config.rule != others.SPARSIFY.rule or config.width_out != config.d_in:
        raise ValueError(
            "sparsify can express rule='token_choice' with outputs as wide as inputs, not "
            f"rule={config.rule!r}, {config.d_in} → {config.width_out}; use format='saelens', or leave format out"
        )
    cfg = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": False, "num_latents": config.d_sae}
    cfg |= {"k": int(config.k or 0), "multi_topk": False, "skip_connection": config.skip, "d_in": config.d_in}
    theirs = _theirs(_weights(raw), others.SPARSIFY.names | {"W_skip": "W_skip"})
    cfg |= {"transcode": config.is_transcoder}
    return {others.CFG: in_json(cfg), others.SPARSIFY_WEIGHTS: in_safetensors(theirs)}


def as_dictionary_learning(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`config.json` and `ae.pt` of dictionary_learning. What has no class there with whole k is JumpReluAutoEncoder."""
    config = raw.config
    _check_absolute(raw, "dictionary_learning")
    if config.is_transcoder:
        raise ValueError("dictionary_learning has no transcoders; use format='saelens', or leave format out")
    kinds = {layout.rule: kind for kind, layout in others.DICTIONARIES.items()}  # of two for relu, that without norms
    plain = (config.k is None or config.k == int(config.k)) and not (config.floor or config.gradient_weight)
    kind = kinds.get(config.rule if plain else "jumprelu", kinds["jumprelu"])
    layout, weights, k = others.DICTIONARIES[kind], _weights(raw), int(config.k or 0)
    if not layout.subtracts_b_dec:
        weights |= without_b_dec(weights)
    trainer = {"dict_class": kind, "activation_dim": config.d_in, "dict_size": config.d_sae}
    theirs = _theirs(weights, layout.names)
    if kind == kinds["jumprelu"]:
        theirs["threshold"] = _thresholds(raw)
    elif k:
        trainer["k"] = k
        threshold = raw.threshold.detach() if config.how.measured else torch.tensor(UNSET)
        theirs |= {"k": torch.tensor(k, dtype=torch.int32), "threshold": threshold.float()}
    if kind == kinds["matryoshka"]:
        theirs["group_sizes"] = torch.tensor(config.group_sizes)
    file = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in theirs.items()}, file)
    trainer |= {"lm_name": about.get("model_name"), "submodule_name": about.get("hook_name")}
    return {others.CONFIG: in_json({"trainer": about | trainer}), others.DICTIONARY_WEIGHTS: file.getvalue()}


FORMATS = {"saelens": as_saelens, "sparsify": as_sparsify, "dictionary_learning": as_dictionary_learning}


def under_saelens_names(raw: SparseAutoencoder) -> dict[str, Tensor]:
    """The weights, with a threshold for each feature where the rule has any."""
    weights = _weights(raw)
    if raw.config.rule not in ARCHITECTURES:
        weights["threshold"] = _thresholds(raw)
    if raw.config.how.gated:
        weights["b_gate"] = weights.pop("b_enc")
    return weights


def saelens_cfg(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, Any]:
    """SAELens's cfg.json. What has no counterpart there comes out as `topk_transcoder`, `gated_transcoder` or
    `relative_jumprelu`."""
    config = raw.config
    architecture = "relative_" * config.relative + ARCHITECTURES.get(config.rule, "jumprelu")
    if config.is_transcoder:
        kind = "skip_transcoder" if config.skip else "transcoder"
        architecture = kind if architecture == "standard" else f"{architecture}_{kind}"
    cfg = {"architecture": architecture, "d_in": config.d_in, "d_sae": config.d_sae, "device": "cpu"}
    cfg |= {"dtype": str(raw.W_dec.dtype).removeprefix("torch."), "apply_b_dec_to_input": not config.is_transcoder}
    heads = "hook_z" if str(about.get("hook_name")).endswith("hook_z") else "none"
    cfg |= {"normalize_activations": "none", "reshape_activations": heads}
    cfg |= {"metadata": {"sae_lens_version": "6.0.0", "prepend_bos": True} | about}
    if config.rule == "token_choice":
        cfg |= {"k": int(config.k or 0), "rescale_acts_by_decoder_norm": False}
    return cfg | ({"d_out": config.d_out} if config.is_transcoder else {})


def _thresholds(raw: SparseAutoencoder) -> Tensor:
    """(F,) thresholds of affinities. Who is subsidised in the comparison has a lower one."""
    threshold_F = raw.threshold.detach().expand(raw.config.d_sae)
    return threshold_F / raw.subsidy if raw.config.floor else threshold_F


def _check_absolute(raw: SparseAutoencoder, library: str) -> None:
    if raw.config.relative:
        raise ValueError(
            f"{library} has no thresholds that depend on a token's length, as relative=True has; leave format out"
        )


def in_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def in_safetensors(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _weights(raw: SparseAutoencoder) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in raw.named_parameters()}


def _theirs(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Our weights under their names."""
    return {
        n: weights[ours].T if n.endswith(".weight") else weights[ours] for n, ours in names.items() if ours in weights
    }
