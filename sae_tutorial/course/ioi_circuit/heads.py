"""The heads of this lesson's circuit, sorted by what they add to two names and by where they look.

Letters of shapes: L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.direct_effects import Writes, attention_between, direct_writes, towards
from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import Sentences, TemplateMeans, logit_difference
from sae_tutorial.circuits.patching import Donor, Site, activations, head_site, patch_hooks, patched_logits, path_patch
from sae_tutorial.circuits.prompts import at, end_logits
from sae_tutorial.course.ioi_circuit.names import absent_names, lift, with_pause
from sae_tutorial.figures.tables import Table

ROLES = {"IO": "IO", "S1": "S1", "S2": "S2", "pause": "comma or full stop before S2"}


@dataclass(frozen=True)
class Seen:
    """What each head does, as means over sentences.

    Attributes:
        right, wrong: (L, H) what it adds to either name, above the names that a sentence does not ask about.
        look: IO, S1, S2, pause (see `with_pause`) -> (L, H) its attention from END.
        back: (L, H) its attention from S2 to S1.
    """

    right: Float[Tensor, "layers heads"]
    wrong: Float[Tensor, "layers heads"]
    look: dict[str, Float[Tensor, "layers heads"]]
    back: Float[Tensor, "layers heads"]


def seen(model: Any, sentences: Sentences, names: Int[Tensor, " names"]) -> Seen:
    """`names`: see `name_ids`."""
    against, out = absent_names(sentences, names), direct_writes(model, sentences).heads
    right, wrong = (towards(out, model, ids, against) for ids in (sentences.io, sentences.wrong))
    look = attention_between(model, with_pause(model, sentences), "END", list(ROLES))
    return Seen(right, wrong, look, attention_between(model, sentences, "S2", ["S1"])["S1"])


def sort_heads(found: Seen) -> dict[str, list[Head]]:
    """Four kinds of heads; where a model has none of a kind, the one that comes nearest.

    The thresholds are ours, chosen after looking at the maps of the embedded model.
    """
    names, least = found.look["IO"] + found.look["S1"], torch.minimum(found.right, found.wrong)
    kinds = {
        "name-carrying": (found.back, found.back > 0.3),
        "suppression heads": (-found.wrong, (found.wrong < -0.05) & (found.look["S2"] > 0.5)),
        "name movers": (least, (least > 0.1) & (names > 0.3)),
        "indirect name movers": (least - names, (least > 0.2) & (names < 0.1)),
    }
    listed = {kind: [(layer, head) for layer, head in mask.nonzero().tolist()] for kind, (_, mask) in kinds.items()}
    width = found.right.shape[1]
    return {kind: listed[kind] or [divmod(int(score.argmax()), width)] for kind, (score, _) in kinds.items()}


def label(head: Head) -> str:
    """Layer and head, such as "2.0"."""
    return f"{head[0]}.{head[1]}"


def listed(heads: Sequence[Head]) -> str:
    """Such as "1.2, 2.0"."""
    return ", ".join(map(label, heads))


def strongest(grid: Float[Tensor, "layers heads"], n: int, negative: bool = False) -> list[Head]:
    """The `n` heads of the largest values of a map, or with `negative` of the smallest, the first one first."""
    order = grid.flatten().argsort(descending=not negative)
    return [divmod(int(i), grid.shape[1]) for i in order[:n]]


def kinds_of(groups: Mapping[str, Sequence[Head]], shape: Sequence[int]) -> tuple[list[str], list[str]]:
    """The label and the kind of each head of a map of this shape, row by row; "others" where it is in none."""
    kind_of = {head: kind for kind, heads in groups.items() for head in heads}
    heads = [(layer, head) for layer in range(shape[0]) for head in range(shape[1])]
    return [label(head) for head in heads], [kind_of.get(head, "others") for head in heads]


def looks_of(found: Seen, heads: Sequence[Head]) -> dict[str, Float[Tensor, " listed"]]:
    """How the attention from END of some heads is divided: what is looked at -> a share for each head."""
    to = {name: torch.stack([found.look[role][head] for head in heads]) for role, name in ROLES.items()}
    return to | {"elsewhere": 1 - torch.stack(list(to.values())).sum(0)}


def with_mlps(
    writes: Writes, model: Any, right: Int[Tensor, " prompts"], against: Tensor
) -> Float[Tensor, "layers heads+1"]:
    """Direct attribution (see `towards`) of every head, and of the layer's MLP in the last column."""
    heads, mlps = (towards(part, model, right, against) for part in (writes.heads, writes.mlps))
    return torch.cat([heads, mlps[:, None]], dim=1)


