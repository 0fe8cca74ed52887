"""save_sae and load_sae: an SAE as a folder that SAELens can read, too.

    cfg.json                   what SAELens 6 needs to know, and where the SAE belongs (model, hook)
    sae_weights.safetensors    weights that take raw activations: mean and scale are folded into them
    sae_tutorial.json          our config and what else is small, and checksums
    sae_tutorial.safetensors   what of our SAE the others do not hold bit for bit

Raw activations of a model with LayerNorms are those that `load_language_model` gives: with the mean over coordinates
taken off, as TransformerLens' compatibility mode does and every LayerNorm does anyway. Whoever reads the model as it
is on the hub takes it off first: without that a Feature Choice SAE of the embedded model had 1.8% more KL.

A transcoder of Token Choice or Gated, and an SAE with relative=True, has no counterpart in SAELens: only we can read
its folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.activations.files import path_of
from sae_tutorial.autoencoder import other_libraries as others
from sae_tutorial.autoencoder.exporting import FORMATS, in_json, in_safetensors, saelens_cfg, under_saelens_names
from sae_tutorial.autoencoder.folders import Files, reading, replace
from sae_tutorial.autoencoder.published import located
from sae_tutorial.autoencoder.reading import assemble, check_values, config_of, read_json, read_tensors
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.sae import SparseAutoencoder

CFG, WEIGHTS, OURS, EXACT = others.CFG, others.SAELENS_WEIGHTS, "sae_tutorial.json", "sae_tutorial.safetensors"
FORMAT, WITHOUT_CHECKSUMS = "sae_tutorial SAE, version 2", "sae_tutorial SAE, version 1"


def save_sae(
    sae: SparseAutoencoder,
    folder: str | Path,
    *,
    model_name: str | None = None,
    hook_name: str | None = None,
    context_size: int | None = None,
    exact: bool = True,
    format: str | None = None,
    **metadata: Any,
) -> Path:
    """Write `sae` to `folder`, in the format of SAELens 6 and so that `load_sae` gives back the very same SAE.

    model_name, hook_name, context_size, metadata
                what was read to train it: anything that JSON can hold; `load_metadata` reads it back. The names are
                the SAE's own by default, `hook_name_out` its target_hook_name
    exact       False leaves out what is needed only for the last bit, half of the folder if there are mean and scale.
                What comes back is the same function up to rounding; decoder rows have the norm `scale`
    format      "saelens", "sparsify" or "dictionary_learning": only what that library reads

    An SAE that is there already is replaced: whatever happens, the folder holds the old one or the new one.
    Raises ValueError for an SAE that could not be used (NaN, an inference threshold that is not measured yet) or that
    `format` cannot express, TypeError for metadata that JSON cannot hold, and OSError where there is no room; nothing
    has changed then.
    """
    if format not in (None, *FORMATS):
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, or None for our own, got {format!r}")
    folder = path_of("folder", folder)
    sae.must_be_whole("save_sae")
    if sae.config.how.measured and (sae.threshold < 0).any():
        raise ValueError(
            f"this {sae.config.rule} SAE has no inference threshold yet, and without it others would read a ReLU SAE; "
            "call measure_thresholds(sae, batches) first. (To interrupt a training: train(..., checkpoint=...).)"
        )
    raw = folded(sae).to(sae.W_dec.dtype)
    check_values(sae.state_dict(), "this SAE cannot be saved")
    if not all(weight.isfinite().all() for name, weight in raw.named_parameters() if name != "threshold"):
        raise ValueError(f"{sae.W_dec.dtype} cannot hold this SAE once mean and scale are folded in; use sae.float()")
    about = {"model_name": sae.model_name, "hook_name": sae.hook_name, "hook_name_out": sae.target_hook_name}
    given = {"model_name": model_name, "hook_name": hook_name, "context_size": context_size} | metadata
    about |= {name: value for name, value in given.items() if value is not None}
    about = {name: _plain(name, value) for name, value in about.items() if value is not None}
    content = _ours(sae if exact else raw, raw, about) if format is None else FORMATS[format](raw, about)
    mistaken = [EXACT, *takewhile(lambda name: name not in content, KINDS)]  # `load_sae` would read these first
    replace(folder, dict.fromkeys(mistaken) | content)
    return folder


def load_sae(
    folder: str | Path,
    *,
    device: torch.device | str | None = None,
    kind: str | None = None,
    scaling_factor: float | None = None,
    revision: str | None = None,
) -> SparseAutoencoder:
    """The SAE in `folder`, written by save_sae, SAELens 3 to 6, sparsify or dictionary_learning, or of Gemma Scope.

    folder          or its main file, or an id on the Hugging Face hub: "org/repo", "org/repo/path/inside"
    kind            the class of dictionary_learning, where an ae.pt comes without its config.json: "AutoEncoder" …
    scaling_factor  what SAELens multiplied activations by, where the folder states that it did, but not by how much
    revision        of the hub's repository; None: the newest

    Ours comes back bit for bit; others in float32, for raw activations. Nothing in a file is executed. BatchTopK SAEs
    come with their threshold: as mutual_choice from dictionary_learning, as jumprelu from SAELens, which saves them so.
    Raises FileNotFoundError or ValueError that name the file and what to do: nothing there, a damaged file, a function
    that we cannot express; ConnectionError where the hub is needed. Warns where a BatchTopK SAE has no threshold yet.
    """
    with _opened(folder, revision) as (files, main):
        read, about_it, option = KINDS[main]
        given = {n: v for n, v in {"kind": kind, "scaling_factor": scaling_factor}.items() if v is not None}
        for name in given.keys() - {option}:
            raise ValueError(f"{name}={given[name]!r} is not for {files[main]}; leave {name} out")
        sae, about = read(files, **given), about_it(files)
    sae.imported = sae.imported or main != OURS
    for name, there in (("model_name",) * 2, ("hook_name",) * 2, ("target_hook_name", "hook_name_out")):
        setattr(sae, name, about.get(there) if isinstance(about.get(there), str) else None)
    return sae if device is None else sae.to(device)


def load_metadata(folder: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """What a folder tells about where its SAE belongs: `model_name`, `hook_name` and the like, with what else stands
    there, such as the settings of dictionary_learning's trainer; empty if there is nothing."""
    with _opened(folder, revision) as (files, main):
        return KINDS[main][1](files)


