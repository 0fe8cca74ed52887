"""What transcoders read and write, whatever the input: directions in the residual stream, and weights between them.

    reads(model, later, features) @ writes(earlier).T            weights between two transcoders, (N, F)
    through_head(model, reads(model, later, features), (1, 3))   what the features look for where head 1.3 looks
    de_embedding(model, reads(model, first, features))           the tokens that features of the first layer answer to

Directions are in raw units and before a LayerNorm divides: its scale depends on the input. Source: Dunefsky, Chlenski &
Nanda 2024.

Letters of shapes: N features that are asked about, F all of them, M stream, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.direct_effects import centred
from sae_tutorial.circuits.heads import Head, check_heads, key_head

READS, WRITES = r"blocks\.(\d+)\.(?:mlp\.hook_in|ln2\.hook_normalized|ln2\.hook_out)", "blocks.{}.hook_mlp_out"
Features = Sequence[int] | Int[Tensor, " n"]


def layer_of(transcoder: SparseAutoencoder) -> int:
    """The layer whose MLP this transcoder stands for. ValueError if there is none."""
    found = re.fullmatch(READS, transcoder.hook_name or "")
    if not transcoder.config.is_transcoder or found is None or transcoder.target_hook_name != WRITES.format(found[1]):
        kind = f"from {transcoder.hook_name!r} to {transcoder.target_hook_name!r}"
        wanted = f"one from 'blocks.N.mlp.hook_in' to {WRITES.format('N')!r} is needed"
        raise ValueError(f"transcoder is {kind}, d_out={transcoder.config.d_out}; {wanted}")
    return int(found[1])


@torch.no_grad()
def reads(model: Any, transcoder: SparseAutoencoder, features: Features) -> Float[Tensor, "n model"]:
    """What each feature looks for: its pre-activation (a gated one's magnitude), in the transcoder's units, is the
    stream's inner product with this over the LayerNorm's scale, plus `constants`."""
    which = _which(transcoder, features)
    W_NM = transcoder.W_enc.T[which] * _gain(transcoder, which)[:, None] / transcoder.scale
    return centred(model, W_NM)


@torch.no_grad()
def writes(transcoder: SparseAutoencoder, features: Features | None = None) -> Float[Tensor, "n model"]:
    """What each feature adds to the stream for a code of 1; None for all features."""
    W_NM = transcoder.W_dec if features is None else transcoder.W_dec[_which(transcoder, features)]
    return W_NM * transcoder.out_scale


@torch.no_grad()
def constants(transcoder: SparseAutoencoder, features: Features) -> Float[Tensor, " n"]:
    """What a pre-activation is when the stream holds nothing."""
    which = _which(transcoder, features)
    bias_F = transcoder.b_mag if transcoder.config.how.gated else transcoder.b_enc
    off_N = transcoder.W_enc.T[which] @ transcoder.mean / transcoder.scale
    return bias_F[which] - _gain(transcoder, which) * off_N


@torch.no_grad()
def through_head(model: Any, directions: Float[Tensor, "n model"], head: Head) -> Float[Tensor, "n model"]:
    """What each direction finds in the stream where a head looks, for an attention and a LayerNorm scale of 1:
    W_V W_O v. Raises ValueError for a head that there is not."""
    check_heads(model.cfg, [head])
    (layer, h), (_, values) = head, key_head(model.cfg, head)
    return centred(model, directions @ model.W_O[layer][h].T @ model.W_V[layer][values].T)


@torch.no_grad()
def de_embedding(model: Any, directions: Float[Tensor, "n model"]) -> Float[Tensor, "n vocab"]:
    """What each direction finds in the embedding of each token: the direct path, without what heads add."""
    return directions @ model.W_E.T


def _which(transcoder: SparseAutoencoder, features: Features) -> Int[Tensor, " n"]:
    which = torch.as_tensor(features, device=transcoder.W_dec.device, dtype=torch.long)
    if which.dim() != 1 or not ((which >= 0) & (which < transcoder.config.d_sae)).all():
        raise ValueError(f"features must be a list of numbers from 0 to {transcoder.config.d_sae - 1}, got {features}")
    return which


def _gain(transcoder: SparseAutoencoder, which: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """By what a pre-activation without its bias is multiplied."""
    return transcoder.r_mag[which].exp() if transcoder.config.how.gated else transcoder.b_enc.new_ones(len(which))
