"""Exercises of the gallery's notebooks on latent variables: which of them a model uses, and what for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# Posterior collapse: how many nats each latent of a linear conditional VAE is worth, before any training.


def check_kl(answer: Any) -> Verdict:
    """`answer(x, y, floor, n_latents)`: examples (n, d_x) and (n, d_y), a variance, a number -> KL (n_latents,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator) + 1
    own = torch.randn(40, 4, generator=generator) * torch.tensor([2.0, 1.4, 0.9, 0.3])
    y = own + x @ torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, -1.0, 2.0, 0.0]]) + 0.7
    floor, n_latents = 0.5, 4

    def worth(part: Tensor) -> Tensor:
        variances = torch.linalg.svdvals(part).square() / len(part)
        return (variances / floor).log().clamp(min=0) / 2

    def fitted(x: Tensor, y: Tensor) -> Tensor:
        return x @ torch.linalg.pinv(x) @ y

    x_0, y_0 = x - x.mean(0), y - y.mean(0)
    rest = y_0 - fitted(x_0, y_0)
    variances = torch.linalg.svdvals(rest).square() / len(rest)
    wrong = {
        "that is the VAE without x: what x already says of y needs no latent": worth(y_0),
        "that is the part of y that x foretells; the latents are needed for the rest": worth(fitted(x_0, y_0)),
        "take the means off x and y first: an offset costs nothing": worth(y - fitted(x, y)),
        "compare variances with D, not standard deviations": (variances.sqrt() / floor).log().clamp(min=0) / 2,
        "half of the logarithm; yours is twice as much": (variances / floor).log().clamp(min=0),
        "a KL is not negative: a variance below D has a collapsed latent, with 0": (variances / floor).log() / 2,
        "log(v / D), without 1 +: at v = D the latent is worth nothing": (1 + variances / floor).log() / 2,
        "divide by the number of examples: a variance is a mean": worth(rest * len(rest) ** 0.5),
    }
    right = solution_kl(x, y, floor, n_latents)
    tests = numbers_like(
        lambda answer: answer(x.clone(), y.clone(), floor, n_latents),
        right,
        wrong,
        "return one KL for each of n_latents, here (4,), the largest first",
        f"the largest should be {right[0]:.3f}; yours is {{0[0]:.3f}}",
    )
    few = numbers_like(
        lambda answer: answer(x.clone(), y.clone(), floor, 2),
        solution_kl(x, y, floor, 2),
        {},
        "with n_latents = 2 there are two numbers, the largest ones",
        "with n_latents = 2 only the two largest are left",
    )
    hints = (
        "The decoder has x, so it may predict y by linear regression at no cost. What variances are left?",
        "torch.linalg.svdvals of the centred rest, squared, divided by n; then log(v / D) / 2, cut off at 0.",
    )
    praise = "No network was needed: what x leaves open of y, and D, say which latents will be used, and for how much."
    return judge("The exercise", answer, [*tests, *few], hints, praise)


def solution_kl(x: Tensor, y: Tensor, floor: float, n_latents: int) -> Tensor:
    x, y = x - x.mean(0), y - y.mean(0)
    rest = y - x @ (torch.linalg.pinv(x) @ y)
    variances = torch.linalg.svdvals(rest)[:n_latents] ** 2 / len(y)
    return (variances / floor).log().clamp(min=0) / 2
