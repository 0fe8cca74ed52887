"""Is a list of heads a circuit? Faithful, complete, minimal, and the same on fresh sentences (Wang et al. 2022).

Letters of shapes: B sentences, K subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import Sentences, TemplateMeans
from sae_tutorial.circuits.patching import Site, keep_only, patch_hooks
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.ioi_circuit.heads import label
from sae_tutorial.course.ioi_circuit.measures import answers, as_share, scores, span, with_ends
from sae_tutorial.figures.kinds import Span
from sae_tutorial.figures.tables import Table

Alone = Callable[..., Tensor]  # heads that are kept -> (4, B), see `alone`


def logits_alone(
    model: Any, means: TemplateMeans, sentences: Sentences, kept: Iterable[Head], mlps: Iterable[int] = ()
) -> Float[Tensor, "sentences vocab"]:
    """At END, when all heads but those `kept` are at their means, and the MLPs of layers `mlps`, too."""
    at_mean = means.of(sentences)
    pairs = [(int(layer), int(number)) for layer, number in kept]  # a learner may keep heads in an array
    hooks = keep_only(model, dict.fromkeys(pairs), at_mean)
    hooks += patch_hooks([Site(f"blocks.{layer}.hook_mlp_out") for layer in mlps], at_mean)
    return end_logits(model, sentences, hooks)


def alone(
    model: Any,
    names: Int[Tensor, " names"],
    means: TemplateMeans,
    sentences: Sentences,
    kept: Iterable[Head],
    mlps: Iterable[int] = (),
) -> Float[Tensor, "4 sentences"]:
    """`measures.scores` of `logits_alone`."""
    return scores(logits_alone(model, means, sentences, kept, mlps), sentences, names)


def faithful_table(
    found: Mapping[str, Float[Tensor, "4 sentences"]],
    lists: Mapping[str, Sequence[Head]],
    whole: Float[Tensor, "4 sentences"],
) -> Table:
    """For each of `lists`, the first of which has no heads: its length, its shares of difference and lift on the way to
    the `whole` model, how often the difference is above 0, and how often the right name is on top."""
    nothing, rows = next(iter(found.values())), []
    for name, row in found.items():
        shares = [as_share(row[i], whole[i], nothing[i]) for i in (0, 1)]
        rows.append((name, len(lists[name]), *shares, f"{row[2].mean():.0%}", with_ends(row[3], ".0%")))
    return Table(["heads not ablated", "heads", "difference", "lift", "above 0", "right name on top"], rows)


def bars(found: Mapping[str, Float[Tensor, "4 sentences"]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Difference and lift -> each of `found` -> mean and interval."""
    return {name: {what: span(row[i]) for what, row in found.items()} for i, name in enumerate(("difference", "lift"))}


def random_subsets(circuit: Sequence[Head], n: int, seed: int = 0, share: float = 0.4) -> list[list[Head]]:
    """`n` subsets; each head is in each with this probability."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [(torch.rand(len(circuit), generator=generator) < share).tolist() for _ in range(n)]
    return [[head for head, taken in zip(circuit, one, strict=True) if taken] for one in chosen]


def without(alone: Alone, kept: Sequence[Head], subsets: Iterable[Sequence[Head]]) -> Float[Tensor, "subsets 2"]:
    """Mean difference and lift when a subset is ablated out of `kept`, for each subset."""
    return torch.stack([alone([h for h in kept if h not in gone])[:2].mean(1) for gone in subsets])


def worth(
    alone: Alone,
    circuit: Sequence[Head],
    groups: Iterable[Sequence[Head]],
    outside: Iterable[Head] = (),
    beside: bool = False,
) -> dict[str, dict[str, Span]]:
    """What each head adds to the difference and to the lift, "1.2" -> logits, the mean and the ends of its interval
    over sentences; below 0 it harms.

    A head of the circuit is added once to all other heads of it, and once to those of other classes; the larger change
    counts (the minimality of Wang et al. with two subsets of their classes instead of all). A head `outside`, written
    "+ 1.2", is added to the whole circuit. The larger of two noisy changes is too large on average: `beside` takes the
    one beside all other heads, whichever is larger.
    """
    value = lambda kept: alone(kept)[:2]  # noqa: E731
    found, full = {}, value(circuit)
    for group in groups:
        others = [head for head in circuit if head not in group]
        bare = full if beside else value(others)
        for head in group:
            last = full - value([h for h in circuit if h != head])
            first = last if beside else value([h for h in circuit if h in others or h == head]) - bare
            found[label(head)] = torch.where(_size(first) > _size(last), first, last)
    for head in outside:
        found[f"+ {label(head)}"] = value([*circuit, head]) - full
    return {name: {head: span(row[i]) for head, row in found.items()} for i, name in enumerate(("difference", "lift"))}


def _size(change: Float[Tensor, "measures sentences"]) -> Float[Tensor, "measures 1"]:
    return change.mean(1, keepdim=True).abs()


def exchanged(circuit: Sequence[Head], old: Head, new: Head) -> list[Head]:
    """The circuit with one head in place of another. ValueError if `old` is not in it."""
    if old not in circuit:
        raise ValueError(f"old={old} is not in the circuit: {list(circuit)}.")
    return [new if head == old else head for head in circuit]


def again(
    model: Any,
    names: Int[Tensor, " names"],
    means: TemplateMeans,
    sentences: Sentences,
    few: Sequence[Head],
    circuit: Sequence[Head],
    old: Head,
    new: Sequence[Head],
) -> dict[str, str]:
    """The main results on some sentences, each with its interval.

    Args:
        few: heads that are said to have the difference; circuit: all heads.
        old, new: the head of the circuit in whose place others are tried.
    """
    lone = partial(alone, model, names, means, sentences)
    whole, nothing, five, all_ = (
        scores(end_logits(model, sentences), sentences, names),
        lone([]),
        lone(few),
        lone(circuit),
    )
    top = {name: with_ends(row[3], ".0%") for name, row in (("model", whole), ("few", five), ("all", all_))}
    bare = lone(circuit, range(model.cfg.n_layers))
    short, long = f"{len(few)} heads", f"{len(circuit)} heads"
    found = {
        "model: difference": with_ends(whole[0]),
        "model: lift": with_ends(whole[1]),
        "model: right name on top": top["model"],
        f"{short}: share of the difference": as_share(five[0], whole[0], nothing[0]),
        f"{short}: share of the lift": as_share(five[1], whole[1], nothing[1]),
        f"{short}: right name on top": top["few"],
        f"{long}: share of the difference": as_share(all_[0], whole[0], nothing[0]),
        f"{long}: share of the lift": as_share(all_[1], whole[1], nothing[1]),
        f"{long}: right name on top": top["all"],
        f"{long}, all MLPs ablated: right name on top": with_ends(bare[3], ".0%"),
    }
    for head in new:
        gain = lone(exchanged(circuit, old, head))[1] - all_[1]
        found[f"{label(head)} in place of {label(old)}: change of the lift"] = with_ends(gain, "+.2f")
    return found


def answers_again(
    model: Any,
    names: Int[Tensor, " names"],
    means: TemplateMeans,
    runs: Iterable[Sentences],
    lists: Mapping[str, Sequence[Head]],
) -> list[tuple[str, ...]]:
    """What is answered when only the heads of each of `lists` are left (see `answers`), on each of some runs."""
    rows = []
    for name, kept in lists.items():
        found = [answers(logits_alone(model, means, run, kept), run, names) for run in runs]
        rows.append((f"{name}: {', '.join(found[0])}", *(", ".join(map(str, each.values())) for each in found)))
    return rows
