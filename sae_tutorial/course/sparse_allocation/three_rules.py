"""One SAE for each of the three rules: shipped ones, or for another model small ones of one's own; compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.shipped import reference_sae
from sae_tutorial.autoencoder.thresholds import scale_thresholds_
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
    features of tokens of each kind in `shown`, and that of the token with the longest activation, "longest".

    All but the last leave out activations of `longest` times the median length or more: a few of these massive ones
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
