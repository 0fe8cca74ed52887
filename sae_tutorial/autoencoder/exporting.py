"""SAEs in the formats of SAELens, sparsify and dictionary_learning: for each, the files by name.

Mean and scale are folded into the weights first, as all of them take raw activations. In SAELens's eyes, Mutual Choice
and Matryoshka are `jumprelu` with one threshold for all features, Feature Choice is `jumprelu` with one for each.
"""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sae_tutorial.autoencoder.other_libraries import (
    CFG,
    CONFIG,
    DICTIONARIES,
    DICTIONARY_WEIGHTS,
    SAELENS,
    SAELENS_WEIGHTS,
    SPARSIFY,
    SPARSIFY_WEIGHTS,
)
from sae_tutorial.autoencoder.reading import without_b_dec
from sae_tutorial.autoencoder.sae import UNSET, SparseAutoencoder

ARCHITECTURES = {"relu": "standard", "token_choice": "topk", "gated": "gated"}  # every other rule: jumprelu


def as_saelens(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`cfg.json` and `sae_weights.safetensors` of SAELens 6. `raw` comes from `folded`."""
    cfg = saelens_cfg(raw, about)
    if cfg["architecture"] not in SAELENS:
        raise ValueError(f"SAELens has no {cfg['architecture']} ({raw.config.rule} with d_out); leave format away")
    return {CFG: in_json(cfg), SAELENS_WEIGHTS: in_safetensors(under_saelens_names(raw))}


def as_sparsify(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`cfg.json` and `sae.safetensors` of sparsify, which has TopK only."""
    config = raw.config
    if config.rule != SPARSIFY.rule or config.width_out != config.d_in:
        raise ValueError(
            "sparsify can express rule='token_choice' with outputs as wide as inputs, not "
            f"rule={config.rule!r}, {config.d_in} → {config.width_out}; use format='saelens', or leave format away"
        )
    cfg = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": False, "num_latents": config.d_sae}
    cfg |= {"k": int(config.k or 0), "multi_topk": False, "skip_connection": config.skip}
    names = SPARSIFY.names | ({"W_skip": "W_skip"} if config.skip else {})
    content = in_safetensors(_theirs(_weights(raw), names))
    return {CFG: in_json(cfg | {"transcode": config.is_transcoder, "d_in": config.d_in}), SPARSIFY_WEIGHTS: content}


def as_dictionary_learning(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """`config.json` and `ae.pt` of dictionary_learning. What has no class there with whole k is JumpReluAutoEncoder."""
    config = raw.config
    if config.is_transcoder:
        raise ValueError("dictionary_learning has no transcoders; use format='saelens', or leave format away")
    kinds = {layout.rule: kind for kind, layout in DICTIONARIES.items()}  # relu: AutoEncoderNew, which keeps the norms
    whole = config.k is None or config.k == int(config.k)
    kind = kinds.get(config.rule, "JumpReluAutoEncoder") if whole else "JumpReluAutoEncoder"
    layout, weights = DICTIONARIES[kind], _weights(raw)
    if not layout.subtracts_b_dec:
        weights |= without_b_dec(weights)
    if kind == "JumpReluAutoEncoder":
        weights["threshold"] = raw.threshold.detach().expand(config.d_sae)
    theirs = _theirs(weights, layout.names)
    trainer = {"dict_class": kind, "activation_dim": config.d_in, "dict_size": config.d_sae}
    if config.k is not None and kind != "JumpReluAutoEncoder":
        trainer["k"] = int(config.k)
        theirs |= {"k": torch.tensor(trainer["k"], dtype=torch.int32), "threshold": raw.threshold.detach().float()}
        if config.rule == "token_choice":
            theirs["threshold"] = torch.tensor(UNSET)
    if config.how.nested:
        theirs["group_sizes"] = torch.tensor(config.group_sizes)
    file = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in theirs.items()}, file)
    trainer |= {"lm_name": about.get("model_name"), "submodule_name": about.get("hook_name")}
    return {CONFIG: in_json({"trainer": about | trainer}), DICTIONARY_WEIGHTS: file.getvalue()}


FORMATS = {"saelens": as_saelens, "sparsify": as_sparsify, "dictionary_learning": as_dictionary_learning}


def under_saelens_names(raw: SparseAutoencoder) -> dict[str, Tensor]:
    """The weights, with a threshold for each feature where the rule has any."""
    weights = _weights(raw)
    if raw.config.rule not in ARCHITECTURES:
        weights["threshold"] = raw.threshold.detach().expand(raw.config.d_sae)
    if raw.config.how.gated:
        weights["b_gate"] = weights.pop("b_enc")
    return weights


def saelens_cfg(raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, Any]:
    """The content of SAELens's cfg.json. A transcoder of Token Choice or Gated has no counterpart there: it comes out
    as `topk_transcoder` or `gated_transcoder`."""
    config = raw.config
    architecture = ARCHITECTURES.get(config.rule, "jumprelu")
    if config.is_transcoder:
        kind = "skip_transcoder" if config.skip else "transcoder"
        architecture = kind if architecture == "standard" else f"{architecture}_{kind}"
    cfg = {
        "architecture": architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": str(raw.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not config.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if str(about.get("hook_name")).endswith("hook_z") else "none",
        "metadata": {"sae_lens_version": "6.0.0", "prepend_bos": True} | about,
    }
    if config.how.owner == "token":
        cfg |= {"k": int(config.k or 0), "rescale_acts_by_decoder_norm": False}
    return cfg | ({"d_out": config.d_out} if config.is_transcoder else {})


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
