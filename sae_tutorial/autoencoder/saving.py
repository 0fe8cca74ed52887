"""save_sae and load_sae: an SAE as a folder that SAELens can read, too.

    cfg.json                   what SAELens 6 needs to know, and where the SAE belongs (model, hook)
    sae_weights.safetensors    weights that take raw activations: mean and scale are folded into them
    sae_tutorial.json          our config and what else is small
    sae_tutorial.safetensors   whatever of our SAE the others do not hold bit for bit

In SAELens's eyes, Mutual Choice and Matryoshka are `jumprelu` with one threshold for all features, Feature Choice is
`jumprelu` with one for each, Token Choice is `topk`. A transcoder of Token Choice or Gated has no counterpart there:
its folder says `topk_transcoder` or `gated_transcoder`, which only we can read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_tutorial.autoencoder.other_libraries import (
    assemble,
    config_of,
    read_dictionary_learning,
    read_json,
    read_saelens,
    read_sparsify,
    read_tensors,
)
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.sae import SparseAutoencoder

FORMAT = "sae_tutorial SAE, version 1"
CFG, WEIGHTS, OURS, EXACT = "cfg.json", "sae_weights.safetensors", "sae_tutorial.json", "sae_tutorial.safetensors"
ARCHITECTURES = {"relu": "standard", "token_choice": "topk", "gated": "gated"}  # every other rule: jumprelu


def save_sae(
    sae: SparseAutoencoder,
    folder: str | Path,
    *,
    model_name: str | None = None,
    hook_name: str | None = None,
    context_size: int | None = None,
    exact: bool = True,
    **metadata: Any,
) -> Path:
    """Write `sae` to `folder`, in the format of SAELens 6 and so that `load_sae` gives back the very same SAE.

    model_name, hook_name, context_size, metadata
                what was read to train it, for whoever finds the folder: anything that JSON can hold. For a transcoder
                also `hook_name_out`. `load_metadata` reads it back
    exact       False leaves out what is needed only for the last bit. Mean and scale then stay folded into the weights,
                and the folder takes half the space if there were any. What comes back is the same function up to
                rounding; decoder rows have the norm `scale`

    An SAE that lies there already is replaced, file by file. Raises ValueError where the inference threshold is not
    measured yet: without it, other libraries would read a plain ReLU SAE.
    """
    rule = sae.config.rule
    if sae.config.how.measured and (sae.threshold < 0).any():
        raise ValueError(
            f"this {rule} SAE has no inference threshold yet, and without it others would use all positive affinities; "
            "call measure_thresholds(sae, batches) first. (To interrupt a training, use train(..., checkpoint=...).)"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    raw = folded(sae)
    kept, theirs = sae if exact else raw, _for_saelens(raw, sae.W_dec.dtype)
    extra = {name: t for name, t in kept.state_dict().items() if not (name in theirs and _same(theirs[name], t))}
    (folder / OURS).unlink(missing_ok=True)  # while it is missing, the folder is a plain SAELens folder or none
    _write_tensors(folder / WEIGHTS, {_name_there(name, rule): tensor for name, tensor in theirs.items()})
    _write_tensors(folder / EXACT, extra)
    about = {"model_name": model_name, "hook_name": hook_name, "context_size": context_size} | metadata
    _write_json(folder / CFG, _saelens_cfg(sae, {name: value for name, value in about.items() if value is not None}))
    _write_json(folder / OURS, {"format": FORMAT, "config": asdict(kept.config)})
    return folder


def load_sae(folder: str | Path, *, device: torch.device | str | None = None) -> SparseAutoencoder:
    """The SAE in `folder`, written by save_sae, SAELens 6, sparsify or dictionary_learning; which, its files tell.

    Ours comes back bit for bit; others in float32, with mean 0 and scale 1, for raw activations. Nothing in a file is
    executed. BatchTopK SAEs come with their threshold: as mutual_choice from dictionary_learning, as jumprelu from
    SAELens, which saves them so.

    Raises FileNotFoundError or ValueError that name the file and what to do: nothing there, a damaged file, weights
    that do not fit their config, an architecture that we do not have. Warns where a BatchTopK SAE has no threshold yet.
    """
    folder = Path(folder).expanduser()
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if OURS in files:
        sae = _read_ours(folder)
    elif WEIGHTS in files:
        sae = read_saelens(folder)
    elif "sae.safetensors" in files:
        sae = read_sparsify(folder)
    elif "ae.pt" in files:
        sae = read_dictionary_learning(folder)
    else:
        raise FileNotFoundError(_nothing_there(folder, files))
    return sae if device is None else sae.to(device)


def load_metadata(folder: str | Path) -> dict[str, Any]:
    """What a folder says about where its SAE belongs: `model_name`, `hook_name` and the like; empty if it does not.

    Of dictionary_learning's folders, the trainer's settings; sparsify's say nothing but the name of the folder.
    """
    folder = Path(folder).expanduser()
    if (folder / "config.json").exists():
        return read_json(folder / "config.json").get("trainer") or {}
    return read_json(folder / CFG).get("metadata") or {}


def _read_ours(folder: Path) -> SparseAutoencoder:
    ours = read_json(folder / OURS)
    if ours.get("format") != FORMAT:
        raise ValueError(
            f"{folder / OURS}: its format is {ours.get('format')!r}, this version of sae_tutorial reads {FORMAT!r}; "
            "use the version that wrote it"
        )
    if not isinstance(ours.get("config"), dict):
        raise ValueError(f"{folder / OURS}: config must be an object, it is {ours.get('config')!r}; save the SAE again")
    config = config_of(folder / OURS, **ours["config"])
    theirs, exact = read_tensors(folder / WEIGHTS), read_tensors(folder / EXACT)
    if "b_gate" in theirs:
        theirs["b_enc"] = theirs.pop("b_gate")
    if config.tied:
        del theirs["W_enc"]  # there as a matrix of its own
    return assemble(config, theirs | exact, folder / WEIGHTS)


def _nothing_there(folder: Path, files: set[str]) -> str:
    if not folder.exists():
        return f"there is no folder {folder}"
    if not folder.is_dir():
        return f"{folder} is a file; give the folder that it lies in"
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and _has_weights(p))
    if inside:
        return f"{folder} holds several SAEs; give the folder of one: {', '.join(inside[:8])}"
    return (
        f"{folder} holds no SAE: none of {WEIGHTS} (SAELens, sae_tutorial), sae.safetensors (sparsify) and ae.pt "
        f"(dictionary_learning) is among its files: {', '.join(sorted(files)[:8]) or 'none'}"
    )


def _has_weights(folder: Path) -> bool:
    return any((folder / name).exists() for name in (WEIGHTS, "sae.safetensors", "ae.pt"))


# ---------------------------------------------------------------------- as SAELens has it


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _for_saelens(raw: SparseAutoencoder, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights, under our names, with a threshold for each feature where the rule has any."""
    weights = {name: parameter.detach() for name, parameter in raw.named_parameters()}
    if raw.config.rule not in ARCHITECTURES:
        weights["threshold"] = raw.threshold.detach().expand(raw.config.d_sae)
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def _name_there(name: str, rule: str) -> str:
    return "b_gate" if name == "b_enc" and rule == "gated" else name


def _saelens_cfg(sae: SparseAutoencoder, metadata: dict[str, Any]) -> dict[str, Any]:
    config = sae.config
    architecture = ARCHITECTURES.get(config.rule, "jumprelu")
    if config.is_transcoder:
        kind = "skip_transcoder" if config.skip else "transcoder"
        architecture = kind if architecture == "standard" else f"{architecture}_{kind}"
    cfg = {
        "architecture": architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not config.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if str(metadata.get("hook_name")).endswith("hook_z") else "none",
        "metadata": {"sae_lens_version": "6.0.0", "prepend_bos": True} | metadata,
    }
    if config.how.owner == "token":
        cfg |= {"k": int(config.k or 0), "rescale_acts_by_decoder_norm": False}
    return cfg | ({"d_out": config.d_out} if config.is_transcoder else {})


# ---------------------------------------------------------------------- files


def _write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    partial = file.with_name(file.name + ".partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    os.replace(partial, file)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, file)
