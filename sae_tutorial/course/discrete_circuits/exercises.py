"""Exercises on discrete circuits: the score of a head, what labels drawn at random give, and ties in an AUC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_tutorial.circuits.discrete import different, node_scores
from sae_tutorial.circuits.edges import roc
from sae_tutorial.course.judge import Verdict, judge, known_mistake, share_near

# Exercise 1: build the score.


def check_score(answer: Any) -> Verdict:
    """`answer(codes, positive)`: (E, H) whole numbers and (E,) bool -> (H,), how many codes each head has on positives
    and on no negative."""
    codes = torch.tensor([[1, 4, 9], [2, 4, 9], [2, 5, 9], [3, 5, 9], [1, 6, 9], [1, 7, 9], [7, 8, 9]])
    positive = torch.tensor([True, True, True, True, False, False, False])
    right = solution_score(codes, positive)

    def a_number_each(answer: Callable) -> str | None:
        try:
            got = answer(codes.clone(), positive.clone())
        except IndexError as error:
            if "mask" in str(error):  # a row has one entry for each head, and `positive` one for each example
                return "heads are columns: go through codes.T"
            raise
        except TypeError as error:
            if "unhashable" in str(error):
                return "codes[positive] is a table of examples and heads: take one column of it at a time"
            raise
        except RuntimeError as error:
            if "ambiguous" in str(error):
                return "`not` asks for one truth value; ~positive turns every entry round"
            raise
        if isinstance(got, (list, tuple)) and any(isinstance(one, set) for one in got):
            return "return how many codes are left for each head, not the sets themselves"
        if not isinstance(got, (list, tuple, Tensor, np.ndarray, int, float)):
            return f"return a list or tensor of numbers, one for each head; yours is of type {type(got).__name__}"
        shape = tuple(torch.as_tensor(got).shape)
        return None if shape == (3,) else f"return one number for each of 3 heads; yours has the shape {shape}"

    def the_numbers(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(codes.clone(), positive.clone())).float()
        ours, theirs = codes[positive], codes[~positive]
        unseen = ~(ours[:, None] == theirs[None]).any(1)
        wrong = {
            "you compare examples one by one; a code counts only if no negative example at all has it": (
                (ours[: len(theirs)] != theirs).sum(0)
            ),
            "a set of tensors compares objects, not numbers: make it from .tolist()": positive.sum().expand(3),
            "you count examples; a code that comes twice counts once": unseen.sum(0),
            "positives need not be the first half: use the mask `positive`": (
                node_scores(codes, torch.arange(len(codes)) < len(codes) // 2)
            ),
            "you count codes of negatives that positives lack: it is the other way round": node_scores(
                codes, ~positive
            ),
            "these are all codes of positives; take away those that a negative has": different(ours),
            "these are all codes there are; take those of positives that no negative has": different(codes),
            "you subtract numbers of codes; subtract the sets, and then count": different(ours) - different(theirs),
            "these are the codes that both kinds have; count those of positives that no negative has": (
                different(ours) - right
            ),
            "that is a share of the positives' codes; the score is how many there are": right / different(ours),
            "that is a share of all the head's codes; the score is how many there are": right / different(codes),
            "you count both kinds' own codes; count only the positives'": (
                node_scores(codes, positive) + node_scores(codes, ~positive)
            ),
        }
        if torch.equal(got, right.float()):
            return None
        return (
            known_mistake(got, wrong)
            or f"here the heads score {right.tolist()}; yours says {[round(one, 2) for one in got.tolist()]}"
        )

    hints = (
        "For one head: set(codes of positives) - set(codes of negatives). How many are left?",
        "Loop over columns: codes[positive, h].tolist() is what head h says on positives.",
    )
    praise = "No gradient of the model, no patching: sets are all there is to it."
    return judge("Exercise 1", answer, [a_number_each, the_numbers], hints, praise)


def solution_score(codes: Tensor, positive: Tensor) -> Tensor:
    columns = [(set(one[positive].tolist()), set(one[~positive].tolist())) for one in codes.T]
    return torch.tensor([len(ours - theirs) for ours, theirs in columns])


# Exercise 2: predict what labels drawn at random give.


def check_shuffled(guess: Any, measured: float) -> Verdict:
    """`guess`: the mean AUC with shuffled labels, 0 to 1."""
    hints = (
        "A head that says the same on every prompt scores 0 with any labels. What does one score that says another "
        "thing each time?",
        "Do the heads of this circuit say more different things at END than others?",
    )
    praise = f"It is {measured:.2f}. Where does it come from, if not from the labels?"

    def not_one_half(guess: Any) -> str | None:
        if isinstance(guess, (int, float)) and abs(guess - 0.5) < 0.06 < abs(measured - 0.5):
            return "it would be 0.5 if all heads said equally many things; here it is more, as in the toy's last row"
        return None

    return judge("Exercise 2", guess, [not_one_half, *share_near(measured, within=0.07)], hints, praise)


# Exercise 3: find the bug.


def area_with_a_bug(scores: Tensor, members: Tensor) -> float:
    """How often a head of the circuit scores above another one; but for one mistake."""
    return float((scores[members][:, None] >= scores[~members]).float().mean())


def check_area(answer: Any) -> Verdict:
    """`answer(scores, members)`: (H,) and (H,) bool -> the area under the ROC."""
    members = torch.tensor([True, False, True, False, False, True])
    cases = {
        "no two heads score the same": torch.tensor([5.0, 6.0, 4.0, 2.0, 3.0, 1.0]),
        "all heads score the same": torch.full((6,), 3.0),
        "some score the same": torch.tensor([3.0, 2.0, 2.0, 3.0, 0.0, 2.0]),
    }

    def mended(answer: Callable) -> str | None:
        for name, scores in cases.items():
            returned = torch.as_tensor(answer(scores.clone(), members.clone()))
            if returned.numel() != 1:
                return f"return one number, the mean over all pairs; yours has the shape {tuple(returned.shape)}"
            got, right = float(returned), solution_area(scores, members)
            if abs(got - right) < 1e-4:
                continue
            one_by_one = float((scores[members] > scores[~members]).float().mean())
            if name.startswith("no two") and abs(got - one_by_one) < 1e-4:
                return f"compare each right head with each wrong one, in all pairs: {right:.2f} and not {got:.2f}"
            if name.startswith("no two") and abs(got - (1 - right)) < 1e-4:
                return f"you count pairs in which the wrong head is ahead: {got:.2f} in place of {right:.2f}"
            if abs(got - area_with_a_bug(scores, members)) < 1e-4:
                told = "as in the code that was given, a tie counts as if the head of the circuit were ahead"
                return f"{told}: {got:.2f} where {name}"
            if name.startswith("no two") and abs(got - (2 * right - 1)) < 1e-4:
                return f"a pair in the wrong order counts 0, not -1: {right:.2f} and not {got:.2f}"
            strict = float((scores[members][:, None] > scores[~members]).float().mean())
            if abs(got - strict) < 1e-4:
                return f"where {name}, a tie now counts as if the other head were ahead: {got:.2f}"
            return f"where {name}, the area is {right:.2f}; yours says {got:.2f}"
        return None

    hints = (
        "Try scores that are all equal: they know nothing, so what must the area be?",
        "A tie is neither above nor below: count it half.",
    )
    praise = "Scores that are small whole numbers tie often; with the bug, a method that knows nothing has an AUC of 1."
    return judge("Exercise 3", answer, [mended], hints, praise)


def solution_area(scores: Tensor, members: Tensor) -> float:
    return roc(scores, members).area
