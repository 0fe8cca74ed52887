"""The heads of this lesson's circuit, sorted by what they add to two names and by where they look.

Letters of shapes: L layers, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.direct_effects import attention_between, direct_writes, towards
from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import Sentences
from sae_tutorial.course.ioi_circuit.names import absent_names


@dataclass(frozen=True)
class Seen:
    """What each head does, as means over sentences.

    Attributes:
        right, wrong: (L, H) what it adds to either name, above the names that a sentence does not ask about.
        look: IO, S1, S2 -> (L, H) its attention from END.
        back: (L, H) its attention from S2 to S1.
    """

    right: Float[Tensor, "layers heads"]
    wrong: Float[Tensor, "layers heads"]
    look: dict[str, Float[Tensor, "layers heads"]]
    back: Float[Tensor, "layers heads"]


def seen(model: Any, sentences: Sentences, names: Int[Tensor, " names"]) -> Seen:
    """`names`: see `name_ids`."""
    against, out = absent_names(sentences, names), direct_writes(model, sentences).heads
    right, wrong = (towards(out, model, ids, against) for ids in (sentences.io, sentences.wrong))
    look = attention_between(model, sentences, "END", ["IO", "S1", "S2"])
    return Seen(right, wrong, look, attention_between(model, sentences, "S2", ["S1"])["S1"])


def sort_heads(found: Seen) -> dict[str, list[Head]]:
    """Four kinds of heads; where a model has none of a kind, the one that comes nearest.

    The thresholds are ours, chosen after looking at the maps of the embedded model.
    """
    names, least = found.look["IO"] + found.look["S1"], torch.minimum(found.right, found.wrong)
    kinds = {
        "name-carrying": (found.back, found.back > 0.3),
        "copy suppression": (-found.wrong, (found.wrong < -0.05) & (found.look["S2"] > 0.5)),
        "name movers": (least, (least > 0.1) & (names > 0.3)),
        "indirect name movers": (least - names, (least > 0.2) & (names < 0.1)),
    }
    listed = {kind: [(layer, head) for layer, head in mask.nonzero().tolist()] for kind, (_, mask) in kinds.items()}
    width = found.right.shape[1]
    return {kind: listed[kind] or [divmod(int(score.argmax()), width)] for kind, (score, _) in kinds.items()}
