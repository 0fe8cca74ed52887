"""What makes a feature of attention outputs fire: which heads, from which source positions, and who had written there.

A head's output is a weighted sum over source positions, z_h = Σ_s A_h[q, s] v_h[s]. An SAE that reads the z of all
heads, concatenated, before W_O, takes an inner product with it. So for a fixed attention pattern the pre-activation of
feature f at position q is a sum over heads and sources, and nothing is left over (Kissane et al. 2024):

    direct feature attribution     A_h[q, s] · (W_enc_f^(h) · v_h[s]) / scale,  and a constant of the SAE's biases

A value is a linear function of the residual stream at its source, once the LayerNorm's scale there is taken as it was.
So what comes from source s is what one direction finds in the stream there (`pulled_back`), and it splits once more:
into what the embedding, each attention layer and each MLP before has written (`writers`), the part of an attention
layer that has an SAE into that SAE's features. Going on from one of those is recursive attribution.

Letters of shapes: N matches, B rows, S positions, H heads, G heads with values of their own, D dimension of a head,
M of the stream, F features, W writers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hooks
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.direct_effects import centred
from sae_tutorial.circuits.heads import for_each_head


@dataclass(frozen=True)
class Matches:
    """Features at tokens, of rows that are read together.

    Attributes:
        tokens: (B, S) ids.
        rows, positions, features: (N,) of each match.
    """

    tokens: Int[Tensor, "rows positions"]
    rows: Int[Tensor, " matches"]
    positions: Int[Tensor, " matches"]
    features: Int[Tensor, " matches"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Matches:
        return Matches(self.tokens, self.rows[which], self.positions[which], self.features[which])

    def in_few_rows(self) -> Matches:
        """The same matches, without rows that none is in; the first row stays if there is no match at all."""
        rows, which = self.rows.unique(return_inverse=True)
        return Matches(self.tokens[rows] if len(rows) else self.tokens[:1], which, self.positions, self.features)


@dataclass(frozen=True)
class Attribution:
    """Pre-activations, in the SAE's units, taken apart.

    Attributes:
        heads: (N, H, S), what each head brings from each source position.
        constant: (N,), what the SAE's biases and the mean that it takes off add.
    """

    heads: Float[Tensor, "matches heads sources"]
    constant: Float[Tensor, " matches"]

    @property
    def total(self) -> Float[Tensor, " matches"]:
        """The pre-activations."""
        return self.heads.sum((1, 2)) + self.constant


def direct_feature_attribution(model: Any, sae: SparseAutoencoder, matches: Matches) -> Attribution:
    """The pre-activation of each match as a sum over heads and source positions, exact for the pattern as it was.

    Raises ValueError for an SAE that does not read `blocks.N.attn.hook_z` and for matches that do not exist.
    Source: Kissane et al. 2024.
    """
    layer, matches = _checked_layer(sae, matches), matches.in_few_rows()
    pattern_BHSS, v_BSGD = _read(model, matches, [f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.attn.hook_v"])
    reads_NHD = _reads(model, sae, matches.features)
    found_NHS = v_BSGD.new_zeros(len(matches), reads_NHD.shape[1], matches.tokens.shape[1])
    for row in range(len(matches.tokens)):  # values of a row are read once, however many matches it has
        here = (matches.rows == row).nonzero()[:, 0]
        v_HSD = for_each_head(v_BSGD[row].transpose(0, 1), model.cfg.n_heads)
        of_values_HSn = v_HSD @ reads_NHD[here].permute(1, 2, 0)
        found_NHS[here] = of_values_HSn.permute(2, 0, 1) * pattern_BHSS[row, :, matches.positions[here]].transpose(0, 1)
    return Attribution(found_NHS, _constant(sae, matches.features))


def pulled_back(model: Any, sae: SparseAutoencoder, matches: Matches) -> Float[Tensor, "matches sources model"]:
    """The direction that each match finds in the residual stream at each source position: what any part of the stream
    there adds to the pre-activation is its inner product with it. Patterns and LayerNorm scales are taken as they were.
    """
    layer, matches = _checked_layer(sae, matches), matches.in_few_rows()
    names = [f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.ln1.hook_scale"]
    pattern_BHSS, scale_BS1 = _read(model, matches, names)
    return _back(model, layer, _reads(model, sae, matches.features), matches, pattern_BHSS, scale_BS1)


@torch.no_grad()
def _back(
    model: Any, layer: int, reads_NHD: Tensor, matches: Matches, pattern_BHSS: Tensor, scale_BS1: Tensor
) -> Float[Tensor, "matches sources model"]:
    """`pulled_back` from what was read."""
    back_NHM = torch.einsum("nhd,hmd->nhm", reads_NHD, for_each_head(model.W_V[layer], model.cfg.n_heads))
    seen_NHS = pattern_BHSS[matches.rows, :, matches.positions]
    return centred(model, torch.einsum("nhs,nhm->nsm", seen_NHS, back_NHM)) / scale_BS1[matches.rows]


@dataclass(frozen=True)
class Writers:
    """What the pre-activations owe to each part of the model that wrote into the stream before this layer.

    Attributes:
        names: "embed", then for each earlier layer "attn 0" and "mlp 0".
        parts: (N, W, S), from each source position.
        constant: (N,), the biases of values, and of the SAE.
    """

    names: tuple[str, ...]
    parts: Float[Tensor, "matches writers sources"]
    constant: Float[Tensor, " matches"]

    @property
    def total(self) -> Float[Tensor, " matches"]:
        """The pre-activations."""
        return self.parts.sum((1, 2)) + self.constant


def writers(model: Any, sae: SparseAutoencoder, matches: Matches) -> Writers:
    """The pre-activation of each match as a sum over what had been written at each source position."""
    layer, matches = _checked_layer(sae, matches), matches.in_few_rows()
    hooks = {"embed": "blocks.0.hook_resid_pre"}
    for before in range(layer):
        hooks |= {f"attn {before}": f"blocks.{before}.hook_attn_out", f"mlp {before}": f"blocks.{before}.hook_mlp_out"}
    names = [f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.ln1.hook_scale", *hooks.values()]
    pattern_BHSS, scale_BS1, *wrote = _read(model, matches, names)
    reads_NHD, constant_N = _reads(model, sae, matches.features), _constant(sae, matches.features)
    back_NSM = _back(model, layer, reads_NHD, matches, pattern_BHSS, scale_BS1)
    parts = [torch.einsum("nsm,nsm->ns", back_NSM, one_BSM[matches.rows]) for one_BSM in wrote]
    if (b_V := model.blocks[layer].attn.b_V) is not None:  # each row of a pattern adds up to 1
        b_HD = for_each_head(b_V.detach().view(-1, reads_NHD.shape[2]), model.cfg.n_heads)
        constant_N = constant_N + torch.einsum("nhd,hd->n", reads_NHD, b_HD)
    return Writers(tuple(hooks), torch.stack(parts, dim=1), constant_N)


def from_features(
    model: Any, upstream: SparseAutoencoder, back: Float[Tensor, "matches sources model"], matches: Matches
) -> tuple[Float[Tensor, "matches sources features"], Float[Tensor, "matches sources"]]:
    """What an earlier attention layer adds, by the features of an SAE that reads it: (N, S, F), and what that SAE does
    not explain, its biases among it, (N, S). `back` is what `pulled_back` returns."""
    layer, matches = layer_of(upstream), matches.in_few_rows()
    z_BSHD, wrote_BSM = _read(model, matches, [str(upstream.hook_name), f"blocks.{layer}.hook_attn_out"])
    with torch.no_grad():
        W_O = model.W_O[layer].detach().flatten(0, 1)  # (H · D, M)
        codes_BSF = upstream.encode(z_BSHD.flatten(0, 1).flatten(1)).to_dense().unflatten(0, z_BSHD.shape[:2])
        wrote_FM = upstream.W_dec * upstream.scale @ W_O
        by_feature_NSF = codes_BSF[matches.rows] * (back @ wrote_FM.T)
        all_NS = torch.einsum("nsm,nsm->ns", back, wrote_BSM[matches.rows])
        return by_feature_NSF, all_NS - by_feature_NSF.sum(2)


def head_shares(sae: SparseAutoencoder, n_heads: int) -> Float[Tensor, "features heads"]:
    """How much of each feature's direction lies in each head's part: squared norms of W_dec, which sum to 1."""
    parts_FHD = sae.W_dec.detach().unflatten(1, (n_heads, -1))
    return parts_FHD.square().sum(2) / parts_FHD.square().sum((1, 2))[:, None]


def layer_of(sae: SparseAutoencoder) -> int:
    """The layer whose heads this SAE reads. ValueError if it reads something else."""
    found = re.fullmatch(r"blocks\.(\d+)\.attn\.hook_z", sae.hook_name or "")
    if found is None:
        raise ValueError(f"sae reads {sae.hook_name!r}; attribution to heads needs one on 'blocks.N.attn.hook_z'.")
    return int(found[1])


def _reads(model: Any, sae: SparseAutoencoder, features: Tensor) -> Float[Tensor, "matches heads d_head"]:
    """Encoder directions in raw units, head by head."""
    return (sae.W_enc.T[features] / sae.scale).detach().unflatten(1, (model.cfg.n_heads, -1))


def _constant(sae: SparseAutoencoder, features: Tensor) -> Float[Tensor, " matches"]:
    with torch.no_grad():
        off_D = sae.mean / sae.scale + (0 if sae.centre is None else sae.centre)
        return sae.b_enc[features] - sae.W_enc.T[features] @ off_D


def _read(model: Any, matches: Matches, names: list[str]) -> list[Tensor]:
    with read_hooks(model, names, fused=False) as read:
        found = read(matches.tokens)
    return [found[name] for name in names]


def _checked_layer(sae: SparseAutoencoder, matches: Matches) -> int:
    sizes = {"rows": matches.tokens.shape[0], "positions": matches.tokens.shape[1], "features": sae.config.d_sae}
    for name, size in sizes.items():
        values = getattr(matches, name)
        if len(values) != len(matches.features) or not ((values >= 0) & (values < size)).all():
            raise ValueError(
                f"matches.{name} must be {len(matches.features)} numbers from 0 to {size - 1}, got {values}"
            )
    return layer_of(sae)
