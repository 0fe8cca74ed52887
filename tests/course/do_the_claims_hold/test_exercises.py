"""Every check of notebook 06: the stub, the solution, and the mistakes that learners make."""

import numpy as np
import pytest
import torch
from exercises import right, wrong_and_told

from sae_tutorial.course.do_the_claims_hold import exercises as ex
from sae_tutorial.evaluation.intervals import Ratio

SOLUTIONS = {
    ex.check_what_differs: ex.solution_what_differs,
    ex.check_ratio_interval: ex.solution_ratio_interval,
    ex.check_survives: ex.solution_survives,
}


@pytest.mark.parametrize("check", SOLUTIONS, ids=lambda check: check.__name__)
def test_solution_passes_and_stub_is_not_an_error(check):
    right(check, SOLUTIONS[check])


def of_the_first(one, other):
    return {name for name in one if name in ex.SETTINGS and name != "method" and one[name] != other.get(name)}


def by_ratio_of(mine, theirs):
    found = Ratio.of(mine, theirs, resamples=2000)
    return found.mean, found.low, found.high


def added_up(mine, theirs):
    """Rows by bootstrap, seeds by t, their half widths added in quadrature."""
    ratio = (mine.sum(1) / theirs.sum(1) - 1).numpy()
    _, low, high = drawn(seeds=False)(mine, theirs)
    half = np.hypot((high - low) / 2, 4.303 * ratio.std(ddof=1) / 3**0.5)
    return ratio.mean(), ratio.mean() - half, ratio.mean() + half


@pytest.mark.parametrize(
    "equivalent",
    [
        by_ratio_of,
        added_up,
        lambda mine, theirs: in_numpy()(mine, theirs),
        lambda mine, theirs: for_any()(mine, theirs),
    ],
)
def test_other_ways_to_draw_pass(equivalent):
    assert ex.check_ratio_interval(equivalent).passed, ex.check_ratio_interval(equivalent).message


def drawn(seeds=True, rows=True, paired=True, of=lambda m, t: (m.sum(1) / t.sum(1)).mean() - 1, mean=None):
    """A bootstrap with one mistake."""

    def interval(mine, theirs):
        generator, found = torch.Generator().manual_seed(0), []
        draw = lambda n, do: torch.randint(n, (n,), generator=generator) if do else torch.arange(n)  # noqa: E731
        for _ in range(300):
            s, r = draw(3, seeds), draw(60, rows)
            other = r if paired else draw(60, rows)
            found.append(float(of(mine[s][:, r], theirs[s][:, other])))
        low, high = np.quantile(found, [0.025, 0.975])
        return float((mean or of)(mine, theirs)), low, high

    return interval


def without_minus_one(mine, theirs):
    return tuple(1 + v for v in ex.solution_ratio_interval(mine, theirs))


def ends_without_minus_one(mine, theirs):
    mean, low, high = ex.solution_ratio_interval(mine, theirs)
    return mean, 1 + low, 1 + high


def swapped(mine, theirs):
    mean, low, high = ex.solution_ratio_interval(mine, theirs)
    return mean, high, low


def widths_added(mine, theirs):
    """Rows by bootstrap, seeds by t, their half widths added as they are."""
    ratio = (mine.sum(1) / theirs.sum(1) - 1).numpy()
    _, low, high = drawn(seeds=False)(mine, theirs)
    more = 4.303 * ratio.std(ddof=1) / 3**0.5
    return ratio.mean(), low - more, high + more


def around_zero(mine, theirs):
    """An interval of the right width in the wrong place."""
    mean, low, high = ex.solution_ratio_interval(mine, theirs)
    return mean, low - mean, high - mean


def holm_from(first, least=0):
    """Holm's correction with ranks that are counted from `first`, and a divisor of at least `least`."""

    def answer(p_values):
        found, still = [False] * len(p_values), True
        for rank, i in enumerate(np.argsort(p_values), first):
            still = still and p_values[i] < 0.05 / max(len(p_values) - rank, least)
            found[i] = still
        return found

    return answer


