"""Feature absorption: a feature that should answer to a property is silent where a narrower feature speaks for it.

    words = read_words(model, tokens, hook_name, word_types(model, tokens))
    found = feature_absorption(sae, words)
    found.rate, found.fraction                   means over properties
    found.of("s").main, .full, .absorber         what stands for "begins with s", and where another feature takes over

Where "begins with s" is a feature and " snake" another, an SAE saves a match by writing the letter into " snake", and
keeping the first feature silent there. What looks like "begins with s" then has holes (Chanin et al. 2024).

The definition is SAEBench's (Karvonen et al. 2025, read at commit ebdc14b), which compares projections on a probe's
direction; Chanin et al. ablate by integrated gradients instead, on a spelling task. For each property:

    probe    logistic regression on activations of training words, its direction p of length 1
    main     k-sparse probes: the k largest weights of a probe on codes with an L1 penalty, then a regression on those;
             k grows while F1 on the test words rises by more than JUMP
    words    test words that have the property and for which the probe says so
    full     the main features are silent, and the feature with the largest share of x · p has a cosine with p of at
             least FULL_COSINE, and a share of at least SHARE
    fraction the part of the projection that others carry: up to ABSORBERS of them, cosine at least FRACTION_COSINE,
             with at least SHARE of it together; 0 where the main features carry all, 1 where they carry nothing

What differs: words are read where they stand in a text, not in a spelling prompt, and they are tokens that begin with
a space, where SAEBench takes all tokens of letters. The probe on activations is fitted to its minimum, not by 50 epochs
of Adam: short of the minimum its direction, and with it the share of absorbed words, depends on when one stops. Codes
enter the L1 probe in units of the activations' spread, so that the penalty means the same for every model; it is fitted
by STEPS steps on all words at once. A feature adds its code times its direction to the projection, whatever the
direction's length (SAEBench: the code times the cosine, the same for length 1). Properties that the activations do not
hold (the probe's F1 is below `least_f1`) have no absorption to be measured, and are left out one by one (SAEBench
refuses a model that has fewer than 20 letters).

Letters of shapes: N words, D width of an activation, F features, C properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, softplus

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.allocation import SparseCodes, stack_tokens
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.examples import WordExamples, check_width, dictionary_of, in_pieces
from sae_tutorial.evaluation.probing import LinearProbe, logistic_regression

L1, L2 = 0.01, 1e-4  # of probes on codes and on activations, as in SAEBench: of losses averaged over all entries
JUMP, FULL_COSINE, FRACTION_COSINE, SHARE, ABSORBERS = 0.03, 0.025, 0.1, 0.4, 3
SILENT = 1e-8
STEPS, FIRST_RATE, LAST_RATE = 500, 1e-2, 1e-5  # of the L1 probe


@dataclass(frozen=True, eq=False)
class Absorbed:
    """What was found of one property.

    name, f1    the property, and F1 of the probe on the activations of test words
    main        the features that stand for it; main_f1: of a regression on them
    words       tokens of the test words that are judged
    full        of each, whether its projection was taken over by one feature while the main ones are silent
    fraction    of each, the part of its projection that other features carry, 0 to 1
    absorber    of each, the feature with the largest projection
    """

    name: str
    f1: float
    main: Int[Tensor, " k"]
    main_f1: float
    words: Int[Tensor, " words"]
    full: Bool[Tensor, " words"]
    fraction: Float[Tensor, " words"]
    absorber: Int[Tensor, " words"]


@dataclass(frozen=True, eq=False)
class Absorption:
    """What was found of each property, and F1 of the probe for those that were `left_out`."""

    properties: list[Absorbed]
    left_out: dict[str, float]

    def of(self, name: str) -> Absorbed:
        for one in self.properties:
            if one.name == name:
                return one
        raise ValueError(f"name={name!r} is not among {', '.join(one.name for one in self.properties)}")

    @property
    def rates(self) -> Float[Tensor, " properties"]:
        """The share of words with full absorption, of each property: for a bootstrap over properties."""
        return torch.stack([one.full.double().mean() for one in self.properties])

    @property
    def fractions(self) -> Float[Tensor, " properties"]:
        return torch.stack([one.fraction.double().mean() for one in self.properties])

    @property
    def rate(self) -> float:
        """SAEBench's mean_full_absorption_score; lower is better."""
        return float(self.rates.mean())

    @property
    def fraction(self) -> float:
        """SAEBench's mean_absorption_fraction_score; lower is better."""
        return float(self.fractions.mean())

    @property
    def n_main(self) -> float:
        """How many features a property is split into, on average (SAEBench's mean_num_split_features)."""
        return sum(len(one.main) for one in self.properties) / len(self.properties)


