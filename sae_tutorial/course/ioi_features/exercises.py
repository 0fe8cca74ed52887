"""Exercises of notebook 09: patching with features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: the formula.


def check_patch(answer: Any) -> Verdict:
    """`answer(x, codes, wanted, directions, chosen)`: x' for tokens (N, D), codes (N, F), chosen a list of features."""
    generator = torch.Generator().manual_seed(0)
    x, directions = torch.randn(4, 6, generator=generator), torch.randn(5, 6, generator=generator)
    codes, wanted = (torch.rand(4, 5, generator=generator) for _ in range(2))

    def same(a: Any, b: Tensor) -> bool:
        return torch.as_tensor(a).shape == b.shape and torch.allclose(torch.as_tensor(a), b, atol=1e-5)

    def nothing(answer: Callable) -> str | None:
        got = answer(*(t.clone() for t in (x, codes, wanted, directions)), [])
        if same(got, codes @ directions) or same(got, wanted @ directions):
            return "with no feature chosen x stays as it is; you return a reconstruction, so what it leaves out is lost"
        return None if same(got, x) else "with no feature chosen, x must stay as it is"

    def some(answer: Callable) -> str | None:
        chosen = [0, 3]
        right = solution_patch(x, codes, wanted, directions, chosen)
        got = answer(*(t.clone() for t in (x, codes, wanted, directions)), chosen)
        if same(got, right):
            return None
        if same(got, 2 * x - right):
            return "that leads away from the other sentence: the change is wanted − codes"
        if same(got, x + (wanted - codes) @ directions):
            return "all features are patched; only those in `chosen` may be"
        if same(got, x + wanted[:, chosen] @ directions[chosen]):
            return "the old part of the feature must go when the new one comes: wanted − codes"
        if same(got, x):
            return "nothing is patched (is a copy changed, or the original? `n = codes` does not copy)"
        return "for chosen = [0, 3] the result is another"

    hint = "what the codes of the chosen features would gain, as a matrix product with their directions, is added to x."
    praise = "What the dictionary cannot say stays in place: only so can good and bad dictionaries be compared."
    return judge("Exercise 1", answer, [nothing, some], hint, praise)


def solution_patch(x: Tensor, codes: Tensor, wanted: Tensor, directions: Tensor, chosen: Sequence[int]) -> Tensor:
    """x + Σ_{j∈F} (c̄_j − c_j) f_j."""
    return x + (wanted - codes)[:, chosen] @ directions[chosen]


# Exercise 2: how many to half the way?


def check_halfway(answer: Any) -> Verdict:
    """`answer(counts, losses)`: the count at which the loss is half of that at count 0, on straight lines; or inf."""

    def plain(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 4, 8], [8.0, 7.0, 5.0, 3.5, 1.0]))
        if math.isclose(got, 2 + 2 * 1.0 / 1.5, abs_tol=1e-4):
            return None
        if got == 4:
            return "4 is the first count that was tried at which half is reached; the line from 2 to 4 is there earlier"
        if got == 2:
            return "with 2 features the loss is 5.0, not yet half of 8.0"
        told = "losses 8, 7, 5, 3.5, 1 for 0, 1, 2, 4, 8 features: the line from 2 to 4 crosses 4.0 at 3.33"
        return f"{told}, you say {got:.3g}"

    def exactly(answer: Callable) -> str | None:
        got = float(answer([0, 3, 5], [6.0, 3.0, 0.0]))
        return None if math.isclose(got, 3, abs_tol=1e-6) else "exactly half counts as half: 3"

    def bumpy(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 4], [4.0, 1.5, 2.5, 1.0]))
        return (
            None
            if math.isclose(got, 0.8, abs_tol=1e-4)
            else ("a loss may rise again behind the first place; the smallest count is asked for")
        )

    def rising(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 4], [4.0, 6.0, 2.5, 1.5]))
        return (
            None
            if math.isclose(got, 3.0, abs_tol=1e-4)
            else ("the first loss is the measure, even where a bad patch makes it larger than that")
        )

    def never(answer: Callable) -> str | None:
        got = float(answer([0, 1, 1000], [9.0, 8.0, 6.0]))
        return (
            None if math.isinf(got) else "a dictionary whose floor lies above half never gets there: say float('inf')"
        )

    hint = (
        "walk through the pairs of neighbours; at the first whose second loss is <= losses[0] / 2, go as far from the "
        "first count to the second as the loss has to fall from the first loss to half."
    )
    praise = "One number for each sentence, so two dictionaries can be compared sentence by sentence, as pairs."
    return judge("Exercise 2", answer, [plain, exactly, bumpy, rising, never], hint, praise)


