"""The same function with other weights: decoder rows of unit norm, or the input's mean and scale inside the weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder


@torch.no_grad()
def unit_decoder_(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Scale decoder rows to unit norm, and encoder, thresholds with them, so that the function stays: in place.

    A feature whose row is zero keeps it. Two cases change the function: tied weights have one norm for two
    matrices, and a single threshold cannot follow rows of different norms.
    """
    norm_F = sae.W_dec.norm(dim=1)
    norm_F = torch.where(norm_F > 0, norm_F, 1.0)
    sae.W_dec.div_(norm_F[:, None])
    if sae.config.tied:
        return sae
    sae.W_enc.mul_(norm_F)
    sae.b_enc.mul_(norm_F)
    if sae.config.how.gated:
        sae.b_mag.mul_(norm_F)
    sae.threshold.mul_(norm_F if sae.threshold.dim() else norm_F.mean())
    return sae


@torch.no_grad()
def folded(sae: SparseAutoencoder) -> SparseAutoencoder:
    """A copy with mean 0 and scale 1 that does the same to raw activations: codes and thresholds are equal, the
    normalisation is inside the weights. Decoder rows then have the norm `scale`. Tied weights come out untied."""
    config = sae.config
    if config.tied or not config.b_dec:  # folding needs both: two matrices, and a bias to hold the mean
        config = replace(config, tied=False, b_dec=True)
    other = SparseAutoencoder(config).to(sae.W_dec.device, torch.promote_types(sae.W_dec.dtype, torch.float32))
    missing = other.load_state_dict(copy.deepcopy(sae.state_dict()), strict=False).missing_keys
    if "W_enc" in missing:
        other.W_enc.copy_(sae.W_enc)
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    out = {"out_mean": sae.out_mean, "out_scale": float(sae.out_scale)} if config.is_transcoder else {}
    new = fold_normalisation(weights, sae.mean, float(sae.scale), subtracts_b_dec=not config.is_transcoder, **out)
    other.W_enc.copy_(new["W_enc"])
    other.b_enc.copy_(new["b_enc"])
    if config.how.gated:  # the magnitude sees the same shift as the gate, in its own measure
        other.b_mag.add_((new["b_enc"] - sae.b_enc) * sae.r_mag.exp())
    other.W_dec.copy_(new["W_dec"])
    other.b_dec.copy_(new["b_dec"])
    if config.skip:
        other.W_skip.copy_(sae.W_skip * (sae.out_scale / sae.scale))
        other.b_dec.sub_(other.W_skip @ sae.mean)
    other.take_origin(sae)
    other.mean.zero_()
    other.scale.fill_(1)
    if config.is_transcoder:
        other.out_mean.zero_()
        other.out_scale.fill_(1)
    return other


def fold_normalisation(
    weights: dict[str, Tensor],
    mean: Float[Tensor, " d_in"],
    scale: float,
    *,
    subtracts_b_dec: bool = True,
    out_mean: Float[Tensor, " d_out"] | None = None,
    out_scale: float | None = None,
) -> dict[str, Tensor]:
    """Weights that do to raw activations what `weights` do to normalised ones: same codes, denormalised reconstruction.

    weights          W_enc (D, F), b_enc (F,), W_dec (F, D), b_dec (D,); every other entry is passed through, for codes
                     keep their size, and thresholds with them
    subtracts_b_dec  whether the encoder sees x - b_dec (then b_enc stays as it is) or x itself
    out_mean/_scale  for a transcoder: the normalisation of what it predicts, if that is another store's

    Exact: with u = (x - mean) / scale,
        (u - b_dec) W_enc = (x - b_dec · scale - mean) (W_enc / scale)
        (z W_dec + b_dec) · scale + mean = z (W_dec · scale) + (b_dec · scale + mean)
    """
    if subtracts_b_dec and out_mean is not None:
        raise ValueError("subtracts_b_dec=True shares b_dec between input and output, so out_mean must not differ.")
    mean = mean.to(weights["W_enc"])
    mean_out = mean if out_mean is None else out_mean.to(mean)
    scale_out = scale if out_scale is None else out_scale
    folded = dict(weights)
    folded["W_enc"] = weights["W_enc"] / scale
    folded["W_dec"] = weights["W_dec"] * scale_out
    folded["b_dec"] = weights["b_dec"] * scale_out + mean_out
    if not subtracts_b_dec:
        folded["b_enc"] = weights["b_enc"] - mean @ folded["W_enc"]
    return folded
