"""The checkpoint of a training: everything that the next steps depend on, in one file.

It is a zip file of tensors and plain values, as torch writes them. Of an SAE whose features several processes share,
it has the first part, and names the files that have the others; any number of processes goes on from them. What is read
is compared with the state of a run that begins, part by part: a file that is damaged, or of another version or run, is
refused and never half used.
"""

from __future__ import annotations

import dataclasses
import glob
import pickle
import secrets
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sae_tutorial.activations import files
from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.sae import SparseAutoencoder, feature_dim, features_of
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.step import Trainee

FORMAT = "sae_tutorial training, version 1"
OF_USAGE = ("density", "demand", "silent", "without.density", "without.demand")  # counts of each feature


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


def save(content: dict[str, Any], path: Path) -> bool:
    """All or nothing: the old file stays until the new one is complete, and if that fails. Then a warning tells why,
    for hours of training are worth more than their insurance. Returns whether it was written."""
    try:
        files.write_atomically(path, _writer(content))
    except OSError as error:
        _warn(content["SAEs"][0]["step"], str(error))
        return False
    return True


def _warn(step: int, error: str) -> None:
    warnings.warn(f"step {step} is in no checkpoint: {error}. Training goes on", RuntimeWarning, stacklevel=3)


class Keeper:
    """Writes a checkpoint together with the other ranks: rank 0 the file, and of an SAE whose features ranks share each
    part but the first the rank that has it, and the batch's first tokens. The file comes last, so it always names parts
    that are there; those of the one before go after it."""

    def __init__(self, path: Path, ranks: Ranks, grid: Grid, content: Callable[[list[dict]], dict[str, Any]]):
        self.path, self.ranks, self.content = path, ranks, content
        self.part, self.parts = grid.features.part
        self.writes_part = self.part > 0 and grid.tokens.rank == 0

    def check_room(self, states: list[dict]) -> None:
        """`check_room` of what each rank will write."""
        trials = self._names(0)  # which rank 0 must be able to see

        def try_out() -> None:
            if self.writes_part:
                files.check_writable(self.path)
                files.write_atomically(self.path.with_name(trials[self.part]), _writer({"SAEs": states}))
            elif self.ranks.rank == 0:
                check_room(self.content(states), self.path)

        def look() -> None:
            if not all(self.path.with_name(trials[part]).exists() for part in range(1, self.parts)):
                raise OSError(
                    f"checkpoint={str(self.path)!r} must lie in a folder that all processes see; name another"
                )

        try:
            self.ranks.all_do(try_out)
            self.ranks.first_does(look)
        finally:
            if self.writes_part:
                self.path.with_name(trials[self.part]).unlink(missing_ok=True)

    def save(self, states: list[dict], step: int) -> None:
        """`save`; nothing of a checkpoint counts unless all of it is written."""
        names = self._names(step)

        def write_part() -> str | None:
            if not self.writes_part:
                return None
            name = names[self.part]
            try:
                files.write_atomically(
                    self.path.with_name(name), _writer({"format": FORMAT, "SAEs": states, "name": name})
                )
            except OSError as error:
                return str(error)
            return None

        failed = next(filter(None, self.ranks.all_objects(self.ranks.all_do(write_part))), None)

        def finish() -> None:
            if failed is not None:
                _warn(step, failed)
            elif save(self.content(states) | ({"parts": names[1:]} if self.parts > 1 else {}), self.path):
                remove_parts(self.path, names)

        self.ranks.first_does(finish)

    def _names(self, step: int) -> list[str]:
        """Of the files that have the parts, this time: no other run, nor another save of this one, has the same."""
        token = self.ranks.from_rank(0, secrets.token_hex(4))
        return [f"{self.path.name}.step-{step}.{token}.part-{i}-of-{self.parts}" for i in range(self.parts)]


