"""Exercises of notebook 00: neurons, and the places where they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge


def check_neuron_count(answer: int | None, config: Any) -> Verdict:
    """How many MLP neurons does the model with this configuration have in all its layers together?"""
    layers, per_layer = config.n_layers, config.d_mlp

    def right(count: Any) -> str | None:
        if count == per_layer:
            return f"{count:,} is one layer. The model has {layers} of them."
        if count == layers * config.d_model:
            return f"{count:,} counts the width of the residual stream. The hidden layer of an MLP is wider."
        return None if count == solution_neuron_count(config) else f"{count!r} is not it."

    return judge(
        "Exercise 1",
        answer,
        [right],
        hints="model.cfg.n_layers and model.cfg.d_mlp.",
        praise=f"{layers} layers with {per_layer:,} neurons each. Not many, for all that stories can be about.",
    )


def solution_neuron_count(config: Any) -> int:
    return config.n_layers * config.d_mlp


def check_top_places(answer: Callable[[Tensor, int], Tensor | None] | None) -> Verdict:
    """A function (activations (positions,), k) -> indices of the k largest, strongest first."""

    def small(top_places: Callable[[Tensor, int], Any]) -> str | None:
        got = _as_list(top_places(torch.tensor([0.1, 3.0, -2.0, 5.0, 1.0]), 3))
        if got == [5.0, 3.0, 1.0]:
            return "These are the activations themselves. Where do they stand?"
        if got == [4, 1, 3]:
            return "The right places, weakest first. Turn them around."
        if got == [2, 0, 4]:
            return "These are the smallest ones."
        return (
            None if got == [3, 1, 4] else f"For [0.1, 3, -2, 5, 1] and k=3 the places are [3, 1, 4]; yours are {got}."
        )

    def large(top_places: Callable[[Tensor, int], Any]) -> str | None:
        values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
        same = _as_list(top_places(values, 20)) == _as_list(solution_top_places(values, 20))
        return None if same else "It fails on 1,000 random activations with k=20."

    return judge(
        "Exercise 2",
        answer,
        [small, large],
        hints="torch.topk returns values and indices.",
        praise="These are its strongest places.",
    )


def solution_top_places(activations: Tensor, k: int) -> Tensor:
    return activations.topk(k).indices


def check_effective_number(answer: Callable[[Tensor], Any] | None) -> Verdict:
    """A function from unit vectors (places, dimensions) to 1 / (mean of max(0, cosine) over all pairs)."""
    eye = torch.eye(6)

    def same(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(eye[[0] * 10]))
        if abs(got - 0.1) < 1e-3 or abs(got - 0.01) < 1e-4:
            return "Take the mean over the pairs, not the sum."
        return None if abs(got - 1) < 1e-3 else f"Ten times the same word is one word; yours says {got:.3g}."

    def five(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(eye[[0, 1, 2, 3, 4] * 4]))
        if abs(got - 0.2) < 1e-3:
            return "That is the mean similarity. The number of words is one divided by it."
        if abs(got - 20 / 3) < 0.01 or abs(got - 19 / 3) < 0.01:
            return "Count each place with itself as a pair too: the mean is over all K × K pairs."
        return (
            None
            if abs(got - 5) < 1e-3
            else f"Five unrelated words in equal shares are five words; yours says {got:.3g}."
        )

    def opposite(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(torch.cat([eye[:1], -eye[:1]])))
        return (
            None
            if abs(got - 2) < 1e-3
            else f"Opposite vectors are unrelated, similarity 0, and make 2 words; yours says {got:.3g}."
        )

    def alike(effective_number: Callable[[Tensor], Any]) -> str | None:
        got = float(effective_number(torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])))
        if abs(got - 8 / 5) < 1e-3:
            return "Take the mean of the cosines themselves, not of their squares."
        return (
            None
            if abs(got - 4 / 3) < 1e-3
            else f"Two words at 60 degrees, cosine 1/2, are half the same and make 4/3; yours says {got:.3g}."
        )

    return judge(
        "Exercise 3",
        answer,
        [same, five, opposite, alike],
        hints="x @ x.T holds all cosines of unit vectors; .clamp(min=0) cuts the negative ones.",
        praise="It counts words, and similar words count as partly the same.",
    )


def solution_effective_number(unit_KM: Tensor) -> float:
    return float(1 / (unit_KM @ unit_KM.T).clamp(min=0).mean())


def _as_list(values: Any) -> list:
    return values.tolist() if isinstance(values, Tensor) else list(values)
