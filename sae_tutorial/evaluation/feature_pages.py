"""What a reader is shown of a feature: where it is active and how strongly, what it does to the logits, and which
features are close to it.

    evidence = feature_evidence(sae, model, tokens)
    [page] = feature_pages(evidence, sae, model, [7])
    page.strongest[0].tokens, page.strongest[0].activations      a stretch of text, and the feature at each token of it

The rows of the places that `evidence` kept are read once more, unless it has the codes of the whole text.

Letters of shapes: S positions in a row, F features, C of them chosen, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.activations.memory import rows_per_pass
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, clean_codes

IN_USE = 5  # a token counts as used if it occurs so often
Words = Callable[[Sequence[int]], list[str]]  # from token ids to the text of each
TOGETHER = 40  # of a feature's sampled matches: where others are looked for that are active with it


@dataclass(frozen=True)
class Passage:
    """A stretch of text, and how active one feature is at each of its tokens; `at` is the one it was chosen for."""

    tokens: Int[Tensor, " length"]
    activations: Float[Tensor, " length"]
    at: int

    @property
    def peak(self) -> float:
        return float(self.activations[self.at])

    def context(self, words: Words) -> Context:
        """As text, for figures."""
        texts = words(self.tokens.tolist())
        return Context("".join(texts[: self.at]), texts[self.at], "".join(texts[self.at + 1 :]), self.peak)


@dataclass(frozen=True)
class FeaturePage:
    """One feature.

    rank         1 for the feature that is active most often
    strongest    passages around its strongest places, each from another row of text
    groups       passages around a fair sample of its matches, from the strongest part to the weakest
    sampled      activations of that sample, falling
    raised       the tokens in use whose logits its decoder raises most, with the change for a code of 1; lowered: least
    similar      features with the most similar decoder rows, with the cosine
    together     features that are active with it, with the correlation (phi) of being active, from TOGETHER matches
    """

    feature: int
    density: float
    rank: int
    largest: float
    strongest: list[Passage]
    groups: list[list[Passage]]
    sampled: Float[Tensor, " matches"]
    raised: list[tuple[int, float]]
    lowered: list[tuple[int, float]]
    similar: list[tuple[int, float]]
    together: list[tuple[int, float]]


@torch.no_grad()
def feature_pages(
    evidence: FeatureEvidence,
    sae: Any,
    model: Any,
    features: Sequence[int],
    *,
    width: int = 12,
    n_top: int = 10,
    n_groups: int = 5,
    per_group: int = 2,
    n_close: int = 5,
    n_tokens: int = 10,
) -> list[FeaturePage]:
    """A page for each of `features`, in their order.

    width        tokens of a passage on each side
    n_top        passages of the strongest places
    n_groups     parts of equal size of the sampled matches, by strength; per_group: passages of each
    n_close      features that are named as similar, and as active together
    n_tokens     tokens that are named as raised, and as lowered: none where the SAE does not write to the stream

    Raises ValueError if there is no feature, or one that the SAE does not have.
    """
    features = check_features(features, sae.config.d_sae)
    tops = {feature: evidence.top(feature, n_top) for feature in features}
    groups = {f: [_spread(group, per_group) for group in evidence.by_strength(f, n_groups)] for f in features}
    wanted = {f: [*tops[f], *(place for group in groups[f] for place in group)] for f in features}
    samples = {f: evidence.sample(f, TOGETHER) for f in features}
    passages = read_passages(evidence, sae, model, wanted, width)
    counts_CF = _active_at(evidence, sae, model, samples)
    rank_F = evidence.counts.argsort(descending=True, stable=True).argsort() + 1
    promoted = promoted_tokens(evidence, sae, model, features, n_tokens)
    similar = _similar(sae.W_dec, features, n_close)
    pages = []
    for i, feature in enumerate(features):
        at = passages[feature]
        value = evidence.sampled.value[feature]
        pages.append(
            FeaturePage(
                feature,
                float(evidence.density[feature]),
                int(rank_F[feature]),
                float(evidence.largest[feature]),
                [at[place] for place in tops[feature]],
                [[at[place] for place in group] for group in groups[feature] if group],
                value[evidence.sampled.place[feature] >= 0].sort(descending=True).values,
                *promoted[i],
                similar[i],
                _together(counts_CF[i], evidence.density, feature, len(samples[feature]), n_close),
            )
        )
    return pages


def check_features(features: Iterable[int], d_sae: int) -> list[int]:
    """As a list without repetitions. Raises ValueError if there is none, or one that is not below `d_sae`."""
    found = list(dict.fromkeys(int(feature) for feature in features))
    if not found:
        raise ValueError("features is empty; name at least one feature")
    wrong = [feature for feature in found if not 0 <= feature < d_sae]
    if wrong:
        raise ValueError(f"features must be between 0 and {d_sae - 1}, got {wrong[0]}")
    return found


def tokens_in_use(tokens: Int[Tensor, "rows positions"], d_vocab: int) -> Int[Tensor, " used"]:
    """Those that occur at least IN_USE times: what a feature does to all the others is mostly noise. Where a text is
    too short for that, all that occur."""
    counts = torch.bincount(tokens[:, 1:].flatten().cpu(), minlength=d_vocab)
    used = (counts >= IN_USE).nonzero()[:, 0]
    return used if len(used) else counts.nonzero()[:, 0]


@torch.no_grad()
def promoted_tokens(
    evidence: FeatureEvidence, sae: Any, model: Any, features: Sequence[int], n: int
) -> list[tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
    """Of each feature the n tokens in use whose logits its decoder row raises most, and the n that it lowers most, with
    the change for a code of 1; nothing where the row is not as wide as the stream."""
    W_U = model.W_U
    if sae.W_dec.shape[1] != W_U.shape[0]:
        return [([], [])] * len(features)
    used = tokens_in_use(evidence.tokens, W_U.shape[1])
    unit = getattr(sae, "out_scale", sae.scale)  # of what a transcoder writes, which is not what it reads
    rows_CD = (sae.W_dec[list(features)] * unit).to(W_U)
    logits_CU = (rows_CD @ W_U[:, used.to(W_U.device)]).cpu()
    n = min(n, len(used))
    most, least = logits_CU.topk(n), logits_CU.topk(n, largest=False)
    raised, lowered = ([_pairs(used[i], by) for i, by in zip(of.indices, of.values)] for of in (most, least))
    return list(zip(raised, lowered))


def _pairs(who: Tensor, how: Tensor) -> list[tuple[int, float]]:
    return list(zip(who.tolist(), how.tolist()))


def _spread(places: list[int], n: int) -> list[int]:
    """n of the places, as far apart in the list as can be."""
    n = min(n, len(places))
    return [places[(2 * i + 1) * len(places) // (2 * n)] for i in range(n)]


def read_passages(
    evidence: FeatureEvidence, sae: Any, model: Any, places: Mapping[int, Sequence[int]], width: int = 12
) -> dict[int, dict[int, Passage]]:
    """The passage around each of the places of each feature, by feature and place; `width` tokens on each side."""
    length, opens = evidence.tokens.shape[1], cache(lambda i: not model.tokenizer.decode([i])[:1].isalpha())
    by_row: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for feature, its in places.items():
        for place in dict.fromkeys(its):
            by_row[place // length].append((feature, place))
    found: dict[int, dict[int, Passage]] = {feature: {} for feature in places}
    for row, codes in _rows(evidence, sae, model, sorted(by_row)):
        for feature, place in by_row[row]:
            mine = codes.features == feature
            acts_S = torch.zeros(length).index_put((codes.tokens[mine],), codes.values[mine].float())
            found[feature][place] = _cut(evidence.tokens[row], acts_S, place % length, width, opens)
    return found


def _active_at(
    evidence: FeatureEvidence, sae: Any, model: Any, samples: Mapping[int, Sequence[int]]
) -> Int[Tensor, "chosen features"]:
    """At how many of the places of each feature each other one is active."""
    length = evidence.tokens.shape[1]
    by_row: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for i, places in enumerate(samples.values()):
        for place in places:
            by_row[place // length].append((i, place))
    counts_CF = torch.zeros(len(samples), sae.config.d_sae, dtype=torch.int64)
    for row, codes in _rows(evidence, sae, model, sorted(by_row)):
        for i, place in by_row[row]:
            counts_CF[i, codes.features[codes.tokens == place % length]] += 1
    return counts_CF


def _rows(evidence: FeatureEvidence, sae: Any, model: Any, rows: Sequence[int]) -> Iterator[tuple[int, SparseCodes]]:
    """Each row of the text and its codes, on the CPU."""
    length = evidence.tokens.shape[1]
    if evidence.codes is not None:
        for row in rows:
            yield row, _row_of(evidence.codes, row, length)
        return
    with read_hook(model, evidence.hook_name) as read:
        for some in torch.tensor(rows, dtype=torch.int64).split(rows_per_pass(sae.W_dec.device, length)):
            codes, _ = clean_codes(sae, read(evidence.tokens[some]).to(sae.W_dec.device), evidence.longest)
            codes = codes.to("cpu")
            for i, row in enumerate(some.tolist()):
                yield row, _row_of(codes, i, length)


def _row_of(codes: SparseCodes, row: int, length: int) -> SparseCodes:
    """The codes of one row of text."""
    first, stop = torch.searchsorted(codes.tokens, torch.tensor([row * length, (row + 1) * length])).tolist()
    lists = (codes.values[first:stop], codes.tokens[first:stop] - row * length, codes.features[first:stop])
    return SparseCodes(*lists, (length, codes.shape[1]))


def _cut(tokens: Tensor, activations: Tensor, at: int, width: int, opens: Callable[[int], bool]) -> Passage:
    """Up to `width` tokens on each side of one, without BOS and without words of which only a part would be seen;
    `opens` says whether a token does not go on with the word before it."""
    first, stop = min(max(1, at - width), at), min(at + width + 1, len(tokens))
    while 1 < first < at and not opens(int(tokens[first])):
        first += 1
    while at + 1 < stop < len(tokens) and not opens(int(tokens[stop])):
        stop -= 1
    return Passage(tokens[first:stop].clone(), activations[first:stop].clone(), at - first)


def _similar(W_dec: Float[Tensor, "features d_out"], features: list[int], n: int) -> list[list[tuple[int, float]]]:
    """The n others whose rows have the largest cosine with that of each feature."""
    unit = torch.nn.functional.normalize(W_dec.detach(), dim=1)
    cosine_CF = unit[features] @ unit.T
    cosine_CF[torch.arange(len(features)), features] = -torch.inf
    top = cosine_CF.topk(min(n, len(unit) - 1), dim=1)
    return [_pairs(who, how) for who, how in zip(top.indices, top.values)]


def _together(
    counts_F: Int[Tensor, " features"], density_F: Float[Tensor, " features"], feature: int, n_matches: int, n: int
) -> list[tuple[int, float]]:
    """The n others of those active at two or more of its matches whose being active correlates most with its own."""
    if n_matches == 0:
        return []
    p_f, p_F = density_F[feature], density_F.clamp(1e-9, 1 - 1e-9)
    phi_F = (counts_F / n_matches - p_F) * (p_f / (1 - p_f).clamp(min=1e-9)).sqrt() / (p_F * (1 - p_F)).sqrt()
    phi_F = phi_F.clamp(max=1).where(counts_F >= min(2, n_matches), -torch.inf)
    phi_F[feature] = -torch.inf
    top = phi_F.topk(min(n, len(phi_F) - 1))
    return [(who, how) for who, how in _pairs(top.indices, top.values) if how > 0]
