"""One SAE for each of the three rules: shipped ones, or for another model small ones of one's own; compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.dictionaries import variance_explained
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.shipped import reference_sae
from sae_tutorial.autoencoder.thresholds import scale_thresholds_
from sae_tutorial.evaluation.intervals import bootstrap
from sae_tutorial.training.loop import train_many

RULES = {"Token Choice": "token_choice", "Mutual Choice": "mutual_choice", "Feature Choice": "feature_choice"}


def shipped(model: str = "stories") -> dict[str, SparseAutoencoder]:
    """The reference SAEs of a model that is shipped, by the names of their rules."""
    return {name: reference_sae(rule, model=model) for name, rule in RULES.items()}


def trained(store: ActivationStore, d_sae: int, k: int, **settings: Any) -> dict[str, SparseAutoencoder]:
    """SAEs that are trained here side by side on the same batches; `settings` are those of `train_many`."""
    saes = {name: SparseAutoencoder(SAEConfig(store.d_in, d_sae, rule, k=k)) for name, rule in RULES.items()}
    train_many(list(saes.values()), store, progress=False, **settings)
    return saes


@torch.no_grad()
def compared(
    saes: Mapping[str, SparseAutoencoder],
    acts: Float[Tensor, "tokens d_in"],
    kinds: Int[Tensor, " tokens"],
    shown: Sequence[int],
    longest: float = 20,
) -> dict[str, dict[str, float]]:
    """What each rule does on the same activations, by its name: "FVU", mean "L0" and "std" of L0, the mean number of
    features of tokens of each kind in `shown`, and that of the token with the longest activation, "longest"; "positive"
    is the mean number of positive affinities.

    All but "longest" leave out activations of `longest` times the median length or more: a few of these massive ones
    would be most of the variance.
    """
    length = acts.norm(dim=1)
    usual = length < longest * length.median()
    own = acts[usual]
    whole, found = (own - own.mean(dim=0)).square().sum(), {}
    for name, sae in saes.items():
        codes = sae.encode(acts)
        l0 = codes.l0().float()
        lost = (own - sae.decode(codes)[usual]).square().sum()
        numbers = {"FVU": lost / whole, "L0": l0[usual].mean(), "std": l0[usual].std()}
        numbers |= {str(kind): l0[usual & (kinds == kind)].mean() for kind in shown}
        numbers["longest"] = l0[length.argmax()]
        numbers["positive"] = (sae.affinities(own) > 0).sum(dim=1).float().mean()
        found[name] = {what: float(value) for what, value in numbers.items()}
    return found


def at_budget(
    sae: SparseAutoencoder, acts: Float[Tensor, "tokens d_in"], k: float, longest: float = 20
) -> SparseAutoencoder:
    """A copy whose thresholds are scaled so that these activations, but for massive ones, have k features each on
    average: thresholds from another text spend more or less than that."""
    length, copied = acts.norm(dim=1), deepcopy(sae)
    scale_thresholds_(copied, [acts[length < longest * length.median()]], k)
    return copied


@torch.no_grad()
def error_ratio(
    mine: SparseAutoencoder,
    theirs: SparseAutoencoder,
    acts: Float[Tensor, "tokens d_in"],
    row_length: int,
    longest: float = 20,
) -> tuple[float, float, float]:
    """Squared error of one SAE over that of another, minus 1, and the ends of its 95 % interval over rows of text;
    massive activations are left out, as in `compared`."""
    length = acts.norm(dim=1)
    usual = (length < longest * length.median()).float()
    lost = [(usual * (acts - sae(acts)).square().sum(dim=1)).view(-1, row_length) for sae in (mine, theirs)]
    return change_over_rows(*lost)


def change_over_rows(
    mine: Float[Tensor, "rows positions"], theirs: Float[Tensor, "rows positions"]
) -> tuple[float, float, float]:
    """The sum of one over that of the other, minus 1, and the ends of its 95 % interval over rows of text."""
    sums = torch.stack([mine.sum(dim=1), theirs.sum(dim=1)])
    ratio, low, high = bootstrap(sums, lambda drawn: drawn[0].sum(-1) / drawn[1].sum(-1) - 1)
    return float(ratio), float(low), float(high)


@torch.no_grad()
def filled_fvu(sae: SparseAutoencoder, acts: Float[Tensor, "tokens d_in"], give: Callable[..., Tensor]) -> float:
    """FVU of these activations when `give(affinities, inputs, sae)` fills the table, whatever the SAE's own rule.

    `inputs` are the activations as the SAE reads them, normalised and without its decoder bias.
    """
    u = sae.normalise(acts)
    inputs = u - sae.b_dec
    return 1 - variance_explained(inputs, give(sae.preactivations(u).relu(), inputs, sae) @ sae.W_dec)


@torch.no_grad()
def worth(
    sae: SparseAutoencoder,
    inputs: Float[Tensor, "tokens d_in"],
    affinities: Float[Tensor, "tokens d_sae"],
    filled: Float[Tensor, "tokens d_sae"],
) -> Float[Tensor, "tokens d_sae"]:
    """By how much each cell lowers its token's squared error, given all other matches of the table `filled`: what a
    match would cost if it went, and what any other cell would save if it came."""
    along = (inputs - filled @ sae.W_dec) @ sae.W_dec.T  # what is left of each token, along each feature
    own = affinities * sae.W_dec.square().sum(dim=1)
    return affinities * (2 * along + torch.where(filled > 0, own, -own))
