"""Dictionaries made from labels, and what they tell about dictionaries that were learned.

For a task as small as naming the indirect object we know what an activation should hold: who receives (IO), who gives
(S), and who was named first (order). A supervised dictionary has one vector for each value of each attribute,

    a ≈ mean + u[IO = Mary] + u[S = John] + u[order = ABB]

and so three active features in every activation. It is what a learned dictionary is held against, in three tests:

    sufficient, necessary   does the model still answer from the reconstruction? and from what it leaves out?
    sparse_edit             how few features must change to change one attribute?
    best_f1, held_out_f1    does a single feature stand for a single value?

Activations are taken at one position per role, see `ioi.ROLES`. Source: Makelov et al. 2024; what is ours is marked.

Letters of shapes: B sentences, R roles, D dimensions, F features, V values, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.circuits.feature_patching import Edit
from sae_tutorial.circuits.ioi import ROLES, Frame, Sentences, counterfactual, logit_difference, sentences_of
from sae_tutorial.circuits.prompts import at, normalised, usable
from sae_tutorial.evaluation.intervals import bootstrap
from sae_tutorial.figures.kinds import Span

ATTRIBUTES = ("IO", "S", "order")
Run = Callable[[Float[Tensor, "sentences positions d"]], Float[Tensor, "sentences vocab"]]


def label(frame: Frame, attribute: str) -> str:
    """The value of an attribute; the order is "ABB" if the indirect object is named first, else "BAB"."""
    values = {"IO": frame.io, "S": frame.wrong, "order": "ABB" if frame.a == frame.io else "BAB"}
    if attribute not in values:
        raise ValueError(f"attribute={attribute!r} is none of {', '.join(ATTRIBUTES)}.")
    return values[attribute]


def indicators(sentences: Sentences, values: Sequence[tuple[str, str]]) -> Float[Tensor, "sentences values"]:
    """1 where a sentence has a value, given as (attribute, value), else 0."""
    rows = [[float(label(frame, attribute) == value) for attribute, value in values] for frame in sentences.frames]
    return torch.tensor(rows, device=sentences.tokens.device)


def values_of(sentences: Sentences) -> list[tuple[str, str]]:
    """Every (attribute, value) that occurs, attribute by attribute, in alphabetical order."""
    return [(a, v) for a in ATTRIBUTES for v in sorted({label(frame, a) for frame in sentences.frames})]


def at_roles(
    acts_BPD: Float[Tensor, "sentences positions d"], sentences: Sentences
) -> Float[Tensor, "sentences roles d"]:
    """The activation at each of `ioi.ROLES`."""
    return torch.stack([at(acts_BPD, sentences.positions[role]) for role in ROLES], dim=1)


def with_roles(
    acts_BPD: Float[Tensor, "sentences positions d"], new_BRD: Float[Tensor, "sentences roles d"], sentences: Sentences
) -> Float[Tensor, "sentences positions d"]:
    """The same activations with others at the roles; the inverse of `at_roles`."""
    acts_BPD, rows = acts_BPD.clone(), torch.arange(len(acts_BPD), device=acts_BPD.device)
    for i, role in enumerate(ROLES):
        acts_BPD[rows, sentences.positions[role]] = new_BRD[:, i]
    return acts_BPD


@dataclass(frozen=True)
class Supervised:
    """One vector per value and role.

    Attributes:
        mean: (R, D).
        values: the (attribute, value) that each feature stands for.
        vectors: (F, R, D).
    """

    mean: Float[Tensor, "roles d"]
    values: tuple[tuple[str, str], ...]
    vectors: Float[Tensor, "features roles d"]

    def reconstruct(self, sentences: Sentences) -> Float[Tensor, "sentences roles d"]:
        """Mean + the vectors of the sentence's three values. A value that was never seen adds nothing."""
        return self.mean + torch.einsum("bf,frd->brd", indicators(sentences, self.values), self.vectors)

    def edit(self, x_BPD: Float[Tensor, "sentences positions d"], sentences: Sentences, other: Sentences) -> Edit:
        """x' = x − u[old value] + u[new value], at every role: two features for each role and attribute that
        changes."""
        step_BF = indicators(other, self.values) - indicators(sentences, self.values)
        F, R, D = self.vectors.shape
        changes = x_BPD.new_zeros(*x_BPD.shape[:2], F, R)
        rows = torch.arange(len(x_BPD), device=x_BPD.device)
        for r, role in enumerate(ROLES):
            changes[rows, sentences.positions[role], :, r] = step_BF
        return Edit(x_BPD, changes.flatten(2), self.vectors.flatten(0, 1), sentences.positions["END"])