def remove_parts(path: Path, but: Sequence[str] = ()) -> None:
    """Delete the files that have the other parts of a checkpoint, `but` these."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.step-*.part-*-of-*"):
        if part.name not in but and not part.name.endswith(".unfinished"):
            part.unlink(missing_ok=True)


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
) -> tuple[int, float]:
    """Put the trainees, by their number among all SAEs, where the checkpoint was; returns its step and its seconds.
    Raises ValueError for a file that is damaged or no checkpoint, and for one of other SAEs, settings or activations.
    """
    content = _read(path)
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
    states = _states_of(trainees, content, path)
    found = _parts({i: states[i] for i in trainees}, "SAE") | {"seconds": content["seconds"]}
    expected = _parts({i: trainee.state() for i, trainee in trainees.items()}, "SAE") | {"seconds": 0.0}
    wrong = [name for name in found.keys() | expected.keys() if not _like(found.get(name), expected.get(name), name)]
    if wrong:
        raise ValueError(f"{path} is damaged, or of another version ({sorted(wrong)[0]}); use another checkpoint")
    for i, trainee in trainees.items():
        trainee.restore(states[i])
    return content["SAEs"][0]["step"], content["seconds"]


def _states_of(trainees: dict[int, Trainee], content: dict[str, Any], path: Path) -> dict[int, dict]:
    """The state of each trainee's features, wherever these are: a checkpoint's parts are other than this run's."""
    world = 1 + len(content.get("parts", []))
    of_parts: dict[int, list[dict]] = {0: content["SAEs"]}
    states = {}
    for i, trainee in trainees.items():
        sae = trainee.sae
        if world == sae.part[1] == 1:
            states[i] = content["SAEs"][i]
            continue
        cuts = {part: features_of((part, world), sae.config.d_sae) for part in range(world)}
        wanted = {
            part: range(max(has.start, sae.features.start) - has.start, min(has.stop, sae.features.stop) - has.start)
            for part, has in cuts.items()
        }
        wanted = {part: some for part, some in wanted.items() if some}
        for part in wanted.keys() - of_parts.keys():
            of_parts[part] = _read_part(path.with_name(content["parts"][part - 1]), content["SAEs"][0]["step"])
        try:
            pieces = [(of_parts[part][i], some) for part, some in wanted.items()]
            states[i] = _joined(pieces, "", by_feature(trainee))
        except (KeyError, TypeError, IndexError, AttributeError, RuntimeError):
            raise ValueError(f"{path} is damaged, or its parts are of different runs; use another checkpoint") from None
    return states


def by_feature(trainee: Trainee) -> dict[str, int]:
    """Along which dimension tensors of a trainee's state have features, by their names in nested dicts and lists."""
    optimiser, own = trainee.optimiser, set(map(id, trainee.optimiser.own))
    dims = {f".sae.{name}": feature_dim(name, tensor) for name, tensor in trainee.sae.state_dict().items()}
    rows = [f"exp_avg.{i}" for i, p in enumerate(optimiser.parameters) if id(p) in own]
    rows += [name.replace("exp_avg", "exp_avg_sq") for name in rows] + ["norms.0"]
    dims |= {f".optimiser.{name}": 0 for name in rows} | {f".usage.{name}": 0 for name in OF_USAGE}
    return {name: dim for name, dim in dims.items() if dim is not None}


def _joined(pieces: list[tuple[Any, range]], name: str, dims: dict[str, int]) -> Any:
    """One state from some features of several: tensors of `dims` in a row, anything else of the first."""
    first = pieces[0][0]
    if isinstance(first, dict):
        return {key: _joined([(one[key], some) for one, some in pieces], f"{name}.{key}", dims) for key in first}
    if isinstance(first, list):
        return [_joined([(one[i], some) for one, some in pieces], f"{name}.{i}", dims) for i in range(len(first))]
    if name not in dims:
        return first
    return torch.cat([one.narrow(dims[name], some.start, len(some)) for one, some in pieces], dims[name])


def _read_part(path: Path, step: int) -> list[dict]:
    """The states in one of the other files of a checkpoint. ValueError if it is not there, damaged, or of another."""
    if not path.exists():
        raise ValueError(f"{path} is missing, a part of the checkpoint; put it back, or use another checkpoint")
    content = _opened(path)
    known = isinstance(content, dict) and content.keys() == {"format", "SAEs", "name"} and content["name"] == path.name
    if not known or content["SAEs"][0]["step"] != step:
        raise ValueError(f"{path} is no part of this checkpoint; use another")
    return content["SAEs"]


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, if it is one of this version."""
    content = _opened(path)
    parts = {"format", "SAEs", "settings", "stores", "seconds"}
    known = isinstance(content, dict) and content.keys() - {"parts"} == parts and content["format"] == FORMAT
    if not known or not all(isinstance(name, str) and Path(name).name == name for name in content.get("parts", [])):
        raise ValueError(
            f"{path} is no checkpoint that this version of `train` wrote; go on with the one that did, or delete it"
        )
    return content


def _opened(path: Path) -> Any:
    """What is in a zip file of torch's; None where that is no such file. ValueError if it is damaged."""
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
            return torch.load(file, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError:
            raise ValueError(
                f"{path} holds more than tensors and plain values, which could be code, so it was not opened: it is no "
                "checkpoint of `train`; use another"
            ) from None
        except Exception:  # a zip file, but none of torch's
            return None


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
