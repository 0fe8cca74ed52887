"""Many features at once: drawn, explained, scored; and how much text each of them needs.

Letters of shapes: D dimensions, F features, N positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.evaluation.explanations import (
    Explanation,
    Judge,
    Material,
    Scores,
    Statistics,
    StatisticsJudge,
    correlation,
    detection,
    explain_by_statistics,
    fuzzing,
    materials,
    scores,
)
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, feature_evidence
from sae_tutorial.evaluation.feature_pages import Passage, Words
from sae_tutorial.evaluation.intervals import Interval

ENOUGH = 20  # matches that a feature must have to be drawn
N_TOP, N_SAMPLED = 20, 40  # that are kept of each feature
N_NAMED = 10  # strongest passages that a reader would name a feature by


def evidence_of(sae: Any, model: Any, tokens: Int[Tensor, "rows positions"]) -> FeatureEvidence:
    return feature_evidence(sae, model, tokens, n_top=N_TOP, n_sampled=N_SAMPLED, keep_codes=True, progress=False)


def drawn(evidence: FeatureEvidence, n: int, seed: int = 0) -> list[int]:
    """n features, drawn from those with ENOUGH matches; fewer if there are fewer."""
    enough = (evidence.counts >= ENOUGH).nonzero()[:, 0]
    return enough[torch.randperm(len(enough), generator=torch.Generator().manual_seed(seed))[:n]].tolist()


def material_of_drawn(
    sae: Any, model: Any, tokens: Int[Tensor, "rows positions"], n: int, n_random: int = 20, seed: int = 0
) -> list[Material]:
    """The material of n features that are drawn."""
    evidence = evidence_of(sae, model, tokens)
    return materials(evidence, sae, model, drawn(evidence, n, seed), n_random=n_random, seed=seed)


@dataclass(frozen=True)
class Explained:
    """Features of one dictionary with their explanations by statistics, and the scores of these."""

    features: list[int]
    explanations: list[Statistics]
    scores: list[Scores]

    def mean(self, score: str) -> Interval:
        """The mean over features, with a 95% interval over them; features without that score are left out."""
        values = np.array([getattr(one, score) for one in self.scores])
        return Interval.of(values[~np.isnan(values)])

    def kinds(self) -> dict[str, int]:
        """How many features each kind of explanation was chosen for, the most frequent first."""
        names = [one.kind for one in self.explanations]
        return dict(sorted(((name, names.count(name)) for name in set(names)), key=lambda pair: -pair[1]))


def explained(found: Sequence[Material], words: Words) -> Explained:
    """Each feature by statistics, judged by the same statistics."""
    explanations = [explain_by_statistics(material, words) for material in found]
    judge = StatisticsJudge()
    both = zip(explanations, found, strict=True)
    return Explained([m.feature for m in found], explanations, [scores(e, m, judge) for e, m in both])


def explained_directions(
    directions: Any, model: Any, tokens: Int[Tensor, "rows positions"], words: Words, n: int, n_random: int = 20
) -> Explained:
    """n drawn features of any dictionary, read on a text and explained."""
    return explained(material_of_drawn(directions, model, tokens, n, n_random), words)


def scores_of_others(found: Explained, of: Sequence[Material]) -> Explained:
    """A control: each feature's material, judged by the explanation of the next feature."""
    next_ones = found.explanations[1:] + found.explanations[:1]
    judge = StatisticsJudge()
    both = zip(next_ones, of, strict=True)
    return Explained(found.features, next_ones, [scores(e, m, judge) for e, m in both])


def activations_at(model: Any, hook_name: str, tokens: Int[Tensor, "rows positions"]) -> Float[Tensor, "n d"]:
    """Activations at a hook at all positions of the text but the first of each row."""
    with read_hook(model, hook_name) as read:
        return torch.cat([read(rows)[:, 1:].flatten(0, 1) for rows in tokens.split(32)])


def score_on_shown(explanation: Statistics, material: Material, n: int = 10) -> float:
    """The simulation score on the passages that the explainer has seen: n strongest and as many random ones."""
    active = sorted((p for p in material.shown if p.peak > 0), key=lambda p: -p.peak)[:n]
    silent = [p for p in material.shown if p.peak <= 0][:n]
    return correlation(explanation, active + silent, StatisticsJudge())