def fit(
    acts_BRD: Float[Tensor, "sentences roles d"], sentences: Sentences, how: Literal["mean", "mse"] = "mse"
) -> Supervised:
    """Vectors from labelled activations.

    `"mean"`: u = (mean of the activations with this value) − (mean of all). Right if attributes are independent.
    `"mse"`: the vectors that together leave the least squared error. Better if some values come together more often
    than others, as names do here: no one receives what they give themselves.
    """
    if how not in ("mean", "mse"):
        raise ValueError(f"how={how!r} must be 'mean' or 'mse'.")
    values = values_of(sentences)
    on_BF, mean_RD = indicators(sentences, values), acts_BRD.mean(0)
    centred = (acts_BRD - mean_RD).flatten(1)
    if how == "mean":
        vectors = (on_BF / on_BF.sum(0)).T @ centred
    else:  # indicators of one attribute sum to 1, so there are many solutions; pinv takes the shortest
        solve = torch.linalg.pinv((on_BF - on_BF.mean(0)).double(), rtol=1e-8)
        vectors = (solve @ centred.double()).to(centred)
        vectors = vectors - _by_attribute(values, on_BF.mean(0), vectors)
    return Supervised(mean_RD, tuple(values), vectors.unflatten(1, acts_BRD.shape[1:]))


def _by_attribute(values: list[tuple[str, str]], share_F: Tensor, vectors: Tensor) -> Tensor:
    """The mean vector of each attribute over the sentences, at each of its values: what belongs in the mean."""
    mean = torch.zeros_like(vectors)
    for attribute in ATTRIBUTES:
        mine = torch.tensor([a == attribute for a, _ in values])
        mean[mine] = share_F[mine] @ vectors[mine]
    return mean


def changed(model: Any, sentences: Sentences, attribute: str, seed: int = 0) -> Sentences:
    """The same sentences with another value of one attribute: another receiver, another giver, or names the other way
    round. `positions` stay where they stood. The order is Makelov et al.'s Pos."""
    if attribute == "IO":
        return counterfactual(model, sentences, "other_io", seed)
    if attribute == "S":
        generator = torch.Generator().manual_seed(seed)
        names = usable(
            model, sorted({name for frame in sentences.frames for name in (frame.io, frame.wrong)}), "names", 3
        )

        def other(frame: Frame) -> Frame:
            left = [name for name in names if name not in (frame.io, frame.wrong)]
            new = left[int(torch.randint(len(left), (), generator=generator))]
            a, b = (new if name == frame.wrong else name for name in (frame.a, frame.b))
            return replace(frame, a=a, b=b, s=new, wrong=new)
    elif attribute == "order":

        def other(frame: Frame) -> Frame:
            return replace(frame, a=frame.b, b=frame.a)
    else:
        raise ValueError(f"attribute={attribute!r} is none of {', '.join(ATTRIBUTES)}.")
    new = sentences_of(model, [other(frame) for frame in sentences.frames], sentences.tokens.shape[1])
    return replace(new, positions=sentences.positions, groups=sentences.groups)


# ---------------------------------------------------------------------- three tests


def answers(run: Run, x_BPD: Tensor, new_BRD: Tensor, sentences: Sentences) -> Float[Tensor, " sentences"]:
    """Logit difference, right name minus wrong, with other activations at the roles."""
    with torch.no_grad():
        return logit_difference(run(with_roles(x_BPD, new_BRD, sentences)), sentences)


def sufficient_and_necessary(
    run: Run, x_BPD: Tensor, x_hat_BRD: Float[Tensor, "sentences roles d"], mean_RD: Tensor, sentences: Sentences
) -> tuple[float, float]:
    """How much of the answer a reconstruction carries, and how much is lost without it. 1 and 1 is best.

    Logit differences with x̂ at the roles, and with mean + (x − x̂), on a scale where the mean alone is 0 and x
    itself is 1. Necessity is 1 − that share for mean + (x − x̂), so that a reconstruction without error has 1 in both.

    Raises ValueError if the mean alone answers as x does.
    """
    own_BRD = at_roles(x_BPD, sentences)
    full, none, with_it, without = (
        answers(run, x_BPD, new, sentences).mean()
        for new in (own_BRD, mean_RD.expand_as(own_BRD), x_hat_BRD, mean_RD + own_BRD - x_hat_BRD)
    )
    return float(normalised(with_it, full, none)), float(1 - normalised(without, full, none))


def largest(dictionary: Dictionary, k: int) -> Dictionary:
    """The same with the `k` largest codes of each token alone: what axes, which are all on, must be cut down to before
    they can be held against an SAE that chooses its features token by token."""

    def encode(x_ND: Tensor) -> Tensor:
        codes_NF = dictionary.encode(x_ND)
        return codes_NF * torch.zeros_like(codes_NF).scatter_(1, codes_NF.abs().topk(k, dim=1).indices, 1)

    return replace(dictionary, encode=encode)


@torch.no_grad()
def on_top(run: Run, x_BPD: Tensor, new_BRD: Tensor, sentences: Sentences) -> float:
    """In which share of the sentences the right name is the likeliest of all tokens, with other activations at the
    roles. A share of the logit difference asks only which of the two names is above the other."""
    return float((run(with_roles(x_BPD, new_BRD, sentences)).argmax(dim=1) == sentences.io).float().mean())


