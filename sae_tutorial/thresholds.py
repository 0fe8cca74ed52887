"""From a rule of batches to a rule of tokens: the thresholds that `encode` uses at inference.

Mutual Choice gives away k·B matches per batch, Feature Choice m_f tokens to each feature. At inference there is no
batch, so the same share of all tokens must be let in by a threshold, and the right one is a quantile: over many
batches, as many affinities lie above it as the budgets of these batches allow. (The mean over batches of the weakest
match, which is often used, lets in too little: for a feature with one token per batch, only about 56 % of its share if
its affinities have an exponential tail.)

The quantile is exact and needs no table of all batches: of each batch, only the strongest few beyond the budget can
matter.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.choosing import choose


@torch.no_grad()
def measure_thresholds(
    sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "tokens d_in"]], first_step: int = 0
) -> SparseAutoencoder:
    """Set `sae.threshold` so that it lets in, over these batches of raw activations, what the rule of training would.

    Needed by mutual_choice, matryoshka (one threshold) and feature_choice (one for each feature); the other rules are
    their own inference rule, and nothing happens. Batches should have the size of those in training: 16 of
    2048 tokens pin the mean L0 to well under a percent. Where feature_choice has more features than matches,
    capacities rotate with the step; `first_step` says where.

    Raises ValueError if there are no batches.
    """
    rule = sae.config.rule
    if rule not in ("mutual_choice", "matryoshka", "feature_choice"):
        return sae
    values, features = [], []
    budget: int | Tensor = 0
    for i, x_BD in enumerate(batches):
        u_BD = sae.normalise(x_BD)
        # Batches differ: a feature with capacity 1 may fairly have 0 or 5 of its tokens in one batch.
        slack = 1.0 if rule == "feature_choice" else 0.25
        strongest = choose(sae, u_BD, first_step + i, slack=slack)
        values.append(strongest.values)
        features.append(strongest.features.int())
        budget = budget + sae.budget(len(x_BD), first_step + i)[1]
    if not values:
        raise ValueError("batches is empty, but thresholds are measured on activations; give at least one batch")
    values_N = torch.cat(values)
    if rule == "feature_choice":
        sae.threshold.copy_(_cut_each(values_N, torch.cat(features), torch.as_tensor(budget)))
    else:
        descending_N = values_N.sort(descending=True).values
        start, total = torch.zeros(1, dtype=torch.int64), torch.as_tensor(budget).view(1)
        sae.threshold.copy_(_cut(descending_N, start.to(values_N.device), total.to(values_N.device))[0])
    return sae


def _cut_each(values_N: Tensor, features_N: Tensor, budget_F: Tensor) -> Float[Tensor, " features"]:
    """For each feature, the cut below its `budget` largest values."""
    order = values_N.argsort(descending=True)
    order = order[features_N[order].argsort(stable=True)]  # feature after feature, the strongest first
    ends = features_N.bincount(minlength=budget_F.numel()).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])
    return _cut(values_N[order], starts[:-1], budget_F, starts[1:])


def _cut(descending_N: Tensor, starts: Tensor, budget: Tensor, ends: Tensor | None = None) -> Tensor:
    """Halfway between the last value that gets in and the first that does not. Whoever is missing counts as 0: a list
    shorter than its budget has no more positive affinities, so all of them get in."""
    ends = torch.full_like(starts, descending_N.numel()) if ends is None else ends
    padded_N = torch.cat([descending_N, descending_N.new_zeros(1)])
    nothing = descending_N.numel()
    last_in = torch.where(budget > 0, starts + budget - 1, nothing)
    first_out = starts + budget
    inside = padded_N[torch.where(last_in < ends, last_in, nothing)]
    outside = padded_N[torch.where(first_out < ends, first_out, nothing)]
    cut = torch.where(first_out < ends, (inside + outside) / 2, 0.0)
    return torch.where(budget > 0, cut, torch.inf)
