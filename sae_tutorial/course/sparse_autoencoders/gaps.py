"""What of an SAE's error is shrinkage, what is the encoder's reading, what is its choice of features.

Letters of shapes: B tokens, D dimensions, F features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.course.directions.search import pursuit

STAGES = ("as it is", "one amount added", "strengths refitted", "features chosen anew")


def refit(
    x: Float[Tensor, "tokens d"], z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]
) -> Float[Tensor, "tokens features"]:
    """Codes with the zeros of z that reconstruct each token as well as they can: least squares, of either sign."""
    refitted = torch.zeros_like(z)
    for token, code, out in zip(x, z, refitted):
        on = code > 0
        if on.any():
            out[on] = torch.linalg.lstsq(W_dec[on].T, token[:, None]).solution[:, 0]
    return refitted


def stages(
    x: Float[Tensor, "tokens d"], z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]
) -> tuple[float, dict[str, float]]:
    """The one amount that it is best to add to the code of every active feature, and the FVU left at each of `STAGES`.

    At the last one matching pursuit chooses, for each token, as many features as z has for it.
    """
    missing, active = x - z @ W_dec, (z > 0).to(z.dtype) @ W_dec
    amount = float((missing * active).sum() / active.square().sum())
    left = [
        float(error.square().sum()) for error in (missing, missing - amount * active, x - refit(x, z, W_dec) @ W_dec)
    ]
    l0_B = (z > 0).sum(dim=1)
    errors_KB = pursuit(x, normalize(W_dec, dim=1), int(l0_B.max()))[1]
    left.append(float(errors_KB.gather(0, l0_B[None]).sum()))
    spread = float((x - x.mean(dim=0)).square().sum())
    return amount, {stage: error / spread for stage, error in zip(STAGES, left)}
