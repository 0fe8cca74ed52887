"""What rules without a budget pay for their matches, and how thresholds learn where to cut.

Penalties are counted as if E|x|² = 1, so that a coefficient means the same at any width and scale. `PenaltyLosses` puts
them together for a step of training: every positive affinity may match, and pays.

Letters of shapes: B tokens, D = d_in, F features, O = d_out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.allocation import decode, encode_matches, threshold_choice
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.losses import Losses, reconstruction
from sae_tutorial.training.settings import TrainSettings

# Below this share of pairs the sparse products are faster than the dense ones.
SPARSE_BELOW = 1 / 32


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


class PenaltyLosses:
    """The terms of a step for a rule with a penalty. The same formulas on a dense table or on a list of matches: at the
    start half of all pairs match, in the end few do."""

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, variance: float):
        self.sae, self.settings, self.variance = sae, settings, variance
        self.weight = settings.penalty_weight(sae.config)
        self.norm = math.sqrt(variance * sae.config.width_out)  # penalties are counted as if it were 1
        self.p, self.p_weight = 1.0, 1.0  # p-annealing's exponent, and what keeps its penalty continuous

    def __call__(self, u: Float[Tensor, "tokens d_in"], target: Float[Tensor, "tokens d_out"], step: int) -> Losses:
        sae, settings, n_tokens = self.sae, self.settings, len(u)
        width = settings.bandwidth * math.sqrt(sae.config.d_in)
        # Below this an affinity has neither a value nor a gradient.
        floor = (sae.threshold.detach() - width / 2).clamp(min=0) if sae.config.how.learned else 0.0
        z, features, decoded = self._positive_affinities(u, floor)
        base_BO, extra = sae.base(u), u.new_zeros(())
        if sae.config.how.learned:
            theta = sae.threshold[features]
            values = jumprelu(z, theta, width)
            penalty = jumprelu_l0(z, theta, n_tokens, width)
        elif sae.config.how.gated:
            values = sae.magnitudes(z, features) * (z > 0)
            penalty = l1(z, n_tokens, self.norm)
            frozen_BO = decoded(z, sae.W_dec.detach()) + base_BO.detach()
            extra = gated_auxiliary(frozen_BO, target, self.variance)
        else:
            values, penalty = z, self._annealed(z, n_tokens, step)
        fvu = reconstruction(decoded(values, sae.W_dec) + base_BO, target, self.variance)
        loss = fvu + settings.penalty_at(step) * self.weight * penalty + extra
        return Losses(loss, fvu, self._density(values, features, n_tokens), penalty=penalty)

    def _positive_affinities(self, u: Tensor, floor: float | Tensor) -> tuple[Tensor, Tensor | slice, Callable]:
        """Affinities above `floor`, as a dense table, or as a list where they are rare; the features of the list (of
        a table: all of them, as a slice); and how to decode values that take their place."""
        sae = self.sae
        z_BF = sae.preactivations(u)
        with torch.no_grad():
            rare = int((z_BF > floor).sum()) < SPARSE_BELOW * z_BF.numel()
        if not rare:
            return z_BF.relu(), slice(None), torch.matmul
        where = threshold_choice(z_BF.detach(), floor)
        codes = encode_matches(u, sae.W_enc, sae.b_enc, where, sae.centre, rescore=False)
        return codes.values, codes.features, lambda values, W_dec: decode(codes.with_values(values), W_dec)

    def _density(self, values: Tensor, features: Tensor | slice, n_tokens: int) -> Float[Tensor, " features"]:
        """The share of tokens in which each feature has a positive value."""
        fired = (values.detach() > 0).float()
        if isinstance(features, slice):
            return fired.mean(0)
        return torch.zeros(self.sae.config.d_sae, device=fired.device).index_add_(0, features, fired) / n_tokens

    def _annealed(self, z: Tensor, n_tokens: int, step: int) -> Float[Tensor, ""]:
        """L1; or with p_end its annealed form, rescaled at each change of p so that it is continuous on this batch."""
        p_end = self.settings.p_end
        if p_end is None:
            return l1(z, n_tokens, self.norm)
        p = annealed_p(step / self.settings.steps, p_end)
        if p != self.p:
            with torch.no_grad():
                before, after = (p_norm(z, n_tokens, q, self.norm) for q in (self.p, p))
            self.p, self.p_weight = p, self.p_weight * float(before / after) if after > 0 else self.p_weight
        return self.p_weight * p_norm(z, n_tokens, p, self.norm)

    def state(self) -> tuple[float, float]:
        return self.p, self.p_weight

    def restore(self, state: tuple[float, float]) -> None:
        self.p, self.p_weight = state
