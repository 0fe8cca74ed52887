"""From a rule of batches to a rule of tokens: the thresholds that `encode` uses at inference.

At inference there is no batch, so a threshold lets in the same share of all tokens, and the right one is a quantile:
over many batches, as many affinities are above it as the budgets of these batches allow. (The mean over batches of the
weakest match, which is often used, lets in too little: for a feature with one token per batch, only about 56 % of its
share if its affinities have an exponential tail.) No table of all batches is needed: of each batch, only the strongest
few beyond its budget can matter. Where a batch turns out to have been cut too early, a second look takes more of it.

Where gradients decide in training, nobody has them at inference. Each feature then has a threshold of its own, which
lets in as many tokens as the rule gave it, gradients and all, over these batches. (Of a token alone, no more is known
about its gradient than what is usual for the feature. This is ours.)

Feature Choice with fewer matches than features hands out its budget by turns. A feature's budget is then its share of
a whole rotation (`window`), 1 or more, however few batches there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.allocation import threshold_choice
from sae_tutorial.allocation.zipf import ROTATION
from sae_tutorial.autoencoder.distributed import match
from sae_tutorial.autoencoder.matching import strongest_of_each, tokens_at_once
from sae_tutorial.autoencoder.sae import SparseAutoencoder

ALWAYS = 1e30  # times its threshold: what has a threshold of 0, and is let in whatever the factor


def window(sae: SparseAutoencoder, n_tokens: int) -> int:
    """Over so many batches of `n_tokens` each feature gets its share of the budget: 1, unless capacities rotate."""
    if sae.config.how.owner != "feature":
        return 1
    n_matches = max(1, sae.config.n_matches(n_tokens))
    return 1 if n_matches >= sae.config.d_sae else ROTATION * -(-sae.config.d_sae // n_matches)


@torch.no_grad()
def measure_thresholds(
    sae: SparseAutoencoder,
    batches: Iterable[Float[Tensor, "tokens d_in"] | tuple[Tensor, Tensor]],
    first_step: int = 0,
    of_features: Ranks | None = None,
) -> SparseAutoencoder:
    """Set `sae.threshold` so that it lets in, over these batches of raw activations, what the rule of training would.

    Needed by mutual_choice, matryoshka (one threshold), and by feature_choice and whatever has a beta (one for each
    feature); other rules are left alone. With a beta, batches are pairs of activations and the gradients there:
    `zip(store.batches(2048), store.gradients.batches(2048))`. Batches should have the size of those in training: 16 of
    2048 tokens pin the mean L0 to well under a percent. Where feature_choice has more features than matches, capacities
    rotate with the step; `first_step` sets where, and it takes `window(sae, n_tokens)` batches to pin them.

    The budget is met exactly, with two exceptions. Equal affinities at the cut get in together or not at all, whichever
    is nearer to the budget. And where capacities rotate, a feature whose share of the rotation comes within one or two
    batches gets a little less. Batches may be looked at twice or more: an iterator is read into memory first. Where the
    SAE is a part, `of_features` have the others, and measure on the same batches.

    Raises ValueError if there are no batches, one without tokens, or one without the gradients that it needs.
    """
    if not sae.config.how.measured:
        return sae
    if of_features is None:
        sae.must_be_whole("measure_thresholds")
    grid = Grid.of_features(of_features or Ranks())
    batches = list(batches) if isinstance(batches, Iterator) else batches
    taken = None  # by each feature, where its budget is not what the rule says
    if sae.config.how.thresholds == "each" and sae.config.how.owner != "feature":
        taken = [_taken(grid, sae, *_sides(sae, batch, i), first_step + i) for i, batch in enumerate(batches)]
    # Batches differ: a feature with capacity 1 may fairly have 0 or 5 of its tokens in one batch.
    slack = 1.0 if sae.config.how.owner == "feature" else 0.25
    while True:
        listed = _strongest(grid, sae, batches, first_step, slack, taken)
        cut = listed.cut()
        # A list that is full may hide affinities below its weakest. With as much slack as batches it holds all budgets,
        # and where these rotate, none of a single batch helps.
        hidden = grid.features.total(int((listed.hidden > cut).any()))
        if listed.rotates or slack >= listed.n_batches or not hidden:
            break
        slack = min(4 * slack, listed.n_batches)
    sae.threshold.copy_(cut.view(sae.threshold.shape))
    return sae


class _Listed(NamedTuple):
    """The strongest affinities of all batches, of each feature or of all features as if they were one. `hidden`: for
    each, below which affinity a list may be incomplete (0: it has all that are positive)."""

    values: Tensor
    features: Tensor
    budget: Tensor
    hidden: Tensor
    n_batches: int
    rotates: bool

    def cut(self) -> Tensor:
        order = self.values.argsort(descending=True)
        order = order[self.features[order].argsort(stable=True)]  # feature after feature, the strongest first
        ends = self.features.bincount(minlength=len(self.budget)).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        # Halfway lets in half a match too much of what was not seen, which is nothing unless budgets are a few matches.
        return _cut(self.values[order], starts, ends, self.budget, down=1 / 16 if self.rotates else 1 / 2)


def _sides(sae: SparseAutoencoder, batch: Any, i: int) -> tuple[Tensor, Tensor | None]:
    """Activations and gradients of one batch, both in the units inside."""
    x_BD, gradients_BO = batch if isinstance(batch, tuple) else (batch, None)
    if not sae.config.gradient_weight:
        return sae.normalise(x_BD), None
    if gradients_BO is None and sae.config.how.owner != "feature":
        raise ValueError(
            f"batches[{i}] has no gradients, by which this {sae.config.rule} SAE chooses: give pairs, as "
            "zip(store.batches(2048), store.gradients.batches(2048)) does"
        )
    return sae.normalise(x_BD), None if gradients_BO is None else sae.in_units(gradients_BO)


def _taken(grid: Grid, sae: SparseAutoencoder, u_BD: Tensor, gradients_BO: Tensor | None, step: int) -> Tensor:
    """(F,) how many of these tokens each feature gets by the rule of training."""
    codes = match(grid, sae, u_BD, step, len(u_BD), gradients=gradients_BO)
    return codes.features.bincount(minlength=len(sae.features))


def _strongest(
    grid: Grid,
    sae: SparseAutoencoder,
    batches: Iterable[Any],
    first_step: int,
    slack: float,
    taken: list[Tensor] | None,
) -> _Listed:
    each = sae.config.how.thresholds == "each"
    width = len(sae.features) if each else 1
    values, features, rotation = [], [], 1
    budget, hidden = (torch.zeros(width, dtype=d, device=sae.W_dec.device) for d in (torch.int64, sae.W_dec.dtype))
    for i, batch in enumerate(batches):
        u_BD, _ = _sides(sae, batch, i)
        if not len(u_BD):
            raise ValueError(f"batches[{i}] has no tokens, but thresholds are measured on activations; leave it out")
        rotation = max(rotation, window(sae, len(u_BD)))
        if taken is None:
            strongest = match(grid, sae, u_BD, first_step + i, len(u_BD), slack=slack)
            own, room = (sae.budget(len(u_BD), first_step + i, more)[1] for more in (0.0, slack))
        else:
            own, room = taken[i], taken[i] + 4 + (taken[i] * slack).long()
            strongest = strongest_of_each(sae, u_BD, room)
        values.append(strongest.values if each else grid.features.joined(strongest.values))
        features.append(strongest.features.int() if each else torch.zeros_like(values[-1], dtype=torch.int32))
        budget += own
        room = torch.as_tensor(room, device=budget.device).view(-1)
        weakest = torch.full_like(hidden, torch.inf).scatter_reduce_(0, features[-1].long(), values[-1], "amin")
        full = features[-1].bincount(minlength=width) >= room
        hidden = torch.where(full, torch.maximum(hidden, weakest), hidden)
    if not values:
        raise ValueError("batches is empty, but thresholds are measured on activations; give at least one batch")
    if rotation > 1:  # what each feature gets in so many batches of a rotation on average; 1 at least
        whole_F = torch.stack([sae.capacity(len(u_BD), step) for step in range(rotation)]).sum(0)
        budget = (whole_F.double() * (len(values) / rotation)).round().long().clamp(min=1)
    return _Listed(torch.cat(values), torch.cat(features), budget, hidden, len(values), rotation > 1)


def _cut(descending_N: Tensor, starts: Tensor, ends: Tensor, budget: Tensor, down: float) -> Tensor:
    """Part of the way `down` from the last value that gets in to the first that does not. A missing one counts as 0: a
    list shorter than its budget has no more positive affinities, so all of them get in."""
    padded_N = torch.cat([descending_N, descending_N.new_zeros(1)])

    def at(place: Tensor) -> Tensor:
        return padded_N[torch.where((starts <= place) & (place < ends), place, len(descending_N))]

    first_out = starts + budget
    inside, outside = at(first_out - 1), at(first_out)
    cut = torch.where(first_out < ends, inside + (outside - inside) * down, 0.0)
    for i in ((inside == outside) & (first_out < ends) & (budget > 0)).nonzero()[:, 0].tolist():
        cut[i] = _beside_equals(descending_N[starts[i] : ends[i]], int(budget[i]))
    return torch.where(budget > 0, cut, torch.inf)


def _beside_equals(descending_N: Tensor, budget: int) -> Tensor:
    """A cut above or below all values that equal the one at the budget, whichever lets in nearer to `budget`."""
    value = descending_N[budget - 1]
    above, equal = descending_N[descending_N > value], descending_N == value
    below = descending_N[len(above) + int(equal.sum()) :]
    if int(equal.sum()) + len(above) - budget <= budget - len(above):
        return (value + (below[0] if len(below) else 0)) / 2
    return (value + above[-1]) / 2 if len(above) else 2 * value


@torch.no_grad()
def scale_thresholds_(sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "tokens d_in"]], l0: float) -> float:
    """Multiply all thresholds by the one factor with which these raw activations have `l0` features per token on
    average, in place; returns the factor. To compare SAEs on a text at equal L0, whatever the text that each was
    measured on. Thresholds that are infinite let nothing in, and those of 0 everything, before and after.

    Raises ValueError where the rule has no thresholds, they are not measured yet, or no factor gets to `l0`.
    """
    sae.must_be_whole("scale_thresholds_")
    if sae.config.how.thresholds is None or (sae.threshold < 0).any():
        raise ValueError(f"this {sae.config.rule} SAE has no thresholds to scale (rule without, or not measured yet)")
    batches = list(batches) if isinstance(batches, Iterator) else batches
    if not sum(map(len, batches)):
        raise ValueError("batches is empty, but thresholds are scaled on activations; give at least one batch")
    open_F = sae.threshold == 0
    divisor = torch.where(open_F, 1.0, sae.threshold).float()
    for least in (0.5, 0.0):  # most of what is far below its threshold need not be listed
        wanted, ratios = 0, []
        for x_BD in batches:
            wanted += len(x_BD)
            for u_BD in sae.normalise(x_BD).split(tokens_at_once(sae)):
                bids_BF = sae.bids(u_BD).float()
                ratio_BF = torch.where(open_F, (bids_BF > 0) * ALWAYS, bids_BF / divisor)
                ratios.append(threshold_choice(ratio_BF, least).values)
        ratios_N, budget = torch.cat(ratios), round(l0 * wanted)
        if len(ratios_N) > budget:
            break
    always = int((ratios_N == ALWAYS).sum())
    if not always < budget < len(ratios_N):
        span = f"{always / max(1, wanted):g} to {len(ratios_N) / max(1, wanted):g}"
        raise ValueError(f"l0={l0!r} is out of reach: scaled thresholds let in {span} features per token here")
    descending_N = ratios_N.sort(descending=True).values
    factor = _beside_equals(descending_N, budget)
    if descending_N[budget - 1] > descending_N[budget]:
        factor = (descending_N[budget - 1] + descending_N[budget]) / 2
    sae.threshold.mul_(factor)
    return float(factor)
