"""What of an SAE's error is shrinkage, what is the encoder's reading, what is its choice of features.

All strengths are at least 0, as in a code. Letters of shapes: B tokens, D dimensions, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import normalize

STAGES = ("as it is", "one amount added", "strengths refitted", "features chosen anew")


def refit(
    x: Float[Tensor, "tokens d"], z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]
) -> Float[Tensor, "tokens features"]:
    """Codes with the zeros of z that reconstruct each token as well as they can: least squares, none below 0."""
    return _each(x, z, W_dec, lambda token, active, rows: active)


def choose_anew(
    x: Float[Tensor, "tokens d"], z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]
) -> Float[Tensor, "tokens features"]:
    """Codes with, for each token, at most as many features as z has for it. They are chosen one after the other, each
    the nearest to what is left, and all strengths are refitted each time: matching pursuit, no strength below 0."""
    return _each(x, z, W_dec, lambda token, active, rows: _pursued(token, len(active), rows))


def stages(
    x: Float[Tensor, "tokens d"], z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]
) -> tuple[float, dict[str, float]]:
    """The one amount that it is best to add to the code of every active feature, and the FVU left at each of `STAGES`.

    At the last one a search chooses, for each token, as many features as z has for it.
    """
    missing, active = x - z @ W_dec, (z > 0).to(z.dtype) @ W_dec
    amount = float((missing * active).sum() / active.square().sum())
    left = (
        missing,
        missing - amount * active,
        x - refit(x, z, W_dec) @ W_dec,
        x - choose_anew(x, z, W_dec) @ W_dec,
    )
    spread = float((x - x.mean(dim=0)).square().sum())
    return amount, {stage: float(error.square().sum()) / spread for stage, error in zip(STAGES, left)}


def _each(x: Tensor, z: Tensor, W_dec: Tensor, choice: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]) -> Tensor:
    """For each token the best strengths of the features that `choice(token, those active in z, rows)` names."""
    codes, rows = torch.zeros_like(z), W_dec.double().numpy()
    for token, code, out in zip(x.double().numpy(), z, codes):
        chosen = choice(token, code.nonzero().flatten().numpy(), rows)
        if len(chosen):
            out[torch.as_tensor(chosen)] = torch.from_numpy(nnls(rows[chosen].T, token)[0]).to(z.dtype)
    return codes


def _pursued(token: np.ndarray, count: int, rows: np.ndarray) -> list[int]:
    chosen: list[int] = []
    left, directions = token, normalize(torch.from_numpy(rows), dim=1).numpy()
    while len(chosen) < count:
        fit = directions @ left
        fit[chosen] = -np.inf
        if fit.max() <= 0:
            break
        chosen.append(int(fit.argmax()))
        left = token - rows[chosen].T @ nnls(rows[chosen].T, token)[0]
    return chosen
