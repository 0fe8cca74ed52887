"""The checkpoint of a training: everything that the next steps depend on, in one file."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.training.step import Trainee


def save(trainees: list[Trainee], stores: list[ActivationStore], path: Path, seconds: float) -> None:
    """All or nothing: the old file stays until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "about": _about(trainees),
        "stores": _about_stores(stores),
        "trainees": [t.state() for t in trainees],
        "seconds": seconds,
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def restore(trainees: list[Trainee], stores: list[ActivationStore], path: Path) -> float:
    """Put the trainees where the checkpoint was; returns the seconds spent until then."""
    content = _read(path, trainees[0].sae.W_dec.device)
    before, now = content["about"], _about(trainees)
    if len(before) != len(now):
        raise ValueError(f"{path} holds {len(before)} SAEs, but {len(now)} are to be trained; use another checkpoint")
    for old, new in zip(before, now):
        changed = [f"{name} was {old.get(name)!r} and is {new[name]!r}" for name in new if old.get(name) != new[name]]
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}. Use another checkpoint, or undo this"
            )
    for name, old, new in zip(("store", "target_store"), content["stores"], _about_stores(stores)):
        if not _alike(old, new):
            raise ValueError(
                f"{path} belongs to another run: its {name} had {old['positions']} positions and scale "
                f"{old['scale']:.6g}, this one has {new['positions']} and {new['scale']:.6g}, or another mean. Use "
                "another checkpoint, or train on the activations of then"
            )
    for trainee, state in zip(trainees, content["trainees"]):
        trainee.restore(state)
    return content["seconds"]


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint, if it is one."""
    try:
        content = torch.load(path, weights_only=True, map_location=device)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is damaged, or no checkpoint ({error}); delete it, or use another") from error
    if not isinstance(content, dict) or not {"about", "stores", "trainees", "seconds"} <= content.keys():
        raise ValueError(f"{path} is not a checkpoint that this version of `train` wrote; delete it, or use another")
    return content


def _about_stores(stores: list[ActivationStore]) -> list[dict[str, Any]]:
    """Enough to tell whether activations are those of then."""
    return [{"positions": len(one), "mean": one.mean, "scale": float(one.scale)} for one in stores]


def _alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two descriptions are of the same activations, harvested on another machine perhaps."""
    if old["positions"] != new["positions"] or old["mean"].shape != new["mean"].shape:
        return False
    near = 1e-3 * new["scale"]
    return abs(old["scale"] - new["scale"]) <= near and bool(
        ((old["mean"].cpu() - new["mean"].cpu()).abs() <= near).all()
    )


def _about(trainees: list[Trainee]) -> list[dict[str, Any]]:
    """Config and settings of each, as plain values."""
    return [dataclasses.asdict(t.sae.config) | dataclasses.asdict(t.settings) for t in trainees]
