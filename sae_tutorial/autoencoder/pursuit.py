"""Gradient pursuit: codes by search instead of by an encoder, for any dictionary.

    codes = sae.encode(x)
    better = gradient_pursuit(sae.normalise(x) - sae.b_dec, sae.W_dec, codes.l0())     as many features per token
    sae.decode(better)

Letters of shapes: B tokens, D inputs, F features, K features that a token may hold.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae_tutorial.activations.memory import at_once
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.allocation.checks import FLOATING, WHOLE, check_tensor


@torch.no_grad()
def gradient_pursuit(
    x: Float[Tensor, "tokens d_in"],
    dictionary: Float[Tensor, "features d_in"],
    l0: int | Int[Tensor, " tokens"],
) -> SparseCodes:
    """Strengths of up to `l0` features for each token, one number for all or one for each, whose sum is near x.

    Once for each feature a token may hold: take up the one that its residual points at most, then move all strengths
    that it holds along the residual's gradient, as far as is best on that line, and not below zero. A feature that is
    taken up twice is held once, so a token may end with fewer. Nothing of it is differentiable.

    x is what the dictionary has to write: subtract the SAE's b_dec, and normalise if the SAE does.

    Raises ValueError that names the argument for shapes that do not fit, NaN or inf in x, and an l0 below 0.
    Source: Blumensath & Davies 2008, with strengths kept from falling below zero as Engels et al. 2024 do.
    """
    l0_B = _checked(x, dictionary, l0)
    order = l0_B.argsort(descending=True, stable=True)  # so that those with rounds left are always the first
    pieces = [
        (piece, *_pursued(x[piece], dictionary, l0_B[piece]))
        for piece in order.split(at_once(x.device, x.element_size() * len(dictionary)))
    ]
    tokens = torch.cat([piece[:, None].expand_as(chosen_BK)[at_BK > 0] for piece, chosen_BK, at_BK in pieces])
    features = torch.cat([chosen_BK[at_BK > 0] for _, chosen_BK, at_BK in pieces])
    values = torch.cat([at_BK[at_BK > 0] for _, _, at_BK in pieces])
    return SparseCodes.from_matches(values, tokens, features, (len(x), len(dictionary)))


def _pursued(x_BD: Tensor, dictionary_FD: Tensor, l0_B: Tensor) -> tuple[Tensor, Tensor]:
    """What each token holds, (B, K), and how strongly; 0 for places that hold nothing. l0_B falls from row to row."""
    K = int(l0_B.max()) if len(l0_B) else 0
    chosen_BK = torch.zeros(len(x_BD), K, dtype=torch.int64, device=x_BD.device)
    strength_BK, left_BD = x_BD.new_zeros(len(x_BD), K), x_BD.clone()
    fresh_BK = torch.zeros_like(chosen_BK, dtype=torch.bool)  # places that hold a feature for the first time
    for k in range(K):
        n = int((l0_B > k).sum())  # tokens that have a round left
        chosen, strength, fresh = (table[:n, : k + 1] for table in (chosen_BK, strength_BK, fresh_BK))
        left = left_BD[:n]
        fit_BF = left @ dictionary_FD.T
        new_B = fit_BF.argmax(dim=1)
        fresh[:, k] = ~(fresh[:, :k] & (chosen[:, :k] == new_B[:, None])).any(dim=1)
        chosen[:, k] = new_B
        gradient = fit_BF.gather(1, chosen) * fresh
        move_BD = embedding_bag(chosen, dictionary_FD, per_sample_weights=gradient, mode="sum")
        length_B = (move_BD * left).sum(1) / move_BD.square().sum(1).clamp(min=torch.finfo(x_BD.dtype).tiny)
        strength += length_B[:, None] * gradient
        strength.clamp_(min=0)
        left.copy_(x_BD[:n] - embedding_bag(chosen, dictionary_FD, per_sample_weights=strength, mode="sum"))
    return chosen_BK, strength_BK


def _checked(x: Tensor, dictionary: Tensor, l0: int | Tensor) -> Tensor:
    """l0 as one number for each token."""
    for name, tensor in {"x": x, "dictionary": dictionary}.items():
        check_tensor(name, tensor, "floating point numbers", FLOATING, "float()")
        if tensor.dim() != 2:
            raise ValueError(f"{name} must have two dimensions, got shape {tuple(tensor.shape)}")
    if x.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"x has {x.shape[1]} numbers per token, the dictionary's directions have {dictionary.shape[1]}"
        )
    if not x.isfinite().all():
        raise ValueError("x holds NaN or inf; find out where they come from before you pursue them")
    l0 = torch.full((len(x),), l0, device=x.device) if isinstance(l0, int) else l0
    check_tensor("l0", l0, "whole numbers", WHOLE, "long()")
    if l0.shape != (len(x),) or (l0 < 0).any():
        raise ValueError(f"l0 must be one number of at least 0, or one for each of the {len(x)} tokens, got {l0}")
    return l0.to(x.device)
