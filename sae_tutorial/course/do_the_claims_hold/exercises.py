"""Exercises of notebook 06: comparisons that mean something."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from sae_tutorial.course.judge import NotAnswered, Verdict, judge
from sae_tutorial.evaluation.intervals import holm

# Exercise 1: predict what a higher learning rate does to a comparison.

CHANGES = ("less error", "about the same", "more error")


def check_prediction(answer: Any, behind: float) -> Verdict:
    """`answer` is one of CHANGES: what Mutual Choice has against Token Choice at twice the default rate; `behind` is
    what was measured there, relative."""

    def known(answer: Any) -> str | None:
        return None if answer in CHANGES else f"answer one of {', '.join(map(repr, CHANGES))}; you say {answer!r}"

    def right(answer: str) -> str | None:
        return None if answer == solution_prediction(behind) else f"not {answer}. Think again, or run the next cell"

    hints = (
        "From a quarter of the default rate to the default the gap shrinks from 6.7% to 2.3%.",
        "At half the default it is 4.9%: the first doubling took 1.8 points, the second 2.6, and the steps grow.",
    )
    praise = "So a comparison at one rate says as much about the rate as about the rules."
    return judge("Exercise 1", answer, [known, right], hints, praise)


def solution_prediction(behind: float) -> str:
    """What happened, within a percent of nothing being the same."""
    return CHANGES[1] if abs(behind) < 0.01 else CHANGES[0] if behind < 0 else CHANGES[2]


# Exercise 2: are these two runs a comparison of rules?

# What a line of the grid says about how an SAE was made; everything else in it came out.
SETTINGS = ("method", "model", "hook", "d_sae", "k", "seed", "steps", "batch_size", "noise", "precision", "lr")


def check_what_differs(answer: Any) -> Verdict:
    """`answer(one, other)`: the names of the settings, beside the method, in which two lines of the table differ."""
    one = {"method": "token_choice", "k": 32, "lr": 2.8e-3, "seed": 0, "steps": 1000, "fvu": 0.072, "dead": 0.02}
    fair = one | {"method": "mutual_choice", "fvu": 0.068, "dead": 0.01}
    unfair = fair | {"lr": 5.6e-3, "steps": 3000}
    lacking = {name: value for name, value in fair.items() if name != "seed"}

    def names(answer: Callable) -> str | None:
        got = answer(dict(one), dict(fair))
        if isinstance(got, bool):
            return "return the names in which they differ, not whether they do"
        if isinstance(got, (int, float)):
            return "return the names, not how many they are"
        return "return a set of names, not one text" if isinstance(got, str) else None

    def fair_pair(answer: Callable) -> str | None:
        got = set(answer(dict(one), dict(fair)))
        if "method" in got:
            return "the method is meant to differ; ask for everything else"
        results = got - set(SETTINGS)
        return f"{sorted(results)} are results, not settings: they may differ" if results else _unlike(got, set())

    def unfair_pair(answer: Callable) -> str | None:
        return _unlike(set(answer(dict(one), dict(unfair))), {"lr", "steps"})

    def lacking_pair(answer: Callable) -> str | None:
        for pair in ((one, lacking), (lacking, one)):
            try:
                got = set(answer(dict(pair[0]), dict(pair[1])))
            except KeyError as error:
                return f"a line need not have every setting, and asking for {error} stops; .get(name) gives None"
            if got != {"seed"}:
                return "a setting that only one of the lines has is a difference, too, whichever of them it is"
        return None

    hints = (
        "Go through the names of the settings, not through those of one line.",
        "A dictionary's get(name) is None where the name is missing, and None differs from every value.",
    )
    praise = "Ask this of every table of methods that you read: what else differs between two of its rows?"
    return judge("Exercise 2", answer, [names, fair_pair, unfair_pair, lacking_pair], hints, praise)


def _unlike(got: set[str], right: set[str]) -> str | None:
    return None if got == right else f"for two lines that differ in {sorted(right) or 'nothing'} you say {sorted(got)}"


def solution_what_differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """All settings but the method whose values are not the same."""
    return {name for name in SETTINGS if name != "method" and one.get(name) != other.get(name)}


# Exercise 3: an interval over seeds and rows of text.


def check_ratio_interval(answer: Any) -> Verdict:
    """`answer(mine, theirs)`: the mean over seeds of Σ mine / Σ theirs − 1, and its 95 % interval: rows by bootstrap,
    seeds by Student's t. Both are (seeds, rows) tables of sums of errors."""
    generator = torch.Generator().manual_seed(0)
    hard_R = 10.0 ** torch.rand(60, generator=generator).double()  # rows differ tenfold in how much error they hold
    better_R = 1.2 - 0.04 * hard_R + 0.1 * torch.rand(60, generator=generator).double()  # most where most is lost
    same = hard_R.expand(3, -1).clone()
    by_row, by_seed = better_R * same, torch.tensor([[0.85], [0.9], [0.95]]).double() * same
    by_both = torch.tensor([[0.987], [1.0], [1.013]]).double() * by_row  # seeds and rows count about the same

    solved = functools.cache(lambda mine: solution_ratio_interval(mine, same))  # a loop of 2,000: once for each table

    def asked(answer: Callable, mine: Tensor) -> tuple[float, float, float]:
        mean, low, high = (float(v) for v in answer(mine.clone(), same.clone()))
        return mean, low, high

    def width(answer: Callable, mine: Tensor) -> tuple[float, float]:
        """Of the answer's interval, and of the right one."""
        (_, low, high), (_, left, right) = asked(answer, mine), solved(mine)
        return high - low, right - left

    def three_in_order(answer: Callable) -> str | None:
        mean, low, high = asked(answer, by_row)
        if low > high:
            return f"return the mean, the lower end and the upper end; yours are {low:+.3f} and {high:+.3f}"
        if mean < 0.5 < low:
            return "the mean has 1 taken away and the ends have not; they belong to the same number"
        return None

    def right_mean(answer: Callable) -> str | None:
        got, right = asked(answer, by_row)[0], float(by_row[0].sum() / same[0].sum()) - 1
        if math.isclose(got, right, abs_tol=2e-3):
            return None
        if math.isclose(got, float((by_row / same).mean()) - 1, abs_tol=2e-3):
            return "that is a mean of the rows' ratios, in which an easy row counts as much as a hard one; sum first"
        if math.isclose(got, right + 1, abs_tol=2e-3):
            return "that is the ratio itself; subtract 1, so that 0 means no difference"
        if got < right and math.isclose(asked(answer, by_row)[1], right, abs_tol=2e-3):
            return "the first number is to be the mean; yours is the lower end"
        return f"the mean is {right:+.4f}, you say {got:+.4f}"

    def over_rows(answer: Callable) -> str | None:
        got, right = width(answer, by_row)
        if got < 0.6 * right:
            return "the seeds agree here and the rows differ, but your interval is much too narrow; draw rows, too"
        return (
            "draw the same rows for both methods, so that they are compared on the same text"
            if got > 1.7 * right
            else None
        )

    def not_by_std(answer: Callable) -> str | None:
        (mean, low, high), (_, *again) = asked(answer, by_both), asked(answer, by_both)
        if math.isclose(high - mean, mean - low, abs_tol=1e-6) and abs(again[1] - again[0] - (high - low)) > 1e-6:
            return (
                "mean ± 1.96 std of the draws: t with 2 degrees of freedom has no finite std, so its width is luck; "
                "take the 2.5% and the 97.5% quantile"
            )
        return None

    def over_seeds(answer: Callable) -> str | None:
        got, right = width(answer, by_seed)
        if got < 0.2 * right:
            return "every row says the same here and the seeds differ, but your interval has no width; seeds vary, too"
        if got < 0.57 * right:
            return "three seeds drawn again are never further out than the three, and 1.96 is for many: use Student's t"
        if math.isclose(got, 3**0.5 * right, rel_tol=0.15):
            return "too wide by √3: the spread of a mean of n seeds is their std divided by √n"
        return f"with these seeds the interval is {right:.3f} wide, yours {got:.3f}" if got > 1.4 * right else None

    def unbiased(answer: Callable) -> str | None:
        """As every row says the same here, the true width is known, and only the draws of t are luck, of which the mean
        over several answers has little. With three seeds numpy's std gives √(2/3) of it, but t with n degrees of
        freedom 0.74 and the ends of 90% 0.68: too near to each other. With two seeds these are 0.71, 0.34 and 0.50, and
        less where an answer was written for three."""
        if (of_three := _share_of_width(answer, by_seed, same)) >= 0.88:
            return None
        of_two = _share_of_width(answer, by_seed[:2], same[:2])
        if 0.28 < of_two < 0.41:
            return "too narrow: Student's t has n degrees of freedom here; n seeds have n − 1"
        if 0.41 <= of_two < 0.58:
            return "with Student's t, but are these the ends of a 90% interval? Take the 2.5% and the 97.5% quantile"
        if of_two >= 0.58 or of_three > 0.78:
            return "a little too narrow: numpy's std divides by n, and three seeds need n − 1; take ddof=1"
        return (
            "too narrow, as Student's t with n degrees of freedom is, or the ends of a 90% interval; take n − 1, and "
            "the 2.5% and the 97.5% quantile"
        )

    def over_both(answer: Callable) -> str | None:
        got, right = width(answer, by_both)
        if got > 1.2 * right:
            return "you add the two widths, as if bad rows always met bad seeds; put both kinds of luck into each draw"
        (_, *ends), (_, *true) = asked(answer, by_both), solved(by_both)
        if max(abs(end - there) for end, there in zip(ends, true)) < 0.2 * right:
            return None
        return f"the interval is {true[0]:+.3f} to {true[1]:+.3f}, yours {ends[0]:+.3f} to {ends[1]:+.3f}"

    hints = (
        "A draw of rows is a list of row numbers, with replacement, at which you read both tables; sum, then divide.",
        "To a draw's mean over seeds add a random t with n − 1 degrees of freedom, times the seeds' std / √n.",
    )
    praise = "Seeds and text are two sources of luck, and an interval that knows only one of them is too narrow."
    return judge(
        "Exercise 3",
        answer,
        [three_in_order, right_mean, over_rows, not_by_std, over_seeds, unbiased, over_both],
        hints,
        praise,
    )


