import re

import pytest
import torch

from sae_tutorial.course.directions import exercises


def unanswered(verdict):
    return not verdict.passed and "not answered yet" in verdict.message


def wrong(verdict, says):
    assert not verdict.passed and says in verdict.message, verdict.message


@pytest.mark.parametrize("topic", ["analogy", "kurtosis", "variance_explained", "bent", "shrink"])
def test_stub_and_solution(topic):
    check, solution = getattr(exercises, f"check_{topic}"), getattr(exercises, f"solution_{topic}")
    assert unanswered(check(None)) and unanswered(check(lambda *args: None))
    verdict = check(solution)
    assert verdict, verdict.message


def test_analogy_mistakes():
    check = exercises.check_analogy

    def with_inputs(unit, a, b, c):
        return int((unit @ (unit[a] - unit[b] + unit[c])).argmax())

    wrong(check(with_inputs), "leave them out")
    wrong(check(lambda unit, a, b, c: exercises.solution_analogy(unit, b, a, c)), "signs")
    wrong(check(lambda unit, a, b, c: unit @ (unit[a] - unit[b] + unit[c])), "id of one token")
    wrong(check(lambda unit, a, b, c: 39), "you say 39")


def test_kurtosis_mistakes():
    check = exercises.check_kurtosis
    wrong(check(lambda x: exercises.solution_kurtosis(x) + 3), "subtracts that")
    wrong(check(lambda x: exercises.solution_kurtosis(x).mean()), "not (3,)")
    wrong(check(lambda x: (x - x.mean(0)).pow(4).mean(0) - 3), "standard deviation")
    wrong(check(lambda x: (x / x.std(0)).pow(4).mean(0) - 3), "subtract the mean")
    wrong(check(lambda x: ((x - x.mean(0)) / x.std(0)).pow(3).mean(0)), "1 in 5%")


def test_variance_explained_mistakes():
    check = exercises.check_variance_explained
    wrong(check(lambda x, g: (x - g).square().sum() / (x - x.mean(0)).square().sum()), "unexplained")
    wrong(check(lambda x, g: 1 - (x - g).square().sum() / x.square().sum()), "x − mean")
    wrong(check(lambda x, g: 1 - (x - g).square().sum() / (x - x.mean()).square().sum()), "for each coordinate")
    each = lambda x, g: 1 - (x - g).square().sum(0) / (x - x.mean(0)).square().sum(0)  # noqa: E731
    wrong(check(lambda x, g: each(x, g).mean()), "divide once")
    wrong(check(each), "one number")


def test_bent_mistakes():
    check = exercises.check_bent
    wrong(check(lambda x: x), "it is linear")
    wrong(check(lambda x: torch.cat([x, x[:, :1] * x[:, 1:]], dim=1)), "multiply")
    wrong(check(lambda x: (torch.pi * x[:, :1]).cos()), "feature 1")
    wrong(check(lambda x: x.sum()), "one row per sample")
    hidden = lambda x: 5 * (2 * torch.pi * x).sin().prod(1, keepdim=True)  # noqa: E731  zero at 0, 1/2 and 1
    wrong(check(lambda x: torch.cat([x**3, hidden(x)], dim=1)), "multiply")


@pytest.mark.parametrize(
    "curve",
    [
        lambda x: torch.cat([(6 * x).sin(), (6 * x).cos()], dim=1),
        lambda x: (torch.pi * x).sin(),  # the same at x and 1 − x
        lambda x: (x - 0.5) ** 2,
        lambda x: (x - 0.5).abs(),
    ],
)
def test_other_curves_are_right_as_well(curve):
    verdict = exercises.check_bent(curve)
    assert verdict, verdict.message


@pytest.mark.parametrize(("curve", "share"), [(lambda x: x**2, 15 / 16), (exercises.solution_bent, 0.829)])
def test_the_praise_says_how_linear_it_was(curve, share):
    """Closed forms for x uniform on [0, 1]: 15/16, and 48/π⁴ / (1 − 4/π²) for half a circle."""
    said = float(re.search(r"explains ([\d.]+)%", exercises.check_bent(curve).message)[1])
    assert said == pytest.approx(100 * share, abs=1)


def test_shrink_mistakes():
    check = exercises.check_shrink
    wrong(check(lambda B, t: B.sign() * (B.abs() - t).clamp(min=0)), "every number on its own")
    wrong(check(lambda B, t: B * (1 - t / B.square().sum((0, 2)).sqrt())[:, None]), "exactly zero")
    wrong(check(lambda B, t: exercises.solution_shrink(B, t / 2)), "should become")
    wrong(check(lambda B, t: exercises.solution_shrink(B, min(1.5 * t, 1.5))), "should become")
    wrong(check(lambda B, t: B.sum()), "you return")


def test_shrinking_in_place_is_right():
    def in_place(B, t):
        return B.mul_((1 - t / B.square().sum((0, 2)).sqrt()).clamp(min=0)[:, None])

    verdict = exercises.check_shrink(in_place)
    assert verdict, verdict.message
