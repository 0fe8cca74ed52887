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

from sae_tutorial.activations.ranks import Grid
from sae_tutorial.allocation import decode, encode_matches, threshold_choice
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.losses import Losses, own_base, reconstruction
from sae_tutorial.training.settings import TrainSettings

# Below this share of pairs the sparse products are faster than the dense ones.
SPARSE_BELOW = 1 / 32


def p_norm(values: Float[Tensor, "..."], n_tokens: int, p: float = 1.0, norm: float = 1.0) -> Float[Tensor, ""]:
    """Σ valueᵖ per token over the values (none is negative); p = 1 is L1, p → 0 counts matches.

    `values` may be a dense (B, F) table or the values of SparseCodes; `norm`, the root-mean-square norm of x, makes it
    unitless. Decoder rows keep their norm, so shrinking the code and growing the dictionary is no way out.

    L1 is Cunningham et al. 2023. Their α, for mean squared errors that are not divided by a variance v, is our
    coefficient · sqrt(v / d_in). Lower p are those of p-annealing (`annealed_p`): Karvonen et al. 2024.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be greater than 0 and at most 1, got {p}")
    if p == 1:
        return values.sum() / (n_tokens * norm)
    return ((values[values > 0] / norm) ** p).sum() / n_tokens


def annealed_p(progress: float, p_end: float, stairs: int = 10) -> float:
    """p at this part of the training, 0 to 1: from 1 down in equal stairs, ending one stair above `p_end`.

    Source: the code of dictionary_learning, whose last stair is excluded as well.
    """
    return 1 - (1 - p_end) * min(int(progress * stairs), stairs - 1) / stairs


class _Gate(torch.autograd.Function):
    """z · [z > θ], or the gate [z > θ] alone. The gradient of θ is made up, but of the right sign: −(θ/ε) K((z − θ)/ε),
    or −(1/ε) K((z − θ)/ε), with K = 1 on (−½, ½). What does not fire at all is not in K's window, however low θ is."""

    @staticmethod
    def forward(ctx, z, theta, bandwidth, alone):
        ctx.save_for_backward(z, theta)
        ctx.bandwidth, ctx.alone = bandwidth, alone
        return (z > theta).to(z.dtype) if alone else z * (z > theta)

    @staticmethod
    def backward(ctx, dout):
        z, theta = ctx.saved_tensors
        near = ((z - theta).abs() < ctx.bandwidth / 2) & (z > 0)
        dtheta = (dout * near * (-(1 if ctx.alone else theta) / ctx.bandwidth)).sum_to_size(theta.shape)
        return None if ctx.alone else dout * (z > theta), dtheta, None, None


def jumprelu(z: Float[Tensor, "..."], threshold: Float[Tensor, "..."], bandwidth: float) -> Float[Tensor, "..."]:
    """z where it is above its threshold, else 0; with a straight-through gradient for the threshold.

    z is (B, F) with threshold (F,), or one value and one threshold for each match. Source: Rajamanoharan et al. 2024b.
    """
    return _Gate.apply(z, threshold, bandwidth, False)


def jumprelu_l0(
    z: Float[Tensor, "..."], threshold: Float[Tensor, "..."], n_tokens: int, bandwidth: float
) -> Float[Tensor, ""]:
    """The number of matches per token, which only the thresholds can lower. Source: Rajamanoharan et al. 2024b."""
    return _Gate.apply(z, threshold, bandwidth, True).sum() / n_tokens


class PenaltyLosses:
    """The terms of a step for a rule with a penalty. The same formulas on a dense table or on a list of matches: at the
    start half of all pairs match, in the end few do."""

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, variance: float, grid: Grid | None = None):
        self.sae, self.settings, self.variance, self.grid = sae, settings, variance, grid or Grid()
        self.norm = math.sqrt(variance * sae.config.width_out)  # penalties are counted as if it were 1
        self.annealing = 1.0, 1.0  # the exponent p, and the weight that keeps its penalty continuous

    def __call__(
        self,
        u: Float[Tensor, "tokens d_in"],
        target: Float[Tensor, "tokens d_out"],
        step: int,
        total: int | None = None,
    ) -> Losses:
        """`total`: how many tokens all ranks have, where `u` is this one's."""
        sae, settings, n_tokens = self.sae, self.settings, len(u)
        total = n_tokens if total is None else total
        share = n_tokens / total
        spread = 1.0 if sae.config.is_transcoder else self.variance  # of the input, per coordinate
        width = settings.bandwidth * math.sqrt(spread * sae.config.d_in)
        # Below this an affinity has neither a value nor a gradient.
        floor = (sae.threshold.detach() - width / 2).clamp(min=0) if sae.config.how.learned else 0.0
        z, features, decoded = self._positive_affinities(u, floor)
        base_BO, extra = own_base(sae, u), u.new_zeros(())
        if sae.config.how.learned:
            theta = sae.threshold[features]
            values = jumprelu(z, theta, width)
            penalty = self.grid.all.mean(jumprelu_l0(z, theta, n_tokens, width), share)
            if settings.target_l0 is not None:
                penalty = (penalty / settings.target_l0 - 1).square()
        elif sae.config.how.gated:
            values = sae.magnitudes(z, features) * (z > 0)
            penalty = self.grid.all.mean(p_norm(z, n_tokens, norm=self.norm), share)
            # The gate must reconstruct by itself, with a frozen decoder, else nothing would teach it which features are
            # there: Rajamanoharan et al. 2024a.
            by_gate_BO = self.grid.features.summed(decoded(z, sae.W_dec.detach()) + base_BO.detach())
            extra = self.grid.tokens.mean(reconstruction(by_gate_BO, target, self.variance), share)
        else:
            values, penalty = z, self.grid.all.mean(self._annealed(z, n_tokens, step, share), share)
        x_hat_BO = self.grid.features.summed(decoded(values, sae.W_dec) + base_BO)
        fvu = self.grid.tokens.mean(reconstruction(x_hat_BO, target, self.variance), share)
        loss = fvu + settings.penalty_at(step, sae.config) * penalty + extra
        density_F = self.grid.tokens.density(self._density(values, features, n_tokens), n_tokens, total)
        return Losses(loss, fvu, density_F, penalty=penalty)

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
        return torch.zeros(len(self.sae.features), device=fired.device).index_add_(0, features, fired) / n_tokens

    def _annealed(self, z: Tensor, n_tokens: int, step: int, share: float) -> Float[Tensor, ""]:
        """L1; or with p_end its annealed form, rescaled at each change of p so that it is continuous on this batch."""
        p_end = self.settings.p_end
        p = 1.0 if p_end is None else annealed_p(step / self.settings.steps, p_end)
        last_p, weight = self.annealing
        if p != last_p:
            with torch.no_grad():
                before, after = (self.grid.all.mean(p_norm(z, n_tokens, q, self.norm), share) for q in (last_p, p))
            self.annealing = p, weight * float(before / after) if after > 0 else weight
        return self.annealing[1] * p_norm(z, n_tokens, p, self.norm)
