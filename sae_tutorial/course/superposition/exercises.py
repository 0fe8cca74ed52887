"""Exercises of notebook 02: toy models of superposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sae_tutorial.course.judge import NotAnswered, Verdict, judge
from sae_tutorial.course.superposition.toy_models import feature_dimensionality, shape

KEPT = 0.5  # a feature counts as represented when its norm is above this

# Exercise 1: the training step of the toy model.


def check_training_step(answer: Any) -> Verdict:
    """`answer(W, b, x, importance, optimizer)` makes one step and returns each model's loss, (models,).

    W (models, m, n), b (models, 1, n), x (models, B, n), importance (models, 1, n).
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 3, 5, generator=generator), 0.1 * torch.randn(2, 1, 5, generator=generator)
    x = torch.rand(2, 7, 5, generator=generator) * (torch.rand(2, 7, 5, generator=generator) < 0.6)
    importance = (0.7 ** torch.arange(5.0)).expand(2, 1, 5)

    def after(step: Callable, n_steps: int) -> tuple[Tensor, Tensor, Any]:
        """W, b and what the last step returned, from the same start."""
        W, b = (value.clone().requires_grad_() for value in start)
        optimizer = torch.optim.SGD([W, b], lr=0.1)
        loss = None
        for _ in range(n_steps):
            try:
                with _Products() as products:
                    loss = step(W, b, x, importance, optimizer)
            except RuntimeError as error:
                if words := _told_of_torch(str(error), products, W):
                    raise AssertionError(words) from None
                raise
            except NotAnswered:
                if not torch.equal(W, start[0]):
                    raise AssertionError(
                        "your step moves W but returns nothing; return the loss of each model"
                    ) from None
                raise
        return W.detach(), b.detach(), loss

    def right_loss(answer: Callable) -> str | None:
        got = torch.as_tensor(after(answer, 1)[2]).detach().float()
        if got.shape != (2,):
            return (
                f"for two models you return a loss of shape {tuple(got.shape)}; it should be (2,), one for each. "
                "Add over the features, which are the last axis, and average over the batch, which is the one before"
                + ("" if got.shape else ". If you summed over the models for `backward`: return what was there before")
            )
        right = _toy_loss(*start, x, importance)
        if torch.allclose(got, right, atol=1e-4):
            return None
        for words, wrong in _wrong_losses(*start, x, importance).items():
            if torch.allclose(got, wrong, atol=1e-4):
                return words
        return f"the first of two models has the loss {right[0]:.3f}, you say {got[0]:.3f}"

    def right_step(answer: Callable) -> str | None:
        (W, b, _), (right_W, right_b, _) = after(answer, 1), after(solution_training_step, 1)
        if torch.equal(W, start[0]):
            return (
                "the loss is right, but W is what it was before. Either backward() or step() is missing, or the order "
                "is wrong: zero_grad, backward, step"
            )
        if torch.allclose(W - start[0], (right_W - start[0]) / 2, atol=1e-5):
            return (
                "the loss is right, but W moves half as far as it should: you averaged over the two models, so each "
                "learns more slowly the more models train together. Add them up"
            )
        if not torch.allclose(W, right_W, atol=1e-4) or not torch.allclose(b, right_b, atol=1e-4):
            return (
                "the loss is right, but one step from the same start ends at other weights than gradient descent does"
            )
        return None

    def right_second_step(answer: Callable) -> str | None:
        if not torch.allclose(after(answer, 2)[0], after(solution_training_step, 2)[0], atol=1e-4):
            return (
                "the first step is right, the second is not: PyTorch adds new gradients to those that are still there"
            )
        return None

    hints = (
        "three lines are mathematics: h, x' and the loss. `W.mT` swaps the last two axes of W, and `sum(dim=-1)` adds "
        "over features.",
        "the rest is what every PyTorch loop does, in an order that matters: old gradients away, new ones, move. "
        "`backward` wants a single number, and models do not disturb each other in a sum.",
    )
    praise = (
        "These are the three equations and the loop. Set `use_mine = True`, and the notebook trains with your code."
    )
    return judge("Exercise 1", answer, [right_loss, right_step, right_second_step], hints, praise)


