"""Words that a neuron or feature answers to, and how many different ones they are; and text that repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mean_by_token(
    activations: Float[Tensor, "places features"], tokens: Int[Tensor, " places"], vocab_size: int
) -> tuple[Float[Tensor, "vocab features"], Int[Tensor, " vocab"]]:
    """Each feature's mean activation on each token, and how often the token occurs; 0 for a token that never does.

    Both are on the device of `activations`.

    Raises ValueError if there is not one token per place.
    """
    if len(activations) != len(tokens):
        raise ValueError(f"activations has {len(activations)} places, tokens has {len(tokens)}")
    tokens = tokens.to(activations.device)
    counts = torch.bincount(tokens, minlength=vocab_size)
    sums = activations.new_zeros(vocab_size, activations.shape[1]).index_add_(0, tokens, activations)
    return sums / counts.clamp(min=1)[:, None], counts


def whole_words(
    decoded: Sequence[str], tokens: Int[Tensor, "sequences positions"], min_sequences: int
) -> Int[Tensor, " words"]:
    """The tokens that are whole words in this text and occur in at least `min_sequences` different sequences.

    Such a token is a space and two or more letters, and nine times in ten something new begins after it (a space, a
    punctuation mark); the beginnings of longer words are left out. `decoded` holds the text of every token.
    """
    opens_V = tokens.new_tensor([not text[:1].isalpha() for text in decoded])
    looks_V = tokens.new_tensor([text[:1] == " " and text[1:].isalpha() and len(text) > 2 for text in decoded])
    before_P, after_P = tokens[:, :-1].flatten(), tokens[:, 1:].flatten()
    ends_V1, _ = mean_by_token(opens_V[after_P].float()[:, None], before_P, len(decoded))
    occurs_V = torch.bincount(
        torch.cat([tokens.flatten()[:0], *(row.unique() for row in tokens)]), minlength=len(decoded)
    )
    return torch.where((looks_V > 0) & (occurs_V >= min_sequences) & (ends_V1[:, 0] >= 0.9))[0]


def effective_words(
    tokens: Int[Tensor, "*features words"], embedding: Float[Tensor, "vocab model"]
) -> Float[Tensor, "*features"]:
    """How many different words these are, where similar words count as partly the same.

    1 / mean over all pairs of their similarity, max(0, cosine) of the centred embeddings. The same word throughout
    makes 1, five unrelated words make 5, "boy" and "girl" something between 1 and 2, no words 0.
    Source: Leinster & Cobbold 2012 (diversity of order 2 with similarities).
    """
    unit = unit_embedding(embedding)[tokens.to(embedding.device).long()]
    n = tokens.shape[-1]
    return n**2 / (unit @ unit.mT).clamp(min=0).sum((-2, -1)).clamp(min=1)


def unlike_words(
    tokens: Sequence[int], embedding: Float[Tensor, "vocab model"], most: int = 5, limit: float = 0.3
) -> list[int]:
    """The first of `tokens`, skipping each whose cosine with one already taken exceeds `limit`; at most `most`."""
    unit = unit_embedding(embedding)
    taken: list[int] = []
    for token in tokens:
        if len(taken) < most and all(float(unit[token] @ unit[other]) <= limit for other in taken):
            taken.append(int(token))
    return taken


def unit_embedding(embedding: Float[Tensor, "vocab model"]) -> Float[Tensor, "vocab model"]:
    """Embeddings without their mean, at length 1, so that a dot product is a cosine."""
    return torch.nn.functional.normalize(embedding - embedding.mean(0), dim=-1)


def repetition(tokens: Int[Tensor, "rows positions"], n: int) -> Float[Tensor, " rows"]:
    """The share of each row's runs of `n` tokens that the commonest one makes up; leave BOS out of the rows.

    A few hundredths in prose, 1 where one token is repeated to the end: a model that samples its own text sometimes
    gets stuck like this, and a few such rows would outweigh the rest of their kind of token.
    """
    values, ids = tokens.unique(return_inverse=True)  # small enough that a few of them fit into one number
    runs = torch.zeros_like(ids[:, n - 1 :])
    for i in range(n):
        runs = runs * len(values) + ids[:, i : i + runs.shape[1]]
    return (runs == runs.mode(dim=1, keepdim=True).values).float().mean(dim=1)
