"""The matches of a batch for an SAE, however large the table of its affinities would be, and however rough they are.

whole      the table fits into memory: one product, one choice
blocks     it does not: one block after the other, with the same result. Feature Choice never compares two
           features, so a block of features is decided for good; the other rules go through blocks of tokens
           (mutual_choice keeps the strongest of all blocks so far)
rounded    affinities in bfloat16: they nominate a quarter more candidates than the budget, whose affinities are
           computed anew in full precision, and these decide
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial import allocation
from sae_tutorial.allocation import SparseCodes, encode_matches
from sae_tutorial.autoencoder import SparseAutoencoder, stack_tokens

# The largest table of affinities that is made in one piece, in elements: 256 MB of float32 on a CPU.
AT_ONCE = {"cpu": 2**26, "cuda": 2**31}


def fits(sae: SparseAutoencoder, n_tokens: int) -> bool:
    """Whether the affinities of so many tokens are made in one piece."""
    return n_tokens <= tokens_at_once(sae)


def tokens_at_once(sae: SparseAutoencoder) -> int:
    """How many tokens' affinities are made in one piece."""
    return max(1, _at_once(sae) // sae.config.d_sae)


def _at_once(sae: SparseAutoencoder) -> int:
    return AT_ONCE["cpu" if sae.W_dec.device.type == "cpu" else "cuda"]


@torch.no_grad()
def choose(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    step: int = 0,
    *,
    affinities: Float[Tensor, "tokens features"] | None = None,
    dtype: torch.dtype | None = None,
    slack: float = 0.0,
) -> SparseCodes:
    """The matches of these tokens by the rule of training, with values in the precision of `u` (normalised input).

    affinities   if they are there already, in any precision
    dtype        the precision to make them in, if they are not; None: that of the weights
    slack        widens the budget, as in `SparseAutoencoder.allocate`

    With affinities that are rounded, the result is the rule's on exact ones unless rounding moved a match below all
    runners-up within a quarter of the budget. A bfloat16 affinity is off by about 1 % near the cut, which reorders
    a few per cent of the ranks there.
    """
    made_in = dtype or sae.W_dec.dtype
    rounded = (made_in if affinities is None else affinities.dtype) != u.dtype
    wider = (1 + slack) * 1.25 - 1 if rounded else slack
    if affinities is not None or fits(sae, len(u)):
        affinities = sae.preactivations(u, dtype) if affinities is None else affinities
        codes = sae.allocate(affinities, step, wider)
    elif sae.config.rule == "feature_choice":
        codes = _by_blocks_of_features(sae, u, step, dtype, wider)
    else:
        codes = _by_blocks_of_tokens(sae, u, dtype, wider)
    if not rounded:
        return codes
    exact = encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre)
    return strongest(exact, *sae.budget(len(u), step, slack))


def _by_blocks_of_features(
    sae: SparseAutoencoder, u: Tensor, step: int, dtype: torch.dtype | None, slack: float
) -> SparseCodes:
    """Feature Choice, a block of features at a time; then the matches are put into the order of tokens."""
    capacity_F = torch.as_tensor(sae.budget(len(u), step, slack)[1])
    width = max(1, _at_once(sae) // len(u))
    parts = []
    for start in range(0, sae.config.d_sae, width):
        block = slice(start, start + width)
        affinities_BW = sae.preactivations(u, dtype, features=block)
        parts.append((start, allocation.feature_choice(affinities_BW, capacity_F[block])))
    tokens_N = torch.cat([codes.tokens for _, codes in parts])
    order = tokens_N.int().argsort(stable=True)
    values_N = torch.cat([codes.values for _, codes in parts])[order]
    features_N = torch.cat([codes.features + start for start, codes in parts])[order]
    return SparseCodes(values_N, tokens_N[order], features_N, (len(u), sae.config.d_sae))


def _by_blocks_of_tokens(sae: SparseAutoencoder, u: Tensor, dtype: torch.dtype | None, slack: float) -> SparseCodes:
    """Token Choice and thresholds look at one token only. Mutual Choice lets every block spend the budget of all, and
    keeps the strongest so far: what is not among them then is not among them in the end."""
    shared = sae.config.rule in ("mutual_choice", "matryoshka")
    budget = int(sae.budget(len(u), 0, slack)[1]) if shared else 0
    so_far: SparseCodes | None = None
    for piece in u.split(tokens_at_once(sae)):
        affinities = sae.preactivations(piece, dtype)
        codes = allocation.mutual_choice(affinities, budget) if shared else sae.allocate(affinities, 0, slack)
        so_far = codes if so_far is None else stack_tokens([so_far, codes])
        if shared:
            so_far = strongest(so_far, "batch", budget)
    assert so_far is not None  # even an empty batch has one piece
    return so_far


def strongest(codes: SparseCodes, owner: str, budget: int | Int[Tensor, " owners"]) -> SparseCodes:
    """The `budget` strongest positive matches of the batch, of each token, or of each feature; ties go to the lowest
    token, then the lowest feature."""
    order = codes.values.argsort(descending=True, stable=True)
    if owner == "batch":
        order = order[:budget]
    else:
        owners_N, n_owners = (codes.tokens, codes.shape[0]) if owner == "token" else (codes.features, codes.shape[1])
        order = order[owners_N[order].int().argsort(stable=True)]  # owner after owner, the strongest first
        sorted_N = owners_N[order]
        starts = torch.searchsorted(sorted_N, torch.arange(n_owners, device=order.device))
        place_N = torch.arange(order.numel(), device=order.device) - starts[sorted_N]
        order = order[place_N < (budget[sorted_N] if isinstance(budget, Tensor) else budget)]
    keep = order.sort().values
    keep = keep[codes.values[keep] > 0]
    return SparseCodes(codes.values[keep], codes.tokens[keep], codes.features[keep], codes.shape)
