"""Several processes, one SAE: each has some of a batch's tokens, or some of the features, and all match as one would.

    torchrun --nproc-per-node 4 -m sae_tutorial train --rule mutual_choice
    torch.distributed.init_process_group("gloo"); train(sae, store)          # in each process, the same call

A budget is that of the whole batch, whoever has its tokens and features. So each rank nominates what could be among the
strongest of all, and all find together which of the nominees are:

    owner      competes                       what ranks tell each other
    token      with features of its token     the nominees of those that have the same tokens
    feature    with tokens of its feature     the nominees of those that have the same features
    batch      all with all                   how many numbers begin with which bits, until the weakest match is known

Letters of shapes: b tokens of this rank, B of all, W features of this rank, F of all, N listed matches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches, fast
from sae_tutorial.allocation.fast.floors import guessed_floors
from sae_tutorial.allocation.fast.selection import compact, positive, strongest_of
from sae_tutorial.allocation.fast.table import Table, bits, least_positive
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.sae import SparseAutoencoder

DIGIT = 11  # bits of a number that are counted at a time


@torch.no_grad()
def match(
    grid: Grid,
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    step: int,
    total: int,
    *,
    gradients: Float[Tensor, "tokens d_out"] | None = None,
    bids: Float[Tensor, "tokens some"] | None = None,
    dtype: torch.dtype | None = None,
    slack: float = 0.0,
    guess: float | None = None,
    memory: Tensor | None = None,
) -> SparseCodes:
    """`matching.match` for this rank's tokens of a batch of `total`, and the features of its part of the SAE: those of
    the whole batch's matches that are here. Ties go where they go in one process, as ranks hold tokens, and features,
    in their own order."""
    owner = sae.config.how.owner
    rivals = {"token": grid.features, "feature": grid.tokens, "batch": grid.all, None: Ranks()}[owner]
    if rivals.world == 1:  # nobody else's affair
        known: dict[str, Any] = {"gradients": gradients, "bids": bids, "memory": memory}
        return matching.match(sae, u, step, **known, dtype=dtype, slack=slack, guess=guess)
    assert owner is not None
    rounded = (bids.dtype if bids is not None else dtype or sae.W_dec.dtype) != u.dtype
    wide = sae.budget(total, step, (1 + slack) * matching.ROUNDED - 1 if rounded else slack)[1]
    if bids is None:
        blocks = matching.bid_blocks(sae, u, dtype or sae.W_dec.dtype, gradients=gradients)
        listed = blockwise.by_owner(blocks, owner, wide)
    else:
        table = bids if gradients is None else sae.scores(bids, gradients, out=memory)
        entries = total * sae.config.d_sae
        listed = nominees(grid, table, owner, wide, entries, guess if gradients is None else None)
    codes = strongest(grid, listed, owner, wide)
    if rounded or gradients is not None:  # what was compared so far are not the exact bids
        codes = sae.to_bids(u, encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre))
    if rounded:
        by = None if gradients is None else sae.scores_at(codes, gradients)
        codes = strongest(grid, codes, owner, sae.budget(total, step, slack)[1], by)
    return codes


def nominees(
    grid: Grid,
    table: Float[Tensor, "tokens some"],
    owner: str,
    budget: int | Int[Tensor, " some"],
    entries: int,
    guess: float | None = None,
) -> SparseCodes:
    """All of this rank's entries that may be among the strongest of all ranks, and few others. The tables of all have
    so many `entries`."""
    if owner != "batch":
        return fast.by_owner(table, owner, budget)
    known, least = Table(table), least_positive(table)
    here = math.ceil(int(budget) * table.numel() / max(entries, 1))
    floors = guessed_floors(known, here, guess) if table.numel() else iter(())
    while True:  # until the ranks together list as many as match, or all that can
        agreed = max(least, grid.all.least(float(next(floors, least if table.numel() else math.inf))))
        listed = compact(known, table.new_full((1, 1), agreed))
        if agreed <= least or grid.all.total(len(listed)) >= budget:
            return listed


def strongest(
    grid: Grid,
    listed: SparseCodes,
    owner: str,
    budget: int | Int[Tensor, " some"],
    by: Float[Tensor, " listed"] | None = None,
) -> SparseCodes:
    """Of what all ranks list, the `budget` strongest of each "token", of each "feature", or of the whole "batch": those
    that are here. `by` are the numbers to compare, where these are not the values."""
    listed, by = positive(listed, by)
    by = by.float() if by.element_size() < 4 else by
    if owner == "batch":
        return listed.where(_strongest_of_batch(grid, listed, by, int(budget)))
    ranks, owners, n = grid.features, listed.tokens, listed.shape[0]
    if owner == "feature":
        ranks, owners, n = grid.tokens, listed.features, listed.shape[1]
    of_each = ranks.gathered(by)
    keep = strongest_of(torch.cat(of_each), budget, ranks.joined(owners), n)
    start = sum(map(len, of_each[: ranks.rank]))
    return listed.where(keep[start : start + len(by)])


def _strongest_of_batch(
    grid: Grid, listed: SparseCodes, by: Float[Tensor, " listed"], budget: int
) -> Bool[Tensor, " listed"]:
    """Which of the positive numbers of this rank are among the `budget` largest of all. Of equal ones those of the
    first tokens are, and of a token those of the first features."""
    weakest, n_equal, wanted = weakest_of_all(grid.all, by, budget)
    bits_N = bits(by)
    equal_N = bits_N == weakest
    if wanted == n_equal:
        return (bits_N > weakest) | equal_N
    sizes = torch.tensor([listed.shape], device=by.device)
    (tokens, _), (_, features) = (
        ranks.joined(sizes)[: ranks.rank].sum(0).tolist() for ranks in (grid.tokens, grid.features)
    )
    F = sum(int(shape[0, 1]) for shape in grid.features.gathered(sizes))
    place_N = (listed.tokens.long() + tokens) * F + listed.features + features
    equal_places = grid.all.joined(place_N[equal_N]).sort().values
    last = equal_places[wanted - 1] if wanted else -1
    return (bits_N > weakest) | (equal_N & (place_N <= last))


def weakest_of_all(ranks: Ranks, by: Float[Tensor, " listed"], n: int) -> tuple[int, int, int]:
    """Of the n largest of the positive numbers that all ranks have: the bits of the smallest, how many of all numbers
    equal it, and how many of these are among the n. All ranks count how many begin with which bits, a few bits at a
    time, so little is sent however many there are."""
    bits_N, unknown = bits(by), 8 * by.element_size() - 1  # a positive number's first bit is 0
    found, n_equal, wanted = 0, ranks.total(len(by)), n
    if n_equal <= n:  # all of them: as if there were a zero
        return 0, 0, 0
    while unknown > 0:
        here = min(DIGIT, unknown)
        unknown -= here
        digit_N = (bits_N >> unknown) & (2**here - 1)
        counts = ranks.add_(digit_N.bincount(minlength=2**here))
        at_least = counts.flip(0).cumsum(0).flip(0)  # numbers whose digit is this, or larger
        digit = int((at_least >= max(wanted, 1)).nonzero()[-1])
        n_equal = int(counts[digit])
        wanted -= int(at_least[digit]) - n_equal
        found, bits_N = (found << here) | digit, bits_N[digit_N == digit]
    return found, n_equal, wanted
