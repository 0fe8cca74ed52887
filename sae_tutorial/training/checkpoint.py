"""The checkpoint of a training: everything that the next steps depend on, in one file.

It is a zip file of tensors and plain values, as torch writes them. What is read is compared with the state of a run
that begins, part by part: a file that is damaged, or of another version or run, is refused and never half used.
"""

from __future__ import annotations

import dataclasses
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sae_tutorial.activations import files
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.step import Trainee

FORMAT = "sae_tutorial training, version 1"


def about(sae: SparseAutoencoder, settings: TrainSettings) -> dict[str, Any]:
    """Config and settings of one SAE, as plain values."""
    return dataclasses.asdict(sae.config) | dataclasses.asdict(settings)


def content_of(
    states: list[dict], abouts: list[dict[str, Any]], stores: list[ActivationStore], seconds: float
) -> dict[str, Any]:
    """All that a checkpoint has: the state of each trainee, what each is, what they are trained on."""
    told = {"settings": abouts, "stores": [store.about() for store in stores], "seconds": seconds}
    return {"format": FORMAT, "SAEs": states} | told


def check_room(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, as large as all that will follow, and delete it. OSError that names the file and the fix."""
    files.check_writable(path)
    files.remove_abandoned(path.parent, of=path.name + ".")  # others may be part of a save: see folders.py
    files.write_unfinished(path, _writer(content)).unlink()


def save(content: dict[str, Any], path: Path) -> None:
    """All or nothing: the old file stays until the new one is complete, and if that fails. Then a warning tells why,
    for hours of training are worth more than their insurance."""
    try:
        files.write_atomically(path, _writer(content))
    except OSError as error:
        what = f"step {content['SAEs'][0]['step']} is in no checkpoint: {error}. Training goes on"
        warnings.warn(what, RuntimeWarning, stacklevel=2)


def _writer(content: dict[str, Any]) -> Callable[[IO[bytes]], None]:

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what becomes of an OSError in torch's zip writer
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    return write


def restore(
    trainees: dict[int, Trainee],
    abouts: list[dict[str, Any]],
    stores: list[ActivationStore],
    path: Path,
    device: torch.device,
) -> tuple[int, float]:
    """Put the trainees, by their number among all SAEs, where the checkpoint was; returns its step and its seconds.
    Raises ValueError for a file that is damaged or no checkpoint, and for one of other SAEs, settings or activations.
    """
    content = _read(path, device)
    n_saes = len(content["SAEs"]) if isinstance(content["SAEs"], list) else 0
    if n_saes != len(abouts):
        raise ValueError(f"{path} holds {n_saes} SAEs, but {len(abouts)} are to be trained; use another checkpoint")
    was, now = _parts(content["settings"], "SAE"), _parts(abouts, "SAE")
    names = [name for name in [*now, *(was.keys() - now.keys())] if was.get(name) != now.get(name)]
    changed = [f"{name} was {was.get(name)!r} and is {now.get(name)!r}" for name in names]
    try:
        for name, about, store in zip(("store", "target_store")[: len(stores)], content["stores"], stores, strict=True):
            changed += [f"{name}: {difference}" for difference in [store.differs_from(about)] if difference]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        changed += ["what it holds about its stores is damaged, or of other stores"]
    if changed:
        raise ValueError(f"{path} belongs to another run: {'; '.join(changed)}. Use another checkpoint, or undo this")
    states = dict(enumerate(content["SAEs"]))
    found = _parts({i: states[i] for i in trainees}, "SAE") | {"seconds": content["seconds"]}
    expected = _parts({i: trainee.state() for i, trainee in trainees.items()}, "SAE") | {"seconds": 0.0}
    wrong = [name for name in found.keys() | expected.keys() if not _like(found.get(name), expected.get(name), name)]
    if wrong:
        raise ValueError(f"{path} is damaged, or of another version ({sorted(wrong)[0]}); use another checkpoint")
    for i, trainee in trainees.items():
        trainee.restore(states[i])
    return content["SAEs"][0]["step"], content["seconds"]


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint, if it is one of this version."""
    with open(path, "rb") as file:  # this one from here on, even if another process replaces it
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()  # torch compares no checksums
        except Exception as error:  # whatever the damage leads zipfile to
            raise ValueError(f"{path} is damaged, or no checkpoint ({error}); use another, or delete it") from None
        if broken is not None:
            raise ValueError(f"{path} is damaged (its part {broken}); use another, or delete it")
        file.seek(0)
        try:
            content = torch.load(file, weights_only=True, map_location=device)
        except pickle.UnpicklingError:
            raise ValueError(
                f"{path} holds more than tensors and plain values, which could be code, so it was not opened: it is no "
                "checkpoint of `train`; use another"
            ) from None
        except Exception:  # a zip file, but none of torch's
            content = None
    parts = {"format", "SAEs", "settings", "stores", "seconds"}
    if not isinstance(content, dict) or content.keys() != parts or content["format"] != FORMAT:
        raise ValueError(
            f"{path} is no checkpoint that this version of `train` wrote; go on with the one that did, or delete it"
        )
    return content


def _parts(content: Any, name: str) -> dict[str, Any]:
    """What is in nested dicts and lists: {"SAE.0.step": 600, "SAE.0.metrics": …}."""
    if not isinstance(content, dict | list | tuple):
        return {name: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return {inner: part for key, value in items for inner, part in _parts(value, f"{name}.{key}").items()}


def _like(found: Any, expected: Any, name: str) -> bool:
    """Whether a part is of the same type and shape as in a run that begins, and a tensor of finite numbers."""
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return type(found) is type(expected) and found is not None
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return False
    if name.endswith(".threshold"):
        return not bool(found.isnan().any())  # inf is the threshold of a feature that matches nothing
    return name.endswith(".metrics") or bool(found.isfinite().all())  # metrics of later steps are NaN