def sparse_edit(
    source_ND: Float[Tensor, "tokens d"],
    target_ND: Float[Tensor, "tokens d"],
    changes_NF: Float[Tensor, "tokens features"],
    directions_FD: Float[Tensor, "features d"],
    k: int,
) -> Float[Tensor, "tokens d"]:
    """The source, moved towards the target by changing at most `k` of its features to what they are in the target.

    Each step takes the feature that brings the token nearest: |source + Σ change_j f_j − target|² greedily, and none
    that leads away. The exact optimum is a subset-sum problem. Makelov et al. 2024 may remove a feature of the
    source without adding that of the target; a feature that is active in both is changed here, never only removed.
    """
    left_ND, open_NF = target_ND - source_ND, changes_NF != 0
    cost_NF = changes_NF.square() * directions_FD.square().sum(1)
    rows = torch.arange(len(source_ND), device=source_ND.device)
    for _ in range(k):
        gain_NF = (2 * changes_NF * (left_ND @ directions_FD.T) - cost_NF).masked_fill(~open_NF, 0)
        best, j = gain_NF.max(1)
        step = torch.where(best > 0, changes_NF[rows, j], 0)
        left_ND = left_ND - step[:, None] * directions_FD[j]
        open_NF[rows, j] = False
    return target_ND - left_ND


def few_edits(
    dictionary: Dictionary,
    source_BRD: Float[Tensor, "sentences roles d"],
    target_BRD: Float[Tensor, "sentences roles d"],
    k: int,
) -> Float[Tensor, "sentences roles d"]:
    """`sparse_edit` of the activations at each role, at most `k` features of a dictionary each."""
    a_ND, t_ND = source_BRD.flatten(0, 1), target_BRD.flatten(0, 1)
    changes_NF = dictionary.encode(t_ND) - dictionary.encode(a_ND)
    return sparse_edit(a_ND, t_ND, changes_NF, dictionary.directions, k).view_as(source_BRD)


@torch.no_grad()
def follow(
    run: Run,
    x_BPD: Tensor,
    edited: Sequence[Float[Tensor, "sentences roles d"]],
    goal_BRD: Float[Tensor, "sentences roles d"],
    sentences: Sentences,
) -> Float[Tensor, " sentences"]:
    """Which sentences get the goal's answer after an edit, 1 or 0; of several edits, one for each seed of a dictionary,
    each sentence's mean. The answer: the likeliest token. By sentence, so that two dictionaries can be paired."""
    said = [run(with_roles(x_BPD, new_BRD, sentences)).argmax(dim=1) for new_BRD in (goal_BRD, *edited)]
    return torch.stack([one == said[0] for one in said[1:]]).float().mean(dim=0)


def share(agree_B: Float[Tensor, " sentences"]) -> Span:
    """Of what `follow` returns: the mean, with its 95 % interval over sentences."""
    middle, low, high = (float(end) for end in bootstrap(agree_B))
    return middle, low, high


def best_f1(
    active_NF: Bool[Tensor, "tokens features"], has_NV: Float[Tensor, "tokens values"]
) -> tuple[Float[Tensor, " values"], Int[Tensor, " values"]]:
    """For each value, the best F1 of a single feature, read as "is active", and which feature that is.

    Raises ValueError if there are no features.
    """
    if active_NF.shape[1] == 0:
        raise ValueError("active_NF has no features to choose from; give at least one.")
    active_NF = active_NF.to(has_NV.dtype)
    both_VF = has_NV.T @ active_NF
    best = _f1(both_VF, has_NV.sum(0)[:, None], active_NF.sum(0)).max(1)
    return best.values, best.indices


def held_out_f1(
    active_NF: Bool[Tensor, "tokens features"], has_NV: Float[Tensor, "tokens values"]
) -> Float[Tensor, " values"]:
    """For each value the F1 of its best feature: chosen on the first half of the tokens, scored on the second. The best
    of many, scored where it was chosen, is good at anything."""
    half = len(active_NF) // 2
    chosen_V = best_f1(active_NF[:half], has_NV[:half])[1]
    active_NV, has_NV = active_NF[half:, chosen_V].to(has_NV.dtype), has_NV[half:]
    return _f1((active_NV * has_NV).sum(0), has_NV.sum(0), active_NV.sum(0))


def f1_of_each(
    dictionary: Dictionary, x_ND: Float[Tensor, "tokens d"], has_NV: Float[Tensor, "tokens values"]
) -> Float[Tensor, " values"]:
    """For each value the F1 of its best feature, scored on the half on which it was not chosen."""
    return held_out_f1(dictionary.encode(x_ND) > 0, has_NV)


def _f1(both: Tensor, there: Tensor, active: Tensor) -> Tensor:
    """Harmonic mean of precision and recall, from three counts; 0 where there are none."""
    return 2 * both / (there + active).clamp(min=1)
