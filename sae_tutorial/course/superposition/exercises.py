"""Exercises of notebook 02: toy models of superposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge
from sae_tutorial.course.superposition.toy_models import feature_dimensionality, shape

KEPT = 0.5  # a feature counts as represented when its norm is above this

# Exercise 1: a definition that tells superposition from forgetting.


def check_superposed(answer: Any) -> Verdict:
    """`answer(W)`, W of shape (hidden, features): does the model represent more features than fit without sharing?"""
    two_kept = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    faint = two_kept + 0.03  # dropped features are rarely exactly zero after training
    turned = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) @ two_kept

    def forgetting_is_not_sharing(answer: Callable) -> str | None:
        if bool(answer(two_kept)):
            return (
                "you call it superposition when two features have an orthogonal direction each and three are dropped. "
                "WᵀW is singular there too, but nothing is shared"
            )
        return "two kept features, turned by an angle, are still not in superposition" if bool(answer(turned)) else None

    def faint_features_do_not_count(answer: Callable) -> str | None:
        if bool(answer(faint)):
            return "columns of norm 0.04 made you see superposition; count a feature only if its norm is above 0.5"
        return None

    def shapes_are_superposed(answer: Callable) -> str | None:
        for name in ("digon", "triangle", "pentagon", "tetrahedron"):
            W = shape(name)
            if not bool(answer(W)):
                return (
                    f"the {name} puts {W.shape[1]} features in {W.shape[0]} dimensions, but you see no superposition. "
                    "If you ask whether KᵀK is singular: use the rank, a determinant is never exactly 0"
                )
        return None

    def pair_with_room_beside(answer: Callable) -> str | None:
        if not bool(answer(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))):
            return (
                "two opposite features share one dimension, and it does not help them that the model has a second one: "
                "KᵀK is singular. Do not count rows; use the rank, a determinant is never exactly 0"
            )
        return None

    def slanted_is_not_superposed(answer: Callable) -> str | None:
        if bool(answer(torch.tensor([[1.0, 0.5], [0.0, 0.75**0.5]]))):
            return (
                "two features at 60° in a plane are not orthogonal, but they fit: KᵀK can be inverted. By this "
                "definition they are not in superposition"
            )
        return None

    tests = [
        shapes_are_superposed,
        forgetting_is_not_sharing,
        faint_features_do_not_count,
        pair_with_room_beside,
        slanted_is_not_superposed,
    ]
    hint = "keep the columns whose norm is above 0.5, call them K, and ask whether KᵀK can be inverted (its rank)."
    praise = "Among the features that are kept, WᵀW decides. That is the definition."
    return judge("Exercise 1", answer, tests, hint, praise)


def solution_superposed(W: Tensor) -> bool:
    """WᵀW of the represented features alone is singular."""
    kept = W[:, W.norm(dim=0) > KEPT]
    return int(torch.linalg.matrix_rank(kept)) < kept.shape[1]


# Exercise 2: feature dimensionality.


def check_dimensionality(answer: Any) -> Verdict:
    """`answer(W)`, W of shape (hidden, features), returns D_i of every feature."""
    generator = torch.Generator().manual_seed(0)
    uneven = torch.randn(3, 7, generator=generator)

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(uneven))
        if got.shape != (7,):
            return f"for W of shape (3, 7) you return shape {tuple(got.shape)}; one number per feature is (7,)"
        return None

    def right_numbers(answer: Callable) -> str | None:
        for W, name in ((shape("digon"), "the digon"), (shape("pentagon"), "the pentagon"), (uneven, "a random W")):
            got, right = torch.as_tensor(answer(W)).float(), feature_dimensionality(W)
            if not torch.allclose(got, right, atol=1e-4):
                if torch.allclose(got * W.norm(dim=0) ** 2, right, atol=1e-4):  # two mistakes with one result
                    return (
                        "regular shapes are right, uneven norms are not: you are off by the factor ‖W_i‖². Either the "
                        "denominator has W_i in place of the *unit* vector Ŵ_i, or the numerator is not ‖W_i‖²"
                    )
                return f"for {name} the first feature has D = {right[0]:.3f}, you say {got.flatten()[0]:.3f}"
        return None

    hint = "divide each column by its norm to get Ŵ; row i of (Ŵᵀ W)² sums to the denominator, its own term included."
    return judge("Exercise 2", answer, [right_shape, right_numbers], hint, "Each feature now knows what share it owns.")


def solution_dimensionality(W: Tensor) -> Tensor:
    """D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)²."""
    norms = W.norm(dim=0)
    directions = W / norms
    return norms**2 / (directions.T @ W).square().sum(dim=1)


# Exercise 3: build a shape.


def check_three_quarters(answer: Any) -> Verdict:
    """`answer`: four features in three dimensions, a (3, 4) matrix, with D = 3/4 each."""

    def right_shape(W: Any) -> str | None:
        size = tuple(torch.as_tensor(W).shape)
        return None if size == (3, 4) else f"W has shape {size}; three dimensions and four features make (3, 4)"

    def unit(W: Any) -> str | None:
        norms = torch.as_tensor(W, dtype=torch.float32).norm(dim=0)
        if (norms - 1).abs().max() > 1e-3:
            return f"the columns have norms {[round(v, 3) for v in norms.tolist()]}; make each 1"
        return None

    def three_quarters(W: Any) -> str | None:
        got = feature_dimensionality(torch.as_tensor(W, dtype=torch.float32))
        if (got - 0.75).abs().max() > 1e-3:
            return f"the features get {[round(v, 3) for v in got.tolist()]} of a dimension; all four should get 0.75"
        return None

    hint = "take every second corner of a cube centred on the origin, and divide by √3."
    praise = "A tetrahedron: four features, 3/4 of a dimension each."
    return judge("Exercise 3", answer, [right_shape, unit, three_quarters], hint, praise)


def solution_three_quarters() -> Tensor:
    """Every second corner of a cube."""
    return torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 3**0.5


# Exercise 4: the boundary of the phase diagram.


def check_phase_boundary(answer: Any) -> Verdict:
    """`answer(r)`: the feature probability at which sharing a dimension begins to pay, r the relative importance."""

    def at_equal_importance(answer: Callable) -> str | None:
        got = float(answer(1.0))
        if abs(got - 4 / 7) > 1e-4:
            return f"at r = 1 the two losses are equal at p = 4/7 ≈ 0.571; you say {got:.3f}"
        return None

    def elsewhere(answer: Callable) -> str | None:
        for r in (0.1, 0.5, 3.0, 10.0):
            got, right = float(answer(r)), solution_phase_boundary(r)
            if abs(got - right) > 1e-4:
                side = "above 1, where it is feature 1 that gets dropped" if r > 1 else "below 1"
                return f"right at r = 1, but for r = {r:g} ({side}) it is p = {right:.3f}; you say {got:.3f}"
        return None

    hint = "set p²(1 + r)/6 equal to min(1, r)(p/3 − p²/4), divide both sides by p, and solve for p."
    praise = "Now hold trained models against it."
    return judge("Exercise 4", answer, [at_equal_importance, elsewhere], hint, praise)


def solution_phase_boundary(r: float) -> float:
    """p²(1 + r)/6 = min(1, r)(p/3 − p²/4), solved for p."""
    cheap = min(1.0, r)
    return 4 * cheap / (2 * (1 + r) + 3 * cheap)


# Exercise 5: |x| by hand.


def check_absolute_value(answer: Any) -> Verdict:
    """`answer`: (W_in, W_out) of shapes (2n, n) and (n, 2n) with ReLU(W_out ReLU(W_in x)) = |x| for n = 3."""

    def right_shapes(answer: Any) -> str | None:
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            return "give a pair (W_in, W_out)"
        sizes = tuple(tuple(torch.as_tensor(W).shape) for W in answer)
        return None if sizes == ((6, 3), (3, 6)) else f"the shapes are {sizes}; for n = 3 they are ((6, 3), (3, 6))"

    def computes(answer: Any) -> str | None:
        W_in, W_out = (torch.as_tensor(W, dtype=torch.float32) for W in answer)
        x = torch.linspace(-1, 1, 21)[:, None] * torch.tensor([[1.0, -0.5, 0.3]])
        y = ((x @ W_in.T).relu() @ W_out.T).relu()
        worst = (y - x.abs()).abs().max(dim=0).values
        if not worst.max() <= 1e-4:  # a NaN is not right either
            feature = int(worst.argmax())
            wrong_below = not (y - x.abs()).abs()[x[:, feature] < 0, feature].max() <= 1e-4
            side = "negative" if wrong_below else "positive"
            return f"feature {feature} is off by up to {worst[feature]:.2f}, on {side} inputs"
        return None

    hint = "|x| = ReLU(x) + ReLU(−x): one neuron for each sign, both read with weight 1."
    praise = "Two neurons per feature, and no noise at all."
    return judge("Exercise 5", answer, [right_shapes, computes], hint, praise)


def solution_absolute_value() -> tuple[Tensor, Tensor]:
    """One neuron for +x and one for −x per feature."""
    one = torch.eye(3)
    return torch.cat([one, -one]), torch.cat([one, one], dim=1)
