"""Interventions: run a model on one prompt while some of its activations come from elsewhere.

Everything is made of three things:

    Site     where: a hook, and there all of it or one head, at all positions or at one per prompt
    donor    what stands there instead, by hook name and in the same shape: the activations of other prompts, their
             mean, or zeros
    metric   what is read off: a function of the logits at END, one number per prompt

`patch_each` patches sites one by one (activation patching, ablation). `path_patch` lets only some receivers read what a
sender writes. `attribution` estimates what `patch_each` would find, for all sites at once, from one gradient;
`foremost_heads` chooses by it. All run whole batches of prompts. Sources: Wang et al. 2022 (path patching,
mean-ablation by template), Nanda 2023 (attribution patching).

Letters of shapes: B prompts, P positions, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hooks
from sae_tutorial.circuits.heads import Head, check_heads
from sae_tutorial.circuits.prompts import LOGITS, Hook, Prompts, at, end_logits

Donor = Mapping[str, Tensor]
Metric = Callable[[Float[Tensor, "prompts vocab"]], Float[Tensor, " prompts"]]


@dataclass(frozen=True)
class Site:
    """Where to intervene.

    Attributes:
        hook_name: activations (B, P, ...), or patterns (B, H, P, P).
        head: one head of hook_q, hook_k, hook_v, hook_z or hook_pattern; None for all of the hook. Keys and values of a
            model that groups them have fewer heads than queries; see `heads.key_head`.
        positions: (B,) one position per prompt (of a pattern: the position that looks), or None for all. They count
            from 0; the last token of each is `prompts.positions["END"]`.
    """

    hook_name: str
    head: int | None = None
    positions: Int[Tensor, " prompts"] | None = None

    def put(self, acts: Tensor, new: Tensor, hook: Any = None) -> Tensor:
        """`acts` with what stands at this site in `new`; `partial(site.put, new=...)` is a hook.

        Raises ValueError for a `new` of another shape, a head or positions that the activations do not have, and a head
        of a hook without heads.
        """
        check_shape("donor", new, acts.shape)
        where: list[Any] = [slice(None)] * acts.dim()
        by_pair = self.hook_name.endswith(("hook_pattern", "hook_attn_scores"))
        position_dim, head_dim = (2, 1) if by_pair else (1, 2)
        if self.head is not None:
            n_heads = acts.shape[head_dim] if acts.dim() == 4 else 0
            if self.head not in range(n_heads):
                there = f"heads 0 to {n_heads - 1}" if n_heads else "no heads; leave head out to patch all of it"
                raise ValueError(f"head={self.head}: {self.hook_name} has {there}.")
            where[head_dim] = int(self.head)
        if self.positions is not None:
            where[0] = torch.arange(len(acts), device=acts.device)
            where[position_dim] = self.placed(torch.full_like(where[0], acts.shape[position_dim] - 1))
        acts = acts.clone()
        acts[tuple(where)] = new[tuple(where)].to(acts)
        return acts

    def placed(self, last: Int[Tensor, " prompts"]) -> Int[Tensor, " prompts"]:
        """`positions`, where `last` is. ValueError if they are not one for each prompt, from 0 to `last`."""
        where = torch.as_tensor(self.positions, device=last.device)
        if where.shape != last.shape or where.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"positions: give one whole number for each of {len(last)} prompts, got {where!r}.")
        for b in ((where < 0) | (where > last)).nonzero().flatten().tolist():
            there = f"prompt {b} has tokens 0 to {int(last[b])} (the last: prompts.positions['END'])"
            raise ValueError(f"positions[{b}]={int(where[b])}: {there}.")
        return where


def head_site(name: str, head: Head, positions: Int[Tensor, " prompts"] | None = None) -> Site:
    """`name` ("z", "q", "k", "v", "pattern") of one head."""
    return Site(f"blocks.{head[0]}.attn.hook_{name}", head[1], positions)


def all_heads(model: Any) -> list[Head]:
    return [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]


def activations(model: Any, prompts: Prompts, hook_names: Iterable[str]) -> dict[str, Tensor]:
    """What the model computes at these hooks, without gradients: a donor. ValueError for a hook that does not exist."""
    with read_hooks(model, hook_names, fused=False) as read:
        return read(prompts.tokens)


def _remember(found: dict[str, Tensor], name: str, acts: Tensor, hook: Any) -> None:
    found[name] = acts  # `hook.name` would be another name for the same hook


def check_shape(name: str, new: Tensor, shape: Sequence[int]) -> None:
    """ValueError where one batch of prompts would be stretched over another."""
    if tuple(new.shape) != tuple(shape):
        fix = "give as many prompts and positions; one mean for all is expanded to them: mean.expand(...)"
        raise ValueError(f"{name} has shape {tuple(new.shape)}, not {tuple(shape)}: {fix}.")


def _given(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if len(values) == 0:
        raise ValueError(f"{name} is empty; give at least one.")
    return values


def _of(donor: Donor, hook_name: str) -> Tensor:
    if hook_name not in donor:
        raise ValueError(f"donor has no {hook_name!r}; it has {', '.join(donor) or 'nothing'}.")
    return donor[hook_name]


def patch_hooks(sites: Iterable[Site], donor: Donor) -> list[Hook]:
    """Forward hooks that put the donor's activations at these sites. ValueError names one that the donor lacks."""
    return [(site.hook_name, partial(site.put, new=_of(donor, site.hook_name))) for site in sites]


