"""Does taking a few features away remove one property from the activations, and only that?

    found = targeted_perturbation(sae, examples, ns=(2, 5, 10))         TPP: each question against all others
    found.score(5), found.drops(5)                                      (questions, questions) of accuracy lost
    found = correlation_removal(sae, biased, one, other, ns=(2, 5, 10)) SCR: a probe that learned two properties at once
    found.score(5)                                                      share of what it lost that comes back

Features are chosen by what they do to a probe of the property: the difference of their means over examples with and
without it, times the probe's weight on their direction. They are set to zero, all else stays: x − Σ z_f d_f.

Both are SAEBench's (Karvonen et al. 2025, read at commit fd85857). Targeted probe perturbation is the accuracy that the
property's own probe loses, less what the other probes lose on average. Spurious correlation removal (after SHIFT, Marks
et al. 2024): a probe is trained where two properties always come together, and asked for one of them where they are
independent; the features of the other one are taken away. The score is the part of the way from the biased probe's
accuracy to that of a probe that was trained on balanced data; 0 where there is no way to go (below LEAST).

What differs: the questions are those of our own text, each with negative examples of its own, where SAEBench's are
classes of one data set and negatives are examples of the other classes; so two of ours can share a property, and a
feature of both costs both. Probes are L2 logistic regressions (see `probing`), where SAEBench trains by Adam with an L1
penalty and keeps the epoch that was best on the test set. Where fewer than n features speak for a property, fewer are
taken away; SAEBench fills up with features of no effect, and then with those that speak against it.

Dense baselines: `coordinates`, and `mean_differences`, a direction for each question that needs no SAE.

Letters of shapes: N examples, D width of an activation, F features, C questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.allocation import SparseCodes
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.examples import Examples, check_width, dictionary_of, each_size
from sae_tutorial.evaluation.probing import LinearProbe, right_answers, task_probe

NS = (2, 5, 10, 20)
LEAST = 0.001  # of accuracy, between a biased probe and a clean one

Right = Bool[Tensor, " examples"]  # which test examples were answered rightly


@dataclass(frozen=True, eq=False)
class Perturbation:
    """What probes get right before and after features were taken away.

    questions   their names
    clean       for each question, its probe on its own test examples
    right       n -> [i][j]: the probe of question j, on its test examples without the n features of question i
    """

    questions: tuple[str, ...]
    clean: list[Right]
    right: dict[int, list[list[Right]]]

    def drops(self, n: int) -> Float[Tensor, "targeted asked"]:
        """Accuracy that the probe of each question (column) loses with the features of each (row)."""
        _check_n(n, self.right)
        clean_C = torch.stack([right.double().mean() for right in self.clean])
        left_CC = torch.stack([torch.stack([right.double().mean() for right in row]) for row in self.right[n]])
        return clean_C - left_CC

    def by_question(self, n: int) -> Float[Tensor, " questions"]:
        """What its own probe loses, less what the others lose on average: for a bootstrap over questions."""
        drops_CC = self.drops(n)
        own_C = drops_CC.diagonal()
        return own_C - (drops_CC.sum(1) - own_C) / (len(drops_CC) - 1)

    def score(self, n: int) -> float:
        """SAEBench's tpp_threshold_n_total_metric; higher is better."""
        return float(self.by_question(n).mean())


@dataclass(frozen=True, eq=False)
class Removal:
    """A probe that was trained where two properties come together, asked for one of them, the `wanted`.

    original    which test examples it gets right as it is
    clean       which a probe gets right that was trained on balanced examples
    changed     n -> which it gets right without the n features of the unwanted property
    """

    wanted: str
    unwanted: str
    original: Right
    clean: Right
    changed: dict[int, Right]

    def score(self, n: int) -> float:
        """The part of what was lost that comes back: 1 is all, below 0 is worse than before."""
        _check_n(n, self.changed)
        original, clean, changed = (float(r.double().mean()) for r in (self.original, self.clean, self.changed[n]))
        return (changed - original) / (clean - original) if clean - original >= LEAST else 0.0


@dataclass(frozen=True, eq=False)
class CorrelationRemoval:
    """Both directions: each of the two properties was the wanted one."""

    directions: tuple[Removal, Removal]

    @property
    def harder(self) -> Removal:
        """The one in which the biased probe is worse before anything is done, which SAEBench reports."""
        return min(self.directions, key=lambda one: float(one.original.double().mean()))

    def score(self, n: int) -> float:
        """SAEBench's scr_metric_threshold_n; higher is better."""
        return self.harder.score(n)