def step_up(p_values):
    """Hochberg: from the largest p downwards, and the first that is small enough brings all smaller ones along."""
    order = np.argsort(p_values)
    passed = [i for rank, i in enumerate(order) if p_values[i] < 0.05 / (len(p_values) - rank)]
    last = max((p_values[i] for i in passed), default=-1)
    return [p <= last for p in p_values]


def ratios_of_draws(mine, theirs, draws=2000):
    """Each seed's ratio less 1 in each draw of rows: (seeds, draws)."""
    rows = np.random.default_rng().integers(60, size=(draws, 60))
    return mine.numpy()[:, rows].sum(-1) / theirs.numpy()[:, rows].sum(-1) - 1


def in_numpy(ddof=1, n=3, ends=(0.025, 0.975), freedom=2):
    """The solution in numpy for three seeds, with the spread and the ends that it is given."""

    def interval(mine, theirs):
        ratios = ratios_of_draws(mine, theirs)
        luck = np.random.default_rng().standard_t(freedom, size=ratios.shape[1])
        found = ratios.mean(0) + luck * ratios.std(0, ddof=ddof) / n**0.5
        return float((mine.sum(1) / theirs.sum(1) - 1).mean()), *np.quantile(found, ends)

    return interval


def by_std(mine, theirs):
    """The normal interval of the draws, each of which has a t with two degrees of freedom in it."""
    ratios = ratios_of_draws(mine, theirs)
    draws = ratios.mean(0) + np.random.default_rng().standard_t(2, size=2000) * ratios.std(0, ddof=1) / 3**0.5
    mean, far = float((mine.sum(1) / theirs.sum(1) - 1).mean()), 1.96 * float(np.std(draws))
    return mean, mean - far, mean + far


def for_any(ddof=1, freedom=lambda n: n - 1, ends=(0.025, 0.975)):
    """The same for any number of seeds."""

    def interval(mine, theirs):
        n = len(mine)
        return in_numpy(ddof, n, ends, freedom(n))(mine, theirs)

    return interval


def bare_return(p_values):
    """A loop that ends at the first failure, and takes the answers with it."""
    found = [False] * len(p_values)
    for rank, i in enumerate(np.argsort(p_values)):
        if p_values[i] >= 0.05 / (len(p_values) - rank):
            return None
        found[i] = True
    return found


def mean_in_the_middle(mine, theirs):
    mean, low, high = ex.solution_ratio_interval(mine, theirs)
    return low, mean, high


def largest_divisor_last(p_values):
    """Holm's steps in the wrong direction: 0.05 / 1 for the smallest."""
    found, still = [False] * len(p_values), True
    for rank, i in enumerate(np.argsort(p_values)):
        still = still and p_values[i] < 0.05 / (rank + 1)
        found[i] = still
    return found


