"""Does a network notice if its axes are rotated? The loss of a language model, one operation carried out elsewhere.

Source: privileged bases, Elhage et al. 2021; to rotate and compare the loss is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.course.transformers.library import is_gpt2_like

Function = Callable[[Tensor], Tensor]


def gelu(x: Tensor) -> Tensor:
    """What GPT-2's neurons do: each number on its own."""
    return F.gelu(x, approximate="tanh")


def layer_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm without its learned scale and shift: every vector is centred, then divided by its size."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def in_rotated_axes(function: Function, rotation: Float[Tensor, "dims dims"]) -> Function:
    """`function`, carried out on rotated axes: x -> Rᵀ function(R x). No different if it has no favourite axes."""
    return lambda x: function(x @ rotation.T) @ rotation


def loss_with(
    model: Any, tokens: Int[Tensor, "rows positions"], *, neurons: Function = gelu, stream: Function = layer_norm
) -> float:
    """Cross-entropy (nats per token) if `neurons` takes GELU's place and `stream` LayerNorm's, in every layer at once.

    NaN for a model that has other activation functions or norms than GPT-2.
    """
    if not is_gpt2_like(model):
        return math.nan
    hooks = _replacing(stream, "ln_final.hook_in", "ln_final.hook_normalized")
    for layer in (f"blocks.{i}" for i in range(model.cfg.n_layers)):
        hooks += _replacing(neurons, f"{layer}.mlp.hook_pre", f"{layer}.mlp.hook_post")
        for norm in ("ln1", "ln2"):
            hooks += _replacing(stream, f"{layer}.{norm}.hook_in", f"{layer}.{norm}.hook_normalized")
    with model.hooks(fwd_hooks=hooks):
        return model(tokens, return_type="loss").item()


def _replacing(function: Function, before: str, after: str) -> list[tuple[str, Callable]]:
    """Hooks that put function(what `before` saw) in the place of what `after` saw."""
    seen: dict[str, Tensor] = {}
    return [(before, lambda x, hook: seen.update(x=x)), (after, lambda x, hook: function(seen["x"]))]
