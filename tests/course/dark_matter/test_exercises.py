"""The exercises of notebook 11: solutions pass, and the likeliest mistakes are told what they are."""

import numpy as np
import pytest
import torch
from verdicts import said

from sae_tutorial.course.dark_matter import exercises
from sae_tutorial.evaluation.dark_matter import r_squared


def test_the_solutions_pass():
    assert exercises.check_linear_share(0.3, 0.25)
    assert exercises.check_explained(exercises.solution_explained)
    assert exercises.check_share_of_error(exercises.solution_share_of_error)


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        (None, "not answered"),
        (25, "write 0.25"),
        ("a quarter", "a number"),
        (0.9, "less"),
        (0.0, "more"),
        (-1, "0 to 1"),
    ],
)
def test_guesses_are_told_where_they_lie(guess, words):
    said(exercises.check_linear_share(guess, 0.25), words)


def by_numpy(x_fit, e_fit, x, e):
    A = np.linalg.pinv(x_fit.numpy()) @ e_fit.numpy()
    return 1 - np.square(e.numpy() - x.numpy() @ A).sum() / np.square(e.numpy() - e.numpy().mean(0)).sum()


def with_normal_equations(x_fit, e_fit, x, e):
    A = torch.linalg.solve(x_fit.T @ x_fit, x_fit.T @ e_fit)
    return r_squared(x @ A, e)


@pytest.mark.parametrize("answer", [by_numpy, with_normal_equations])
def test_other_ways_to_the_same_number_pass(answer):
    assert exercises.check_explained(answer)


def fit(x, e):
    return torch.linalg.lstsq(x, e).solution


def missed(x_fit, e_fit, x, e):
    return (e - x @ fit(x_fit, e_fit)) ** 2


def there(e):
    return centred(e) ** 2


def centred(table):
    return table - table.mean(0)


def with_a_bias(x_fit, e_fit, x, e):
    one = [torch.cat([part, torch.ones(len(part), 1)], dim=1) for part in (x_fit, x)]
    return exercises.solution_explained(one[0], e_fit, one[1], e)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, b, x, e: exercises.solution_explained(x, e, x, e), "fit it on x_fit and e_fit"),
        (lambda a, b, x, e: exercises.solution_explained(a, b, a, b), "ask it on x and e"),
        (lambda a, b, x, e: 1 - ((e - x @ fit(a, b)) ** 2).sum() / (e**2).sum(), "Σ|e − mean|²"),
        (
            lambda a, b, x, e: (1 - ((e - x @ fit(a, b)) ** 2).sum(0) / ((e - e.mean(0)) ** 2).sum(0)).mean(),
            "average R² over coordinates",
        ),
        (lambda a, b, x, e: 1 - ((e - x @ fit(a, b)) ** 2).sum() / ((e - e.mean()) ** 2).sum(), "its own, `e.mean(0)`"),
        (lambda a, b, x, e: 1 - ((e - x @ fit(a, b)) ** 2).mean() / e.var(), "its own, `e.mean(0)`"),
        (lambda a, b, x, e: 1 - ((e - x @ fit(a, b)) ** 2).mean(0).sum() / e.var(0).sum(), "correction=0"),
        (with_a_bias, "has a bias"),
        (lambda a, b, x, e: 1 - (e - x @ fit(a, b)).var(0).sum() / e.var(0).sum(), "take the mean off what is left"),
        (lambda a, b, x, e: ((e - x @ fit(a, b)) ** 2).sum() / ((e - e.mean(0)) ** 2).sum(), "gets 0"),
        (lambda a, b, x, e: 1 - ((e - x @ fit(a, b)) ** 2).sum() / ((e - b.mean(0)) ** 2).sum(), "the mean of e_fit"),
        (lambda a, b, x, e: (x @ fit(a, b)).var(0).sum() / e.var(0).sum(), "ask what is left"),
        (lambda a, b, x, e: (x @ fit(a, b)).square().sum() / (e - e.mean(0)).square().sum(), "ask what is left"),
        (lambda a, b, x, e: (x @ fit(a, b)).square().sum() / e.square().sum(), "ask what is left"),
        (lambda a, b, x, e: (1 - missed(a, b, x, e).sum()) / there(e).sum(), "write 1 - left / there"),
        (lambda a, b, x, e: (1 - missed(a, b, x, e).mean()) / there(e).mean(), "write 1 - left / there"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum() / e.var(0).sum(), "sum the squares in both"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum() / e.var(0).mean(), "sum the squares in both"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum() / e.var(), "sum the squares in both"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum() / there(e).mean(), "sum the squares in both"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum() / there(e).mean(0).sum(), "sum the squares in both"),
        (lambda a, b, x, e: 1 - missed(a, b, x, e).sum().sqrt() / there(e).sum().sqrt(), "square first"),
        (
            lambda a, b, x, e: 1 - (e - x @ fit(a, b)).norm(dim=1).sum() / (e - e.mean(0)).norm(dim=1).sum(),
            "square first",
        ),
        (lambda a, b, x, e: 1 - (e - x @ fit(a, b)).abs().mean() / (e - e.mean(0)).abs().mean(), "square first"),
        (lambda a, b, x, e: (1 - missed(a, b, x, e).sum(1) / there(e).sum(1)).mean(), "average R² over tokens"),
        (
            lambda a, b, x, e: exercises.solution_explained(centred(a), centred(b), centred(x), centred(e)),
            "take off the means",
        ),
        (
            lambda a, b, x, e: exercises.solution_explained(centred(a), centred(b), x - a.mean(0), e - b.mean(0)),
            "bias",
        ),
        (lambda a, b, x, e: exercises.solution_explained(centred(a), b, centred(x), e), "take off the means"),
        (lambda a, b, x, e: (e - x @ fit(a, b)).square().sum(0), "return one number"),
        (lambda a, b, x, e: "R²", "return a number"),
    ],
)
def test_wrong_maps_are_told_what_is_wrong(answer, words):
    said(exercises.check_explained(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, x_hat, linear: r_squared(x_hat + linear, x), "the R² of x"),
        (lambda x, x_hat, linear: r_squared(linear, x), "compare the linear part with x;"),
        (lambda x, x_hat, linear: r_squared(linear, x_hat - x), "wrong sign"),
        (lambda x, x_hat, linear: r_squared(linear, x_hat), "x − x̂"),
        (lambda x, x_hat, linear: linear, "return a number"),
        (lambda x, x_hat, linear: None, "not answered"),
    ],
)
def test_what_is_measured_against_the_wrong_thing_is_named(answer, words):
    said(exercises.check_share_of_error(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, x_hat, linear: r_squared(x - x_hat, linear), "the error comes second"),
        (lambda x, x_hat, linear: 1 - r_squared(linear, x - x_hat), "what is left, the nonlinear part"),
        (lambda x, x_hat, linear: r_squared(x - x_hat - linear, x - x_hat), "what is left, the nonlinear part"),
        (lambda x, x_hat, linear: r_squared(x_hat + linear, x) - r_squared(x_hat, x), "adds to the R² of x"),
        (lambda x, x_hat, linear: linear.square().sum() / (x - x_hat).square().sum(), "a part can be long and wrong"),
        (lambda x, x_hat, linear: 1 - (x - x_hat - linear).square().sum() / (x - x_hat).square().sum(), "its own mean"),
        (
            lambda x, x_hat, linear: 1 - (1 - r_squared(x_hat + linear, x)) / (1 - r_squared(x_hat, x)),
            "its own mean",
        ),
    ],
)
def test_natural_slips_with_the_error_are_named(answer, words):
    said(exercises.check_share_of_error(answer), words)
