"""Which features fire how often, counted during training: dead latents, running densities, and ranks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.allocation.zipf import middle_law
from sae_tutorial.autoencoder.distributed import nominees, strongest
from sae_tutorial.autoencoder.sae import SparseAutoencoder

FORGOTTEN = 3  # windows without a match
# Of a subsidy: how fast it moves (by at most so much of itself in a step), and how large it may become.
SUBSIDY_RATE, MOST_SUBSIDY = 0.1, 20.0


class FeatureUsage:
    """Running counts of one training, all (F,):

    density    share of tokens that match each feature, averaged over the last `window` batches or so: the plain mean
               of the first `window` batches, an exponential average with that memory afterwards
    demand     the same for the tokens that would match it under Mutual Choice (feature_choice only)
    silent     tokens since its last match, of `tokens` in all

    What has not matched for FORGOTTEN windows has an average of 0, and not what is left of an old one: else the dead
    would look alive to whatever fits a law to the living.
    """

    def __init__(self, n_features: int, window: int, device: torch.device | str = "cpu"):
        self.window = window
        self.density = torch.zeros(n_features, dtype=torch.float32, device=device)
        self.demand = torch.zeros(n_features, dtype=torch.float32, device=device)
        self.silent = torch.zeros(n_features, dtype=torch.int64, device=device)
        self.tokens = 0
        self.updates = {"density": 0, "demand": 0}
        self.without = {name: torch.zeros_like(self.silent) for name in self.updates}  # updates since the last match

    def count(self, density: Float[Tensor, " features"], n_tokens: int) -> None:
        """One batch of `n_tokens` tokens went by, and `density` is the share of them that each feature matched."""
        self.tokens += n_tokens
        self.silent.add_(n_tokens).mul_(density == 0)
        self._average("density", density)

    def _average(self, name: str, new_F: Float[Tensor, " features"]) -> None:
        self.updates[name] += 1
        self.without[name].add_(1).mul_(new_F == 0)
        average_F = getattr(self, name).lerp_(new_F.float(), 1 / min(self.updates[name], self.window))
        average_F.mul_(self.without[name] < FORGOTTEN * self.window)

    def dead(self, after: int) -> Bool[Tensor, " features"]:
        """No match in the last `after` tokens."""
        return self.silent >= after

    def n_dead(self, after: int) -> Float[Tensor, ""]:
        """How many features are dead; NaN as long as there were not so many tokens."""
        return self.dead(after).sum().float() if self.tokens >= after else torch.full((), math.nan).to(self.density)

    def count_demand(
        self,
        affinities: Float[Tensor, "tokens features"],
        n_matches: int,
        n_tokens: int,
        n_features: int,
        grid: Grid,
    ) -> None:
        """Which features would match if all competed for the batch's budget, without capacities: Feature Choice gives
        the densities itself, so they do not show which feature deserves a high one. `n_tokens` and `n_features`: of
        all ranks."""
        listed = nominees(grid, affinities, "batch", n_matches, n_tokens * n_features)
        codes = strongest(grid, listed, "batch", n_matches)
        self._average("demand", grid.tokens.density(codes.density(), len(affinities), n_tokens))

    def state(self) -> dict:
        """Everything, for a checkpoint."""
        counts = {"density": self.density, "demand": self.demand, "silent": self.silent}
        return counts | {"tokens": self.tokens, "updates": dict(self.updates), "without": dict(self.without)}

    def restore(self, state: dict) -> None:
        for name in ("density", "demand", "silent"):
            getattr(self, name).copy_(state[name])
        for name, count in state["without"].items():
            self.without[name].copy_(count)
        self.tokens, self.updates = state["tokens"], dict(state["updates"])


@torch.no_grad()
def subsidise_(sae: SparseAutoencoder, density: Float[Tensor, " features"]) -> None:
    """One step of the subsidies by which features compete: up while the running density is below the floor, and back
    to 1 while it is above. So a floor binds over time, where a capacity binds in every batch. Ours."""
    least_F = floors(sae)
    need_F = ((least_F - density) / least_F).clamp(-1, 1)
    sae.subsidy.mul_((SUBSIDY_RATE * need_F).exp()).clamp_(1.0, MOST_SUBSIDY)


def floors(sae: SparseAutoencoder) -> Float[Tensor, " features"]:
    """The least density of each feature."""
    config = sae.config
    share_F = torch.full_like(sae.subsidy, 1 / config.d_sae)
    if config.floor_shape == "zipf":
        law_R = (torch.arange(config.d_sae, device=sae.rank.device) + 1 + config.zipf_offset) ** -config.zipf_exponent
        share_F = (law_R / law_R.sum())[sae.rank]
    return share_F.clamp(min=1e-9) * (config.floor * float(config.k or 0))


@torch.no_grad()
def rerank_(sae: SparseAutoencoder, demand: Float[Tensor, " features"], of_features: Ranks | None = None) -> None:
    """Feature Choice: order the features by demand, the most wanted first, and fit the law if capacity="fitted".

    Equal demand keeps the order of before, so that features without any do not swap places for nothing. Where the SAE
    is a part, `of_features` have the others.
    """
    others = of_features or Ranks()
    demand, rank = others.joined(demand), others.joined(sae.rank)
    before = rank.argsort()  # feature at each rank
    order = before[demand[before].argsort(descending=True, stable=True)]
    rank[order] = torch.arange(order.numel(), device=order.device)
    sae.rank.copy_(rank[sae.features.start : sae.features.stop])
    if sae.config.capacity == "fitted":
        law = middle_law(demand)
        if law is not None and law.exponent >= 0:
            sae.zipf_law.copy_(torch.tensor([law.exponent, law.offset]))
