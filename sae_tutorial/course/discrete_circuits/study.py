"""Scores of heads by codes of their outputs, and by what needs no codes; a toy in which the circuit is known.

Letters of shapes: E examples, positives first, H heads, d width of a head, M width of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.discrete import (
    STEPS,
    codes_of,
    expected_scores,
    fit,
    head_outputs,
    node_scores,
    pair_scores,
    pairs,
    untrained,
)
from sae_tutorial.circuits.edges import roc
from sae_tutorial.circuits.patching import all_heads
from sae_tutorial.course.discrete_circuits.tasks import Task, attributed, members
from sae_tutorial.evaluation.intervals import Interval

SAE, CHANCE, BEYOND, FRESH = "discrete SAE", "labels unused", "beyond chance", "on other prompts"
LAYER = "layer number"
RANDOM, KMEANS, PROBE, MEAN, GRADIENT = "random SAE", "k-means", "probe", "mean difference", "attribution"
SPREAD = "spread"
SHUFFLED, SWAPPED = "labels shuffled", "swapped within pairs"
MEAN_SHUFFLED, MEAN_SWAPPED = f"{MEAN}, shuffled", f"{MEAN}, swapped"
CLUSTERS = 200  # as many as the SAE has latents
SHUFFLES = 20  # labels at random, for each trial
GRID = [i / 20 for i in range(21)]  # shares of wrong heads, at which curves are kept


def read(model: Any, task: Task, where: str | None = "END") -> tuple[Tensor, Bool[Tensor, " examples"]]:
    """The heads' outputs (E, H, d) on positive and then on negative prompts, and which are positive."""
    both = [head_outputs(model, run, where).cpu() for run in (task.positive, task.negative)]
    return torch.cat(both), torch.arange(len(both[0]) + len(both[1])) < len(both[0])


@dataclass(frozen=True)
class Read:
    """What heads put out on a task's prompts, positives first, and an SAE of it, before and after training.

    Attributes:
        at_random: codes of the SAE before it was trained.
    """

    outputs: Float[Tensor, "examples heads d"]
    positive: Bool[Tensor, " examples"]
    sae: SparseAutoencoder
    codes: Int[Tensor, "examples heads"]
    at_random: Int[Tensor, "examples heads"]

    @classmethod
    def of(cls, model: Any, task: Task, seed: int = 0, where: str | None = "END", steps: int = STEPS) -> Read:
        outputs, positive = read(model, task, where)
        sae = untrained(outputs, seed=seed)
        at_random = codes_of(sae, outputs)
        return cls(outputs, positive, sae, codes_of(fit(sae, outputs, steps=steps), outputs), at_random)


def head_scores(
    model: Any, task: Task, found: Read, other: Task | None = None, seed: int = 0
) -> dict[str, Float[Tensor, " heads"]]:
    """What each method makes of each head. All but the last see the same outputs; `attribution` sees the model.

    discrete SAE      `node_scores`
    labels unused     `expected_scores`: the mean of that over all labels
    beyond chance     their difference
    on other prompts  `node_scores` of the same SAE on the prompts of `other`
    random SAE, k-means  `node_scores` of other codes: of the SAE before training, and of clusters
    probe             how often an example is nearer to the mean of its kind than to the other; it and its twin left out
    mean difference   |mean on positives − mean on negatives| of what the head writes into the stream
    """
    outputs, positive = found.outputs, found.positive
    scores = {SAE: node_scores(found.codes, positive), CHANCE: expected_scores(found.codes, int(positive.sum()))}
    scores[BEYOND] = scores[SAE] - scores[CHANCE]
    if other is not None:
        more, labels = read(model, other)
        scores[FRESH] = node_scores(codes_of(found.sae, more), labels)
    scores[RANDOM] = node_scores(found.at_random, positive)
    scores[KMEANS] = node_scores(k_means(outputs, seed=seed), positive)
    scores[PROBE], scores[MEAN] = probe(outputs, positive), mean_difference(model, outputs, positive)
    return scores | {GRADIENT: attributed(model, task)}


