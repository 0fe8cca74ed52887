"""Evidence for one feature (or one neuron): where in the text does it answer most strongly, and to what?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """One place in a text: the tokens before, the token itself, the tokens after, and how strong the activation was."""

    before: str
    token: str
    after: str
    activation: float


def examples(tokens: Int[Tensor, "sequences positions"], token: int, n: int, seed: int = 0) -> list[int]:
    """Flat indices of up to `n` places where `token` stands, drawn at random, each from another sequence."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.where(tokens.flatten().cpu() == token)[0]
    by_row: dict[int, int] = {}
    for place in places[torch.randperm(len(places), generator=generator)].tolist():
        by_row.setdefault(place // tokens.shape[1], place)
    return list(by_row.values())[:n]


def around(
    tokenizer: Any,
    tokens: Int[Tensor, "sequences positions"],
    activations: Float[Tensor, "sequences positions"],
    places: Sequence[int],
    width: int = 8,
) -> list[Context]:
    """The text around each flat index in `places` (sequence · length + position), `width` tokens on each side."""
    length = tokens.shape[1]
    found = []
    for place in places:
        row, at = divmod(int(place), length)
        ids = tokens[row].tolist()
        found.append(
            Context(
                before=tokenizer.decode(ids[max(0, at - width) : at]),
                token=tokenizer.decode(ids[at : at + 1]),
                after=tokenizer.decode(ids[at + 1 : at + 1 + width]),
                activation=float(activations[row, at]),
            )
        )
    return found
