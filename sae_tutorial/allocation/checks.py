"""What allocation accepts. `rules` and `fast` ask the same questions, and answer them in the same words."""

from __future__ import annotations

import operator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# torch sorts and indexes wrongly, or not at all, past this many elements on some devices.
MOST_ELEMENTS = 2**31 - 1
FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_tensor(name: str, given: Any, what: str, dtypes: tuple[torch.dtype, ...], fix: str) -> None:
    """TypeError for what is no tensor, or one of other numbers than `what`, which `dtypes` are; `fix` converts it."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(given).__name__}; convert it: torch.as_tensor({name})")
    if given.layout != torch.strided or given.is_meta:
        raise TypeError(f"{name} must be a dense tensor in memory, got {given.layout} on {given.device}")
    if given.dtype not in dtypes:
        raise TypeError(f"{name} must hold {what}, got {given.dtype}; convert it: {name}.{fix}")


def check_inside(tokens: Int[Tensor, " matches"], features: Int[Tensor, " matches"], shape: tuple[int, int]) -> None:
    """ValueError for a match outside a (tokens, features) table: products would read memory that is not theirs."""
    if not tokens.numel():
        return
    bounds = torch.stack([*torch.aminmax(tokens), *torch.aminmax(features)]).tolist()  # waits for a GPU only once
    for name, least, most, size in (("tokens", *bounds[:2], shape[0]), ("features", *bounds[2:], shape[1])):
        if least < 0 or most >= size:
            bad = least if least < 0 else most
            raise ValueError(f"{name} holds {bad}, but shape {tuple(shape)} allows 0 to {size - 1}")


def check_affinities(affinities: Tensor) -> None:
    """All that a rule demands of its table: (tokens, features), floating point, no NaN or inf, not too large."""
    check_table(affinities)
    if affinities.numel() > MOST_ELEMENTS:
        raise ValueError(
            f"affinities has {affinities.numel():,} elements, more than the {MOST_ELEMENTS:,} that torch sorts safely; "
            "use the rules of sae_tutorial.allocation.fast, which go block by block, or split the batch"
        )
    refuse_nan_and_inf(affinities)


def check_table(affinities: Tensor) -> None:
    """(tokens, features) and floating point."""
    check_tensor("affinities", affinities, "floating point numbers", FLOATING, "float()")
    if affinities.dim() != 2:
        more = f"flatten the positions first: affinities.flatten(0, {affinities.dim() - 2})"
        advice = more if affinities.dim() > 2 else "for a single token: affinities[None]"
        raise ValueError(f"affinities must be (tokens, features), got shape {tuple(affinities.shape)}; {advice}")


def refuse_nan_and_inf(affinities: Float[Tensor, "tokens features"], first_feature: int = 0) -> None:
    """Raise ValueError at the first NaN or +inf. `first_feature` is the number of the first column."""
    bad_BF = affinities.isnan() | (affinities == torch.inf)
    if bad_BF.any():
        token = int(bad_BF.any(1).nonzero()[0])
        feature = int(bad_BF[token].nonzero()[0])
        raise not_a_number(token, first_feature + feature, float(affinities[token, feature]))


def not_a_number(token: int, feature: int, value: float) -> ValueError:
    """The error to raise for a NaN or an inf."""
    return ValueError(
        f"affinities[{token}, {feature}] is {value}: an affinity must be a finite number; "
        "look for the first one in the activations, then in the encoder's weights"
    )


def check_count(name: str, count: int) -> int:
    """A whole number of matches, zero or more."""
    try:
        count = operator.index(count)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {count!r}") from None
    if count < 0:
        raise ValueError(f"{name} must be 0 or more, got {count}")
    return count


def one_or_each(name: str, given: Any, n_features: int) -> Tensor:
    """One number for all features or a list with one for each, (F,), as a tensor."""
    try:
        limit = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be one number, or a ({n_features},) tensor of numbers, got {given!r}") from None
    if limit.dim() and limit.shape != (n_features,):
        raise ValueError(f"{name} must be one number or have shape ({n_features},), got {tuple(limit.shape)}")
    return limit


def check_capacity(capacity: int | Tensor, affinities: Tensor) -> Int[Tensor, " features"]:
    """How many tokens each feature may take, as (F,) int64 where the affinities are."""
    n_tokens, n_features = affinities.shape
    limit = one_or_each("capacity", min(capacity, n_tokens) if type(capacity) is int else capacity, n_features)
    check_tensor("capacity", limit, "whole numbers", WHOLE, "long()")
    if (limit < 0).any():
        of = f" for feature {int((limit < 0).nonzero()[0])}" if limit.dim() else ""
        raise ValueError(f"capacity must be 0 or more, got {int(limit.min())}{of}")
    return limit.to(affinities.device, torch.int64).expand(n_features).contiguous()


def check_threshold(threshold: float | Tensor, affinities: Tensor) -> Tensor:
    """One number or (F,), in the affinities' precision."""
    limit = one_or_each("threshold", threshold, affinities.shape[1])
    check_tensor("threshold", limit, "real numbers", (*FLOATING, *WHOLE), "real")
    if limit.isnan().any():
        of = f" for feature {int(limit.isnan().nonzero()[0])}" if limit.dim() else ""
        raise ValueError(f"threshold is NaN{of}")
    return limit.to(affinities)