class _Products(TorchFunctionMode):
    """Keeps the shapes of the latest matrix product: PyTorch's own message does not say which matrices it was."""

    last: tuple[tuple[int, ...], ...] | None = None
    added: tuple[tuple[int, ...], ...] = ()  # what was being added when the answer stopped, if it was a sum

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(function, "__name__", "")
        sums = ("add", "add_", "__add__", "__radd__", "__iadd__")
        self.added = tuple(tuple(value.shape) for value in args[:2]) if name in sums and len(args) > 1 else ()
        if name in ("matmul", "__matmul__", "bmm", "mm"):
            self.last = tuple(tuple(value.shape) for value in args[:2] if isinstance(value, Tensor))
        return function(*args, **(kwargs or {}))


def _told_of_torch(error: str, calls: _Products, W: Tensor) -> str | None:
    """What PyTorch's complaint means here, if it is one that a learner is likely to meet."""
    product, n_models, m, n = calls.last, *W.shape
    if (n_models, 1, n) in calls.added and any(shape[-1:] == (m,) for shape in calls.added):
        return "b has one number for each of the n features: it belongs to the output, after `h @ W`, and not to h"
    if "implicitly created only for scalar" in error:
        return (
            "`backward()` wants a single number, and yours is called on one loss for each model (or more). Add them up "
            "first: models share no weights, so in a sum they do not disturb each other"
        )
    if "does not require grad" in error:
        return "`backward()` finds no way from the loss to W and b: call `detach()`, if at all, after it"
    if product is None or len(product) < 2 or not any(words in error for words in ("batch2", "shapes cannot", "size")):
        return None
    left, right = product
    if left[-1:] == right[-2:-1]:
        return None  # this product fits: the complaint is about something else
    said = f"a product of shapes {left} and {right} does not fit: the last axis left must be as long as the last but "
    said += "one right"
    if left == W.shape and right[-1] == n:
        return (
            f"{said}. W x is for an x that is a column; here every sample is a *row* of x, so W comes right: `x @ W.mT`"
        )
    if left[-1] == n and right == W.shape:
        return f"{said}. From n features to m dimensions leads the transpose: `x @ W.mT`"
    if left[-1] == m and right == W.mT.shape:
        return f"{said}. `W.mT` leads from x to h; back from h to the features leads W itself"
    return said


def _toy_loss(W: Tensor, b: Tensor, x: Tensor, importance: Tensor) -> Tensor:
    return (importance * (x - (x @ W.mT @ W + b).relu()).square()).sum(dim=-1).mean(dim=-1)


def _wrong_losses(W: Tensor, b: Tensor, x: Tensor, importance: Tensor) -> dict[str, Tensor]:
    """What is said of a likely mistake -> the losses that it gives."""
    gram, ones = W.mT @ W, torch.ones_like(importance)
    linear = x - (x @ gram + b)
    return {
        "this is the loss without the ReLU: outputs may not be negative": (importance * linear.square())
        .sum(-1)
        .mean(-1),
        "you take the absolute value where the ReLU belongs: it turns negative outputs round, a ReLU makes them 0": (
            importance * (x - (x @ gram + b).abs()).square()
        )
        .sum(-1)
        .mean(-1),
        "you add the bias after the ReLU; it belongs inside, added before negative outputs become 0": (
            importance * (x - ((x @ gram).relu() + b)).square()
        )
        .sum(-1)
        .mean(-1),
        "this is the loss without the bias b": _toy_loss(W, torch.zeros_like(b), x, importance),
        "all features count the same in your loss; weigh each squared error by its importance": _toy_loss(
            W, b, x, ones
        ),
        "you average over features; the formula has a sum": _toy_loss(W, b, x, importance) / x.shape[-1],
        "you add over the batch and average over features: the other way round": _toy_loss(W, b, x, importance)
        * (x.shape[-2] / x.shape[-1]),
        "you weigh the size of the error; the formula squares it": (importance * (x - (x @ gram + b).relu()).abs())
        .sum(-1)
        .mean(-1),
        "you add over the batch; average there, or the loss depends on its size": _toy_loss(W, b, x, importance)
        * x.shape[-2],
        "there is a ReLU on your hidden layer; this model has one only at the output": (
            importance * (x - ((x @ W.mT).relu() @ W + b).relu()).square()
        )
        .sum(-1)
        .mean(-1),
        "the importance is squared in your loss; weigh the squared error, not the error": _toy_loss(
            W, b, x, importance.square()
        ),
    }


