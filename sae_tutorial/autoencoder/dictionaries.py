"""One interface for dictionaries, ways to write activations as sums of directions: of an SAE, of axes (PCA, random).

Letters of shapes: B tokens, D dimensions, F directions. Directions are (F, D), rows of length 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder

Directions = Float[Tensor, "directions dims"]


@dataclass(frozen=True)
class Dictionary:
    """A way to write activations as sums of directions: x = Σ_j c_j f_j + a constant + what is left.

    name        what figures call it
    encode      (N, D) raw activations -> (N, F) codes, each token by itself
    directions  (F, D), what one unit of each code adds to the activation
    constant    (D,), what an activation without any feature would be
    """

    name: str
    encode: Callable[[Float[Tensor, "tokens d"]], Float[Tensor, "tokens features"]]
    directions: Float[Tensor, "features d"]
    constant: Float[Tensor, " d"]

    def reconstruct(self, x_ND: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        """The constant and the sum of the features."""
        return self.encode(x_ND) @ self.directions + self.constant

    @classmethod
    def of_sae(cls, name: str, sae: SparseAutoencoder) -> Dictionary:
        """The features of an SAE; codes in the units inside, so directions carry its scale. ValueError for a
        transcoder, whose features are no parts of what it reads."""
        if sae.config.is_transcoder:
            raise ValueError(
                f"{name} is a transcoder: its features add up to another activation than they are read from"
            )

        def encode(x_ND: Tensor) -> Tensor:
            with torch.no_grad():
                return sae.encode(x_ND).to_dense()

        constant = sae.denormalise(sae.b_dec[None])[0]
        return cls(name, encode, (sae.W_dec * sae.scale).detach(), constant.detach())

    @classmethod
    def of_axes(
        cls, name: str, axes: Float[Tensor, "axes d"], mean: Float[Tensor, " d"], non_negative: bool = False
    ) -> Dictionary:
        """Orthonormal axes (of PCA, or random ones) about a mean. `non_negative`: each axis twice, once for each of its
        sides."""

        def encode(x_ND: Tensor) -> Tensor:
            codes_NF = (x_ND - mean) @ axes.T
            return torch.cat([codes_NF, -codes_NF], dim=1).relu() if non_negative else codes_NF

        return cls(name, encode, torch.cat([axes, -axes]) if non_negative else axes, mean)


def variance_explained(x_BD: Float[Tensor, "tokens dims"], guess_BD: Float[Tensor, "tokens dims"]) -> float:
    """1 − Σ|x − guess|² / Σ|x − mean|², all tokens and dimensions together; equal to 1 − FVU."""
    left = (x_BD - guess_BD).square().sum()
    return float(1 - left / (x_BD - x_BD.mean(0)).square().sum())


def principal_directions(x_BD: Float[Tensor, "tokens dims"]) -> Directions:
    """All D principal components, the one with the largest variance first (eigenvectors of the covariance)."""
    centred_BD = x_BD - x_BD.mean(0)
    return torch.linalg.eigh(centred_BD.T @ centred_BD).eigenvectors.T.flip(0).contiguous()
