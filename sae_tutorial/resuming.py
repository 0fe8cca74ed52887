"""The checkpoint of a training: everything that the next steps depend on, in one file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from sae_tutorial.training_step import Trainee


def save(trainees: list[Trainee], path: Path, seconds: float) -> None:
    """All or nothing: the old file stays until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": _about(trainees), "trainees": [t.state() for t in trainees], "seconds": seconds}
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def restore(trainees: list[Trainee], path: Path) -> float:
    """Put the trainees where the checkpoint was; returns the seconds spent until then."""
    content = torch.load(path, weights_only=True, map_location=trainees[0].sae.W_dec.device)
    before, now = content["about"], _about(trainees)
    if len(before) != len(now):
        raise ValueError(f"{path} holds {len(before)} SAEs, but {len(now)} are to be trained; use another checkpoint")
    for old, new in zip(before, now):
        changed = [f"{name} was {old.get(name)!r} and is {new[name]!r}" for name in new if old.get(name) != new[name]]
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}. Use another checkpoint, or undo this"
            )
    for trainee, state in zip(trainees, content["trainees"]):
        trainee.restore(state)
    return content["seconds"]


def _about(trainees: list[Trainee]) -> list[dict[str, Any]]:
    """Config and settings of each, as plain values."""
    return [dataclasses.asdict(t.sae.config) | dataclasses.asdict(t.settings) for t in trainees]
