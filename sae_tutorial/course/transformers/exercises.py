"""Exercises of notebook 01: count a transformer, take it apart, and measure its heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge

# (blocks, width, vocabulary, context) and the published number of parameters.
GPT2_SIZES = {
    "GPT-2 small": (12, 768, 50257, 1024, 124_439_808),
    "GPT-2 medium": (24, 1024, 50257, 1024, 354_823_168),
    "GPT-2 XL": (48, 1600, 50257, 1024, 1_557_611_200),
}


def check_count_parameters(answer: Callable[[int, int, int, int], int | None] | None) -> Verdict:
    """A function (blocks, width, vocabulary, context) -> number of parameters of a GPT-2."""

    def test(name: str) -> Callable[[Any], str | None]:
        *sizes, want = GPT2_SIZES[name]

        def right(count_parameters: Callable[..., Any]) -> str | None:
            got = count_parameters(*sizes)
            if got == want:
                return None
            blocks, width, vocabulary, context = sizes
            reasons = {
                vocabulary * width: "the unembedding shares its matrix with the embedding: count it once",
                2 * width: "the LayerNorm after the last block has a gain and a bias too",
                blocks * 4 * width: "each block has two LayerNorms, each with a gain and a bias",
                context * width: "the positions have a table of their own",
                blocks * 9 * width: "the biases: 4 widths in attention, 4 + 1 in the MLP, per block",
                blocks * 13 * width: "biases and LayerNorms in the blocks",
                blocks * 13 * width + 2 * width: "it has matrices only: all biases and LayerNorms are missing",
            }
            why = reasons.get(abs(got - want))
            return f"{name} has {want:,} parameters, yours has {got:,}{': ' + why if why else ''}."

        return right

    return judge(
        "Exercise 1",
        answer,
        [test(name) for name in GPT2_SIZES],
        hints="W_Q, W_K, W_V and W_O have M × M entries each, all heads together; every matrix has a bias as long as "
        "its output; a LayerNorm has two vectors.",
        praise="Small, medium and XL, to the last bias.",
    )


def solution_count_parameters(blocks: int, width: int, vocabulary: int, context: int) -> int:
    block = (4 * width**2 + 4 * width) + (8 * width**2 + 5 * width) + 4 * width
    return (vocabulary + context) * width + blocks * block + 2 * width


def check_head_writes(answer: Callable[[Tensor, Tensor], Tensor | None] | None) -> Verdict:
    """A function (z (N, L, H, D), W_O (H, D, M)) -> what each head writes (N, L, H, M)."""
    generator = torch.Generator().manual_seed(0)
    z_NLHD = torch.randn(2, 3, 4, 5, generator=generator)
    w_HDM = torch.randn(4, 5, 6, generator=generator)
    want = solution_head_writes(z_NLHD, w_HDM)

    def right(head_writes: Callable[[Tensor, Tensor], Any]) -> str | None:
        got = head_writes(z_NLHD, w_HDM)
        if not isinstance(got, Tensor):
            return f"Return a tensor, not {type(got).__name__}."
        if got.shape == (2, 3, 6):
            return "The heads are summed already. Keep the axis h in the result."
        if got.shape != want.shape:
            return f"For z (2, 3, 4, 5) and W_O (4, 5, 6) the shape is (2, 3, 4, 6); yours is {tuple(got.shape)}."
        return None if torch.allclose(got, want, atol=1e-5) else "The shape is right, the values are not."

    return judge(
        "Exercise 2",
        answer,
        [right],
        hints='einsum("nlhd,hdm->...", z, W_O): which letters survive?',
        praise="One vector per head and position; their sum is what the layer adds to the stream.",
    )


def solution_head_writes(z_NLHD: Tensor, w_HDM: Tensor) -> Tensor:
    return torch.einsum("nlhd,hdm->nlhm", z_NLHD, w_HDM)


def check_overlap(answer: Callable[[Tensor, Tensor], Any] | None) -> Verdict:
    """A function (a (D, M), b (D, M)) -> mean squared cosine of the principal angles of their row spaces."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 32, generator=generator)
    mix = torch.randn(4, 4, generator=generator)

    def value(overlap: Callable[[Tensor, Tensor], Any], x: Tensor, y: Tensor) -> float:
        return float(overlap(x, y))

    def itself(overlap: Callable) -> str | None:
        got = value(overlap, a, a)
        if abs(got - 4) < 1e-3:
            return "You have the sum of the squared cosines; divide by D for their mean."
        if abs(got - 1) < 1e-3:
            return None
        unit = torch.nn.functional.normalize(a, dim=1)
        why = "make the rows orthonormal first"
        if abs(got - float((unit @ unit.T).square().sum() / 4)) < 1e-3:
            why = "your rows have length 1, but are not at right angles to each other; make them orthonormal first"
        return f"A space overlaps with itself by 1; yours says {got:.3f}: {why}."

    def basis(overlap: Callable) -> str | None:
        got = value(overlap, a, mix @ a)
        return (
            None
            if abs(got - 1) < 1e-3
            else f"Another basis of the same space changed the answer to {got:.3f}; make the rows orthonormal first."
        )

    def orthogonal(overlap: Callable) -> str | None:
        eye = torch.eye(8)
        got = value(overlap, eye[:3], eye[3:6])
        return None if abs(got) < 1e-3 else f"Orthogonal spaces overlap by 0; yours says {got:.3f}."

    def half(overlap: Callable) -> str | None:
        eye = torch.eye(8)
        got = value(overlap, eye[:2], eye[1:3])
        if abs(got - 0.25) < 1e-3:
            return "Square the cosines before the mean, not after it."
        return (
            None if abs(got - 0.5) < 1e-3 else f"Two planes that share one line overlap by 1/2; yours says {got:.3f}."
        )

    def slanted(overlap: Callable) -> str | None:
        got = value(overlap, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]).sqrt())
        if abs(got - 0.5**0.5) < 1e-3:
            return "Square the cosines: you take the mean of the cosines themselves."
        return None if abs(got - 0.5) < 1e-3 else f"Two lines at 45 degrees overlap by 1/2; yours says {got:.3f}."

    return judge(
        "Exercise 3",
        answer,
        [itself, orthogonal, slanted, half, basis],
        hints="torch.linalg.qr(a.T).Q has orthonormal columns; sum the squared entries of Q_aᵀ Q_b.",
        praise="It sees the space and not the basis.",
    )


