"""Exercises on transcoders: who has the harder task, weights between features, and what a feature reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, known_mistake

# Exercise 1: predict which leaves more of an MLP's output unexplained.

LEAVES = ("SAE", "transcoder")


def check_leaves_more(answer: Any, fvu: Mapping[str, float]) -> Verdict:
    """`answer`: one of LEAVES. `fvu`: of each, at equal size and L0."""
    most = max(LEAVES, key=fvu.__getitem__)

    def known(answer: Any) -> str | None:
        as_named = {name.lower(): name for name in LEAVES}
        if isinstance(answer, str) and answer not in LEAVES and answer.lower() in as_named:
            return f"write {as_named[answer.lower()]!r}"
        return None if answer in LEAVES else f"answer with one of {', '.join(map(repr, LEAVES))}; you say {answer!r}"

    def right(answer: str) -> str | None:
        told = f"the {answer} has an FVU of {fvu[answer]:.2f}, the other one has more: which is shown its output?"
        return None if answer == most else told

    hints = (
        "Both have to write the same y. Which of them is shown y, and which one has to compute it?",
        "The SAE reads y itself. The transcoder reads x, and must do the MLP's work with few features.",
    )
    praise = f"The {most} has {fvu[most]:.2f}. It must compute y; the other one is shown it."
    return judge("Exercise 1", answer, [known, right], hints, praise)


# Exercise 2: build what every feature of an early transcoder adds to one feature of a later one.


def check_attribution(answer: Any) -> Verdict:
    """`answer(codes, W_dec, reads, scale)`: (F,), (F, D), (D,) and a number -> (F,), what each early feature adds."""
    generator = torch.Generator().manual_seed(0)
    F, D, scale = 5, 3, 2.5
    codes = torch.tensor([0.0, 1.5, 0.0, 2.0, 0.5])
    W_dec, reads = torch.randn(F, D, generator=generator), torch.randn(D, generator=generator)
    right = solution_attribution(codes, W_dec, reads, scale)

    def mine(answer: Callable) -> Tensor:
        return torch.as_tensor(answer(codes.clone(), W_dec.clone(), reads.clone(), scale)).float()

    def a_number_for_each(answer: Callable) -> str | None:
        shape = tuple(mine(answer).shape)
        told = {
            (): "return a number for each early feature; you have summed over them",
            (D,): "return a number for each early feature, here 5; yours has one for each coordinate of the stream",
            (F, D): "return one number for each early feature: take the dot product with `reads` over the stream",
        }
        return None if shape == (F,) else told.get(shape, f"return (features,), here {(F,)}; yours is {shape}")

    def the_numbers(answer: Callable) -> str | None:
        got = mine(answer)
        if torch.allclose(got, right, atol=1e-4):
            return None
        weights, as_it_is = W_dec @ (reads - reads.mean()), W_dec @ reads
        wrong = {
            "the LayerNorm subtracts the stream's mean: which change of `reads` does the same?": codes
            * as_it_is
            / scale,
            "the LayerNorm divides the stream, and subtracts its mean: where are `scale` and the mean?": codes
            * as_it_is,
            "that is the weight alone, the same for every text: multiply by what the feature is here": weights / scale,
            "the LayerNorm divides the stream before the later feature reads it: where is `scale`?": codes * weights,
            "that is the weight alone, without the code and without the scale": weights,
            "the LayerNorm divides by its scale; you multiply": codes * weights * scale,
            "what a feature adds may be negative: cut nothing off": right.relu(),
            "a feature adds in proportion to its code, however large: do not make it 0 or 1": (
                (codes > 0) * weights / scale
            ),
        }
        return known_mistake(got, wrong) or f"feature 1 adds {right[1]:.3f} here; yours says {got[1]:.3f}"

    hints = (
        "Feature i writes codes[i] · W_dec[i] into the stream, and the later feature takes its dot product with reads.",
        "codes * (W_dec @ reads), and the LayerNorm's scale; then the stream's mean, for which `reads` can be centred.",
    )
    praise = "Two factors: one that depends on the text, and a weight between two features that does not."
    return judge("Exercise 2", answer, [a_number_for_each, the_numbers], hints, praise)


def solution_attribution(codes: Tensor, W_dec: Tensor, reads: Tensor, scale: float) -> Tensor:
    return codes * (W_dec @ (reads - reads.mean())) / scale


# Exercise 3: find the bug in a de-embedding.


def de_embedding_with_a_bug(W_E: Tensor, W_enc: Tensor, W_dec: Tensor, feature: int) -> Tensor:
    """What a feature of the first transcoder finds in the embedding of each token; but for one mistake."""
    return W_E @ W_dec[feature]


def check_de_embedding(answer: Any) -> Verdict:
    """`answer(W_E, W_enc, W_dec, feature)`: (V, D), (D, F), (F, D) and a number -> (V,)."""
    generator = torch.Generator().manual_seed(1)
    V, D, F = 7, 4, 4  # as many features as coordinates, so that a row in the place of a column is no error of shape
    W_E, W_enc = torch.randn(V, D, generator=generator), torch.randn(D, F, generator=generator)
    W_dec = torch.randn(F, D, generator=generator)
    right = solution_de_embedding(W_E, W_enc, W_dec, 2)

    def a_number_for_each(answer: Callable) -> str | None:
        shape = tuple(torch.as_tensor(answer(W_E.clone(), W_enc.clone(), W_dec.clone(), 2)).shape)
        if shape == (V, F):
            return "return a number for each token; yours is a table of tokens and features: take the one feature"
        return None if shape == (V,) else f"return a number for each token, here {(V,)}; yours is {shape}"

    def the_numbers(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(W_E.clone(), W_enc.clone(), W_dec.clone(), 2)).float()
        if torch.allclose(got, right, atol=1e-4):
            return None
        wrong = {
            "that is what the feature *writes*. What does it read with?": de_embedding_with_a_bug(W_E, W_enc, W_dec, 2),
            "W_enc is (D, F): a feature's direction is a column of it, you took a row": W_E @ W_enc[2],
            "that is the decoder, and a column of it: what does the feature *read* with?": W_E @ W_dec[:, 2],
            "a token may speak against a feature: cut nothing off": right.relu(),
        }
        return known_mistake(got, wrong) or f"token 0 has {right[0]:.3f} here; yours says {got[0]:.3f}"

    hints = (
        "A transcoder has two directions for each feature. The question is what makes it fire, not what it then does.",
        "The encoder's column of the feature: W_enc[:, feature].",
    )
    praise = "What a feature reads and what it writes are two things; an SAE's features hide that."
    return judge("Exercise 3", answer, [a_number_for_each, the_numbers], hints, praise)


def solution_de_embedding(W_E: Tensor, W_enc: Tensor, W_dec: Tensor, feature: int) -> Tensor:
    return W_E @ W_enc[:, feature]


# Exercise 4: through heads of several layers, from the embedding of every token.


def check_path(answer: Any) -> Verdict:
    """`answer(W_E, heads, reads)`: (V, D), a list of (W_V, W_O), (D, d) and (d, D), first to last, and (D,) -> (V,)."""
    generator = torch.Generator().manual_seed(2)
    V, D, d = 6, 4, 4  # heads as wide as the stream, so that a matrix the wrong way round is no error of shape
    W_E = torch.randn(V, D, generator=generator)
    heads = [(torch.randn(D, d, generator=generator), torch.randn(d, D, generator=generator)) for _ in range(2)]
    reads = torch.randn(D, generator=generator)
    right, (first, last) = solution_path(W_E, heads, reads), heads

    def mine(answer: Callable, heads: list[tuple[Tensor, Tensor]] = heads) -> Tensor:
        mine_too = [(W_V.clone(), W_O.clone()) for W_V, W_O in heads]
        return torch.as_tensor(answer(W_E.clone(), mine_too, reads.clone())).float()

    def a_number_for_each(answer: Callable) -> str | None:
        shape = tuple(mine(answer).shape)
        if shape == (V, D):
            return "that is a vector for each token: take the dot product with `reads`"
        return None if shape == (V,) else f"return a number for each token, here {(V,)}; yours is {shape}"

    def the_numbers(answer: Callable) -> str | None:
        got = mine(answer)
        if torch.allclose(got, right, atol=1e-4):
            return None
        wrong = {
            "that is the token's own embedding, at the place of the feature: where are the heads?": W_E @ reads,
            "the last head looks where the first one wrote; you have them the other way round": solution_path(
                W_E, heads[::-1], reads
            ),
            "that is the first head alone: the feature reads what the *last* one writes": solution_path(
                W_E, [first], reads
            ),
            "that is the last head alone: what lies there was written by the first": solution_path(W_E, [last], reads),
            "a head reads with W_V and writes with W_O; you have them the other way round": solution_path(
                W_E, [(W_O, W_V) for W_V, W_O in heads], reads
            ),
            "W_V takes the stream to a head, (D, d), and W_O back, (d, D); you have them transposed": solution_path(
                W_E, [(W_V.T, W_O.T) for W_V, W_O in heads], reads
            ),
            "you add up what single heads bring; they follow each other": sum(
                (solution_path(W_E, [one], reads) for one in heads), torch.zeros(V)
            ),
            "a token may speak against a feature: cut nothing off": right.relu(),
        }
        return known_mistake(got, wrong) or f"token 0 has {right[0]:.3f} here; yours says {got[0]:.3f}"

    def any_number_of_heads(answer: Callable) -> str | None:
        three = [*heads, first]
        fits = torch.allclose(mine(answer, three), solution_path(W_E, three, reads), atol=1e-4)
        return None if fits else "right for two heads, and not for three: go through all of `heads`"

    hints = (
        "A head that looks at a token with attention 1 writes (x @ W_V) @ W_O, where x is what lies there.",
        "x is the token's embedding for the first head, and what the head before wrote for each other one. Or begin at "
        "the end: what does the feature read where the last head looks?",
    )
    praise = "No text was needed: it is what each token would bring to the feature, were the heads to look there."
    return judge("Exercise 4", answer, [a_number_for_each, the_numbers, any_number_of_heads], hints, praise)


def solution_path(W_E: Tensor, heads: Sequence[tuple[Tensor, Tensor]], reads: Tensor) -> Tensor:
    for W_V, W_O in reversed(heads):
        reads = W_V @ (W_O @ reads)
    return W_E @ reads