def feature_absorption(
    sae: SparseAutoencoder | Dictionary,
    words: WordExamples,
    *,
    max_k: int = 10,
    least_f1: float = 0.6,
    centred: bool = False,
) -> Absorption:
    """Absorption of each property of `words` that a linear probe finds in their activations.

    max_k       as many main features at most
    least_f1    properties whose probe has a lower F1 on the test words are left out
    centred     take the dictionary's constant from activations before they are projected. By default it counts as
                unexplained projection, as in SAEBench

    A lower rate is better only where the main features stand for the property: read `main_f1` along with it. Raises
    ValueError where no property is left, or the SAE is for activations of another width.
    """
    dictionary = dictionary_of(sae)
    check_width(dictionary, words.x)
    max_k = as_whole("max_k", max_k, least=1)
    train, test = ~words.test, words.test
    there = (words.labels[train].any(0) & words.labels[test].any(0) & ~words.labels[train].all(0)).nonzero()[:, 0]
    if not len(there):
        raise ValueError("words: no property has both training and test words; give more text")
    y_NC, names = words.labels[:, there], [words.names[i] for i in there.tolist()]
    rare_NC = _weights(y_NC[train])
    probe = property_probe(words.x[train], y_NC[train])
    says_NC = probe(words.x) > 0
    f1 = f1_scores(says_NC[test], y_NC[test])
    kept = (f1 >= least_f1).nonzero()[:, 0]
    left_out = {name: float(f1[i]) for i, name in enumerate(names) if f1[i] < least_f1}
    if not len(kept):
        raise ValueError(f"words: no property has a probe with F1 of least_f1={least_f1}; the best has {f1.max():.2f}")
    codes = _codes(dictionary, words.x)
    order_CF = _l1_order(_in_spreads(codes, dictionary, words.x), train, y_NC[:, kept], rare_NC[:, kept])
    found = []
    for place, c in enumerate(kept.tolist()):
        main, main_f1 = _main_features(codes, y_NC[:, c], test, order_CF[place, :max_k])
        judged = (test & y_NC[:, c] & says_NC[:, c]).nonzero()[:, 0]
        shares = _Projected.of(dictionary, words.x[judged], normalize(probe.weight[:, c], dim=0), centred)
        result = (shares.full(main), shares.fraction(main), shares.parts_NF.argmax(1))
        found.append(Absorbed(names[c], float(f1[c]), main, main_f1, words.token[judged], *result))
    return Absorption(found, left_out)


def property_probe(x: Float[Tensor, "n d"], label: Bool[Tensor, "n questions"]) -> LinearProbe:
    """For each question, the logistic regression on whose direction activations are projected. Yes and no weigh the
    same all together; the penalty is SAEBench's, 1e-4 / 2 · |w|² beside a loss averaged over examples and questions."""
    return logistic_regression(x, label, L2 * label.numel(), _weights(label))


def f1_scores(says: Bool[Tensor, "n questions"], label: Bool[Tensor, "n questions"]) -> Float[Tensor, " questions"]:
    """Of each question, the harmonic mean of precision and recall; 0 where nothing is said rightly."""
    return 2 * (says & label).sum(0) / (says.sum(0) + label.sum(0)).clamp(min=1)