def on_map(model: Any, values: Float[Tensor, " listed"], listed: Sequence[Head]) -> Float[Tensor, "layers heads"]:
    """Values of some heads at their places among all, 0 elsewhere."""
    grid = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for (layer, head), value in zip(listed, values.tolist(), strict=True):
        grid[layer, head] = value
    return grid


def rewritten(
    model: Any, sentences: Sentences, writer: Sequence[Head], sources: Mapping[str, Sentences]
) -> dict[str, Float[Tensor, "sentences vocab"]]:
    """Logits at END when the heads `writer` do something else at S2.

    Args:
        sources: name -> sentences as long as these, from which the heads' outputs at S2 are taken.
    """
    s1, s2 = sentences.positions["S1"], sentences.positions["S2"]
    sites, looking = ([head_site(part, head, s2) for head in writer] for part in ("z", "pattern"))
    outputs, patterns = ({site.hook_name for site in where} for where in (sites, looking))
    found = {"is as it is": end_logits(model, sentences)}
    for name, source in sources.items():
        donor = activations(model, source, outputs)
        found[f"writes at S2 what it does with {name}"] = patched_logits(model, sentences, sites, donor)
    each, own = torch.arange(len(sentences), device=s2.device), activations(model, sentences, outputs | patterns)
    for name in outputs:
        own[name][each, s2] = own[name][each, s1]
    for name in patterns:
        own[name].zero_()[each, :, s2, s2] = 1
    found["writes at S2 what it wrote at S1"] = patched_logits(model, sentences, sites, own)
    found["looks from S2 at S2 alone"] = patched_logits(model, sentences, looking, own)
    return found


def path_map(
    model: Any,
    prompts: Sentences,
    other: Sentences,
    senders: Sequence[Head],
    receivers: Sequence[Site],
    metric: Callable[[Tensor], Tensor],
    mlps_frozen: bool = False,
) -> Float[Tensor, "layers heads"]:
    """By which share the mean metric changes when each sender's path to the receivers comes from `other`; 0 for heads
    that are no senders. −1 says that nothing is left of it, −2 that it is reversed. See `path_patch`."""
    found = path_patch(model, prompts, other, senders, receivers, metric, mlps_frozen)
    whole = float(metric(end_logits(model, prompts)).mean())
    return on_map(model, found.mean(-1) / whole - 1, senders)


def changes_without(
    model: Any, sentences: Sentences, means: TemplateMeans, gone: Sequence[Head]
) -> tuple[Float[Tensor, " sentences"], Float[Tensor, "layers heads"], Float[Tensor, " layers"]]:
    """Ablate the heads `gone`: the logit difference that is left, and by how much the direct shares in it of every head
    and of every MLP change."""
    hooks = patch_hooks([head_site("z", head) for head in gone], means.of(sentences))
    before, after = direct_writes(model, sentences), direct_writes(model, sentences, hooks)
    by_head, by_mlp = (
        towards(getattr(after, part) - getattr(before, part), model, sentences.io, sentences.wrong)
        for part in ("heads", "mlps")
    )
    return logit_difference(end_logits(model, sentences, hooks), sentences), by_head, by_mlp


def rise_without(
    model: Any, sentences: Sentences, means: TemplateMeans, gone: Sequence[Head]
) -> Float[Tensor, "3 sentences"]:
    """Ablate the heads `gone`: by how much the logit difference rises; by how much it would, if the last LayerNorm went
    on dividing by what it did; and the share by which that scale changes.

    A stream without some heads is shorter, is divided by less, and so all that is left in it counts for more: that is
    the work of no other part.
    """
    hooks = patch_hooks([head_site("z", head) for head in gone], means.of(sentences))
    before, after = direct_writes(model, sentences), direct_writes(model, sentences, hooks)
    names_BM = model.W_U.T[sentences.io] - model.W_U.T[sentences.wrong]
    was_B, is_B = ((run.stream[-1] * names_BM).sum(-1) for run in (before, after))
    change_B = after.scale / before.scale
    return torch.stack([is_B - was_B, is_B * change_B - was_B, change_B - 1])


