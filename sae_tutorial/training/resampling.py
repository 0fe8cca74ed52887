"""Resampling: latents that died, and get no gradient any more, start again where the reconstruction is worst."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.distributed import match
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.losses import own_base
from sae_tutorial.training.optimiser import UnitAdam

QUIET = 0.2  # the norm of a new encoder vector, as a part of the mean over the living


@torch.no_grad()
def resample_(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    dead: Bool[Tensor, " features"],
    optimiser: UnitAdam | None = None,
    seed: int = 0,
    of_features: Ranks | None = None,
) -> int:
    """Point each dead latent at a token that is reconstructed badly, in place; returns how many were dead.

    u            normalised activations to draw from, a token with probability ∝ its squared error, squared
    dead         (F,) which latents start again
    optimiser    forgets these latents: its moments belong to another feature
    of_features  the ranks that have the other features, where the SAE is a part

    The decoder row becomes the token's direction as the encoder sees it, u − b_dec, at the mean norm of the living, 1
    unless they have others; the encoder vector the same at 0.2 of the mean norm of theirs, and b_enc 0.
    Source: Bricken et al. 2023, Towards Monosemanticity. Ours: the draw is without replacement as long as there are
    enough tokens; tied weights cannot be scaled, so their b_enc leaves a latent 0.2 of its strength on its own token
    (else many new rows of full strength would fire at once); Adam's count of steps, which all latents share, goes on.

    Raises ValueError for an SAE of `check_resampling`, and if every latent is dead.
    """
    config = sae.config
    check_resampling(config)
    ranks = of_features or Ranks()
    dead_of_each = [int(n) for n in ranks.gathered(dead.sum().view(1))]
    n_dead, before = sum(dead_of_each), sum(dead_of_each[: ranks.rank])
    if n_dead == config.d_sae:
        raise ValueError("all latents are dead, so the penalty is too strong or the learning rate too high; lower one")
    if n_dead == 0:
        return 0
    norm_dec, norm_enc = (
        float(ranks.summed(norm_F[~dead].sum()) / (config.d_sae - n_dead))
        for norm_F in (sae.W_dec.norm(dim=1), sae.W_enc.norm(dim=0))
    )
    drawn = draw_by_squared_loss(squared_errors(sae, u, ranks), n_dead, seed)
    tokens = drawn[before : before + dead_of_each[ranks.rank]]
    seen_ND = u[tokens] if sae.centre is None else u[tokens] - sae.centre
    direction_ND = torch.nn.functional.normalize(seen_ND, dim=1)
    sae.W_dec[dead] = direction_ND * norm_dec
    if config.tied:
        sae.b_enc[dead] = (QUIET - 1) * (seen_ND * sae.W_dec[dead]).sum(1)  # of the strength on its own token
    else:
        sae.W_enc[:, dead] = QUIET * norm_enc * direction_ND.T
        sae.b_enc[dead] = 0
    if config.floor:
        sae.subsidy[dead] = 1  # it was that of the feature that died
    if optimiser is not None:
        optimiser.forget(dead)
    return n_dead


def check_resampling(config: SAEConfig) -> None:
    """ValueError for an SAE whose latents have weights beyond those that `resample_` sets."""
    if config.how.gated or config.how.learned or config.is_transcoder:
        kind = "a transcoder" if config.is_transcoder else f"rule={config.rule!r}"
        raise ValueError(f"resampling has no start for {kind}; use relu or a rule with a budget, without d_out")


def squared_errors(
    sae: SparseAutoencoder, u: Float[Tensor, "tokens d_in"], of_features: Ranks | None = None
) -> Float[Tensor, " tokens"]:
    """|u − û|² of each token, by the rule of training."""
    ranks = of_features or Ranks()
    if sae.config.how.owner is None:
        codes = sae.strengths(u, sae.allocate(sae.bids(u)))
    else:
        codes = sae.from_bids(u, match(Grid.of_features(ranks), sae, u, 0, len(u)))
    return (ranks.summed(codes @ sae.W_dec + own_base(sae, u)) - u).square().sum(1)


def draw_by_squared_loss(loss: Float[Tensor, " tokens"], n: int, seed: int = 0) -> Tensor:
    """`n` tokens, each with probability ∝ loss²; none twice, unless there are fewer than `n` with a loss."""
    weight = (loss.double() / loss.max()).square()
    if not weight.isfinite().all():  # nothing is reconstructed badly: any token will do
        weight = torch.ones_like(weight)
    generator = torch.Generator(loss.device).manual_seed(seed)
    return torch.multinomial(weight, n, replacement=n > int((weight > 0).sum()), generator=generator)
