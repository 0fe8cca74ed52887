"""The processes of a torch.distributed group that work on one thing, and what they tell each other.

Every rank makes the same call and gets the same result. Where there is no group, `Ranks.here()` is this process alone,
and nothing is sent. A `Grid` are ranks of which each has some of the tokens and some of the features.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")
CLOSED = "a group that is closed"
FEW = 0.5  # share of rows with a gradient below which it is less to send these alone


def _in_touch(collective: Callable[..., T]) -> Callable[..., T]:
    """What torch says when another process is gone, in words that help."""

    @functools.wraps(collective)
    def checked(ranks: Ranks, *args: Any, **options: Any) -> T:
        try:
            return collective(ranks, *args, **options)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said, me = str(error).splitlines()[0], f"rank {dist.get_rank()} of {dist.get_world_size()}"
            if "No backend type" in said:
                raise RuntimeError(
                    f"{me} has a group that cannot send tensors of its device ({said}): make it with "
                    'init_process_group("cpu:gloo,cuda:nccl")'
                ) from error
            late = "waited too long for" if "imed out" in said else "lost"
            raise ConnectionError(
                f"{me} {late} another process, which ended, or cannot be reached, so this one stops, too. The same "
                f"command goes on from the last checkpoint. torch.distributed said: {said}"
            ) from error

    return checked


class Ranks:
    """The processes that train together; `Ranks()` is this one alone, for which nothing is sent.

    rank, world    which of how many this one is
    device         where single numbers are added up
    group          of torch.distributed; None: the default one
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu", group: Any = None):
        self.rank, self.world, self.device, self.group = rank, world, torch.device(device), group

    @classmethod
    def here(cls, group: Any = None) -> Ranks:
        """Those of a process group, or of the default one, if there is one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        of_cpus = "cpu" in dist.get_backend_config()
        device = "cpu" if of_cpus else torch.device("cuda", torch.cuda.current_device())
        return cls(dist.get_rank(group), dist.get_world_size(group), device, group)

    @property
    def part(self) -> tuple[int, int]:
        return self.rank, self.world

    # ------------------------------------------------------------------ sums

    @_in_touch
    def add_(self, x: Tensor, op: str = "SUM") -> Tensor:
        """The sum over ranks (or "MIN", "MAX"), in the memory of `x`."""
        if self.world > 1:
            dist.all_reduce(x, getattr(dist.ReduceOp, op), self.group)
        return x

    def total(self, n: int) -> int:
        return n if self.world == 1 else int(self.add_(torch.tensor(n, device=self.device)))

    def least(self, x: float) -> float:
        """The smallest of the numbers that the ranks have."""
        if self.world == 1:
            return x
        return float(self.add_(torch.tensor(x, dtype=torch.float64, device=self.device), "MIN"))

    def mean(self, x: Float[Tensor, ""], share: float) -> Float[Tensor, ""]:
        """The mean over the whole batch of what is `x` in this rank's `share` of it. Its gradient is this rank's part
        of the mean's gradient, so that gradients of all ranks add up to it."""
        return x if self.world == 1 else self.summed(x * share)

    def summed(self, x: Tensor) -> Tensor:
        """The sum over ranks, of which each differentiates its own summand."""
        return x if self.world == 1 else _Sum.apply(x, self)

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
            some_R = self.add_(rows.any(1).to(torch.uint8), "MAX").nonzero()[:, 0]
            if len(some_R) > FEW * len(rows):
                self.add_(rows)
            else:
                rows[some_R] = self.add_(rows[some_R])

    # ------------------------------------------------------------------ one for all

    @_in_touch
    def same_(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's values for all."""
        for x in tensors if self.world > 1 else ():
            dist.broadcast(x.detach() if x.is_contiguous() else x.detach().T, group=self.group, group_src=0)

    @_in_touch
    def from_rank(self, rank: int, value: T) -> T:
        """What one rank has, for all: any picklable value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, group=self.group, group_src=rank)
        return box[0]

    @_in_touch
    def gathered(self, x: Tensor) -> list[Tensor]:
        """What every rank has, lists of any length."""
        if self.world == 1:
            return [x]
        lengths = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor([len(x)], device=x.device), self.group)
        padded = x.new_zeros(max(map(int, lengths)), *x.shape[1:])
        padded[: len(x)] = x
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded, self.group)
        return [one[: int(n)] for one, n in zip(found, lengths)]

    def joined(self, x: Tensor) -> Tensor:
        """What every rank has, in one piece: a copy."""
        return torch.cat(self.gathered(x))

    @_in_touch
    def all_objects(self, value: T) -> list[T]:
        """What every rank has: any picklable values."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, self.group)
        return found

    @_in_touch
    def to_first(self, value: T) -> list[T]:
        """What every rank has, tensors among it, for rank 0; the others get their own."""
        if self.world == 1:
            return [value]
        packed = io.BytesIO()
        torch.save(value, packed)
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(packed.getvalue(), found, group=self.group, group_dst=0)
        if found is None:
            return [value]
        return [torch.load(io.BytesIO(one), map_location="cpu", weights_only=True) for one in found]

    def all_do(self, act: Callable[[], T]) -> T:
        """What `act` returns here. If it raises on one rank all raise: each its own error, or that of the first."""
        if self.world == 1:
            return act()
        result: Any = None
        error: Exception | None = None
        try:
            result = act()
        except Exception as raised:
            error = raised
        errors = [one for one in self.all_objects(_portable(error)) if one is not None]
        if errors:
            raise error or errors[0]
        return result

    def first_does(self, act: Callable[[], Any]) -> None:
        """Rank 0 acts, and what it raises all raise."""
        self.all_do(lambda: act() if self.rank == 0 else None)

    def wait(self) -> None:
        """Until all are here."""
        self.total(1)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ranks):
        return ranks.add_(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, dout):
        return dout, None


