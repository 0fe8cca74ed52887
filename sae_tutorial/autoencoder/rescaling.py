"""The same function with other weights: decoder rows of unit norm, or the input's mean and scale inside the weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from sae_tutorial.autoencoder.sae import SparseAutoencoder


@torch.no_grad()
def unit_decoder_(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Scale decoder rows to unit norm, and encoder, thresholds with them, so that the function stays: in place. Rows of
    zeros stay. Two cases change the function: tied weights, and rows of different norms with a single threshold."""
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
    if sae.config.gradient_weight:
        sae.gradient_scale.div_(norm_F.mean())  # of training, which goes on with its choices if norms are equal
    return sae


@torch.no_grad()
def folded(sae: SparseAutoencoder) -> SparseAutoencoder:
    """A copy with mean 0 and scale 1 that does the same to raw activations: the normalisation is inside the weights.
    Codes are equal, and so are thresholds, but for those of relative bids. Decoder rows then have the norm `scale`.
    Tied weights come out untied.

    Exact: with u = (x − mean) / scale,
        (u − b_dec) W_enc = (x − b_dec · scale − mean) (W_enc / scale)
        (z W_dec + b_dec) · scale + mean = z (W_dec · scale) + (b_dec · scale + mean)
    A transcoder's encoder does not subtract b_dec, so the mean goes into the bias of its encoder.
    """
    sae.must_be_whole("folded")
    config = replace(sae.config, tied=False, b_dec=True)  # two matrices, and a bias to hold the mean
    other = SparseAutoencoder(config).to(sae.W_dec.device, torch.promote_types(sae.W_dec.dtype, torch.float32))
    other.load_state_dict({"W_enc": sae.W_enc} | sae.state_dict())
    other.take_origin(sae)
    mean, scale = other.mean.clone(), other.scale.clone()
    other.mean.zero_()
    other.scale.fill_(1)
    other.W_enc.div_(scale)
    if config.relative:  # tokens are `scale` times as long
        other.threshold.div_(scale)
    mean_out, scale_out = mean, scale
    if config.is_transcoder:
        mean_out, scale_out = other.out_mean.clone(), other.out_scale.clone()
        other.out_mean.zero_()
        other.out_scale.fill_(1)
        shift_F = mean @ other.W_enc
        other.b_enc.sub_(shift_F)
        if config.how.gated:  # the magnitude sees the same shift as the gate, in its own measure
            other.b_mag.sub_(shift_F * other.r_mag.exp())
    other.W_dec.mul_(scale_out)
    if config.gradient_weight:  # W_dec g stays what it was
        other.gradient_scale.mul_(scale_out)
    other.b_dec.mul_(scale_out).add_(mean_out)
    if config.skip:
        other.W_skip.mul_(scale_out / scale)
        other.b_dec.sub_(other.W_skip @ mean)
    return other
