"""What attention heads do, measured: where they look, and which part of the residual stream they touch.

The measures come from sequences whose structure is known: random tokens, repeated. A token then has one twin, and a
head that looks back at it, at the token after it, or simply at the previous token gives itself away by a stripe in its
attention pattern. Sources: Elhage et al. 2021 (subspaces, composition), Olsson et al. 2022 (induction heads).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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


def next_token_losses(
    logits: Float[Tensor, "sequences positions vocab"], tokens: Int[Tensor, "sequences positions"]
) -> Float[Tensor, "sequences positions-1"]:
    """Loss in nats of every token but the first, given all tokens before it."""
    next_NL = tokens[:, 1:].to(logits.device)
    return -logits[:, :-1].log_softmax(-1).gather(-1, next_NL[..., None])[..., 0]


def losses_without(
    model: Any, tokens: Int[Tensor, "sequences positions"], heads: Sequence[Head]
) -> Float[Tensor, "sequences positions-1"]:
    """`next_token_losses` after silencing `heads`, given as (layer, head): each adds its mean output, not its own.

    The mean is taken over all sequences and positions of `tokens` (mean-ablation). ValueError for a head that the model
    does not have.
    """
    check_heads(model.cfg, heads)

    def to_mean(z_NLHD: Tensor, hook: Any, head: int) -> Tensor:
        z_NLHD = z_NLHD.clone()
        z_NLHD[:, :, head] = z_NLHD[:, :, head].mean((0, 1))
        return z_NLHD

    hooks = [(f"blocks.{layer}.attn.hook_z", partial(to_mean, head=head)) for layer, head in heads]
    with torch.inference_mode():
        return next_token_losses(model.run_with_hooks(tokens.to(model.cfg.device), fwd_hooks=hooks), tokens)


def all_overlaps(a: Float[Tensor, "m d model"], b: Float[Tensor, "n d model"]) -> Float[Tensor, "m n"]:
    """Mean squared cosine of the principal angles between each space that the rows of `a` span and each of `b`.

    1 if they are the same space, 0 if they are orthogonal, d/model on average for two random spaces of dimension d in
    `model` dimensions. Source: Björck & Golub 1973; the sum of the squared cosines is ‖Q_a Q_bᵀ‖² for orthonormal bases
    Q_a, Q_b, each of which is computed once.
    """
    q_a, q_b = (torch.linalg.qr(x.float().mT).Q for x in (a, b))  # (model, d), orthonormal columns
    sums_MN = torch.stack([(q.mT @ q_b).square().sum((-2, -1)) for q in q_a])
    return sums_MN / min(a.shape[-2], b.shape[-2])