def _share_of_width(answer: Callable, mine: Tensor, theirs: Tensor) -> float:
    """How wide its interval is, in the mean of several answers, of what it should be where all rows say the same."""
    ratio_S = mine[:, 0] / theirs[:, 0]
    right = 2 * float(student.ppf(0.975, len(mine) - 1) * ratio_S.std()) / len(mine) ** 0.5
    ends = [[float(v) for v in answer(mine.clone(), theirs.clone())][1:] for _ in range(8)]
    return sum(high - low for low, high in ends) / len(ends) / right


def solution_ratio_interval(mine: Tensor, theirs: Tensor, draws: int = 2000) -> tuple[float, float, float]:
    """What `Ratio.of` does, in a loop that one can read."""
    generator, luck = torch.Generator().manual_seed(0), student.rvs(len(mine) - 1, size=draws, random_state=0)
    found = []
    for i in range(draws):
        rows = torch.randint(mine.shape[1], (mine.shape[1],), generator=generator)
        ratio_S = mine[:, rows].sum(1) / theirs[:, rows].sum(1) - 1  # one for each seed
        found.append(float(ratio_S.mean() + luck[i] * ratio_S.std() / len(mine) ** 0.5))
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return float((mine.sum(1) / theirs.sum(1) - 1).mean()), low, high


