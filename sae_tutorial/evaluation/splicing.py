"""Run a language model with the activations at a hook, or several, replaced, and read off what it predicts then.

Letters of shapes: B rows, S context, N kept positions of these rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.activations.kept_text import KeptText
from sae_tutorial.activations.massive import sampled_rows, warn_of_massive
from sae_tutorial.activations.shards import Moments
from sae_tutorial.autoencoder.sae import SparseAutoencoder


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


def stand_ins(
    saes: Sequence[SparseAutoencoder], where: Bool[Tensor, "rows context"] | None = None
) -> list[tuple[str, Callable[[Tensor, Any], Tensor | None]]]:
    """Forward hooks with which a model computes with these SAEs and transcoders instead of what they were trained on:
    each reads what the ones before it have made. `where` is for tokens of this shape; None replaces at every position.

        with model.hooks(fwd_hooks=stand_ins(transcoders, tokens != bos)):

    Raises ValueError for SAEs that do not know their hooks, and for two that replace the same one.
    """
    hooks: list[tuple[str, Callable]] = []
    for sae in saes:
        in_hook, out_hook = read_and_replaced(sae)
        read: list[Tensor] = []

        def keep(acts: Tensor, hook: Any, read: list[Tensor] = read) -> None:
            read.append(acts)

        def put(acts: Tensor, hook: Any, sae: SparseAutoencoder = sae, read: list[Tensor] = read) -> Tensor:
            everywhere = torch.ones(acts.shape[:2], dtype=torch.bool, device=acts.device)
            mask = everywhere if where is None else where.to(acts.device)
            x_ND = read.pop().flatten(2)[mask]
            return replacing(mask, sae(x_ND))(acts, hook)

        hooks += [(in_hook, keep), (out_hook, put)]
    out_hooks = [read_and_replaced(sae)[1] for sae in saes]
    for name in out_hooks:
        if out_hooks.count(name) > 1:
            raise ValueError(f"saes: {out_hooks.count(name)} of them replace {name!r}; give one for each hook")
    return hooks


def read_and_replaced(sae: SparseAutoencoder) -> tuple[str, str]:
    """The hook that an SAE reads, and the one that it replaces: the same, but for transcoders. ValueError if it does
    not know them."""
    out_hook = sae.target_hook_name if sae.config.is_transcoder else sae.hook_name
    for name, value in (("hook_name", sae.hook_name), ("target_hook_name", out_hook)):
        if value is None:
            raise ValueError(f"sae.{name} is None, so it is not known where this SAE belongs; set sae.{name}=…")
    return str(sae.hook_name), str(out_hook)


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
) -> tuple[list[Moments], Float[Tensor, "massive 3"]]:
    """One pass that ends at these hooks: mean and spread of each over all kept positions but those whose norm, at any
    of them, is above `max_norm` times the median norm there; and row, column and norm, in medians, of those."""
    parts: list[list[Moments]] = [[] for _ in hook_names]
    found = [torch.empty(0, 3).double()]
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
                for known, x in zip(parts, acts):
                    known.append(Moments.of(x[~massive]))
            on_tokens(len(ratios))
    return [Moments.merged(known) for known in parts], torch.cat(found)


@dataclass(frozen=True)
class Surveyed:
    """A text on which hooks are going to be replaced: what `survey` found there, and its rows in pieces.

    Attributes:
        moments: of each hook, by its name.
        left_out: (n, 3) the massive tokens: row, column, and norm in medians.
        fused: whether the fused forward pass may be taken.
        size: rows that fit into memory at a time.
    """

    text: KeptText
    moments: dict[str, Moments]
    left_out: Float[Tensor, "massive 3"]
    fused: bool
    size: int

    @staticmethod
    def of(
        model: Any,
        text: KeptText,
        hook_names: tuple[str, ...],
        max_norm: float | None,
        size: int,
        on_tokens: Callable[[int], Any] = lambda n: None,
    ) -> Surveyed:
        row = int((text.stop - text.start).argmax())
        fused = fused_agrees(model, Rows.of(text, row, row + 1, model.cfg.device))
        moments, left_out = survey(model, text, hook_names, max_norm, size, fused, on_tokens)
        return Surveyed(text, dict(zip(hook_names, moments)), left_out, fused, size)

    def pieces(self, device: Any, *, replace_bos: bool = False) -> Iterator[tuple[slice, Rows]]:
        """Some rows at a time, and which they are; those without a kept token are passed over."""
        massive = torch.zeros(self.text.tokens.shape, dtype=torch.bool)
        massive[tuple(self.left_out[:, :2].long().T)] = True
        for a in range(0, len(massive), self.size):
            rows = Rows.of(self.text, a, a + self.size, device, massive=massive, replace_bos=replace_bos)
            if rows.kept.any():
                yield slice(a, a + self.size), rows

    def warn(self, max_norm: float | None, stacklevel: int) -> None:
        """One warning, if there are any, of the tokens that an evaluation leaves as they are."""
        if len(self.left_out):
            so = "left as they are: neither replaced, ablated nor counted. left_out of the result tells where they are"
            where = " and ".join(self.moments)
            warn_of_massive(self.left_out, len(self.text), max_norm, where, so, stacklevel=stacklevel + 1)


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
