"""Every check of notebook 06: the stub, the solution, and the mistakes that learners make."""

import numpy as np
import pytest
from exercises import right, wrong_and_told

from sae_tutorial.course.do_the_claims_hold import exercises as ex

SOLUTIONS = {
    ex.check_difference: ex.solution_difference,
    ex.check_what_differs: ex.solution_what_differs,
    ex.check_survives: ex.solution_survives,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


def unpaired(ours, theirs):
    half = 4.3027 * np.sqrt(np.var(ours, ddof=1) / 3 + np.var(theirs, ddof=1) / 3)
    mean = np.mean(ours) - np.mean(theirs)
    return mean, mean - half, mean + half


def many_seeds(ours, theirs):
    d = np.array(ours) - np.array(theirs)
    half = 1.96 * d.std(ddof=1) / len(d) ** 0.5
    return d.mean(), d.mean() - half, d.mean() + half


def of_the_first(one, other):
    return {name for name in one if name not in ("method", *ex.RESULTS) and one[name] != other.get(name)}


def without_end(p_values):
    order = np.argsort(p_values)
    found = [False] * len(p_values)
    for place, i in enumerate(order):
        found[i] = p_values[i] < 0.05 / (len(p_values) - place)
    return found


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_difference, lambda a, b: 0.0, "It stopped with TypeError"),
        (ex.check_difference, lambda a, b: ex.solution_difference(b, a), "wrong sign"),
        (ex.check_difference, unpaired, "independent"),
        (ex.check_difference, many_seeds, "4.30"),
        (ex.check_what_differs, lambda a, b: {n for n in a if a[n] != b.get(n)}, "the method is meant to differ"),
        (ex.check_what_differs, lambda a, b: {n for n in a if a[n] != b.get(n)} - {"method"}, "are results"),
        (ex.check_what_differs, of_the_first, "only one of the lines has"),
        (ex.check_what_differs, lambda a, b: {"lr"}, "differ in nothing"),
        (ex.check_survives, lambda ps: [p < 0.05 for p in ps], "without a correction"),
        (ex.check_survives, lambda ps: [p < 0.05 / len(ps) for p in ps], "Bonferroni"),
        (ex.check_survives, without_end, "all larger ones fail"),
        (ex.check_survives, lambda ps: ex.solution_survives(sorted(ps)), "answer in theirs"),
        (ex.check_survives, lambda ps: [True], "one answer for each"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)
