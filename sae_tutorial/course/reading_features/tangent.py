"""Along which features does text vary around an activation? A tangent-space lasso on the features of an SAE.

Zhang, Koelle & Meilă (*Dictionary-based manifold learning*, 2023) describe the tangent space of data at a point by the
gradients of a few functions of a dictionary. Here the functions are features, and their gradients encoder columns; that
each point has a lasso of its own is ours.

Letters of shapes: N positions, K neighbours, D width of an activation, T dimensions of a tangent space, P features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation import SparseCodes
from sae_tutorial.autoencoder import SparseAutoencoder

SHRINK, MOST_STEPS, TOLERANCE = 0.9, 500, 1e-5  # of the path of penalties, and of each solution on it


def token_scores(
    codes: SparseCodes, token: Int[Tensor, " positions"], is_shown: Bool[Tensor, " positions"]
) -> Float[Tensor, " features"]:
    """For every feature at once: how well its mean activation at each token, over the positions that are shown,
    foretells it at all others. A correlation; 0 where a feature is silent in either part."""
    F, n = codes.shape[1], int(token.max()) + 1
    shown, count = is_shown[codes.tokens], token[is_shown].bincount(minlength=n).clamp(min=1)
    pair = codes.features.long() * n + token[codes.tokens]
    known, at = pair[shown].unique(return_inverse=True)
    mean = torch.zeros(len(known)).index_add_(0, at, codes.values[shown].float()) / count[known % n]

    def by_feature(values: Tensor, features: Tensor) -> Tensor:
        return torch.zeros(F, dtype=torch.float64).index_add_(0, features, values.double())

    here, feature = ~shown, codes.features.long()
    times = token[~is_shown].bincount(minlength=n)[known % n]
    place = torch.searchsorted(known, pair[here]).clamp(max=len(known) - 1)
    foretold = torch.where(known[place] == pair[here], mean[place], 0.0)
    m = int((~is_shown).sum())
    z, z2 = (by_feature(codes.values[here].float() ** power, feature[here]) / m for power in (1, 2))
    s, s2 = (by_feature(times * mean**power, known // n) / m for power in (1, 2))
    both = by_feature(codes.values[here] * foretold, feature[here]) / m
    spread = ((z2 - z**2).clamp(min=0) * (s2 - s**2).clamp(min=0)).sqrt()
    return torch.where(spread > 0, (both - z * s) / spread.clamp(min=1e-30), 0.0).float()


def few_that_span(X_TP: Float[Tensor, "t features"], n: int) -> Int[Tensor, " n"]:
    """The n columns that describe the identity best: group lasso, min ‖1 − X B‖² + λ Σ_j ‖B_j‖, with λ lowered until n
    rows of B are not zero; the longest rows first. Raises ValueError where there are not that many columns."""
    T, P = X_TP.shape
    if n > P:
        raise ValueError(f"n={n}, but there are {P} features to choose among; ask for fewer")
    B_PT, penalty = torch.zeros(P, T), float(2 * X_TP.norm(dim=0).max())
    while int((B_PT.norm(dim=1) > 0).sum()) < n:
        penalty *= SHRINK
        B_PT = _solution(X_TP, penalty, B_PT)
    return B_PT.norm(dim=1).argsort(descending=True)[:n]


def _solution(
    X_TP: Float[Tensor, "t features"], penalty: float, B_PT: Float[Tensor, "features t"]
) -> Float[Tensor, "features t"]:
    """From a solution for another penalty: only features that the residual pulls at hard enough need be solved for."""
    active_P = B_PT.norm(dim=1) > 0
    while True:
        B_PT = torch.zeros_like(B_PT).index_copy_(
            0, active_P.nonzero()[:, 0], _proximal(X_TP[:, active_P], penalty, B_PT[active_P])
        )
        pull_P = 2 * (X_TP.T @ (torch.eye(len(X_TP)) - X_TP @ B_PT)).norm(dim=1)
        missing_P = (pull_P > penalty * (1 + 1e-3)) & ~active_P
        if not missing_P.any():
            return B_PT
        active_P |= missing_P


def _proximal(
    X_TA: Float[Tensor, "t active"], penalty: float, B_AT: Float[Tensor, "active t"]
) -> Float[Tensor, "active t"]:
    """Accelerated proximal gradient steps (FISTA)."""
    if not len(B_AT):
        return B_AT
    gram_AA, steep = X_TA.T @ X_TA, 2 * float(torch.linalg.matrix_norm(X_TA, 2)) ** 2
    ahead_AT, t = B_AT, 1.0
    for _ in range(MOST_STEPS):
        moved_AT = ahead_AT - 2 * (gram_AA @ ahead_AT - X_TA.T) / steep
        length_A1 = moved_AT.norm(dim=1, keepdim=True)
        new_AT = moved_AT * (1 - penalty / steep / length_A1.clamp(min=1e-30)).clamp(min=0)
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        ahead_AT, change = new_AT + (before - 1) / t * (new_AT - B_AT), float((new_AT - B_AT).abs().max())
        B_AT = new_AT
        if change < TOLERANCE:
            break
    return B_AT


@dataclass(frozen=True)
class Around:
    """For some positions: their nearest others, the deviations of these from their mean, and the tangent spaces."""

    near: Int[Tensor, "n neighbours"]
    deviations: Float[Tensor, "n neighbours d"]
    tangents: Float[Tensor, "n t d"]

    @classmethod
    def of(cls, x: Float[Tensor, "positions d"], at: Int[Tensor, " n"], n_near: int = 64, n_tangent: int = 8) -> Around:
        """Tangent spaces are the principal directions of the `n_near` nearest positions."""
        near = torch.cat(
            [torch.cdist(some, x).topk(n_near + 1, largest=False).indices[:, 1:] for some in x[at].split(16)]
        )
        deviations = x[near] - x[near].mean(1, keepdim=True)
        return cls(near, deviations, torch.linalg.svd(deviations, full_matrices=False).Vh[:, :n_tangent])

    def covered(self, directions: Float[Tensor, "n features d"]) -> float:
        """The share of the deviations' squares that lies in the span of the directions given for each position."""
        axes = torch.linalg.qr(directions.transpose(1, 2)).Q
        return float(((self.deviations @ axes).square().sum((1, 2)) / self.deviations.square().sum((1, 2))).mean())