def solution_halfway(counts: Sequence[float], losses: Sequence[float]) -> float:
    """On a straight line between the first count that is there and the one before."""
    half = losses[0] / 2
    for i in range(1, len(counts)):
        if losses[i] <= half:
            part = (losses[i - 1] - half) / (losses[i - 1] - losses[i])
            return counts[i - 1] + part * (counts[i] - counts[i - 1])
    return math.inf


# Exercise 3: F1 of a feature.


def check_f1(answer: Any) -> Verdict:
    """`answer(active, has)`: F1 of a feature that is on in `active`, for a value that is there in `has`; both bool."""
    active = torch.tensor([True, True, True, False, False, False])
    has = torch.tensor([True, False, False, True, False, False])

    def mixed(answer: Callable) -> str | None:
        got = float(answer(active, has))
        wrong = {
            1 / 3: "that is the precision",
            1 / 2: "that is the recall (or the accuracy)",
            5 / 12: "that is their plain mean",
        }
        for value, complaint in wrong.items():
            if math.isclose(got, value, abs_tol=1e-5):
                return f"{complaint}; F1 is the harmonic mean of precision and recall"
        return (
            None if math.isclose(got, 0.4, abs_tol=1e-5) else f"precision 1/3, recall 1/2: F1 is 0.4, you say {got:.3g}"
        )

    def ends(answer: Callable) -> str | None:
        if not math.isclose(float(answer(has, has)), 1.0, abs_tol=1e-5):
            return "a feature that is on exactly where the value is has an F1 of 1"
        silent = torch.zeros_like(has)
        return None if abs(float(answer(silent, has))) < 1e-5 else "a silent feature has an F1 of 0 (mind the division)"

    hint = "2 · both / (how often active + how often there), where `both` counts the places that have both."
    praise = "The same formula, for all features and values at once, is a matrix product: `supervised.best_f1`."
    return judge("Exercise 3", answer, [mixed, ends], hint, praise)


def solution_f1(active: Tensor, has: Tensor) -> float:
    """Harmonic mean of precision and recall, without a division by zero."""
    return 2 * float((active & has).sum()) / max(1.0, float(active.sum() + has.sum()))


# Exercise 4: predict what is hidden.


def check_gain(answer: Any) -> Verdict:
    """`answer(norm, price)`: what a feature of its own saves (error² + price · code) for a vector so long."""

    def loud(answer: Callable) -> str | None:
        got = float(answer(2.0, 1.0))
        if math.isclose(got, 4.0):
            return "4 is the error without the feature; with it there is still a price to pay"
        if math.isclose(got, 2.0):
            return "2 is what you save with the code 2; the best code is smaller, norm − price/2, and saves more"
        return (
            None
            if math.isclose(got, 2.25, abs_tol=1e-6)
            else f"norm 2, price 1: the best code is 1.5, you say {got:.4g}"
        )

    def faint(answer: Callable) -> str | None:
        got = float(answer(0.4, 1.0))
        if abs(got) < 1e-6:
            return None
        return f"norm 0.4, price 1: silence is cheapest, so nothing is saved; you say {got:.3g}"

    def searched(answer: Callable) -> str | None:
        codes = torch.linspace(0, 3, 30_001)
        for norm, price in ((1.0, 1.0), (1.5, 0.6), (0.9, 2.5)):
            best = norm**2 - float(((norm - codes) ** 2 + price * codes).min())
            if not math.isclose(float(answer(norm, price)), best, abs_tol=1e-3):
                return f"norm {norm}, price {price}: a search over codes saves {best:.3f}"
        return None

    hint = "where does the derivative of the loss with respect to c vanish, and may c be there?"
    praise = (
        "(norm − price/2)₊². Twice as loud is far more than twice as worth saying: the faint attribute is heard last."
    )
    return judge("Exercise 4", answer, [loud, faint, searched], hint, praise)


def solution_gain(norm: float, price: float) -> float:
    """The square of what is left of the norm after the price."""
    return max(0.0, norm - price / 2) ** 2
