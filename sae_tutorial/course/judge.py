"""Exercises that answer back. One module per notebook, named after it.

An exercise is `check_<topic>(answer) -> Verdict` and, beside it, `solution_<topic>`. A check never raises: a stub
is "not answered yet", a learner's exception is shown, and a wrong answer is told what is wrong with it. Help comes in
stages: nothing with the first wrong answer, a hint with the second, another one with the third.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A test looks at the answer and returns what is wrong with it, or None (or True) when it is content.
# It may also raise AssertionError with that message.
Test = Callable[[Any], "str | bool | None"]


@dataclass(frozen=True)
class Verdict:
    """Did the answer pass, and what is there to say about it? Its repr is what the notebook shows."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message

    def __bool__(self) -> bool:
        return self.passed


class Tries:
    """How many wrong answers each exercise has had since the kernel started, to know when a hint is due."""

    def __init__(self) -> None:
        self.wrong: Counter[tuple[str, str]] = Counter()

    def hint_after(self, name: str, hints: Sequence[str]) -> str:
        """Count a wrong answer; "" after the first, then one hint more each time, as long as there are any."""
        key = (name, hints[0])
        self.wrong[key] += 1
        return "".join(f"\n  Hint: {hint}" for hint in hints[: self.wrong[key] - 1])


TRIES = Tries()


class NotAnswered(Exception):
    """Raised inside a test when a learner's function returned None: the stub is still there."""


def judge(
    name: str,
    answer: Any,
    tests: Sequence[Test],
    hints: str | Sequence[str],
    praise: str | Callable[[Any], str] = "That is right.",
) -> Verdict:
    """Try `answer` against `tests` in order and stop at the first that complains.

    Args:
        name: what the verdict calls the exercise, for example "Exercise 2".
        answer: a value or a function; None means that the learner has not started.
        tests: each returns None (or True) if content, else a sentence that says what is wrong. If `answer` is a
            function, tests see it wrapped by `calling`, so that a None it returns counts as not answered yet.
        hints: one or two sentences that help without giving the answer away: the first is added to the second
            complaint, the second to the third.
        praise: said when all tests are content; what the reader has just shown, or a function of the answer.

    Exceptions of any kind, the learner's or a test's own, end in the verdict and never in a traceback.
    """
    if answer is None:
        return _not_answered(name)
    hints = (hints,) if isinstance(hints, str) else tuple(hints)
    candidate = calling(answer) if callable(answer) else answer
    for test in tests:
        try:
            complaint = test(candidate)
        except NotAnswered:
            return _not_answered(name)
        except AssertionError as error:
            complaint = str(error) or "A check failed."
        except Exception as error:  # whatever a half-finished answer throws is feedback, not a crash
            what = str(error).partition("\n")[0]  # PyTorch may list a hundred backends below it
            complaint = f"It stopped with {type(error).__name__}: {what}"
        if complaint is False:
            complaint = "That is not it."
        if isinstance(complaint, str):
            return Verdict(False, f"✗ {name}: {complaint}{TRIES.hint_after(name, hints)}")
    return Verdict(True, f"✓ {name}: {praise(candidate) if callable(praise) else praise}")


def known_mistake(got: Any, wrong: Mapping[str, Any]) -> str | None:
    """What is to be said of the first of these wrong answers, by what it says, that `got` equals up to rounding: both
    are numbers or tensors of one shape. None if it is none of them."""
    import torch

    def alike(other: Any) -> bool:
        return torch.allclose(torch.as_tensor(got).float(), torch.as_tensor(other).float(), atol=1e-4)

    return next((told for told, other in wrong.items() if alike(other)), None)


def numbers_like(
    ask: Callable[[Any], Any], right: Any, wrong: Mapping[str, Any], shape: str, otherwise: str
) -> list[Test]:
    """The tests of an answer that is a tensor of numbers: has it the shape of `right`, and are they the right ones?

    Args:
        ask: what the answer says, for example `lambda answer: answer(x, k)`. It may return anything like a tensor.
        right: the numbers that are expected.
        wrong: what to say of each known mistake, and the numbers that it leads to; see `known_mistake`.
        shape: what to return, said where the shape is another: "return a score for each word, (words,)".
        otherwise: said of numbers that are none of these. "{0[2]:.3f}" in it shows one of theirs.
    """
    import torch

    right = torch.as_tensor(right).float()

    def said(answer: Any) -> Any:
        return torch.as_tensor(ask(answer)).detach().float()

    def of_one_shape(answer: Any) -> str | None:
        got = tuple(said(answer).shape)
        return None if got == tuple(right.shape) else f"{shape}; yours has the shape {got}"

    def equal(answer: Any) -> str | None:
        got = said(answer)
        return None if torch.allclose(got, right, atol=1e-5) else known_mistake(got, wrong) or otherwise.format(got)

    return [of_one_shape, equal]


def share_near(measured: float, within: float = 0.1) -> list[Test]:
    """The tests of a guess at a share, 0 to 1: is it one, and is it within so much of what was measured?"""

    def a_share(guess: Any) -> str | None:
        try:
            share = float("nan" if isinstance(guess, (bool, str)) else guess)
        except (TypeError, ValueError):
            share = float("nan")
        if share != share:
            return f"answer with a share, a number from 0 to 1; you say {guess!r}"
        if 1 < share <= 100:
            return f"a share is a number from 0 to 1: write {share / 100:g} for {share:g}%"
        return None if 0 <= share <= 1 else f"a share is a number from 0 to 1; you say {share:g}"

    def near(guess: Any) -> str | None:
        if abs(float(guess) - measured) <= within:
            return None
        return "it is less than that" if float(guess) > measured else "it is more than that"

    return [a_share, near]


def calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, except that a None result raises `NotAnswered`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if result is None:
            raise NotAnswered
        return result

    return call


def _not_answered(name: str) -> Verdict:
    return Verdict(False, f"○ {name}: not answered yet.")
