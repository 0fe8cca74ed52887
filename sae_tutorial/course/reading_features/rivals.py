"""Other directions of the same layer that one could read: read like the features of an SAE, above zero alone.

Letters of shapes: B tokens, D dimensions, F directions.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.allocation import SparseCodes
from sae_tutorial.autoencoder.dictionaries import Directions, principal_directions
from sae_tutorial.course.directions.search import independent_directions


class Read:
    """Directions about a mean as an SAE is read: `encode` gives what lies above zero along each of them."""

    def __init__(self, hook_name: str, directions: Directions, mean: Float[Tensor, " d"] | None = None) -> None:
        self.hook_name, self.W_dec, self.scale = hook_name, directions, 1.0
        self.mean = torch.zeros(directions.shape[1]) if mean is None else mean
        self.config = SimpleNamespace(d_sae=len(directions), rule="directions")

    def encode(self, x: Float[Tensor, "tokens d"]) -> SparseCodes:
        return SparseCodes.from_dense(((x - self.mean) @ self.W_dec.T).clamp(min=0))


def rivals(
    x: Float[Tensor, "tokens d"], hook_name: str, neurons: tuple[str, int], n: int = 150, seed: int = 0
) -> dict[str, Any]:
    """n directions of each kind, of the activations `x` at a hook: independent components (what reads them), principal
    components, the stream's own axes and random directions; and all neurons of an MLP, given by hook and number."""
    mean, d = x.mean(0), x.shape[1]
    n, generator = min(n, d), torch.Generator().manual_seed(seed)
    readers, _ = independent_directions(x, n, seed=seed)
    random_FD = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    kinds = {
        "ICA": readers,
        "PCA": principal_directions(x - mean)[:n],
        "own axes": torch.eye(d)[torch.randperm(d, generator=generator)[:n]],
        "random directions": random_FD,
    }
    hook, n_neurons = neurons
    return {"MLP neurons": Read(hook, torch.eye(n_neurons))} | {
        name: Read(hook_name, directions, mean) for name, directions in kinds.items()
    }
