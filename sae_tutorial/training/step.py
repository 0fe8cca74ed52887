"""One step of training: choose the matches, reconstruct, follow the gradient.

A dense step is five matrix products over tokens × features × width. Here one is left, the affinities, and it is made
without a graph: everything after the choice happens at the matches alone (`encode_matches`, `codes @ W_dec`), and so
do the gradients. Rules that pay a penalty instead of a budget start with half of all pairs matching, so they go
the dense way until matches are rare.

Letters of shapes: B tokens, D inputs, F features, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.allocation import SparseCodes, ZipfFit, decode, encode_matches, threshold_choice
from sae_tutorial.autoencoder import matching as choosing
from sae_tutorial.autoencoder.config import BUDGET_RULES
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training import losses as objectives
from sae_tutorial.training.optimiser import Descent
from sae_tutorial.training.resampling import resample_
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here
from sae_tutorial.training.usage import FeatureUse, middle_law, rerank_

# Penalty rules: below this share of pairs the sparse products are faster than the dense ones.
SPARSE_BELOW = 1 / 32
# Feature Choice: steps between two looks at who would match in open competition.
DEMAND_EVERY = 10
METRICS = ("loss", "fvu", "l0", "dead", "aux", "penalty", "grad_norm", "lr")


@dataclass
class Losses:
    """The terms of one step: `loss` is what is minimised, `density` (F,) the share of tokens that used each feature."""

    loss: Tensor
    fvu: Tensor
    density: Tensor
    aux: Tensor | float = 0.0
    penalty: Tensor | float = 0.0


class Trainee:
    """An SAE in training, with all that a checkpoint must hold: optimiser, counts, metrics, the step.

    `variance` is that of what is predicted, per coordinate, about the mean, in the units inside the SAE.
    """

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, variance: float):
        self.sae, self.settings, self.variance, self.step = sae, settings, variance, 0
        device, config = sae.W_dec.device, sae.config
        self.descent = Descent(sae, settings)
        self.use = FeatureUse(config.d_sae, settings.density_window, device)
        self.metrics = torch.full((len(METRICS), settings.steps), math.nan, device=device)
        self.norm = math.sqrt(variance * config.width_out)  # penalties are counted as if it were 1
        self.dtype = encoder_dtype_here(settings.encoder_dtype, device)
        self.memory: Tensor | None = None  # for affinities: pages that the system need not clear at every step
        self.weakest: float | None = None  # match of the last batch: mutual_choice begins to look there
        self.law: ZipfFit | None = None  # aux_zipf's
        self.p, self.p_weight = 1.0, 1.0  # p-annealing's exponent, and what keeps its penalty continuous

    def advance(self, u: Float[Tensor, "tokens d_in"], target: Float[Tensor, "tokens d_out"]) -> None:
        """One step on one batch, both sides in the units inside."""
        sae, settings = self.sae, self.settings
        losses = self.budget_losses(u, target) if sae.config.rule in BUDGET_RULES else self.penalty_losses(u, target)
        lr = settings.lr_at(self.step, sae.config.d_sae)
        grad_norm = self.descent.step(losses.loss, lr)
        self.use.count(losses.density, len(u))
        dead = self.use.dead(settings.dead_after).float().mean()
        row = (losses.loss, losses.fvu, losses.density.sum(), dead, losses.aux, losses.penalty, grad_norm, lr)
        if settings.resamples_after(self.step):
            self.resample(u)
        self.metrics[:, self.step] = torch.stack([torch.as_tensor(v, device=self.metrics.device).detach() for v in row])
        self.step += 1
        sae.tokens_seen += len(u)

    def resample(self, u: Float[Tensor, "tokens d_in"]) -> None:
        """Dead latents start again, and count as alive until they have been silent for as long once more."""
        dead_F = self.use.dead(self.settings.dead_after)
        resample_(self.sae, u, dead_F, self.descent, seed=self.settings.seed + self.step)
        self.use.silent[dead_F] = 0

    # ------------------------------------------------------------------ rules with a budget

    def budget_losses(self, u: Tensor, target: Tensor) -> Losses:
        """Reconstruct from the matches of the rule; let dead or underused latents try their hand at the rest."""
        sae, settings = self.sae, self.settings
        affinities_BF, codes = self.choose(u)
        codes = encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre, rescore=False)
        if sae.config.rule == "matryoshka":
            groups = sae.config.group_sizes
            loss, x_hat_BO = objectives.matryoshka(codes, sae.W_dec, self.base(u), target, groups, self.variance)
            fvu = objectives.reconstruction(x_hat_BO.detach(), target, self.variance)
        else:
            x_hat_BO = codes @ sae.W_dec + self.base(u)
            loss = fvu = objectives.reconstruction(x_hat_BO, target, self.variance)
        losses = Losses(loss, fvu, codes.density())
        for weight, needy_F in ((settings.aux_k, self.dead_latents()), (settings.aux_zipf, self.underused_latents())):
            if weight and needy_F is not None:
                k = settings.aux_latents if settings.aux_latents is not None else sae.config.d_in // 2
                aux = objectives.aux_zipf(sae, u, target - x_hat_BO.detach(), affinities_BF, needy_F, k)
                losses.loss, losses.aux = losses.loss + weight * aux, losses.aux + aux.detach()
        return losses

    @torch.no_grad()
    def choose(self, u: Float[Tensor, "tokens d_in"]) -> tuple[Float[Tensor, "tokens features"] | None, SparseCodes]:
        """Affinities, if they fit into memory, and the matches of the rule with values in the weights' precision."""
        sae, affinities_BF = self.sae, None
        if choosing.fits(sae, len(u)):
            if self.memory is None or len(self.memory) != len(u):
                self.memory = sae.table_memory(len(u), sae.config.d_sae, self.dtype)
            affinities_BF = sae.preactivations(u, self.dtype, out=self.memory)
        if sae.config.rule == "feature_choice":
            if self.step < DEMAND_EVERY or self.step % DEMAND_EVERY == 0:
                some = u[: choosing.tokens_at_once(sae)]
                table = sae.preactivations(some) if affinities_BF is None else affinities_BF
                self.use.count_demand(table, sae.config.n_matches(len(some)))
            if self.settings.reranks_at(self.step):
                rerank_(sae, self.use.demand)
        codes = choosing.choose(sae, u, self.step, affinities=affinities_BF, dtype=self.dtype, guess=self.weakest)
        if sae.config.rule in ("mutual_choice", "matryoshka"):
            budget_was_spent = len(codes) == sae.config.n_matches(len(u)) > 0
            self.weakest = float(codes.values.min()) if budget_was_spent else None
        return affinities_BF, codes

    def dead_latents(self) -> Tensor | None:
        """aux_k's weights: 1 for the dead."""
        dead_F = self.use.dead(self.settings.dead_after)
        return dead_F.to(self.sae.W_dec.dtype) if self.settings.aux_k and dead_F.any() else None

    def underused_latents(self) -> Tensor | None:
        """aux_zipf's weights: how much each latent lacks."""
        if not self.settings.aux_zipf:
            return None
        if self.settings.reranks_at(self.step):
            self.law = middle_law(self.use.density)
        if self.law is None:
            return None
        return objectives.zipf_shortfall(self.use.density, self.law, self.settings.underused_below)

    # ------------------------------------------------------------------ rules with a penalty

    def penalty_losses(self, u: Tensor, target: Tensor) -> Losses:
        """Every positive affinity may match, and pays. The same formulas on a dense table or on a list of matches."""
        sae, settings, n_tokens = self.sae, self.settings, len(u)
        width = settings.bandwidth * math.sqrt(sae.config.d_in)
        # Below this an affinity has neither a value nor a gradient.
        floor = (sae.threshold.detach() - width / 2).clamp(min=0) if sae.config.rule == "jumprelu" else 0.0
        z, features, decoded = self.positive_affinities(u, floor)
        base_BO, extra = self.base(u), u.new_zeros(())
        if sae.config.rule == "relu":
            values, penalty, weight = z, self.annealed_penalty(z, n_tokens), settings.l1
        elif sae.config.rule == "jumprelu":
            theta = sae.threshold[features]
            values = objectives.jumprelu(z, theta, width)
            penalty, weight = objectives.jumprelu_l0(z, theta, n_tokens, width), settings.l0
        else:
            values = sae.magnitudes(z, features) * (z > 0)
            penalty, weight = objectives.l1(z, n_tokens, self.norm), settings.l1
            frozen_BO = decoded(z, sae.W_dec.detach()) + base_BO.detach()
            extra = objectives.gated_auxiliary(frozen_BO, target, self.variance)
        fvu = objectives.reconstruction(decoded(values, sae.W_dec) + base_BO, target, self.variance)
        loss = fvu + settings.penalty_at(self.step) * weight * penalty + extra
        return Losses(loss, fvu, self.density(values, features, n_tokens), penalty=penalty)

    def positive_affinities(self, u: Tensor, floor: float | Tensor) -> tuple[Tensor, Tensor | slice, Callable]:
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

    def density(self, values: Tensor, features: Tensor | slice, n_tokens: int) -> Tensor:
        """The share of tokens in which each feature has a positive value."""
        fired = (values.detach() > 0).float()
        if isinstance(features, slice):
            return fired.mean(0)
        return torch.zeros(self.sae.config.d_sae, device=fired.device).index_add_(0, features, fired) / n_tokens

    def annealed_penalty(self, z: Tensor, n_tokens: int) -> Tensor:
        """L1; or with p_end its annealed form, rescaled at each change of p so that it is continuous on this batch."""
        p_end = self.settings.p_end
        if p_end is None:
            return objectives.l1(z, n_tokens, self.norm)
        p = objectives.annealed_p(self.step / self.settings.steps, p_end)
        if p != self.p:
            with torch.no_grad():
                before, after = (objectives.p_norm(z, n_tokens, q, self.norm) for q in (self.p, p))
            self.p, self.p_weight = p, self.p_weight * float(before / after) if after > 0 else self.p_weight
        return self.p_weight * objectives.p_norm(z, n_tokens, p, self.norm)

    # ------------------------------------------------------------------ both

    def base(self, u: Tensor) -> Tensor:
        """What a reconstruction starts from: b_dec, and the skip path where there is one."""
        sae = self.sae
        return sae.b_dec + u @ sae.W_skip.T if sae.config.skip else sae.b_dec

    def state(self) -> dict:
        """Everything that the next steps depend on, as tensors and plain values."""
        return {
            "sae": self.sae.state_dict(),
            "descent": self.descent.state(),
            "use": self.use.state(),
            "metrics": self.metrics,
            "step": self.step,
            "annealing": (self.p, self.p_weight),
            "law": None if self.law is None else vars(self.law),
        }

    def restore(self, state: dict) -> None:
        """Go on where `state` was."""
        self.sae.load_state_dict(state["sae"])
        self.descent.restore(state["descent"])
        self.use.restore(state["use"])
        self.metrics.copy_(state["metrics"])
        self.step = state["step"]
        self.p, self.p_weight = state["annealing"]
        self.law = None if state["law"] is None else ZipfFit(**state["law"])