def patched_logits(model: Any, prompts: Prompts, sites: Iterable[Site], donor: Donor) -> Float[Tensor, "prompts vocab"]:
    """Logits at END when all `sites` at once hold the donor's activations.

    Raises ValueError for what `Site.put` refuses, a site that the donor lacks, and positions in the padding after END.
    """
    sites = list(sites)
    for site in sites:
        if site.positions is not None:
            site.placed(prompts.positions["END"])
    return end_logits(model, prompts, patch_hooks(sites, donor))


def patch_each(
    model: Any, prompts: Prompts, sites: Sequence[Site], donor: Donor, metric: Metric, progress: str | None = None
) -> Float[Tensor, "sites prompts"]:
    """`metric` with each of `sites` patched by itself. `progress`: the label of a progress bar.

    Raises ValueError if there are no sites, and for what `patched_logits` refuses.
    """
    bar = tqdm(_given("sites", sites), desc=progress, leave=False, disable=progress is None)
    return torch.stack([metric(patched_logits(model, prompts, [site], donor)) for site in bar])


def path_patch(
    model: Any,
    prompts: Prompts,
    other: Prompts,
    senders: Sequence[Head],
    receivers: Sequence[Site],
    metric: Metric,
    freeze_mlps: bool = False,
    progress: str | None = None,
) -> Float[Tensor, "senders prompts"]:
    """`metric` when each sender in turn writes what it writes on `other`, and only the receivers read that.

    In three passes (Wang et al. 2022): both batches of prompts are run and remembered; then `prompts` again with
    every head held at its output there, except the sender, which has its output on `other`, to see what receivers would
    get; then `prompts` once more with that given to them, and everything after them free. MLPs are no senders: what
    reaches a receiver through them counts, unless `freeze_mlps`. A sender after all receivers changes nothing.

    Args:
        receivers: for the direct effect on the answer, `Site` of the last `hook_resid_post`; else hook_q, hook_k or
            hook_v of some heads.

    Raises ValueError if there are no senders or no receivers, if no receiver comes after any sender, for a head that
    the model does not have, and for what `patched_logits` refuses.
    """
    check_heads(model.cfg, _given("senders", senders))
    names = {site.hook_name for site in _given("receivers", receivers)}
    heads_out = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    mlps_out = [f"blocks.{layer}.hook_mlp_out" for layer in range(model.cfg.n_layers)] if freeze_mlps else []
    own = activations(model, prompts, heads_out + mlps_out)
    others = activations(model, other, heads_out)
    effects, is_read = [], False
    for sender in tqdm(senders, desc=progress, leave=False, disable=progress is None):
        site = head_site("z", sender)
        held = own | {site.hook_name: site.put(own[site.hook_name], others[site.hook_name])}
        freeze = patch_hooks([Site(name) for name in heads_out + mlps_out], held)
        found: dict[str, Tensor] = {}  # in the order of the forward pass
        keep: list[Hook] = [(name, partial(_remember, found, name)) for name in {site.hook_name} | names]
        end_logits(model, prompts, freeze + keep)
        is_read |= list(found)[-1] != site.hook_name or site.hook_name in names
        effects.append(metric(patched_logits(model, prompts, receivers, found)))
    if not is_read:
        raise ValueError(f"receivers: none of {', '.join(sorted(names))} comes after a sender, so nothing is read.")
    return torch.stack(effects)


