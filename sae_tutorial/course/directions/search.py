"""Directions found without labels (ICA, k-means, random ones), and the best few of a dictionary for each token.

    top_and_half     where a direction is strong, and half as strong
    *_directions     ways to choose directions without training
    pursuit          for each token the directions that serve it best, from any of them
    reconstruction   the token that they give

Letters of shapes: B tokens, D dimensions, F directions. Directions are (F, D), rows of length 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.dictionaries import Directions
from sae_tutorial.autoencoder.dictionaries import principal_directions as principal_directions
from sae_tutorial.autoencoder.dictionaries import variance_explained as variance_explained


def excess_kurtosis(x_BD: Float[Tensor, "tokens dims"]) -> Float[Tensor, " dims"]:
    """E[z⁴] − 3 of each standardised coordinate: 0 for a Gaussian, large if mostly near zero and rarely strong."""
    z_BD = x_BD - x_BD.mean(0)
    return z_BD.pow(4).mean(0) / z_BD.square().mean(0).square() - 3


def top_and_half(
    x_BN: Float[Tensor, "tokens columns"], n: int
) -> tuple[Int[Tensor, "n columns"], Int[Tensor, "n columns"]]:
    """For each column its `n` strongest tokens, and the `n` that are closest to half of their mean strength."""
    peak_KN, top_KN = x_BN.topk(n, dim=0)
    few = zip(x_BN.split(128, dim=1), peak_KN.mean(0).split(128), strict=True)  # all at once would copy x_BN
    half_KN = [(x - peak / 2).abs().topk(n, dim=0, largest=False).indices for x, peak in few]
    return top_KN, torch.cat(half_KN, dim=1)


def random_rotation(
    dims: int, *, seed: int = 0, keep: Float[Tensor, " dims"] | None = None
) -> Float[Tensor, "dims dims"]:
    """A rotation (or reflection) drawn uniformly; with `keep`, one that leaves that vector where it is."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(dims, 0) if keep is None else keep.reshape(dims, 1).float()
    n = first.shape[1]
    frame = torch.linalg.qr(torch.cat([first, torch.randn(dims, dims - n, generator=generator)], dim=1)).Q
    turn = torch.eye(dims)
    turn[n:, n:] = _haar(dims - n, generator)
    return frame @ turn @ frame.T


def independent_directions(
    x_BD: Float[Tensor, "tokens dims"], n: int, *, steps: int = 60, seed: int = 0
) -> tuple[Directions, Directions]:
    """FastICA with g = tanh on the first `n` principal components: what to read, and what is written.

    Returns two dictionaries (n, D), of fewer than n if x fills fewer dimensions. `readers` are the rows of the unmixing
    matrix, so that (x − mean) @ readers.T gives the independent components up to scale. `writers` are the columns of
    the mixing matrix, the directions that those components add to x. For an orthogonal matrix the two would be the
    same. A component and its negative are one and the same; each is turned so that its rare strong side is positive.

    Source: Hyvärinen & Oja 2000, symmetric decorrelation.
    """
    centred_BD = x_BD - x_BD.mean(0)
    values_D, vectors_DD = torch.linalg.eigh(centred_BD.T @ centred_BD / len(x_BD))
    n = min(n, int((values_D > 1e-6 * values_D[-1]).sum()))  # an empty dimension cannot be brought to variance 1
    values_N, vectors_DN = values_D[-n:], vectors_DD[:, -n:]
    white_BN = centred_BD @ (vectors_DN / values_N.sqrt())  # covariance = identity
    W_NN = _haar(n, torch.Generator().manual_seed(seed))
    for _ in range(steps):
        s_BN = torch.tanh(white_BN @ W_NN.T)
        slope_N = (1 - s_BN.square()).mean(0)
        W_NN = _decorrelated(s_BN.T @ white_BN / len(x_BD) - slope_N[:, None] * W_NN)
    skew_N = (white_BN @ W_NN.T).pow(3).mean(0)
    W_NN = W_NN * torch.where(skew_N < 0, -1.0, 1.0)[:, None]
    readers_ND = W_NN @ (vectors_DN / values_N.sqrt()).T
    writers_ND = W_NN @ (vectors_DN * values_N.sqrt()).T
    return F.normalize(readers_ND, dim=1), F.normalize(writers_ND, dim=1)


def covariant_directions(x_BD: Float[Tensor, "tokens dims"], n: int, *, seed: int = 0) -> Directions:
    """Directions of `n` draws from a Gaussian with the covariance of x: its two-point statistics and nothing else."""
    centred_BD = x_BD - x_BD.mean(0)
    values_D, vectors_DD = torch.linalg.eigh(centred_BD.T @ centred_BD / len(x_BD))
    root_DD = vectors_DD * values_D.clamp_min(0).sqrt()
    draws_ND = torch.randn(n, len(values_D), generator=torch.Generator().manual_seed(seed))
    return F.normalize(draws_ND @ root_DD.T, dim=1)


