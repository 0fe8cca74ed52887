"""Follow the gradient: clip it, take a step of Adam, and keep decoder rows on their spheres.

Beside Adam itself these are passes over matrices as large as the SAE, and memory is what they cost: each is done
once, block by block, while a block is in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_tutorial.activations.ranks import Grid
from sae_tutorial.allocation.products import reusing_gradients
from sae_tutorial.autoencoder.sae import SparseAutoencoder, feature_dim
from sae_tutorial.training.settings import TrainSettings

# Elements of a block: a quarter of a megabyte of float32.
BLOCK = 2**16
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class UnitAdam:
    """Adam for one SAE, fused, with clipped gradients, which are those of all ranks of the `grid`. Decoder rows keep
    the norms that they begin with, 1 unless `start.unit_rows_` had to leave them at others; a row of zeros gets the
    mean norm when it first moves."""

    def __init__(self, sae: SparseAutoencoder, settings: TrainSettings, grid: Grid | None = None):
        self.sae, self.clip, self.grid = sae, settings.clip, grid or Grid()
        self.parameters = [p for p in sae.parameters() if p.requires_grad]
        self.shared = [p for name, p in sae.named_parameters() if p.requires_grad and feature_dim(name, p) is None]
        shared = set(map(id, self.shared))
        self.own = [p for p in self.parameters if id(p) not in shared]  # weights of this part's features
        # Fused Adam copies what is not contiguous. W_encᵀ is: so it gets that view, on the same memory.
        lying = {id(p) for name, p in sae.named_parameters() if feature_dim(name, p) == 1 and p.T.is_contiguous()}
        self.views = [nn.Parameter(p.detach().T) if id(p) in lying else p for p in self.parameters]
        self.adam = torch.optim.Adam(self.views, lr=1.0, betas=settings.betas, eps=settings.eps, fused=True)
        for view in self.views:  # what Adam makes in its first step; a checkpoint is complete, and as large, before it
            zero = torch.zeros((), dtype=torch.float32, device=view.device)
            self.adam.state[view] = dict(zip(MOMENTS, (zero, torch.zeros_like(view), torch.zeros_like(view))))
        norm_F1 = sae.W_dec.detach().norm(dim=1, keepdim=True)
        norms, n = (self.grid.features.summed(x) for x in (norm_F1.sum(), (norm_F1 > 0).sum()))
        self.norm_F1 = norm_F1.where(norm_F1 > 0, norms / n if n > 0 else 1.0)

    @torch.no_grad()
    def step(self, loss: Float[Tensor, ""], lr: float) -> Float[Tensor, ""]:
        """Differentiate `loss`, take one step, return the gradient's norm (decoder rows: the part along the sphere).

        Raises FloatingPointError, and leaves the weights alone, if that norm is not a number.
        """
        with torch.enable_grad(), reusing_gradients(self.parameters):
            loss.backward()
        self.grid.tokens.add_gradients_(self.own)
        self.grid.all.add_gradients_(self.shared)
        norm = self._projected_norm()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"training diverged: loss {float(loss.detach()):.4g}, norm of its gradient {float(norm):.4g}. Lower lr "
                f"({lr:.3g} now), lengthen warmup, or look for huge activations in the store"
            )
        for p, view in zip(self.parameters, self.views):
            if view is not p:
                view.grad = None if p.grad is None else p.grad.T.contiguous()
        self.adam.param_groups[0]["lr"] = lr
        # As torch.amp.GradScaler does it: a fused optimiser divides gradients by its float32 `grad_scale` as it reads
        # them, a pass over memory less than clipping before. noqa: PyTorch's types do not know it.
        setattr(self.adam, "grad_scale", (norm / self.clip).clamp(min=1).float())  # noqa: B010
        self.adam.step()
        self._renormalise()
        return norm

    def _projected_norm(self) -> Float[Tensor, ""]:
        """The norm of the gradient of all weights, those of other ranks' features among them, after the part along its
        row is taken out of the decoder's: it would only change the row's norm."""
        W_FO, decoder = self.sae.W_dec, []
        if W_FO.grad is not None:
            for W_RD, grad_RD, norm_R1 in self._blocks(W_FO.detach(), W_FO.grad, self.norm_F1):
                along_R1 = (W_RD * grad_RD).sum(1, keepdim=True) / norm_R1.square()
                decoder.append(grad_RD.addcmul_(W_RD, along_R1, value=-1).norm())  # while it lies in the cache
        zero = self.norm_F1.new_zeros(())
        others, shared = (
            [p.grad.norm() for p in some if p.grad is not None and p is not W_FO] for some in (self.own, self.shared)
        )
        of_features = torch.stack([zero, *decoder, *others]).square().sum()
        return (self.grid.features.add_(of_features) + torch.stack([zero, *shared]).square().sum()).sqrt()

    def _renormalise(self) -> None:
        W_FO = self.sae.W_dec
        for W_RD, norm_R1 in self._blocks(W_FO.detach(), self.norm_F1) if W_FO.requires_grad else ():
            now_R1 = W_RD.norm(dim=1, keepdim=True)
            W_RD *= norm_R1 / now_R1.where(now_R1 > 0, 1)  # a row of zeros stays one
        if self.sae.config.how.learned:
            self.sae.threshold.clamp_(min=0)

    def _blocks(self, *matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The same rows of each matrix, a few at a time; all at once on a GPU."""
        rows = max(1, BLOCK // matrices[0].shape[1]) if matrices[0].device.type == "cpu" else matrices[0].shape[0]
        return zip(*(matrix.split(rows) for matrix in matrices))

    @torch.no_grad()
    def forget(self, latents: Bool[Tensor, " features"]) -> None:
        """These latents have new weights: Adam's running moments of them start from zero, and their norms are kept."""
        self.norm_F1[latents] = self.sae.W_dec[latents].norm(dim=1, keepdim=True)
        mine = {id(p) for name, p in self.sae.named_parameters() if name in ("W_dec", "W_enc", "b_enc")}
        for p, view in zip(self.parameters, self.views):
            if id(p) in mine:
                for moment in ("exp_avg", "exp_avg_sq"):
                    self.adam.state[view][moment][latents] = 0

    def state(self) -> dict[str, list[Tensor]]:
        """Adam's steps and moments of each parameter, and the norms of the rows."""
        adam = {name: [self.adam.state[view][name] for view in self.views] for name in MOMENTS}
        return adam | {"norms": [self.norm_F1]}

    def restore(self, state: dict[str, list[Tensor]]) -> None:
        for name, there in self.state().items():
            for mine, tensor in zip(there, state[name]):
                mine.copy_(tensor)
