"""Exercises of notebook 12: choose by the gradient, and average what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.allocation import SparseCodes
from sae_tutorial.course.judge import Verdict, judge
from sae_tutorial.evaluation.intervals import Ratio

# Exercise 1: predict which of two numbers, or their product, tells best what removing a feature does.

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
        "Of what the product is made of, one factor depends on a single word that happened to follow. Which?",
        "The KL is about all words that might follow. What does a factor that knows of one only do to a product?",
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
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    # The first two coordinates pull together, so that no average over single coordinates knows their difference.
    noise = noise / noise.square().mean(0).sqrt()
    gradients = noise @ torch.tensor([[2.0, 1.5, 0.0], [0.0, 0.5, 0.0]])
    first, second, third = torch.eye(3)

    def asked(answer: Callable, direction: Tensor) -> float:
        return float(answer(gradients.clone(), direction.clone()))

    def one_number(answer: Callable) -> str | None:
        shape = tuple(torch.as_tensor(answer(gradients.clone(), first.clone())).shape)
        if shape == (len(gradients),):
            return f"return one number for the direction; yours has one for each answer, {shape[0]:,}: average them"
        if shape == (3,):
            return "return one number for the direction; yours has one for each coordinate: where is `direction`?"
        return None if torch.Size(shape).numel() == 1 else f"return one number; yours has shape {shape}"

    def not_nothing(answer: Callable) -> str | None:
        got = asked(answer, first)
        if abs(got - float((gradients @ first).norm()) / len(gradients)) < 1e-3:
            return "the mean belongs under the root: divide the sum of squares by their number, then take the root"
        if abs(got) < 0.2:
            return (
                "answers pull the first direction up and down, by 2 each way, and yours says "
                f"{got:.2f}: pulls of either sign cancel in your average"
            )
        return None

    def right(answer: Callable) -> str | None:
        for direction in (first, second, first - second, third):
            told = _mistaken_average(asked(answer, direction), gradients, direction)
            if told:
                return told
        got, size = float(answer(gradients[:4].clone(), first.clone())), solution_mean_sensitivity(gradients[:4], first)
        if abs(got - size) > 0.02 * size:
            return f"for four answers it is {size:.2f}, yours is {got:.2f}: do not take the mean off, as a std does"
        return None

    hints = (
        "If answers are drawn from the model itself, the mean of their gradients is exactly 0 in the long run.",
        "Ask each gradient first, (gradients @ direction), then square, average, and take the root.",
    )
    praise = (
        "Ask each answer first, then average the squares. That is the feature's Fisher information, but for the root."
    )
    return judge("Exercise 2", answer, [one_number, not_nothing, right], hints, praise)


def _mistaken_average(got: float, gradients: Tensor, direction: Tensor) -> str | None:
    """What is wrong with the number that an answer has for this direction, if anything is."""
    pulls, size = gradients @ direction, solution_mean_sensitivity(gradients, direction)

    def is_(number: Tensor | float) -> bool:
        return abs(got - float(number)) <= 0.02 * abs(float(number)) + 1e-3

    coordinates = gradients.square().mean(0)
    if is_(size):
        return None
    if size == 0:
        return f"no answer depends on the third direction; yours says {got:.2f}"
    if is_(size**2):
        return f"yours is {got:.2f}, the mean square; take its root, so that it scales as a sensitivity does"
    if is_(pulls.abs().mean()):
        return f"yours is {got:.2f}, the mean of absolute values; asked is the root of the mean square"
    if is_(pulls.norm()) or is_(pulls.square().sum()):
        return f"yours is {got:.2f} and grows with the number of answers: take the mean of the squares, not their sum"
    if any(is_(one) for one in ((coordinates.sqrt() @ direction).abs(), (coordinates @ direction.square()).sqrt())):
        return (
            f"yours is {got:.2f} for a direction that lies between two coordinates, where it should be {size:.2f}: it "
            "squares and averages coordinates; first ask each gradient for the direction, gradients @ direction"
        )
    return f"the root of the mean square is {size:.2f} here; yours is {got:.2f}"


def solution_mean_sensitivity(gradients: Tensor, direction: Tensor) -> float:
    return float((gradients @ direction).square().mean().sqrt())


# Exercise 3: build Gradient Choice.

TIMES_Z = "the sensitivity is multiplied by z: a feature that writes nothing changes no loss"
PRODUCT_OR_SUM = torch.tensor([[1.0, 0.1]]), torch.tensor([[1.0, 3.0]])  # z and slope that tell the two apart


def check_gradient_choice(answer: Any) -> Verdict:
    """`answer(z, slope, k, beta)`: both (tokens, features); the codes, z where it is chosen, else 0."""
    z = torch.tensor([[2.0, 1.5, 1.0, -3.0], [0.5, 0.4, 0.3, 0.2]])
    slope = torch.tensor([[0.2, -1.4, 0.1, 9.0], [0.1, 0.8, -4.0, 2.5]])

    def shaped(answer: Callable) -> str | None:
        got = answer(z.clone(), slope.clone(), 2, 1.0)
        if isinstance(got, SparseCodes):
            return "return a table; yours are SparseCodes: call .to_dense() on them"
        shape = tuple(getattr(got, "shape", ()))
        return (
            None if shape == (2, 4) else f"return a table of (tokens, features), here (2, 4); yours has shape {shape}"
        )

    def without_beta(answer: Callable) -> str | None:
        got = _asked(answer, z, slope, 2, 0.0)
        if _same(got, solution_gradient_choice(z, slope, 2, 0.0)):
            return None
        if _same(got, solution_gradient_choice(z, slope, 2, 1.0)):
            return "with β = 0 it should be Token Choice; your answer does not use `beta`"
        return _diagnosis(got, z, slope, 2, 0.0) or "with β = 0 it should be Token Choice: the k largest z"

    def with_beta(answer: Callable) -> str | None:
        for k, beta in ((1, 0.1), (1, 1.0), (2, 1.0), (2, 4.0)):
            got, right = _asked(answer, z, slope, k, beta), solution_gradient_choice(z, slope, k, beta)
            if not _same(got, right):
                told = _diagnosis(got, z, slope, k, beta)
                if told == TIMES_Z and _asked(answer, *PRODUCT_OR_SUM, 1, 1.0)[0, 0]:
                    told = "the slope is not squared: the score is z + beta * z * |slope|"
                row = int((got - right).abs().sum(1).argmax())
                return (
                    told
                    or f"with k = {k} and β = {beta:g} token {row} should have {_features(right[row])}; "
                    + f"yours has {_features(got[row])}"
                )
        return None

    def few_are_positive(answer: Callable) -> str | None:
        got = _asked(answer, torch.tensor([[1.0, -2.0, -0.5]]), torch.ones(1, 3), 2, 1.0)
        return (
            None if (got >= 0).all() else "a negative affinity was chosen: only one is positive, so one is all there is"
        )

    hints = (
        "The score is z + beta * z * |slope|, for positive z. It decides who is chosen, and not which value.",
        "With `chosen` the indices of the k largest scores of each token, "
        "torch.zeros_like(z).scatter(1, chosen, z.relu().gather(1, chosen)) puts their values where they belong.",
    )
    praise = "Selection by the score, values from the affinity. With β = 0 it is TopK."
    return judge("Exercise 3", answer, [shaped, without_beta, with_beta, few_are_positive], hints, praise)


def _asked(answer: Callable, z: Tensor, slope: Tensor, k: int, beta: float) -> Tensor:
    return torch.as_tensor(answer(z.clone(), slope.clone(), k, beta)).detach().float()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, atol=1e-5))


def _features(row: Tensor) -> str:
    chosen = ", ".join(f"{i}" for i in row.nonzero()[:, 0].tolist())
    return f"features {chosen or 'none'} on"


def _diagnosis(got: Tensor, z: Tensor, slope: Tensor, k: int, beta: float) -> str | None:
    """What a wrong table was made by."""
    scores = z + beta * z * slope.abs()
    right = solution_gradient_choice(z, slope, k, beta)
    if _same(got, torch.where(right > 0, scores, 0.0)) and not _same(got, right):
        return "the right features, with their scores as values: what matches keeps its affinity z"
    if _same((got != 0).float(), (right != 0).float()):
        return "the right features, with other values than their affinities z"
    if _same(got, _chosen(z, z + beta * z * slope, k)):
        return (
            "the sign of the slope counts in yours: one that lowers the loss counts as much as one that raises it: "
            "sensitivity is slope.abs()"
        )
    if _same(got, _chosen(z, beta * z * slope.abs(), k)) or _same(got, _chosen(z, z * slope.abs(), k)):
        return "your score leaves out the z itself: it is z + β z |slope|"
    if _same(got, _chosen(z, z + beta * slope.abs(), k)):
        return TIMES_Z
    if _same(got, _chosen(z, scores, k, dim=0)):
        return "k features for each *token*: you took k tokens for each feature; use dim=1"
    if (got < 0).any():
        return "a negative affinity was chosen; it is no match"
    if _same(got, _by_size(z, scores, k)):
        return "a large negative affinity took a slot in yours, with nothing to write: compare z, not |z|"
    return None


def _chosen(z: Tensor, scores: Tensor, k: int, dim: int = 1) -> Tensor:
    chosen = torch.where(z > 0, scores, -torch.inf).topk(min(k, z.shape[dim]), dim=dim).indices
    return torch.zeros_like(z).scatter(dim, chosen, z.relu().gather(dim, chosen))


def _by_size(z: Tensor, scores: Tensor, k: int) -> Tensor:
    chosen = scores.abs().topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, chosen, z.relu().gather(1, chosen))


def solution_gradient_choice(z: Tensor, slope: Tensor, k: int, beta: float) -> Tensor:
    scores = (z + beta * z * slope.abs()).relu()
    chosen = scores.topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, chosen, z.relu().gather(1, chosen))


# Exercise 4: predict what training with gradients does.

WORDS = ("less", "more", "open")  # open: zero lies within the interval


def check_words(answer: Any, changes: Sequence[Ratio]) -> Verdict:
    """`answer`: a word of WORDS for the squared error, and one for the KL; `changes`: what they did, with intervals."""
    asked = ("squared error", "KL")

    def two_words(answer: Any) -> str | None:
        if not isinstance(answer, tuple | list) or len(answer) != 2 or not all(word in WORDS for word in answer):
            return f"answer with two of {', '.join(map(repr, WORDS))}, first for the squared error; you say {answer!r}"
        return None

    def right(answer: Sequence[str]) -> str | None:
        wrong = [
            f"the {name} changes by {_told(one)}, which counts as “{_word(one)}”, not as “{word}”"
            for name, word, one in zip(asked, answer, changes)
            if word != _word(one)
        ]
        return "; ".join(wrong) or None

    hints = (
        "The features with the largest affinities write most. What does the squared error do if a token takes others?",
        "For the KL, remember what the gradient of a single answer knew of it.",
    )
    said = ", ".join(f"{name} {_told(one)}" for name, one in zip(asked, changes))
    return judge("Exercise 4", answer, [two_words, right], hints, f"It is so: {said}.")


def _told(change: Ratio) -> str:
    return f"{change.mean:+.1%} [{change.low:+.1%}, {change.high:+.1%}]"


def _word(change: Ratio) -> str:
    return "more" if change.low > 0 else "less" if change.high < 0 else "open"


def solution_words(changes: Sequence[Ratio]) -> tuple[str, str]:
    return _word(changes[0]), _word(changes[1])
