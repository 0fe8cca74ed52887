"""A good start: biases, norms and units, from a sample of the activations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder


def geometric_median(
    points: Float[Tensor, "n d"], iterations: int = 100, tolerance: float = 1e-6
) -> Float[Tensor, " d"]:
    """The point with the smallest summed distance to all others, by Weiszfeld's iteration.

    Like a median it does not run after a few far points, as a mean would. Stops when a move is below `tolerance` times
    the mean distance.
    """
    median = points.mean(0)
    for _ in range(iterations):
        distance = (points - median).norm(dim=1)
        if not distance.any():
            break  # all points are one
        weight = 1 / distance.clamp(min=1e-6 * float(distance.mean()))  # a point may lie on the median
        moved = (weight @ points) / weight.sum()
        small = (moved - median).norm() <= tolerance * distance.mean()
        median = moved
        if small:
            break
    return median


@torch.no_grad()
def start_(
    sae: SparseAutoencoder, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None = None
) -> SparseAutoencoder:
    """Prepare a fresh SAE for its first step, in place, from a sample of raw activations (and raw targets).

    b_dec starts at the geometric median of what is predicted. The encoder is the decoder's transpose already (not in
    a transcoder, where input and output are different spaces); it is scaled so that the reconstruction is as long
    as the input on average: Gao et al. 2024. A transcoder's first guess is a tenth as long, as it is no better than a
    random one: our choice. Penalty rules start with all positive affinities matching; the threshold of jumprelu is
    small: Rajamanoharan et al. 2024b.
    """
    u = sae.normalise(x)
    goal = u if target is None else sae.normalise_target(target)
    if sae.config.b_dec:
        sae.b_dec.copy_(geometric_median(goal))
    if sae.config.tied:
        return sae  # one matrix with rows of unit norm: there is nothing left to scale
    codes = sae.allocate(sae.preactivations(u))
    length = (codes @ sae.W_dec).norm(dim=1).mean()
    wanted = (goal - sae.b_dec).norm(dim=1).mean() * (0.1 if sae.config.is_transcoder else 1.0)
    if length > 0:
        sae.W_enc.mul_(wanted / length)
    return sae
