"""The matches of a batch for an SAE, however large the table of its affinities would be, and however rough they are.

whole      the table fits into memory: one product, one choice
blocks     it does not: one block of features after the other, with the same result (`allocation.blockwise`)
rounded    affinities in bfloat16: they nominate a quarter more candidates than the budget, whose affinities are
           computed again in full precision, and these decide
gradients  where scores are compared, every positive affinity is nominated as soon as these are rare, and gets the
           score of its own: a second product for the whole table is needed only while there are many of them
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.memory import at_once
from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches, feature_choice
from sae_tutorial.allocation.fast.selection import compact, strongest
from sae_tutorial.allocation.fast.table import Table, least_positive
from sae_tutorial.autoencoder.sae import SparseAutoencoder

FLOAT32 = 4  # bytes
ROUNDED = 1.25  # times the budget are nominated by rounded bids
RARE = 1 / 24  # share of positive bids below which a score for each of them is cheaper than a table of scores
SAMPLE = 64  # tokens, or features, that tell the share


def fits(sae: SparseAutoencoder, n_tokens: int) -> bool:
    """Whether the affinities of so many tokens are made in one piece."""
    return n_tokens <= tokens_at_once(sae)


def tokens_at_once(sae: SparseAutoencoder, whole: bool = False) -> int:
    """How many tokens' affinities are made in one piece, of this part of an SAE, or as if it were `whole`."""
    parts = 1 if whole else sae.part[1]
    return at_once(sae.W_dec.device, FLOAT32 * -(-sae.config.d_sae // parts))  # equal on all ranks


@torch.no_grad()
def match(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    step: int = 0,
    *,
    gradients: Float[Tensor, "tokens d_out"] | None = None,
    bids: Float[Tensor, "tokens features"] | None = None,
    dtype: torch.dtype | None = None,
    slack: float = 0.0,
    guess: float | None = None,
    memory: Tensor | None = None,
) -> SparseCodes:
    """The matches of these tokens by the rule of training, with their bids in the precision of `u` (normalised input);
    bids are affinities unless the config says more (`SparseAutoencoder.bids`).

    gradients    in their units; then `SparseAutoencoder.scores` decide, exact ones in the end
    bids         if they are there already, in any precision
    dtype        the precision to make them in, if they are not; None: that of the weights
    slack        widens the budget, as in `SparseAutoencoder.allocate`
    guess        where the weakest match may lie, if that is known (`mutual_choice`): saves time, changes nothing
    memory       for a table of scores, of the shape and precision of bids, if there is some

    With bids that are rounded, the result is the rule's on exact ones unless rounding moved a match below all
    runners-up within a quarter of the budget. bfloat16 reorders a few per cent of the ranks near the cut.
    """
    made_in = dtype or sae.W_dec.dtype
    rounded = (made_in if bids is None else bids.dtype) != u.dtype
    wider = (1 + slack) * ROUNDED - 1 if rounded else slack
    nominated, known = gradients is not None, not rounded  # more than match; with the bids that they have
    if bids is None and not fits(sae, len(u)):
        codes, known = _in_blocks(sae, u, step, made_in, wider, gradients), known and gradients is None
    else:
        bids = sae.bids(u, dtype) if bids is None else bids
        if gradients is not None and _are_rare(bids):
            codes = compact(Table(bids), bids.new_full((1, 1), least_positive(bids)))
        else:
            codes, nominated = sae.allocate(bids, step, wider, None if rounded else guess, gradients, memory), rounded
    if known and not nominated:
        return codes
    if not known:
        codes = sae.to_bids(u, encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre))
    by = None if gradients is None else sae.scores_at(codes, gradients)
    return strongest(codes, *sae.budget(len(u), step, slack), by)


def _are_rare(bids_BF: Tensor) -> bool:
    """Whether few bids are positive, judged by some tokens, or features, whichever lie together in memory."""
    rows = bids_BF if bids_BF.is_contiguous() else bids_BF.T
    return bool((rows[:: max(1, len(rows) // SAMPLE)] > 0).float().mean() < RARE)


def strongest_of_each(
    sae: SparseAutoencoder, u: Float[Tensor, "tokens d_in"], capacity: Int[Tensor, " features"]
) -> SparseCodes:
    """The strongest bids of each feature, as many as `capacity` says."""
    if fits(sae, len(u)):
        return feature_choice(sae.bids(u), capacity)
    return blockwise.feature_choice(bid_blocks(sae, u, sae.W_dec.dtype), capacity)


def _in_blocks(
    sae: SparseAutoencoder, u: Tensor, step: int, dtype: torch.dtype, slack: float, gradients: Tensor | None
) -> SparseCodes:
    blocks = bid_blocks(sae, u, dtype, gradients=gradients)
    if sae.config.how.owner is None:
        return blockwise.threshold_choice(blocks, sae.threshold.detach())
    return blockwise.by_owner(blocks, *sae.budget(len(u), step, slack))


@torch.no_grad()
def bid_blocks(
    sae: SparseAutoencoder,
    u: Tensor,
    dtype: torch.dtype,
    some: Int[Tensor, " some"] | None = None,
    gradients: Tensor | None = None,
) -> Iterator[Float[Tensor, "tokens some"]]:
    """Bids of a few features at a time (of `some`, or of all), one block after the other in the same memory; with
    `gradients`, scores."""
    n_features = len(sae.features) if some is None else len(some)
    width = min(at_once(sae.W_dec.device, FLOAT32 * max(1, len(u))), n_features)
    memory = sae.table_memory(len(u), width, dtype)
    for start in range(0, n_features, width):
        features = slice(start, min(start + width, n_features))
        bids_BW = memory if features.stop - start == width else None  # the last block may be narrower
        which = features if some is None else some[features]
        bids_BW = sae.bids(u, dtype, features=which, out=bids_BW)
        yield bids_BW if gradients is None else sae.scores(bids_BW, gradients, features=which)
