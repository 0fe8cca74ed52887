"""The matches of a batch for an SAE, however large the table of its affinities would be, and however rough they are.

whole      the table fits into memory: one product, one choice
blocks     it does not: one block of features after the other, with the same result (`allocation.blockwise`)
rounded    affinities in bfloat16: they nominate a quarter more candidates than the budget, whose affinities are
           computed again in full precision, and these decide
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.memory import at_once
from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches
from sae_tutorial.allocation.fast.selection import strongest
from sae_tutorial.autoencoder.sae import SparseAutoencoder

FLOAT32 = 4  # bytes


def fits(sae: SparseAutoencoder, n_tokens: int) -> bool:
    """Whether the affinities of so many tokens are made in one piece."""
    return n_tokens <= tokens_at_once(sae)


def tokens_at_once(sae: SparseAutoencoder) -> int:
    """How many tokens' affinities are made in one piece."""
    return at_once(sae.W_dec.device, FLOAT32 * sae.config.d_sae)


@torch.no_grad()
def match(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    step: int = 0,
    *,
    bids: Float[Tensor, "tokens features"] | None = None,
    dtype: torch.dtype | None = None,
    slack: float = 0.0,
    guess: float | None = None,
) -> SparseCodes:
    """The matches of these tokens by the rule of training, with their bids in the precision of `u` (normalised input);
    bids are affinities unless the config says more (`SparseAutoencoder.bids`).

    bids         if they are there already, in any precision
    dtype        the precision to make them in, if they are not; None: that of the weights
    slack        widens the budget, as in `SparseAutoencoder.allocate`
    guess        where the weakest match may lie, if that is known (`mutual_choice`): saves time, changes nothing

    With bids that are rounded, the result is the rule's on exact ones unless rounding moved a match below all
    runners-up within a quarter of the budget. bfloat16 reorders a few per cent of the ranks near the cut.
    """
    made_in = dtype or sae.W_dec.dtype
    rounded = (made_in if bids is None else bids.dtype) != u.dtype
    wider = (1 + slack) * 1.25 - 1 if rounded else slack
    if bids is None and not fits(sae, len(u)):
        codes = _in_blocks(sae, u, step, made_in, wider)
    else:
        bids = sae.bids(u, dtype) if bids is None else bids
        codes = sae.allocate(bids, step, wider, None if rounded else guess)
    if not rounded:
        return codes
    exact = sae.to_bids(u, encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre))
    return strongest(exact, *sae.budget(len(u), step, slack))


def _in_blocks(sae: SparseAutoencoder, u: Tensor, step: int, dtype: torch.dtype, slack: float) -> SparseCodes:
    blocks = bid_blocks(sae, u, dtype)
    if sae.config.how.owner is None:
        return blockwise.threshold_choice(blocks, sae.threshold.detach())
    return blockwise.by_owner(blocks, *sae.budget(len(u), step, slack))


@torch.no_grad()
def bid_blocks(
    sae: SparseAutoencoder, u: Tensor, dtype: torch.dtype, some: Int[Tensor, " some"] | None = None
) -> Iterator[Float[Tensor, "tokens some"]]:
    """Bids of a few features at a time (of `some`, or of all), one block after the other in the same memory."""
    n_features = sae.config.d_sae if some is None else len(some)
    width = min(at_once(sae.W_dec.device, FLOAT32 * max(1, len(u))), n_features)
    memory = sae.table_memory(len(u), width, dtype)
    for start in range(0, n_features, width):
        features = slice(start, min(start + width, n_features))
        bids_BW = memory if features.stop - start == width else None  # the last block may be narrower
        yield sae.bids(u, dtype, features=features if some is None else some[features], out=bids_BW)
