"""Exercises on attention outputs: where a feature's pre-activation comes from, and shares of something with a sign."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, known_mistake, share_near

# Exercise 1: build direct feature attribution.


def check_attribution(answer: Any) -> Verdict:
    """`answer(pattern, values, reads)`: (H, S), (S, H, d) and (H, d) -> (H, S), what each head brings from each source
    position to the pre-activation of a feature."""
    generator = torch.Generator().manual_seed(0)
    H, S, d = 3, 5, 4
    pattern = torch.rand(H, S, generator=generator).softmax(1)
    values, reads = torch.randn(S, H, d, generator=generator), torch.randn(H, d, generator=generator)
    right = solution_attribution(pattern, values, reads)

    def a_table(answer: Callable) -> str | None:
        try:
            got = answer(pattern.clone(), values.clone(), reads.clone())
            if isinstance(got, (list, tuple)) and any(isinstance(one, Tensor) and one.ndim for one in got):
                return "you return a list of tensors: torch.stack makes one tensor of them"
            shape = tuple(torch.as_tensor(got).shape)
        except (RuntimeError, IndexError) as error:
            if "size" not in str(error) and "shape" not in str(error):
                raise
            advice = (
                "values is (sources, heads, d): those of head h are values[:, h], and a table (sources, heads) must be"
            )
            return f"{advice} turned round before it meets `pattern`. PyTorch says: {str(error).partition(chr(10))[0]}"
        told = {
            (S, H): f"return (heads, sources), here {(H, S)}; yours is the other way round, {shape}",
            (S,): "return a number for each head and source; you have summed over heads",
            (H,): "return a number for each head and source; you have summed over sources",
            (): "return a number for each head and source; you have summed over both",
            (H, S, d): "return one number for each head and source: take the dot product with `reads` over d",
        }
        return None if shape == (H, S) else told.get(shape, f"return (heads, sources), here {(H, S)}; yours is {shape}")

    def the_numbers(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(pattern.clone(), values.clone(), reads.clone())).float()
        if _same(got, right):
            return None
        wrong = {
            "a source counts by how much attention the head pays to it: multiply by `pattern`": right / pattern,
            "the feature reads one direction of each head: take the dot product of the value with `reads`": (
                pattern * values.sum(2).T
            ),
            "each head has its own part of the encoder's direction: reads[h] for head h": (
                pattern * (values @ reads[0]).T
            ),
            "a part may be negative: all of them add up to the pre-activation, so cut nothing off": right.relu(),
            "a part may be negative: without signs they do not add up to the pre-activation": right.abs(),
            "you leave out the direction and take lengths: the sign would be lost": pattern * values.norm(dim=2).T,
            "you reshaped (sources, heads) where it must be turned round: .T": (
                pattern * (values * reads).sum(2).reshape(H, S)
            ),
            "these are shares of the sum; the parts themselves are asked for": right / right.sum(),
        }
        if (told := known_mistake(got, wrong)) is not None:
            return told
        if _same(got.sum(), right.sum()):
            return "the sum is right, but it is not shared out as it should be among heads and sources"
        return f"head 0 brings {right[0, 1]:.3f} from position 1; yours says {got[0, 1]:.3f}"

    hints = (
        "z of head h is Σ_s pattern[h, s] · values[s, h]. The feature takes its dot product with reads[h].",
        "The values of head h are values[:, h], of the shape (sources, d). Take their dot product with reads[h]. What "
        "is each source multiplied by?",
        "torch.einsum('hs,shd,hd->hs', …) does all of it.",
    )
    praise = "It is exact, because nothing between the values and the feature is nonlinear once the pattern is known."
    return judge("Exercise 1", answer, [a_table, the_numbers], hints, praise)


def solution_attribution(pattern: Tensor, values: Tensor, reads: Tensor) -> Tensor:
    return torch.einsum("hs,shd,hd->hs", pattern, values, reads)


# Exercise 2: find the bug.


def share_with_a_bug(parts: Tensor, where: Tensor) -> float:
    """The share of a pre-activation that comes from some source positions; but for one mistake."""
    return float(parts[:, where].sum() / parts.sum())


def check_share(answer: Any) -> Verdict:
    """`answer(parts, where)`: (H, S) and (S,) bool -> of all positive parts, the share at these positions."""
    parts = torch.tensor([[1.0, -1.0, 0.5, 0.2], [2.0, 1.5, -0.5, -1.5]])  # not as many positive ones as sources
    where = torch.tensor([True, False, True, False])
    right = solution_share(parts, where)

    def mended(answer: Callable) -> str | None:
        got = float(answer(parts.clone(), where.clone()))
        if _same(got, right):
            return None
        absolute, by_source, raises = parts.abs(), parts.sum(0).clamp(min=0), parts.clamp(min=0)
        wrong: dict[str, Tensor | float] = {
            "this gives the same number as before: clamp the entries, before you add them up": (
                share_with_a_bug(parts, where)
            ),
            "with absolute values, what holds the feature back counts as if it raised it": (
                absolute[:, where].sum() / absolute.sum()
            ),
            "you add up heads first, so that one head's negative part hides another's positive one": (
                by_source[where].sum() / by_source.sum()
            ),
            "you count parts; add up what they bring": (raises[:, where] > 0).sum() / (raises > 0).sum(),
            "above the line you still have negative parts": parts[:, where].sum() / raises.sum(),
            "below the line you still have negative parts": raises[:, where].sum() / parts.sum(),
            "you take the mean of a share for each head; add up over heads first, then divide once": (
                (raises[:, where].sum(1) / raises.sum(1)).mean()
            ),
        }
        if (told := known_mistake(got, wrong)) is not None:
            return told
        if _same(got, min(1.0, share_with_a_bug(parts, where))):
            return "cut off at 1 it looks like a share, and is none: what is divided by what?"
        return f"of the positive parts here, {right:.2f} are at these positions; you say {got:.2f}"

    hints = (
        "A share is a part of something of which nothing is negative. Which entries raise the feature?",
        "Clamp the table at 0 first; then take the same sums.",
    )
    praise = "Shares of something with a sign can be 130% or −20%, and their mean says nothing."
    return judge("Exercise 2", answer, [mended], hints, praise)


def solution_share(parts: Tensor, where: Tensor) -> float:
    raises = parts.clamp(min=0)
    return float(raises[:, where].sum() / raises.sum())


# Exercise 3: predict how many features draw on induction.


def check_induction_share(guess: Any, measured: float) -> Verdict:
    """`guess`: the share of a layer's coordinates, 0 to 1, that draw mostly on tokens after an earlier twin."""
    hints = (
        "Two of the eight heads of this layer are induction heads: they look at the token after an earlier twin.",
        "A coordinate lies in one head, and does as it does: two eighths.",
    )
    praise = f"It is {measured:.0%}, more than of the features: what nobody trained has the family, too."
    return judge("Exercise 3", guess, share_near(measured), hints, praise)


def _same(one: Tensor | float, other: Tensor | float) -> bool:
    return torch.allclose(torch.as_tensor(one).float(), torch.as_tensor(other).float(), atol=1e-4)
