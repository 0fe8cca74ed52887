"""Arithmetic with embeddings: is a relation between words one and the same vector?

A relation is a list of pairs (from, to) of token ids, such as ("he", "she") and ("father", "mother"). If "to minus
from" is the same vector for every pair, then a2 = a1 − b1 + b2 for any two of its pairs.

Letters of shapes: V vocabulary, D width of the embedding, P pairs of one relation.
Source: Mikolov, Yih & Zweig 2013. The comparison with plain neighbours follows Linzen 2016 (arXiv 1606.07736).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Pairs whose words are single tokens of the embedded model; which pairs is our choice.
RELATIONS = {
    "he → she": "he she, him her, his her, himself herself, boy girl, father mother, brother sister, man woman, "
    "son daughter, uncle aunt, husband wife, Mr Mrs, King Queen, Prince Princess, boys girls, men women, lord lady",
    "go → going": "go going, come coming, look looking, walk walking, take taking, make making, say saying, "
    "run running, think thinking, stand standing, sit sitting, try trying, talk talking, play playing",
    "is → was": "is was, are were, has had, go went, come came, take took, give gave, see saw, say said, "
    "look looked, walk walked, know knew, find found, make made, think thought, tell told, run ran, get got, "
    "ask asked, want wanted, turn turned, seem seemed, begin began, stand stood, sit sat, hear heard, feel felt",
    "one → many": "man men, woman women, boy boys, girl girls, child children, bird birds, tree trees, day days, "
    "hand hands, eye eyes, friend friends, word words, thing things, horse horses, house houses, year years, "
    "flower flowers, foot feet, book books, animal animals, hour hours, door doors, arm arms, head heads",
    "n → n + 1": "one two, two three, three four, four five, five six, six seven, seven eight, eight nine, nine ten",
    "opposites": "good bad, big small, long short, old young, hot cold, light dark, high low, rich poor, white black, "
    "first last, up down, in out, before after",
}


@dataclass(frozen=True)
class Hits:
    """Share of the questions "b1 is to a1 as b2 is to ?" of one relation that end at the right word.

    `arithmetic` asks for the token nearest to a1 − b1 + b2, the three words of the question left out, as is usual.
    `inputs_allowed` does not leave them out. `neighbour` forgets the arithmetic: the token nearest to b2, the three
    left out as well, so it shows what that exclusion alone achieves. A question whose answer is one of its own
    three words, such as "three is to four as two is to ?" (three), cannot be answered by these rules and is not asked.
    """

    arithmetic: float
    neighbour: float
    inputs_allowed: float
    questions: int


def pairs_of(words: str, ids: dict[str, int]) -> Int[Tensor, "pairs 2"]:
    """Token ids of pairs written as "he she, his her". A word is a token with a space before it.

    Raises ValueError that names the words that are no single token in `ids` (text of a token -> its id).
    """
    pairs = [pair.split() for pair in words.split(",")]
    missing = [word for pair in pairs for word in pair if f" {word}" not in ids]
    if missing:
        raise ValueError(f"words holds {missing}, no single tokens of this model: leave these pairs out.")
    return torch.tensor([[ids[f" {word}"] for word in pair] for pair in pairs])


def hits(unit_VD: Float[Tensor, "vocab model"], pairs_P2: Int[Tensor, "pairs 2"]) -> Hits:
    """The questions that two different pairs of a relation can ask, both ways round, answered from unit embeddings."""
    forth = _questions(pairs_P2)
    questions_Q4 = torch.cat([forth, _questions(pairs_P2.flip(1))])
    can_be_answered_Q = (questions_Q4[:, :3] != questions_Q4[:, 3:]).all(dim=1)
    b1, a1, b2, a2 = questions_Q4[can_be_answered_Q].T
    given_Q3 = torch.stack([b1, a1, b2], dim=1)

    def share(query_QD: Tensor, exclude: bool) -> float:
        similarity_QV = query_QD @ unit_VD.T
        if exclude:
            similarity_QV.scatter_(1, given_Q3, -torch.inf)
        return float((similarity_QV.argmax(1) == a2).float().mean())

    query_QD = unit_VD[a1] - unit_VD[b1] + unit_VD[b2]
    return Hits(share(query_QD, True), share(unit_VD[b2], True), share(query_QD, False), len(a2))


def offsets(unit_VD: Float[Tensor, "vocab model"], pairs_P2: Int[Tensor, "pairs 2"]) -> Float[Tensor, "pairs model"]:
    """What must be added to "from" to get "to", for every pair."""
    return unit_VD[pairs_P2[:, 1]] - unit_VD[pairs_P2[:, 0]]


def mismatched(pairs_P2: Int[Tensor, "pairs 2"]) -> Int[Tensor, "pairs 2"]:
    """The control: the same words, each "from" with the "to" of the next pair."""
    return torch.stack([pairs_P2[:, 0], pairs_P2[:, 1].roll(-1)], dim=1)


def ridge_held_out(
    x_PD: Float[Tensor, "points model"],
    y_P: Float[Tensor, " points"],
    *,
    folds: int = 10,
    ridge: float = 0.1,
    seed: int = 0,
) -> Float[Tensor, " points"]:
    """For each point, what a linear map fitted without its fold says about y (least squares + `ridge`·‖w‖²)."""
    order = torch.randperm(len(y_P), generator=torch.Generator().manual_seed(seed))
    predicted_P = torch.empty_like(y_P)
    for fold in range(folds):
        held = order[fold::folds]
        rest = torch.ones(len(y_P), dtype=torch.bool).index_fill(0, held, False)
        mean_D, level = x_PD[rest].mean(0), y_P[rest].mean()
        x = x_PD[rest] - mean_D
        gram_DD = x.T @ x + ridge * torch.eye(x.shape[1])
        w_D = torch.linalg.solve(gram_DD, x.T @ (y_P[rest] - level))
        predicted_P[held] = (x_PD[held] - mean_D) @ w_D + level
    return predicted_P


def _questions(pairs_P2: Tensor) -> Tensor:
    """(questions, 4): b1, a1, b2, a2 for every ordered choice of two different pairs."""
    n = len(pairs_P2)
    first, second = torch.where(~torch.eye(n, dtype=torch.bool))
    return torch.cat([pairs_P2[first], pairs_P2[second]], dim=1)
