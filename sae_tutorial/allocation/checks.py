"""What the rules accept. `rules` and `fast` ask the same questions, and answer them in the same words."""

from __future__ import annotations

import operator

import torch
from jaxtyping import Float, Int
from torch import Tensor

# torch sorts and indexes wrongly, or not at all, past this many elements on some devices.
MOST_ELEMENTS = 2**31 - 1


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
    if affinities.dim() > 2:
        raise ValueError(
            f"affinities must be (tokens, features), got shape {tuple(affinities.shape)}; "
            f"flatten the positions first: affinities.flatten(0, {affinities.dim() - 2})"
        )
    if affinities.dim() < 2:
        raise ValueError(
            f"affinities must be (tokens, features), got shape {tuple(affinities.shape)}; "
            "for a single token: affinities[None]"
        )
    if not affinities.is_floating_point():
        raise TypeError(f"affinities must be floating point, got {affinities.dtype}; convert them: affinities.float()")


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


def check_capacity(capacity: int | Tensor, affinities: Tensor) -> Int[Tensor, " features"]:
    """How many tokens each feature may take, as (F,) int64 where the affinities are."""
    n_features = affinities.shape[1]
    if not isinstance(capacity, Tensor) or capacity.dim() == 0:
        count = check_count("capacity", capacity)  # type: ignore[arg-type]  # a tensor of one whole number is one, too
        return torch.full((n_features,), min(count, affinities.shape[0]), device=affinities.device)
    if capacity.shape != (n_features,):
        raise ValueError(f"capacity must be one number or have shape ({n_features},), got {tuple(capacity.shape)}")
    if capacity.is_floating_point() or capacity.dtype == torch.bool:
        raise TypeError(f"capacity counts tokens, so it must hold whole numbers, got {capacity.dtype}")
    if (capacity < 0).any():
        feature = int((capacity < 0).nonzero()[0])
        raise ValueError(f"capacity must be 0 or more, got {int(capacity[feature])} for feature {feature}")
    return capacity.to(affinities.device, torch.int64)


def check_threshold(threshold: float | Tensor, affinities: Tensor) -> Tensor:
    """One number or (F,), in the affinities' precision."""
    theta = torch.as_tensor(threshold).detach().to(affinities)
    if theta.dim() and theta.shape != (affinities.shape[1],):
        raise ValueError(
            f"threshold must be one number or have shape ({affinities.shape[1]},), got {tuple(theta.shape)}"
        )
    if theta.isnan().any():
        raise ValueError(
            "threshold is NaN" + (f" for feature {int(theta.isnan().nonzero()[0])}" if theta.dim() else "")
        )
    return theta