@dataclass(frozen=True, eq=False)
class _Projected:
    """Activations on a direction of length 1, and what each feature adds to that."""

    whole_N: Tensor
    parts_NF: Tensor
    codes_NF: Tensor
    cosines_F: Tensor

    @classmethod
    def of(cls, dictionary: Dictionary, x_ND: Tensor, direction_D: Tensor, centred: bool) -> _Projected:
        codes_NF = dictionary.encode(x_ND)
        cosines_F = normalize(dictionary.directions, dim=1) @ direction_D
        whole_N = (x_ND - dictionary.constant if centred else x_ND) @ direction_D
        return cls(whole_N, codes_NF * (dictionary.directions @ direction_D), codes_NF, cosines_F)

    def full(self, main: Tensor) -> Bool[Tensor, " words"]:
        most_N, which_N = self.parts_NF.max(1)
        silent_N = (self.codes_NF[:, main].abs() < SILENT).all(1)
        aligned_N = self.cosines_F[which_N] >= FULL_COSINE
        return silent_N & aligned_N & (self.whole_N >= 0) & (most_N >= SHARE * self.whole_N)

    def fraction(self, main: Tensor) -> Float[Tensor, " words"]:
        by_main_N = self.parts_NF[:, main].sum(1)
        absorbs_F = self.cosines_F >= FRACTION_COSINE
        absorbs_F[main] = False
        others_NF = (self.parts_NF * absorbs_F).clamp(min=0)
        others_N = others_NF.topk(min(ABSORBERS, others_NF.shape[1]), dim=1).values.sum(1)
        none_N = (by_main_N >= self.whole_N) | (others_N / self.whole_N < SHARE)
        taken_N = torch.minimum(others_N, self.whole_N - by_main_N)
        part_N = (taken_N / (taken_N + by_main_N)).clamp(0, 1)
        return torch.where(none_N, 0.0, torch.where(by_main_N <= 0, 1.0, part_N))


def _weights(y_NC: Bool[Tensor, "n questions"]) -> Float[Tensor, "n questions"]:
    """Yes counts as much as no, all together."""
    n_yes = y_NC.sum(0)
    return torch.where(y_NC, (len(y_NC) - n_yes) / n_yes, 1.0)


def _codes(dictionary: Dictionary, x_ND: Float[Tensor, "words d"]) -> SparseCodes:
    return stack_tokens([SparseCodes.from_dense(dictionary.encode(part)) for part in in_pieces(dictionary, x_ND)])


def _in_spreads(codes: SparseCodes, dictionary: Dictionary, x_ND: Float[Tensor, "words d"]) -> SparseCodes:
    """What each feature adds, in units of the activations' spread."""
    spread = (x_ND - x_ND.mean(0)).square().mean().sqrt()
    return codes.with_values(codes.values * (dictionary.directions.norm(dim=1) / spread)[codes.features])


def _l1_order(codes: SparseCodes, train: Tensor, y_NC: Tensor, rare_NC: Tensor) -> Int[Tensor, "questions features"]:
    """Features by falling weight in a probe with an L1 penalty, those that speak for the property first."""
    sign_NC = 2.0 * y_NC[train] - 1
    w_FC = torch.zeros(codes.shape[1], y_NC.shape[1], requires_grad=True)
    b_C = torch.zeros(y_NC.shape[1], requires_grad=True)
    solver = torch.optim.Adam([w_FC, b_C], lr=FIRST_RATE)
    decay = torch.optim.lr_scheduler.ExponentialLR(solver, (LAST_RATE / FIRST_RATE) ** (1 / STEPS))
    with torch.enable_grad():
        for _ in range(STEPS):
            solver.zero_grad()
            scores_NC = (codes @ w_FC + b_C)[train]
            loss = (rare_NC * softplus(-sign_NC * scores_NC)).mean() + L1 * w_FC.abs().sum(0).mean()
            loss.backward()
            solver.step()
            decay.step()
    return w_FC.detach().T.argsort(dim=1, descending=True, stable=True)


def _main_features(
    codes: SparseCodes, y_N: Tensor, test: Tensor, candidates: Int[Tensor, " candidates"]
) -> tuple[Int[Tensor, " k"], float]:
    """The first k candidates: k grows while F1 of a regression on them, both kinds weighing the same, jumps."""
    z_NK = _columns(codes, candidates)
    y_N1, best, k = y_N[:, None], -1.0, 0
    balance_N1 = _weights(y_N1[~test])
    balance_N1 = balance_N1 * len(balance_N1) / balance_N1.sum()  # scikit-learn's class_weight="balanced"
    for more in range(1, len(candidates) + 1):
        probe = logistic_regression(z_NK[~test, :more], y_N1[~test], 1.0, balance_N1)
        f1 = float(f1_scores(probe(z_NK[test, :more]) > 0, y_N1[test]))
        if f1 <= best + (JUMP if k else 0):
            break
        best, k = f1, more
    return candidates[:k], best


def _columns(codes: SparseCodes, features: Sequence[int] | Tensor) -> Float[Tensor, "words chosen"]:
    place = torch.full((codes.shape[1],), -1)
    place[features] = torch.arange(len(features))
    mine = place[codes.features] >= 0
    chosen = codes.where(mine)
    dense = torch.zeros(codes.shape[0], len(features))
    dense[chosen.tokens, place[chosen.features]] = chosen.values
    return dense
