"""One step of training: choose the matches, reconstruct, follow the gradient.

A dense step is five matrix products over tokens × features × width. Here one is left, the affinities, and it is made
without a graph: everything after the choice happens at the matches alone (`encode_matches`, `codes @ W_dec`), and so
do the gradients. Rules that pay a penalty instead of a budget go through `penalties`.

Letters of shapes: B tokens, D inputs, F features, O outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid
from sae_tutorial.allocation import SparseCodes, ZipfFit, encode_matches
from sae_tutorial.allocation.zipf import middle_law, zipf_shortfall
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.distributed import match
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.history import History
from sae_tutorial.training.losses import Losses, aux_zipf, matryoshka, own_base, reconstruction
from sae_tutorial.training.optimiser import UnitAdam
from sae_tutorial.training.penalties import PenaltyLosses
from sae_tutorial.training.resampling import resample_
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here
from sae_tutorial.training.usage import FeatureUsage, rerank_, subsidise_

# Feature Choice: steps between two looks at what would match in open competition.
DEMAND_EVERY = 10
NO_LAW = ZipfFit(0.0, 0.0, 0.0, 0.0, (0, 0))  # none has been fitted yet


class Trainee:
    """An SAE in training, with all that a checkpoint must hold: optimiser, counts, metrics, the step.

    `variance` is that of what is predicted, per coordinate, about the mean, in the units inside the SAE. On a `grid`
    of ranks each is a trainee of the same SAE, or of a part of it, and has its own part of each batch.
    """

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, variance: float, grid: Grid | None = None):
        self.sae, self.settings, self.variance, self.step = sae, settings, variance, 0
        self.grid = grid or Grid()
        device = sae.W_dec.device
        self.optimiser = UnitAdam(sae, settings, self.grid)
        self.usage = FeatureUsage(len(sae.features), settings.density_window, device)
        self.history = History(settings.steps, device)
        self.penalty_losses = PenaltyLosses(sae, settings, variance, self.grid)
        self.dtype = encoder_dtype_here(settings.encoder_dtype, device)
        # For bids, and for what they are made from: pages that the system need not clear at every step.
        self.memory: Tensor | None = None
        self.operand: Tensor | None = None
        self.scores: Tensor | None = None
        self.weakest: float | None = None  # match of the last batch: mutual_choice begins to look there
        self.law = NO_LAW  # aux_zipf's

    def advance(
        self,
        u: Float[Tensor, "tokens d_in"],
        target: Float[Tensor, "tokens d_out"],
        gradients: Float[Tensor, "tokens d_out"] | None = None,
    ) -> None:
        """One step on one batch, or this rank's part of it, all sides in the units inside."""
        sae, settings, total = self.sae, self.settings, self.grid.tokens.total(len(u))
        if sae.config.how.owner is None:
            losses = self.penalty_losses(u, target, self.step, total)
        else:
            losses = self.budget_losses(u, target, gradients, total)
        lr = settings.lr_at(self.step, sae.config.d_sae)
        grad_norm = self.optimiser.step(losses.loss, lr)
        self.usage.count(losses.density, total)
        if sae.config.floor:
            subsidise_(sae, self.usage.density)
        n_dead, l0 = self.usage.n_dead(settings.dead_after), losses.density.sum()
        n_dead, l0 = self.grid.features.summed(torch.stack([n_dead, l0]))
        if settings.resamples_after(self.step):
            self.resample(self.grid.tokens.joined(u))
        terms = dict(loss=losses.loss, fvu=losses.fvu, aux=losses.aux, penalty=losses.penalty)
        dead = n_dead / sae.config.d_sae
        self.history.record(self.step, l0=l0, dead=dead, grad_norm=grad_norm, lr=lr, **terms)
        self.step += 1
        sae.tokens_seen += total

    def resample(self, u: Float[Tensor, "tokens d_in"]) -> None:
        """Dead latents start again, and count as alive until they have been silent for as long once more."""
        dead_F = self.usage.dead(self.settings.dead_after)
        resample_(self.sae, u, dead_F, self.optimiser, self.settings.seed + self.step, self.grid.features)
        self.usage.silent[dead_F] = 0

    def budget_losses(
        self, u: Tensor, target: Tensor, gradients: Tensor | None = None, total: int | None = None
    ) -> Losses:
        """Reconstruct from the matches of the rule; let dead or underused latents try their hand at the rest."""
        sae, settings, total = self.sae, self.settings, len(u) if total is None else total
        share = len(u) / total
        bids_BF, codes = self.choose(u, gradients, total)
        codes = encode_matches(u, sae.W_enc, sae.b_enc, codes, sae.centre, rescore=False)
        if sae.config.how.nested:
            groups = sae.config.group_sizes
            others: dict[str, Any] = {"before": sae.features.start, "of_features": self.grid.features}
            loss, x_hat_BO = matryoshka(codes, sae.W_dec, own_base(sae, u), target, groups, self.variance, **others)
            loss = self.grid.tokens.mean(loss, share)
            fvu = self.grid.tokens.mean(reconstruction(x_hat_BO.detach(), target, self.variance), share)
        else:
            x_hat_BO = self.grid.features.summed(codes @ sae.W_dec + own_base(sae, u))
            loss = fvu = self.grid.tokens.mean(reconstruction(x_hat_BO, target, self.variance), share)
        losses = Losses(loss, fvu, self.grid.tokens.density(codes.density(), len(u), total))
        for weight, needy_F in ((settings.aux_k, self.dead_latents()), (settings.aux_zipf, self.underused_latents())):
            if weight and needy_F is not None:
                k = settings.aux_latents if settings.aux_latents is not None else sae.config.d_in // 2
                aux = aux_zipf(sae, u, target - x_hat_BO.detach(), bids_BF, needy_F, k, self.grid)
                losses.loss, losses.aux = losses.loss + weight * aux, losses.aux + aux.detach()
        return losses

    @torch.no_grad()
    def choose(
        self,
        u: Float[Tensor, "tokens d_in"],
        gradients: Float[Tensor, "tokens d_out"] | None = None,
        total: int | None = None,
    ) -> tuple[Float[Tensor, "tokens features"] | None, SparseCodes]:
        """Bids, if they fit into memory, and the matches of the rule with affinities in the weights' precision. The
        batch has `total` tokens, if not those of `u` alone."""
        sae, bids_BF, total = self.sae, None, len(u) if total is None else total
        if matching.fits(sae, -(-total // self.grid.tokens.world)):  # the same answer on every rank
            if self.memory is None or len(self.memory) != len(u):
                F = len(sae.features)
                self.memory = sae.table_memory(len(u), F, self.dtype)
                self.operand = sae.operand_memory(F, self.dtype) if sae.config.compares_bids else None
                self.scores = None if gradients is None else torch.empty_like(self.memory)
            bids_BF = sae.bids(u, self.dtype, out=self.memory, operand=self.operand)
        if sae.config.how.owner == "feature":
            if self.step < DEMAND_EVERY or self.step % DEMAND_EVERY == 0:
                some = u[: self.seen_by_demand(len(u), total)]
                table = sae.bids(some) if bids_BF is None else bids_BF[: len(some)]
                table = table if gradients is None else sae.scores(table, gradients[: len(table)], out=self.scores)
                of_some = self.grid.tokens.total(len(some))
                n_matches = sae.config.n_matches(of_some)
                self.usage.count_demand(table, n_matches, of_some, sae.config.d_sae, self.grid)
            if self.settings.reranks_at(self.step):
                rerank_(sae, self.usage.demand, self.grid.features)
        elif sae.config.floor_shape == "zipf" and self.settings.reranks_at(self.step):
            rerank_(sae, self.usage.density, self.grid.features)
        known: dict[str, Any] = {"gradients": gradients, "bids": bids_BF, "memory": self.scores}
        codes = match(self.grid, sae, u, self.step, total, **known, dtype=self.dtype, guess=self.weakest)
        if sae.config.how.owner == "batch" and gradients is None:
            budget_was_spent = self.grid.all.total(len(codes)) == sae.config.n_matches(total) > 0
            weakest = float(codes.values.min()) if len(codes) else math.inf
            self.weakest = self.grid.all.least(weakest) if budget_was_spent else None
        return bids_BF, sae.from_bids(u, codes)

    def seen_by_demand(self, n_tokens: int, total: int) -> int:
        """How many of this rank's tokens are among the batch's first, as many as one process would look at at once."""
        first = matching.tokens_at_once(self.sae, whole=True)
        if first >= total:
            return n_tokens
        sizes = self.grid.tokens.gathered(torch.tensor([n_tokens], device=self.sae.W_dec.device))
        return max(0, first - sum(map(int, sizes[: self.grid.tokens.rank])))

    def dead_latents(self) -> Tensor | None:
        """aux_k's weights: 1 for the dead."""
        if not self.settings.aux_k:
            return None
        dead_F = self.usage.dead(self.settings.dead_after)
        return dead_F.to(self.sae.W_dec.dtype) if self.grid.features.total(int(dead_F.any())) else None

    def underused_latents(self) -> Tensor | None:
        """aux_zipf's weights: how much each latent lacks."""
        if not self.settings.aux_zipf:
            return None
        density_F, mine = self.grid.features.joined(self.usage.density), self.sae.features
        if self.settings.reranks_at(self.step):
            self.law = middle_law(density_F) or NO_LAW
        if self.law == NO_LAW:
            return None
        return zipf_shortfall(density_F, self.law, self.settings.underused_below)[mine.start : mine.stop]

    def state(self) -> dict:
        """Everything that the next steps depend on, as tensors and plain values."""
        return {
            "sae": self.sae.state_dict(),
            "optimiser": self.optimiser.state(),
            "usage": self.usage.state(),
            "metrics": self.history.values,
            "step": self.step,
            "variance": self.variance,
            "annealing": self.penalty_losses.annealing,
            "law": vars(self.law),
        }

    def restore(self, state: dict) -> None:
        """Go on where `state` was."""
        self.sae.load_state_dict(state["sae"])
        self.optimiser.restore(state["optimiser"])
        self.usage.restore(state["usage"])
        self.history.values.copy_(state["metrics"])
        self.step, self.variance = state["step"], state["variance"]
        self.penalty_losses = PenaltyLosses(self.sae, self.settings, self.variance, self.grid)
        self.penalty_losses.annealing = state["annealing"]
        self.law = ZipfFit(**state["law"])
