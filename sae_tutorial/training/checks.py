"""What `train` is given, checked before it changes anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.files import path_of
from sae_tutorial.activations.ranks import Ranks, check_same
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.resampling import check_resampling
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here


def settings_of_each(settings: Any, n: int, changes: dict[str, Any]) -> list[TrainSettings]:
    """The settings of each of `n` SAEs, of which steps, batch_size and seed are the same for all."""
    fields = [field.name for field in dataclasses.fields(TrainSettings)]
    for name in changes:
        if name not in fields:
            raise TypeError(f"train got an unknown setting {name!r}; there are: {', '.join(fields)}")
    each = list(settings) if isinstance(settings, list | tuple) else [settings or TrainSettings()] * n
    for one in each:
        if not isinstance(one, TrainSettings):
            raise TypeError(f"settings must be TrainSettings, got {one!r}; single ones go by name: train(…, steps=100)")
    if n == 0 or len(each) != n:
        raise ValueError(f"settings must be one for all or one for each of the {n} SAEs, got {len(each)}")
    each = [dataclasses.replace(one, **changes) for one in each]
    for name in ("steps", "batch_size", "seed"):
        values = sorted({getattr(one, name) for one in each})
        if len(values) > 1:
            raise ValueError(f"{name} must be the same for SAEs trained side by side, got {values}")
    return each


def check_saes(saes: Sequence[SparseAutoencoder], each: list[TrainSettings]) -> None:
    """TypeError or ValueError for SAEs that cannot be trained, or not with these settings."""
    for sae, settings in zip(saes, each):
        if not isinstance(sae, SparseAutoencoder):
            raise TypeError(f"what is trained must be a SparseAutoencoder, got {type(sae).__name__}")
        if sae.W_dec.is_inference():
            raise ValueError("the SAE was made under torch.inference_mode(), so it cannot be trained; make it outside")
        if not any(parameter.requires_grad for parameter in sae.parameters()):
            raise ValueError("all parameters of the SAE are frozen; let some learn: sae.requires_grad_(True)")
        if sae.W_dec.dtype == torch.float16:
            raise ValueError("an SAE in float16 cannot be trained: small gradients vanish; convert it: sae.float()")
        k, size = sae.config.k, settings.batch_size
        if k is not None and sae.config.n_matches(size) < 1:
            raise ValueError(f"k={k:g} leaves not one match to a batch of {size} tokens; raise k or batch_size")
        settings.check_for(sae.config)
        if settings.resample_at:
            check_resampling(sae.config)
            frozen = [name for name in ("W_enc", "b_enc", "W_dec") if not getattr(sae, name).requires_grad]
            if frozen:
                names = ", ".join(frozen)
                raise ValueError(f"resample_at would change what is frozen ({names}); leave resample_at out")
    if len({id(sae) for sae in saes}) < len(saes):
        raise ValueError("saes holds the same SAE twice, and both would train it; copy it: copy.deepcopy(sae)")


def check_stores(
    saes: Sequence[SparseAutoencoder], store: ActivationStore, target_store: ActivationStore | None
) -> list[ActivationStore]:
    """The stores that there are. TypeError or ValueError for those that do not fit the SAEs, or each other."""
    stores = [store] if target_store is None else [store, target_store]
    for name, one in zip(("store", "target_store"), stores):
        if not isinstance(one, ActivationStore):
            made = "ActivationStore.from_tensor(x) makes one of a tensor"
            raise TypeError(f"{name} must be an ActivationStore, got {type(one).__name__}; {made}")
        if not (math.isfinite(one.scale) and one.scale > 0):
            raise ValueError(f"all activations of {name} are equal (scale {one.scale}): there is nothing to learn")
    for sae in saes:
        if store.d_in != sae.config.d_in:
            raise ValueError(f"the store's activations have width {store.d_in}, the SAE has d_in={sae.config.d_in}")
        if sae.config.is_transcoder != (target_store is not None):
            got = f"got d_out={sae.config.d_out} and target_store={target_store!r}"
            raise ValueError(f"target_store is what a transcoder predicts, whose config has d_out; {got}")
        gradients = stores[-1].gradients
        if sae.config.gradient_weight and (gradients is None or gradients.scale == 0):
            name = "store" if target_store is None else "target_store"
            what = "no gradients" if gradients is None else "gradients that are all equal"
            raise ValueError(
                f"{name} has {what}, by which rule={sae.config.rule!r} with beta={sae.config.gradient_weight:g} "
                "chooses; harvest it with gradients=True, or set beta=0"
            )
        if target_store is not None and target_store.d_in != sae.config.d_out:
            raise ValueError(f"target_store has width {target_store.d_in}, the SAE has d_out={sae.config.d_out}")
    if len({one.text_hash for one in stores} - {None}) > 1 or len({len(one) for one in stores}) > 1:
        raise ValueError(
            f"store has {len(store)} positions and target_store {len(stores[-1])}, or they hold other tokens; harvest "
            "both from the same tokens, the second with like=store, so that positions belong together"
        )
    return stores


def check_ranks(
    ranks: Ranks,
    saes: Sequence[SparseAutoencoder],
    each: list[TrainSettings],
    abouts: list[dict[str, Any]],
    stores: list[ActivationStore],
    options: dict[str, Any],
) -> None:
    """ValueError where the ranks of a group were given different SAEs, settings, activations or options."""
    told = {f"SAE {i}": one for i, one in enumerate(abouts)} | {"the number of stores": len(stores)} | options
    for i, (sae, settings) in enumerate(zip(saes, each)):
        device = sae.W_dec.device
        told[f"of SAE {i}"] = {
            "parts": sae.part[1],
            "trained": sae.started,
            "frozen": [name for name, p in sae.named_parameters() if not p.requires_grad],
            "dtype": str(sae.W_dec.dtype),
            "device": device.type,
            "encoder_dtype": str(encoder_dtype_here(settings.encoder_dtype, device)),
        }
    # A scale depends, in its last digits, on how many threads have added it up.
    told |= {f"store {i}": (len(one), one.d_in, f"{one.scale:.4g}") for i, one in enumerate(stores)}
    check_same(ranks, "what is trained, and on what,", told)


def check_split(split: Any, saes: Sequence[SparseAutoencoder], ranks: Ranks) -> tuple[bool, int]:
    """Whether SAEs are dealt out to ranks, and if not, in how many parts ranks have their features."""
    split = split if isinstance(split, str) else as_parts(split)
    given = sorted({sae.part[1] for sae in saes})
    parts = feature_parts(split, ranks.world, given[-1])
    wanted = (ranks.rank % parts, parts)
    if given != [1] and (given != [parts] or split in ("tokens", "saes") or any(sae.part != wanted for sae in saes)):
        found = ", ".join(sorted({str(sae.part) for sae in saes}))
        raise ValueError(
            f"split={split!r} of {ranks.world} processes wants part {wanted} of each SAE on rank {ranks.rank}, or "
            f'whole ones, got {found}; make them with part=(rank, {parts}), and leave split="auto"'
        )
    if ranks.world % parts:
        raise ValueError(
            f"features are in {parts} parts, which {ranks.world} processes cannot share equally; start a multiple of "
            f"{parts} processes, or make other parts"
        )
    if few := [sae.config.d_sae for sae in saes if sae.config.d_sae < parts]:
        raise ValueError(
            f"split={split!r} is for {parts} parts of the features, but there are d_sae={few[0]}; split less"
        )
    deals = split == "saes" or (split == "auto" and len(saes) > 1)
    return deals and parts == 1 and ranks.world > 1, parts


def as_parts(split: Any) -> tuple[int, int]:
    """`split` as (parts of the tokens, parts of the features). ValueError for anything else."""
    try:
        tokens, parts = (as_whole("split", n, least=1) for n in ([] if isinstance(split, str) else list(split)))
    except (TypeError, ValueError):
        names = '"auto", "tokens", "features", "saes" or (parts of the tokens, parts of the features)'
        raise ValueError(f"split must be {names}, got {split!r}") from None
    return tokens, parts


def feature_parts(split: Any, world: int, already: int = 1) -> int:
    """In how many parts so many processes have an SAE's features; `already`: those that it was given in."""
    if isinstance(split, str) and split in ("auto", "tokens", "saes"):
        return already
    if isinstance(split, str) and split == "features":
        return already if already > 1 else world
    tokens, parts = as_parts(split)
    if tokens * parts != world:
        raise ValueError(f"split={split!r} is for {tokens * parts} processes, but there are {world}")
    return parts


def checkpoint_file(checkpoint: Any, resume: Any) -> Path | None:
    """Where checkpoints go, and with resume=True must be. FileNotFoundError and ValueError that name the fix."""
    if resume not in (True, False, "auto"):
        raise ValueError(f'resume must be True, False or "auto", got {resume!r}')
    if checkpoint is None:
        if resume:
            raise ValueError(f"resume={resume!r} goes on from a checkpoint, but there is none; give checkpoint=...")
        return None
    path = path_of("checkpoint", checkpoint)
    if resume is True and not path.exists():
        near = ", ".join(sorted(other.name for other in path.parent.glob(f"*{path.suffix}"))[:5])
        raise FileNotFoundError(
            f"resume=True, but there is no {path} (its folder has {near or 'no such files'}); mend the path, or give "
            'resume="auto", which goes on from a checkpoint if there is one'
        )
    return path
