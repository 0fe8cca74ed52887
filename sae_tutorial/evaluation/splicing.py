"""Run a language model with the activations at one hook replaced, and read off what it predicts then.

Letters of shapes: B rows, S context, N kept positions of these rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.activations.kept_text import KeptText
from sae_tutorial.activations.massive import sampled_rows
from sae_tutorial.activations.shards import Moments


@dataclass(frozen=True)
class Rows:
    """Some rows of a text, on the model's device: their tokens, and which positions are kept (neither BOS nor padding
    nor massive), have a next token that is text, and are to be replaced. Of the others only BOS may be."""

    tokens: Int[Tensor, "rows context"]
    kept: Bool[Tensor, "rows context"]
    has_next: Bool[Tensor, "rows context"]
    replaced: Bool[Tensor, "rows context"]

    @staticmethod
    def of(
        text: KeptText,
        a: int,
        b: int,
        device: Any,
        *,
        massive: Bool[Tensor, "n context"] | None = None,
        replace_bos: bool = False,
    ) -> Rows:
        b = min(b, len(text.tokens))
        column, stop_B1 = torch.arange(text.context), text.stop[a:b, None]
        usual = torch.ones(()).bool() if massive is None else ~massive[a:b]
        kept = text.mask(a, b) & usual
        masks = (kept, kept & (column + 1 < stop_B1), (column < stop_B1) & usual if replace_bos else kept)
        return Rows(text.tokens[a:b].to(device), *(mask.to(device) for mask in masks))

    def __len__(self) -> int:
        """Kept positions."""
        return int(self.kept.sum())

    def sums(
        self, values_N: Float[Tensor, " positions"], where: Bool[Tensor, "rows context"] | None = None
    ) -> Float[Tensor, " rows"]:
        """Row by row, the sum of what there is for each position of `where` (all kept ones), in float64."""
        row_N = (self.kept if where is None else where).nonzero()[:, 0].cpu()
        return torch.zeros(len(self.kept)).double().index_add_(0, row_N, values_N.detach().cpu().double())


def log_probs(model: Any, rows: Rows, hooks: Sequence[tuple[str, Callable]] = ()) -> Float[Tensor, "kept vocabulary"]:
    """Log probabilities of the next token at every kept position, in float32, with these hooks in place."""
    with model.hooks(fwd_hooks=list(hooks)):
        logits_BSV = model(rows.tokens, return_type="logits", use_cache=False)
    return logits_BSV[rows.kept].float().log_softmax(-1)


def divergence(
    clean: Float[Tensor, "*any vocabulary"], other: Float[Tensor, "*any vocabulary"]
) -> Float[Tensor, "*any"]:
    """KL(clean ‖ other) in nats, of log probabilities."""
    return (clean.exp() * (clean - other)).sum(-1)


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


def survey(
    model: Any,
    text: KeptText,
    hook_names: tuple[str, ...],
    max_norm: float | None,
    batch_size: int,
    fused: bool,
    on_tokens: Callable[[int], Any],
) -> tuple[Moments, Float[Tensor, "massive 3"]]:
    """One pass that ends at these hooks: mean and spread of the last of them over all kept positions but those whose
    norm, at any of them, is above `max_norm` times the median norm there; and row, column and norm, in medians, of
    those."""
    parts, found = [], [torch.empty(0, 3).double()]
    with read_hooks(model, hook_names, fused=fused) as read:

        def kept(rows: Int[Tensor, " rows"]) -> tuple[Tensor, list[Float[Tensor, "kept d"]]]:
            mask_BS = torch.cat([text.mask(row, row + 1) for row in rows.tolist()])
            acts = read(text.tokens[rows])
            return mask_BS, [acts[name].flatten(2)[mask_BS.to(model.cfg.device)].float() for name in hook_names]

        sample = [kept(rows)[1] for rows in sampled_rows(text).split(batch_size)]
        medians = [torch.cat(acts).norm(dim=1).median() for acts in zip(*sample)]
        for rows in torch.arange(len(text.tokens)).split(batch_size):
            mask_BS, acts = kept(rows)
            if not mask_BS.any():
                continue
            ratios = torch.stack([x.norm(dim=1) / median for x, median in zip(acts, medians)]).amax(0)
            massive = (ratios > (max_norm or math.inf)) & ratios.isfinite()
            row, column = mask_BS.nonzero()[massive.cpu()].T
            found.append(torch.stack([rows[row], column, ratios[massive].cpu()], dim=1).double())
            if not massive.all():
                parts.append(Moments.of(acts[-1][~massive]))
            on_tokens(len(ratios))
    return Moments.merged(parts), torch.cat(found)


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