@dataclass(frozen=True)
class Grid:
    """Ranks that train one SAE: each has some of a batch's tokens, and some of the SAE's features.

    tokens      those that have the same features, and other tokens
    features    those that have the same tokens, and other features
    all         all of them
    """

    tokens: Ranks = field(default_factory=Ranks)
    features: Ranks = field(default_factory=Ranks)
    all: Ranks = field(default_factory=Ranks)

    @classmethod
    def of_tokens(cls, ranks: Ranks) -> Grid:
        """Every rank has all features."""
        return cls(tokens=ranks, all=ranks)

    @classmethod
    def of_features(cls, ranks: Ranks) -> Grid:
        """Every rank has all tokens."""
        return cls(features=ranks, all=ranks)


@contextmanager
def apart(ranks: Ranks) -> Iterator[Ranks]:
    """These ranks in a group of their own while this lasts. An error on one of them ends it for all: a group of CPUs
    that is closed is an error for whoever waits in it, while the user's own group goes on."""
    if ranks.world == 1:
        yield ranks
        return
    with _groups([range(ranks.world)], ranks) as (everyone,):
        yield everyone


@contextmanager
def grid_of(ranks: Ranks, parts: int) -> Iterator[Grid]:
    """A grid of these ranks while this lasts: `parts` of them, which follow each other, share the SAE's features, and
    as many times as that fits into the world they share the tokens."""
    if parts == 1 or parts == ranks.world:
        yield Grid.of_tokens(ranks) if parts == 1 else Grid.of_features(ranks)
        return
    world = range(ranks.world)
    rows, columns = [world[i : i + parts] for i in world[::parts]], [world[i::parts] for i in range(parts)]
    with _groups(rows + columns, ranks) as (across, along):
        yield Grid(tokens=along, features=across, all=ranks)


@contextmanager
def _groups(lines: list[range], ranks: Ranks) -> Iterator[list[Ranks]]:
    """Groups of the world's ranks while this lasts: those that this rank is in."""
    default = dist.group.WORLD
    assert default is not None, "there is a group, or these were not ranks"
    patience = default._get_backend(ranks.device).options._timeout  # as the user has said
    groups = [dist.new_group(list(line), timeout=patience) for line in lines]  # all ranks make all groups
    here = [Ranks.here(group) for line, group in zip(lines, groups) if ranks.rank in line]
    del groups
    try:
        yield here
    finally:
        for one in here:
            dist.destroy_process_group(one.group)
            one.group = CLOSED  # gloo closes its connections when nobody holds the group, and an error holds frames


def _portable(error: Exception | None) -> Exception | None:
    """An error that another process can be sent: itself, if pickle can."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def started_by_torchrun() -> Iterator[None]:
    """The process group that torchrun describes, while this lasts: gloo between CPUs, NCCL between GPUs, of which each
    rank gets its own. Nothing where this process was started alone."""
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    if not all(name in os.environ for name in told) or int(os.environ["WORLD_SIZE"]) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_same(ranks: Ranks, what: str, values: Mapping[str, Any]) -> None:
    """ValueError where ranks were given different things, which would be trained on as if they were one."""
    for rank, theirs in enumerate(ranks.all_objects(dict(values))):
        for name, value in values.items():
            if theirs[name] != value:
                raise ValueError(
                    f"{what} must be the same on every rank, but {name} is {value!r} here (rank {ranks.rank}) and "
                    f"{theirs[name]!r} on rank {rank}. Each rank takes its part of every batch by itself"
                )
