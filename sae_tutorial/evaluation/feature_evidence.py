"""What every feature of an SAE does on a text, found in one pass over it, in memory that does not grow with the text.

    evidence = feature_evidence(sae, model, tokens)
    evidence.density[7], evidence.largest[7]     how often, how strongly
    evidence.top(7)                              flat indices of its strongest positions, one a row of text
    evidence.by_strength(7, n_groups=10)         a fair sample of its matches, from the strongest tenth to the weakest

Of each feature two short lists are kept while the text goes by: its strongest positions, and those of its matches whose
hash is largest, which is a uniform sample that depends on neither the order nor the size of the pieces.

Letters of shapes: N rows, S positions in a row, F features, K strongest, R sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.activations.memory import rows_per_pass
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.allocation.codes import stack_tokens


@dataclass(frozen=True)
class Kept:
    """Of each feature the positions with the largest keys, in falling order; −inf and −1 where there are no more."""

    key: Float[Tensor, "features kept"]
    value: Float[Tensor, "features kept"]
    place: Int[Tensor, "features kept"]

    @classmethod
    def nothing(cls, n_features: int, n: int, device: torch.device) -> Kept:
        key = torch.full((n_features, n), -torch.inf, device=device)
        return cls(key, torch.zeros_like(key), torch.full_like(key, -1, dtype=torch.int64))

    def cpu(self) -> Kept:
        return Kept(self.key.cpu(), self.value.cpu(), self.place.cpu())

    def with_more(self, feature: Tensor, key: Tensor, value: Tensor, place: Tensor) -> Kept:
        """Also these matches, given feature by feature, keys falling."""
        n = self.key.shape[1]
        counts = torch.bincount(feature, minlength=len(self.key))
        rank = torch.arange(len(feature), device=feature.device) - (counts.cumsum(0) - counts)[feature]
        feature, rank, key, value, place = (of[rank < n] for of in (feature, rank, key, value, place))
        more = Kept.nothing(len(self.key), n, key.device)
        for table, of in ((more.key, key), (more.value, value), (more.place, place)):
            table[feature, rank] = of
        changed = counts.nonzero()[:, 0]
        names = ("key", "value", "place")
        both = {name: torch.cat([getattr(self, name)[changed], getattr(more, name)[changed]], dim=1) for name in names}
        best = both["key"].argsort(dim=1, descending=True, stable=True)[:, :n]  # of equals the earlier in the text
        return Kept(*(getattr(self, name).index_copy(0, changed, of.gather(1, best)) for name, of in both.items()))


@dataclass(frozen=True)
class FeatureEvidence:
    """What `feature_evidence` found. Places are flat indices into `tokens`; `longest` is the norm from which an
    activation counts as massive; `codes` are those of the whole text, place by place, where they were to be kept."""

    hook_name: str
    longest: float
    tokens: Int[Tensor, "rows positions"]
    n_positions: int  # that were read: all but those left out
    counts: Int[Tensor, " features"]  # matches of each feature
    largest: Float[Tensor, " features"]  # activation of each feature; 0 if it is never active
    strongest: Kept
    sampled: Kept
    codes: SparseCodes | None = None

    @property
    def density(self) -> Float[Tensor, " features"]:
        """The share of positions at which each feature is active."""
        return self.counts / max(self.n_positions, 1)

    def top(self, feature: int, n: int | None = None) -> list[int]:
        """The places where it is strongest, each in another row of text and with a next token."""
        place = self.strongest.place[feature]
        return place[place >= 0][:n].tolist()

    def sample(self, feature: int, n: int | None = None) -> list[int]:
        """The places of a uniform sample of its matches."""
        place = self.sampled.place[feature]
        return place[place >= 0][:n].tolist()

    def by_strength(self, feature: int, n_groups: int = 10) -> list[list[int]]:
        """Its sampled matches in groups of equal size, from the strongest to the weakest, for a look at all of its
        range; fewer groups if there are fewer matches."""
        there = self.sampled.place[feature] >= 0
        order = self.sampled.value[feature][there].argsort(descending=True, stable=True)
        places = self.sampled.place[feature][there][order]
        return [group.tolist() for group in places.tensor_split(min(n_groups, len(places)) or 1)]


def hook_of(sae: Any, hook_name: str | None) -> str:
    """The hook that is named, else the one where the SAE was trained. Raises ValueError if it knows none."""
    if (hook_name or sae.hook_name) is None:
        raise ValueError("hook_name is None, and this SAE does not know its hook; name the one that it was trained on")
    return str(hook_name or sae.hook_name)


@torch.no_grad()
def feature_evidence(
    sae: Any,
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    hook_name: str | None = None,
    *,
    n_top: int = 20,
    n_sampled: int = 100,
    max_norm: float | None = 10.0,
    keep_codes: bool = False,
    progress: bool = True,
) -> FeatureEvidence:
    """Let the model read `tokens`, rows that begin with BOS, and keep of each feature what tells what it is about.

    hook_name    where the SAE reads; None: where it was trained
    n_top        strongest positions that are kept of each feature, one a row, of those that have a next token
    n_sampled    matches that are kept of each feature, drawn uniformly
    max_norm     positions whose activation is longer than so many times the first rows' median are left out (massive
                 activations tell of a position, not of a word), as BOS is; None: only BOS
    keep_codes   keep the codes of the whole text as well: 20 bytes a match. Then nothing is ever read again, and an
                 explorer answers at once

    Raises ValueError if no hook is named and the SAE knows none, and for n_top or n_sampled below 1.
    """
    hook_name = hook_of(sae, hook_name)
    for name, value in {"n_top": n_top, "n_sampled": n_sampled}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    n_features, device, context = sae.config.d_sae, sae.W_dec.device, tokens.shape[1]
    counts = torch.zeros(n_features, dtype=torch.int64, device=device)
    largest = torch.zeros(n_features, device=device)
    strongest, sampled = (Kept.nothing(n_features, n, device) for n in (n_top, n_sampled))
    n_positions, longest, pieces = 0, math.nan, []
    bar = tqdm(total=tokens.numel(), desc=hook_name, unit=" tokens", unit_scale=True, disable=not progress)
    with read_hook(model, hook_name) as read, bar:
        step = rows_per_pass(device, context)
        for first in range(0, len(tokens), step):
            acts_NSD = read(tokens[first : first + step]).to(device)
            if first == 0:
                longest = math.inf if max_norm is None else max_norm * float(_norms(acts_NSD)[:, 1:].median())
            codes, good_NS = clean_codes(sae, acts_NSD, longest)
            n_positions += int(good_NS.sum())
            counts += torch.bincount(codes.features, minlength=n_features)
            largest.scatter_reduce_(0, codes.features, codes.values.float(), "amax")
            strongest, sampled = _also(codes, first * context, context, strongest, sampled)
            if keep_codes:
                pieces.append(codes.to("cpu"))
            bar.update(acts_NSD.shape[0] * context)
    every = stack_tokens(pieces) if keep_codes else None
    return FeatureEvidence(
        hook_name,
        longest,
        tokens.cpu(),
        n_positions,
        counts.cpu(),
        largest.cpu(),
        strongest.cpu(),
        sampled.cpu(),
        every,
    )


def clean_codes(
    sae: Any, acts: Float[Tensor, "rows positions *d"], longest: float
) -> tuple[SparseCodes, Bool[Tensor, "rows positions"]]:
    """Codes of all rows · positions, those of BOS and of massive activations empty; and which positions are neither."""
    good_NS = _norms(acts) < longest
    good_NS[:, 0] = False
    codes = sae.encode(acts.flatten(0, 1).flatten(1))
    return codes.where(good_NS.flatten()[codes.tokens]), good_NS


def _norms(acts: Float[Tensor, "rows positions *d"]) -> Float[Tensor, "rows positions"]:
    return acts.flatten(2).norm(dim=-1)


def _also(codes: SparseCodes, start: int, context: int, strongest: Kept, sampled: Kept) -> tuple[Kept, Kept]:
    """The two lists, with the matches of a piece of text that begins at place `start`."""
    place, value = codes.tokens + start, codes.values.float()
    has_next = codes.tokens % context < context - 1
    new = (has_next & (value > strongest.key[codes.features, -1])).nonzero()[:, 0]
    new = new[_by_feature(codes.features[new], value[new])]
    kept = new[_first_of_each(codes.features[new] * codes.shape[0] + codes.tokens[new] // context)]
    strongest = strongest.with_more(codes.features[kept], value[kept], value[kept], place[kept])
    by_hash = _hashed(place, codes.features)
    new = (by_hash > sampled.key[codes.features, -1]).nonzero()[:, 0]
    kept = new[_by_feature(codes.features[new], by_hash[new])]
    return strongest, sampled.with_more(codes.features[kept], by_hash[kept], value[kept], place[kept])


def _by_feature(feature: Tensor, key: Tensor) -> Tensor:
    """An order that goes feature by feature, keys falling, ties in the order of the text."""
    order = key.argsort(descending=True, stable=True)
    return order[feature[order].argsort(stable=True)]


def _first_of_each(name: Tensor) -> Tensor:
    """Where each name comes first, in the order in which they come."""
    order = name.argsort(stable=True)
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = name[order][1:] != name[order][:-1]
    return order[new].sort().values


def _hashed(place: Tensor, feature: Tensor) -> Tensor:
    """A number in [0, 1) for each match that looks random: mixed as SplitMix64 does, with shifts that bring no sign."""
    mixed = place * 0x1E3779B97F4A7C15 + feature * 0x3F58476D1CE4E5B9  # odd numbers; products wrap around
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        mixed = (mixed ^ (mixed >> shift & ((1 << 64 - shift) - 1))) * factor
    return (mixed >> 40 & ((1 << 24) - 1)).float() / 2**24  # as many bits as a float32 has
