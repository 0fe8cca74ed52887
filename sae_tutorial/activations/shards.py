"""Activations on disk: checksummed shards that are written once and read through short-lived memory maps.

A shard is two files. `shard_00007.bin` holds rows of activations, row-major and little-endian, nothing else;
`shard_00007.json` holds what is known about them: the key of the harvest, the number of rows, the SHA-256 of the bytes
and the moments of the rows. The .json is written last, so a shard without one was interrupted and does not count.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.files import write_atomically


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
    """One file of `rows` activations of width `d_in`, belonging to the harvest `key`."""

    path: Path  # the .bin file
    key: str
    rows: int
    d_in: int
    dtype: torch.dtype

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def n_bytes(self) -> int:
        return self.rows * self.d_in * self.dtype.itemsize

    def exists(self) -> bool:
        return self.record.exists() and self.path.exists()

    def write(self, acts_ND: Float[Tensor, "rows d_in"], moments: Moments) -> None:
        content = acts_ND.contiguous().view(torch.uint8).numpy().data.cast("B")
        known = {
            "key": self.key,
            "rows": self.rows,
            "sha256": hashlib.sha256(content).hexdigest(),
            "mean": moments.mean.tolist(),
            "spread": moments.spread,
        }
        write_atomically(self.path, content)
        write_atomically(self.record, json.dumps(known).encode())

    def read_record(self) -> Moments:
        """The moments of the rows. Raises ValueError if the shard is missing, cut short or of another harvest."""
        fix = "Delete this file and harvest again: only what is missing will be recomputed."
        if not self.exists():
            raise ValueError(f"{self.path} or its .json is missing: this harvest is not finished. Harvest again.")
        try:
            known = json.loads(self.record.read_text())
            moments = Moments(known["rows"], torch.tensor(known["mean"], dtype=torch.float64), known["spread"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.record} is not the record of a shard ({error!r}). {fix}") from None
        if known["key"] != self.key:
            raise ValueError(
                f"{self.path} belongs to another harvest (key {known['key'][:12]}, expected {self.key[:12]}). {fix}"
            )
        if known["rows"] != self.rows or self.path.stat().st_size != self.n_bytes:
            raise ValueError(
                f"{self.path} holds {self.path.stat().st_size:,} bytes and its record claims {known['rows']:,} rows; "
                f"expected {self.n_bytes:,} bytes and {self.rows:,} rows. {fix}"
            )
        return moments

    def verify(self) -> None:
        """Raise ValueError unless the bytes are those that were written."""
        with open(self.path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        expected = json.loads(self.record.read_text()).get("sha256")
        if found != expected:
            raise ValueError(
                f"{self.path} is corrupted: its SHA-256 is {found[:12]}…, its record says {str(expected)[:12]}…. "
                "Delete this file and harvest again: only what is missing will be recomputed."
            )

    def map(self) -> Float[Tensor, "rows d_in"]:
        """The rows as a memory map; pages stay in this process's resident memory until the tensor is dropped."""
        flat = torch.from_file(str(self.path), shared=False, size=self.rows * self.d_in, dtype=self.dtype)
        return flat.view(self.rows, self.d_in)

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
    starts = torch.tensor([0] + [shard.rows for shard in shards]).cumsum(0)  # first position of each shard
    bounds = torch.searchsorted(positions_N.contiguous(), starts.to(positions_N.dtype)).tolist()
    spans = [(shard, start, a, b) for shard, start, a, b in zip(shards, starts.tolist(), bounds, bounds[1:]) if b > a]
    for i, (shard, start, a, b) in enumerate(spans):
        if i + 1 < len(spans):
            following, _, c, d = spans[i + 1]
            if (d - c) * 4096 * 32 > following.n_bytes:  # wants more than 1/32 of its pages: read it as a whole
                following.prefetch()
        torch.index_select(shard.map(), 0, positions_N[a:b] - start, out=out_ND[a:b])
    return out_ND
