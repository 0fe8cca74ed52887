"""What a feature is said to be about, and how well that predicts it where nobody has looked.

    [material] = materials(evidence, sae, model, [7])     passages to explain it by, and others to test on
    explanation = explain_by_statistics(material, words)  offline and deterministic: a token, a pair, or a topic
    scores(explanation, material, judge)                  simulation, detection, fuzzing

Someone explains (`Explanation.text`), someone else, the judge, reads the explanation and says what the feature should
do. What the judge says is compared with what the feature does, in rows of text that the explainer has not seen: rows
with an even number are shown, rows with an odd number are for tests.

Sources: simulation is Bills et al. 2023, with the strongest and with random passages as in Cunningham et al. 2023;
detection and fuzzing are Paulo et al. 2024. The sizes, and the statistics as an explainer, are ours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.evaluation.feature_evidence import FeatureEvidence
from sae_tutorial.evaluation.feature_pages import Passage, Words, check_features, read_passages


@dataclass(frozen=True)
class Material:
    """Passages of one feature.

    shown      for the explainer, of even rows: the strongest, a fair sample of its matches, and random ones
    strongest  for tests, of odd rows, like the others below
    active     a fair sample of its matches
    random     around positions drawn from the whole text, whatever the feature does there
    silent     those of them in which the feature is active nowhere
    """

    feature: int
    largest: float
    shown: list[Passage]
    strongest: list[Passage]
    active: list[Passage]
    random: list[Passage]

    @property
    def silent(self) -> list[Passage]:
        return [passage for passage in self.random if not passage.activations.any()]


def materials(
    evidence: FeatureEvidence,
    sae: Any,
    model: Any,
    features: Sequence[int],
    *,
    n: int = 10,
    n_random: int = 20,
    width: int = 10,
    seed: int = 0,
) -> list[Material]:
    """Up to n of the strongest passages and n of the sampled ones, and n_random random ones, for either purpose.

    How many there are depends on how many `evidence` has kept (`n_top`, `n_sampled`); half of them are in even rows.
    Raises ValueError for features that the SAE does not have, and where the text has no two rows.
    """
    features = check_features(features, sae.config.d_sae)
    n_rows, length = evidence.tokens.shape
    if n_rows < 2:
        raise ValueError(f"the evidence is of {n_rows} row of text; explaining and testing need one each")
    generator = torch.Generator().manual_seed(seed)
    width_ = min(width, (length - 1) // 2)
    drawn = {}
    for odd in (0, 1):
        rows = 2 * torch.randint((n_rows + 1 - odd) // 2, (n_random,), generator=generator) + odd
        columns = torch.randint(1, length - 1, (n_random,), generator=generator)
        drawn[odd] = (rows * length + columns).tolist()
    chosen = {}
    for feature in features:
        kinds = evidence.top(feature), evidence.sample(feature)
        chosen[feature] = {
            odd: [[place for place in places if place // length % 2 == odd][:n] for places in kinds] for odd in (0, 1)
        }
    wanted = {f: sum(halves[0] + halves[1], []) + drawn[0] + drawn[1] for f, halves in chosen.items()}
    passages = read_passages(evidence, sae, model, wanted, width_)
    found = []
    for feature, halves in chosen.items():
        at = passages[feature]
        shown = dict.fromkeys(halves[0][0] + halves[0][1] + drawn[0])
        tests = ([at[place] for place in places] for places in (*halves[1], drawn[1]))
        found.append(Material(feature, float(evidence.largest[feature]), [at[place] for place in shown], *tests))
    return found


@dataclass(frozen=True)
class Explanation:
    """What a feature is said to be about, in words."""

    text: str


class Judge(Protocol):
    """Someone who reads an explanation and says what the feature should do."""

    def simulate(self, explanation: Any, passage: Passage) -> Float[Tensor, " length"]:
        """How active it should be at each token, in units of its own."""
        ...

    def active(self, explanation: Any, passage: Passage) -> float:
        """How sure it is that the feature is active somewhere in the passage."""
        ...

    def right(self, explanation: Any, passage: Passage, marked: Bool[Tensor, " length"]) -> float:
        """How sure it is that the marked tokens are those at which the feature is active."""
        ...


# ---------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Scores:
    """How well an explanation predicts a feature. NaN where there is nothing to compare.

    simulation   correlation of the simulated and the real activation over all tokens of the strongest and as many
                 random passages (top-and-random)
    at_random    the same over the random passages alone
    detection    of a passage with and one without the feature, how often the judge says so (AUC)
    fuzzing      of a passage with its active tokens marked and one with others marked, how often (AUC)
    """

    simulation: float
    at_random: float
    detection: float
    fuzzing: float


def scores(explanation: Any, material: Material, judge: Judge, seed: int = 0) -> Scores:
    """Simulation, detection and fuzzing of one explanation, on the passages that the explainer has not seen."""
    random = material.random[: len(material.strongest)]
    both, alone = (
        correlation(explanation, passages, judge) for passages in (material.strongest + random, material.random)
    )
    return Scores(both, alone, detection(explanation, material, judge), fuzzing(explanation, material, judge, seed))


def detection(explanation: Any, material: Material, judge: Judge) -> float:
    """How often the judge is surer of a passage with the feature than of one without (AUC)."""
    with_it, without = ([judge.active(explanation, p) for p in some] for some in (material.active, material.silent))
    return auc(with_it, without)


def fuzzing(explanation: Any, material: Material, judge: Judge, seed: int = 0) -> float:
    """How often the judge is surer of the tokens at which the feature is active than of wrongly marked ones (AUC)."""
    right = [judge.right(explanation, p, p.activations > 0) for p in material.active]
    wrong = [judge.right(explanation, p, marks) for p, marks in wrongly_marked(material, seed)]
    return auc(right, wrong)


def correlation(explanation: Any, passages: Sequence[Passage], judge: Judge) -> float:
    """Of the simulated activation with the real one, over all tokens of the passages; NaN where either is constant, but
    0 where only the simulated one is: a judge that always says the same has predicted nothing."""
    if not passages:
        return math.nan
    real = torch.cat([passage.activations for passage in passages]).double()
    said = torch.cat([judge.simulate(explanation, passage) for passage in passages]).double()
    if real.std() == 0 or len(real) < 2:
        return math.nan
    return float(torch.corrcoef(torch.stack([said, real]))[0, 1]) if said.std() > 0 else 0.0


def wrongly_marked(material: Material, seed: int = 0) -> list[tuple[Passage, Bool[Tensor, " length"]]]:
    """Passages without the feature, with random tokens marked: as many as are active in a passage that has it."""
    counts = [int((passage.activations > 0).sum()) for passage in material.active]
    n = math.ceil(sum(counts) / len(counts)) if counts else 1
    generator = torch.Generator().manual_seed(seed)
    found = []
    for passage in material.silent:
        marked = torch.zeros(len(passage.tokens), dtype=torch.bool)
        marked[torch.randperm(len(marked), generator=generator)[:n]] = True
        found.append((passage, marked))
    return found


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive is above a negative, ties counted half; NaN without a pair."""
    if not positive or not negative:
        return math.nan
    above = np.asarray(positive)[:, None] - np.asarray(negative)
    return float(((above > 0) + 0.5 * (above == 0)).mean())


