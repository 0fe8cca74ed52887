"""Exercises of the gallery's notebooks on compression: what a network can do without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

Blocks = Sequence[tuple[Tensor, Tensor]]

# Maestro: how often ordered dropout trains each column.


def check_shares(answer: Any) -> Verdict:
    """`answer(r)`: a number of columns -> the share of the steps in which each of them is trained, (r,)."""
    right = torch.tensor(solution_shares(4))
    wrong = {
        "the other way round: with b = 1 it is the *first* column that is trained": right.flip(0),
        "that is how often b is each number; column j is trained for all b of j and more": torch.full((4,), 0.25),
        "all are trained only where b is largest": torch.ones(4),
        "that counts from 0: the first column is trained at every step": right - 0.25,
        "that is how many of the r numbers, not their share": 4 * right,
    }
    shape = "return a share for each of the columns, here ({},)"
    otherwise = "of {} columns the second is trained in {:.0%}; yours says {{0[1]:.0%}}"
    tests = [
        *numbers_like(lambda answer: answer(4), right, wrong, shape.format(4), otherwise.format(4, 3 / 4)),
        *numbers_like(lambda answer: answer(7), solution_shares(7), {}, shape.format(7), otherwise.format(7, 6 / 7)),
    ]
    hints = (
        "Write down the columns that are trained for b = 1, for b = 2, …, and count.",
        "Column j, counted from 1, is trained for b = j, j + 1, …, r.",
    )
    praise = "The first column learns at every step, and must do well alone; the last is rarely asked."
    return judge("The exercise", answer, tests, hints, praise)


def solution_shares(r: int) -> list[float]:
    return [(r - j) / r for j in range(r)]


# AutoDistil: a small student that is cut out of a large one.


def check_student(answer: Any) -> Verdict:
    """`answer(x, W_in, blocks, W_out, width)`: inputs (n, d), the weights of a large student, and how wide the small
    one is -> what the small one says, (n, outputs). A block is a pair, W (large, large) and b (large,)."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, W_in, W_out, width = random(5, 3), random(3, 6), random(6, 2), 4
    blocks = [(random(6, 6) / 2, random(6)) for _ in range(2)]
    right = solution_student(x, W_in, blocks, W_out, width)

    def other(step: Any, last: bool = False, width: int = width) -> Tensor:
        cut = slice(-width, None) if last else slice(None, width)
        h = x @ W_in[:, cut]
        for W, b in blocks:
            h = step(h, h @ W[cut, cut], b[cut])
        return h @ W_out[cut]

    wrong = {
        "that is the large student: cut every matrix, and every b, to the first `width`": solution_student(
            x, W_in, blocks, W_out, 6
        ),
        "those are the last rows and columns; keep the first": other(lambda h, y, b: h + torch.tanh(y + b), last=True),
        "a block *adds* to h: h + tanh(…)": other(lambda h, y, b: torch.tanh(y + b)),
        "the tanh is missing": other(lambda h, y, b: h + y + b),
        "b belongs inside of the tanh, and it is cut to the first `width` too": other(
            lambda h, y, b: h + torch.tanh(y) + b
        ),
        "b is missing": other(lambda h, y, b: h + torch.tanh(y)),
        "h itself stays outside of the tanh": other(lambda h, y, b: torch.tanh(h + y + b)),
        "the blocks are missing": other(lambda h, y, b: h),
    }
    tests = numbers_like(
        lambda answer: answer(x.clone(), W_in, blocks, W_out, width),
        right,
        wrong,
        "return the outputs for each of the inputs, here (5, 2)",
        f"the first output should be {right[0, 0]:.3f}; yours says {{0[0][0]:.3f}}",
    )
    hints = (
        "Write the large student first. Where do its 6 numbers for an input become 4?",
        "W_in keeps its first `width` columns, W_out its first `width` rows, W both; b its first `width` numbers.",
    )
    praise = (
        "One set of weights, a student of each width: none has any weight of its own, so they pull at the same ones."
    )
    return judge("The exercise", answer, tests, hints, praise)


def solution_student(x: Tensor, W_in: Tensor, blocks: Blocks, W_out: Tensor, width: int) -> Tensor:
    h = x @ W_in[..., :width]
    for W, b in blocks:
        h = h + torch.tanh(h @ W[..., :width, :width] + b[..., :width])
    return h @ W_out[..., :width, :]


# Sparse Model Soups: which weights survive a round of pruning.