# ---------------------------------------------------------------------- strong and weak matches


def same_word_by_strength(found: Sequence[Material], n_groups: int = 5) -> Float[np.ndarray, "features groups"]:
    """Of each feature's sampled matches in odd rows, from the strongest part to the weakest: the share at a token at
    which its strongest passages of even rows are. NaN where a feature has too few matches for that many parts."""
    rows = []
    for material in found:
        top = {int(p.tokens[p.at]) for p in sorted(material.shown, key=lambda p: -p.peak)[:N_NAMED]}
        at = sorted(material.active, key=lambda p: -p.peak)
        same = np.array([float(int(p.tokens[p.at]) in top) for p in at])
        parts = np.array_split(same, n_groups)
        rows.append([part.mean() if len(part) else np.nan for part in parts])
    return np.array(rows)


# ---------------------------------------------------------------------- how much text a feature needs


def kept_by_last(
    sae: Any,
    model: Any,
    evidence: FeatureEvidence,
    places: Mapping[int, Sequence[int]],
    lengths: Sequence[int] = (1, 2, 3, 4, 8, 16),
    seed: int = 0,
) -> Float[np.ndarray, "features lengths"]:
    """What is left of each feature's activation at its places when only the last few tokens up to there stay, and all
    that was before them is another row of the text, at the same positions: as a share of the activation in its own
    text, 1 at most. A mean over the places that have as many tokens before them; NaN where a feature has none."""
    context = evidence.tokens.shape[1]
    deep = [(f, place) for f, its in places.items() for place in its if place % context >= max(lengths)]
    if not deep:
        return np.full((len(places), len(lengths)), np.nan)
    feature, place = torch.tensor(deep).T
    own = evidence.tokens[place // context]
    others = torch.randint(1, len(evidence.tokens), (len(deep),), generator=torch.Generator().manual_seed(seed))
    other = evidence.tokens[(place // context + others) % len(evidence.tokens)]
    column, whole = place % context, _at(sae, model, evidence, own, place % context, feature)
    back = column[:, None] - torch.arange(context)  # how far before the place each position is
    kept = [
        _at(sae, model, evidence, torch.where((back >= 0) & (back < n), own, other), column, feature) for n in lengths
    ]
    left = (torch.stack(kept, dim=1) / whole[:, None].clamp(min=1e-9)).clamp(max=1).numpy()
    owner = feature.numpy()
    return np.stack([left[owner == f].mean(0) if (owner == f).any() else np.full(len(lengths), np.nan) for f in places])


@torch.no_grad()
def _at(
    sae: Any, model: Any, evidence: FeatureEvidence, tokens: Int[Tensor, "n positions"], column: Tensor, feature: Tensor
) -> Float[Tensor, " n"]:
    """In each row of tokens the activation of one feature at one position."""
    with read_hook(model, evidence.hook_name) as read:
        parts = tokens.split(64)
        acts = torch.cat([read(some)[torch.arange(len(some)), at] for some, at in zip(parts, column.split(64))])
    codes = sae.encode(acts.to(sae.W_dec.device)).to("cpu")
    mine = codes.features == feature[codes.tokens]
    return torch.zeros(len(tokens)).index_put((codes.tokens[mine],), codes.values[mine].float())


# ---------------------------------------------------------------------- other judges


def judged(
    explanation: Explanation, material: Material, judge: Judge, n_simulated: int | None = None
) -> dict[str, float]:
    """`scores` as plain numbers, with the simulation on fewer passages where a judge takes its time."""
    few = slice(n_simulated)
    passages: list[Passage] = [*material.strongest[few], *material.random[few]]
    return {
        "simulation": correlation(explanation, passages, judge),
        "detection": detection(explanation, material, judge),
        "fuzzing": fuzzing(explanation, material, judge),
    }


def correlations(found: Explained, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """How each pair of scores agrees over features."""
    table = np.array([[getattr(one, name) for name in names] for one in found.scores])
    pairs = {}
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            both = table[~np.isnan(table[:, [i, j]]).any(1)][:, [i, j]]
            pairs[second, first] = float(np.corrcoef(both.T)[0, 1])
    return pairs