THEIRS, OF_PAIRS = 4.0, "discrete SAE, heads of pairs"  # 0.02 for the sum over 200 latents is 4 for their mean


def as_in_the_source(
    model: Any, many: Task, n_trained: int = 10, seed: int = 0, l1: float = THEIRS, steps: int = STEPS
) -> dict[str, Float[Tensor, " heads"]]:
    """Scores of heads as the code that goes with the paper makes them: of what each head adds to the stream, averaged
    over positions. The SAE is trained on few examples, drawn from both kinds, and codes are counted on all.

    `OF_PAIRS` is what they call edges: how often a head is in the best pairs. Others are as in `head_scores`. What they
    do not do: inputs are centred and scaled, so the penalty is not of quite the same weight.
    """
    outputs, positive = read(model, many, None)
    added = written(model, outputs)
    chosen = torch.randperm(len(added), generator=torch.Generator().manual_seed(seed))[:n_trained]
    sae = untrained(added[chosen], seed=seed)
    at_random = codes_of(sae, added)
    codes = codes_of(fit(sae, added[chosen], l1=l1, steps=steps), added)
    scores = {SAE: node_scores(codes, positive), OF_PAIRS: in_best_pairs(pair_scores(codes, positive))}
    scores[CHANCE], scores[RANDOM] = expected_scores(codes, int(positive.sum())), node_scores(at_random, positive)
    scores[MEAN], scores[SPREAD] = mean_difference(model, outputs, positive), spread(model, outputs)
    return scores


