"""Files of weights and settings, read with suspicion, and the SAE that they make.

Nothing in a file is executed, no memory is taken because a file says so, and what is wrong is reported with its name.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder, fresh_buffers

MOST_UNPACKED = 8  # times the size of the file. Weights hardly shrink; what does is a trap


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing; without it the weights beside it cannot be understood") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, it is no JSON ({error}); save or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, not a {type(content).__name__}")
    return content


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: of safetensors, of numpy's npz, or of torch.save, where a pickle may hold tensors
    only. The two latter are zip files, whose checksums neither library looks at: they are checked here."""
    try:
        if ".safetensors" in file.suffixes:  # perhaps with the rest of an unfinished name
            return load_file(file)
        _check_zip(file)
        if ".npz" in file.suffixes:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays}
        content = torch.load(file, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing; save or download the SAE again") from None
    except pickle.UnpicklingError:  # torch's own message invites to open it all the same
        raise ValueError(f"{file} holds more than tensors, and is not opened: loading it could run code") from None
    except Exception as error:
        known = isinstance(error, SafetensorError | zipfile.BadZipFile)
        why = error if known else f"{type(error).__name__}: no file of tensors"
        raise ValueError(f"{file} is damaged ({why}); save or download it again") from None
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if isinstance(content, dict) and all(isinstance(n, str) and _is_whole(t) for n, t in content.items()):
        return {name: t.detach() for name, t in content.items()}
    held = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
    raise ValueError(f"{file} must hold tensors by name, perhaps under the key 'state_dict'; it holds {held:.200}")


def _is_whole(thing: Any) -> bool:
    """A tensor that takes as much memory as it seems to: neither sparse nor one row expanded to a million."""
    is_dense = isinstance(thing, Tensor) and thing.layout == torch.strided
    return is_dense and thing.nbytes <= thing.untyped_storage().nbytes()


def _check_zip(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED * file.stat().st_size + 2**20:
            raise zipfile.BadZipFile("it would unpack to many times its size, which weights do not")
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken} in it is wrong")


def config_of(file: Path, **fields: Any) -> SAEConfig:
    """The SAEConfig with these fields; where it refuses them, the error names the file that they are from."""
    try:
        return SAEConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe an SAE: {error}") from error


def pick(content: dict[str, Any], name: str, file: Path) -> Any:
    if name not in content:
        raise ValueError(f"{file}: {name!r} is missing; it holds {', '.join(sorted(content))}")
    return content[name]


def matrix(weights: dict[str, Tensor], name: str, file: Path) -> Tensor:
    if pick(weights, name, file).dim() != 2:
        raise ValueError(f"{file}: {name} must be a matrix, it has shape {tuple(weights[name].shape)}")
    return weights[name]


def assemble(
    config: SAEConfig, weights: dict[str, Tensor], file: Path, *, subtracts_b_dec: bool | None = None
) -> SparseAutoencoder:
    """The SAE with these weights, in the precision that they have; a buffer that is not given keeps its start value.

    `subtracts_b_dec` is whether the encoder that the weights are from sees x − b_dec; None: as ours does.
    Raises ValueError that names `file` for weights that are missing, unknown, of another shape, or no good numbers.
    """
    # The matrices before anything is made of the config, which may demand any amount of memory.
    sizes = {"W_dec": (config.d_sae, config.width_out), "W_enc": (config.d_in, config.d_sae)}
    absent = ("W_enc",) if config.tied else ()
    _check_shapes(config, {name: t for name, t in weights.items() if name in sizes}, sizes, absent, file)
    with torch.device("meta"):
        sae = SparseAutoencoder(config)
    buffers, shapes = fresh_buffers(config), {name: tuple(t.shape) for name, t in sae.state_dict().items()}
    _check_shapes(config, weights, shapes, buffers, file)
    dtypes = {weights[name].dtype for name, _ in sae.named_parameters()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64, torch.float16, torch.bfloat16}:
        found = ", ".join(f"{name} in {weights[name].dtype}" for name, _ in sae.named_parameters())
        raise ValueError(f"{file}: weights must all have one floating-point precision, it holds {found}; convert them")
    weights = buffers | weights
    for name, start in buffers.items():
        weights[name] = weights[name].to(weights["W_dec"].dtype if start.is_floating_point() else start.dtype)
    check_values(weights, str(file))
    if subtracts_b_dec not in (None, sae.centre is not None):
        weights |= without_b_dec(weights, sign=-1 if subtracts_b_dec else 1)
    if "W_enc" in weights:
        weights["W_enc"] = weights["W_enc"].T.contiguous().T  # feature by feature, as the sparse products like it
    sae.load_state_dict(weights, assign=True)
    return sae


def without_b_dec(weights: dict[str, Tensor], sign: int = -1) -> dict[str, Tensor]:
    """Biases of an encoder that does to x what these do to x − b_dec; sign=1 is the way back."""
    shift_F = sign * (weights["b_dec"] @ weights["W_enc"])
    biases = {"b_enc": weights["b_enc"] + shift_F}
    if "b_mag" in weights:
        biases["b_mag"] = weights["b_mag"] + shift_F * weights["r_mag"].exp()
    return biases


def check_values(tensors: dict[str, Tensor], where: str) -> None:
    """Raise ValueError for numbers in a state dict that no SAE can work with; `where` begins the message."""
    for name, tensor in tensors.items():
        good = tensor.isfinite()
        if name == "threshold":
            good = good | (tensor == torch.inf)  # of a feature that may never match
        if not good.all():
            bad = "NaN" if tensor.isnan().any() else "inf"
            raise ValueError(f"{where}: {name} holds {bad}; the training diverged, take an earlier checkpoint")
        if name in ("scale", "out_scale") and not tensor > 0:
            raise ValueError(f"{where}: {name} must be greater than 0, it is {float(tensor)}")
    if "gradient_scale" in tensors and tensors["gradient_scale"] == 0:
        raise ValueError(f"{where}: gradient_scale must not be 0, it is the unit of gradients")
    if "subsidy" in tensors and not (tensors["subsidy"] >= 1).all():
        raise ValueError(f"{where}: subsidy must be 1 or more, its least is {float(tensors['subsidy'].min()):g}")
    rank, law, seen = tensors["rank"], tensors["zipf_law"].tolist(), int(tensors["tokens_seen"])
    if not torch.equal(rank.sort().values.cpu(), torch.arange(len(rank))):
        raise ValueError(f"{where}: rank must hold each of 0 to {len(rank) - 1} once, the place of each feature")
    if law[0] < 0 or law[1] <= -1:
        raise ValueError(f"{where}: zipf_law must be (exponent ≥ 0, offset > −1), got {law}")
    if seen < 0:
        raise ValueError(f"{where}: tokens_seen must be 0 or more, it is {seen}")


def _check_shapes(
    config: SAEConfig, given: dict[str, Tensor], wanted: Mapping[str, tuple], optional: Container[str], file: Path
) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in given and name not in optional]
    problems += [f"{name} is unknown" for name in given if name not in wanted]
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items() if name in wanted}
    problems += [f"{name} is {shape}, not {wanted[name]}" for name, shape in shapes.items() if shape != wanted[name]]
    if problems:
        what = f"{config.rule}, {config.d_in} → {config.d_sae} → {config.width_out}"
        raise ValueError(f"{file} does not fit its config ({what}): {'; '.join(problems)}")
