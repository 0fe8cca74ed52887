"""Exercises of notebook 03: what a feature is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.directions import hierarchy, tangent
from sae_tutorial.course.directions import search as directions
from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: arithmetic with embeddings.


def check_analogy(answer: Any) -> Verdict:
    """`answer(unit_VM, a, b, c)`: the token nearest to a − b + c by cosine, the three themselves left out."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator), dim=1)
    parallelogram = unit.clone()
    parallelogram[3] = unit[0] - unit[1] + unit[2]
    parallelogram = torch.nn.functional.normalize(parallelogram, dim=1)

    def one_token(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(parallelogram, 0, 1, 2))
        return None if got.numel() == 1 else f"you return {got.numel()} numbers; the answer is the id of one token"

    def leaves_the_question_out(answer: Callable) -> str | None:
        lone = torch.eye(6)  # unrelated words: the nearest to a − b + c are a and c themselves
        if int(answer(lone, 0, 1, 2)) in (0, 1, 2):
            return "the answer is one of the three words of the question; leave them out"
        return None

    def finds_the_corner(answer: Callable) -> str | None:
        for a, b, c in ((0, 1, 2), (5, 6, 7), (9, 30, 11)):
            got, right = int(answer(parallelogram, a, b, c)), solution_analogy(parallelogram, a, b, c)
            if got != right:
                if got == solution_analogy(parallelogram, b, a, c) or got == solution_analogy(parallelogram, a, c, b):
                    return "the signs are mixed up: it is a − b + c"
                return f"for a, b, c = {a}, {b}, {c} it is token {right}; you say {got}"
        return None

    tests = [one_token, leaves_the_question_out, finds_the_corner]
    hint = "one matrix product gives all similarities; set three of them to −inf before the argmax."
    return judge("Exercise 1", answer, tests, hint, "That is the parallelogram. Try words of your own.")


def solution_analogy(unit_VM: Tensor, a: int, b: int, c: int) -> int:
    """The token nearest to a − b + c."""
    similarity_V = unit_VM @ (unit_VM[a] - unit_VM[b] + unit_VM[c])
    similarity_V[[a, b, c]] = -torch.inf
    return int(similarity_V.argmax())


# Exercise 2: kurtosis.


def check_kurtosis(answer: Any) -> Verdict:
    """`answer(x_BD)`: the excess kurtosis of every coordinate."""
    generator = torch.Generator().manual_seed(0)
    gauss = torch.randn(20_000, 3, generator=generator)
    rare = (torch.rand(20_000, 3, generator=generator) < 0.05).float()

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(gauss))
        return None if got.shape == (3,) else f"for x of shape (20000, 3) you return {tuple(got.shape)}, not (3,)"

    def gaussians_make_zero(answer: Callable) -> str | None:
        got = float(torch.as_tensor(answer(gauss)).mean())
        if abs(got - 3) < 0.3:
            return "a Gaussian makes 3; the *excess* kurtosis subtracts that"
        return None if abs(got) < 0.3 else f"a Gaussian makes {got:.2f}, it should make about 0"

    def units_and_offsets_do_not_matter(answer: Callable) -> str | None:
        if not torch.allclose(
            torch.as_tensor(answer(5 * gauss)).float(), torch.as_tensor(answer(gauss)).float(), atol=0.05
        ):
            return "five times the same data make another number; divide by the standard deviation"
        if not torch.allclose(
            torch.as_tensor(answer(gauss + 2)).float(), torch.as_tensor(answer(gauss)).float(), atol=0.05
        ):
            return "the same data, moved by 2, make another number; subtract the mean"
        return None

    def rare_events_are_loud(answer: Callable) -> str | None:
        got, right = torch.as_tensor(answer(rare)).float(), directions.excess_kurtosis(rare)
        if not torch.allclose(got, right, rtol=0.02):
            return f"a coordinate that is 1 in 5% of the places, else 0, makes {right[0]:.1f}; you say {got[0]:.1f}"
        return None

    tests = [right_shape, gaussians_make_zero, units_and_offsets_do_not_matter, rare_events_are_loud]
    hint = "standardise every coordinate over the tokens, take the mean of its fourth power, subtract 3."
    return judge("Exercise 2", answer, tests, hint, "0 for a Gaussian, about 1/p for something on with probability p.")


def solution_kurtosis(x_BD: Tensor) -> Tensor:
    """E[z⁴] − 3."""
    z_BD = (x_BD - x_BD.mean(0)) / x_BD.std(0)
    return z_BD.pow(4).mean(0) - 3


# Exercise 3: variance explained.