def solution_training_step(
    W: Tensor, b: Tensor, x: Tensor, importance: Tensor, optimizer: torch.optim.Optimizer
) -> Tensor:
    """h = W x, x' = ReLU(Wᵀ h + b), the weighted squared error, and one step down its gradient."""
    h = x @ W.mT
    x_read = torch.relu(h @ W + b)
    loss = (importance * (x - x_read) ** 2).sum(dim=-1).mean(dim=-1)
    optimizer.zero_grad()
    loss.sum().backward()
    optimizer.step()
    return loss.detach()


# Exercise 2: six features in two dimensions, predicted.

SIX = "CBA"  # at p = 0.05, 0.15 and 0.3


def check_six(answer: Any) -> Verdict:
    """`answer`: a letter for p = 0.05, 0.15 and 0.3 each, "A" two pairs, "B" pentagon, "C" hexagon, "D" triangle.

    Any notation will do: "CBA", "c, b, a" and ["C", "B", "A"] are one answer.
    """
    if answer is not None:
        answer = "".join(str(answer).upper().replace("AND", "").translate(str.maketrans("", "", " ,;-/[]()'\"")))

    def three_letters(answer: str) -> str | None:
        if len(answer) != 3 or not set(answer) <= set("ABCD"):
            return 'give three letters from A to D in one string, such as "DDD": for p = 0.05, then 0.15, then 0.3'
        return None

    def no_doubles(answer: str) -> str | None:
        if "D" in answer:
            return (
                "two features in one direction cannot be told apart: whenever one of them is on, both are read. That "
                "costs something each time, and not only when features meet"
            )
        return None

    def rarer_means_more(answer: str) -> str | None:
        if list(answer) != sorted(answer, reverse=True):
            return "you keep fewer features where they are rarer. Collisions get rarer faster than features do"
        return None

    def right(answer: str) -> str | None:
        pairs = list(zip(("0.05", "0.15", "0.3"), answer, SIX, strict=True))
        too_few, too_many = ([p for p, got, want in pairs if more * (ord(got) - ord(want)) > 0] for more in (-1, 1))
        if too_few == ["0.15"]:
            return (
                "close, but no, at p = 0.15. With five features pairs and pentagon cost the same at p = 0.14, and what "
                "the pairs forgot had an importance of 0.66 only. Here all six have 1: forgetting costs more, so the "
                "pentagon wins a little earlier"
            )
        if too_few:
            known = "with five features the pentagon, one feature more than two pairs, held up to p = 0.14"
            more = ". At p = 0.15, too, more are kept" if "0.15" in too_few else ""
            return f"not so at p = 0.05: collisions are rare enough there to keep more; {known}{more}"
        if too_many == ["0.15"]:  # a hexagon
            return (
                "not so at p = 0.15: even at p = 0.14 a pentagon of five had only just caught up with two pairs; a "
                "hexagon's neighbours are closer, 60° and not 72°, so it needs rarer features"
            )
        if too_many:
            known = "with five features, two pairs gave way to the pentagon only below p = 0.19"
            return f"not so at p = {' and '.join(too_many)}: {known}, and a sixth makes collisions more frequent"
        return None

    hints = (
        "dropping a feature costs something proportional to p, collisions of two to p². What wins if p is small?",
        "neighbours in a hexagon are at 60°, in a pentagon at 72°. Which one needs the rarer features?",
    )
    praise = "Rarer features, more of them kept. Now see whether training agrees."
    tests = [three_letters, no_doubles, rarer_means_more, right]
    return judge("Exercise 2", answer, tests, hints, praise)


# Exercise 3: a definition that tells superposition from forgetting.


