"""Evidence about the heads of a circuit: what they write, where they look, and what they make of a name.

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

from sae_tutorial.circuits.patching import Hook, activations, all_heads
from sae_tutorial.circuits.prompts import Prompts, at


@dataclass(frozen=True)
class Writes:
    """What each component adds to the stream at END, centred and divided by the scale of the last LayerNorm.

    Attributes:
        heads: (L, H, B, M); the bias of attention belongs to no head.
        mlps: (L, B, M).
        stream: (L + 1, B, M), all that is there before each layer, and at the end.
    """

    heads: Float[Tensor, "layers heads prompts model"]
    mlps: Float[Tensor, "layers prompts model"]
    stream: Float[Tensor, "layers+1 prompts model"]


def direct_writes(model: Any, prompts: Prompts, hooks: Sequence[Hook] = ()) -> Writes:
    """Run `prompts`, with these forward hooks in place, and take apart what is read at END."""
    layers = range(model.cfg.n_layers)
    z_names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    mlp_names = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    stream_names = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.hook_resid_post"]
    with model.hooks(fwd_hooks=list(hooks)):  # first, so that what they change is what is read
        found = activations(model, prompts, [*z_names, *mlp_names, *stream_names, "ln_final.hook_scale"])
    end = {name: at(acts, prompts.positions["END"]) for name, acts in found.items()}
    scale = end["ln_final.hook_scale"]

    def centred(vectors: Tensor) -> Tensor:
        return (vectors - vectors.mean(-1, keepdim=True)) / scale

    heads = [torch.einsum("bhd,hdm->hbm", end[name], model.W_O[layer]) for layer, name in enumerate(z_names)]
    return Writes(
        centred(torch.stack(heads)),
        centred(torch.stack([end[name] for name in mlp_names])),
        centred(torch.stack([end[name] for name in stream_names])),
    )


def towards(
    vectors: Float[Tensor, "*components prompts model"],
    model: Any,
    right: Int[Tensor, " prompts"],
    against: Int[Tensor, " prompts"] | Int[Tensor, "prompts names"],
) -> Float[Tensor, "*components"]:
    """What vectors from `Writes` add to the logit of `right` above that of `against`, mean over prompts.

    Args:
        right: (B,) ids.
        against: (B,) ids, or (B, names) ids of which the mean is taken; see `absent_names`.
    """
    unembed_VM = model.W_U.T
    other_BM = unembed_VM[against] if against.dim() == 1 else unembed_VM[against].mean(1)
    return torch.einsum("...bm,bm->...b", vectors, unembed_VM[right] - other_BM).mean(-1)


def attention_between(
    model: Any, prompts: Prompts, start: str, ends: Sequence[str]
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Mean attention of every head from one role to others: how much `start` takes from each of `ends`."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    found = activations(model, prompts, names)
    rows = torch.stack([at(found[name].transpose(1, 2), prompts.positions[start]) for name in names])  # (L, B, H, P)
    places = {end: prompts.positions[end].view(1, -1, 1, 1).expand(*rows.shape[:3], 1) for end in ends}
    return {end: rows.gather(-1, place)[..., 0].mean(1) for end, place in places.items()}


def rank_among_names(
    model: Any, prompts: Prompts, role: str, right: Int[Tensor, " prompts"], names: Int[Tensor, " names"]
) -> Float[Tensor, "layers heads prompts"]:
    """Where a name stands among all `names` in what each head would say if it read nothing but this name.

    The stream at `role`, as the head finds it, goes through its value and output matrices to the logits; 0 is the
    highest of all names, len(names) − 1 the lowest. A head that copies has ranks near 0. (The copying score of Wang
    et al. 2022 asks for the five highest of the whole vocabulary, on the stream behind the first MLP.)
    """
    reads = [f"blocks.{layer}.ln1.hook_normalized" for layer in range(model.cfg.n_layers)]
    found = activations(model, prompts, reads)
    ranks = []
    for layer, head in all_heads(model):
        x_BM = at(found[reads[layer]], prompts.positions[role])
        said_BM = (x_BM @ model.W_V[layer, head] + model.b_V[layer, head]) @ model.W_O[layer, head]
        logits_BN = (said_BM - said_BM.mean(-1, keepdim=True)) @ model.W_U[:, names]
        own = (said_BM - said_BM.mean(-1, keepdim=True)).mul(model.W_U[:, right].T).sum(-1, keepdim=True)
        ranks.append((logits_BN > own + 1e-5).sum(-1).float())
    return torch.stack(ranks).view(model.cfg.n_layers, model.cfg.n_heads, -1)
