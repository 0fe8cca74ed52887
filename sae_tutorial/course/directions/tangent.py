"""Coordinates of a curved surface, picked from a dictionary of functions: the tangent-space lasso.

Data lie on a manifold of d dimensions in D. A dictionary offers p functions g_j with known gradients. A few of them are
coordinates if their gradients span the tangent space everywhere. So at each point i, with T_i a basis of the tangent
space and X_i = T_iᵀ ∇g the gradients seen from inside (d × p), look for

    min over B   Σ_i ‖I − X_i B_i‖²_F + λ Σ_j ‖B_·j·‖₂

The second term is one length per function, over all points together, so a function is used everywhere or not at all.

Letters of shapes: N points, D ambient dimensions, K = d tangent dimensions, P functions.
Sources: Koelle et al. (arXiv 1811.11891); Zhang, Koelle & Meila, Dictionary-based Manifold Learning (arXiv 2302.00263).
Our choices: neighbours and their weights, the solver, and what counts as used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Function = Callable[[Float[Tensor, " dims"]], Float[Tensor, ""]]


def two_wheels(
    n: int, *, sensors: int = 10, noise: float = 0.02, seed: int = 0
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, "points sensors"], Float[Tensor, "sensors 4"]]:
    """Two wheels that turn on their own, watched by sensors that see mixtures of both: a torus in many dimensions.

    Returns the two angles of each of `n` random states, in (−π, π); the sensors' readings
    A (cos u, sin u, cos v, sin v) + noise; and A, which has orthonormal columns. Only noise depends on `seed`, with the
    states; the sensors stay the same.
    """
    generator = torch.Generator().manual_seed(seed)
    angles_N2 = (2 * torch.rand(n, 2, generator=generator) - 1) * math.pi
    rims_N4 = torch.stack([angles_N2.cos(), angles_N2.sin()], dim=2).flatten(1)
    A_D4 = torch.linalg.qr(torch.randn(sensors, 4, generator=torch.Generator().manual_seed(0))).Q
    return angles_N2, rims_N4 @ A_D4.T + noise * torch.randn(n, sensors, generator=generator), A_D4


def tangent_frames(
    points_ND: Float[Tensor, "points dims"], d: int, n_neighbours: int, at: Sequence[int] | None = None
) -> Float[Tensor, "points dims tangent"]:
    """An orthonormal basis of the tangent space at each point (or at those named by `at`), by weighted local PCA.

    The `d` leading directions of the nearest neighbours around the point; a neighbour at distance r counts exp(−r²/h²),
    with h half the distance of the farthest one.
    """
    if not d < n_neighbours < len(points_ND):
        raise ValueError(f"n_neighbours={n_neighbours}: more than d={d} and fewer than the {len(points_ND)} points.")
    centres_AD = points_ND if at is None else points_ND[list(at)]
    distance_AK, near_AK = torch.cdist(centres_AD, points_ND).topk(n_neighbours + 1, largest=False)
    offsets_AKD = points_ND[near_AK] - centres_AD[:, None]
    width_A1 = distance_AK[:, -1:] / 2
    weights_AK = torch.exp(-distance_AK.square() / width_A1.square())
    return torch.linalg.svd((offsets_AKD * weights_AK.sqrt()[..., None]).mT).U[..., :d]


def tangent_gradients(
    points_ND: Float[Tensor, "points dims"],
    frames_NDK: Float[Tensor, "points dims tangent"],
    functions: Sequence[Function],
) -> Float[Tensor, "points tangent functions"]:
    """X_i: every function's gradient at every point, in the coordinates of the tangent frame.

    Each function is scaled so that its gradient in the ambient space has a root mean square length of 1 over the
    points; so units do not matter, and what a function does off the surface counts against it.
    """
    slopes = [torch.func.vmap(torch.func.grad(function))(points_ND) for function in functions]
    slopes_NDP = torch.stack([s / s.square().sum(1).mean().sqrt().clamp(min=1e-12) for s in slopes], dim=2)
    return frames_NDK.mT @ slopes_NDP


def largest_penalty(X_NKP: Float[Tensor, "points tangent functions"]) -> float:
    """The smallest λ at which no function is used: 2 max_j (Σ_i ‖X_ij‖²)^½, from the gradient of the loss at B = 0."""
    return float(2 * X_NKP.square().sum((0, 1)).max().sqrt())


def shrink_groups(
    B_NPK: Float[Tensor, "points functions tangent"], threshold: float
) -> Float[Tensor, "points functions tangent"]:
    """The proximal step of Σ_j ‖B_·j·‖: a block is shortened by `threshold`, or zero if it is shorter."""
    lengths_P = group_lengths(B_NPK)
    return B_NPK * (1 - threshold / lengths_P.clamp(min=1e-12)).clamp(min=0)[:, None]


def group_lengths(B_NPK: Float[Tensor, "points functions tangent"]) -> Float[Tensor, " functions"]:
    """‖B_·j·‖₂: how much of function j is used, over all points and tangent directions."""
    return B_NPK.square().sum((0, 2)).sqrt()


def group_lasso(
    X_NKP: Float[Tensor, "points tangent functions"],
    penalty: float,
    *,
    start: Float[Tensor, "points functions tangent"] | None = None,
    steps: int = 2000,
    tolerance: float = 1e-6,
) -> Float[Tensor, "points functions tangent"]:
    """Minimise Σ_i ‖I − X_i B_i‖² + penalty · Σ_j ‖B_·j·‖ by proximal gradient steps (FISTA, with restarts).

    Stops when a step moves B by less than `tolerance` of its length, at the latest after `steps`.
    Source: Beck & Teboulle 2009; restart when the momentum points uphill, O'Donoghue & Candès 2015.
    """
    n, d, p = X_NKP.shape
    eye_KK = torch.eye(d, dtype=X_NKP.dtype)
    rate = 0.5 / float(torch.linalg.matrix_norm(X_NKP, ord=2).max()) ** 2
    B = X_NKP.new_zeros(n, p, d) if start is None else start.clone()
    ahead, momentum = B, 1.0
    for _ in range(steps):
        slope = 2 * X_NKP.mT @ (X_NKP @ ahead - eye_KK)
        new = shrink_groups(ahead - rate * slope, rate * penalty)
        moved = new - B
        if ((ahead - new) * moved).sum() > 0:  # the momentum went too far: forget it
            momentum = 1.0
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / faster * moved
        B, momentum = new, faster
        if moved.norm() <= tolerance * B.norm().clamp(min=1e-12):
            break
    return B


def group_lasso_path(
    X_NKP: Float[Tensor, "points tangent functions"], penalties: Sequence[float], *, steps: int = 2000
) -> Float[Tensor, "penalties functions"]:
    """The length of each function's block at every penalty, large penalties first, each solved from the one before."""
    B, path = None, []
    for penalty in penalties:
        B = group_lasso(X_NKP, penalty, start=B, steps=steps)
        path.append(group_lengths(B))
    return torch.stack(path)


def used(lengths_P: Float[Tensor, " functions"], share: float = 0.1) -> list[int]:
    """The functions whose block has at least `share` of the longest block's length."""
    return torch.where(lengths_P >= share * lengths_P.max())[0].tolist()