# ---------------------------------------------------------------------- statistics as an explainer

TOKEN, AFTER, PAIR, TOPIC = "token", "after", "pair", "topic"
PRIOR = 1.0  # matches without activation that every token and pair is taken to have had
AROUND = 8  # tokens before, in which a topic's words are looked for
BETTER = 0.02  # a less simple table must be better by so much


@dataclass(frozen=True)
class Statistics(Explanation):
    """An explanation that is a table: how active the feature is on average at a token, after a token, at a pair of
    tokens, or where a word stands near by. It predicts by itself; `text` is for people."""

    kind: str
    table: Mapping[Any, float] = field(repr=False)
    behind: Mapping[int, float] = field(default_factory=dict, repr=False)  # by token, for pairs that are not in it

    def predict(self, tokens: Sequence[int]) -> list[float]:
        return [self._at(tokens, i) for i in range(len(tokens))]

    def _at(self, tokens: Sequence[int], i: int) -> float:
        if self.kind == TOKEN:
            return self.table.get(tokens[i], 0.0)
        if self.kind == AFTER:
            return self.table.get(tokens[i - 1], 0.0) if i else 0.0
        if self.kind == PAIR:
            here = self.behind.get(tokens[i], 0.0)
            return self.table.get((tokens[i - 1], tokens[i]), here) if i else here
        return max(self.table.get(token, 0.0) for token in tokens[max(0, i - AROUND) : i + 1])