def _at(*degrees: float) -> Tensor:
    """Features of length 1 in a plane, at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()])


# W, is it superposed?, what is said to those who think otherwise. Each row stands for one predicate that looks right.
_RANK_DECIDES = [
    (
        torch.tensor([[1.0, -1.0], [0.0, 0.0]]),
        True,
        "two opposite features share one dimension, and it does not help them that the model has a second one: WᵀW is "
        "singular. Do not count rows; use the rank, a determinant is never exactly 0",
    ),
    (
        torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.3]]),
        True,
        "two opposite features share one dimension; the third feature, of norm 0.3, is dropped, but you count the "
        "dimension that it points along. Take the rank of the kept columns, not of W",
    ),
    (
        torch.tensor([[1.0, -0.6], [0.0, 0.0]]),
        True,
        "a feature of norm 0.6 counts as represented, and here it shares its dimension with another",
    ),
    (
        torch.tensor([[1.0, -0.45], [0.0, 0.0]]),
        False,
        "a feature of norm 0.45 does not count as represented; the other one has the dimension to itself",
    ),
    (
        _at(0, 60),
        False,
        "two features at 60° in a plane are not orthogonal, but they fit: WᵀW can be inverted. By this definition they "
        "are not in superposition",
    ),
    (
        _at(0, 120),
        False,
        "two features at 120° in a plane point away from each other, but they fit: WᵀW can be inverted. The sign of a "
        "cosine does not decide",
    ),
    (
        _at(0, 20),
        False,
        "two features at 20° in a plane overlap much, but they fit: WᵀW can be inverted. How large the interference is "
        "does not decide",
    ),
    (
        _at(0, 45, 90),
        True,
        "three features in a plane, none of them opposite to another, are one more than fits: WᵀW is singular. "
        "Negative cosines are not needed",
    ),
    (
        1.3 * torch.eye(2),
        False,
        "two orthogonal features of norm 1.3 share nothing. Lengths say whether a feature is kept, not if it shares",
    ),
]


def check_superposed(answer: Any) -> Verdict:
    """`answer(W)`, W of shape (hidden, features): does the model represent more features than fit without sharing?"""
    two_kept = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    faint = two_kept + 0.03  # dropped features are rarely exactly zero after training
    turned = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) @ two_kept

    def forgetting_is_not_sharing(answer: Callable) -> str | None:
        if bool(answer(two_kept)):
            return (
                "you call it superposition when two features have an orthogonal direction each and three are dropped. "
                "WᵀW is singular there too, but nothing is shared. If you set the dropped columns to 0: a column of "
                "zeros makes WᵀW singular as well, so take it out"
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
                    "If you ask whether WᵀW of the kept columns is singular: use the rank, for a determinant is never "
                    "exactly 0"
                )
        return None

    def as_the_rank_says(answer: Callable) -> str | None:
        for W, shares, words in _RANK_DECIDES:
            if bool(answer(W)) != shares:
                return words
        return None

    tests = [
        shapes_are_superposed,
        forgetting_is_not_sharing,
        faint_features_do_not_count,
        as_the_rank_says,
    ]
    hints = (
        "which columns make WᵀW singular in a model that keeps two orthogonal features and drops three?",
        "a column of length 0.04 says nothing about sharing. What is left to ask the old question of?",
    )
    praise = "Among the features that are kept, WᵀW decides. That is the definition."
    return judge("Exercise 3", _on_a_copy(answer), tests, hints, praise)


def _on_a_copy(answer: Any) -> Any:
    """An answer may write into W; the next question is about the same W."""
    return (lambda W: answer(W.clone())) if callable(answer) else answer


def solution_superposed(W: Tensor) -> bool:
    """WᵀW of the represented features alone is singular."""
    kept = W[:, W.norm(dim=0) > KEPT]
    return int(torch.linalg.matrix_rank(kept)) < kept.shape[1]


# Exercise 4: what share of a dimension a feature has.


def check_dimensionality(answer: Any) -> Verdict:
    """`answer(W)`, W of shape (hidden, features), returns the share of a dimension of every feature."""
    generator = torch.Generator().manual_seed(0)
    uneven = torch.randn(3, 7, generator=generator)

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(uneven))
        if got.shape != (7,):
            return f"for W of shape (3, 7) you return shape {tuple(got.shape)}; one number per feature is (7,)"
        return None

    def right_numbers(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(uneven)).float()
        for words, wrong in _wrong_shares(uneven).items():
            if torch.allclose(got, wrong, atol=1e-4):
                return words
        for W, name in ((shape("digon"), "the digon"), (shape("pentagon"), "the pentagon"), (uneven, "a random W")):
            got, right = torch.as_tensor(answer(W)).float(), feature_dimensionality(W)
            if not torch.allclose(got, right, atol=1e-4):
                return f"for {name} the first feature has a share of {right[0]:.3f}, you say {got.flatten()[0]:.3f}"
        return None

    hints = (
        "write down the shape of every step: one row for the feature i that is read, one column for each feature j.",
        "only one of the two vectors in the denominator has length 1. Try two features of lengths 1 and 2.",
    )
    return judge(
        "Exercise 4",
        _on_a_copy(answer),
        [right_shape, right_numbers],
        hints,
        "Each feature now knows what share it owns.",
    )


def _wrong_shares(W: Tensor) -> dict[str, Tensor]:
    """What is said of a likely mistake -> the shares that it gives. The first has two causes with one result."""
    norms, unit = W.norm(dim=0), W / W.norm(dim=0)
    along = (unit.T @ W).square()  # (i, j)
    return {
        "you are off by the factor ‖W_i‖². Most likely your denominator has W_i where the *unit* vector Ŵ_i belongs; a "
        "numerator of 1 has the same effect": 1 / along.sum(dim=1),
        "your denominator adds up over i, the feature that is read; add up over j": norms**2 / along.sum(dim=0),
        "both vectors in your denominator are at unit length; only W_i is, W_j keeps its length": norms**2
        / (unit.T @ unit).square().sum(dim=1),
        "your denominator leaves out j = i; the feature itself is one of those that are read along its direction": norms
        ** 2
        / (along.sum(dim=1) - norms**2),
        "your numerator is the norm; the formula has the *squared* norm": norms / along.sum(dim=1),
        "you add up the dot products as they are; square each": norms**2 / (unit.T @ W).sum(dim=1),
        "you add up the sizes of the dot products; square each": norms**2 / (unit.T @ W).abs().sum(dim=1),
        "you average over j; add up": norms**2 / along.mean(dim=1),
        "you add up first and square then; square each dot product": norms**2 / (unit.T @ W).sum(dim=1).square(),
        "you divided by the norms of rows; a feature is a column: `W.norm(dim=0)`": norms**2
        / ((W / W.norm(dim=1, keepdim=True)).T @ W).square().sum(dim=1),
        "you divided by the norm of all of W; a feature is a column: `W.norm(dim=0)`": norms**2
        / ((W / W.norm()).T @ W).square().sum(dim=1),
        "you added up over i and j; keep one number per i": norms**2 / along.sum(),
    }


def solution_dimensionality(W: Tensor) -> Tensor:
    """‖W_i‖² / Σ_j (Ŵ_i · W_j)²."""
    norms = W.norm(dim=0)
    directions = W / norms
    return norms**2 / (directions.T @ W).square().sum(dim=1)


# Exercise 5: the boundary of the phase diagram.


def check_phase_boundary(answer: Any) -> Verdict:
    """`answer(importance)`: the feature probability at which sharing a dimension begins to pay."""

    def mean_of_dropped(answer: Callable) -> str | None:
        if abs(float(answer(1.0)) - 1) < 1e-4 and abs(float(answer(0.5)) - 2 / 3) < 1e-4:
            return "you read a dropped feature as 0, which costs p/3; its bias can say the mean, which costs less"
        return None

    def at_equal_importance(answer: Callable) -> str | None:
        got = float(answer(1.0))
        if abs(got - 4 / 7) > 1e-4:
            return f"at importance 1 the two losses are equal at p = 4/7 ≈ 0.571; you say {got:.3f}"
        return None

    def elsewhere(answer: Callable) -> str | None:
        for importance in (0.1, 0.5, 3.0, 10.0):
            got, right = float(answer(importance)), solution_phase_boundary(importance)
            if abs(got - right) > 1e-4:
                side = "above 1, where it is feature 1 that gets dropped" if importance > 1 else "below 1"
                return f"right at importance 1, but at {importance:g} ({side}) it is p = {right:.3f}; you say {got:.3f}"
        return None

    hints = (
        "which of the two features would you drop if I is 3? What dropping costs depends on the answer.",
        "both losses have a factor p. Divide by it, and the equation is linear in p.",
    )
    praise = "Now hold trained models against it."
    return judge("Exercise 5", answer, [mean_of_dropped, at_equal_importance, elsewhere], hints, praise)


def solution_phase_boundary(importance: float) -> float:
    """p²(1 + I)/6 = min(1, I)(p/3 − p²/4), solved for p."""
    dropped = min(1.0, importance)
    return 4 * dropped / (2 * (1 + importance) + 3 * dropped)
