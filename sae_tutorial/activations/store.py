"""Run text through a language model, read one hook, keep its activations, hand them out shuffled: `ActivationStore`.

Normalisation is x -> (x - mean) / scale, measured over the whole store. `scale` is the root-mean-square deviation per
coordinate, so E|x|² = d_in afterwards: the expected (RMS) norm is sqrt(d_in), the total variance is d_in, and a mean
squared error per coordinate *is* a fraction of variance unexplained.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_part, as_whole
from sae_tutorial.activations.files import path_of
from sae_tutorial.activations.forward import check_hook_name
from sae_tutorial.activations.harvesting import DTYPES, Harvest, moments_of_finite, read_harvest
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.activations.massive import checked_max_norm, warn_of_massive
from sae_tutorial.activations.memory import MIB, at_once, rows_per_pass
from sae_tutorial.activations.shards import Moments, Shard, gather_rows

SAMPLED = 32  # rows by which `ActivationStore.about` tells stores apart


class ActivationStore:
    """Activations of one hook, (positions, d_in), in memory or on disk, with their mean and scale. A position is one
    token of the text; BOS, padding, and tokens with enormous activations are dropped.

    Made by `ActivationStore.harvest`, `.from_tensor` or `.open`.

        len(store)        positions
        store.d_in        width of one activation
        store.mean        (d_in,) float32
        store.scale       float: root-mean-square deviation per coordinate
        store.tokens      (n, context) int64 as the model saw them, padded on the right, or None; see `locate`
        store.text_hash   equal where the positions of two stores stand for the same tokens of the same text, or None
        store.left_out    (n, 3) float64, the tokens with enormous activations that were left out: row and column in
                          store.tokens, and the norm there in units of the median norm
        store.hook_name   where it was read, or None
        store.folder      where it lies on disk, or None
        store.gradients   a store of the loss's gradients at the same positions, in the same order: its batches of the
                          same size and seed are those of these activations. None unless they were asked for
        store.beside      hook name -> a store of what was read there in the same pass, at the same positions; empty
                          unless it was asked for. What an MLP reads and writes, for a transcoder, are such a pair
    """

    gradients: "ActivationStore | None" = None
    beside: "dict[str, ActivationStore]"

    def __init__(
        self,
        moments: Moments,
        *,
        acts: Tensor | None = None,
        shards: list[Shard] | None = None,
        text: KeptText | None = None,
        left_out: Float[Tensor, "n 3"] | None = None,
        hook_name: str | None = None,
        folder: Path | None = None,
    ):
        self._acts, self._shards, self._text = acts, shards or [], text
        self._length, self.d_in = moments.n, len(moments.mean)
        self.dtype = acts.dtype if acts is not None else self._shards[0].dtype
        self.mean: Float[Tensor, " d_in"] = moments.mean.float()
        self.scale: float = moments.scale
        self.hook_name, self.folder = None if hook_name is None else str(hook_name), folder
        self.left_out = torch.empty(0, 3).double() if left_out is None else left_out
        self._without = text.position(*self.left_out[:, :2].long().T) if text else torch.empty(0).long()
        self.beside = {}
        self.text_hash = text.hash(self._without) if text else None
        self.tokens: Int[Tensor, "n context"] | None = text.tokens if text else None

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        where = f" on disk at {self.folder}" if self.folder else " in memory"
        hook = f" of {self.hook_name}" if self.hook_name else ""
        beside = " with gradients" if self.gradients is not None else ""
        return f"ActivationStore({len(self):,} × {self.d_in} {str(self.dtype)[6:]}{hook}{beside},{where})"

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
        max_norm: float | None = 10.0,
        gradients: bool = False,
        beside: Sequence[str] = (),
        like: "ActivationStore | None" = None,
        shard_bytes: int = 128 * MIB,
        device: torch.device | str = "cpu",
        progress: bool = True,
    ) -> "ActivationStore":
        """Read `hook_name` at every kept token of `tokens`; the forward pass ends at that hook.

        model       a TransformerBridge (what `load_language_model` returns)
        tokens      (n, context) int64; padding, if any, on one side or the other
        hook_name   any hook with one vector per token: "blocks.2.hook_resid_post", "blocks.0.hook_mlp_out", …;
                    heads are concatenated: "blocks.1.attn.hook_z" gives n_heads · d_head coordinates
        cache_dir   None keeps everything in memory. A folder keeps it on disk, below a name made of all that decides
                    the values (weights, tokens, hook, dtype, dropped positions). The same harvest is found again; an
                    interrupted one goes on where it stopped and ends with the same bytes. In a torch.distributed group
                    all ranks make this call, and each harvests its share
        dtype       float32, or bfloat16 at half the size (batches are float32 in any case)
        batch_size  rows per forward pass; by default as many as make about 4,096 tokens (32,768 on a GPU)
        bos_id      dropped at position 0 of a row; "auto" asks the model's tokenizer, None drops nothing, "any" drops
                    position 0 whatever it holds (without BOS, many models make any first token as large)
        pad_id      dropped as a run at either end of a row; "auto" and None as for bos_id. Where "auto" finds the end
                    mark of texts (GPT-2's tokenizers pad with it), a single one is text: see `KeptText.of`
        max_norm    tokens whose norm exceeds so many times the median norm are left out, with a warning: the "massive
                    activations" of Sun et al. 2024, which would rule mean, scale and loss. The median is that of some
                    512 tokens in rows spread evenly over `tokens`. None keeps all
        gradients   harvest `store.gradients` beside the activations, for rules that compare by them: those of the next
                    token's cross-entropy, summed over the text (a token has a part in the losses of all later ones of
                    its row), with respect to each activation. One pass forward through the whole model, and one back
        beside      other hooks to read in the same pass, which then ends at the last of all: `store.beside`. In memory
                    only, and without gradients. Tokens that are massive at any of them are left out
        like        a store of the same text and another hook: leave out what it left out, to train on the two together
        device      where an in-memory store lives

        Raises ValueError or TypeError for an unknown hook (with the closest names), a hook that is not one vector per
        token, tokens of the wrong shape, dtype or range, numbers that make no sense, and shards that are corrupted or
        of another harvest.
        """
        beside = _checked_beside(beside, cache_dir, gradients)
        for name in (hook_name, *beside):
            check_hook_name(model, name)
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype={dtype!r} is not stored: take torch.float32 or torch.bfloat16.")
        text = KeptText.of(checked_tokens(tokens, model), *special_ids(model, bos_id, pad_id))
        if batch_size is None:
            batch_size = rows_per_pass(model.cfg.device, text.context)
            if gradients:  # which need the logits of all tokens, and their gradients
                batch_size = min(batch_size, at_once(model.cfg.device, 4 * text.context * model.cfg.d_vocab))
        batch_size, shard_bytes = as_whole("batch_size", batch_size, 1), as_whole("shard_bytes", shard_bytes, 1)
        max_norm = checked_max_norm(max_norm)
        its_text = like._text if isinstance(like, ActivationStore) else None
        if like is not None and (its_text is None or its_text.hash() != text.hash()):
            raise ValueError(f"like must be a store that was harvested from these tokens, got {like!r}")
        without = None if like is None else like._without
        gradients = bool(gradients)
        harvest = Harvest(model, text, hook_name, dtype, batch_size, max_norm, without, progress, gradients, beside)
        if cache_dir is None:
            sides, left_out = harvest.to_memory(device)
            names = (hook_name,) * (1 + gradients) + beside
            made = [
                cls(moments, acts=acts, text=text, left_out=left_out, hook_name=name)
                for name, (acts, moments) in zip(names, sides, strict=True)
            ]
            store = made[0]._with_gradients(*made[1 : 1 + gradients])
            store.beside = dict(zip(beside, made[1 + gradients :]))
        else:
            store = cls.open(harvest.to_disk(path_of("cache_dir", cache_dir), shard_bytes), verify=False)
        if like is None and len(store.left_out):
            so = "left out of the store. store.left_out tells where they are"
            warn_of_massive(store.left_out, len(text), max_norm, " or ".join((hook_name, *beside)), so, stacklevel=2)
        return store

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "ActivationStore":
        """A finished harvest from its folder, without the model. `verify=False` skips the checksums (about 1 s per GB).

        Raises ValueError that names the file and the fix if something is missing, corrupted or foreign.
        """
        folder = path_of("folder", folder)
        hook_name, text, sides = read_harvest(folder)
        made = []
        for shards in sides:
            for shard in shards if verify else []:
                shard.verify()
            moments = Moments.merged([shard.moments for shard in shards])
            left_out = torch.cat([shard.left_out for shard in shards])
            made.append(cls(moments, shards=shards, text=text, left_out=left_out, hook_name=hook_name, folder=folder))
        return made[0]._with_gradients(*made[1:])

    @classmethod
    def from_tensor(
        cls,
        acts: Float[Tensor, "positions d_in"],
        hook_name: str | None = None,
        *,
        gradients: Float[Tensor, "positions d_in"] | None = None,
    ) -> "ActivationStore":
        """A store around a tensor that is there already (synthetic data, another library's activations); not copied.
        `gradients`, row by row, become `store.gradients`.

        Raises TypeError for anything but a tensor, ValueError if it is not floating, (positions, d_in), and finite, and
        for gradients of another shape.
        """
        store = cls._around("acts", acts, hook_name)
        if gradients is None:
            return store
        of_gradients = cls._around("gradients", gradients, hook_name)
        if gradients.shape != acts.shape:
            shapes = f"acts {tuple(acts.shape)} and gradients {tuple(gradients.shape)}"
            raise ValueError(f"gradients must be those of these activations, row by row, got {shapes}.")
        return store._with_gradients(of_gradients)

    @classmethod
    def _around(cls, name: str, acts: Tensor, hook_name: str | None) -> "ActivationStore":
        if not isinstance(acts, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(acts).__name__}: torch.as_tensor makes one.")
        dense = acts.layout == torch.strided and not acts.is_meta
        if acts.ndim != 2 or not acts.is_floating_point() or acts.numel() == 0 or not dense:
            got = f"{tuple(acts.shape)} {acts.dtype}" + ("" if dense else f", {acts.layout} on {acts.device}")
            raise ValueError(f"{name} must be a floating (positions, d_in) tensor, got {got}.")
        acts, step = acts.detach(), max(1, 16 * MIB // acts.shape[1])
        parts = [moments_of_finite(acts[a : a + step], name, first=a) for a in range(0, len(acts), step)]
        return cls(Moments.merged(parts), acts=acts, hook_name=hook_name)

    def _with_gradients(self, gradients: "ActivationStore | None" = None) -> "ActivationStore":
        self.gradients = gradients
        return self

    # ------------------------------------------------------------------ what it holds

    def about(self) -> dict[str, Any]:
        """Enough to recognise these activations by, in plain values and small tensors, for a checkpoint or a card."""
        rows = self.rows(torch.linspace(0, len(self) - 1, min(SAMPLED, len(self))).long())
        known = {"hook_name": self.hook_name, "text_hash": self.text_hash, "positions": len(self), "d_in": self.d_in}
        return known | {"scale": self.scale, "mean": self.mean.cpu(), "rows": rows.cpu()}

    def differs_from(self, about: dict[str, Any]) -> str | None:
        """In words, how this store differs from the one whose `about()` this is; None if it is the same, harvested on
        another machine perhaps. A hook or text that one of them does not know is not compared, and the same activations
        in another order are recognised by 32 rows."""
        ours = self.about()
        for name in ("hook_name", "text_hash", "positions", "d_in"):
            if ours[name] != about[name] and None not in (ours[name], about[name]):
                return f"its {name} is {ours[name]} and was {about[name]}"
        near, mean, rows = 1e-3 * self.scale, about["mean"].cpu(), about["rows"].cpu()
        if abs(self.scale - about["scale"]) > near or ((ours["mean"] - mean).abs() > near).any():
            return f"its scale is {self.scale:.6g} and was {about['scale']:.6g}, or its mean is another"
        if ((ours["rows"] - rows).square().mean(1).sqrt() > 0.1 * self.scale).any():
            return "its activations are others, or in another order"
        return None

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
        part: tuple[int, int] = (0, 1),
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
        part            (rank, world): only this process's rows of each batch, in the order of the batch; those of all
                        ranks, one after the other, are the batch. They are all that is read
        buffer_bytes    on disk: batches are gathered so many bytes at a time, the bulk of the memory that is needed
                        (beside it, 4 bytes per position for the permutation, and one shard)

        Raises ValueError or TypeError for a store smaller than one batch and for numbers that make no sense.
        """
        batch_size, buffer_bytes = as_whole("batch_size", batch_size, 1), as_whole("buffer_bytes", buffer_bytes, 1)
        seed, start_batch = as_whole("seed", seed), as_whole("start_batch", start_batch)
        epochs = None if epochs is None else as_whole("epochs", epochs, 1)
        if drop_last and len(self) < batch_size:
            raise ValueError(f"batch_size={batch_size} is larger than the store ({len(self)} positions); take less.")
        rank, world = as_part(part, "batch_size", batch_size)
        target = device if device is not None else (self._acts.device if self._acts is not None else "cpu")
        mean_D, end = self.mean.to(target), len(self) - len(self) % batch_size if drop_last else len(self)
        per_epoch = -(-end // batch_size)
        window = max(1, buffer_bytes // (self.d_in * self.dtype.itemsize * batch_size)) * batch_size
        buffer = torch.empty(min(window, end), self.d_in, dtype=self.dtype) if self._acts is None else None

        def generate() -> Iterator[Any]:
            epoch, first = divmod(start_batch, per_epoch)
            while epochs is None or epoch < epochs:
                order_N = _permutation(len(self), seed, epoch)[first * batch_size : end]
                for window_W in order_N.split(window):
                    parts = [batch_B.tensor_split(world)[rank] for batch_B in window_W.split(batch_size)]
                    source, place_W = self._source(torch.cat(parts), buffer)
                    for positions_B, place_B in zip(parts, place_W.split([len(part) for part in parts])):
                        acts_BD = source.index_select(0, place_B).to(target, torch.float32)  # a copy in any case
                        if normalise:
                            acts_BD.sub_(mean_D).div_(self._checked_scale())
                        yield (acts_BD, positions_B.long()) if with_positions else acts_BD
                epoch, first = epoch + 1, 0

        return Batches(generate(), None if epochs is None else max(0, per_epoch * epochs - start_batch))

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
        try:
            given = torch.as_tensor(positions)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"positions must be integers, in a list or a tensor, got {positions!r}.") from None
        if given.numel() and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
            raise ValueError(f"positions must be integers from 0 to {len(self) - 1}, got {given.dtype}.")
        given = given.long().cpu().reshape(-1)
        if given.numel() and not (0 <= int(given.min()) and int(given.max()) < len(self)):
            raise ValueError(f"positions must lie in 0..{len(self) - 1}, got {int(given.min())}..{int(given.max())}.")
        return given

    def locate(self, positions: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """(row, column) in `store.tokens` of each position: where in the text an activation comes from.

        Raises ValueError for a position that the store does not have, and for a store without a text.
        """
        if self._text is None:
            raise ValueError("This store was made from a tensor, so it knows no text. Harvest it to trace positions.")
        found = self._checked_positions(positions)
        skipped = self._without - torch.arange(len(self._without))  # positions before each token that was left out
        return self._text.locate(found + torch.searchsorted(skipped, found, right=True))

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


def _checked_beside(beside: Any, cache_dir: Any, gradients: Any) -> tuple[str, ...]:
    if isinstance(beside, str):
        raise TypeError(f"beside must be a list of hook names, got {beside!r}: put it in a list.")
    beside = tuple(beside)
    if beside and (cache_dir is not None or gradients):
        which = f"gradients={gradients!r}" if gradients else f"cache_dir={cache_dir!r}"
        raise ValueError(
            f"beside={list(beside)} is read into memory, and alone: with {which} harvest one hook at a time, the "
            "second with like=, the first store."
        )
    return beside


class Batches(Iterator[Any]):
    """An iterator over batches that knows how many are left: `len(batches)`, so that tqdm does too."""

    def __init__(self, iterator: Iterator[Any], left: int | None):
        self._iterator, self._left = iterator, left

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
