"""What attention heads do, measured: where they look, and which part of the residual stream they touch.

The measures come from sequences whose structure is known: random tokens, repeated. A token then has one twin, and a
head that looks back at it, at the token after it, or simply at the previous token gives itself away by a stripe in its
attention pattern. Sources: Elhage et al. 2021 (subspaces, composition), Olsson et al. 2022 (induction heads), Kissane
et al. 2024 (how long a repetition must be).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def for_each_head(of_values: Tensor, n_heads: int, dim: int = 0) -> Tensor:
    """What belongs to values, along `dim`, once for each head: neighbouring heads may share values in groups."""
    return of_values.repeat_interleave(n_heads // of_values.shape[dim], dim=dim)


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


def prefix_induction(
    model: Any, lengths: Sequence[int], n_sequences: int = 64, context: int = 60, seed: int = 0
) -> Float[Tensor, "lengths layers heads"]:
    """How much of a repetition each head needs before it looks at what came next the first time.

    In a row of random tokens a block of `length` tokens comes twice, the second time at the end. The score is the mean
    attention from the last token of the row to the token after the first block. A head that scores with a block of one
    token goes by one twin; one that needs a longer block has looked at what stands before it, too.

    Raises ValueError for a length below 1, and for one so long that `context` tokens have no room for the block, the
    token after it and a distance from its repetition.
    Source: Kissane et al. 2024.
    """
    for length in lengths:
        if not 1 <= length <= (context - 4) // 2:
            raise ValueError(f"lengths holds {length}; with context={context} take 1 to {(context - 4) // 2}")
    scores, each = [], torch.arange(n_sequences)
    for length in lengths:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(model.cfg.d_vocab, (n_sequences, context + length), generator=generator)
        tokens[:, 0] = model.tokenizer.bos_token_id or 0
        first = torch.randint(1, context - 2 * length - 1, (n_sequences,), generator=generator)
        block = first[:, None] + torch.arange(length)
        tokens[:, context:] = tokens.gather(1, block)
        pattern = attention_patterns(model, tokens)[:, each, :, -1, first + length]  # (sequences, layers, heads)
        scores.append(pattern.mean(0))
    return torch.stack(scores)
