"""Arithmetic with embeddings: is a relation between words one and the same vector?

A relation is a list of pairs (from, to) of token ids, such as ("he", "she"), ("father", "mother"). If "to minus from" is
the same vector for every pair, then a2 = a1 − b1 + b2 for any two of its pairs: the parallelogram of king and queen.

Letters of shapes: V vocabulary, M embedding dimension, P pairs of one relation.
Source: Mikolov, Yih & Zweig 2013. The comparison with plain neighbours follows Linzen 2016 (arXiv 1606.07736).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Hits:
    """Share of the questions "b1 is to a1 as b2 is to ?" of one relation that end at the right word.

    `arithmetic` asks for the token nearest to a1 − b1 + b2, the three words of the question left out, as is usual.
    `inputs_allowed` does not leave them out. `neighbour` forgets the arithmetic: the token nearest to b2, the three left
    out as well, so it shows what that exclusion alone achieves.
    """

    arithmetic: float
    neighbour: float
    inputs_allowed: float
    questions: int


def unit_embedding(embedding: Float[Tensor, "vocab model"]) -> Float[Tensor, "vocab model"]:
    """Embeddings without their mean, at length 1, so that a dot product is a cosine."""
    return torch.nn.functional.normalize(embedding - embedding.mean(0), dim=-1)


def pairs_of(words: str, ids: dict[str, int]) -> Int[Tensor, "pairs 2"]:
    """Token ids of pairs written as "he she, his her". A word is a token with a space before it.

    Raises ValueError that names the words that are no single token in `ids` (text of a token -> its id).
    """
    pairs = [pair.split() for pair in words.split(",")]
    missing = [word for pair in pairs for word in pair if f" {word}" not in ids]
    if missing:
        raise ValueError(f"words holds {missing}, no single tokens of this model: leave these pairs out.")
    return torch.tensor([[ids[f" {word}"] for word in pair] for pair in pairs])


def hits(unit_VM: Float[Tensor, "vocab model"], pairs_P2: Int[Tensor, "pairs 2"]) -> Hits:
    """All questions that two different pairs of a relation can ask, both ways round, answered from unit embeddings."""
    forth = _questions(pairs_P2)
    b1, a1, b2, a2 = torch.cat([forth, _questions(pairs_P2.flip(1))]).T
    given_Q3 = torch.stack([b1, a1, b2], dim=1)

    def share(query_QM: Tensor, exclude: bool) -> float:
        similarity_QV = query_QM @ unit_VM.T
        if exclude:
            similarity_QV.scatter_(1, given_Q3, -torch.inf)
        return float((similarity_QV.argmax(1) == a2).float().mean())

    query_QM = unit_VM[a1] - unit_VM[b1] + unit_VM[b2]
    return Hits(share(query_QM, True), share(unit_VM[b2], True), share(query_QM, False), len(a2))


def offset_cosine(unit_VM: Float[Tensor, "vocab model"], pairs_P2: Int[Tensor, "pairs 2"]) -> float:
    """Mean cosine between the offsets (to − from) of different pairs: 1 if the relation is one vector, 0 if it is none."""
    offsets_PM = torch.nn.functional.normalize(unit_VM[pairs_P2[:, 1]] - unit_VM[pairs_P2[:, 0]], dim=-1)
    n = len(offsets_PM)
    return float(((offsets_PM @ offsets_PM.T).sum() - n) / (n * (n - 1)))


def mismatched(pairs_P2: Int[Tensor, "pairs 2"]) -> Int[Tensor, "pairs 2"]:
    """The control: the same words, each "from" with the "to" of the next pair."""
    return torch.stack([pairs_P2[:, 0], pairs_P2[:, 1].roll(-1)], dim=1)


def ridge_held_out(
    x_PM: Float[Tensor, "points model"], y_P: Float[Tensor, "points"], *, folds: int = 10, ridge: float = 0.1, seed: int = 0
) -> Float[Tensor, "points"]:
    """For each point, what a linear map fitted without its fold predicts for y (least squares with `ridge`·‖w‖² added)."""
    order = torch.randperm(len(y_P), generator=torch.Generator().manual_seed(seed))
    predicted_P = torch.empty_like(y_P)
    for fold in range(folds):
        held = order[fold::folds]
        rest = torch.ones(len(y_P), dtype=torch.bool).index_fill(0, held, False)
        mean_M, level = x_PM[rest].mean(0), y_P[rest].mean()
        x = x_PM[rest] - mean_M
        gram_MM = x.T @ x + ridge * torch.eye(x.shape[1])
        w_M = torch.linalg.solve(gram_MM, x.T @ (y_P[rest] - level))
        predicted_P[held] = (x_PM[held] - mean_M) @ w_M + level
    return predicted_P


def _questions(pairs_P2: Tensor) -> Tensor:
    """(questions, 4): b1, a1, b2, a2 for every ordered choice of two different pairs."""
    n = len(pairs_P2)
    first, second = torch.where(~torch.eye(n, dtype=torch.bool))
    return torch.cat([pairs_P2[first], pairs_P2[second]], dim=1)
