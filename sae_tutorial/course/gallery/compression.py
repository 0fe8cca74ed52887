"""Exercises of the gallery's notebooks on compression: what a network can do without."""

from __future__ import annotations

from typing import Any

import torch

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# Maestro: how often ordered dropout trains each column.


def check_shares(answer: Any) -> Verdict:
    """`answer(r)`: a number of columns -> the share of the steps in which each of them is trained, (r,)."""
    right = torch.tensor(solution_shares(4))
    wrong = {
        "the other way round: with b = 1 it is the *first* column that is trained": right.flip(0),
        "that is how often b is each number; column j is trained for all b of j and more": torch.full((4,), 0.25),
        "all are trained only where b is largest": torch.ones(4),
        "that counts from 0: the first column is trained at every step": right - 0.25,
        "that is how many of the r numbers, not their share": 4 * right,
    }
    shape = "return a share for each of the columns, here ({},)"
    otherwise = "of {} columns the second is trained in {:.0%}; yours says {{0[1]:.0%}}"
    tests = [
        *numbers_like(lambda answer: answer(4), right, wrong, shape.format(4), otherwise.format(4, 3 / 4)),
        *numbers_like(lambda answer: answer(7), solution_shares(7), {}, shape.format(7), otherwise.format(7, 6 / 7)),
    ]
    hints = (
        "Write down the columns that are trained for b = 1, for b = 2, …, and count.",
        "Column j, counted from 1, is trained for b = j, j + 1, …, r.",
    )
    praise = "The first column learns at every step, and must do well alone; the last is rarely asked."
    return judge("The exercise", answer, tests, hints, praise)


def solution_shares(r: int) -> list[float]:
    return [(r - j) / r for j in range(r)]
