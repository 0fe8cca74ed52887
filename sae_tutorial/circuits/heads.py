"""What attention heads do, measured: where they look, and which part of the residual stream they touch.

The measures come from sequences whose structure is known: random tokens, repeated. A token then has one twin, and a
head that looks back at it, at the token after it, or simply at the previous token gives itself away by a stripe in its
attention pattern. Sources: Elhage et al. 2021 (subspaces, composition), Olsson et al. 2022 (induction heads).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hooks

Head = tuple[int, int]  # layer, head


def check_heads(sizes: Any, heads: Iterable[Head]) -> None:
    """ValueError that names the first head which is none of `sizes.n_layers` layers of `sizes.n_heads` heads."""
    layers, each = range(sizes.n_layers), range(sizes.n_heads)
    for layer, head in heads:
        if layer not in layers or head not in each:
            raise ValueError(f"head {layer}.{head}: layers are 0 to {layers[-1]}, with heads 0 to {each[-1]}.")


def key_head(sizes: Any, head: Head) -> Head:
    """Whose keys and values a head uses: its own, unless heads share them in groups (`sizes.n_key_value_heads`)."""
    shared = sizes.n_heads // (getattr(sizes, "n_key_value_heads", None) or sizes.n_heads)
    return head[0], head[1] // shared


@dataclass(frozen=True)
class HeadScores:
    """Mean attention paid to three places, for each layer and head; every score lies between 0 and 1.

    Attributes:
        induction: from a token to the one *after* its earlier twin, which predicts what comes next.
        previous: from a token to the one just before it.
        duplicate: from a token to its earlier twin.
    """

    induction: Float[Tensor, "layers heads"]
    previous: Float[Tensor, "layers heads"]
    duplicate: Float[Tensor, "layers heads"]


def repeated_tokens(
    n_sequences: int, length: int, vocab_size: int, start: int, seed: int = 0
) -> Int[Tensor, "sequences positions"]:
    """A start token, then `length` random token ids, then the same `length` ids again.

    Raises ValueError for a length below 2, because one token has no order to repeat.
    """
    if length < 2:
        raise ValueError(f"length={length}: repeat at least 2 tokens")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(vocab_size, (n_sequences, length), generator=generator)
    return torch.cat([torch.full((n_sequences, 1), start), half, half], dim=1)


def attention_patterns(
    model: Any, tokens: Int[Tensor, "sequences positions"]
) -> Float[Tensor, "layers sequences heads positions positions"]:
    """Every head's attention pattern: entry [..., i, j] is how much position i takes from position j."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    with read_hooks(model, names, fused=False) as read:
        return torch.stack(list(read(tokens).values()))


def stripe(pattern: Float[Tensor, "*heads positions positions"], offset: int, first: int) -> Float[Tensor, "*heads"]:
    """Mean attention from each position i >= `first` to position i - `offset`: the strength of one diagonal stripe.

    Raises ValueError if the stripe would leave the pattern.
    """
    positions = torch.arange(first, pattern.shape[-1])
    if offset < 0 or first < offset or len(positions) == 0:
        raise ValueError(f"offset={offset}, first={first}: the stripe must lie inside {pattern.shape[-1]} positions")
    return pattern[..., positions, positions - offset].mean(-1)


def head_scores(model: Any, tokens: Int[Tensor, "sequences positions"]) -> HeadScores:
    """Score every head on sequences from `repeated_tokens`.

    With a period of `length`, position i has its twin at i - length, and what followed the twin at i - length + 1.
    """
    length = (tokens.shape[1] - 1) // 2
    pattern = attention_patterns(model, tokens).mean(1)  # (layers, heads, positions, positions)
    second = length + 1  # where the repetition begins
    return HeadScores(
        induction=stripe(pattern, length - 1, second),
        previous=stripe(pattern, 1, second),
        duplicate=stripe(pattern, length, second),
    )