def name_without(
    model: Any, sentences: Sentences, means: TemplateMeans, gone: Sequence[Head], names: Int[Tensor, " names"]
) -> tuple[float, float]:
    """Ablate the heads `gone`: the largest rise of another head's direct share in the right name, above the absent
    ones, and the lift that is left. A backup head would make the first large."""
    hooks = patch_hooks([head_site("z", head) for head in gone], means.of(sentences))
    before, after = direct_writes(model, sentences), direct_writes(model, sentences, hooks)
    change = towards(after.heads - before.heads, model, sentences.io, absent_names(sentences, names))
    for head in gone:
        change[head] = 0
    return float(change.max()), float(lift(end_logits(model, sentences, hooks), sentences, names).mean())


def looks_with_queries(model: Any, run: Sentences, donor: Donor, head: Head, start: str, end: str) -> float:
    """Mean attention of a head from one role to another on `run`, with its queries from `donor`."""
    caught = {}

    def catch(pattern: Tensor, hook: Any) -> None:
        caught["pattern"] = pattern[:, head[1]]

    put = patch_hooks([head_site("q", head)], donor)
    end_logits(model, run, [*put, (f"blocks.{head[0]}.attn.hook_pattern", catch)])
    rows = torch.arange(len(run.tokens))
    return float(caught["pattern"][rows, run.positions[start], run.positions[end]].mean())


def about_to_say(model: Any, run: Sentences, names: Int[Tensor, " names"], layer: int) -> Float[Tensor, " sentences"]:
    """Is the model about to say the name at S2? The logit lens at END before a layer: the logit of that name above the
    mean of the `names` that the sentence does not contain."""
    stream_BM, ids = direct_writes(model, run).stream[layer], at(run.tokens, run.positions["S2"])
    absent_BN = ~(run.tokens[:, :, None] == names).any(1)
    others_B = (stream_BM @ model.W_U[:, names] * absent_BN).sum(1) / absent_BN.sum(1)
    return (stream_BM * model.W_U[:, ids].T).sum(1) - others_B


def looks_by_lens(
    model: Any, runs: Mapping[str, Sentences], names: Int[Tensor, " names"], head: Head
) -> dict[str, list[str]]:
    """Rows of `look_table` that ask whether a head looks at S2 because the model is about to say that name: where is
    the name above absent ones before the head's layer, and how much attention has S2 there, and elsewhere?"""
    layer, number = head
    rows: dict[str, list[str]] = {}
    for run in runs.values():
        said_B = about_to_say(model, run, names, layer)
        hook = f"blocks.{layer}.attn.hook_pattern"
        each, (end, s2) = torch.arange(len(said_B)), (run.positions[role] for role in ("END", "S2"))
        look_B, above_B = activations(model, run, [hook])[hook][each, number, end, s2], said_B > 0
        for what, value in (
            (f"the name at S2, before layer {layer}, above absent names", f"{said_B.mean():+.2f}"),
            ("share of sentences in which it is above them", f"{above_B.float().mean():.0%}"),
            (f"attention of {label(head)} to S2 in these", f"{look_B[above_B].mean():.0%}"),
            (f"attention of {label(head)} to S2 in all others", f"{look_B[~above_B].mean():.0%}"),
        ):
            rows.setdefault(what, []).append(value)
    return rows


def look_table(
    model: Any,
    runs: Mapping[str, Sentences],
    looks: Sequence[tuple[Head, str, str]],
    said: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Mean attention of a head from one role to another, for each of `looks`, on each run; below, what else is `said`
    of each run."""
    found = []
    for head, start, end in looks:
        shares = [attention_between(model, run, start, [end])[end][head] for run in runs.values()]
        found.append((f"attention of {label(head)} from {start} to {end}", *(f"{share:.0%}" for share in shares)))
    found += [(what, *values) for what, values in (said or {}).items()]
    return Table(["", *runs], found)
