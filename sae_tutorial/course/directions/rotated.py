"""Are a layer's axes special to the network? Its loss if a layer keeps few coordinates, on its own and on rotated axes.

Source: privileged bases, Elhage et al. 2021; to keep the strongest coordinates and compare the loss is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook, read_hooks

Function = Callable[[Tensor], Tensor]


def strongest(x: Float[Tensor, "*batch dims"], share: float) -> Float[Tensor, "*batch dims"]:
    """x with all but the largest |x_i| set to 0; `share` of the coordinates of each vector are kept, at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: it must be above 0 and at most 1")
    kept = x.abs().topk(max(1, round(share * x.shape[-1])), dim=-1).indices
    return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))


def held_by_strongest(x: Float[Tensor, "vectors dims"], share: float) -> float:
    """Which part of all squared length do the largest `share` of each vector's coordinates hold?"""
    kept = sum(float(strongest(part, share).square().sum()) for part in x.split(2048))  # a copy of all x is large
    return kept / float(x.square().sum())


def in_rotated_axes(function: Function, rotation: Float[Tensor, "dims dims"]) -> Function:
    """`function`, carried out on rotated axes: x -> Rᵀ function(R x). No different if it has no favourite axes."""
    return lambda x: function(x @ rotation.T) @ rotation


def loss_with(model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str, function: Function) -> float:
    """Cross-entropy (nats per token) if function(x) takes the place of the activations x at `hook_name`."""
    with model.hooks(fwd_hooks=[(hook_name, lambda x, hook: function(x))]):
        return model(tokens, return_type="loss").item()


def noise_through_mlp(
    model: Any, tokens: Int[Tensor, "rows positions"], layer: int, *, seed: int = 0, batch: int = 16
) -> tuple[Float[Tensor, "places neurons"], Float[Tensor, "places neurons"]]:
    """The neurons of a layer before their nonlinearity, and what the model makes of Gaussian noise in their place.

    The noise has each neuron's own mean and standard deviation. The model itself takes it through the nonlinearity,
    whichever that is; where a gate is multiplied with a linear part, both are noise. The first position is left out.
    """
    mlp = f"blocks.{layer}.mlp."
    inputs = [mlp + name for name in ("hook_pre", "hook_pre_linear") if mlp + name in model.hook_dict]
    batches = tokens.split(batch)
    with read_hooks(model, inputs) as read:
        found = [read(rows) for rows in batches]
    before = {name: torch.cat([one[name][:, 1:].flatten(0, 1) for one in found]) for name in inputs}
    moments = {name: (x.mean(0), x.std(0)) for name, x in before.items()}
    generator = torch.Generator(tokens.device).manual_seed(seed)

    def noise(x: Tensor, hook: Any, name: str) -> Tensor:
        mean, sd = moments[name]
        return mean + sd * torch.randn(x.shape, generator=generator).to(x)

    hooks = [(name, partial(noise, name=name)) for name in inputs]
    with model.hooks(fwd_hooks=hooks), read_hook(model, f"{mlp}hook_post") as read_after:
        after = torch.cat([read_after(rows)[:, 1:].flatten(0, 1) for rows in batches])
    return before[inputs[0]], after


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
