"""Evidence for one feature (or one neuron): where in the text does it answer most strongly, and to what?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """One place in a text: the tokens before, the token itself, the tokens after, and how strong the activation was.

    The text begins and ends between words, with an ellipsis where there is more of it."""

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
    """The text around each flat index in `places` (sequence · length + position), up to `width` tokens on each side:
    a word of which only a part would be seen is left out. Of padding, a run at either end of a row, one token is shown:
    where it is the mark of texts, it may be their own."""
    length, mark = tokens.shape[1], getattr(tokenizer, "pad_token_id", None)
    found = []
    for place in places:
        row, at = divmod(int(place), length)
        ids = tokens[row].tolist()
        text = [i for i, token in enumerate(ids) if token != mark or i == at]
        first, stop = max(text[0] - 1, at - width, 0), min(text[-1] + 2, at + 1 + width)
        ahead, beyond = (
            "" if i < 0 or ids[i : i + 1] == [mark] else tokenizer.decode(ids[i : i + 1]) for i in (first - 1, stop)
        )
        found.append(
            Context(
                before=_from_a_word(tokenizer.decode(ids[first:at]), ahead),
                token=tokenizer.decode(ids[at : at + 1]),
                after=_to_a_word(tokenizer.decode(ids[at + 1 : stop]), beyond),
                activation=float(activations[row, at]),
            )
        )
    return found


def _from_a_word(text: str, ahead: str) -> str:
    """`text` from its first whole word on, behind an ellipsis if something stands `ahead`.

    Nothing is known of what stood before a row; text that opens with a space or a small letter went on from there.
    """
    if not ahead and not text[:1].isspace() and not text[:1].islower():
        return text
    whole = ahead[-1:].isspace() or text[:1].isspace()
    rest = text if whole else re.sub(r"^\S+(?=\s)", "", text)
    return f"… {rest.lstrip()}" if whole or rest != text else f"…{text}"


def _to_a_word(text: str, beyond: str) -> str:
    """`text` up to its last whole word, with an ellipsis if something stands `beyond`."""
    if not beyond:
        return text
    whole = beyond[:1].isspace() or text[-1:].isspace()
    rest = text if whole else re.sub(r"(?<=\s)\S+$", "", text)
    return f"{rest.rstrip()} …" if whole or rest != text else f"{text}…"
