"""Exercises of notebook 00: words of a neuron, and how many different ones they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge


def check_mean_by_word(answer: Callable[[Tensor, Tensor, int], Tensor | None] | None) -> Verdict:
    """A function (activations (B, N), tokens (B,), V) -> (V, N): each neuron's mean activation on each token."""
    acts_BN = torch.tensor([[1.0, 0.0], [3.0, -1.0], [5.0, 1.0], [2.0, 2.0]])
    token_B = torch.tensor([2, 0, 2, 2])

    def small(mean_by_word: Callable[..., Any]) -> str | None:
        try:
            answered = mean_by_word(acts_BN.clone(), token_B, 4)
        except (RuntimeError, ValueError):  # rows do not fit together: would they, if the last token occurred?
            if _divides_along_the_wrong_axis(mean_by_word):
                return (
                    "Sums are (tokens, neurons), counts (tokens,): to divide row by row give the counts a second axis, "
                    "`count_V[:, None]`."
                )
            got = _means(mean_by_word(acts_BN.clone(), token_B, 3)).nan_to_num()  # token 1 may have NaN
            if got.allclose(solution_mean_by_word(acts_BN, token_B, 3)):
                return (
                    "Token 3 never occurs, and your counts end before it: `bincount` goes up to the largest token that "
                    "occurs. Its `minlength` says how many counts you want."
                )
            raise
        try:
            got = _means(answered)
        except (RuntimeError, TypeError, ValueError):
            if isinstance(answered, list | tuple | dict):
                return "Return one tensor of shape (tokens, neurons); `torch.stack` makes it of your rows."
            raise
        if got.shape != (4, 2):
            return f"Return a row for each token and a column for each neuron: (4, 2) here, not {tuple(got.shape)}."
        sums = torch.tensor([[3.0, -1.0], [0.0, 0.0], [8.0, 3.0], [0.0, 0.0]])
        if got.isnan().any():
            return "A token that never occurs has NaN: 0 divided by 0. Its mean should be 0."
        if torch.allclose(got, sums):
            return "These are sums: a frequent word wins because it is frequent. Divide by how often each token occurs."
        if torch.allclose(got, sums / 4):
            return (
                "You divide by the number of positions, so a frequent word wins. Divide by how often each token occurs."
            )
        positive = torch.tensor([[3.0, 0.0], [0.0, 0.0], [8 / 3, 1.5], [0.0, 0.0]])
        if torch.allclose(got, positive):
            return "Positions at which the neuron is not positive count as well: they belong to the mean."
        if got[2].allclose(acts_BN[token_B == 2].amax(0)):
            return "This is the largest activation of each word, one lucky position; the exercise asks for the mean."
        if got[2].allclose(sums[2] / 4):
            return (
                "You divide by one too many. With `+ 1` there is no 0 / 0, but every mean is too small: use "
                "`clamp(min=1)`. With `scatter_reduce` the zeros that it begins with count: `include_self=False`."
            )
        for divided_by in (1, 3):  # the count may have been lost as well, or not
            if any(got[2].allclose(row / divided_by) for row in acts_BN[token_B == 2]):
                return (
                    "Of token 2, which occurs three times, only one position was added: `sums[token_B] += …` adds "
                    "once for each token, however often it occurs."
                )
        right = solution_mean_by_word(acts_BN, token_B, 4)
        for token, (mine, true) in enumerate(zip(got, right)):
            if not torch.allclose(mine, true):
                return f"For token {token} the means are {_rounded(true)}; yours are {_rounded(mine)}."
        return None

    def large(mean_by_word: Callable[..., Any]) -> str | None:
        draw = torch.Generator().manual_seed(0)
        acts, tokens = torch.randn(500, 7, generator=draw), torch.randint(30, (500,), generator=draw)
        got = _means(mean_by_word(acts.clone(), tokens, 40))
        same = got.shape == (40, 7) and torch.allclose(got, solution_mean_by_word(acts, tokens, 40), atol=1e-5)
        return None if same else "It is right for four positions and fails on 500 random ones."

    return judge(
        "Exercise 1",
        answer,
        [small, large],
        hints=(
            "Two steps: add up the activations of all positions that hold a token, then divide by their number.",
            "`zeros.index_add_(0, token_B, acts_BN)` adds rows by token; `torch.bincount` counts the tokens.",
        ),
        praise="Rare or frequent, each word has its mean. With `use_mine = True` the notebook runs on your function.",
    )


def _divides_along_the_wrong_axis(mean_by_word: Callable[..., Any]) -> bool:
    """Whether sums (tokens, neurons) are divided by counts (tokens,): with as many neurons as tokens that goes through,
    and divides each neuron's sums by a token's count."""
    acts_BN = torch.tensor([[1.0, 2.0, 3.0], [5.0, 1.0, 2.0], [4.0, 3.0, 7.0], [2.0, 6.0, 1.0]])
    token_B, counts = torch.tensor([0, 1, 2, 2]), torch.tensor([1.0, 1.0, 2.0])
    got = _means(mean_by_word(acts_BN.clone(), token_B, 3))
    sums = torch.zeros(3, 3).index_add_(0, token_B, acts_BN)
    return got.shape == (3, 3) and got.allclose(sums / counts)