def in_best_pairs(table: Float[Tensor, "heads heads"]) -> Float[Tensor, " heads"]:
    """How often each head is in the best quarter of all ordered pairs of two heads."""
    H = len(table)
    best = table.masked_fill(torch.eye(H, dtype=torch.bool), -1.0).flatten().topk(H * H // 4).indices
    return torch.cat([best // H, best % H]).bincount(minlength=H).float()


def labels_at_random(n: int, n_positive: int, seed: int = 0) -> list[Bool[Tensor, " examples"]]:
    """SHUFFLES ways to call `n_positive` of n examples positive."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator) < n_positive for _ in range(SHUFFLES)]


def labels_swapped(n: int, seed: int = 0) -> list[Bool[Tensor, " examples"]]:
    """SHUFFLES ways to call one of each twins positive: example i and example n + i are the same prompt, but for what
    makes one of them positive."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(SHUFFLES, n, generator=generator) < 0.5
    return list(torch.cat([drawn, ~drawn], 1))


def area_over(
    score: Callable[[Bool[Tensor, " examples"]], Tensor], drawn: list[Tensor], members: Bool[Tensor, " heads"]
) -> float:
    """The area of `score(labels)`, mean over these labels."""
    areas = [area(score(labels), members) for labels in drawn]
    return sum(areas) / len(areas)


def area(scores: Tensor, members: Bool[Tensor, " things"]) -> float:
    return roc(scores, members).area


def curve(scores: Float[Tensor, " things"], members: Bool[Tensor, " things"]) -> list[float]:
    """The share of right heads found where each share of GRID of the wrong ones is found, on straight lines between."""
    found = roc(scores, members)
    return np.interp(GRID, found.wrong.numpy(), found.right.numpy()).tolist()


def of_pairs(model: Any, table: Float[Tensor, "heads heads"]) -> Float[Tensor, " pairs"]:
    """A table of heads as a list of pairs in which the second head stands in a later layer."""
    layer_H = torch.tensor([layer for layer, _ in all_heads(model)])
    return table[layer_H[:, None] < layer_H]


def edge_scores(codes: Int[Tensor, "examples heads"], positive: Bool[Tensor, " examples"]) -> dict[str, Tensor]:
    """Tables of pairs of heads: `pair_scores`, what labels have no part in, and the difference."""
    own, chance = pair_scores(codes, positive), expected_scores(pairs(codes), int(positive.sum()))
    return {SAE: own, CHANCE: chance, BEYOND: own - chance}


def k_means(
    outputs: Float[Tensor, "examples heads d"], clusters: int = CLUSTERS, steps: int = 15, seed: int = 0
) -> Int[Tensor, "examples heads"]:
    """The number of each output's cluster, all heads clustered together; it begins at outputs drawn at random."""
    x_Nd = outputs.flatten(0, 1)
    first = torch.randperm(len(x_Nd), generator=torch.Generator().manual_seed(seed))[:clusters]
    centres = x_Nd[first]
    for _ in range(steps):
        nearest_N = torch.cdist(x_Nd, centres).argmin(1)
        counts = nearest_N.bincount(minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest_N, x_Nd)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return torch.cdist(x_Nd, centres).argmin(1).view(outputs.shape[:2])


def probe(outputs: Float[Tensor, "examples heads d"], positive: Bool[Tensor, " examples"]) -> Float[Tensor, " heads"]:
    """For each head how often an example is nearer to the mean of its own kind than to the other; ties count half.

    Neither itself nor its twin has a part in the means: example i and example n + i are the same prompt but for what
    makes one positive, so the twin alone would draw an example to the other kind.
    """
    n, hits = len(outputs) // 2, []
    for i in range(len(outputs)):
        others = torch.arange(len(outputs)) % n != i % n
        ours, theirs = (outputs[others & (positive == kind)].mean(0) for kind in (positive[i], ~positive[i]))
        near, far = (outputs[i] - ours).norm(dim=1), (outputs[i] - theirs).norm(dim=1)
        hits.append((near < far).float() + 0.5 * (near == far).float())
    return torch.stack(hits).mean(0)


def mean_difference(
    model: Any, outputs: Float[Tensor, "examples heads d"], positive: Bool[Tensor, " examples"]
) -> Float[Tensor, " heads"]:
    """The length of what a head writes into the stream on positives and not on negatives, on average."""
    difference_Hd = outputs[positive].mean(0) - outputs[~positive].mean(0)
    return written(model, difference_Hd[None])[0].norm(dim=1)


def spread(model: Any, outputs: Float[Tensor, "examples heads d"]) -> Float[Tensor, " heads"]:
    """How much outputs vary: the root mean square length of what a head writes into the stream, about its mean over
    all examples. Labels have no part in it."""
    return written(model, outputs - outputs.mean(0)).square().sum(2).mean(0).sqrt()


def written(model: Any, outputs: Float[Tensor, "examples heads d"]) -> Float[Tensor, "examples heads model"]:
    """What each head writes into the stream: its output times W_O."""
    W_HdM = model.W_O.detach().flatten(0, 1).cpu()
    return torch.einsum("ehd,hdm->ehm", outputs, W_HdM)


def same_kind(
    codes: Int[Tensor, "examples heads"], more: Int[Tensor, "examples heads"], n: int
) -> dict[str, Float[Tensor, " heads"]]:
    """`node_scores` of n prompts against n others of the same kind, "positives" or "negatives". `codes` and `more` are
    those of two sets of n positives and then n negatives."""
    half = torch.arange(2 * n) < n
    return {
        "positives": node_scores(torch.cat([codes[:n], more[:n]]), half),
        "negatives": node_scores(torch.cat([codes[n:], more[n:]]), half),
    }


def span(values: Any) -> tuple[float, float, float]:
    """Mean over trials, and the ends of its interval."""
    found = Interval.of(values)
    return found.mean, found.low, found.high


# ---------------------------------------------------------------------- a toy

HEADS, WIDTH, CIRCUIT = 16, 32, (4, 11)


@dataclass(frozen=True)
class Toy:
    """Outputs (E, H, d) of heads that say one of a few things each, and which examples are positive."""

    outputs: Float[Tensor, "examples heads d"]
    positive: Bool[Tensor, " examples"]
    members: Bool[Tensor, " heads"]


def toy(n: int, seed: int = 0, planted: bool = True, talkative: int = 3) -> Toy:
    """On every example each of HEADS heads says one of 2 · `talkative` things, at random; a thing is a direction of the
    head's own, and there is noise. The heads of CIRCUIT, if `planted`, say half of their things on positives alone, and
    the other half on negatives alone; so all heads say equally much.
    """
    generator = torch.Generator().manual_seed(seed)
    things = torch.randn(HEADS, 2 * talkative, WIDTH, generator=generator)
    said = torch.randint(2 * talkative, (2 * n, HEADS), generator=generator)
    positive = torch.arange(2 * n) < n
    members = torch.tensor([head in CIRCUIT for head in range(HEADS)])
    if planted:
        said[:, members] = said[:, members] % talkative + talkative * positive[:, None].long()
    noise = 0.1 * torch.randn(2 * n, HEADS, WIDTH, generator=generator)
    return Toy(things[torch.arange(HEADS), said] + noise, positive, members)


def quiet_toy(n: int, seed: int = 0) -> Toy:
    """Nothing is planted: the heads of CIRCUIT say one of 20 things at random, all others always the same one."""
    found, generator = toy(n, seed, False, 10), torch.Generator().manual_seed(seed)
    always = found.outputs[:1] + 0.1 * torch.randn(found.outputs.shape, generator=generator)
    return Toy(torch.where(found.members[:, None], found.outputs, always), found.positive, found.members)


def toy_areas(n: int, trials: int, steps: int = STEPS) -> dict[str, list[float]]:
    """The area under the ROC in each trial: of the planted toy, with its labels and with labels at random; and of the
    quiet one, whose labels mean nothing."""
    found: dict[str, list[float]] = {
        "planted, its labels": [],
        "planted, shuffled": [],
        "two talkers, any labels": [],
    }
    for seed in range(trials):
        for one, names in ((toy(n, seed), list(found)[:2]), (quiet_toy(n, seed), [None, list(found)[2]])):
            codes = codes_of(fit(untrained(one.outputs, seed=seed), one.outputs, steps=steps), one.outputs)
            if names[0]:
                found[names[0]].append(area(node_scores(codes, one.positive), one.members))
            null = labels_at_random(2 * n, n, seed)
            found[str(names[1])].append(area_over(partial(node_scores, codes), null, one.members))
    return found


# ---------------------------------------------------------------------- rows of `scripts/discrete_circuits.py`


def areas_of(rows: Any, method: str, task: str, n: int = 10, kind: str = "nodes") -> list[float]:
    """The areas of one method in all trials of the kept rows."""
    chosen = [row for row in rows if row.get("task") == task and row.get("n") == n]
    return [row[kind][method] for row in chosen if method in row[kind]]


def circuit_of(rows: Any, task: str) -> dict[str, Any]:
    """What patching found for a task: "end" and "everywhere", a number for each head, and "paths", a table."""
    return next(row for row in rows if row.get("circuit") == task)


def by_layer(rows: Any, task: str, layers: int = 4) -> float:
    """The area of a list that looks at nothing: the heads of the last layer first, then those before. `layers`: of the
    model of these rows."""
    inside = members(torch.tensor(circuit_of(rows, task)["end"]))
    return area(torch.arange(len(inside)) // (len(inside) // layers), inside)


def mean_curve(rows: Any, method: str, task: str, kind: str, n: int = 10) -> list[float]:
    """The mean ROC over trials, on GRID."""
    curves = [row["curves"][kind][method] for row in rows if row.get("task") == task and row.get("n") == n]
    return torch.tensor(curves).mean(0).tolist()


def table_of(scores: Mapping[str, Tensor], members: Bool[Tensor, " heads"]) -> dict[str, float]:
    return {name: area(values, members) for name, values in scores.items()}
