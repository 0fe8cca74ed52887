"""Run text through a language model, read one hook, keep what it said, and hand it out shuffled: `ActivationStore`.

A position of the store is one kept token of the text. Two kinds of position are dropped, because they are no text:

    BOS      position 0 of a row, if it holds `bos_id` (its activations are enormous and would drown all others)
    padding  the run of `pad_id` at the end of a row (causal attention never looks there, so no mask is needed)

Normalisation is x -> (x - mean) / scale, measured over the whole store. `scale` is the root-mean-square deviation per
coordinate, so E|x|² = d_in afterwards: the expected (RMS) norm is sqrt(d_in), the total variance is d_in, and a mean
squared error per coordinate *is* a fraction of variance unexplained.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import check_hook_name
from sae_tutorial.activations.harvesting import (
    dtype_name_of,
    harvest_to_disk,
    harvest_to_memory,
    moments_of_finite,
    read_harvest,
)
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.activations.memory import MIB, rows_per_pass
from sae_tutorial.activations.shards import Moments, Shard, gather_rows


class ActivationStore:
    """Activations of one hook, (positions, d_in), in memory or on disk, with their mean and scale.

    Made by `ActivationStore.harvest`, `.from_tensor` or `.open`.

        len(store)        positions
        store.d_in        width of one activation
        store.mean        (d_in,) float32
        store.scale       float: root-mean-square deviation per coordinate
        store.tokens      (n, context) int64 that were harvested, or None; `locate` leads from a position back to them
        store.hook_name   where it was read, or None
        store.folder      where it lies on disk, or None
    """

    def __init__(
        self,
        moments: Moments,
        *,
        acts: Tensor | None = None,
        shards: list[Shard] | None = None,
        text: KeptText | None = None,
        hook_name: str | None = None,
        folder: Path | None = None,
    ):
        self._acts, self._shards, self._text = acts, shards or [], text
        self._length, self.d_in = moments.n, len(moments.mean)
        self.dtype = acts.dtype if acts is not None else self._shards[0].dtype
        self.mean: Float[Tensor, " d_in"] = moments.mean.float()
        self.scale: float = moments.scale
        self.hook_name, self.folder = hook_name, folder

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        where = f" on disk at {self.folder}" if self.folder else " in memory"
        hook = f" of {self.hook_name}" if self.hook_name else ""
        return f"ActivationStore({len(self):,} × {self.d_in} {str(self.dtype)[6:]}{hook},{where})"

    # ------------------------------------------------------------------ making one

    @classmethod
    def harvest(
        cls,
        model: Any,
        tokens: Int[Tensor, "n context"],
        hook_name: str,
        *,
        cache_dir: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int | None = None,
        bos_id: int | Literal["auto", "any"] | None = "auto",
        pad_id: int | Literal["auto"] | None = "auto",
        shard_bytes: int = 128 * MIB,
        device: torch.device | str = "cpu",
        progress: bool = True,
    ) -> "ActivationStore":
        """Read `hook_name` at every kept token of `tokens`; the forward pass ends at that hook.

        model       a TransformerBridge (what `load_language_model` returns)
        tokens      (n, context) int64; padding, if any, at the end of a row
        hook_name   any hook with one vector per token: "blocks.2.hook_resid_post", "blocks.0.hook_mlp_out", …;
                    heads are concatenated: "blocks.1.attn.hook_z" gives n_heads · d_head coordinates
        cache_dir   None keeps everything in memory. A folder keeps it on disk, below a name made of all that decides
                    the values (weights, tokens, hook, dtype, dropped positions). The same harvest is found again; an
                    interrupted one goes on where it stopped and ends with the same bytes
        dtype       float32, or bfloat16 at half the size (batches are float32 in any case)
        batch_size  rows per forward pass; by default as many as make about 4,096 tokens (32,768 on a GPU)
        bos_id      dropped at position 0 of a row; "auto" asks the model's tokenizer, None drops nothing, "any" drops
                    position 0 whatever it holds (without BOS, many models make any first token as large)
        pad_id      dropped as a run at the end of a row; "auto" and None as for bos_id
        device      where an in-memory store lives

        Raises ValueError for an unknown hook (with the closest names), a hook that is not one vector per token, tokens
        of the wrong shape, dtype or range, left padding, a batch_size or shard_bytes below 1, and shards that are
        corrupted or of another harvest.
        """
        check_hook_name(model, hook_name)
        dtype_name = dtype_name_of(dtype)
        text = KeptText.of(checked_tokens(tokens, model), *special_ids(model, bos_id, pad_id))
        for name, number, advice in (
            ("batch_size", batch_size, "rows per forward pass, or None for about 4,096 tokens"),
            ("shard_bytes", shard_bytes, "bytes of activations in one file, such as 128 * 2**20"),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number} must be at least 1: {advice}.")
        if batch_size is None:
            batch_size = rows_per_pass(model.cfg.device, text.context)
        if cache_dir is None:
            acts, moments = harvest_to_memory(model, text, hook_name, dtype, batch_size, device, progress)
            return cls(moments, acts=acts, text=text, hook_name=hook_name)
        folder = harvest_to_disk(model, text, hook_name, Path(cache_dir), dtype_name, batch_size, shard_bytes, progress)
        return cls.open(folder, verify=False)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "ActivationStore":
        """A finished harvest from its folder, without the model. `verify=False` skips the checksums (about 1 s per GB).

        Raises ValueError that names the file and the fix if something is missing, corrupted or foreign.
        """
        folder = Path(folder)
        hook_name, text, shards = read_harvest(folder)
        moments = Moments.merged([shard.read_record() for shard in shards])
        for shard in shards if verify else []:
            shard.verify()
        return cls(moments, shards=shards, text=text, hook_name=hook_name, folder=folder)

    @classmethod
    def from_tensor(cls, acts: Float[Tensor, "positions d_in"], hook_name: str | None = None) -> "ActivationStore":
        """A store around a tensor that is there already (synthetic data, another library's activations); not copied."""
        if acts.ndim != 2 or not acts.is_floating_point() or len(acts) == 0:
            raise ValueError(f"acts must be a floating (positions, d_in) tensor, got {tuple(acts.shape)} {acts.dtype}.")
        acts, step = acts.detach(), max(1, 16 * MIB // acts.shape[1])
        parts = [moments_of_finite(acts[a : a + step], "acts", first=a) for a in range(0, len(acts), step)]
        return cls(Moments.merged(parts), acts=acts, hook_name=hook_name)

    # ------------------------------------------------------------------ reading it

    def batches(
        self,
        batch_size: int,
        seed: int = 0,
        *,
        epochs: int | None = 1,
        start_batch: int = 0,
        drop_last: bool = True,
        normalise: bool = False,
        with_positions: bool = False,
        device: torch.device | str | None = None,
        buffer_bytes: int = 512 * MIB,
    ) -> "Batches":
        """Batches (batch_size, d_in) float32, shuffled over all positions; every epoch visits each position once.

        Each epoch is one uniform random permutation of the whole store, decided by `seed` and the number of the epoch.

        epochs          how many; None goes on for ever
        start_batch     begin here, counted over all epochs: the batches are those that an uninterrupted run would see
        drop_last       drop the last, smaller batch of an epoch
        normalise       hand out (x - mean) / scale
        with_positions  hand out pairs (batch, positions), for `locate`
        buffer_bytes    on disk: batches are gathered so many bytes at a time, the bulk of the memory that is needed
                        (beside it, 4 bytes per position for the permutation, and one shard)

        Raises ValueError for a store smaller than one batch and for numbers that make no sense.
        """
        if batch_size < 1 or start_batch < 0 or seed < 0 or (epochs is not None and epochs < 1):
            raise ValueError(
                f"batch_size={batch_size} and epochs={epochs} must be at least 1 (epochs may be None), "
                f"start_batch={start_batch} and seed={seed} at least 0."
            )
        if drop_last and len(self) < batch_size:
            raise ValueError(
                f"batch_size={batch_size} is larger than the store ({len(self)} positions). "
                "Harvest more tokens, take a smaller batch_size, or pass drop_last=False."
            )
        target = device if device is not None else (self._acts.device if self._acts is not None else "cpu")
        mean_D = self.mean.to(target)

        def generate() -> Iterator[Any]:
            for positions_B, acts_BD in self._shuffled(batch_size, seed, epochs, start_batch, drop_last, buffer_bytes):
                acts_BD = acts_BD.to(target, torch.float32)  # a copy of its own in any case: index_select made it
                if normalise:
                    acts_BD.sub_(mean_D).div_(self._checked_scale())
                yield (acts_BD, positions_B) if with_positions else acts_BD

        per_epoch = len(self) // batch_size if drop_last else -(-len(self) // batch_size)
        left = None if epochs is None else max(0, per_epoch * epochs - start_batch)
        return Batches(generate(), left)

    def _shuffled(
        self, batch_size: int, seed: int, epochs: int | None, start_batch: int, drop_last: bool, buffer_bytes: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(positions, activations as stored) batch by batch."""
        end = len(self) - len(self) % batch_size if drop_last else len(self)
        per_epoch = -(-end // batch_size)
        window = max(1, buffer_bytes // (self.d_in * self.dtype.itemsize * batch_size)) * batch_size
        buffer = torch.empty(min(window, end), self.d_in, dtype=self.dtype) if self._acts is None else None
        epoch, first = divmod(start_batch, per_epoch)
        while epochs is None or epoch < epochs:
            order_N = _permutation(len(self), seed, epoch)[first * batch_size : end]
            for window_W in order_N.split(window):
                source, rank_W = self._source(window_W, buffer)
                for positions_B, rank_B in zip(window_W.split(batch_size), rank_W.split(batch_size)):
                    yield positions_B.long(), source.index_select(0, rank_B)
            epoch, first = epoch + 1, 0

    def _source(self, positions_N: Tensor, buffer: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(rows, rank) such that rows[rank] are the activations at `positions_N`."""
        if self._acts is not None:
            return self._acts, positions_N.to(self._acts.device)
        if buffer is None:
            buffer = torch.empty(len(positions_N), self.d_in, dtype=self.dtype)
        # Read in the order of the disk, hand out in the order that was asked for.
        ascending_N, from_N = positions_N.sort()
        rank_N = torch.empty_like(positions_N)
        rank_N[from_N] = torch.arange(len(positions_N), dtype=positions_N.dtype)
        return gather_rows(self._shards, ascending_N, buffer[: len(positions_N)]), rank_N

    def rows(self, positions: Int[Tensor, " n"] | slice) -> Float[Tensor, "n d_in"]:
        """The activations at these positions, in this order, as stored (not normalised), float32.

        Raises ValueError for a position that the store does not have; negative ones do not count from the end.
        """
        if isinstance(positions, slice):
            positions = torch.arange(*positions.indices(len(self)))
        source, rank_N = self._source(self._checked_positions(positions))
        return source.index_select(0, rank_N).float()

    def _checked_positions(self, positions: Any) -> Int[Tensor, " n"]:
        """`positions`, which may be a list or a single number, as an int64 vector on the CPU."""
        given = torch.as_tensor(positions)
        if given.numel() and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
            raise ValueError(f"positions must be integers from 0 to {len(self) - 1}, got {given.dtype}.")
        given = given.long().cpu().reshape(-1)
        if given.numel() and not (0 <= int(given.min()) and int(given.max()) < len(self)):
            raise ValueError(f"positions must lie in 0..{len(self) - 1}, got {int(given.min())}..{int(given.max())}.")
        return given

    @property
    def tokens(self) -> Int[Tensor, "n context"] | None:
        return None if self._text is None else self._text.tokens

    def locate(self, positions: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """(row, column) in `store.tokens` of each position: where in the text an activation comes from.

        Raises ValueError for a position that the store does not have, and for a store without a text.
        """
        if self._text is None:
            raise ValueError("This store was made from a tensor, so it knows no text. Harvest it to trace positions.")
        return self._text.locate(self._checked_positions(positions))

    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """(x - mean) / scale, whose expected squared norm over the store is d_in."""
        return (x - self.mean.to(x)) / self._checked_scale()

    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """x · scale + mean, the inverse of `normalise`."""
        return x * self.scale + self.mean.to(x)

    def _checked_scale(self) -> float:
        if self.scale == 0:
            raise ValueError("All activations of this store are equal, so they have no scale to divide by.")
        return self.scale


class Batches:
    """An iterator over batches that knows how many are left: `len(batches)`, so that tqdm does too."""

    def __init__(self, iterator: Iterator[Any], left: int | None):
        self._iterator, self._left = iterator, left

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        batch = next(self._iterator)
        if self._left is not None:
            self._left -= 1
        return batch

    def __len__(self) -> int:
        if self._left is None:
            raise TypeError("epochs=None goes on for ever, so these batches have no length.")
        return self._left


def _permutation(n: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]) >> 1)
    return torch.randperm(n, generator=generator, dtype=torch.int32 if n < 2**31 else torch.int64)