def _rounded(row: Tensor) -> str:
    return f"[{', '.join(f'{v:.2f}' for v in row.tolist())}]"


def _means(answered: Any) -> Tensor:
    """What a learner returned, also as an array of numpy."""
    return torch.as_tensor(answered).float()


def solution_mean_by_word(
    acts_BN: Float[Tensor, "positions neurons"], token_B: Int[Tensor, " positions"], n_tokens: int
) -> Float[Tensor, "tokens neurons"]:
    sum_VN = torch.zeros(n_tokens, acts_BN.shape[1]).index_add_(0, token_B, acts_BN)
    count_V = torch.bincount(token_B, minlength=n_tokens)
    return sum_VN / count_V.clamp(min=1)[:, None]


def check_guess(answer: Any, words: Float[Tensor, " neurons"]) -> Verdict:
    """How many of these neurons answer to fewer than two different words? Any kind of number will do."""
    n, truth = len(words), int((words < 2).sum())
    most = int(truth + 0.03 * n)  # that counts as close enough

    def near(guess: Any) -> str | None:
        guess = _number(guess)
        if guess >= n / 2:
            return "You expect one meaning for each neuron to be the rule. It is a rare exception."
        if guess <= most:
            return None
        return f"Far fewer: not {guess:g}, but less than one in a hundred." if truth < n / 100 else "There are fewer."

    def said(guess: Any) -> str:
        if _number(guess) == truth:
            return f"{truth} of {n:,}."
        return f"{truth} of {n:,}: close enough." if _number(guess) else f"Nearly none: {truth} of {n:,} do."

    if answer is not None and (odd := _no_guess(_number(answer), n)):
        return Verdict(False, f"○ Exercise 2: {odd}")  # not a wrong answer: it costs no hint
    return judge(
        "Exercise 2",
        answer,
        [near],
        hints=(
            "Our neuron is the most mixed one. Would one meaning for each neuron leave room for it?",
            f"Any whole number up to {most} is close enough.",
        ),
        praise=said,
    )


def _no_guess(guess: Any, n: int) -> str:
    """Why this cannot be a number of neurons, of which there are n; "" if it can."""
    if isinstance(guess, bool) or not isinstance(guess, int | float):
        return f"{guess!r} is no number. How many of the {n:,} neurons?"
    return "" if 0 <= guess <= n and guess % 1 == 0 else f"Give a whole number of neurons, from 0 to {n:,}."


def _number(guess: Any) -> Any:
    """A number of torch or numpy as one of Python; anything else as it is."""
    return guess.item() if hasattr(guess, "item") and getattr(guess, "shape", None) in ((), (1,)) else guess


def check_effective_number(answer: Callable[[Tensor], Any] | None) -> Verdict:
    """A function from unit vectors (words, dimensions) to 1 / (mean of max(0, cosine) over all pairs)."""
    eye = torch.eye(6)

    def function(effective_number: Any) -> str | None:
        return None if callable(effective_number) else "Give the function itself, not what it returns."

    def five(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(eye[[0, 1, 2, 3, 4] * 4]))
        if abs(got - 0.2) < 1e-3:
            return "That is the mean similarity. The number of words is one divided by it."
        if abs(got - 1 / 80) < 1e-4:
            return "Take the mean over the pairs, not the sum."
        if abs(got - 0.25) < 1e-3:
            return "You divide the sum of the table by K. A mean over all K × K pairs divides it by K²."
        if abs(got - 8) < 1e-3 or abs(got - 4.2) < 1e-3:
            return (
                "You take each pair of different words once, and the table has it twice. All K × K cells belong to "
                "the mean."
            )
        if got == float("inf") or any(abs(got - wrong) < 0.01 for wrong in (20 / 3, 19 / 3, 40 / 3)):
            return "A word is still not compared with itself. All K × K pairs belong to the mean."
        return (
            None if abs(got - 5) < 1e-3 else f"Five unrelated words in equal shares count as 5; yours says {got:.3g}."
        )

    def same(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(eye[[0] * 10]))
        return None if abs(got - 1) < 1e-3 else f"Ten times the same word counts as 1; yours says {got:.3g}."

    def opposite(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(torch.cat([eye[:1], -eye[:1]])))
        if abs(got - 2) < 1e-3:
            return None
        why = ". You take them for the same word" if abs(got - 1) < 1e-3 else ""
        return f"Opposite vectors are unrelated, similarity 0, and count as 2; yours says {got:.3g}{why}."

    def alike(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])))
        if abs(got - 8 / 5) < 1e-3:
            return "Take the mean of the cosines themselves, not of their squares."
        return None if abs(got - 4 / 3) < 1e-3 else f"Two words of cosine 1/2 count as 4/3; yours says {got:.3g}."

    return judge(
        "Exercise 3",
        answer,
        [function, five, same, opposite, alike],
        hints=(
            "Compute by hand, then with the function: two unrelated words, and one word twice.",
            "One line takes something away from the table of cosines that the formula keeps.",
        ),
        praise="It counts words, and similar words count as partly the same.",
    )


def solution_effective_number(unit_WD: Float[Tensor, "words dimensions"]) -> float:
    return float(1 / (unit_WD @ unit_WD.T).clamp(min=0).mean())
