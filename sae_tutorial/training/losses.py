"""What an SAE is trained to make small: one pure function for each term.

All of them are in the units inside an SAE. Reconstruction errors are divided by the variance of what is predicted, so
that predicting the mean costs 1, and a perfect reconstruction 0. Penalties are counted as if E|x|² = 1, so that
a coefficient means the same at any width and scale.

Letters of shapes: B tokens, D = d_in, F features, O = d_out, N matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.allocation import SparseCodes, ZipfFit, blockwise, encode_matches
from sae_tutorial.autoencoder.matching import affinity_blocks
from sae_tutorial.autoencoder.sae import SparseAutoencoder


def reconstruction(
    x_hat: Float[Tensor, "tokens d_out"], target: Float[Tensor, "tokens d_out"], variance: float = 1.0
) -> Float[Tensor, ""]:
    """Mean squared error per coordinate over `variance`, the variance per coordinate about the mean: the FVU.

    The variance is one number for the whole data set, so every token counts the same however far from the mean it is.
    Source: Gao et al. 2024 divide by one constant of the data set, too.
    """
    return (x_hat - target).square().mean() / variance


def l1(values: Float[Tensor, "..."], n_tokens: int, norm: float = 1.0) -> Float[Tensor, ""]:
    """The sum of the values (none is negative) per token; `norm`, the root-mean-square norm of x, makes it unitless.

    `values` may be a dense (B, F) table or the values of SparseCodes. Decoder rows have unit norm, so shrinking the
    code and growing the dictionary is no way out.
    Source: Cunningham et al. 2023. Their α, for mean squared errors that are not divided by a variance v, is our
    coefficient · sqrt(v / d_in).
    """
    return values.sum() / (n_tokens * norm)


def p_norm(values: Float[Tensor, "..."], n_tokens: int, p: float, norm: float = 1.0) -> Float[Tensor, ""]:
    """Σ valueᵖ per token, over the positive ones. p = 1 is L1, p → 0 counts matches.

    p-annealing lowers p from 1 during training, and rescales the coefficient at each change so that the penalty is
    continuous (see `annealed_p`). Source: Karvonen et al. 2024, as in the code of dictionary_learning.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be greater than 0 and at most 1, got {p}")
    positive = values[values > 0] / norm
    return (positive if p == 1 else positive**p).sum() / n_tokens


def annealed_p(progress: float, p_end: float, stairs: int = 10) -> float:
    """p at this part of the training, 0 to 1: from 1 down in equal stairs, ending one stair above `p_end`.

    Source: the code of dictionary_learning, whose last stair is excluded as well.
    """
    return 1 - (1 - p_end) * min(int(progress * stairs), stairs - 1) / stairs


# ---------------------------------------------------------------------- latents that fire too little


def aux_k(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    residual: Float[Tensor, "tokens d_out"],
    affinities: Float[Tensor, "tokens features"] | None,
    dead: Bool[Tensor, " features"],
    k: int,
) -> Float[Tensor, ""]:
    """Dead latents try to reconstruct what the living ones missed: each token takes its `k` strongest dead latents.

    `residual` is x − x̂ and gets no gradient; `affinities` need none (None: computed here, for the dead alone). The
    gradient reaches decoder and encoder of the dead latents, at these matches. The loss is |ê − e|² / |e|², averaged
    over tokens that miss anything: 1 where nothing is achieved, and 0, a constant, without dead latents.
    Source: Gao et al. 2024, AuxK, who weigh it with 1/32.
    """
    return aux_zipf(sae, u, residual, affinities, dead.to(residual.dtype), k)


def aux_zipf(
    sae: SparseAutoencoder,
    u: Float[Tensor, "tokens d_in"],
    residual: Float[Tensor, "tokens d_out"],
    affinities: Float[Tensor, "tokens features"] | None,
    shortfall: Float[Tensor, " features"],
    k: int,
) -> Float[Tensor, ""]:
    """aux_k for latents that fire too little, not only for those that never do; the less they fire, the louder.

        ê = Σ_f s_f z_f W_dec_f        over each token's k largest s_f z_f,   loss = mean |ê − e|² / |e|²

    `shortfall` s is 0 for latents that fire enough and 1 for dead ones (see `zipf_shortfall`). As s scales a latent's
    part in ê, it scales its gradient: the weight grows with the shortfall. With s = 1 for the dead and 0 for
    the others this is aux_k.

    Source: Ayonrinde 2024 has an aux_zipf_loss that "generalises the aux_k_loss to mitigate dead and underutilised
    features". Its formula was not at hand, so all of this is ours: that targets come from a Zipf law by rank, that
    "underused" is a stated part of the target, the linear weight, its place inside ê, and its use in the choice of k.
    """
    needy = shortfall.nonzero().squeeze(1)
    if needy.numel() == 0 or k == 0:
        return residual.new_zeros(())
    with torch.no_grad():
        # Affinities that did not fit into memory are made again for the needy, which may be as many: block by block.
        tables = affinity_blocks(sae, u, sae.W_dec.dtype, needy) if affinities is None else [affinities[:, needy]]
        wanted = blockwise.token_choice(_weighted(tables, shortfall[needy]), k)
        where = SparseCodes(wanted.values, wanted.tokens, needy[wanted.features], (len(u), sae.config.d_sae))
    codes = encode_matches(u, sae.W_enc, sae.b_enc, where, sae.centre)
    e_BO = residual.detach()
    e_hat_BO = codes.with_values(codes.values * shortfall[codes.features]) @ sae.W_dec
    size_B = e_BO.square().sum(1)
    misses_B = size_B > torch.finfo(e_BO.dtype).tiny
    per_token_B = (e_hat_BO - e_BO).square().sum(1)[misses_B] / size_B[misses_B]
    return per_token_B.mean() if len(per_token_B) else residual.new_zeros(())


