"""SAEs of notebook 04 that the package trains side by side: two seeds that are watched, and many small ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.ground_truth import mutual_neighbours
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings


def train_pair(
    one: SparseAutoencoder, other: SparseAutoencoder, store: ActivationStore, cosine: float = 0.7, **how: Any
) -> list[tuple[int, float]]:
    """Train both on the same batches. Returns, at each logged step, the share of features that they have in common by
    `mutual_neighbours`. `how`: settings of `train_many`."""
    shared: list[tuple[int, float]] = []

    def watch(step: int, metrics: Any) -> None:
        shared.append((step, mutual_neighbours(one.W_dec, other.W_dec, cosine=cosine)))

    train_many([one, other], store, on_step=watch, **how)
    return shared


def small_saes(
    x: Float[Tensor, "tokens d"], sizes: Sequence[int], lambdas: Sequence[float], steps: int
) -> list[SparseAutoencoder]:
    """Trained tied SAEs with an L1 penalty, one for each pair of size and λ, the λ of one size after the other.

    x is scaled to E|x|² = 1 and not centred: who wants that does it before.
    """
    pairs = [(size, lam) for size in sizes for lam in lambdas]
    config: dict[str, Any] = {"rule": "relu", "tied": True, "b_dec": False, "normalise": False}
    saes = [SparseAutoencoder(SAEConfig(x.shape[1], size, **config)) for size, _ in pairs]
    for sae in saes:
        sae.scale.fill_(float(x.square().sum(dim=1).mean().sqrt()))
    how = [TrainSettings(steps=steps, batch_size=256, lr=1e-2, l1=lam) for _, lam in pairs]
    train_many(saes, ActivationStore.from_tensor(x), how, progress=False)
    return saes
