"""Exercises of notebook 11: a linear map, its R², and what it is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, share_near
from sae_tutorial.evaluation.dark_matter import linear_map, r_squared

# Exercise 1: predict how much of the error is linear.


def check_linear_share(guess: Any, measured: float) -> Verdict:
    """`guess`: a share, 0 to 1, of the error's variance that a linear map predicts; `measured` is what is found."""

    hints = (
        "An x that tells nothing of the error would have a share of 0, an error that only shrinks x one of 1.",
        "A linear map cannot do what the SAE does, and yet knows something: look between a tenth and a half.",
    )
    praise = f"It is {measured:.0%}. From x alone a matrix knows a part of the error: why, is asked below."
    return judge("Exercise 1", guess, share_near(measured), hints, praise)


# Exercise 2: build the map and its R².


def check_explained(answer: Any) -> Verdict:
    """`answer(x_fit, e_fit, x, e)`: the R² of e by the least-squares map, without a bias, from x_fit to e_fit."""
    x_fit, x, M = _normal(60, 4), _normal(40, 4, 1), _normal(4, 3, 2)
    noise_fit, noise = _normal(60, 3, 3), _normal(40, 3, 4)
    sizes, means = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.3, -0.4, 0.6])

    def a_number(answer: Callable) -> str | None:
        got = answer(x_fit.clone(), (x_fit @ M).clone(), x.clone(), (x @ M).clone())
        if isinstance(got, Tensor) and got.numel() > 1:
            return f"return one number; you return {got.numel()}. Sum over tokens and coordinates, then divide"
        try:
            got = float(got)
        except (TypeError, ValueError):
            return f"return a number; you return {type(got).__name__}"
        if math.isclose(got, 1, abs_tol=1e-3):
            return None
        if math.isclose(got, 0, abs_tol=1e-3):
            return "an error that is x times a matrix gets 0. R² is 1 minus what is left over what there was"
        otherwise = f"an error that is x times a matrix has an R² of 1; you say {got:.3f}"
        return _diagnosis(got, x_fit, x_fit @ M, x, x @ M) or otherwise

    def on_other_tokens(answer: Callable) -> str | None:
        e_fit, e = ((a @ M + 0.5 * b) * sizes + means for a, b in ((x_fit, noise_fit), (x, noise)))
        for told, more in {"is partly linear": (e_fit, e), "is noise": (noise_fit, noise)}.items():
            got = float(answer(x_fit.clone(), more[0].clone(), x.clone(), more[1].clone()))
            right = solution_explained(x_fit, more[0], x, more[1])
            if not _near(got, right):
                otherwise = f"on an error that {told} your number is {got:.3f}, and R² is {right:.3f}"
                return _diagnosis(got, x_fit, more[0], x, more[1]) or otherwise
        return None

    hints = (
        "torch.linalg.lstsq(x_fit, e_fit).solution is the matrix A with the least |x_fit A − e_fit|².",
        "R² is 1 − ((e − x @ A) ** 2).sum() / ((e − e.mean(0)) ** 2).sum().",
    )
    praise = "Fitted on some tokens, asked on others: this is all there is to the method."
    return judge("Exercise 2", answer, [a_number, on_other_tokens], hints, praise)


def _diagnosis(got: float, x_fit: Tensor, e_fit: Tensor, x: Tensor, e: Tensor) -> str | None:
    """What a wrong number was made by."""
    if _near(got, solution_explained(x, e, x, e)):
        return "you fit the map on x and e, on which it is asked: fit it on x_fit and e_fit"
    if _near(got, solution_explained(x_fit, e_fit, x_fit, e_fit)):
        return "you ask the map on x_fit and e_fit, on which it was fitted: ask it on x and e"
    predicted = x @ linear_map(x_fit, e_fit)
    left, there = (e - predicted).square(), (e - e.mean(0)).square()
    if _near(got, (1 - left.sum(0) / there.sum(0)).mean()):
        return "you average R² over coordinates. Sum over all of them first, so that large ones count for more"
    if _near(got, 1 - left.sum() / e.square().sum()):
        return "you divide by Σ|e|²; R² divides by Σ|e − mean|²"
    if _near(got, 1 - left.sum() / (e - e_fit.mean(0)).square().sum()):
        return "you subtract the mean of e_fit; the variance of e is about its own, `e.mean(0)`"
    lengths = predicted.square().sum(), (predicted - predicted.mean(0)).square().sum()
    if any(_near(got, length / of.sum()) for length in lengths for of in (there, e.square())):
        return "you divide the squares of the prediction by those of e; it can be long and wrong: ask what is left"
    if _near(got, 1 - left.sum() / (e - e.mean()).square().sum()) or _near(got, 1 - left.mean() / e.var()):
        return "you subtract one mean of all numbers; each coordinate has its own, `e.mean(0)`"
    if _near(got, 1 - left.mean(0).sum() / e.var(0).sum()):
        return "`var` divides by n − 1 and your mean by n: sum squares above and below, or give it correction=0"
    if _near(got, 1 - (e - predicted).var(0).sum() / e.var(0).sum()):
        return "you take the mean off what is left, as a bias would; sum its squares as they are"
    with_one = [torch.cat([part, torch.ones(len(part), 1)], dim=1) for part in (x_fit, x)]
    if _near(got, solution_explained(with_one[0], e_fit, with_one[1], e)):
        return "your map has a bias; leave it out, as Engels et al. do"
    at_0, for_0 = x_fit - x_fit.mean(0), e_fit - e_fit.mean(0)
    fits = (e_fit, e), (for_0, e - e.mean(0)), (for_0, e - e_fit.mean(0))  # on x and e, the means of either half
    if any(_near(got, solution_explained(at_0, b, x - of.mean(0), c)) for of in (x, x_fit) for b, c in fits):
        return "you take off the means before the fit, which is a bias; leave them, as Engels et al. do"
    return _wrong_sum(got, e - predicted, e)