def solution_overlap(a_DM: Tensor, b_DM: Tensor) -> float:
    q_a, q_b = torch.linalg.qr(a_DM.T).Q, torch.linalg.qr(b_DM.T).Q
    return float((q_a.T @ q_b).square().sum() / len(a_DM))


def check_nucleus_size(answer: Callable[[Tensor, float], Any] | None) -> Verdict:
    """A function (probabilities (vocab,), p) -> how many tokens top-p keeps."""

    def keeps(probabilities: list[float], p: float, want: int, why: str) -> Callable[[Any], str | None]:
        def right(nucleus_size: Callable[[Tensor, float], Any]) -> str | None:
            got = int(nucleus_size(torch.tensor(probabilities), p))
            return None if got == want else f"For {probabilities} and p={p} top-p keeps {want}, yours {got}. {why}"

        return right

    tests = [
        keeps([0.5, 0.3, 0.15, 0.05], 0.7, 2, "0.5 is not enough, 0.5 + 0.3 is."),
        keeps([0.9, 0.06, 0.04], 0.5, 1, "The likeliest token always stays."),
        keeps([0.05, 0.15, 0.3, 0.5], 0.7, 2, "The tokens come in any order: sort them first."),
        keeps([0.25, 0.25, 0.25, 0.25], 0.6, 3, "Stop at the first token that carries the sum to p."),
    ]
    return judge(
        "Exercise 4",
        answer,
        tests,
        hints="Sort downwards, cumsum, and count the tokens before which the sum was still below p.",
        praise="Few tokens where the model is sure, many where it is not: that is the idea of top-p.",
    )


def solution_nucleus_size(probabilities_V: Tensor, p: float) -> int:
    ranked = probabilities_V.sort(descending=True).values
    return int((ranked.cumsum(-1) - ranked < p).sum())


def check_previous_token_score(answer: Callable[[Tensor], Tensor | None] | None) -> Verdict:
    """A function pattern (H, L, L) -> (H,): mean attention from each position to the one before it."""
    length = 6
    perfect = torch.eye(length).roll(-1, dims=1)  # row i looks at i - 1
    perfect[0] = torch.eye(length)[0]  # and the first at itself
    uniform = torch.tril(torch.ones(length, length))
    uniform = uniform / uniform.sum(-1, keepdim=True)
    patterns = torch.stack([perfect, torch.eye(length), uniform])
    want = solution_previous_token_score(patterns)

    def right(previous_token_score: Callable[[Tensor], Any]) -> str | None:
        got = torch.as_tensor(previous_token_score(patterns))
        if got.shape != (3,):
            return f"For 3 heads return 3 numbers; yours has shape {tuple(got.shape)}."
        if torch.allclose(got, want, atol=1e-4):
            return None
        if abs(got[1] - 1) < 1e-3:
            return "That is the attention that a token pays to itself. Move one step down from the diagonal."
        if abs(got[0] - (length - 1) / length) < 1e-3:
            return f"The first position has nothing before it: take the mean over {length - 1} positions, not {length}."
        if abs(got[0]) < 1e-3:
            return "That is one above the diagonal, the future. Rows are the positions that take."
        return f"A perfect head scores 1, one that looks at itself 0, an even one {want[2]:.3f}; yours: {got.tolist()}."

    return judge(
        "Exercise 5",
        answer,
        [right],
        hints="pattern.diagonal(offset=-1, dim1=-2, dim2=-1) is the stripe below the diagonal.",
        praise="One stripe, one number.",
    )


def solution_previous_token_score(pattern_HLL: Tensor) -> Tensor:
    return pattern_HLL.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)