def targeted_perturbation(
    sae: SparseAutoencoder | Dictionary, examples: Sequence[Examples], ns: Sequence[int] = NS
) -> Perturbation:
    """TPP of several questions. Features are chosen and probes trained on training examples; all is measured on test
    examples. Raises ValueError for fewer than two questions, numbers of features that are none, and another width."""
    dictionary, ns = _checked(sae, examples, ns)
    if len(examples) < 2:
        raise ValueError(f"examples has {len(examples)} question; two or more are needed to be told apart")
    probes = [task_probe(one) for one in examples]
    effects, codes = [], []
    for one, probe in zip(examples, probes):
        codes_NF = one.codes(dictionary)
        effects.append(_effects(codes_NF, one, probe, dictionary, signed=True))
        codes.append(SparseCodes.from_dense(codes_NF[one.test]))
    clean = [right_answers(probe, one, one.x[one.test]) for one, probe in zip(examples, probes)]
    right = {
        n: [
            [
                right_answers(probe, one, _without(one.x[one.test], z, _strongest(effect, n), dictionary))
                for one, probe, z in zip(examples, probes, codes)
            ]
            for effect in effects
        ]
        for n in ns
    }
    return Perturbation(tuple(one.name for one in examples), clean, right)


def correlation_removal(
    sae: SparseAutoencoder | Dictionary, biased: Examples, one: Examples, other: Examples, ns: Sequence[int] = NS
) -> CorrelationRemoval:
    """SCR of two properties: `biased` examples have both or none, those of `one` and `other` are labelled by one
    property and balanced over the other (`labelled.correlated_tasks`). Raises as `targeted_perturbation` does."""
    dictionary, ns = _checked(sae, (biased, one, other), ns)
    led_astray, probes = task_probe(biased), [task_probe(one), task_probe(other)]
    codes = [examples.codes(dictionary) for examples in (one, other)]
    found = []
    for wanted, unwanted in ((0, 1), (1, 0)):
        asked, removed = ((one, other)[place] for place in (wanted, unwanted))
        effect_F = _effects(codes[unwanted], removed, probes[unwanted], dictionary, signed=False)
        x_ND, z = asked.x[asked.test], SparseCodes.from_dense(codes[wanted][asked.test])
        changed = {
            n: right_answers(led_astray, asked, _without(x_ND, z, _strongest(effect_F, n), dictionary)) for n in ns
        }
        before = (right_answers(led_astray, asked, x_ND), right_answers(probes[wanted], asked, x_ND))
        found.append(Removal(asked.name, removed.name, *before, changed))
    return CorrelationRemoval((found[0], found[1]))


def mean_differences(examples: Sequence[Examples]) -> Dictionary:
    """No SAE: for each question the direction between the means of its training examples with and without the property,
    about the mean of all. To take one away is to erase what lies in that direction."""
    means = [(one.x[~one.test & one.label].mean(0), one.x[~one.test & ~one.label].mean(0)) for one in examples]
    axes = normalize(torch.stack([yes - no for yes, no in means]), dim=1)
    return Dictionary.of_axes("mean differences", axes, torch.cat([torch.stack(pair) for pair in means]).mean(0))


# ---------------------------------------------------------------------- inside


def _effects(
    codes_NF: Float[Tensor, "n features"], of: Examples, probe: LinearProbe, dictionary: Dictionary, signed: bool
) -> Float[Tensor, " features"]:
    """What each feature does to the probe; `signed`: only features that come with the property, towards it first."""
    train = ~of.test
    apart_F = codes_NF[train & of.label].mean(0) - codes_NF[train & ~of.label].mean(0)
    weight_F = dictionary.directions @ probe.weight[:, 0]
    return apart_F.clamp(min=0) * weight_F if signed else (apart_F * weight_F).abs()


def _strongest(effect_F: Float[Tensor, " features"], n: int) -> Bool[Tensor, " features"]:
    """The n features with the largest effects above 0, fewer where fewer have one."""
    order_F = effect_F.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(effect_F, dtype=torch.bool)
    chosen[order_F[effect_F[order_F] > 0][:n]] = True
    return chosen


def _without(
    x_ND: Float[Tensor, "n d"], codes: SparseCodes, chosen_F: Bool[Tensor, " features"], dictionary: Dictionary
) -> Float[Tensor, "n d"]:
    return x_ND - codes.where(chosen_F[codes.features]) @ dictionary.directions


def _checked(
    sae: SparseAutoencoder | Dictionary, examples: Sequence[Examples], ns: Sequence[int]
) -> tuple[Dictionary, list[int]]:
    dictionary, ns = dictionary_of(sae), each_size("ns", ns)
    for one in examples:
        check_width(dictionary, one.tokens)
    if not ns:
        raise ValueError("ns is empty; say how many features are to be taken away")
    return dictionary, ns


def _check_n(n: int, there: Mapping[int, object]) -> None:
    if n not in there:
        raise ValueError(f"n={n!r}: features were taken away in numbers of {', '.join(map(str, there))}")
