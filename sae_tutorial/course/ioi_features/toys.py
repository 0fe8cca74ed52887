"""Two toys in which a sum of directions hides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.course.ioi_features.supervised import best_f1
from sae_tutorial.evaluation.ground_truth import random_directions
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings


def two_attributes(
    n_tokens: int, n_values: int, d: int, norms: tuple[float, float], seed: int = 0
) -> tuple[Float[Tensor, "tokens d"], Float[Tensor, "tokens values"]]:
    """a = u_i + v_j: two attributes with random directions, the first longer than the second.

    Returns activations, and indicators of all values, (N, 2·n_values), those of the longer one first.
    """
    vectors = _vectors(n_values, d, norms, seed)
    drawn = torch.randint(n_values, (2, n_tokens), generator=torch.Generator().manual_seed(seed))
    x_ND = vectors[0][drawn[0]] + vectors[1][drawn[1]]
    return x_ND, torch.cat([torch.nn.functional.one_hot(row, n_values) for row in drawn], dim=1).float()


def _vectors(n_values: int, d: int, norms: tuple[float, float], seed: int = 0) -> Float[Tensor, "2 values d"]:
    return random_directions(2 * n_values, d, seed).reshape(2, n_values, d) * torch.tensor(norms)[:, None, None]


def values_found(
    x_ND: Float[Tensor, "tokens d"],
    has_NV: Float[Tensor, "tokens values"],
    tried: Sequence[tuple[int, float]],
    steps: int,
    seeds: Sequence[int] = (0, 1),
) -> dict[str, list[float]]:
    """The share of each attribute's values that have a feature of F1 0.9 or more, "strong" and "weak", for each
    autoencoder (features, penalty λ) in `tried`, trained on the activations of `two_attributes`; means over seeds.

    λ is what a unit of a code costs against the squared error of a token.
    """
    return found_by(trained(x_ND, tried, steps, seeds), x_ND, has_NV)


@torch.no_grad()
def found_by(
    saes: Sequence[Sequence[SparseAutoencoder]],
    x_ND: Float[Tensor, "tokens d"],
    has_NV: Float[Tensor, "tokens values"],
) -> dict[str, list[float]]:
    """The same of autoencoders that are `trained`."""
    found = [[best_f1(sae.encode(x_ND).to_dense() > 0, has_NV)[0] >= 0.9 for sae in of_seeds] for of_seeds in saes]
    shares = torch.stack([torch.stack(each) for each in found]).float().unflatten(2, (2, -1)).mean((1, 3))
    return {"strong": shares[:, 0].tolist(), "weak": shares[:, 1].tolist()}


def trained(
    x_ND: Float[Tensor, "tokens d"], tried: Sequence[tuple[int, float]], steps: int, seeds: Sequence[int] = (0, 1)
) -> list[list[SparseAutoencoder]]:
    """For each (features, λ) an autoencoder of each seed, all on the same batches."""
    saes = [SparseAutoencoder(SAEConfig(x_ND.shape[1], n, "relu"), seed=seed) for n, _ in tried for seed in seeds]
    _train(saes, x_ND, [penalty for _, penalty in tried for _ in seeds], lr=1e-2, steps=steps, batch_size=256)
    return [saes[i : i + len(seeds)] for i in range(0, len(saes), len(seeds))]


@torch.no_grad()
def trained_and_honest(
    saes: Sequence[Sequence[SparseAutoencoder]], norms: tuple[float, float], penalties: Sequence[float]
) -> list[tuple[list[float], float]]:
    """For each λ the loss per token, error² + λ · code, of autoencoders that are `trained` on `two_attributes(8_192,
    32, 64, norms)`, one for each seed, and of a dictionary with a feature for each value, whose code is its norm − λ/2,
    or 0: for the value's deviation from the mean of its attribute, as the autoencoders have an offset, too. Where the
    trained one hides values at a lower loss, the loss asks for it; at a higher one, training has fallen short.
    """
    (x_ND, has_NV), vectors_AVD = two_attributes(8_192, 32, 64, norms), _vectors(32, 64, norms)
    offset_D = vectors_AVD.mean(1).sum(0)
    vectors_VD = (vectors_AVD - vectors_AVD.mean(1, keepdim=True)).flatten(0, 1)
    found = []
    for of_seeds, penalty in zip(saes, penalties, strict=True):
        mine = [_loss(sae, x_ND, penalty) for sae in of_seeds]
        norm_V1 = vectors_VD.norm(dim=1, keepdim=True)
        code_V1 = (norm_V1 - penalty / 2).clamp(min=0)
        error = (x_ND - offset_D - has_NV @ (vectors_VD * code_V1 / norm_V1)).square().sum(1).mean()
        found.append((mine, float(error + penalty * (has_NV @ code_V1).mean())))
    return found


def _loss(sae: SparseAutoencoder, x_ND: Tensor, penalty: float) -> float:
    """error² + λ · code, per token, in the units of x."""
    error = (x_ND - sae(x_ND)).square().sum(1).mean()
    return float(error + penalty * sae.scale * sae.encode(x_ND).to_dense().sum(1).mean())


def weak_beside(other: float, norm: float, penalties: Sequence[float], steps: int) -> list[float]:
    """`values_found` of an attribute of this norm beside one of another norm: what it loses without strong company."""
    x_ND, has_NV = two_attributes(8_192, 32, 64, norms=(other, norm))
    return values_found(x_ND, has_NV, [(96, penalty) for penalty in penalties], steps)["weak"]


def two_clusters(
    n_tokens: int, d: int = 100, distance: float = 2.0, seed: int = 0
) -> tuple[Float[Tensor, "tokens d"], Float[Tensor, " tokens"]]:
    """±μ + N(0, 1) noise in every dimension, with |μ| = `distance`, along the first axis; and the sign of each
    token."""
    generator = torch.Generator().manual_seed(seed)
    sign_N = torch.randint(2, (n_tokens,), generator=generator) * 2.0 - 1
    x_ND = torch.randn(n_tokens, d, generator=generator)
    x_ND[:, 0] += distance * sign_N
    return x_ND, sign_N


def axis_loss(t: Float[Tensor, " tokens"], l1: float) -> float:
    """Mean of (error² + l1 · code) where two features, one for each sign, describe one coordinate t, as well as can
    be.

    The best code is (|t| − l1/2)₊, which a linear encoder with a ReLU can compute. It costs l1·|t| − l1²/4 where
    that is above zero, and t² where both are off. As (|t| − l1/2)² ≥ 0, that is never more than t², the
    cost of no features at all: every axis is worth describing, noise included.
    """
    size = t.abs()
    return float(torch.where(size > l1 / 2, l1 * size - l1**2 / 4, size.square()).mean())


def split_clusters(
    penalties: Sequence[float], n_features: int, steps: int
) -> tuple[list[float], list[float], list[float]]:
    """Autoencoders trained on `two_clusters`, one for each penalty λ, and measured on fresh tokens.

    Returns, for each: its loss (error² + λ · code, per token); the best F1 of one of its features for the side that a
    token lies on, mean of both sides; and the same of the ideal pair of features, +μ and −μ.
    """
    (seen_ND, _), (x_ND, sign_N) = two_clusters(8_192, seed=0), two_clusters(8_192, seed=1)
    sides_N2 = torch.stack([sign_N > 0, sign_N < 0], dim=1).float()
    saes = [SparseAutoencoder(SAEConfig(x_ND.shape[1], n_features, "relu")) for _ in penalties]
    _train(saes, seen_ND, penalties, lr=3e-3, steps=steps, batch_size=512)
    losses, trained, ideal = [], [], []
    for sae, penalty in zip(saes, penalties, strict=True):
        with torch.no_grad():
            codes_NF = sae.encode(x_ND).to_dense()
            losses.append(_loss(sae, x_ND, penalty))
        pair_N2 = torch.stack([x_ND[:, 0] > penalty / 2, x_ND[:, 0] < -penalty / 2], dim=1)
        both = [float(best_f1(active, sides_N2)[0].mean()) for active in (codes_NF > 0, pair_N2)]
        trained.append(both[0])
        ideal.append(both[1])
    return losses, trained, ideal


def _train(
    saes: Sequence[SparseAutoencoder], x_ND: Float[Tensor, "tokens d"], penalties: Sequence[float], **how: Any
) -> None:
    """Side by side, each with its λ: what a unit of a code costs against the squared error of a token."""
    store = ActivationStore.from_tensor(x_ND)
    l1s = [penalty / (x_ND.shape[1] ** 0.5 * store.scale) for penalty in penalties]  # in the units of our L1
    train_many(saes, store, [TrainSettings(l1=l1, **how) for l1 in l1s], progress=False)
