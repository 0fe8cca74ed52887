"""The steps of a harvest: which tokens are kept, what the hook holds there, and where it is written.

On disk, a harvest is a folder `<hook>-<key>`, where the key is a hash of all that decides the values:

    harvest.json    spec (what the key is made of) and plan (how the work is cut into batches and shards)
    tokens.npz      the tokens that were read, and the first and last kept one of each row
    shard_*.bin     the activations, with a record of each beside it (see shards.py)
    gradients_*.bin the gradients there, row by row, where they were asked for
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.files import remove_abandoned, sealed, unsealed, write_atomically, write_once
from sae_tutorial.activations.forward import read_gradients, read_hooks
from sae_tutorial.activations.kept_text import KeptText
from sae_tutorial.activations.massive import sampled_rows
from sae_tutorial.activations.ranks import Ranks
from sae_tutorial.activations.shards import Moments, Shard

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TEXT = ("tokens", "start", "stop")
SIDES = ("shard", "gradients")  # names of files
Sides = list[tuple[Float[Tensor, "positions d_in"], Moments]]  # activations, and gradients where they are asked for
ReadRows = Callable[[slice | Int[Tensor, " rows"]], list[Tensor]]


@dataclass(frozen=True)
class Harvest:
    """What is read, and how; see `ActivationStore.harvest`."""

    model: Any
    text: KeptText
    hook_name: str
    dtype: torch.dtype
    batch_size: int
    max_norm: float | None
    without: Int[Tensor, " n"] | None  # positions to be left out, instead of those that max_norm finds
    progress: bool
    gradients: bool
    beside: tuple[str, ...] = ()  # hooks that are read in the same pass; in memory only

    def to_memory(self, device: torch.device | str) -> tuple[Sides, Float[Tensor, "n 3"]]:
        """All kept activations (and gradients, and what is read beside them), their moments, and what was left out."""
        plan = self._plan()
        with self._reading(plan["fused"]) as read, self._bar(len(self.text)) as bar:
            return self._read(read, plan, (0, len(self.text.tokens)), device, bar)

    def to_disk(self, cache_dir: Path, shard_bytes: int) -> Path:
        """Harvest what is not on disk yet; returns the folder. Finished shards are verified before they are trusted.
        Ranks deal shards out to each other."""
        if any(point.fwd_hooks for point in self.model.hook_dict.values()):
            raise ValueError("model carries hooks, which a cache cannot know: model.reset_hooks(), or omit cache_dir")
        text = self.text
        spec = {
            "format": "sae_tutorial activations, version 2",
            "model": _model_hash(self.model),
            "text": text.hash(),
            "hook_name": self.hook_name,
            "dtype": str(self.dtype)[6:],
            "max_norm": self.max_norm if self.without is None else text.hash(self.without),
        } | ({"gradients": True} if self.gradients else {})  # others have the key that they always had
        folder, ranks = cache_dir / f"{self.hook_name}-{_key(spec)[:16]}", Ranks.here()
        ranks.first_does(lambda: self._begin(folder, spec, shard_bytes))
        # It stays cut as it was when it was begun, so that it ends with the same bytes.
        spec, plan = _read_manifest(folder)
        shards = _shards(folder, spec, plan, text)
        done = [all(path.exists() and path.with_suffix(".json").exists() for path in paths) for paths, _, _ in shards]
        done = ranks.from_rank(0, done)
        mine = slice(ranks.rank, None, ranks.world)
        for paths, positions, _ in list(compress(shards, done))[mine]:
            for path in paths:
                Shard.read(path, _key(spec), positions, plan["d_in"], self.dtype).verify()
        missing = [shard for shard, is_there in zip(shards, done) if not is_there]
        if missing:
            total = sum(positions for _, positions, _ in missing[mine])
            with self._reading(plan["fused"]) as read, self._bar(total) as bar:
                for first in range(0, len(missing), ranks.world):
                    for paths, _, span in missing[first : first + ranks.world][ranks.rank : ranks.rank + 1]:
                        sides, left_out = self._read(read, plan, span, "cpu", bar)
                        for path, (rows_ND, moments) in zip(paths, sides, strict=True):
                            Shard.write(path, _key(spec), rows_ND, moments, left_out)
                    ranks.wait()  # shard by shard: whoever waits long is taken for lost
        return folder

    def _begin(self, folder: Path, spec: dict[str, Any], shard_bytes: int) -> None:
        """The manifest, if there is none yet, and the text."""
        remove_abandoned(folder)
        if (folder / "harvest.json").exists():
            return
        plan, text = self._plan(stacklevel=7), self.text
        rows = shard_bytes // (plan["d_in"] * self.dtype.itemsize * text.context)
        plan["rows_per_shard"] = max(1, rows // self.batch_size) * self.batch_size  # whole forward passes
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(text, name).numpy() for name in TEXT}
        write_atomically(folder / "tokens.npz", lambda file: np.savez(file, **arrays))
        write_once(folder / "harvest.json", sealed({"spec": spec, "plan": plan}))

    def _plan(self, stacklevel: int = 4) -> dict[str, Any]:
        """Rows in a batch; whether the fused forward pass is taken, which must agree with the bridge's own on one row;
        the width of an activation; the median norm, which is the unit of `max_norm`; both of each hook beside it."""
        first, *others = sampled_rows(self.text).split(1)
        theirs, ours = (self._of_rows(first, fused) for fused in (False, True))
        tolerance = 1e-4 if next(self.model.parameters()).dtype == torch.float32 else 3e-2
        # NaN is reported where it is stored.
        agrees = not any((b - a).norm() > tolerance * a.norm() for a, b in zip(theirs, ours))
        if not agrees:
            warnings.warn(
                f"The fused forward pass disagrees with the model's own at {self.hook_name}; the slower one harvests.",
                stacklevel=stacklevel,
            )
        sample = [ours if agrees else theirs]
        if others:
            sample += [self._of_rows(rows_B, agrees) for rows_B in torch.cat(others).split(self.batch_size)]
        median, *medians = [float(torch.cat([x.norm(dim=1) for x in side]).median()) for side in zip(*sample)]
        plan = {"batch_size": self.batch_size, "fused": agrees, "d_in": theirs[0].shape[-1], "median": median}
        beside = {"beside": [(x.shape[-1], one) for x, one in zip(theirs[1:], medians)]} if self.beside else {}
        return plan | beside

    @contextmanager
    def _reading(self, fused: bool) -> Iterator[ReadRows]:
        """A function from rows of the text to the activations there, and the gradients or what stands beside them."""
        tokens, is_text = self.text.tokens, self.text.mask(0, len(self.text.tokens))
        if self.gradients:
            with read_gradients(self.model, self.hook_name, fused=fused) as read_both:
                yield lambda rows: list(read_both(tokens[rows], is_text[rows]))
        else:
            names = [self.hook_name, *self.beside]
            with read_hooks(self.model, names, fused=fused) as read:

                def read_all(rows: slice | Int[Tensor, " rows"]) -> list[Tensor]:
                    found = read(tokens[rows])
                    return [found[name] for name in names]

                yield read_all

    def _of_rows(self, rows_B: Int[Tensor, " rows"], fused: bool) -> list[Float[Tensor, "kept d_in"]]:
        """What is read at the kept tokens of these rows, in float32."""
        mask_BS = torch.cat([self.text.mask(row, row + 1) for row in rows_B.tolist()])
        with self._reading(fused) as read:
            return [side.float() for side in self._at_kept(read(rows_B), mask_BS)]

    def _at_kept(self, sides: list[Tensor], mask_BS: Tensor) -> list[Float[Tensor, "kept d_in"]]:
        """Activations at the kept tokens, heads concatenated; ValueError if they are not one vector per token."""
        names = [self.hook_name] * (1 + self.gradients) + list(self.beside)
        return [_one_each(name, acts, mask_BS) for name, acts in zip(names, sides, strict=True)]

    def _read(
        self, read: ReadRows, plan: dict[str, Any], span: tuple[int, int], device: torch.device | str, bar: tqdm
    ) -> tuple[Sides, Float[Tensor, "n 3"]]:
        """What there is at these rows of the text, as stored, with its moments; and what was left out."""
        first, n, left_out = self.text.first, 0, [torch.empty(0, 3).double()]
        size, beside = int(first[span[1]] - first[span[0]]), plan.get("beside", [])
        widths = [plan["d_in"]] * (1 + self.gradients) + [width for width, _ in beside]
        medians = [plan["median"], *(median for _, median in beside)]
        of = ["", *["gradients of "] * self.gradients, *(f"{name} of " for name in self.beside)]
        kept = [torch.empty(size, width, dtype=self.dtype, device=device) for width in widths]
        parts: list[list[Moments]] = [[] for _ in kept]
        for a in range(*span, plan["batch_size"]):
            b = min(a + plan["batch_size"], span[1])
            position_B = torch.arange(int(first[a]), int(first[b]))
            if len(position_B):
                sides = [x.to(device, self.dtype) for x in self._at_kept(read(slice(a, b)), self.text.mask(a, b))]
                at_hooks = zip(sides[:1] + sides[1 + self.gradients :], medians)
                ratio_B = torch.stack([x.float().norm(dim=1).cpu().double() / median for x, median in at_hooks]).amax(0)
                if self.without is not None:
                    large_B = torch.isin(position_B, self.without)
                else:  # what is not finite is no outlier but an error, raised below
                    large_B = (ratio_B > (self.max_norm or math.inf)) & ratio_B.isfinite()
                if large_B.any():
                    left_out.append(torch.stack([*self.text.locate(position_B[large_B]), ratio_B[large_B]], dim=1))
                    sides = [side_BD[~large_B.to(device)] for side_BD in sides]
                m = n + len(sides[0])
                for kept_ND, side_BD, known, name in zip(kept, sides, parts, of):
                    if m > n:
                        known.append(moments_of_finite(side_BD, f"{name}rows {a} to {b - 1} of tokens"))
                    kept_ND[n:m] = side_BD
                n = m
                bar.update(len(position_B))
        nothing = [Moments(0, torch.zeros(width).double(), 0.0) for width in widths]
        found = [(kept_ND[:n], Moments.merged(known or [no])) for kept_ND, known, no in zip(kept, parts, nothing)]
        return found, torch.cat(left_out)

    def _bar(self, total: int) -> tqdm:
        return tqdm(total=total, desc=self.hook_name, unit=" tokens", unit_scale=True, disable=not self.progress)


def _one_each(name: str, acts: Tensor, mask_BS: Tensor) -> Float[Tensor, "kept d_in"]:
    of_pairs = name.endswith(("hook_pattern", "hook_attn_scores"))
    if of_pairs or acts.ndim not in (3, 4) or acts.shape[:2] != mask_BS.shape:
        raise ValueError(
            f"hook_name={name!r} gives activations of shape {tuple(acts.shape)} for tokens of shape "
            f"{tuple(mask_BS.shape)}: not one vector per token. Take a hook of the residual stream, of mlp_out, "
            "attn_out or attn.hook_z."
        )
    return acts.flatten(2)[mask_BS.to(acts.device)]


def read_harvest(folder: Path) -> tuple[str, KeptText, list[list[Shard]]]:
    """(hook_name, the text, the shards of its activations, and of its gradients where there are any) of a folder that
    `Harvest.to_disk` made."""
    spec, plan = _read_manifest(folder)
    try:
        with np.load(folder / "tokens.npz") as arrays:
            text = KeptText(*(torch.from_numpy(arrays[name]) for name in TEXT))
        intact = text.hash() == spec["text"]
    except (OSError, ValueError, EOFError, TypeError, KeyError, BadZipFile):
        intact = False
    if not intact:
        raise ValueError(f"{folder}/tokens.npz is missing or corrupted. Delete the folder {folder} and harvest again.")
    key, d_in, dtype = _key(spec), plan["d_in"], DTYPES[spec["dtype"]]
    found = _shards(folder, spec, plan, text)
    sides = zip(*([Shard.read(path, key, n, d_in, dtype) for path in paths] for paths, n, _ in found))
    return spec["hook_name"], text, [list(shards) for shards in sides]


def moments_of_finite(acts_BD: Tensor, name: str, first: int = 0) -> Moments:
    """The moments; ValueError that names the place of a NaN or infinity, counting activations from `first`."""
    moments = Moments.of(acts_BD)
    if not np.isfinite(moments.spread):
        bad = (~torch.isfinite(acts_BD)).nonzero()[0].tolist()
        raise ValueError(f"{name}: activation {first + bad[0]}, coordinate {bad[1]} is NaN or infinite.")
    return moments


def _shards(
    folder: Path, spec: dict[str, Any], plan: dict[str, Any], text: KeptText
) -> list[tuple[list[Path], int, tuple[int, int]]]:
    """(files, kept tokens, rows of the text from and to) of every shard that holds something: one file of activations,
    and one of gradients if they were asked for."""
    n, step, names = len(text.tokens), plan["rows_per_shard"], SIDES if "gradients" in spec else SIDES[:1]
    spans = [(i, a, min(a + step, n)) for i, a in enumerate(range(0, n, step))]
    counted = [
        ([folder / f"{name}_{i:05d}.bin" for name in names], int(text.first[b] - text.first[a]), (a, b))
        for i, a, b in spans
    ]
    return [shard for shard in counted if shard[1]]


def _read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    file = folder / "harvest.json"
    if not file.exists():
        raise ValueError(f"{folder} is not a harvest: it has no harvest.json. Pass the folder that store.folder names.")
    try:
        manifest = unsealed(file.read_bytes())
        spec, plan = manifest["spec"], manifest["plan"]
        if not folder.name.endswith(key := _key(spec)[:16]):
            raise ValueError(f"its key is {key}")
    except (ValueError, KeyError) as error:
        what = f"is damaged, of an older version, or of another harvest ({error})"
        raise ValueError(f"{file} {what}. Delete the folder {folder} and harvest again.") from None
    return spec, plan


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
