"""Several processes, one training: each has a part of a batch's tokens, and the result is that of one process.

    torchrun --nproc-per-node 4 -m sae_tutorial train --rule mutual_choice
    torch.distributed.init_process_group("gloo"); train(sae, store)          # in each process, the same call

Every rank holds the whole SAE, and takes its rows of each batch. What is about the batch is then about all ranks:
the budget of a rule (here), the loss and its gradient (`Ranks.mean`, `Ranks.add_gradients_`), and the counts of who
fired (`Ranks.density`). The same numbers reach the same code on every rank, so weights stay equal.

Letters of shapes: b tokens of this rank, B of all, F features, N listed matches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.ranks import Ranks
from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches, fast
from sae_tutorial.allocation.fast.floors import guessed_floors
from sae_tutorial.allocation.fast.selection import compact, positive, strongest_of
from sae_tutorial.allocation.fast.table import Table, least_positive
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.sae import SparseAutoencoder

ROUNDED = 0.25  # how many more candidates than matches rounded bids nominate, as in `matching`


@torch.no_grad()
def match(
    ranks: Ranks,
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
    if ranks.world == 1 or owner == "token":  # a token's matches are its own affair
        known: dict[str, Any] = {"gradients": gradients, "bids": bids, "memory": memory}
        return matching.match(sae, u, step, **known, dtype=dtype, guess=guess)
    rounded = (bids.dtype if bids is not None else dtype or sae.W_dec.dtype) != u.dtype
    wide = sae.budget(total, step, ROUNDED if rounded else 0.0)[1]
    if bids is None:
        blocks = matching.bid_blocks(sae, u, dtype or sae.W_dec.dtype, gradients=gradients)
        listed = blockwise.by_owner(blocks, str(owner), wide)
    else:
        table = bids if gradients is None else sae.scores(bids, gradients, out=memory)
        listed = nominees(ranks, table, wide, total, guess if gradients is None else None)
    codes = strongest(ranks, listed, wide)
    if rounded or gradients is not None:  # what was compared so far are not the exact bids
        codes = sae.to_bids(u, encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre))
    if rounded:
        by = None if gradients is None else sae.scores_at(codes, gradients)
        codes = strongest(ranks, codes, sae.budget(total, step)[1], by)
    return codes


def nominees(
    ranks: Ranks,
    table_bF: Float[Tensor, "tokens features"],
    budget: int | Int[Tensor, " features"],
    total: int,
    guess: float | None = None,
) -> SparseCodes:
    """All of this rank's entries that may be among the strongest of all ranks, and few others."""
    if isinstance(budget, Tensor):
        return fast.feature_choice(table_bF, budget)
    table, least = Table(table_bF), least_positive(table_bF)
    here = math.ceil(budget * len(table_bF) / max(total, 1))
    floors = guessed_floors(table, here, guess) if len(table_bF) else iter(())
    while True:  # until the ranks together list as many as match, or all that can
        agreed = max(least, ranks.least(float(next(floors, math.inf if not len(table_bF) else least))))
        listed = compact(table, table_bF.new_full((1, 1), agreed))
        if agreed <= least or ranks.total(len(listed)) >= budget:
            return listed


def strongest(
    ranks: Ranks,
    listed: SparseCodes,
    budget: int | Int[Tensor, " features"],
    by: Float[Tensor, " listed"] | None = None,
) -> SparseCodes:
    """Of what all ranks list, the strongest of each feature (where it has a budget of its own) or of all; those
    that are here. `by` are the numbers to compare, where these are not the values."""
    listed, by = positive(listed, by)
    of_all = torch.cat(parts := ranks.gathered(by.float() if by.element_size() < 4 else by))
    owners = torch.cat(ranks.gathered(listed.features)) if isinstance(budget, Tensor) else None
    start = sum(map(len, parts[: ranks.rank]))
    keep = strongest_of(of_all, budget, owners, listed.shape[1])
    return listed.where(keep[start : start + len(by)])