def check_mask(answer: Any) -> Verdict:
    """`answer(w, kept)`: the weights of a network (..., n), and the share to keep -> 1 for those that are kept, the
    largest in size, 0 for the others, (..., n)."""
    w, kept = torch.tensor([[0.1, -0.9, 0.25, -0.2, 0.8, 0.05, 0.6, -0.7, 0.4, -0.5]]), 0.3
    right = solution_mask(w, kept)
    wrong = {
        "those are the largest with their sign; −0.9 is a large weight too: go by w.abs()": solution_mask(
            w - w.min(), kept
        ),
        "those are the smallest: they are to become 0, the others stay": 1 - solution_mask(w, 1 - kept),
        "`kept` is the share that stays, not the share that is cut": solution_mask(w, 1 - kept),
        "1 and 0 are exchanged": 1 - right,
        "return 1 where a weight stays, not the weight itself": w * right,
        "`kept` is a share of the weights, not of the largest weight": (w.abs() > kept * w.abs().max()).float(),
    }
    tests = numbers_like(
        lambda answer: answer(w.clone(), kept),
        right,
        wrong,
        "return a number for each weight, here (1, 10)",
        "of the 10 weights 3 should stay, −0.9, 0.8 and −0.7; yours says {0}",
    )
    hints = (
        "How many weights are to stay? And which tensor do you want the largest entries of?",
        "`topk` of w.abs() names them: `.indices`; then `scatter` 1 into zeros at these.",
    )
    praise = "Retraining leaves the zeros where they are, so all copies that begin here share them."
    return judge("The exercise", answer, tests, hints, praise)


def solution_mask(w: Tensor, kept: float) -> Tensor:
    largest = w.abs().topk(round(kept * w.shape[-1]), dim=-1).indices
    return w.new_zeros(w.shape).scatter(-1, largest, 1.0)


# DASS: a layer that works with few of its weights, and trains them all.


def check_sparse(answer: Any) -> Verdict:
    """`answer(w, mask)`: weights, and 1 for those that are kept, 0 for the others -> the weights as the layer uses
    them, the others 0; their gradient reaches every weight of w as it is, kept or not. All have one shape."""
    w, mask, weight = torch.tensor([0.9, -0.2, 0.1, -0.7]), torch.tensor([1.0, 0, 0, 1]), torch.tensor([3.0, 2, -1, 4])
    used = w * mask

    def used_and_gradient(answer: Any) -> Tensor:
        leaf = w.clone().requires_grad_()
        out = torch.as_tensor(answer(leaf, mask.clone()))
        if out.shape != w.shape:
            return out
        if out.requires_grad:
            (out * weight).sum().backward()
        return torch.stack([out.detach(), torch.zeros_like(w) if leaf.grad is None else leaf.grad])

    def says(used: Tensor, gradient: Tensor) -> Tensor:
        return torch.stack([used, gradient])

    wrong = {
        "the values are right, but weights that are cut get no gradient, and can never come back": says(
            used, weight * mask
        ),
        "nothing gets a gradient: only the *difference* to w may be detached": says(used, torch.zeros(4)),
        "that is w itself; the layer should use 0 where the mask is 0": says(w, weight),
        "kept weights get their gradient twice: once through w · mask, which should be detached": says(
            used, weight * (1 + mask)
        ),
        "the gradient of the mask is multiplied by w: it should reach w as it is": says(used, weight * (mask + w)),
        "the mask is added, not multiplied: a kept weight keeps its value": says(mask, weight),
        "1 and 0 are exchanged: the mask is 1 for what is kept": says(w * (1 - mask), weight),
    }
    tests = numbers_like(
        used_and_gradient,
        says(used, weight),
        wrong,
        "return a weight for each weight, here (4,)",
        "the layer should use 0.9, 0, 0 and −0.7, and the gradients 3, 2, −1 and 4 should reach w as they are; "
        "yours uses {0[0]}, and the gradients {0[1]} arrive",
    )
    hints = (
        "Forward it is w * mask, backward it should be w. Which difference lies between the two?",
        "Add that difference to w, and `detach` it: a detached tensor has values and no gradient.",
    )
    praise = "A weight that is cut still learns, so it can grow and take the position of another."
    return judge("The exercise", answer, tests, hints, praise)


def solution_sparse(w: Tensor, mask: Tensor) -> Tensor:
    return w + (w * mask - w).detach()
