"""The steps of a harvest: which tokens are kept, what the hook said about them, and where that is written.

`ActivationStore.harvest` calls `harvest_to_memory` or `harvest_to_disk`; everything a reader needs is told there.

On disk, a harvest is a folder `<hook>-<key>`, where the key is a hash of all that decides the values:

    harvest.json    spec (what the key is made of) and plan (how the work is cut into batches and shards)
    tokens.npy      the tokens that were read
    shard_*.bin     the activations, with a record of each beside it (see shards.py)
"""

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.files import write_atomically, write_once
from sae_tutorial.activations.forward import ReadHook, read_hook
from sae_tutorial.activations.kept_text import KeptText
from sae_tutorial.activations.shards import Moments, Shard

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def harvest_to_memory(
    model: Any,
    text: KeptText,
    hook_name: str,
    dtype: torch.dtype,
    batch_size: int,
    device: torch.device | str,
    progress: bool,
) -> tuple[Float[Tensor, "positions d_in"], Moments]:
    """All kept activations in one tensor, and their moments."""
    d_in, fused = _probe(model, text.tokens[:1], hook_name)
    acts_ND = torch.empty(len(text), d_in, dtype=dtype, device=device)
    with read_hook(model, hook_name, fused=fused) as read, _bar(len(text), hook_name, progress) as bar:
        moments = _fill(acts_ND, read, model.cfg.device, text, (0, len(text.tokens)), batch_size, bar)
    return acts_ND, moments


def harvest_to_disk(
    model: Any,
    text: KeptText,
    hook_name: str,
    cache_dir: Path,
    dtype_name: str,
    batch_size: int,
    shard_bytes: int,
    progress: bool,
) -> Path:
    """Harvest what is not on disk yet; returns the folder. Finished shards are verified before they are trusted."""
    if any(point.fwd_hooks for point in model.hook_dict.values()):
        raise ValueError(
            "model carries hooks that could change its activations, and a cache cannot tell. "
            "Call model.reset_hooks(), or harvest into memory with cache_dir=None."
        )
    spec = {
        "format": "sae_tutorial activations, version 1",
        "model": _model_hash(model),
        "tokens": text.hash(),
        "hook_name": hook_name,
        "dtype": dtype_name,
        "bos_id": text.bos_id,
        "pad_id": text.pad_id,
    }
    folder = cache_dir / f"{hook_name}-{_key(spec)[:16]}"
    if not (folder / "harvest.json").exists():
        d_in, fused = _probe(model, text.tokens[:1], hook_name)
        per_shard = shard_bytes // (d_in * DTYPES[dtype_name].itemsize * text.context)
        per_shard = max(1, per_shard // batch_size) * batch_size  # a shard is made of whole forward passes
        plan = {"d_in": d_in, "fused": fused, "batch_size": batch_size, "rows_per_shard": per_shard}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "tokens.npy", _npy(text.tokens))
        write_once(folder / "harvest.json", json.dumps({"spec": spec, "plan": plan}, indent=2).encode())
    # It stays cut as it was when somebody first began it, so that it ends with the same bytes.
    plan = _read_manifest(folder)["plan"]

    missing = []
    for shard, rows in _shards(folder, spec, plan, text):
        if shard.exists():
            shard.read_record()
            shard.verify()
        else:
            missing.append((shard, rows))
    if missing:
        total = sum(shard.rows for shard, _ in missing)
        with read_hook(model, hook_name, fused=plan["fused"]) as read, _bar(total, hook_name, progress) as bar:
            for shard, rows in missing:
                acts_ND = torch.empty(shard.rows, shard.d_in, dtype=shard.dtype)
                moments = _fill(acts_ND, read, model.cfg.device, text, rows, plan["batch_size"], bar)
                shard.write(acts_ND, moments)
    return folder


def read_harvest(folder: Path) -> tuple[str, KeptText, list[Shard]]:
    """(hook_name, the text, its shards) of a folder that `harvest_to_disk` made."""
    manifest = _read_manifest(folder)
    spec = manifest["spec"]
    try:
        tokens = torch.from_numpy(np.load(folder / "tokens.npy"))
        intact = tokens.ndim == 2 and KeptText.of(tokens, None, None).hash() == spec["tokens"]
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise ValueError(
            f"{folder / 'tokens.npy'} is missing or corrupted. Delete the folder {folder} and harvest again."
        )
    text = KeptText.of(tokens, spec["bos_id"], spec["pad_id"])
    return spec["hook_name"], text, [shard for shard, _ in _shards(folder, spec, manifest["plan"], text)]


# ---------------------------------------------------------------------- step by step


