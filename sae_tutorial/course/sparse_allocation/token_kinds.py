"""What kind of token is this? A coarse, rule-based sorting, so that averages over tokens can be told apart.

The kinds and their rules are ours: they look at the text of a token, at what comes before it and at how often it
occurs, and know no grammar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.evaluation.intervals import bootstrap

KINDS = ("sentence start", "name", "rare word", "word", "common word", "word piece", "punctuation")
COMMON, RARE = 50, 1000  # a token type is common up to the first rank by frequency, rare beyond the second


def token_kinds(
    decoded: Sequence[str], tokens: Int[Tensor, "sequences positions"], counts: Int[Tensor, " vocabulary"]
) -> Int[Tensor, "sequences positions"]:
    """The kind of each token, as its place in `KINDS`. The first rule that fits decides:

    punctuation      no letter and no digit
    word piece       no space before it, and right after a letter or an apostrophe: the rest of a word
    sentence start   the first word after . ! ? a line break, an end mark or an opening quotation mark, or in its row
    name             a capital letter where no sentence starts, at least three letters
    common word      one of the 50 most frequent tokens by `counts` (how often each occurs, in this or another text)
    rare word        beyond the 1,000 most frequent
    word             all others

    `decoded` holds the text of every token of the vocabulary.
    """
    rank = torch.empty_like(counts)
    rank[counts.argsort(descending=True, stable=True)] = torch.arange(1, len(counts) + 1)
    ranks, kinds = rank.tolist(), []
    for row in tokens.tolist():
        opens, before = True, ""  # does a sentence open here? what comes before?
        for token in row:
            text = decoded[token]
            kind = _kind(text, before, opens, ranks[token])
            kinds.append(KINDS.index(kind))
            if _ends_sentence(text) or _opens_quotation(text, before):
                opens = True
            elif kind != "punctuation":
                opens = False
            before = text
    return torch.tensor(kinds, dtype=torch.int64).view(tokens.shape)


def _kind(text: str, before: str, opens: bool, rank: int) -> str:
    word = text.strip()
    if not any(letter.isalnum() for letter in text) or text == "<|endoftext|>":
        return "punctuation"
    if not text[0].isspace() and (before[-1:].isalnum() or before[-1:] in ("'", "’")) and before != "<|endoftext|>":
        return "word piece"
    if opens:
        return "sentence start"
    if word[0].isupper() and len(word) > 2 and word.isalpha():
        return "name"
    return "common word" if rank <= COMMON else "rare word" if rank > RARE else "word"


def _ends_sentence(text: str) -> bool:
    return text == "<|endoftext|>" or "\n" in text or any(mark in text for mark in ".!?")


def _opens_quotation(text: str, before: str) -> bool:
    """A quotation mark with space before it, in this token or at the end of the last."""
    return text.strip() in ('"', "“", "'", "‘") and (text[0].isspace() or before[-1:].isspace())


def mean_by_kind(
    values: Float[Tensor, "sequences positions"],
    kinds: Int[Tensor, "sequences positions"],
    n_kinds: int = len(KINDS),
    resamples: int = 500,
    seed: int = 0,
) -> tuple[Float[Tensor, " kinds"], Float[Tensor, " kinds"], Float[Tensor, " kinds"]]:
    """The mean of `values` for each kind, and the ends of its 95 % interval; NaN for a kind that does not occur.

    The interval is a bootstrap over whole sequences, because tokens of one text are not independent. Raises ValueError
    if there are no sequences, or if a value is NaN.
    """
    kind_of = torch.nn.functional.one_hot(kinds.long(), n_kinds).double()
    sums_NK = torch.einsum("nl,nlk->nk", values.double(), kind_of)
    counts_NK = kind_of.sum(1)
    parts_2KN = torch.stack([sums_NK.T, counts_NK.T])
    return bootstrap(parts_2KN, lambda parts: parts[0].sum(-1) / parts[1].sum(-1), resamples, seed)