def _wrong_sum(got: float, left: Tensor, e: Tensor) -> str | None:
    """What a wrong number was made by, where the map is right and only what is done with its squares is not."""
    about = e - e.mean(0)
    above, below = left.square(), about.square()
    if any(_near(got, (1 - of(above)) / of(below)) for of in (torch.sum, torch.mean)):
        return "write 1 - left / there; yours is (1 - left) / there"
    means = e.var(), e.var(0).sum(), e.var(0).mean(), below.mean(0).sum(), below.mean()
    if any(_near(got, 1 - above.sum() / mean) for mean in means):
        return "a variance is a mean over tokens, and what you have above it a sum: sum the squares in both"
    sizes = (lambda t: t.norm(), lambda t: t.norm(dim=1).sum(), lambda t: t.abs().sum())
    if any(_near(got, 1 - size(left) / size(about)) for size in sizes):
        return "you compare lengths; R² compares their squares: square first, then sum"
    if _near(got, (1 - above.sum(1) / below.sum(1)).mean()):
        return "you average R² over tokens. Sum the squares over all of them first, above and below, then divide"
    return None


def solution_explained(x_fit: Tensor, e_fit: Tensor, x: Tensor, e: Tensor) -> float:
    x_fit, e_fit, x, e = (table.double() for table in (x_fit, e_fit, x, e))  # x_fit may be near to singular
    A = torch.linalg.lstsq(x_fit, e_fit).solution
    return float(1 - ((e - x @ A) ** 2).sum() / ((e - e.mean(0)) ** 2).sum())


# Exercise 3: find the bug.


def check_share_of_error(answer: Any) -> Verdict:
    """`answer(x, x_hat, linear)`: how much of the error the linear part explains, as an R²."""
    x = _normal(200, 5)
    x_hat, linear = x - 0.2 * x - 0.1 * _normal(200, 5, 1), 0.2 * x
    right = r_squared(linear, x - x_hat)

    def of_the_error(answer: Callable) -> str | None:
        got = answer(x.clone(), x_hat.clone(), linear.clone())
        try:
            got = float(got)
        except (TypeError, ValueError):
            return f"return a number; you return {type(got).__name__}"
        if math.isclose(got, right, abs_tol=1e-3):
            return None
        if math.isclose(got, r_squared(x_hat + linear, x), abs_tol=1e-3):
            return "that is the R² of x. Most of x is explained by x̂ already, whatever the linear part does"
        if math.isclose(got, r_squared(x - x_hat, linear), abs_tol=1e-3):
            return "r_squared takes what is predicted first, and then what there is: the error comes second"
        if math.isclose(got, r_squared(x_hat + linear, x) - r_squared(x_hat, x), abs_tol=1e-3):
            return "that is what the linear part adds to the R² of x; ask for the R² of the error itself"
        if math.isclose(got, r_squared(linear, x), abs_tol=1e-3):
            return "you compare the linear part with x; it is there to predict the error"
        if math.isclose(got, r_squared(linear, x_hat - x), abs_tol=1e-3):
            return "your error has the wrong sign: it is x − x̂, what has to be added to x̂"
        error = x - x_hat
        for of_the_rest in (1 - right, r_squared(error - linear, error)):
            if math.isclose(got, of_the_rest, abs_tol=1e-3):
                return "that is of what is left, the nonlinear part; ask how much the linear part predicts"
        if math.isclose(got, linear.square().sum() / error.square().sum(), abs_tol=1e-3):
            return "you divide lengths, and a part can be long and wrong: r_squared asks what it predicts"
        if math.isclose(got, 1 - (error - linear).square().sum() / error.square().sum(), abs_tol=1e-3):
            return "nearly: R² divides what is left by the squares of the error about its own mean"
        if math.isclose(got, r_squared(linear, x_hat), abs_tol=1e-3):
            return "you compare the linear part with x̂; it is there to predict x − x̂"
        return f"here the R² of the error is {right:.3f}; you say {got:.3f}"

    hints = (
        "What has the linear part to predict? Ask for the R² of that alone.",
        "The error is x − x_hat; r_squared takes what is predicted, then what there is.",
    )
    praise = f"Here it is {right:.2f}, where the wrong question had {r_squared(x_hat + linear, x):.2f}."
    return judge("Exercise 3", answer, [of_the_error], hints, praise)


def solution_share_of_error(x: Tensor, x_hat: Tensor, linear: Tensor) -> float:
    return r_squared(linear, x - x_hat)


def _normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _near(a: Any, b: Any) -> bool:
    return math.isclose(float(a), float(b), abs_tol=2e-4)