def _weighted(tables: Iterable[Tensor], weight_L: Tensor) -> Iterator[Tensor]:
    """Blocks of affinities times the weights of their features, in the blocks' memory."""
    first = 0
    for table_BW in tables:
        yield table_BW.mul_(weight_L[first : first + table_BW.shape[1]].to(table_BW.dtype))
        first += table_BW.shape[1]


def zipf_shortfall(density: Float[Tensor, " features"], law: ZipfFit, part: float = 0.5) -> Float[Tensor, " features"]:
    """How much each latent lacks, 0 to 1: (1 − density / (part · target))₊, the target being the law's at its rank.

    A latent is underused if its density is below `part` of its target; one that never fires lacks everything, 1.
    Ranks are those of the densities, the most frequent first. All of it is our choice; see `aux_zipf`.
    """
    if not 0 < part <= 1:
        raise ValueError(f"part must be greater than 0 and at most 1, got {part}")
    order = density.argsort(descending=True, stable=True)
    target_F = torch.empty_like(density)
    target_F[order] = law.density(torch.arange(1, density.numel() + 1)).to(density)
    return (1 - density / (part * target_F)).clamp(min=0)


# ---------------------------------------------------------------------- rules that learn where to cut


def _near(z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """K's window around the threshold. What does not fire at all is not in it, however low the threshold."""
    return ((z - theta).abs() < bandwidth / 2) & (z > 0)


class _JumpReLU(torch.autograd.Function):
    """z · [z > θ]. The gradient of θ is −(θ/ε) K((z − θ)/ε), with K = 1 on (−½, ½): made up, but of the right sign."""

    @staticmethod
    def forward(ctx, z, theta, bandwidth):
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return z * (z > theta)

    @staticmethod
    def backward(ctx, dout):
        z, theta = ctx.saved_tensors
        near = _near(z, theta, ctx.bandwidth)
        dtheta = dout * near * (-theta / ctx.bandwidth)
        return dout * (z > theta), dtheta.sum_to_size(theta.shape), None


class _Step(torch.autograd.Function):
    """[z > θ]. The gradient of θ is −(1/ε) K((z − θ)/ε); z gets none."""

    @staticmethod
    def forward(ctx, z, theta, bandwidth):
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx, dout):
        z, theta = ctx.saved_tensors
        near = _near(z, theta, ctx.bandwidth)
        return None, (dout * near * (-1 / ctx.bandwidth)).sum_to_size(theta.shape), None


def jumprelu(z: Float[Tensor, "..."], threshold: Float[Tensor, "..."], bandwidth: float) -> Float[Tensor, "..."]:
    """z where it is above its threshold, else 0; with a straight-through gradient for the threshold.

    z is (B, F) with threshold (F,), or one value and one threshold for each match. Source: Rajamanoharan et al. 2024b.
    """
    return _JumpReLU.apply(z, threshold, bandwidth)


def jumprelu_l0(
    z: Float[Tensor, "..."], threshold: Float[Tensor, "..."], n_tokens: int, bandwidth: float
) -> Float[Tensor, ""]:
    """The number of matches per token, which only the thresholds can lower. Source: Rajamanoharan et al. 2024b."""
    return _Step.apply(z, threshold, bandwidth).sum() / n_tokens


def gated_auxiliary(
    x_hat_gate: Float[Tensor, "tokens d_out"], target: Float[Tensor, "tokens d_out"], variance: float = 1.0
) -> Float[Tensor, ""]:
    """The gate must be able to reconstruct by itself, else nothing would teach it which features are there.

    `x_hat_gate` decodes relu(gate) with a decoder that is frozen (detached). Beside it goes an L1 penalty on
    relu(gate). Source: Rajamanoharan et al. 2024a.
    """
    return reconstruction(x_hat_gate, target, variance)


def matryoshka(
    codes: SparseCodes,
    W_dec: Float[Tensor, "features d_out"],
    base: Float[Tensor, " d_out"] | Float[Tensor, "tokens d_out"],
    target: Float[Tensor, "tokens d_out"],
    groups: tuple[int, ...],
    variance: float = 1.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, "tokens d_out"]]:
    """The mean reconstruction loss over nested dictionaries, and the x̂ of the whole. `base` is what x̂ starts from.

    The first dictionary has the first groups[0] features, the next one groups[1] more, and so on. Each must do without
    what comes after it. Source: Bussmann et al. 2025, with equal weights.
    """
    x_hat_BO, losses, first = base, [], 0
    for size, rows in zip(groups, W_dec.split(groups)):
        inside = (codes.features >= first) & (codes.features < first + size)
        lists = (codes.values[inside], codes.tokens[inside], codes.features[inside] - first)
        group = SparseCodes(*lists, (codes.shape[0], size))
        x_hat_BO = group @ rows + x_hat_BO
        losses.append(reconstruction(x_hat_BO, target, variance))
        first += size
    return torch.stack(losses).mean(), x_hat_BO
