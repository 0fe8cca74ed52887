"""Which kinds of source position features of attention outputs draw on: families by a measured property, not by eye.

Every source position of a match is of exactly one kind (`SOURCES`), so the shares of what they bring add up to 1. Of a
feature's strongest matches, from as many rows of text, the mean share counts.

Letters of shapes: N matches, H heads, S source positions, F features, K matches of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.attention_features import (
    Attribution,
    Matches,
    direct_feature_attribution,
    head_shares,
    writers,
)
from sae_tutorial.circuits.ioi import ROLES, Sentences
from sae_tutorial.circuits.prompts import at
from sae_tutorial.evaluation.explanations import auc
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, feature_evidence

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
EACH = 20  # strongest matches of a feature, each in another row of text


@dataclass(frozen=True)
class DrawnOn:
    """What the features of one dictionary draw on, at EACH strongest matches of those that have so many.

    Attributes:
        features: (F,) their numbers.
        matches: EACH of the first feature, then of the second, …
        found: where their pre-activations come from.
    """

    features: Int[Tensor, " features"]
    matches: Matches
    found: Attribution

    @cached_property
    def kinds(self) -> dict[str, Float[Tensor, " features"]]:
        return shares(self.found, source_kinds(self.matches), EACH)

    @cached_property
    def families(self) -> list[str]:
        return families(self.kinds)

    def of(self, i: int) -> tuple[Matches, Attribution]:
        """The matches of the i-th feature, and where they come from."""
        these = slice(i * EACH, (i + 1) * EACH)
        return self.matches[these], Attribution(self.found.heads[these], self.found.constant[these])

    @property
    def of_families(self) -> dict[str, float]:
        """The share of features that each family has."""
        counts = Counter(self.families)
        return {name: counts[name] / len(self.families) for name in (*SOURCES, MIXED)}


def drawn_on(sae: SparseAutoencoder, model: Any, tokens: Int[Tensor, "rows positions"]) -> DrawnOn:
    """Reads the text once, and its strongest matches once more."""
    evidence = feature_evidence(sae, model, tokens, n_top=EACH, n_sampled=1, progress=False)
    features, matches = strongest_matches(evidence, EACH)
    return DrawnOn(features, matches, direct_feature_attribution(model, sae, matches))


def controls(sae: SparseAutoencoder, n_heads: int, seed: int = 0) -> dict[str, SparseAutoencoder]:
    """Dictionaries that nobody trained, which read the same z with the same k: each coordinate with both signs; as many
    random directions as the SAE has, each within one head; as many over all heads."""
    F, D = sae.W_dec.shape
    generator = torch.Generator().manual_seed(seed)
    random_FD = torch.randn(F, D, generator=generator)
    own_FH = torch.nn.functional.one_hot(torch.arange(F) % n_heads, n_heads)
    within_FD = (random_FD.unflatten(1, (n_heads, -1)) * own_FH[:, :, None]).flatten(1)
    found = {"coordinates": torch.cat([torch.eye(D), -torch.eye(D)])}
    found |= {"random, within a head": within_FD, "random, over all heads": random_FD}
    return {name: _reading(sae, normalize(rows, dim=1)) for name, rows in found.items()}


def principal_components(sae: SparseAutoencoder, z: Float[Tensor, "tokens d"]) -> SparseAutoencoder:
    """Another one that nobody trained: the directions in which this z varies, each with both signs."""
    axes_DD = torch.linalg.svd(z.double() - z.double().mean(0), full_matrices=False).Vh.float()
    return _reading(sae, torch.cat([axes_DD, -axes_DD]))


@torch.no_grad()
def _reading(sae: SparseAutoencoder, rows_FD: Float[Tensor, "features d"]) -> SparseAutoencoder:
    """A Token Choice SAE with these rows, centred and scaled as `sae` is."""
    other = SparseAutoencoder(SAEConfig(sae.config.d_in, len(rows_FD), k=sae.config.k, rule="token_choice"))
    other.W_enc.copy_(rows_FD.T)
    other.W_dec.copy_(rows_FD)
    other.mean.copy_(sae.mean)
    other.scale.copy_(sae.scale)
    other.hook_name = sae.hook_name
    return other


def one_family(
    drawn: DrawnOn, sae: SparseAutoencoder, n_heads: int, n: int = 10, families: Sequence[str] | None = None
) -> list[float]:
    """For each head, of the n features with the largest part of their decoder there, the share that the commonest
    family has. MIXED is none. `families`: of each feature of `drawn`, in the place of its own."""
    families = drawn.families if families is None else families
    parts_FH = head_shares(sae, n_heads)[drawn.features]
    found = []
    for head in range(n_heads):
        top = parts_FH[:, head].topk(min(n, len(parts_FH))).indices.tolist()
        counts = Counter(families[i] for i in top)
        counts.pop(MIXED, None)
        found.append(max(counts.values(), default=0) / len(top))
    return found


def of_writers(model: Any, sae: SparseAutoencoder, matches: Matches) -> dict[str, float]:
    """Of what all writers before this layer bring to these matches, constant left out, the share of each."""
    found = writers(model, sae, matches)
    parts_W = found.parts.sum((0, 2))
    return dict(zip(found.names, (parts_W / parts_W.sum()).tolist()))


@torch.no_grad()
def codes_at(sae: SparseAutoencoder, model: Any, sentences: Sentences, role: str) -> tuple[Tensor, Tensor]:
    """At one role of each sentence: z of all heads (B, D), and the codes (B, F)."""
    with read_hook(model, str(sae.hook_name)) as read:
        z_BD = at(read(sentences.tokens), sentences.positions[role]).flatten(1)
    return z_BD, sae.encode(z_BD).to_dense()


def drawn_from_roles(sae: SparseAutoencoder, model: Any, sentences: Sentences, role: str) -> dict[str, float]:
    """Of what raises the features that are active at `role`, each weighted by its code, the share that comes from each
    role up to there, from the start of the row, and from the rest."""
    _, codes_BF = codes_at(sae, model, sentences, role)
    rows, features = codes_BF.nonzero(as_tuple=True)
    here = sentences.positions[role][rows]
    found = direct_feature_attribution(model, sae, Matches(sentences.tokens, rows, here, features))
    code_N = codes_BF[rows, features]
    weight_NS = code_N[:, None] * raises(found).sum(1) / code_N.sum()
    total = {"start": float(weight_NS[:, 0].sum())}
    for name in ROLES:
        where = sentences.positions[name][rows]
        total[name] = float((weight_NS.gather(1, where[:, None])[:, 0] * (where <= here)).sum())
    return total | {"the rest": 1 - sum(total.values())}


def order_told(
    values: Float[Tensor, "sentences directions"], first: Bool[Tensor, " sentences"], seed: int = 0
) -> float:
    """How well the best single direction tells for which sentences `first` holds: the AUC, on one half of the
    sentences, of the direction and the sign that have the highest on the other half."""
    half = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed)) < len(first) // 2
    return _told(values, first, half)


def order_told_in_new_words(
    values: Float[Tensor, "sentences directions"],
    first: Bool[Tensor, " sentences"],
    patterns: Int[Tensor, " sentences"],
) -> list[float]:
    """The same on the sentences of each pattern, of the direction that is best on those of all others."""
    return [_told(values, first, patterns != one) for one in patterns.unique()]


def _told(values: Tensor, first: Tensor, chosen_on: Bool[Tensor, " sentences"]) -> float:
    of, asked = values[chosen_on], ~chosen_on
    fits = torch.tensor([auc(one[first[chosen_on]].tolist(), one[~first[chosen_on]].tolist()) for one in of.T])
    best = int((fits - 0.5).abs().argmax())
    told = auc(values[asked & first, best].tolist(), values[asked & ~first, best].tolist())
    return told if fits[best] > 0.5 else 1 - told


def patterns_of(sentences: Sentences) -> Int[Tensor, " sentences"]:
    """Which template each sentence was made from, by numbers."""
    number = {template: n for n, template in enumerate(dict.fromkeys(one.template for one in sentences.frames))}
    return torch.tensor([number[one.template] for one in sentences.frames])


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
    raises_NS = raises(found).sum(1)
    return {name: (raises_NS * kind).sum(1).unflatten(0, (-1, each)).mean(1) for name, kind in kinds.items()}


def head_parts(found: Attribution, each: int) -> Float[Tensor, "features heads"]:
    """The same by head."""
    return raises(found).sum(2).unflatten(0, (-1, each)).mean(1)


def raises(found: Attribution) -> Float[Tensor, "matches heads sources"]:
    """What raises each pre-activation, as shares: they add up to 1, or to 0 where nothing does."""
    raises_NHS = found.heads.clamp(min=0)
    return raises_NHS / raises_NHS.sum((1, 2), keepdim=True).clamp(min=torch.finfo(raises_NHS.dtype).tiny)


def as_one(of_kinds: Mapping[str, Tensor], joined: Sequence[str]) -> dict[str, Tensor]:
    """The same with these kinds as one, which has the name of the first."""
    kept = {name: shares for name, shares in of_kinds.items() if name not in joined}
    return kept | ({joined[0]: torch.stack([of_kinds[name] for name in joined]).sum(0)} if joined else {})


def families(of_kinds: Mapping[str, Float[Tensor, " features"]], least: float = 0.5) -> list[str]:
    """The kind of source that brings at least this share of what raises a feature, else MIXED."""
    names, table_NF = list(of_kinds), torch.stack(list(of_kinds.values()))
    largest = table_NF.max(0)
    return [
        names[i] if share >= least else MIXED for i, share in zip(largest.indices.tolist(), largest.values.tolist())
    ]