@torch.no_grad()
def features_along(around: Around, sae: SparseAutoencoder, among: Int[Tensor, " features"]) -> Int[Tensor, "n t"]:
    """For each position as many features as its tangent space has dimensions, chosen by the lasso among these by their
    encoder columns. It is not told which features are active."""
    columns_PD = torch.nn.functional.normalize(sae.W_enc[:, among].T, dim=1)
    return torch.stack([among[few_that_span(tangent @ columns_PD.T, len(tangent))] for tangent in around.tangents])


def described(
    around: Around, sae: SparseAutoencoder, codes: SparseCodes, at: Int[Tensor, " n"], picked: Int[Tensor, "n t"]
) -> tuple[float, float, float]:
    """Of features picked for the positions `at`: the share that is active there, the share that is active at one of the
    neighbours or more, and what their decoder rows hold of the variation among these."""
    known = (codes.tokens.long() * codes.shape[1] + codes.features.long()).sort().values

    def is_active(positions: Tensor, features: Tensor) -> Tensor:
        asked = positions * codes.shape[1] + features
        return known[torch.searchsorted(known, asked).clamp(max=len(known) - 1)] == asked

    here = is_active(at[:, None], picked)
    near = is_active(around.near[:, :, None], picked[:, None]).any(1)
    rows = torch.nn.functional.normalize(sae.W_dec.detach()[picked], dim=2)
    return float(here.float().mean()), float(near.float().mean()), around.covered(rows)
