"""Run a language model with the activations at one hook replaced, and read off what it predicts then.

Letters of shapes: B rows, S context, N kept positions of these rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.activations.kept_text import KeptText
from sae_tutorial.activations.shards import Moments


@dataclass(frozen=True)
class Rows:
    """Some rows of a text, on the model's device: their tokens, and which positions are kept (neither BOS nor padding),
    have a next token that is text, and are to be replaced. Padding never is; BOS may be."""

    tokens: Int[Tensor, "rows context"]
    kept: Bool[Tensor, "rows context"]
    has_next: Bool[Tensor, "rows context"]
    replaced: Bool[Tensor, "rows context"]

    @staticmethod
    def of(text: KeptText, a: int, b: int, device: Any, replace_bos: bool = False) -> Rows:
        b = min(b, len(text.tokens))
        column, stop_B1 = torch.arange(text.context), text.stop[a:b, None]
        kept = text.mask(a, b)
        masks = (kept, kept & (column + 1 < stop_B1), (column < stop_B1) if replace_bos else kept)
        return Rows(text.tokens[a:b].to(device), *(mask.to(device) for mask in masks))

    def __len__(self) -> int:
        """Kept positions."""
        return int(self.kept.sum())


def log_probs(model: Any, rows: Rows, hooks: Sequence[tuple[str, Callable]] = ()) -> Float[Tensor, "kept vocabulary"]:
    """Log probabilities of the next token at every kept position, in float32, with these hooks in place."""
    with model.hooks(fwd_hooks=list(hooks)):
        logits_BSV = model(rows.tokens, return_type="logits", use_cache=False)
    return logits_BSV[rows.kept].float().log_softmax(-1)


def cross_entropies(log_probs_NV: Float[Tensor, "kept vocabulary"], rows: Rows) -> Float[Tensor, " predictions"]:
    """−log p of the token that comes next, for the kept positions that have a next token."""
    following_BS = rows.tokens.roll(-1, dims=1)
    loss_N = -log_probs_NV.gather(1, following_BS[rows.kept][:, None]).squeeze(1)
    return loss_N[rows.has_next[rows.kept]]


def replacing(
    where: Bool[Tensor, "rows context"], new: Float[Tensor, "replaced d"] | Float[Tensor, " d"]
) -> Callable[[Tensor, Any], Tensor]:
    """A hook that puts `new` (one vector per position, or one for all) where the mask is set. Heads are one vector."""

    def hook(acts: Tensor, hook: Any) -> Tensor:
        changed = acts.flatten(2).clone()
        changed[where] = new.to(changed).expand(int(where.sum()), -1)
        return changed.view(acts.shape)

    return hook


def fused_agrees(model: Any, rows: Rows) -> bool:
    """Whether the fused forward pass predicts what the model's own does, at the kept positions of these rows."""
    results = []
    for fused in (False, True):
        with read_hooks(model, (), fused=fused):  # eval mode, without gradients
            results.append(log_probs(model, rows))
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 5e-2
    plain, quick = results
    return bool(((plain - quick).abs() <= tolerance).all())


def moments_of_hook(
    model: Any, text: KeptText, hook_name: str, batch_size: int, fused: bool, on_rows: Callable[[Rows], Any]
) -> Moments:
    """Mean and spread of a hook over all kept positions; the forward pass ends there."""
    parts = []
    with read_hook(model, hook_name, fused=fused) as read:
        for a in range(0, len(text.tokens), batch_size):
            rows = Rows.of(text, a, a + batch_size, model.cfg.device)
            if rows.kept.any():
                parts.append(Moments.of(read(rows.tokens).flatten(2)[rows.kept]))
                on_rows(rows)
    return Moments.merged(parts)


def check_width(model: Any, text: KeptText, hook_name: str, width: int, name: str) -> None:
    """ValueError if the hook does not exist, or does not give `width` numbers per token, heads concatenated."""
    with read_hook(model, hook_name, fused=False) as read:
        acts = read(text.tokens[:1])
    of_pairs = hook_name.endswith(("hook_pattern", "hook_attn_scores"))
    if of_pairs or acts.dim() not in (3, 4) or acts.shape[1] != text.context or acts[0, 0].numel() != width:
        raise ValueError(
            f"{hook_name!r} gives activations of shape {tuple(acts.shape)} for one row of {text.context} tokens, but "
            f"this SAE has {name}={width} numbers per token; evaluate it at the hook that it was trained on"
        )
