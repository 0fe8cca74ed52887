"""Training the dense way: the rules by sorting, masks instead of lists, plain autograd, plain Adam.

`DenseTrainee` stands in for `Trainee` and does the same steps as one would write them down: the oracle of the sparse
way. The two share nothing but the SAE itself, the reconstruction's formula and the counts of who fires.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sae_tutorial.allocation import SparseCodes, rules
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training import losses as objectives
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.step import DEMAND_EVERY, Losses, Trainee
from sae_tutorial.training.usage import rerank_


class DenseTrainee(Trainee):
    """One SAE in training, with every step made of whole tables (tokens × features). For the rules with a budget, and
    AuxK; in float32."""

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, variance: float, *ranks: Any):
        super().__init__(sae, settings, variance, *ranks)
        self.optimiser = PlainDescent(sae, settings)  # type: ignore[assignment]

    def budget_losses(
        self, u: Tensor, target: Tensor, gradients: Tensor | None = None, total: int | None = None
    ) -> Losses:
        sae, k_aux = self.sae, self.settings.aux_latents or self.sae.config.d_in // 2
        z_BF = ((u - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
        scores_BF = z_BF.detach()
        if gradients is not None:
            scores_BF = rules.scores(scores_BF, gradients @ sae.W_dec.detach().T, sae.config.beta)
        mask_BF = self.mask(scores_BF)
        x_hat_BD = (z_BF * mask_BF) @ sae.W_dec + sae.b_dec
        loss = fvu = objectives.reconstruction(x_hat_BD, target, self.variance)
        losses = Losses(loss, fvu, mask_BF.float().mean(0))
        dead_F = self.usage.dead(self.settings.dead_after)
        if self.settings.aux_k and dead_F.any():
            z_dead_BL = z_BF[:, dead_F]
            kept_BL = rules.token_choice(z_dead_BL.detach(), k_aux).to_dense() > 0
            e_BD = (target - x_hat_BD).detach()
            e_hat_BD = (z_dead_BL * kept_BL) @ sae.W_dec[dead_F]
            aux = ((e_hat_BD - e_BD).square().sum(1) / e_BD.square().sum(1)).mean()
            losses.loss, losses.aux = loss + self.settings.aux_k * aux, aux.detach()
        return losses

    @torch.no_grad()
    def mask(self, z_BF: Tensor) -> Tensor:
        """Who matches, by the definition of the rule."""
        sae, n_tokens = self.sae, len(z_BF)
        if sae.config.how.owner == "feature":
            if self.step < DEMAND_EVERY or self.step % DEMAND_EVERY == 0:
                wanted_BF = matched(rules.mutual_choice(z_BF, sae.config.n_matches(n_tokens)))
                self.usage._average("demand", wanted_BF.float().mean(0))
            if self.settings.reranks_at(self.step):
                rerank_(sae, self.usage.demand)
        owner, budget = sae.budget(n_tokens, self.step)
        choice = {"token": rules.token_choice, "batch": rules.mutual_choice, "feature": rules.feature_choice}[owner]
        return matched(choice(z_BF, budget))


def matched(codes: SparseCodes) -> Tensor:
    return codes.to_dense() > 0


class PlainDescent:
    """Project, clip, Adam, renormalise: each over the whole, one after the other."""

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings):
        self.sae, self.clip = sae, settings.clip
        self.parameters = [p for p in sae.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, betas=settings.betas, eps=settings.eps, foreach=False)

    def step(self, loss: Tensor, lr: float) -> Tensor:
        self.adam.zero_grad()
        with torch.enable_grad():
            loss.backward()
        W_FD, grad_FD = self.sae.W_dec.data, self.sae.W_dec.grad
        assert grad_FD is not None
        grad_FD -= (grad_FD * W_FD).sum(1, keepdim=True) * W_FD
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        W_FD /= W_FD.norm(dim=1, keepdim=True)
        return norm
