"""Other directions of the same layer that one could read: read like the features of an SAE, above a threshold alone.

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
    """Directions about a mean as an SAE is read: `encode` gives what lies along each of them where that is more than
    its threshold; 0 for all of them unless told."""

    def __init__(
        self,
        hook_name: str,
        directions: Directions,
        mean: Float[Tensor, " d"] | None = None,
        above: Float[Tensor, " directions"] | None = None,
    ) -> None:
        self.hook_name, self.W_dec, self.scale = hook_name, directions, 1.0
        self.mean = torch.zeros(directions.shape[1]) if mean is None else mean
        self.above = torch.zeros(len(directions)) if above is None else above
        self.config = SimpleNamespace(d_sae=len(directions), rule="directions")

    def along(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens directions"]:
        return (x - self.mean) @ self.W_dec.T

    def encode(self, x: Float[Tensor, "tokens d"]) -> SparseCodes:
        along_BF = self.along(x)
        return SparseCodes.from_dense(along_BF * (along_BF > self.above))


def as_rare_as(directions: Read, x: Float[Tensor, "tokens d"], densities: Float[Tensor, " features"]) -> Read:
    """The same directions with the thresholds above which they are as rare on `x` as features of these densities; the
    densities are dealt out in turn. A rare direction is easier or harder to predict for that alone."""
    along_BF = directions.along(x)
    share_F = densities[torch.arange(along_BF.shape[1]) % len(densities)]
    rank_F = (share_F * len(x)).round().long().clamp(1, len(x) - 1)  # so many tokens lie above
    above_F = along_BF.sort(dim=0, descending=True).values.gather(0, rank_F[None])[0].clamp(min=0)
    return Read(directions.hook_name, directions.W_dec, directions.mean, above_F)


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
