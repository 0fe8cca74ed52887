"""What this lesson measures of an answer, and how sure of it one can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.ioi import Sentences, logit_difference
from sae_tutorial.course.ioi_circuit.names import lift
from sae_tutorial.evaluation.intervals import bootstrap
from sae_tutorial.figures.tables import Table

MEASURES = ("difference", "lift", "right", "top")


def scores(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> Float[Tensor, "4 sentences"]:
    """The rows are `MEASURES`: the logit difference; the lift; 1 where the difference is above 0; 1 where the right
    name is the likeliest of all tokens. `names`: see `name_ids`."""
    difference = logit_difference(logits, sentences)
    right, top = difference > 0, logits.argmax(-1) == sentences.io
    return torch.stack([difference, lift(logits, sentences, names), right.to(difference), top.to(difference)])


def with_ends(values: Float[Tensor, " sentences"], form: str = ".2f") -> str:
    """The mean and the ends of its 95 % bootstrap interval over sentences, such as "8.34 [7.18, 9.47]"."""
    mean, low, high = bootstrap(values)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def share_restored(
    patched: Float[Tensor, "*sites sentences"],
    clean: Float[Tensor, " sentences"],
    corrupted: Float[Tensor, " sentences"] | float = 0.0,
) -> tuple[Float[Tensor, "*sites"], Float[Tensor, "*sites"], Float[Tensor, "*sites"]]:
    """How far `patched` leads from the corrupted run (0) to the clean one (1), as means over sentences, and the low and
    high end of its 95 % bootstrap interval.

    All three runs of a sentence are drawn together. With the default for `corrupted`: a share of the clean run.

    Raises ValueError if both runs have the same mean, and for runs of different numbers of sentences.
    """
    base = torch.as_tensor(corrupted).to(clean).expand_as(clean)
    if patched.shape[-1:] != clean.shape:
        raise ValueError(
            f"patched has {tuple(patched.shape)}, clean {tuple(clean.shape)}: one number per sentence each"
        )
    if abs(float((clean - base).mean())) < 1e-6:
        raise ValueError("clean and corrupted have the same mean: there is no scale between them.")
    runs = torch.cat([patched.reshape(-1, len(clean)), clean[None], base[None]])

    def share(values: Tensor) -> Tensor:  # (sites and the two runs, ..., sentences) to (sites, ...)
        *_, whole, nothing = means = values.mean(-1)
        return (means[:-2] - nothing) / (whole - nothing)

    middle, low, high = (found.view(patched.shape[:-1]) for found in bootstrap(runs, share))
    return middle, low, high


def as_share(
    found: Float[Tensor, " sentences"], whole: Float[Tensor, " sentences"], nothing: Float[Tensor, " sentences"]
) -> str:
    """`share_restored` in words, such as "120% [110%, 133%]"."""
    return "{:.0%} [{:.0%}, {:.0%}]".format(*map(float, share_restored(found, whole, nothing)))


def span(values: Float[Tensor, " sentences"]) -> tuple[float, float, float]:
    """The mean and the ends of its 95 % bootstrap interval over sentences: a bar of a figure."""
    mean, low, high = map(float, bootstrap(values))
    return mean, low, high


def score_table(found: Mapping[str, Float[Tensor, "4 sentences"]], what: str) -> Table:
    """One row for each of `found`, see `scores`; `what` says what they are."""
    forms = (".2f", ".2f", ".0%", ".0%")
    rows = [(name, *map(with_ends, values, forms)) for name, values in found.items()]
    return Table([what, "difference", "lift", "difference above 0", "right name on top"], rows)


def answers(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> dict[str, int]:
    """In how many sentences the likeliest token is the right name, the wrong one, one of the other `names` (see
    `name_ids`), or no name; and in how many it is the one of the two that comes first, whoever gives."""
    top, where = logits.argmax(-1), sentences.positions
    first = torch.where(where["IO"] < where["S1"], sentences.io, sentences.wrong)
    right, wrong, named = top == sentences.io, top == sentences.wrong, torch.isin(top, names.to(top.device))
    kinds = {"right": right, "wrong": wrong, "another name": named & ~right & ~wrong, "no name": ~named}
    return {kind: int(found.sum()) for kind, found in (kinds | {"the first of the two": top == first}).items()}


def most_frequent(model: Any, logits: Float[Tensor, "sentences vocab"], n: int = 5) -> str:
    """The likeliest tokens, those of most sentences first, and of how many: "' to' 12, ' the' 5"."""
    words = Counter(model.tokenizer.decode([i]) for i in logits.argmax(-1).tolist())
    return ", ".join(f"{word!r} {count}" for word, count in words.most_common(n))
