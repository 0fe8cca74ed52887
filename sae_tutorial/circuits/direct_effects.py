"""Evidence about the heads of a circuit: what they write, and where they look.

What is added to the residual stream at END adds up, so each component has its share in every logit (direct attribution;
Elhage et al. 2021). Only the last LayerNorm's scale is not linear; it is taken as it was in the run.

Letters of shapes: L layers, H heads, B prompts, D dimension of a head, M of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.heads import attention_patterns
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import LOGITS, Hook, Prompts, at


@dataclass(frozen=True)
class Writes:
    """What each component adds to the stream at END, centred and divided by the scale of the last LayerNorm.

    Attributes:
        heads: (L, H, B, M); the bias of attention belongs to no head.
        mlps: (L, B, M).
        stream: (L + 1, B, M), all that is there before each layer, and at the end.
        scale: (B,) that by which all of this is divided. It differs between runs: a shorter stream is divided by less.
    """

    heads: Float[Tensor, "layers heads prompts model"]
    mlps: Float[Tensor, "layers prompts model"]
    stream: Float[Tensor, "layers+1 prompts model"]
    scale: Float[Tensor, " prompts"]


def direct_writes(model: Any, prompts: Prompts, hooks: Sequence[Hook] = ()) -> Writes:
    """Run `prompts`, with these forward hooks in place, and take apart what is read at END.

    Raises ValueError for a hook on the sum of all heads or after the last scale: no head has a share in what it does.
    """
    layers = range(model.cfg.n_layers)
    z_names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    mlp_names = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    stream_names = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.hook_resid_post"]
    closed = [f"blocks.{layer}.{name}" for layer in layers for name in ("hook_attn_out", "attn.o.hook_out")]
    closed += ["ln_final.hook_normalized", "ln_final.hook_out", "unembed.hook_in", LOGITS]
    with model.hooks(fwd_hooks=list(hooks)):  # first, so that what they change is what is read
        for name, point in model.hook_dict.items():
            if name in closed and point.has_hooks():
                raise ValueError(f"hooks: what {name} changes is the work of no head or MLP; take an earlier hook.")
        found = activations(model, prompts, [*z_names, *mlp_names, *stream_names, "ln_final.hook_scale"])
    end = {name: at(acts, prompts.positions["END"]) for name, acts in found.items()}
    heads = [torch.einsum("bhd,hdm->hbm", end[name], model.W_O[layer]) for layer, name in enumerate(z_names)]
    mlps, stream = ([end[name] for name in names] for names in (mlp_names, stream_names))
    scale_B1 = end["ln_final.hook_scale"]
    divided = [centred(model, torch.stack(parts)) / scale_B1 for parts in (heads, mlps, stream)]
    return Writes(divided[0], divided[1], divided[2], scale_B1.squeeze(-1))


def centred(model: Any, vectors: Tensor) -> Tensor:
    """What a LayerNorm makes of vectors before it divides; an RMSNorm takes them as they are."""
    return vectors if model.ln_final.uses_rms_norm else vectors - vectors.mean(-1, keepdim=True)


def towards(
    vectors: Float[Tensor, "*components prompts model"],
    model: Any,
    right: Int[Tensor, " prompts"],
    against: Int[Tensor, " prompts"] | Int[Tensor, "prompts names"],
) -> Float[Tensor, "*components"]:
    """What vectors from `Writes` add to the logit of `right` above that of `against`, mean over prompts.

    Args:
        right: (B,) ids.
        against: (B,) ids, or (B, names) ids of which the mean is taken.
    """
    unembed_VM = model.W_U.T
    other_BM = unembed_VM[against] if against.dim() == 1 else unembed_VM[against].mean(1)
    return torch.einsum("...bm,bm->...b", vectors, unembed_VM[right] - other_BM).mean(-1)


def attention_between(
    model: Any, prompts: Prompts, start: str, ends: Sequence[str]
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Mean attention of every head from one named position to others: how much `start` takes from each of `ends`."""
    pattern_LBHPP, each = attention_patterns(model, prompts.tokens), torch.arange(len(prompts))
    where = prompts.positions
    return {end: pattern_LBHPP[:, each, :, where[start], where[end]].mean(0) for end in ends}  # indexed: (B, L, H)
