"""Are a layer's axes special to the network? Its loss if a layer keeps few coordinates, on its own and on rotated axes.

Source: privileged bases, Elhage et al. 2021; to keep the strongest coordinates and compare the loss is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def strongest(x: Float[Tensor, "*batch dims"], share: float) -> Float[Tensor, "*batch dims"]:
    """x with all but the largest |x_i| set to 0; `share` of the coordinates of each vector are kept, at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: it must be above 0 and at most 1")
    kept = x.abs().topk(max(1, round(share * x.shape[-1])), dim=-1).indices
    return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))


def in_rotated_axes(function: Function, rotation: Float[Tensor, "dims dims"]) -> Function:
    """`function`, carried out on rotated axes: x -> Rᵀ function(R x). No different if it has no favourite axes."""
    return lambda x: function(x @ rotation.T) @ rotation


def loss_with(model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str, function: Function) -> float:
    """Cross-entropy (nats per token) if function(x) takes the place of the activations x at `hook_name`."""
    with model.hooks(fwd_hooks=[(hook_name, lambda x, hook: function(x))]):
        return model(tokens, return_type="loss").item()


def losses_of_few(
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    hook_name: str,
    share: float,
    rotations: Sequence[Float[Tensor, "dims dims"]],
) -> list[float]:
    """The loss if `share` of the coordinates is kept at `hook_name`: on the layer's own axes, then on rotated ones."""

    def few(x: Tensor) -> Tensor:
        return strongest(x, share)

    ways = [few, *(in_rotated_axes(few, rotation) for rotation in rotations)]
    return [loss_with(model, tokens, hook_name, way) for way in ways]
