"""The four allocation rules, in plain torch: who gets to use which feature.

Think of a batch as a table of affinities, tokens down and features across, and of a limited number of matches to give
away. If a match is worth more the stronger its affinity (the Monotonic Importance Heuristic), giving them away is
an optimisation: maximise the sum of the matched affinities under a budget. The budget's shape is the rule:

    token_choice       at most k matches in each row            (TopK)
    feature_choice     at most m_f matches in column f          (Feature Choice)
    mutual_choice      at most M matches in the whole table     (Mutual Choice; what BatchTopK selects)
    threshold_choice   every match above a threshold, no budget (JumpReLU's gate: inference)

`gradient_choice` has the budget of token_choice, and another idea of what a match is worth: `scores`.

Each optimum is found by sorting, so it is exact. The framing, allocation under a sparsity budget with these
constraints, is Ayonrinde 2024 (arXiv 2411.02124). The details are ours: only positive affinities match; a budget that
cannot be met is met as far as it can; ties go to the lowest token, then the lowest feature.

This module is the definition, written to be read. `sae_tutorial.allocation.fast` computes the same matches with fewer
passes over the table, and is tested against this.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation.checks import check_affinities, check_capacity, check_count, check_threshold
from sae_tutorial.allocation.codes import SparseCodes


def token_choice(affinities: Float[Tensor, "tokens features"], k: int) -> SparseCodes:
    """The `k` strongest positive affinities of each token: TopK.

    Equals a stable descending sort of each row and keeping its first `k` positive entries: ties go to the lowest
    feature. A token with fewer than `k` positive affinities keeps those it has.

    Raises ValueError that names the first NaN or inf (−inf is a negative number like any other and never matches, so it
    can mask). Source: Gao et al. 2024, TopK; Ayonrinde 2024 for the reading as allocation.
    """
    check_affinities(affinities)
    k = check_count("k", k)
    best_BF = _strongest_first(affinities, dim=1)
    return _matches(affinities, _keep(best_BF[:, : min(k, best_BF.shape[1])], affinities, dim=1))


def feature_choice(
    affinities: Float[Tensor, "tokens features"], capacity: int | Int[Tensor, " features"]
) -> SparseCodes:
    """Each feature takes the tokens that call it loudest: feature f its `capacity[f]` strongest positive affinities.

    Equals a stable descending sort of each column and keeping its first `capacity[f]` positive entries: ties go to
    the lowest token. One number means the same capacity for every feature; see `zipf_capacity` for a better shape.

    Raises ValueError that names the first NaN or inf, and for a capacity that is negative or of another length.
    Source: Ayonrinde 2024, Feature Choice ("each feature matches at most m tokens").
    """
    check_affinities(affinities)
    capacity_F = check_capacity(capacity, affinities)
    best_BF = _strongest_first(affinities, dim=0)
    place_B1 = torch.arange(affinities.shape[0], device=affinities.device)[:, None]
    within_BF = torch.zeros_like(affinities, dtype=torch.bool).scatter_(0, best_BF, place_B1 < capacity_F)
    return _matches(affinities, within_BF & (affinities > 0))


def mutual_choice(
    affinities: Float[Tensor, "tokens features"], n_matches: int, *, guess: float | None = None
) -> SparseCodes:
    """The `n_matches` strongest positive token–feature matches of the whole batch.

    Equals flattening, a stable descending sort, and keeping the first `n_matches` positive entries:
    ties go to the lowest token, then the lowest feature, so the result is the same on every device.
    `guess` is roughly the affinity of the weakest match, that of the last batch for example. It may save time, and
    never changes the result.

    Raises ValueError that names the first NaN or inf.
    Source: Ayonrinde 2024, Mutual Choice; BatchTopK (Bussmann et al. 2024) selects the same.
    """
    check_affinities(affinities)
    n_matches = check_count("n_matches", n_matches)
    flat = affinities.flatten()
    best = _strongest_first(flat, dim=0)
    return _matches(affinities, _keep(best[: min(n_matches, flat.numel())], flat, dim=0).view(affinities.shape))


def threshold_choice(
    affinities: Float[Tensor, "tokens features"], threshold: float | Float[Tensor, " features"]
) -> SparseCodes:
    """Every positive affinity that is greater than `threshold`: one number, or one for each feature.

    The rule for reading features: a token's code does not depend on its neighbours in the batch. It equals JumpReLU's
    gate, z · [z > threshold], for thresholds of zero and above, compared in the affinities' precision; a negative
    threshold admits what zero admits.

    Raises ValueError that names the first NaN or inf, and for a threshold that is NaN or of another length.
    Source: Rajamanoharan et al. 2024, JumpReLU; Bussmann et al. 2024, BatchTopK at inference.
    """
    check_affinities(affinities)
    theta = check_threshold(threshold, affinities)
    return _matches(affinities, affinities > theta.clamp(min=0))


def gradient_choice(
    affinities: Float[Tensor, "tokens features"],
    sensitivity: Float[Tensor, "tokens features"],
    k: int,
    beta: float = 1.0,
) -> SparseCodes:
    """The `k` positive affinities z of each token with the largest scores z + β·z·|sensitivity|; values are z.

    sensitivity   W_dec g: how fast the model's loss changes along each feature's direction

    Equals `token_choice` of `scores`, with affinities in the place of the values; β = 0 is token_choice. Source: Olmo
    et al. 2024 (arXiv 2411.10397), Gradient SAEs, whose top-k selection also relies on gradients of the input
    activation. The formula is a reading at second hand, as the paper's text was not available; values that are z, the
    units of g and β, and all that happens at inference are ours.

    Raises ValueError that names the first score that is NaN or inf.
    """
    chosen = token_choice(scores(affinities, sensitivity, beta).detach(), k)
    return chosen.with_values(affinities[chosen.tokens, chosen.features])


def scores(affinities: Float[Tensor, "*any"], sensitivity: Float[Tensor, "*any"], beta: float) -> Float[Tensor, "*any"]:
    """z + β·z·|sensitivity|: what a match would add to the activation, plus β times how much the loss would change with
    it, to first order. Positive where z is."""
    return affinities + beta * affinities * sensitivity.abs()


def _strongest_first(affinities: Tensor, dim: int) -> Tensor:
    return affinities.detach().sort(dim=dim, descending=True, stable=True).indices


def _keep(chosen: Tensor, affinities: Tensor, dim: int) -> Tensor:
    """A mask that is True at the chosen places, if their affinity is positive."""
    return torch.zeros_like(affinities, dtype=torch.bool).scatter_(dim, chosen, True) & (affinities > 0)


def _matches(affinities_BF: Tensor, keep_BF: Bool[Tensor, "tokens features"]) -> SparseCodes:
    tokens, features = keep_BF.nonzero(as_tuple=True)  # row after row: the order that SparseCodes wants
    n_tokens, n_features = affinities_BF.shape
    return SparseCodes(affinities_BF[tokens, features], tokens, features, (n_tokens, n_features))