def check_variance_explained(answer: Any) -> Verdict:
    """`answer(x_BD, guess_BD)`: the share of the variance of x that the guess explains."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=generator) * torch.tensor([1.0, 2.0, 5.0, 10.0])
    x += torch.tensor([3.0, -3.0, 6.0, -6.0])  # every coordinate has a mean of its own
    guess = x + torch.randn(500, 4, generator=generator)

    def one_number(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(x, guess))
        return None if got.numel() == 1 else f"you return {got.numel()} numbers; it is one number for all of x"

    def perfect_is_one(answer: Callable) -> str | None:
        got = float(answer(x, x))
        if abs(got) < 1e-4:
            return "a perfect guess makes 0; you compute what is left unexplained, so take 1 minus that"
        return None if abs(got - 1) < 1e-4 else f"a perfect guess should make 1; you say {got:.3f}"

    def the_mean_is_zero(answer: Callable) -> str | None:
        got = float(answer(x, x.mean(0).expand_as(x)))
        if abs(got) > 1e-4:
            return (
                f"guessing the mean explains nothing and should make 0; you say {got:.3f}: "
                "compare with x − mean, one mean for each coordinate"
            )
        return None

    def sums_before_the_ratio(answer: Callable) -> str | None:
        got, right = float(answer(x, guess)), directions.variance_explained(x, guess)
        if abs(got - right) > 1e-3:
            return (
                f"for noise of one size on coordinates of four sizes it is {right:.3f}; you say {got:.3f}: "
                "sum errors and variances over all coordinates first, divide once"
            )
        return None

    tests = [one_number, perfect_is_one, the_mean_is_zero, sums_before_the_ratio]
    hint = "1 − (sum of squared errors) / (sum of squared deviations from the mean), both sums over everything."
    return judge("Exercise 3", answer, tests, hint, "1 is perfect, 0 is no better than the mean; below 0 is worse.")


def solution_variance_explained(x_BD: Tensor, guess_BD: Tensor) -> Tensor:
    """1 − FVU."""
    left, there = (x_BD - guess_BD).square().sum(), (x_BD - x_BD.mean(0)).square().sum()
    return 1 - left / there


# Exercise 4: decomposable, and not linear.


def check_bent(answer: Any) -> Verdict:
    """`answer(x_B2)`: activations of two features that is decomposable and not linear, and not constant."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 2, generator=generator)

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(x))
        if got.ndim != 2 or len(got) != 400:
            return f"for x of shape (400, 2) you return {tuple(got.shape)}; one row per sample"
        return None

    def uses_both(answer: Callable) -> str | None:
        for feature in (0, 1):
            moved = x.clone()
            moved[:, feature] *= 0.37  # not 1 − x: a curve may be symmetric
            if torch.allclose(answer(moved).float(), answer(x).float(), atol=1e-3):
                return f"nothing changes when feature {feature} does: it is not represented"
        return None

    def decomposes(answer: Callable) -> str | None:
        for feature in (0, 1):
            for low, high in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.0, 0.3), (0.2, 0.9)):
                ends = []
                for value in (low, high):
                    set_to = x.clone()
                    set_to[:, feature] = value
                    ends.append(answer(set_to).float())
                effect = ends[1] - ends[0]
                if effect.norm() > 1e-3 and hierarchy.same_effect(effect) < 0.99:
                    return (
                        f"moving feature {feature} from {low:g} to {high:g} does different things in different company "
                        f"(same effect: {hierarchy.same_effect(effect):.2f}); do not multiply the two features"
                    )
        return None

    def linear(answer: Callable) -> float:
        return hierarchy.linear_fit(x, answer(x).float())[1]

    def is_bent(answer: Callable) -> str | None:
        share = linear(answer)
        return f"it is linear: a linear map explains {share:.1%} of it; keep it below 95%" if share > 0.95 else None

    def praise(answer: Callable) -> str:
        own = "Each feature minds its own business, along a curve."
        return f"{own} A linear map explains {linear(answer):.1%} of it; a line would be 100%."

    tests = [right_shape, uses_both, decomposes, is_bent]
    hint = (
        "give each feature coordinates of its own and fill them with something curved, such as cos(π x) and sin(π x)."
    )
    return judge("Exercise 4", answer, tests, hint, praise)


def solution_bent(x_B2: Tensor) -> Tensor:
    """Half a circle for each feature, in a plane of its own."""
    return torch.cat([(math.pi * x_B2).cos(), (math.pi * x_B2).sin()], dim=1)


# Exercise 5: the step that makes the lasso choose functions.


def check_shrink(answer: Any) -> Verdict:
    """`answer(B_NPK, t)`: shorten the block of every function by t, and set to zero what is shorter than t."""
    generator = torch.Generator().manual_seed(0)
    B = torch.randn(30, 4, 2, generator=generator) * torch.tensor([0.05, 0.5, 1.0, 2.0])[:, None]

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(B.clone(), 1.0))
        return None if got.shape == B.shape else f"B has shape {tuple(B.shape)}, you return {tuple(got.shape)}"

    def whole_functions_vanish(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(B.clone(), 1.0))
        if torch.allclose(got, B.sign() * (B.abs() - 1.0).clamp(min=0), atol=1e-5):
            return (
                "you shrink every number on its own; here a function goes or stays as a whole: use its block's length"
            )
        if got[:, 0].abs().max() > 0:
            return "function 0 has a block of length below t, so all of it should be exactly zero"
        return None

    def lengths_fall_by_t(answer: Callable) -> str | None:
        for t in (0.0, 1.0, 3.0):
            got, right = torch.as_tensor(answer(B.clone(), t)), tangent.shrink_groups(B, t)
            if not torch.allclose(got, right, atol=1e-4):
                was, is_now, should = (float(tangent.group_lengths(b)[3]) for b in (B, got, right))
                return f"at t = {t:g} function 3's block, {was:.2f} long, should become {should:.2f}, not {is_now:.2f}"
        return None

    tests = [right_shape, whole_functions_vanish, lengths_fall_by_t]
    hint = "the length of block j is B[:, j].norm(); multiply the block by max(0, 1 − t / length)."
    return judge("Exercise 5", answer, tests, hint, "A function is in everywhere, or out everywhere.")


def solution_shrink(B_NPK: Tensor, t: float) -> Tensor:
    """The proximal operator of the group lasso's penalty."""
    lengths_P = B_NPK.square().sum((0, 2)).sqrt()
    return B_NPK * (1 - t / lengths_P).clamp(min=0)[:, None]
