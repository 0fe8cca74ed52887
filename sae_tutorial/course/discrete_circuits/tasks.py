"""Three tasks with prompts on which a model does them, prompts on which there is nothing to do, and their circuits.

A circuit is what patching finds: the heads whose output, taken from the negative prompt, changes the measure by at
least LEAST of the way to what it is on negative prompts; and pairs of heads between which a path carries as much.
Positive and negative prompts are pairs of equal length, as patching needs them.

Letters of shapes: B prompts, H heads in the order of `all_heads`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.circuits.greater_than import FIRST, LAST, greater_than, year_spans
from sae_tutorial.circuits.heads import Head, key_head
from sae_tutorial.circuits.ioi import counterfactual, ioi_sentences, logit_difference
from sae_tutorial.circuits.patching import (
    Metric,
    activations,
    all_heads,
    attribution,
    foremost_heads,
    head_site,
    patch_each,
    path_patch,
)
from sae_tutorial.circuits.prompts import Prompts, at, end_logits

LEAST = 0.03  # share of the measure; ours
WORDS, AGAIN = 16, 8  # of a row of random words, and how many of them come again


@dataclass(frozen=True)
class Task:
    """Positive and negative prompts, pair by pair, and the measure on the logits at END of either."""

    positive: Prompts
    negative: Prompts
    metric: Metric

    def share(self, model: Any, measured: Float[Tensor, "*things prompts"]) -> Float[Tensor, " *things"]:
        """What is lost of the measure: 0 as on positive prompts, 1 as on negative ones, means over prompts."""
        clean, gone = (self.metric(end_logits(model, run)).mean() for run in (self.positive, self.negative))
        return (measured.mean(-1) - clean) / (gone - clean)


def indirect_objects(model: Any, n: int, seed: int = 0) -> Task:
    """Sentences with an indirect object; the same ones with three different names."""
    sentences = ioi_sentences(model, n, seed)
    other = counterfactual(model, sentences, "abc", seed + 1)
    return Task(sentences, other, lambda logits: logit_difference(logits, sentences))


def later_years(model: Any, n: int, seed: int = 0) -> Task:
    """Spans of years; the same ones beginning in the year 01 of their century, after which every year is later. (The
    negative prompts are those of Hanna et al. 2023.) Raises ValueError for a model that does not write years so."""
    rng = random.Random(seed)
    starts = [rng.randint(FIRST, LAST) for _ in range(n)]
    spans, other = (year_spans(model, n, seed, starts=chosen) for chosen in (starts, [1]))
    return Task(spans, other, lambda logits: greater_than(logits, spans))


def repeats(model: Any, n: int, seed: int = 0) -> Task:
    """Random words of which the first half comes again; the same end after other words. The measure is the logit of the
    word that came next, above the mean of all tokens."""
    generator = torch.Generator().manual_seed(seed)
    decode = model.tokenizer.decode
    known = torch.tensor([i for i in range(model.cfg.d_vocab) if re.fullmatch(r" [a-z]{3,}", decode([i]))])
    words, others = known[torch.randint(len(known), (2, n, WORDS), generator=generator)]
    start = words.new_full((n, 1), model.tokenizer.bos_token_id or 0)
    right_B = words[:, AGAIN].to(model.cfg.device)

    def prompts(first: Tensor) -> Prompts:
        tokens_BP = torch.cat([start, first, words[:, :AGAIN]], dim=1).to(model.cfg.device)
        text = tuple(decode(row[1:].tolist()) for row in tokens_BP)
        end = tokens_BP.new_full((n,), tokens_BP.shape[1] - 1)
        return Prompts(text, tokens_BP, {"END": end}, torch.zeros_like(end))

    return Task(prompts(words), prompts(others), lambda logits: at(logits, right_B) - logits.mean(-1))


TASKS: dict[str, Callable[..., Task]] = {
    "indirect object": indirect_objects,
    "greater-than": later_years,
    "repeated words": repeats,
}


def tasks_of(model: Any) -> dict[str, Callable[..., Task]]:
    """Those of TASKS that can be asked of this model: not all write a year as a century and two digits."""
    able = {}
    for name, make in TASKS.items():
        try:
            make(model, 1)
        except ValueError:
            continue
        able[name] = make
    return able


def patched(model: Any, task: Task, where: str | None = "END", tried: int | None = None) -> Float[Tensor, " heads"]:
    """The share of the measure that is lost when each head's output, at a named position or everywhere, is that on the
    negative prompt. With `tried`, only for so many heads, which attribution chooses; 0 for all others."""
    heads = all_heads(model)
    some = foremost_heads(model, task.positive, task.negative, task.metric, tried or len(heads))
    place = task.positive.positions[where] if where else None
    sites = [head_site("z", head, place) for head in some]
    donor = activations(model, task.negative, {site.hook_name for site in sites})
    lost = task.share(model, patch_each(model, task.positive, sites, donor, task.metric))
    found = torch.zeros(len(heads))
    found[[heads.index(head) for head in some]] = lost.cpu()
    return found


def attributed(model: Any, task: Task, where: str = "END") -> Float[Tensor, " heads"]:
    """An estimate of the size of `patched` from one gradient, in units of the measure."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    found = attribution(model, task.positive, activations(model, task.negative, names), task.metric)
    return torch.cat([at(found[name], task.positive.positions[where]).mean(0).abs() for name in names]).cpu()


def paths(model: Any, task: Task, some: Sequence[Head]) -> Float[Tensor, "heads heads"]:
    """The share of the measure that is lost when a receiver (column) reads, by queries, keys and values, what a sender
    (row) writes on the negative prompt; for all pairs of `some` heads, 0 for all others. See `path_patch`."""
    heads = all_heads(model)
    found = torch.zeros(len(heads), len(heads))
    for reader in some:
        senders = [head for head in some if head[0] < reader[0]]
        if senders:
            shared = key_head(model.cfg, reader)
            sites = [head_site("q", reader), head_site("k", shared), head_site("v", shared)]
            lost = path_patch(model, task.positive, task.negative, senders, sites, task.metric)
            rows = [heads.index(head) for head in senders]
            found[rows, heads.index(reader)] = task.share(model, lost).cpu()
    return found


def members(lost: Float[Tensor, "..."], least: float = LEAST) -> Bool[Tensor, "..."]:
    """Which heads, or pairs, matter; whether the measure falls or rises."""
    return lost.abs() >= least
