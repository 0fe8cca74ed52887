"""Exercises of notebook 05: allocation as choice under a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.allocation import rules
from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: TopK in three lines.


def check_top_k(answer: Any) -> Verdict:
    """`answer(affinities, k)`: a table of codes that keeps the k strongest positive affinities of each token."""
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(6, 9, generator=generator) - 0.4
    shy = torch.tensor([[0.5, -0.2, -0.1, -0.3], [0.4, 0.3, 0.2, 0.1]])
    alike = torch.tensor([[0.5, 0.5, 0.5, 0.1], [0.3, 0.7, 0.3, 0.3]])

    def right_shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(table.clone(), 2))
        return None if got.shape == table.shape else f"for a table of shape (6, 9) you return {tuple(got.shape)}"

    def only_positive(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(shy.clone(), 2))
        return (
            "a token with one positive affinity may not take a negative one as its second" if (got < 0).any() else None
        )

    def right_codes(answer: Callable) -> str | None:
        for k in (1, 3):
            got, right = torch.as_tensor(answer(table.clone(), k)), solution_top_k(table, k)
            if not torch.allclose(got, right):
                if torch.allclose(got, solution_top_k(table.T, k).T):
                    return f"with k={k} each *feature* has its {k} strongest tokens: that is Feature Choice"
                if torch.equal(got != 0, right > 0):
                    return f"with k={k} the right places are on, with wrong values: a code keeps its affinity"
                rows, most = (got > 0).sum(1).tolist(), (right > 0).sum(1).tolist()
                if rows == most:
                    return f"with k={k} each token has as many features as it should, but not its strongest ones"
                return f"with k={k} the tokens should have {most} features, yours have {rows}"
        return None

    def no_more_than_k(answer: Callable) -> str | None:
        most = int((torch.as_tensor(answer(alike.clone(), 2)) > 0).sum(1).max())
        if most > 2:
            return f"where affinities are equal a token gets {most} features for k=2: with ties, >= lets in more than k"
        return None

    hint = "affinities.topk(k, dim=1) gives values and places; torch.zeros_like(affinities).scatter(1, places, values)."
    praise = "Token Choice. Transpose the table before and after, and you have Feature Choice with equal capacities."
    return judge("Exercise 1", answer, [right_shape, only_positive, right_codes, no_more_than_k], hint, praise)


def solution_top_k(affinities: Tensor, k: int) -> Tensor:
    """Scatter the top k of each row into an empty table."""
    values, places = affinities.topk(k, dim=1)
    return torch.zeros_like(affinities).scatter(1, places, values.relu())


# Exercise 2: what happens when one token could take it all?


def check_greedy_token(answer: Any) -> Verdict:
    """`answer(n_tokens, n_features, k)`: the largest share of the budget that one token can get under Mutual Choice."""

    def small_dictionary(answer: Callable) -> str | None:
        got = float(answer(100, 64, 8))
        if got > 1.0001:
            return f"a share cannot exceed 1; with 100 tokens, 64 features and k=8 you say {got:.3g}"
        if math.isclose(got, 1.0):
            return "a token can match each feature only once: with 64 features it cannot take all 800 matches"
        if math.isclose(got, 1 / 100):
            return "1/100 is what Token Choice would give it; here nothing limits a row"
        return (
            None if math.isclose(got, 0.08, rel_tol=1e-4) else f"with 100 tokens, 64 features, k=8: you say {got:.3g}"
        )

    def large_dictionary(answer: Callable) -> str | None:
        got = float(answer(10, 4096, 32))
        return (
            None if math.isclose(got, 1.0) else f"10 tokens share 320 matches, one could take 4,096: you say {got:.3g}"
        )

    def measured(answer: Callable) -> str | None:
        table = torch.rand(20, 12, generator=torch.Generator().manual_seed(0)) + 0.1
        table[7] *= 1000
        l0 = rules.mutual_choice(table, 60).l0()
        share, got = float(l0[7]) / 60, float(answer(20, 12, 3))
        return (
            None
            if math.isclose(got, share, rel_tol=1e-4)
            else f"measured with 20 tokens, 12 features, k=3: {share:.3g}"
        )

    hint = "the budget is k · n_tokens matches; how many of them can lie in one row of the table?"
    praise = (
        "One huge token can take F matches. That is why large batches, and inputs of even norm, make the rule safer. "
        "(Under Token Choice its share is 1/n_tokens, however loud it is.)"
    )
    return judge("Exercise 2", answer, [small_dictionary, large_dictionary, measured], hint, praise)


def solution_greedy_token(n_tokens: int, n_features: int, k: float) -> float:
    """A row has F places, the budget k·B."""
    return min(n_features, k * n_tokens) / (k * n_tokens)


# Exercise 3: shares of a Zipf law.


def check_zipf_shares(answer: Any) -> Verdict:
    """`answer(n_features, n_matches, exponent, offset)`: tokens for each rank, most first; fractions are fine."""

    def adds_up(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(50, 400, 1.0, 10.0), dtype=torch.float64)
        if got.shape != (50,):
            return f"for 50 features you return shape {tuple(got.shape)}"
        return (
            None if abs(float(got.sum()) - 400) < 1e-3 else f"the budget is 400 matches, yours hand out {got.sum():.4g}"
        )

    def falls(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(50, 400, 1.0, 10.0), dtype=torch.float64)
        ratio = float(got[0] / got[-1])
        if math.isclose(ratio, 59 / 10, rel_tol=1e-4):
            return "the first rank is 1, not 0"
        return (
            None
            if math.isclose(ratio, 60 / 11, rel_tol=1e-4)
            else f"rank 1 should get 60/11 of rank 50, not {ratio:.3g}"
        )

    def flat(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(8, 64, 0.0, 3.0), dtype=torch.float64)
        return None if torch.allclose(got, torch.full_like(got, 8)) else "an exponent of 0 is the uniform capacity"

    hint = "weights (rank + offset) ** −exponent for ranks 1 to F, divided by their sum, times the budget."
    praise = "`zipf_capacity` adds three things: whole numbers, at least 1 for everybody, at most the whole batch."
    return judge("Exercise 3", answer, [adds_up, falls, flat], hint, praise)


def solution_zipf_shares(n_features: int, n_matches: int, exponent: float, offset: float) -> Tensor:
    """Zipf–Mandelbrot, scaled to the budget."""
    weights = (torch.arange(1, n_features + 1).double() + offset) ** -exponent
    return n_matches * weights / weights.sum()


# Exercise 4: from a budget to a threshold.


def check_threshold(answer: Any) -> Verdict:
    """`answer(batches, k)`: the threshold above which, over all these tables together, lie k matches per token."""
    generator = torch.Generator().manual_seed(3)
    loudness = torch.tensor([0.4, 1.0, 3.0])[:, None, None]  # batches differ, as texts do
    batches = [torch.randn(40, 30, generator=generator) * scale[0] for scale in loudness]

    def lets_in_k(answer: Callable) -> str | None:
        for k in (2, 5):
            got = float(answer([b.clone() for b in batches], k))
            n_tokens = sum(len(b) for b in batches)
            let_in = sum(int((b > got).sum()) for b in batches) / n_tokens
            last = float(torch.cat(batches).flatten().topk(k * n_tokens).values[-1])
            weakest = sum(float(b.flatten().topk(k * len(b)).values[-1]) for b in batches) / len(batches)
            if math.isclose(got, weakest, rel_tol=1e-3):
                return (
                    f"the mean of the weakest matches lets in {let_in:.2f} features per token, not {k}: batches differ"
                )
            if math.isclose(got, last, rel_tol=1e-6):
                return (
                    f"that is the weakest match itself, {last:.3f}, and it does not lie above itself: one match is "
                    "missing. Go below it, halfway to the next value"
                )
            if abs(let_in - k) > 0.02:
                return f"for k={k} your threshold {got:.3f} lets in {let_in:.2f} features per token"
        return None

    hint = (
        "put all tables into one, torch.cat(batches).flatten(), and look for the value with k · (all tokens) above it."
    )
    praise = "A quantile over many batches. That is how the package measures it."
    return judge("Exercise 4", answer, [lets_in_k], hint, praise)


def solution_threshold(batches: list[Tensor], k: float) -> float:
    """Halfway between the last value that gets in and the first that does not."""
    n_matches = round(k * sum(len(batch) for batch in batches))
    values = torch.cat(batches).flatten().topk(n_matches + 1).values
    return float(values[-2:].mean())
