"""What notebook 01 measures: the loss of every token, with heads silenced, and how much spaces overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.heads import Head, check_heads, for_each_head


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


def outside(values: Float[Tensor, " m"], random: Float[Tensor, " n"]) -> tuple[float, float]:
    """The share of `values` below all `random` ones, and the share above all of them."""
    return (values < random.min()).float().mean().item(), (values > random.max()).float().mean().item()


def of_heads(matrices: Float[Tensor, "layers groups rows columns"], heads: int) -> Float[Tensor, "heads rows columns"]:
    """One matrix for each head of the model, layer after layer, also where neighbouring heads share one."""
    return for_each_head(matrices, heads, dim=1).flatten(0, 1)


def count_by_mark(parameters: Mapping[str, Tensor], marks: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many numbers the tensors of each group hold; one belongs to a group if its name has one of its marks."""
    return {
        group: sum(p.numel() for name, p in parameters.items() if any(mark in name for mark in of_group))
        for group, of_group in marks.items()
    }