def cluster_centres(
    x_BD: Float[Tensor, "tokens dims"], n: int, *, steps: int = 12, seed: int = 0
) -> Float[Tensor, "centres dims"]:
    """k-means with `n` centres (Lloyd's algorithm from `n` random tokens); an empty cluster starts again at a token.

    Centres are points, not directions: subtract the mean and normalise to use them as a dictionary.
    """
    if n > len(x_BD):
        raise ValueError(f"n={n}: there are only {len(x_BD)} tokens to make clusters of.")
    generator = torch.Generator().manual_seed(seed)
    centres_ND = x_BD[torch.randperm(len(x_BD), generator=generator)[:n]].clone()
    for _ in range(steps):
        mine_B = nearest(x_BD, centres_ND)
        sums_ND = torch.zeros_like(centres_ND).index_add_(0, mine_B, x_BD)
        count_N = torch.bincount(mine_B, minlength=n)
        fresh_ND = x_BD[torch.randint(len(x_BD), (n,), generator=generator)]
        centres_ND = torch.where(count_N[:, None] > 0, sums_ND / count_N.clamp(min=1)[:, None], fresh_ND)
    return centres_ND


def nearest(x_BD: Float[Tensor, "tokens dims"], centres_ND: Float[Tensor, "centres dims"]) -> Int[Tensor, " tokens"]:
    """The centre that each token is closest to."""
    return (x_BD @ centres_ND.T - centres_ND.square().sum(1) / 2).argmax(1)


def pursuit(
    x_BD: Float[Tensor, "tokens dims"], dictionary_FD: Directions, k: int
) -> tuple[Int[Tensor, "tokens k"], Float[Tensor, "steps dims_left"]]:
    """Orthogonal matching pursuit: for every token up to `k` directions, one after the other, and what is left.

    Each step takes the direction most aligned with the residual (of either sign) and projects the token on the span of
    all that it holds so far, which is least squares on them. On an orthonormal dictionary that is the best choice of k;
    on others it is greedy. Returns the chosen directions (B, k) and the squared residuals (k + 1, B), k = 0 first.

    Source: Pati, Rezaiifar & Krishnaprasad 1993.
    """
    chosen_BK, errors, _ = _pursued(x_BD, dictionary_FD, k)
    return chosen_BK, torch.stack(errors)


def _pursued(x_BD: Tensor, dictionary_FD: Directions, k: int) -> tuple[Tensor, list[Tensor], Tensor]:
    """The chosen directions, the squared residual after each step, and the last residual itself."""
    n_tokens, dims = x_BD.shape
    if not 1 <= k <= min(dims, len(dictionary_FD)):
        raise ValueError(f"k={k}: it must be between 1 and {min(dims, len(dictionary_FD))} for this dictionary.")
    left_BD = x_BD.clone()
    frame_BKD = x_BD.new_zeros(n_tokens, k, dims)  # an orthonormal frame of what each token has chosen
    chosen_BK = torch.zeros(n_tokens, k, dtype=torch.long)
    errors = [left_BD.square().sum(1)]
    for step in range(k):
        chosen_BK[:, step] = (left_BD @ dictionary_FD.T).abs_().argmax(1)
        new_BD = dictionary_FD[chosen_BK[:, step]]
        for _ in range(2):  # Gram and Schmidt, twice for the sake of rounding
            inside_BK = torch.einsum("bkd,bd->bk", frame_BKD[:, :step], new_BD)
            new_BD = new_BD - torch.einsum("bk,bkd->bd", inside_BK, frame_BKD[:, :step])
        frame_BKD[:, step] = new_BD = F.normalize(new_BD, dim=1)
        left_BD = left_BD - (left_BD * new_BD).sum(1, keepdim=True) * new_BD
        errors.append(left_BD.square().sum(1))
    return chosen_BK, errors, left_BD


def reconstruction(
    x_BD: Float[Tensor, "tokens dims"], dictionary_FD: Directions, k: int, chunk: int = 512
) -> Float[Tensor, "tokens dims"]:
    """x̂: every token from `k` directions that `pursuit` chooses for it, with the best coefficients (least squares)."""
    return torch.cat([part_BD - _pursued(part_BD, dictionary_FD, k)[2] for part_BD in x_BD.split(chunk)])


def pursuit_curve(
    x_BD: Float[Tensor, "tokens dims"],
    mean_D: Float[Tensor, " dims"],
    dictionary_FD: Directions,
    k: int,
    chunk: int = 512,
) -> Float[Tensor, " steps"]:
    """Share of the variance of x that 0, 1, …, k directions per token explain, the directions chosen by `pursuit`.

    `mean_D` is the guess for a token that has no direction yet; take it, like the dictionary, from other tokens than x.
    """
    parts = [pursuit(part - mean_D, dictionary_FD, k)[1].sum(1) for part in x_BD.split(chunk)]
    return 1 - torch.stack(parts).sum(0) / (x_BD - x_BD.mean(0)).square().sum()


def _haar(n: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator))
    return q * r.diagonal().sign()


def _decorrelated(W: Tensor) -> Tensor:
    """(W Wᵀ)^(−1/2) W: the orthogonal matrix nearest to W."""
    U, _, Vh = torch.linalg.svd(W)
    return U @ Vh
