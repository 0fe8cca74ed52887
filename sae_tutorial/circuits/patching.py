"""Interventions: run a model on one prompt while some of its activations come from elsewhere.

Everything is made of three things:

    Site     where: a hook, and there all of it or one head, at all positions or at one per prompt
    donor    what stands there instead, by hook name: the activations of other prompts, their mean, or zeros
    metric   what is read off: a function of the logits at END, one number per prompt

`patch_each` patches sites one by one (activation patching, ablation). `path_patch` lets a sender speak to some
receivers only. `attribution` estimates what `patch_each` would find, for all sites at once, from one gradient. All run
whole batches of prompts. Sources: Wang et al. 2022 (path patching, mean-ablation by template), Nanda 2023
(attribution patching).

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

from sae_tutorial.activations.forward import read_hooks
from sae_tutorial.circuits.prompts import Prompts, at, end_logits

Donor = Mapping[str, Tensor]
Hook = tuple[str, Callable[..., Any]]
Metric = Callable[[Float[Tensor, "prompts vocab"]], Float[Tensor, " prompts"]]
Head = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Site:
    """Where to intervene.

    Attributes:
        hook_name: activations (B, P, ...), or patterns (B, H, P, P).
        head: one head of hook_q, hook_k, hook_v, hook_z or hook_pattern; None for all of the hook.
        positions: (B,) one position per prompt (of a pattern: the position that looks), or None for all.
    """

    hook_name: str
    head: int | None = None
    positions: Int[Tensor, " prompts"] | None = None

    def put(self, acts: Tensor, new: Tensor) -> Tensor:
        """`acts` with what stands at this site in `new`."""
        acts = acts.clone()
        where: list[Any] = [slice(None)] * acts.dim()
        position_dim, head_dim = (2, 1) if self.hook_name.endswith("hook_pattern") else (1, 2)
        if self.head is not None:
            where[head_dim] = self.head
        if self.positions is not None:
            where[0] = torch.arange(len(acts), device=acts.device)
            where[position_dim] = self.positions.to(acts.device)
        acts[tuple(where)] = new[tuple(where)].to(acts)
        return acts


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


def mean_by_group(acts: Donor, prompts: Prompts) -> dict[str, Tensor]:
    """Each activation replaced by its mean over the prompts of its template and order of names, position by position.

    With `acts` from the "abc" counterfactual this is the mean-ablation of Wang et al. 2022: a head that is silenced
    this way still says what all prompts of the template have in common.
    """
    groups = prompts.groups
    means = {name: torch.empty_like(acts_BP) for name, acts_BP in acts.items()}
    for group in groups.unique():
        rows = groups == group
        for name, acts_BP in acts.items():
            means[name][rows] = acts_BP[rows].mean(0, keepdim=True)
    return means


def patch_hooks(sites: Iterable[Site], donor: Donor) -> list[Hook]:
    """Forward hooks that put the donor's activations at these sites. ValueError names one that the donor lacks."""
    hooks: list[Hook] = []
    for site in sites:
        if site.hook_name not in donor:
            raise ValueError(f"donor has no {site.hook_name!r}; it has {', '.join(donor) or 'nothing'}.")
        hooks.append((site.hook_name, partial(_put, site, donor[site.hook_name])))
    return hooks


def _put(site: Site, new: Tensor, acts: Tensor, hook: Any) -> Tensor:
    return site.put(acts, new)


def patched_logits(model: Any, prompts: Prompts, sites: Iterable[Site], donor: Donor) -> Float[Tensor, "prompts vocab"]:
    """Logits at END when all `sites` at once hold the donor's activations."""
    return end_logits(model, prompts, patch_hooks(sites, donor))


def patch_each(
    model: Any, prompts: Prompts, sites: Sequence[Site], donor: Donor, metric: Metric, progress: str | None = None
) -> Float[Tensor, "sites prompts"]:
    """`metric` with each of `sites` patched by itself. `progress`: the label of a progress bar."""
    bar = tqdm(sites, desc=progress, leave=False, disable=progress is None)
    return torch.stack([metric(patched_logits(model, prompts, [site], donor)) for site in bar])


