"""One SAE for each of the three rules: those that are shipped, or for another model small ones of one's own."""

from __future__ import annotations

from typing import Any

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.shipped import reference_sae
from sae_tutorial.training.loop import train_many

RULES = {"Token Choice": "token_choice", "Mutual Choice": "mutual_choice", "Feature Choice": "feature_choice"}


def shipped() -> dict[str, SparseAutoencoder]:
    """The reference SAEs of the embedded model, by the names of their rules."""
    return {name: reference_sae(rule) for name, rule in RULES.items()}


def trained(store: ActivationStore, d_sae: int, k: int, **settings: Any) -> dict[str, SparseAutoencoder]:
    """SAEs that are trained here side by side on the same batches; `settings` are those of `train_many`."""
    saes = {name: SparseAutoencoder(SAEConfig(store.d_in, d_sae, rule, k=k)) for name, rule in RULES.items()}
    train_many(list(saes.values()), store, progress=False, **settings)
    return saes
