"""Exercises on transcoders: who has the harder task, weights between features, and what a feature reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        weights = W_dec @ reads
        wrong = {
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
        "codes * (W_dec @ reads), and the LayerNorm's scale.",
    )
    praise = "Two factors: one that depends on the text, and a weight between two features that does not."
    return judge("Exercise 2", answer, [a_number_for_each, the_numbers], hints, praise)


def solution_attribution(codes: Tensor, W_dec: Tensor, reads: Tensor, scale: float) -> Tensor:
    return codes * (W_dec @ reads) / scale


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


# Exercise 4: the same through a head, of all tokens at which it may look.


def check_through_a_head(answer: Any) -> Verdict:
    """`answer(W_E, W_V, W_O, reads)`: (V, D), (D, d), (d, D) and (D,) -> (V,)."""
    generator = torch.Generator().manual_seed(2)
    V, D, d = 6, 4, 4  # a head as wide as the stream, so that a matrix the wrong way round is no error of shape
    W_E, W_V, W_O = (torch.randn(shape, generator=generator) for shape in ((V, D), (D, d), (d, D)))
    reads = torch.randn(D, generator=generator)
    right = solution_through_a_head(W_E, W_V, W_O, reads)

    def mine(answer: Callable) -> Tensor:
        return torch.as_tensor(answer(W_E.clone(), W_V.clone(), W_O.clone(), reads.clone())).float()

    def a_number_for_each(answer: Callable) -> str | None:
        got = mine(answer)
        shape = tuple(got.shape)
        if shape == (V, d) and torch.allclose(got, W_E @ W_V, atol=1e-4):
            return "that is what the head has inside for each token: W_O writes it into the stream"
        if shape == (V, D):
            return "that is what the head writes for each token: take its dot product with `reads`"
        return None if shape == (V,) else f"return a number for each token, here {(V,)}; yours is {shape}"

    def the_numbers(answer: Callable) -> str | None:
        got = mine(answer)
        if torch.allclose(got, right, atol=1e-4):
            return None
        wrong = {
            "that is the token's own embedding, at the place of the feature: where is the head?": W_E @ reads,
            "the head reads with W_V and writes with W_O; you have them the other way round": W_E @ W_O @ W_V @ reads,
            "W_V takes the stream to the head, (D, d); you have it transposed": W_E @ W_V.T @ W_O @ reads,
            "W_O takes the head back to the stream, (d, D); you have it transposed": W_E @ W_V @ W_O.T @ reads,
            "both matrices are transposed: W_V is (D, d), W_O is (d, D)": W_E @ W_V.T @ W_O.T @ reads,
            "you send `reads` forwards through the head; pull it back, W_O first": W_E @ (W_V @ W_O).T @ reads,
            "W_V alone leaves you inside the head: W_O writes into the stream": W_E @ W_V @ reads,
            "W_O takes the head to the stream; where is W_V, which takes the stream to the head?": W_E @ W_O @ reads,
            "a token may speak against a feature: cut nothing off": right.relu(),
        }
        return known_mistake(got, wrong) or f"token 0 has {right[0]:.3f} here; yours says {got[0]:.3f}"

    hints = (
        "A head that looks at a token with attention 1 writes (x @ W_V) @ W_O, where x is what lies there.",
        "Take the embedding of each token for x, and the dot product of what is written with reads.",
    )
    praise = "No text was needed: it is what each token would bring to the feature, were the head to look there."
    return judge("Exercise 4", answer, [a_number_for_each, the_numbers], hints, praise)


def solution_through_a_head(W_E: Tensor, W_V: Tensor, W_O: Tensor, reads: Tensor) -> Tensor:
    return W_E @ (W_V @ (W_O @ reads))
