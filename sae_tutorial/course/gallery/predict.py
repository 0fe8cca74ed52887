"""Exercises of the gallery's notebooks on prediction: what is foretold of one view from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

Map = Callable[[Tensor], Tensor]

# JEPA: predict the representation of the other view, and let no gradient through the target.


def check_jepa_loss(answer: Any) -> Verdict:
    """`answer(encode, predict, x, y)`: two maps and two views (n, d) -> the loss, one number that can be derived."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 3, generator=generator)
    start = torch.randn(2, 3, 3, generator=generator)

    def slopes(loss: Callable[[Map, Map, Tensor, Tensor], Tensor]) -> Tensor:
        w, v = start.clone().requires_grad_()
        found = loss(lambda z: z @ w.T, lambda z: z @ v.T, x.clone(), y.clone())
        if not isinstance(found, Tensor) or found.shape != ():
            return found
        if not found.requires_grad:
            return torch.cat([found.view(1), torch.zeros(18)])
        for_w, for_v = torch.autograd.grad(found, (w, v), allow_unused=True, materialize_grads=True)
        return torch.cat([found.detach().view(1), for_w.flatten(), for_v.flatten()])

    def half(error: Tensor) -> Tensor:
        return error.square().sum(1).mean() / 2

    wrong = {
        "the target learns too: stop the gradient after encode(y), not before it": slopes(
            lambda encode, predict, x, y: half(predict(encode(x)) - encode(y))
        ),
        "the gradient is stopped on the wrong side: the target is to stand still": slopes(
            lambda encode, predict, x, y: half(predict(encode(x)).detach() - encode(y))
        ),
        "nothing can learn from this: stop the gradient of the target alone": slopes(
            lambda encode, predict, x, y: half(predict(encode(x)) - encode(y)).detach()
        ),
        "that is the masked autoencoder: here the target is the representation of y": slopes(
            lambda encode, predict, x, y: half(predict(encode(x)) - y)
        ),
        "encode(x) is to go through the predictor before it is compared": slopes(
            lambda encode, predict, x, y: half(encode(x) - encode(y).detach())
        ),
        "the views are swapped: y is the target": slopes(
            lambda encode, predict, x, y: half(predict(encode(y)) - encode(x).detach())
        ),
        "half of the squared error, as in the formula; yours is twice as much": slopes(
            lambda encode, predict, x, y: 2 * half(predict(encode(x)) - encode(y).detach())
        ),
        "sum over the numbers of a representation; the mean is over examples alone": slopes(
            lambda encode, predict, x, y: (predict(encode(x)) - encode(y).detach()).square().mean() / 2
        ),
    }
    right = slopes(solution_jepa_loss)
    tests = numbers_like(
        lambda answer: slopes(answer),
        right,
        wrong,
        "return one number, a tensor that gradients can flow from",
        f"loss and first slope should be {right[0]:.3f} and {right[1]:.3f}; yours are {{0[0]:.3f}} and {{0[1]:.3f}}",
    )
    hints = (
        "There are two numbers to compare: what is predicted from x, and the representation of y. Which may move?",
        "predict(encode(x)) − encode(y).detach(); square, sum over columns, mean over rows, half of it.",
    )
    praise = "The encoder moves only through its prediction; its target stands still, so it cannot shrink to be met."
    return judge("The exercise", answer, tests, hints, praise)


def solution_jepa_loss(encode: Map, predict: Map, x: Tensor, y: Tensor) -> Tensor:
    error = predict(encode(x)) - encode(y).detach()
    return error.square().sum(1).mean() / 2
