"""Activations on disk: checksummed shards that are written once and read through short-lived memory maps.

A shard is two files. `shard_00007.bin` holds rows of activations, row-major and little-endian, nothing else;
`shard_00007.json` holds what is known about them: the key of the harvest, the SHA-256 of the bytes, the moments of the
rows and the tokens that were left out, under a checksum of its own. It is written last, so a shard without one was
interrupted and does not count.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.files import sealed, unsealed, write_atomically

FIX = "Delete this file and harvest again: only what is missing will be recomputed."


@dataclass(frozen=True)
class Moments:
    """Mean and spread of rows seen so far, in float64; merging two is exact up to rounding, in any order.

    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1: no difference of large sums.
    """

    n: int
    mean: Float[Tensor, " d_in"]
    spread: float  # sum over rows of |x - mean|²

    @staticmethod
    def of(acts_BD: Float[Tensor, "batch d_in"]) -> "Moments":
        acts_BD = acts_BD.detach()
        acts_BD = acts_BD.cpu().double() if acts_BD.device.type == "mps" else acts_BD.double()  # MPS has no float64
        mean_D = acts_BD.mean(dim=0)
        return Moments(len(acts_BD), mean_D.cpu(), (acts_BD - mean_D).square_().sum().item())

    @staticmethod
    def merged(parts: Sequence["Moments"]) -> "Moments":
        parts = [part for part in parts if part.n] or parts[:1]
        total = parts[0]
        for part in parts[1:]:
            n = total.n + part.n
            step_D = part.mean - total.mean
            spread = total.spread + part.spread + step_D.square().sum().item() * total.n * part.n / n
            total = Moments(n, total.mean + step_D * (part.n / n), spread)
        return total

    @property
    def scale(self) -> float:
        """Root-mean-square deviation per coordinate: sqrt(E|x - mean|² / d_in)."""
        return (self.spread / (self.n * len(self.mean))) ** 0.5


@dataclass(frozen=True)
class Shard:
    """One file of activations, and what its record holds about them."""

    path: Path  # the .bin file
    dtype: torch.dtype
    sha256: str
    moments: Moments
    left_out: Float[Tensor, "n 3"]  # see ActivationStore

    @staticmethod
    def write(path: Path, key: str, acts_ND: Float[Tensor, "rows d_in"], moments: Moments, left_out: Tensor) -> None:
        content = acts_ND.contiguous().view(torch.uint8).flatten().numpy().data
        known = {
            "key": key,
            "sha256": hashlib.sha256(content).hexdigest(),
            "rows": moments.n,
            "mean": moments.mean.tolist(),
            "spread": moments.spread,
            "left_out": left_out.tolist(),
        }
        write_atomically(path, content)
        write_atomically(path.with_suffix(".json"), sealed(known))

    @staticmethod
    def read(path: Path, key: str, positions: int, d_in: int, dtype: torch.dtype) -> "Shard":
        """The shard at `path`, whose rows and left-out tokens are `positions` together; its rows are not looked at.

        Raises ValueError that names the file at fault if something is missing, cut short or of another harvest.
        """
        record = path.with_suffix(".json")
        if not (path.exists() and record.exists()):
            raise ValueError(f"{path} or its .json is missing: this harvest is not finished. Harvest again.")
        try:
            known = unsealed(record.read_bytes())
            moments = Moments(known["rows"], torch.tensor(known["mean"], dtype=torch.float64), known["spread"])
            left_out = torch.tensor(known["left_out"], dtype=torch.float64).reshape(-1, 3)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{record} is damaged, or of an older version ({error}). {FIX}") from None
        ours, theirs = (key, positions, d_in), (known["key"], moments.n + len(left_out), len(moments.mean))
        if ours != theirs:
            raise ValueError(f"{record} is of another harvest: (key, positions, d_in)={theirs}, expected {ours}. {FIX}")
        if path.stat().st_size != (expected := moments.n * d_in * dtype.itemsize):
            raise ValueError(f"{path} holds {path.stat().st_size:,} bytes, expected {expected:,}. {FIX}")
        return Shard(path, dtype, known["sha256"], moments, left_out)

    def verify(self) -> None:
        """Raise ValueError unless the bytes are those that were written."""
        with open(self.path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise ValueError(f"{self.path} is corrupted: its SHA-256 is {found}, before {self.sha256}. {FIX}")

    def map(self) -> Float[Tensor, "rows d_in"]:
        """The rows as a memory map; pages stay in this process's resident memory until the tensor is dropped."""
        rows, d_in = self.moments.n, len(self.moments.mean)
        return torch.from_file(str(self.path), shared=False, size=rows * d_in, dtype=self.dtype).view(rows, d_in)

    def prefetch(self) -> None:
        """Ask the operating system to start reading the file; returns at once."""
        if hasattr(os, "posix_fadvise"):
            descriptor = os.open(self.path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            os.close(descriptor)


def gather_rows(
    shards: Sequence[Shard], positions_N: Int[Tensor, " n"], out_ND: Float[Tensor, "n d_in"]
) -> Float[Tensor, "n d_in"]:
    """Copy the rows at ascending `positions_N`, counted through all shards, into `out_ND`.

    One shard is mapped at a time, so resident memory is `out_ND` plus one shard, however large the store is.
    """
    starts = torch.tensor([0] + [shard.moments.n for shard in shards]).cumsum(0)  # first position of each shard
    bounds = torch.searchsorted(positions_N.contiguous(), starts.to(positions_N.dtype)).tolist()
    spans = [(shard, start, a, b) for shard, start, a, b in zip(shards, starts.tolist(), bounds, bounds[1:]) if b > a]
    for i, (shard, start, a, b) in enumerate(spans):
        if i + 1 < len(spans):
            following, _, c, d = spans[i + 1]
            if (d - c) * 4096 * 32 > following.path.stat().st_size:  # wants more than 1/32 of its pages: read all of it
                following.prefetch()
        torch.index_select(shard.map(), 0, positions_N[a:b] - start, out=out_ND[a:b])
    return out_ND