def benjamini_hochberg(p_values):
    order = np.argsort(p_values)
    passed = [i for rank, i in enumerate(order, 1) if p_values[i] < 0.05 * rank / len(p_values)]
    last = max((p_values[i] for i in passed), default=-1)
    return [p <= last for p in p_values]


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_what_differs, lambda a, b: {n for n in a if a[n] != b.get(n)}, "the method is meant to differ"),
        (ex.check_what_differs, lambda a, b: {n for n in a if a[n] != b.get(n)} - {"method"}, "are results"),
        (ex.check_what_differs, of_the_first, "only one of the lines has"),
        (ex.check_what_differs, lambda a, b: {n for n in a if n in ex.SETTINGS[1:] and a[n] != b[n]}, ".get(name)"),
        (ex.check_what_differs, lambda a, b: {"lr"}, "differ in nothing"),
        (ex.check_what_differs, lambda a, b: sum(a[n] != b[n] for n in b), "not how many"),
        (ex.check_what_differs, lambda a, b: any(a[n] != b[n] for n in b), "not whether they do"),
        (ex.check_what_differs, lambda a, b: ", ".join(ex.solution_what_differs(a, b)), "not one text"),
        (ex.check_ratio_interval, drawn(of=lambda m, t: (m / t).mean() - 1), "sum first"),
        (ex.check_ratio_interval, without_minus_one, "subtract 1"),
        (ex.check_ratio_interval, drawn(rows=False), "draw rows, too"),
        (ex.check_ratio_interval, drawn(seeds=False), "seeds vary, too"),
        (ex.check_ratio_interval, drawn(), "use Student's t"),
        (ex.check_ratio_interval, in_numpy(ddof=0), "take ddof=1"),
        (ex.check_ratio_interval, in_numpy(ends=(0.05, 0.95)), "ends of a 90% interval"),
        (ex.check_ratio_interval, in_numpy(freedom=3), "n degrees of freedom"),
        (ex.check_ratio_interval, for_any(ddof=0), "take ddof=1"),
        (ex.check_ratio_interval, for_any(ends=(0.05, 0.95)), "are these the ends of a 90% interval"),
        (ex.check_ratio_interval, for_any(freedom=lambda n: n), "t has n degrees of freedom here"),
        (ex.check_ratio_interval, in_numpy(n=1), "divided by √n"),
        (ex.check_ratio_interval, mean_in_the_middle, "yours is the lower end"),
        (ex.check_ratio_interval, drawn(paired=False), "the same rows for both"),
        (ex.check_ratio_interval, ends_without_minus_one, "the ends have not"),
        (ex.check_ratio_interval, swapped, "the lower end and the upper end"),
        (ex.check_ratio_interval, by_std, "no finite std"),
        (ex.check_ratio_interval, widths_added, "add the two widths"),
        (ex.check_ratio_interval, around_zero, "the interval is -0.00"),
        (ex.check_ratio_interval, lambda m, t: 0.0, "It stopped with TypeError"),
        (ex.check_survives, lambda ps: [p < 0.05 for p in ps], "without a correction"),
        (ex.check_survives, holm_from(1), "divide by 0"),
        (ex.check_survives, holm_from(1, least=1), "you begin with n - 1"),
        (ex.check_survives, lambda ps: [p < 0.05 / len(ps) for p in ps], "Bonferroni"),
        (ex.check_survives, step_up, "a step-up procedure"),
        (ex.check_survives, benjamini_hochberg, "Benjamini"),
        (ex.check_survives, largest_divisor_last, "Holm begins with n"),
        (ex.check_survives, ex.survives_with_a_bug, "the bug is still there"),
        (ex.check_survives, lambda ps: ex.solution_survives(sorted(ps)), "keep theirs"),
        (ex.check_survives, bare_return, "a bare `return` drops your answers"),
        (ex.check_survives, lambda ps: [True], "one answer for each"),
        (ex.check_survives, lambda ps: sum(ex.solution_survives(ps)), "not how many survive"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_the_bug_shows_where_a_smaller_p_fails():
    p_values = [0.001, 0.03, 0.03, 0.045]
    assert ex.survives_with_a_bug(p_values) == [True, False, False, True]
    assert ex.solution_survives(p_values) == [True, False, False, False]


@pytest.mark.parametrize(("behind", "truth"), [(-0.05, "less error"), (0.004, "about the same"), (0.03, "more error")])
def test_a_prediction_is_held_against_what_was_measured(behind, truth):
    assert ex.check_prediction(truth, behind).passed
    other = next(change for change in ex.CHANGES if change != truth)
    told = ex.check_prediction(other, behind).message
    assert f"not {other}" in told and f"{behind:+.1%}" not in told, "the answer is not given away"
    assert "answer one of" in ex.check_prediction("bigger", behind).message
    assert "not answered yet" in ex.check_prediction(None, behind).message