def _fill(
    acts_ND: Tensor, read: ReadHook, device: Any, text: KeptText, rows: tuple[int, int], batch_size: int, bar: tqdm
) -> Moments:
    """Write the activations of these rows of the text into `acts_ND`; returns their moments, as stored."""
    parts, n = [], 0
    for a in range(*rows, batch_size):
        b = min(a + batch_size, rows[1])
        mask_BS = text.mask(a, b)
        if mask_BS.any():
            acts_BSD = _vector_per_token(read(text.tokens[a:b].to(device)), text.tokens[a:b].shape)
            kept_BD = acts_BSD[mask_BS.to(acts_BSD.device)].to(acts_ND.device, acts_ND.dtype)
            acts_ND[n : n + len(kept_BD)] = kept_BD
            parts.append(moments_of_finite(kept_BD, f"rows {a} to {b - 1} of tokens"))
            n += len(kept_BD)
            bar.update(len(kept_BD))
    return Moments.merged(parts)


def _vector_per_token(acts: Tensor, batch_and_context: tuple[int, ...]) -> Float[Tensor, "batch context d_in"]:
    """Heads concatenated; ValueError if this is not one vector per token."""
    if acts.ndim not in (3, 4) or tuple(acts.shape[:2]) != tuple(batch_and_context):
        raise ValueError(
            f"hook_name gives activations of shape {tuple(acts.shape)} for tokens of shape {tuple(batch_and_context)}: "
            "not one vector per token. Take a hook of the residual stream, of mlp_out, attn_out or attn.hook_z."
        )
    return acts.flatten(2)


def _probe(model: Any, tokens_1S: Tensor, hook_name: str) -> tuple[int, bool]:
    """(d_in, whether the fused forward pass agrees with the bridge's own on one row)."""
    if hook_name.endswith(("hook_pattern", "hook_attn_scores")):
        raise ValueError(
            f"hook_name={hook_name!r} has one number per pair of tokens, not one vector per token. "
            "Take a hook of the residual stream, of mlp_out, attn_out or attn.hook_z."
        )
    results = []
    for fused in (False, True):
        with read_hook(model, hook_name, fused=fused) as read:
            results.append(_vector_per_token(read(tokens_1S.to(model.cfg.device)), tokens_1S.shape).float())
    theirs, ours = results
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 3e-2
    difference = (ours - theirs).norm() / theirs.norm()
    agrees = not difference > tolerance  # NaN is not a disagreement; it is reported where it is stored
    if not agrees:
        warnings.warn(
            f"The fused forward pass disagrees with the model's own at {hook_name}; harvesting with the slower one.",
            stacklevel=4,
        )
    return theirs.shape[-1], agrees


def moments_of_finite(acts_BD: Tensor, name: str, first: int = 0) -> Moments:
    """The moments; ValueError that names the place of a NaN or infinity, counting activations from `first`."""
    moments = Moments.of(acts_BD)
    if not np.isfinite(moments.spread):
        bad = (~torch.isfinite(acts_BD)).nonzero()[0].tolist()
        raise ValueError(f"{name}: activation {first + bad[0]}, coordinate {bad[1]} is NaN or infinite.")
    return moments


def _bar(total: int, hook_name: str, progress: bool) -> tqdm:
    return tqdm(total=total, desc=hook_name, unit=" tokens", unit_scale=True, disable=not progress)


# ---------------------------------------------------------------------- what a harvest on disk is keyed by


def _shards(
    folder: Path, spec: dict[str, Any], plan: dict[str, Any], text: KeptText
) -> list[tuple[Shard, tuple[int, int]]]:
    """Every shard that holds something, with the rows of the text (from, to) that it covers."""
    n, step = len(text.tokens), plan["rows_per_shard"]
    found = []
    for i, a in enumerate(range(0, n, step)):
        b = min(a + step, n)
        positions = int(text.first[b] - text.first[a])
        path = folder / f"shard_{i:05d}.bin"
        if positions:
            found.append((Shard(path, _key(spec), positions, plan["d_in"], DTYPES[spec["dtype"]]), (a, b)))
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / "harvest.json"
    if not file.exists():
        raise ValueError(f"{folder} is not a harvest: it has no harvest.json. Pass the folder that store.folder names.")
    try:
        manifest = json.loads(file.read_text())
        intact = folder.name.endswith(_key(manifest["spec"])[:16]) and manifest["plan"]["rows_per_shard"] > 0
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise ValueError(f"{file} is damaged or of another harvest. Delete the folder {folder} and harvest again.")
    return manifest


def _key(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _model_hash(model: Any) -> str:
    """SHA-256 over the weights as they are used (after compatibility mode folded them) and the configuration."""
    config = model.original_model.config.to_dict()
    ignored = ("transformers_version", "_name_or_path", "_attn_implementation", "architectures", "use_cache")
    settled = {name: value for name, value in config.items() if name not in ignored}
    digest = hashlib.sha256(json.dumps(settled, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(memoryview(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


# ---------------------------------------------------------------------- arguments


def _npy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.numpy())
    return buffer.getvalue()


def dtype_name_of(dtype: torch.dtype) -> str:
    for name, known in DTYPES.items():
        if dtype == known:
            return name
    raise ValueError(f"dtype={dtype} is not stored: take torch.float32 or torch.bfloat16.")
