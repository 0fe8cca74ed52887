"""Massive activations (Sun et al. 2024): a few tokens with tens or hundreds of times the norm of the others, mostly the
first of a row. They would rule every mean, scale and loss, so harvesting and evaluation leave them out."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_number
from sae_tutorial.activations.kept_text import KeptText

SAMPLE = 512  # positions, at least two rows of them, whose median norm is the unit of `max_norm`


def checked_max_norm(max_norm: Any) -> float | None:
    if max_norm is not None and not (max_norm := float(as_number("max_norm", max_norm))) > 1:
        raise ValueError(f"max_norm must be greater than 1, or None, got {max_norm!r}: it counts median norms")
    return max_norm


def sampled_rows(text: KeptText) -> Int[Tensor, " rows"]:
    """Rows, spread evenly over those that keep a token, whose median norm stands for that of the whole text."""
    kept = (text.stop > text.start).nonzero()[:, 0]
    n = min(len(kept), max(2, -(-SAMPLE // text.context)))
    return kept[torch.linspace(0, len(kept) - 1, n).long()]


def warn_of_massive(
    left_out: Float[Tensor, "massive 3"], n: int, max_norm: float | None, hook_name: str, so: str, stacklevel: int
) -> None:
    """One warning about the tokens (row, column, norm in medians) that were left out of n, and what became of them."""
    warnings.warn(
        f"{len(left_out):,} of {n:,} tokens have activations above max_norm={max_norm} times the median norm at "
        f"{hook_name} (up to {left_out[:, 2].max():.0f} times) and are {so}; max_norm=None keeps them.",
        stacklevel=stacklevel + 1,
    )
