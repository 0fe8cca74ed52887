"""What an SAE is trained to make small: one pure function for each term.

All of them are in the units inside an SAE. Reconstruction errors are divided by the variance of what is predicted, so
that predicting the mean costs 1, and a perfect reconstruction 0. What rules without a budget pay beside it is in
`penalties`.

Letters of shapes: B tokens, D = d_in, F features, O = d_out, N matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.allocation import SparseCodes, blockwise, encode_matches
from sae_tutorial.autoencoder.distributed import strongest
from sae_tutorial.autoencoder.matching import bid_blocks
from sae_tutorial.autoencoder.sae import SparseAutoencoder


@dataclass
class Losses:
    """The terms of one step: `loss` is what is minimised, `density` (F,) the share of tokens that used each feature."""

    loss: Tensor
    fvu: Tensor
    density: Tensor
    aux: Tensor | float = 0.0
    penalty: Tensor | float = 0.0


def reconstruction(
    x_hat: Float[Tensor, "tokens d_out"], target: Float[Tensor, "tokens d_out"], variance: float = 1.0
) -> Float[Tensor, ""]:
    """Mean squared error per coordinate over `variance`, the variance per coordinate about the mean: the FVU.

    The variance is one number for the whole data set, so every token counts the same however far from the mean it is.
    Source: Gao et al. 2024 divide by one constant of the data set, too.
    """
    return (x_hat - target).square().mean() / variance


def own_base(sae: SparseAutoencoder, u: Float[Tensor, "tokens d_in"]) -> Tensor:
    """`sae.base`, what reconstructions start from, in the first part of an SAE; nothing in the others, so that the sum
    over all parts has it once. (Not left out there: then gradients would have no place for it.)"""
    base = sae.base(u)
    return base if sae.part[1] == 1 else base * (sae.part[0] == 0)


def aux_zipf(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    residual: Float[Tensor, "tokens d_out"],
    bids: Float[Tensor, "tokens features"] | None,
    shortfall: Float[Tensor, " features"],
    k: int,
    grid: Grid | None = None,
) -> Float[Tensor, ""]:
    """Latents that fire too little try to reconstruct what the others missed; the less they fire, the louder.

        ê = Σ_f s_f z_f W_dec_f        over each token's k largest s_f z_f,   loss = mean |ê − e|² / |e|²

    `shortfall` s is 0 for latents that fire enough and 1 for dead ones. `residual` e = x − x̂ gets no gradient;
    `bids` need none (None: computed here, for the needy alone). The gradient reaches decoder and encoder of the
    needy latents, at these matches. The loss is averaged over tokens that miss anything: 1 where nothing is achieved,
    and 0, a constant, where no latent is needy. Where there is a `grid`, all its ranks have needy latents and tokens.

    With s = 1 for the dead and 0 for the others this is AuxK (Gao et al. 2024, who weigh it with 1/32), the setting
    `aux_k`. With s of `zipf_shortfall` it is `aux_zipf`. Ayonrinde 2024 has an aux_zipf_loss that "generalises the
    aux_k_loss to mitigate dead and underutilised features". Its formula was not at hand, so all of this is ours: that
    targets come from a Zipf law by rank, that "underused" is a stated part of the target, the linear weight (it scales
    a latent's part in ê, and so its gradient), its place inside ê, and its use in the choice of k.
    """
    grid = grid or Grid()
    needy = shortfall.nonzero().squeeze(1)
    if k == 0 or grid.features.total(needy.numel()) == 0:
        return residual.new_zeros(())
    with torch.no_grad():
        # Bids that did not fit into memory are made again for the needy, which may be as many: block by block. The
        # factor of a token does not change the order of its features; subsidies, which the needy have, are taken out.
        in_blocks = bids is None and needy.numel()
        tables = bid_blocks(sae, u, sae.W_dec.dtype, needy) if in_blocks else [(u if bids is None else bids)[:, needy]]
        weight_L = shortfall[needy] / sae.subsidy[needy] if sae.config.floor else shortfall[needy]
        wanted = blockwise.token_choice(_weighted(tables, weight_L), k)
        if grid.features.world > 1:
            wanted = strongest(grid, wanted, "token", k)
        where = SparseCodes(wanted.values, wanted.tokens, needy[wanted.features], (len(u), len(sae.features)))
    codes = encode_matches(u, sae.W_enc, sae.b_enc, where, sae.centre)
    e_BO = residual.detach()
    e_hat_BO = grid.features.summed(codes.with_values(codes.values * shortfall[codes.features]) @ sae.W_dec)
    size_B = e_BO.square().sum(1)
    misses_B = size_B > torch.finfo(e_BO.dtype).tiny
    per_token_B = (e_hat_BO - e_BO).square().sum(1)[misses_B] / size_B[misses_B]
    if grid.tokens.world > 1:
        return grid.tokens.summed(per_token_B.sum() / max(1, grid.tokens.total(len(per_token_B))))
    return per_token_B.mean() if len(per_token_B) else residual.new_zeros(())


def _weighted(tables: Iterable[Tensor], weight_L: Tensor) -> Iterator[Tensor]:
    """Blocks of bids times the weights of their features, in the blocks' memory."""
    first = 0
    for table_BW in tables:
        yield table_BW.mul_(weight_L[first : first + table_BW.shape[1]].to(table_BW.dtype))
        first += table_BW.shape[1]


def matryoshka(
    codes: SparseCodes,
    W_dec: Float[Tensor, "features d_out"],
    base: Float[Tensor, " d_out"] | Float[Tensor, "tokens d_out"],
    target: Float[Tensor, "tokens d_out"],
    groups: tuple[int, ...],
    variance: float = 1.0,
    before: int = 0,
    of_features: Ranks | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "tokens d_out"]]:
    """The mean reconstruction loss over nested dictionaries, and the x̂ of the whole. `base` is what x̂ starts from.

    The first dictionary has the first groups[0] features, the next one groups[1] more, and so on. Each must do without
    what comes after it. Source: Bussmann et al. 2025, with equal weights. Where each of the ranks `of_features` has
    some of them, `before` are those of the ranks before this one.
    """
    x_hat_BO, losses, ends = base, [], torch.tensor((0, *groups)).cumsum(0).sub(before).clamp(0, len(W_dec)).tolist()
    for first, stop in pairwise(ends):
        inside = (codes.features >= first) & (codes.features < stop)
        lists = (codes.values[inside], codes.tokens[inside], codes.features[inside] - first)
        x_hat_BO = SparseCodes(*lists, (codes.shape[0], stop - first)) @ W_dec[first:stop] + x_hat_BO
        all_BO = x_hat_BO if of_features is None else of_features.summed(x_hat_BO)
        losses.append(reconstruction(all_BO, target, variance))
    return torch.stack(losses).mean(), all_BO
