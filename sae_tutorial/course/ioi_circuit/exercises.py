"""Exercises of notebook 08: counterfactuals, direct attribution, patching, and what a circuit is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge


def check_swapped(answer: Callable[[str, str, str], Any] | None) -> Verdict:
    """A function (sentence, io, giver) -> the same sentence with the other one as the giver."""

    def turns(text: str, io: str, giver: str, want: str) -> Callable[[Any], str | None]:
        def right(swapped: Callable[[str, str, str], Any]) -> str | None:
            got = swapped(text, io, giver)
            if got == want:
                return None
            if got == text:
                return "Nothing has changed."
            if got.count(giver) == 2 and got.count(io) == 1:
                return f"{got!r} still has {giver} as the giver: you exchanged the two names everywhere."
            if got == text.replace(giver, io):
                return f"{got!r} lost {giver}: only the last mention changes, what stands before it stays."
            return f"For {text!r} it should be {want!r}, not {got!r}."

        return right

    tests = [
        turns(
            "When Mary and John went to the store, John gave a drink to",
            "Mary",
            "John",
            "When Mary and John went to the store, Mary gave a drink to",
        ),
        turns(
            "The day that Tom visited Anna at the park, Tom offered the ball to",
            "Anna",
            "Tom",
            "The day that Tom visited Anna at the park, Anna offered the ball to",
        ),
        turns(
            "Then Lucy and Paul had lunch at the river. Later Paul passed the ring to",
            "Lucy",
            "Paul",
            "Then Lucy and Paul had lunch at the river. Later Lucy passed the ring to",
        ),
    ]
    return judge(
        "Exercise 1",
        answer,
        tests,
        hints="str.rsplit(giver, 1) splits at the last mention only.",
        praise="One token differs, and the right answer is the other name.",
    )


def solution_swapped(sentence: str, io: str, giver: str) -> str:
    before, after = sentence.rsplit(giver, 1)
    return before + io + after


def check_direct(answer: Callable[..., Any] | None) -> Verdict:
    """A function (z (D,), W_O (D, M), scale, W_U (M, V), right, wrong) -> direct attribution of one head, a number."""
    generator = torch.Generator().manual_seed(0)
    z, w_o, w_u = (torch.randn(*size, generator=generator) for size in ((4,), (4, 6), (6, 9)))
    w_o = w_o - w_o.mean(-1, keepdim=True)
    scale, right_id, wrong_id = 2.5, 3, 7
    want = solution_direct(z, w_o, scale, w_u, right_id, wrong_id)

    def right(direct: Callable[..., Any]) -> str | None:
        got = float(direct(z, w_o, scale, w_u, right_id, wrong_id))
        if abs(got - want) < 1e-4:
            return None
        if abs(got - want * scale) < 1e-4:
            return "The last LayerNorm divides everything by its scale; so must you."
        if abs(got + want) < 1e-4:
            return "The sign is turned around: right minus wrong."
        if abs(got - float(z @ w_o @ w_u[:, right_id]) / scale) < 1e-4:
            return "That is the logit of the right name alone; take the difference to the wrong one."
        return f"For the head that I tried it is {want:.4f}; yours is {got:.4f}."

    return judge(
        "Exercise 2",
        answer,
        [right],
        hints="z @ W_O is what the head writes; W_U[:, right] - W_U[:, wrong] is the direction that counts.",
        praise="Three products, one number: what one head says about the answer.",
    )


def solution_direct(z: Tensor, w_o: Tensor, scale: float, w_u: Tensor, right: int, wrong: int) -> float:
    return float(z @ w_o @ (w_u[:, right] - w_u[:, wrong]) / scale)


def check_patch(answer: Callable[[Tensor, Tensor, Tensor], Any] | None) -> Verdict:
    """A function (acts (B, P, M), new (B, P, M), where (B,)) -> acts with one position per sentence from new."""
    new = torch.arange(24.0).view(3, 4, 2) + 1
    acts = -new  # nowhere zero, so that what must be kept can be told from what was never there
    where = torch.tensor([2, 0, 3])
    want = solution_patch(acts, new, where)

    def right(patch: Callable[..., Any]) -> str | None:
        before = acts.clone()
        got = patch(before, new, where)
        if not isinstance(got, Tensor) or got.shape != acts.shape:
            found = getattr(got, "shape", type(got).__name__)
            return f"Return a tensor of the shape of acts, (3, 4, 2); yours is {found}."
        if torch.equal(got, want):
            if not torch.equal(before, acts):
                return "The values are right, but you wrote into the tensor that you were given: clone it first."
            return None
        if torch.equal(got[:, where], new[:, where]):
            return "Every sentence got all three positions. Pair them up: acts[rows, where] with rows = arange(B)."
        rows = torch.arange(len(acts))
        if torch.equal(got[rows, where], want[rows, where]):
            return "The right places hold the new values, but the other places must keep acts."
        if torch.equal(got[rows, where], (acts + new)[rows, where]):
            return "Replace what stands there, do not add to it."
        return "The wrong places have changed; sentence i gets position where[i], and no other."

    return judge(
        "Exercise 3",
        answer,
        [right],
        hints="Indexing with two lists of the same length, acts[rows, where], picks pairs.",
        praise="This is all that patching is; the rest is which, where and from whom.",
    )


def solution_patch(acts: Tensor, new: Tensor, where: Tensor) -> Tensor:
    acts, rows = acts.clone(), torch.arange(len(acts))
    acts[rows, where] = new[rows, where]
    return acts


def check_prediction(answer: str | None, measured: float) -> Verdict:
    """The word "up", "down" or "stays", against the change that was measured, in logits."""
    truth = solution_prediction(measured)

    def right(word: Any) -> str | None:
        if word not in ("up", "down", "stays"):
            return f'Answer "up", "down" or "stays", not {word!r}.'
        return None if word == truth else f"It changes by {measured:+.2f} logits."

    return judge(
        "Exercise 4",
        answer,
        [right],
        hints="What does such a head say about the right name, and what about the wrong one? See the map of two names.",
        praise=f"It changes by {measured:+.2f} logits.",
    )


def solution_prediction(measured: float) -> str:
    if measured != measured:
        raise ValueError("measured=nan: there is no change to predict.")
    return "stays" if abs(measured) < 0.5 else ("up" if measured > 0 else "down")


def check_faithfulness(answer: Callable[[float, float, float], Any] | None) -> Verdict:
    """A function (circuit, whole, nothing) -> share of the distance from nothing to the whole model."""

    def case(circuit: float, whole: float, nothing: float) -> Callable[[Any], str | None]:
        want = solution_faithfulness(circuit, whole, nothing)

        def right(faithfulness: Callable[[float, float, float], Any]) -> str | None:
            got = float(faithfulness(circuit, whole, nothing))
            if abs(got - want) < 1e-6:
                return None
            if abs(got - circuit / whole) < 1e-6:
                return "Where does your scale begin? With every head silenced it should say 0."
            return f"With {circuit}, {whole} and {nothing} it is {want:.3f}; yours says {got:.3f}."

        return right

    return judge(
        "Exercise 5",
        answer,
        [case(3.0, 3.0, 1.0), case(1.0, 3.0, 1.0), case(4.0, 3.0, -1.0)],
        hints="0 when the circuit does no better than nothing, 1 when it does as well as the whole model.",
        praise="It can be above 1: heads that were left out may have held the answer back.",
    )


def solution_faithfulness(circuit: float, whole: float, nothing: float) -> float:
    return (circuit - nothing) / (whole - nothing)