def attribution(
    model: Any, prompts: Prompts, donor: Donor, metric: Metric
) -> dict[str, Float[Tensor, "prompts positions *more"]]:
    """What patching would change, to first order: (donor − own) · ∂metric/∂activation, summed over the last dimension.

    One forward and one backward pass for every hook of `donor`, position and head: (B, P) for the residual stream and
    what is added to it, (B, P, H) for heads' q, k, v and z. A linear estimate: where the metric bends (saturated
    attention, a LayerNorm whose scale moves) it is off, so hold it against `patch_each`. Source: Nanda 2023.

    Raises ValueError for an empty donor, one of another shape, and hooks that do not exist, do not fire, or hold ids.
    """
    own: dict[str, Tensor] = {}

    def watch(name: str, acts: Tensor, hook: Any) -> Tensor:
        check_shape(f"donor[{name!r}]", donor[name], acts.shape)
        if not acts.is_floating_point():
            raise ValueError(f"donor[{name!r}]: token ids have no gradient; take a later hook.")
        own[name] = acts if acts.requires_grad else acts.detach().requires_grad_()
        return own[name]

    for name in _given("donor", list(donor)):
        check_hook_name(model, name)
    hooks: list[Hook] = [(name, partial(watch, name)) for name in donor]
    with model.hooks(fwd_hooks=hooks), read_hooks(model, [LOGITS], fused=False, with_gradients=True) as read:
        logits = at(read(prompts.tokens)[LOGITS], prompts.positions["END"])
        total = metric(model.adapter.apply_output_logits_transform(logits)).sum()
        silent = donor.keys() - own.keys()
        if silent:
            raise ValueError(f"donor: {', '.join(sorted(silent))} does not fire in this model.")
        gradients = torch.autograd.grad(total, [own[name] for name in donor], materialize_grads=True)
    return {name: ((donor[name] - own[name]) * slope).sum(-1).detach() for name, slope in zip(donor, gradients)}


def foremost_heads(model: Any, prompts: Prompts, other: Prompts, metric: Metric, n: int) -> list[Head]:
    """The `n` heads whose outputs on `other` would change the mean metric most, by `attribution`, in the model's order.

    All heads if there are no more. For models that have too many to patch them one by one.

    Raises ValueError for an `n` below 1, and for what `attribution` refuses.
    """
    n, heads = as_whole("n", n, least=1), all_heads(model)
    if n >= len(heads):
        return heads
    outputs = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    found = attribution(model, prompts, activations(model, other, outputs), metric)
    size_LH = torch.stack([found[name].sum(1).mean(0).abs() for name in outputs])
    return [heads[i] for i in sorted(size_LH.flatten().topk(n).indices.tolist())]


def keep_only(model: Any, circuit: Mapping[Head, Sequence[Int[Tensor, " prompts"]] | None], means: Donor) -> list[Hook]:
    """Hooks that put every head at its mean, but for those of `circuit`, which keep their own output.

    Args:
        circuit: for each head the positions, (B,) each, where it stays itself; None for all positions.
        means: `blocks.*.attn.hook_z` of every layer; see `ioi.TemplateMeans`.

    Raises ValueError for a head that the model does not have, and a layer that the means lack.
    """
    check_heads(model.cfg, circuit)
    kept = {head: [None] if places is None else places for head, places in circuit.items()}
    sites = [head_site("z", head, positions) for head, places in kept.items() for positions in places]
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    return [(name, partial(_all_but, [s for s in sites if s.hook_name == name], _of(means, name))) for name in names]


def _all_but(sites: Sequence[Site], means: Tensor, z_BPHd: Tensor, hook: Any) -> Tensor:
    check_shape("means", means, z_BPHd.shape)
    new = means.to(z_BPHd)
    for site in sites:
        new = site.put(new, z_BPHd)
    return new.clone()
