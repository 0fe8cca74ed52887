"""Which kinds of source position features of attention outputs draw on: families by a measured property, not by eye.

Every source position of a match is of exactly one kind (`SOURCES`), so the shares of what they bring add up to 1. Of a
feature's strongest matches, from as many rows of text, the mean share counts.

Letters of shapes: N matches, H heads, S source positions, F features, K matches of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.circuits.attention_features import Attribution, Matches
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence

SOURCES = {  # kinds of source position, in this order: the first that holds is the one
    "start": "the token that begins the row",
    "itself": "the token that reads",
    "induction": "a token after an earlier twin of the token that reads",
    "twin": "an earlier twin",
    "previous": "the token before",
    "near": "2 to 4 tokens before",
    "middle": "5 to 20 tokens before",
    "far": "further away",
}
MIXED = "mixed"


def strongest_matches(evidence: FeatureEvidence, least: int) -> tuple[Int[Tensor, " features"], Matches]:
    """The features that have `least` strongest positions, each in another row, and these matches: the first `least`
    belong to the first feature, and so on. Raises ValueError if none has."""
    place_FK = evidence.strongest.place
    if not 1 <= least <= place_FK.shape[1]:
        raise ValueError(f"least={least}: the evidence keeps 1 to {place_FK.shape[1]} positions of each feature")
    features = (place_FK[:, least - 1] >= 0).nonzero()[:, 0]
    if not len(features):
        raise ValueError(f"least={least}: no feature is active in so many rows; read more text")
    place = place_FK[features, :least].flatten()
    S = evidence.tokens.shape[1]
    return features, Matches(evidence.tokens, place // S, place % S, features.repeat_interleave(least))


def source_kinds(matches: Matches) -> dict[str, Bool[Tensor, "matches sources"]]:
    """For each of SOURCES, which source positions are of this kind. What stands after the reading token is of none."""
    tokens_NS, q_N1 = matches.tokens[matches.rows], matches.positions[:, None]
    s_S = torch.arange(tokens_NS.shape[1], device=tokens_NS.device)
    here_N1 = tokens_NS.gather(1, q_N1)
    before_NS = torch.cat([here_N1.new_full((len(matches), 1), -1), tokens_NS[:, :-1]], dim=1)
    back_NS = q_N1 - s_S
    holds = {
        "start": (s_S == 0).expand_as(tokens_NS),
        "itself": back_NS == 0,
        "induction": (before_NS == here_N1) & (s_S > 1),
        "twin": tokens_NS == here_N1,
        "previous": back_NS == 1,
        "near": back_NS <= 4,
        "middle": back_NS <= 20,
        "far": back_NS > 20,
    }
    left_NS, kinds = back_NS >= 0, {}
    for name in SOURCES:
        kinds[name] = holds[name] & left_NS
        left_NS = left_NS & ~holds[name]
    return kinds


def shares(
    found: Attribution, kinds: Mapping[str, Bool[Tensor, "matches sources"]], each: int
) -> dict[str, Float[Tensor, " features"]]:
    """Of what raises the pre-activation, the share that comes from each kind of source; the mean over the `each`
    matches of a feature. What lowers it is left out, so the shares of a match add up to 1."""
    raises_NS = _raises(found).sum(1)
    return {name: (raises_NS * kind).sum(1).unflatten(0, (-1, each)).mean(1) for name, kind in kinds.items()}


def head_parts(found: Attribution, each: int) -> Float[Tensor, "features heads"]:
    """The same by head."""
    return _raises(found).sum(2).unflatten(0, (-1, each)).mean(1)


def _raises(found: Attribution) -> Float[Tensor, "matches heads sources"]:
    """What raises each pre-activation, as shares: they add up to 1, or to 0 where nothing does."""
    raises_NHS = found.heads.clamp(min=0)
    return raises_NHS / raises_NHS.sum((1, 2), keepdim=True).clamp(min=torch.finfo(raises_NHS.dtype).tiny)


def families(of_kinds: Mapping[str, Float[Tensor, " features"]], least: float = 0.5) -> list[str]:
    """The kind of source that brings at least this share of what raises a feature, else MIXED."""
    names, table_NF = list(of_kinds), torch.stack(list(of_kinds.values()))
    largest = table_NF.max(0)
    return [
        names[i] if share >= least else MIXED for i, share in zip(largest.indices.tolist(), largest.values.tolist())
    ]
