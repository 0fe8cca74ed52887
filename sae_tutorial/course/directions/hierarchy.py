"""Four properties that a representation can have, each stricter than the one before, and a measurement for each.

    decomposable        what one feature does to the activations does not depend on the other features
    linear              feature i, with value x_i, adds x_i · W_i
    not in superposition   the directions W_i are independent, so a linear map reads every x_i back
    basis-aligned       every W_i lies along one coordinate

The properties are Elhage et al.'s (2022); the measurements are ours. They ask for what we have for invented data only:
features that are known, and a representation that answers for any values of them.

Letters of shapes: B samples, N features, M dimensions of the representation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RUNGS = ("decomposable", "linear", "not in superposition", "basis-aligned")
Represent = Callable[[Float[Tensor, "samples features"]], Float[Tensor, "samples dims"]]


@dataclass(frozen=True)
class Representation:
    """A map from known features to activations, and how many of the four rungs it was built to climb."""

    name: str
    represent: Represent
    n_features: int
    rungs: int


def ladder(dims: int = 24, n_features: int = 8, *, seed: int = 0) -> list[Representation]:
    """Five representations in `dims` dimensions; each climbs one rung more than the one before.

    The first turns a feature's sign by its neighbour's value; the second bends each feature along half a circle in a
    plane of its own; the third holds 2 · `dims` features; the fourth has independent directions in general position;
    the fifth gives each feature a coordinate. Values of features are meant to lie in [0, 1].

    Raises ValueError if `dims` has no room for `n_features` planes.
    """
    if dims < 2 * n_features:
        raise ValueError(f"dims={dims}: a plane for each of n_features={n_features} takes {2 * n_features}.")
    g = torch.Generator().manual_seed(seed)
    W_MN, crowd_MN = torch.randn(dims, n_features, generator=g), torch.randn(dims, 2 * dims, generator=g)
    W_MN, crowd_MN = W_MN / W_MN.norm(dim=0), crowd_MN / crowd_MN.norm(dim=0)
    planes_MN = torch.linalg.qr(torch.randn(dims, dims, generator=g)).Q[:, : 2 * n_features]
    first_MN, second_MN = planes_MN.chunk(2, dim=1)
    one_hot_MN = torch.eye(dims)[:, torch.randperm(dims, generator=g)[:n_features]]

    def entangled(x_BN: Tensor) -> Tensor:
        return (x_BN * torch.where(x_BN.roll(1, dims=1) > 0.5, -1.0, 1.0)) @ W_MN.T

    def curved(x_BN: Tensor) -> Tensor:
        return ((math.pi * x_BN).cos() - 1) @ first_MN.T + (math.pi * x_BN).sin() @ second_MN.T

    return [
        Representation("entangled", entangled, n_features, 0),
        Representation("curved", curved, n_features, 1),
        Representation("crowded", lambda x_BN: x_BN @ crowd_MN.T, 2 * dims, 2),
        Representation("oblique", lambda x_BN: x_BN @ W_MN.T, n_features, 3),
        Representation("aligned", lambda x_BN: x_BN @ one_hot_MN.T, n_features, 4),
    ]


def climb(representation: Representation, *, samples: int = 2000, noise: float = 0.01, seed: int = 0) -> list[float]:
    """The four measurements of a representation, 1 for a property that it has, from samples with a little noise.

    Features are uniform in [0, 1]; `noise` is the standard deviation of Gaussian noise added to every coordinate.
    """
    generator = torch.Generator().manual_seed(seed)

    def noisy(x_BN: Tensor) -> Tensor:
        h_BM = representation.represent(x_BN)
        return h_BM + noise * torch.randn(h_BM.shape, generator=generator)

    x_BN = torch.rand(samples, representation.n_features, generator=generator)
    h_BM = noisy(x_BN)
    W_MN, linear = linear_fit(x_BN, h_BM)
    _, readable = linear_fit(h_BM, x_BN)
    return [decomposability(noisy, x_BN, generator), linear, readable, alignment(W_MN)]


def same_effect(effects_CM: Float[Tensor, "contexts dims"]) -> float:
    """Do these vectors, one effect seen in several contexts, agree? E⟨e, e′⟩ / E|e|² over different contexts.

    1 if the effect is the same vector everywhere, 0 if one says nothing about another; negative if they oppose.
    """
    n = len(effects_CM)
    squares = effects_CM.square().sum()
    return float((effects_CM.sum(0).square().sum() - squares) / ((n - 1) * squares))


def decomposability(represent: Represent, x_BN: Float[Tensor, "samples features"], generator: torch.Generator) -> float:
    """Set one feature to 1 and to 0 in every context x: how far is the difference the same? Mean over the features."""
    scores = []
    for feature in range(x_BN.shape[1]):
        high, low = x_BN.clone(), x_BN.clone()
        high[:, feature], low[:, feature] = 1, 0
        scores.append(same_effect(represent(high) - represent(low)))
    return sum(scores) / len(scores)


def linear_fit(
    x_BN: Float[Tensor, "samples inputs"], y_BM: Float[Tensor, "samples outputs"]
) -> tuple[Float[Tensor, "outputs inputs"], float]:
    """The least-squares affine map from x to y: its matrix, and the share of y's variance that it explains."""
    x, y = x_BN - x_BN.mean(0), y_BM - y_BM.mean(0)
    W_NM = torch.linalg.lstsq(x, y).solution
    return W_NM.T, float(1 - (y - x @ W_NM).square().sum() / y.square().sum())


def alignment(W_MN: Float[Tensor, "dims features"]) -> float:
    """Share of a direction's squared length along its largest coordinate, averaged; 1 if all are one-hot."""
    squares_MN = W_MN.square()
    return float((squares_MN.amax(0) / squares_MN.sum(0)).mean())