class StatisticsJudge:
    """Takes the table at its word."""

    def simulate(self, explanation: Statistics, passage: Passage) -> Float[Tensor, " length"]:
        return torch.tensor(explanation.predict(passage.tokens.tolist()))

    def active(self, explanation: Statistics, passage: Passage) -> float:
        return max(explanation.predict(passage.tokens.tolist()), default=0.0)

    def right(self, explanation: Statistics, passage: Passage, marked: Bool[Tensor, " length"]) -> float:
        predicted = self.simulate(explanation, passage)
        return float(predicted[marked].mean()) if marked.any() else 0.0


def explain_by_statistics(material: Material, words: Words) -> Statistics:
    """The one of four tables that predicts each part of the shown passages best from the other parts, in this order the
    simpler one if it is as good: by token; by the token before; by both; or by words near by, for a topic."""
    shown = [(passage.tokens.tolist(), passage.activations.tolist()) for passage in material.shown]
    best, most = TOKEN, -math.inf
    for kind in (TOKEN, AFTER, PAIR, TOPIC):
        found = _held_out(kind, shown)
        if found > most + BETTER:
            best, most = kind, found
    table, behind = _fit(best, shown)
    return Statistics(_in_words(best, table, words), best, table, behind)


Shown = list[tuple[list[int], list[float]]]


def _held_out(kind: str, shown: Shown, parts: int = 5) -> float:
    """Correlation of what the table of the other parts predicts with what is there; 0 where either is constant."""
    said: list[float] = []
    real: list[float] = []
    for part in range(min(parts, len(shown))):
        guess = Statistics("", kind, *_fit(kind, [one for i, one in enumerate(shown) if i % parts != part]))
        for tokens, activations in shown[part::parts]:
            said += guess.predict(tokens)
            real += activations
    if len(set(said)) < 2 or len(set(real)) < 2:
        return 0.0
    return float(np.corrcoef(said, real)[0, 1])


def _fit(kind: str, shown: Shown) -> tuple[dict[Any, float], dict[int, float]]:
    """Mean activation by what the kind looks at; and what stands behind a pair: the mean by its token."""
    by_token = ((token, a) for tokens, acts in shown for token, a in zip(tokens, acts))
    if kind == TOKEN:
        return _means(by_token), {}
    if kind == AFTER:
        return _means((token, a) for tokens, acts in shown for token, a in zip(tokens, acts[1:])), {}
    if kind == PAIR:
        behind = _means(by_token)
        pairs = (((t1, t2), a) for tokens, acts in shown for t1, t2, a in zip(tokens, tokens[1:], acts[1:]))
        return _means(pairs, lambda pair: behind.get(pair[1], 0.0)), behind
    near = (
        (word, a)
        for tokens, acts in shown
        for i, a in enumerate(acts)
        for word in set(tokens[max(0, i - AROUND) : i + 1])
    )
    return _means(near), {}


def _means(found: Iterable[tuple[Any, float]], behind: Callable[[Any], float] = lambda name: 0.0) -> dict[Any, float]:
    """The mean of each name's values and of PRIOR values that are as large as what is behind it."""
    sums: dict[Any, float] = defaultdict(float)
    counts: dict[Any, int] = defaultdict(int)
    for name, value in found:
        sums[name] += value
        counts[name] += 1
    return {name: (sums[name] + PRIOR * behind(name)) / (counts[name] + PRIOR) for name in counts}


def _in_words(kind: str, table: Mapping[Any, float], words: Words, n: int = 6) -> str:
    """The names with the largest means, down to a fifth of the largest."""
    order = sorted(table, key=lambda name: -table[name])[:n]
    some = [name for name in order if table[name] > max(0.0, table[order[0]] / 5)]
    if not some:
        return "never active on the text that was shown"
    if kind == PAIR:
        said = [f"“{b.strip() or b}” after “{a.strip() or a}”" for a, b in map(words, some)]
    else:
        said = [f"“{word.strip() or word}”" for word in words(some)]
    where = {TOKEN: "on", AFTER: "on any token after", PAIR: "on", TOPIC: "near"}[kind]
    return f"active {where} {', '.join(dict.fromkeys(said))}"