@contextmanager
def _opened(folder: str | Path, revision: str | None) -> Iterator[tuple[Files, str]]:
    """The files of the folder, and the one that tells what it is."""
    place = located(folder, revision, weights=KINDS, beside=(CFG, others.CONFIG, EXACT))
    alone = place.name if place.is_file() else None
    with reading(place if alone is None else place.parent) as files:
        if EXACT in files and OURS not in files:
            why = "a save that was interrupted, of an earlier version; save the SAE again"
            raise ValueError(f"{files.folder} holds {EXACT} without {OURS}: {why}")
        main = next((name for name in KINDS if name in files and alone in (None, name)), None)
        if main is None:
            raise FileNotFoundError(_nothing_there(place))
        yield files, main


def _nothing_there(place: Path) -> str:
    if not place.is_dir():
        return f"{place} is a file; give the folder that it is in" if place.exists() else f"there is no folder {place}"
    held = sorted(path.name for path in place.iterdir())
    inside = [name for name in held if any((place / name / kind).exists() for kind in KINDS)]
    if inside:
        return f"{place} holds several SAEs; give the folder of one: {', '.join(inside[:8])}"
    return f"{place} holds no SAE: none of {', '.join(KINDS)} is among its files: {', '.join(held[:8]) or 'none'}"


def _ours(kept: SparseAutoencoder, raw: SparseAutoencoder, about: dict[str, Any]) -> dict[str, bytes]:
    """The four files; checksums tell whether weights and settings are of one save, and as they were saved."""
    theirs = under_saelens_names(raw)
    extra = {name: t for name, t in kept.state_dict().items() if not (name in theirs and _same(theirs[name], t))}
    content = {WEIGHTS: in_safetensors(theirs), EXACT: in_safetensors(extra)}
    settings = {"config": asdict(kept.config), "imported": kept.imported}
    sums = {name: _checksum(BytesIO(data)) for name, data in (content | {OURS: in_json(settings)}).items()}
    content[OURS] = in_json({"format": FORMAT} | settings | {"sha256": sums})
    return content | {CFG: in_json(saelens_cfg(raw, about))}


def _read_ours(files: Files) -> SparseAutoencoder:
    file = files[OURS]
    ours = read_json(file)
    if ours.get("format") not in (FORMAT, WITHOUT_CHECKSUMS):
        raise ValueError(f"{file} is {ours.get('format')!r}, and not {FORMAT!r}; use the version that wrote it")
    settings = {"config": ours.get("config"), "imported": ours.get("imported", False)}
    if not isinstance(settings["config"], dict):
        raise ValueError(f"{file}: config must be an object, it is {settings['config']!r}; save the SAE again")
    config = config_of(file, **settings["config"])
    theirs, exact = read_tensors(files[WEIGHTS]), read_tensors(files[EXACT])
    if ours["format"] == FORMAT:
        sums = {name: _checksum(files[name].open("rb")) for name in (WEIGHTS, EXACT)}
        for name, found in (sums | {OURS: _checksum(BytesIO(in_json(settings)))}).items():
            if not isinstance(ours.get("sha256"), dict) or ours["sha256"].get(name) != found:
                which = file if name == OURS else f"{files[name]} or {file}"
                raise ValueError(f"{which} is damaged or was changed: it is not what was saved; save it again")
    if "b_gate" in theirs:
        theirs["b_enc"] = theirs.pop("b_gate")
    if config.tied:
        theirs.pop("W_enc", None)  # there as a matrix of its own
    sae = assemble(config, theirs | exact, files[WEIGHTS])
    sae.imported = settings["imported"]
    return sae


def _checksum(content: Any) -> str:
    with content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _plain(name: str, value: Any) -> Any:
    """Metadata as JSON has it: numbers of numpy and torch become Python's, paths text."""

    def known(thing: Any) -> Any:
        return os.fspath(thing) if isinstance(thing, os.PathLike) else thing.tolist()

    try:
        return json.loads(json.dumps(value, default=known, allow_nan=False))
    except (TypeError, ValueError, AttributeError, RecursionError):
        allowed = "metadata may hold text, finite numbers, lists and dicts"
        raise TypeError(f"{name} cannot be written as JSON, it is {value!r:.80}; {allowed}") from None


# By the file that tells the kind: how it is read, what it tells about where the SAE belongs, and which argument of
# load_sae is for it. The first one that is there is what the folder holds.
KINDS: dict[str, tuple[Callable[..., SparseAutoencoder], Callable[[Files], dict[str, Any]], str | None]] = {
    OURS: (_read_ours, others.about_saelens, None),
    WEIGHTS: (others.read_saelens, others.about_saelens, "scaling_factor"),
    others.SPARSIFY_WEIGHTS: (others.read_sparsify, others.about_sparsify, None),
    others.DICTIONARY_WEIGHTS: (others.read_dictionary_learning, others.about_dictionary_learning, "kind"),
    others.GEMMA_WEIGHTS: (others.read_gemma_scope, others.about_gemma_scope, None),
}
