"""Several processes, one training: each has a part of a batch's tokens, and the result is that of one process.

    torchrun --nproc-per-node 4 -m sae_tutorial train --rule mutual_choice
    torch.distributed.init_process_group("gloo"); train(sae, store)          # in each process, the same call

Every rank holds the whole SAE, and takes its rows of each batch. What is about the batch is then about all ranks:
the budget of a rule (`Ranks.match`), the loss and its gradient (`Ranks.mean`, `Ranks.add_gradients_`), and the counts
of who fired (`Ranks.density`). The same numbers reach the same code on every rank, so weights stay equal.

Letters of shapes: b tokens of this rank, B of all, F features, N listed matches.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches, fast
from sae_tutorial.allocation.fast.floors import guessed_floors
from sae_tutorial.allocation.fast.selection import compact, strongest_of
from sae_tutorial.allocation.fast.table import Table, least_positive
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.sae import SparseAutoencoder

T = TypeVar("T")
ROUNDED = 0.25  # how many more candidates than matches rounded bids nominate, as in `matching`
FEW = 0.5  # share of rows with a gradient below which it is less to send these alone


def _in_touch(collective: Callable[..., T]) -> Callable[..., T]:
    """What torch says when another process is gone, in words that help."""

    @functools.wraps(collective)
    def checked(ranks: Ranks, *args: Any, **options: Any) -> T:
        try:
            return collective(ranks, *args, **options)
        except RuntimeError as error:
            raise ConnectionError(
                f"rank {ranks.rank} of {ranks.world} lost another process, which ended or cannot be reached, so this "
                "one stops, too. The same command goes on from the last checkpoint. torch.distributed said: "
                f"{str(error).splitlines()[0]}"
            ) from error

    return checked


class Ranks:
    """The processes that train together; `Ranks()` is this one alone, for which nothing is sent.

    rank, world    which of how many this one is
    """

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world

    @classmethod
    def here(cls) -> Ranks:
        """Those of the default process group, if there is one."""
        together = dist.is_available() and dist.is_initialized()
        return cls(dist.get_rank(), dist.get_world_size()) if together else cls()

    @property
    def part(self) -> tuple[int, int]:
        return self.rank, self.world

    # ------------------------------------------------------------------ sums

    @_in_touch
    def add_(self, x: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
        """The sum over ranks, in the memory of `x`."""
        if self.world > 1:
            dist.all_reduce(x, op)
        return x

    def total(self, n: int, device: torch.device | str = "cpu") -> int:
        return n if self.world == 1 else int(self.add_(torch.tensor(n, device=device)))

    def least(self, x: float, device: torch.device | str = "cpu") -> float:
        """The smallest of the numbers that the ranks have."""
        if self.world == 1:
            return x
        return float(self.add_(torch.tensor(x, dtype=torch.float64, device=device), dist.ReduceOp.MIN))

    def mean(self, x: Float[Tensor, ""], share: float) -> Float[Tensor, ""]:
        """The mean over the whole batch of what is `x` in this rank's `share` of it. Its gradient is this rank's part
        of the mean's gradient, so that gradients of all ranks add up to it."""
        if self.world == 1:
            return x
        mine = x * share
        return mine + (self.add_(mine.detach().clone()) - mine.detach())

    def density(self, density_F: Float[Tensor, " features"], n: int, total: int) -> Float[Tensor, " features"]:
        """The share of all ranks' tokens that match each feature, from the share of this one's n."""
        return density_F if self.world == 1 else self.add_((density_F * n).round()) / total

    def add_gradients_(self, parameters: Iterable[Tensor]) -> None:
        """The sum of all ranks' gradients in the place of each. Of matrices with a row for each feature only rows that
        have a gradient on some rank are sent, where these are few."""
        for p in parameters if self.world > 1 else ():
            if p.grad is None:  # as on all ranks
                continue
            rows = p.grad if p.grad.is_contiguous() else p.grad.T
            if rows.dim() == 1:
                self.add_(rows)
                continue
            some_R = self.add_(rows.any(1).to(torch.uint8), dist.ReduceOp.MAX).nonzero()[:, 0]
            if len(some_R) > FEW * len(rows):
                self.add_(rows)
            else:
                rows[some_R] = self.add_(rows[some_R])

    # ------------------------------------------------------------------ one for all

    @_in_touch
    def same_(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's values for all."""
        for x in tensors if self.world > 1 else ():
            if x.is_contiguous():
                dist.broadcast(x, 0)
            else:
                dist.broadcast(x.T, 0)

    @_in_touch
    def from_rank(self, rank: int, value: T) -> T:
        """What one rank has, for all: any picklable value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, rank)
        return box[0]

    @_in_touch
    def gathered(self, x: Tensor) -> list[Tensor]:
        """What every rank has, lists of any length."""
        if self.world == 1:
            return [x]
        lengths = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor([len(x)], device=x.device))
        padded = x.new_zeros(max(map(int, lengths)), *x.shape[1:])
        padded[: len(x)] = x
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded)
        return [one[: int(n)] for one, n in zip(found, lengths)]

    @_in_touch
    def all_objects(self, value: T) -> list[T]:
        """What every rank has: any picklable values."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    @_in_touch
    def to_first(self, value: T) -> list[T]:
        """What every rank has, tensors among it, for rank 0; the others get their own."""
        if self.world == 1:
            return [value]
        packed = io.BytesIO()
        torch.save(value, packed)
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(packed.getvalue(), found)
        if found is None:
            return [value]
        return [torch.load(io.BytesIO(one), map_location="cpu", weights_only=True) for one in found]

    def first_does(self, act: Callable[[], Any]) -> None:
        """Rank 0 acts, and what it raises all raise."""
        error: Exception | None = None
        if self.rank == 0:
            try:
                act()
            except Exception as raised:
                error = raised
        if (said := self.from_rank(0, error)) is not None:
            raise said

    # ------------------------------------------------------------------ the choice

    @torch.no_grad()
    def match(
        self,
        sae: SparseAutoencoder,
        u: Float[Tensor, "tokens d_in"],
        step: int,
        total: int,
        *,
        gradients: Float[Tensor, "tokens d_out"] | None = None,
        bids: Float[Tensor, "tokens features"] | None = None,
        dtype: torch.dtype | None = None,
        guess: float | None = None,
        memory: Tensor | None = None,
    ) -> SparseCodes:
        """`matching.match` for this rank's tokens of a batch of `total`: those of the whole batch's matches that are
        here. Ranks hold its tokens in their own order, so ties go where they go in one process.

        Each rank nominates what could be among the strongest of all; the nominees' bids are sent around, and every rank
        finds its own among the strongest.
        """
        owner = sae.config.how.owner
        if self.world == 1 or owner == "token":  # a token's matches are its own affair
            known: dict[str, Any] = {"gradients": gradients, "bids": bids, "memory": memory}
            return matching.match(sae, u, step, **known, dtype=dtype, guess=guess)
        rounded = (bids.dtype if bids is not None else dtype or sae.W_dec.dtype) != u.dtype
        wide = sae.budget(total, step, ROUNDED if rounded else 0.0)[1]
        if bids is None:
            blocks = matching.bid_blocks(sae, u, dtype or sae.W_dec.dtype, gradients=gradients)
            listed = blockwise.by_owner(blocks, str(owner), wide)
        else:
            table = bids if gradients is None else sae.scores(bids, gradients, out=memory)
            listed = self.nominees(table, wide, total, guess if gradients is None else None)
        codes = self.strongest(listed, wide)
        if rounded or gradients is not None:  # what was compared so far are not the exact bids
            codes = sae.to_bids(u, encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre))
        if rounded:
            by = None if gradients is None else sae.scores_at(codes, gradients)
            codes = self.strongest(codes, sae.budget(total, step)[1], by)
        return codes

    def nominees(
        self,
        table_bF: Float[Tensor, "tokens features"],
        budget: int | Int[Tensor, " features"],
        total: int,
        guess: float | None = None,
    ) -> SparseCodes:
        """All of this rank's entries that may be among the strongest of all ranks, and few others."""
        if isinstance(budget, Tensor):
            return fast.feature_choice(table_bF, budget)
        table, device, least = Table(table_bF), table_bF.device, least_positive(table_bF)
        here = math.ceil(budget * len(table_bF) / max(total, 1))
        floors = guessed_floors(table, here, guess) if len(table_bF) else iter(())
        while True:  # until the ranks together list as many as match, or all that can
            agreed = max(least, self.least(float(next(floors, math.inf if not len(table_bF) else least)), device))
            listed = compact(table, table_bF.new_full((1, 1), agreed))
            if agreed <= least or self.total(len(listed), device) >= budget:
                return listed

    def strongest(
        self, listed: SparseCodes, budget: int | Int[Tensor, " features"], by: Float[Tensor, " listed"] | None = None
    ) -> SparseCodes:
        """Of what all ranks list, the strongest of each feature (where it has a budget of its own) or of all; those
        that are here. `by` are the numbers to compare, where these are not the values."""
        by = listed.values if by is None else by
        positive_N = by > 0
        listed, by = listed.where(positive_N), by[positive_N]
        of_all = torch.cat(parts := self.gathered(by.float() if by.element_size() < 4 else by))
        owners = torch.cat(self.gathered(listed.features)) if isinstance(budget, Tensor) else None
        start = sum(map(len, parts[: self.rank]))
        keep = strongest_of(of_all, budget, owners, listed.shape[1])
        return listed.where(keep[start : start + len(by)])


def check_same(ranks: Ranks, what: str, values: Sequence[Any]) -> None:
    """ValueError where ranks were given different things, which would be trained on as if they were one."""
    for rank, theirs in enumerate(ranks.all_objects(list(values))):
        if theirs != list(values):
            raise ValueError(
                f"{what} must be the same on every rank, but here (rank {ranks.rank}) it is {values}, and on rank "
                f"{rank} {theirs}. Each rank takes its part of every batch by itself: give all of them the same"
            )