def patch_positions(
    model: Any, prompt: Prompts, donor: Donor, hook_names: Sequence[str], metric: Metric
) -> Float[Tensor, "hooks positions"]:
    """`metric` with each position of one prompt patched by itself, at each hook: one pass for all its positions.

    Args:
        prompt: one, and `donor` of one other that is as long.
        metric: of logits that are copies of this one prompt's, (P, V).

    Raises ValueError for more than one prompt: see `patch_each`.
    """
    width = prompt.tokens.shape[1]
    copies = prompt.repeated(width)
    everywhere = torch.arange(width, device=prompt.tokens.device)
    acts = {name: donor[name].expand(width, *donor[name].shape[1:]) for name in hook_names}
    sites = [Site(name, None, everywhere) for name in hook_names]
    return torch.stack([metric(patched_logits(model, copies, [site], acts)) for site in sites])


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
    """`metric` when each sender in turn says what it says on `other`, and only the receivers hear it.

    In three passes (Wang et al. 2022): both batches of prompts are run and remembered; then `prompts` again with
    every head held at what it said there, but for the sender, who says what it said on `other`, to see what the
    receivers would get; then `prompts` once more with that given to the receivers, and everything behind them free.
    MLPs are no senders: what the sender tells a receiver through them counts, unless `freeze_mlps`.

    Args:
        receivers: for the direct effect on the answer, `Site` of the last `hook_resid_post`; else hook_q, hook_k or
            hook_v of some heads.
    """
    heads_out = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    mlps_out = [f"blocks.{layer}.hook_mlp_out" for layer in range(model.cfg.n_layers)] if freeze_mlps else []
    own = activations(model, prompts, heads_out + mlps_out)
    others = activations(model, other, heads_out)
    effects = []
    for sender in tqdm(senders, desc=progress, leave=False, disable=progress is None):
        site = head_site("z", sender)
        held = own | {site.hook_name: site.put(own[site.hook_name], others[site.hook_name])}
        freeze = patch_hooks([Site(name) for name in heads_out + mlps_out], held)
        heard: dict[str, Tensor] = {}
        keep: list[Hook] = [(name, partial(_remember, heard, name)) for name in {site.hook_name for site in receivers}]
        end_logits(model, prompts, freeze + keep)
        effects.append(metric(patched_logits(model, prompts, receivers, heard)))
    return torch.stack(effects)


def attribution(
    model: Any, prompts: Prompts, donor: Donor, metric: Metric
) -> dict[str, Float[Tensor, "prompts positions *more"]]:
    """What patching would change, to first order: (donor − own) · ∂metric/∂activation, summed over the last dimension.

    One forward and one backward pass for every hook of `donor`, position and head: (B, P) for the residual stream and
    what is added to it, (B, P, H) for heads' q, k, v and z. A linear estimate: where the metric bends (saturated
    attention, a LayerNorm whose scale moves) it is off, so hold it against `patch_each`. Source: Nanda 2023.
    """
    own: dict[str, Tensor] = {}

    def watch(name: str, acts: Tensor, hook: Any) -> Tensor:
        own[name] = acts if acts.requires_grad else acts.detach().requires_grad_()
        return own[name]

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, partial(watch, name)) for name in donor]):
        logits_BPV = model(prompts.tokens, return_type="logits", use_cache=False)
        total = metric(at(logits_BPV, prompts.positions["END"])).sum()
        gradients = torch.autograd.grad(total, list(own.values()))
    return {
        name: ((donor[name] - acts) * gradient).sum(-1).detach()
        for (name, acts), gradient in zip(own.items(), gradients)
    }


def keep_only(model: Any, circuit: Mapping[Head, Sequence[Int[Tensor, " prompts"]] | None], means: Donor) -> list[Hook]:
    """Hooks that put every head at its mean, but for those of `circuit`, which keep their own output.

    Args:
        circuit: for each head the positions, (B,) each, where it stays itself; None for all positions.
        means: `blocks.*.attn.hook_z` of every layer; see `mean_by_group`.
    """
    hooks: list[Hook] = []
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.attn.hook_z"
        sites = [
            Site(name, head, positions)
            for (where, head), places in circuit.items()
            if where == layer
            for positions in ([None] if places is None else places)
        ]
        hooks.append((name, partial(_all_but, sites, means[name])))
    return hooks


def _all_but(sites: Sequence[Site], means: Tensor, z_BPHd: Tensor, hook: Any) -> Tensor:
    new = means.to(z_BPHd)
    for site in sites:
        new = site.put(new, z_BPHd)
    return new.clone()
