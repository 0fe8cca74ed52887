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
    """The text around each flat index in `places` (sequence · length + position), `width` tokens on each side. Of
    padding, a run at either end of a row, one token is shown: where it is the mark of texts, it may be their own."""
    length, mark = tokens.shape[1], getattr(tokenizer, "pad_token_id", None)
    found = []
    for place in places:
        row, at = divmod(int(place), length)
        ids = tokens[row].tolist()
        text = [i for i, token in enumerate(ids) if token != mark or i == at]
        first, stop = max(text[0] - 1, at - width, 0), min(text[-1] + 2, at + 1 + width)
        found.append(
            Context(
                before=tokenizer.decode(ids[first:at]),
                token=tokenizer.decode(ids[at : at + 1]),
                after=tokenizer.decode(ids[at + 1 : stop]),
                activation=float(activations[row, at]),
            )
        )
    return found
