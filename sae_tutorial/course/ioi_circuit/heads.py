"""The heads of this lesson's circuit, sorted by what they add to two names and by where they look.

Letters of shapes: L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.direct_effects import attention_between, direct_writes, towards
from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import Sentences
from sae_tutorial.circuits.patching import activations, head_site, patched_logits
from sae_tutorial.circuits.prompts import end_logits
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


def on_map(model: Any, values: Float[Tensor, " listed"], listed: Sequence[Head]) -> Float[Tensor, "layers heads"]:
    """Values of some heads at their places among all, 0 elsewhere."""
    grid = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for (layer, head), value in zip(listed, values.tolist(), strict=True):
        grid[layer, head] = value
    return grid


def rewritten(
    model: Any, sentences: Sentences, writer: Sequence[Head], sources: Mapping[str, Sentences]
) -> dict[str, Float[Tensor, "sentences vocab"]]:
    """Logits at END when the heads `writer` do something else at S2.

    Args:
        sources: name -> sentences as long as these, from which the heads' outputs at S2 are taken.
    """
    s1, s2 = sentences.positions["S1"], sentences.positions["S2"]
    sites, looking = ([head_site(part, head, s2) for head in writer] for part in ("z", "pattern"))
    outputs, patterns = ({site.hook_name for site in where} for where in (sites, looking))
    found = {"is as it is": end_logits(model, sentences)}
    for name, source in sources.items():
        donor = activations(model, source, outputs)
        found[f"writes at S2 what it does with {name}"] = patched_logits(model, sentences, sites, donor)
    each, own = torch.arange(len(sentences), device=s2.device), activations(model, sentences, outputs | patterns)
    for name in outputs:
        own[name][each, s2] = own[name][each, s1]
    for name in patterns:
        own[name].zero_()[each, :, s2, s2] = 1
    found["writes at S2 what it wrote at S1"] = patched_logits(model, sentences, sites, own)
    found["looks from S2 at S2 alone"] = patched_logits(model, sentences, looking, own)
    return found