# Exercise 4: find the bug: which of many verdicts are left when luck is paid for?


def survives_with_a_bug(p_values: Sequence[float]) -> list[bool]:
    """Holm's correction, but for one mistake."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found = [False] * len(p_values)
    for place, i in enumerate(order):
        found[i] = p_values[i] < 0.05 / (len(p_values) - place)
    return found


def check_survives(answer: Any) -> Verdict:
    """`answer(p_values)`: for each comparison whether it survives Holm's correction at 5 %."""
    many, close = [0.001, 0.02, 0.04, 0.3], [0.3, 0.001, 0.02, 0.04]
    stopped, steps = [0.001, 0.03, 0.03, 0.045], [0.0124, 0.0165, 0.2, 0.6]

    def asked(answer: Callable, p_values: Sequence[float]) -> list[bool]:
        return [bool(v) for v in answer(list(p_values))]

    def a_list(answer: Callable) -> str | None:
        try:
            answer(list(many))
        except NotAnswered:
            answer([0.001, 0.002])  # a stub has nothing to say of these, either
            return "it returns None where a p-value fails: a bare `return` drops your answers; return them"
        except ZeroDivisionError:
            return "you divide by 0 for the largest p: Holm divides by n first, and by 1 last"
        return None

    def one_each(answer: Callable) -> str | None:
        if isinstance(answer(list(many)), (int, float)):
            return "return one answer for each p-value, not how many survive"
        got = asked(answer, many)
        return None if len(got) == 4 else f"return one answer for each of 4 p-values; you return {len(got)}"

    def corrected(answer: Callable) -> str | None:
        got = asked(answer, many)
        if asked(answer, [0.03, 0.03, 0.3, 0.6]) == [True, False, False, False]:
            return (
                "you divide by 1 for the smallest p, by n for the largest; Holm begins with n: 0.05 / 4, then 0.05 / 3"
            )
        ahead = [asked(answer, [p, 0.3, 0.4, 0.6])[0] for p in (0.015, 0.04)]
        if ahead == [True, False]:
            return "the smallest p must beat 0.05 / n; you begin with n - 1"
        if got == [p < 0.05 for p in many]:
            return (
                "these are the verdicts without a correction: with four comparisons the smallest p must beat 0.05 / 4"
            )
        if got == [True, True, False, False]:
            return (
                "that is Benjamini and Hochberg's procedure, which bounds how many of the survivors are false; Holm's "
                "bounds the chance that any is: the second smallest must beat 0.05 / 3"
            )
        return _not_holm(got, many)

    def step_by_step(answer: Callable) -> str | None:
        got = asked(answer, steps)
        if got == [p < 0.05 / 4 for p in steps]:
            return f"that is Bonferroni's correction; Holm's second smallest must only beat 0.05 / 3: p = {steps}"
        return _not_holm(got, steps)

    def stops(answer: Callable) -> str | None:
        got = asked(answer, stopped)
        if got == asked(survives_with_a_bug, stopped):
            return f"the bug is still there: p = {stopped}, and 0.045 may not survive where the smaller 0.03 does not"
        if all(got):
            return "all survive in a step-up procedure, as Hochberg's; Holm's goes up from the smallest p, and stops"
        return _not_holm(got, stopped)

    def any_order(answer: Callable) -> str | None:
        return None if asked(answer, close) == solution_survives(close) else "p-values come in any order; keep theirs"

    hints = (
        "Ask it for [0.001, 0.03, 0.03, 0.045]. Which of the answers contradicts another?",
        "Holm's procedure goes from the smallest p upwards and ends at the first that fails.",
    )
    praise = "With 20 comparisons and no difference at all, one would be below 5% on average."
    return judge("Exercise 4", answer, [a_list, one_each, corrected, step_by_step, stops, any_order], hints, praise)


def _not_holm(got: list[bool], p_values: Sequence[float]) -> str | None:
    right = solution_survives(p_values)
    return None if got == right else f"for p = {list(p_values)} the answers are {right}, yours are {got}"


def solution_survives(p_values: Sequence[float]) -> list[bool]:
    """Holm 1979, by the package."""
    return [p < 0.05 for p in holm(p_values)]
