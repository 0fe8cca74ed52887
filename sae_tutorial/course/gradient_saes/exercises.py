"""Exercises of notebook 12: choose by the gradient, and average what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: predict which of two numbers tells better what removing a feature does.

TELLS = ("affinity", "sensitivity", "both")


def check_prediction(answer: Any, agreement: Mapping[str, float]) -> Verdict:
    """`answer`: one of TELLS. `agreement`: of each, the rank correlation with the KL that was measured."""
    best = max(TELLS, key=agreement.__getitem__)

    def known(answer: Any) -> str | None:
        return None if answer in TELLS else f"answer with one of {', '.join(map(repr, TELLS))}; you say {answer!r}"

    def right(answer: str) -> str | None:
        if answer == best:
            return None
        return f"“{answer}” has a rank correlation of {agreement[answer]:.2f}, another one has more"

    hints = (
        "The gradient is exact for a tiny step. How large a step is it to remove a feature?",
        "A gradient is that of one answer per token. Does it know how the other predictions change?",
    )
    praise = f"“{best}” has {agreement[best]:.2f}. A product with something noisy can be worse than one factor alone."
    return judge("Exercise 1", answer, [known, right], hints, praise)


def solution_prediction(agreement: Mapping[str, float]) -> str:
    return max(TELLS, key=agreement.__getitem__)


# Exercise 2: find the bug in an average over answers.


def mean_sensitivity_with_a_bug(gradients: Tensor, direction: Tensor) -> float:
    """gradients (answers, d), one for each answer that the model would give; direction (d,) of a feature."""
    return float((gradients.mean(0) @ direction).abs())


def check_mean_sensitivity(answer: Any) -> Verdict:
    """`answer(gradients, direction)`: how strongly the predictions depend on the direction, from many answers."""
    generator = torch.Generator().manual_seed(0)
    listens = torch.randn(4000, 3, generator=generator) * torch.tensor([2.0, 0.5, 0.0])
    first, second, third = torch.eye(3)

    def not_nothing(answer: Callable) -> str | None:
        got = float(answer(listens.clone(), first.clone()))
        if got < 0.2:
            return (
                "answers pull the first direction up and down, by 2 each way, and yours says "
                f"{got:.2f}: pulls of either sign cancel in your average"
            )
        return None

    def right(answer: Callable) -> str | None:
        for direction, size in ((first, 2.0), (second, 0.5)):
            got = float(answer(listens.clone(), direction.clone()))
            if abs(got - size) < 0.05 * size:
                continue
            if abs(got - size**2) < 0.1 * size**2:
                return f"yours is {got:.2f}, the mean square; take its root, so that it scales as a sensitivity does"
            if abs(got - 0.798 * size) < 0.03 * size:
                return f"yours is {got:.2f}, the mean of absolute values; asked is the root of the mean square"
            return f"the root of the mean square is {size:g} here; yours is {got:.2f}"
        got = float(answer(listens.clone(), third.clone()))
        return None if abs(got) < 1e-3 else f"no answer depends on the third direction; yours says {got:.2f}"

    hints = (
        "If answers are drawn from the model itself, the mean of their gradients is exactly 0 in the long run.",
        "Ask each gradient first, (gradients @ direction), then square, average, and take the root.",
    )
    praise = (
        "Ask each answer first, then average the squares. That is the feature's Fisher information, but for the root."
    )
    return judge("Exercise 2", answer, [not_nothing, right], hints, praise)


def solution_mean_sensitivity(gradients: Tensor, direction: Tensor) -> float:
    return float((gradients @ direction).square().mean().sqrt())


# Exercise 3: build Gradient Choice.


def check_gradient_choice(answer: Any) -> Verdict:
    """`answer(z, sensitivity, k, beta)`: both (tokens, features); the codes, z where it is chosen, else 0."""
    z = torch.tensor([[2.0, 1.5, 1.0, -3.0], [0.5, 0.4, 0.3, 0.2]])
    sensitivity = torch.tensor([[0.2, -1.4, 0.1, 9.0], [0.1, 0.8, -4.0, 2.5]])

    def shaped(answer: Callable) -> str | None:
        got = answer(z.clone(), sensitivity.clone(), 2, 1.0)
        shape = tuple(getattr(got, "shape", ()))
        return (
            None if shape == (2, 4) else f"return a table of (tokens, features), here (2, 4); yours has shape {shape}"
        )

    def without_beta(answer: Callable) -> str | None:
        got = _asked(answer, z, sensitivity, 2, 0.0)
        if _same(got, solution_gradient_choice(z, sensitivity, 2, 0.0)):
            return None
        if _same(got, solution_gradient_choice(z, sensitivity, 2, 1.0)):
            return "with β = 0 it should be Token Choice; your answer does not use `beta`"
        return _diagnosis(got, z, sensitivity, 2, 0.0) or "with β = 0 it should be Token Choice: the k largest z"

    def with_beta(answer: Callable) -> str | None:
        for k, beta in ((1, 0.1), (1, 1.0), (2, 1.0), (2, 4.0)):
            got = _asked(answer, z, sensitivity, k, beta)
            if not _same(got, solution_gradient_choice(z, sensitivity, k, beta)):
                told = _diagnosis(got, z, sensitivity, k, beta)
                return (
                    told
                    or f"with k = {k} and β = {beta:g} the first token should have "
                    + _features(solution_gradient_choice(z, sensitivity, k, beta)[0])
                    + f"; yours has {_features(got[0])}"
                )
        return None

    def few_are_positive(answer: Callable) -> str | None:
        got = _asked(answer, torch.tensor([[1.0, -2.0, -0.5]]), torch.ones(1, 3), 2, 1.0)
        return (
            None if (got >= 0).all() else "a negative affinity was chosen: only one is positive, so one is all there is"
        )

    hints = (
        "The score is z + beta * z * |sensitivity|, for positive z. It decides who is chosen, and not which value.",
        "torch.zeros_like(z).scatter(1, chosen, z.gather(1, chosen)) puts the chosen values in their places.",
    )
    praise = "Selection by the score, values from the affinity. With β = 0 it is TopK."
    return judge("Exercise 3", answer, [shaped, without_beta, with_beta, few_are_positive], hints, praise)


def _asked(answer: Callable, z: Tensor, sensitivity: Tensor, k: int, beta: float) -> Tensor:
    return torch.as_tensor(answer(z.clone(), sensitivity.clone(), k, beta)).detach().float()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, atol=1e-5))


def _features(row: Tensor) -> str:
    chosen = ", ".join(f"{i}" for i in row.nonzero()[:, 0].tolist())
    return f"features {chosen or 'none'} on"


def _diagnosis(got: Tensor, z: Tensor, sensitivity: Tensor, k: int, beta: float) -> str | None:
    """What a wrong table was made by."""
    scores = z + beta * z * sensitivity.abs()
    right = solution_gradient_choice(z, sensitivity, k, beta)
    if _same(got, torch.where(right > 0, scores, 0.0)):
        return "the right features, with their scores as values: what matches keeps its affinity z"
    if _same(got, _chosen(z, z + beta * z * sensitivity, k)):
        return "the sign of the sensitivity counts in yours: a feature that lowers the loss is as telling; take `abs()`"
    if _same(got, _chosen(z, beta * z * sensitivity.abs(), k)) or _same(got, _chosen(z, z * sensitivity.abs(), k)):
        return "your score leaves out the z itself: it is z + β z |sensitivity|"
    if _same(got, _chosen(z, z + beta * sensitivity.abs(), k)):
        return "the sensitivity is multiplied by z: a feature that writes nothing changes no loss"
    if _same(got, _chosen(z, scores, k, dim=0)):
        return "k features for each *token*: you took k tokens for each feature; use dim=1"
    if (got < 0).any():
        return "a negative affinity was chosen; it is no match"
    return None


def _chosen(z: Tensor, scores: Tensor, k: int, dim: int = 1) -> Tensor:
    chosen = torch.where(z > 0, scores, -torch.inf).topk(min(k, z.shape[dim]), dim=dim).indices
    return torch.zeros_like(z).scatter(dim, chosen, z.relu().gather(dim, chosen))


def solution_gradient_choice(z: Tensor, sensitivity: Tensor, k: int, beta: float) -> Tensor:
    scores = (z + beta * z * sensitivity.abs()).relu()
    chosen = scores.topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, chosen, z.relu().gather(1, chosen))


# Exercise 4: predict what training with gradients does.

WORDS = ("less", "the same", "more")


def check_words(answer: Any, changes: Sequence[float]) -> Verdict:
    """`answer`: a word of WORDS for the squared error, and one for the KL; `changes`: what they did, as shares."""
    asked = ("squared error", "KL")

    def two_words(answer: Any) -> str | None:
        if not isinstance(answer, tuple | list) or len(answer) != 2 or not all(word in WORDS for word in answer):
            return f"answer with two of {', '.join(map(repr, WORDS))}, first for the squared error; you say {answer!r}"
        return None

    def right(answer: Sequence[str]) -> str | None:
        wrong = [
            f"the {name} is not “{word}”" for name, word, rise in zip(asked, answer, changes) if word != _word(rise)
        ]
        return "; ".join(wrong) or None

    hints = (
        "The rule pays squared error for features to which the loss is sensitive.",
        "Remember what a single answer knew of the KL.",
    )
    said = ", ".join(f"{name} {rise:+.1%}" for name, rise in zip(asked, changes))
    return judge("Exercise 4", answer, [two_words, right], hints, f"It is so: {said}.")


def _word(rise: float) -> str:
    return "the same" if abs(rise) < 0.01 else "more" if rise > 0 else "less"


def solution_words(changes: Sequence[float]) -> tuple[str, str]:
    return _word(changes[0]), _word(changes[1])
