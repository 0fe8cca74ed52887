"""Methods that find a circuit without a person, and how well they find ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.circuits.edges import edge_attribution, edge_scores, greedy_removal, roc, wiring
from sae_tutorial.circuits.feature_patching import divergence
from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import Sentences
from sae_tutorial.circuits.patching import all_heads
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.transformers.library import is_gpt2_like


def head_scores(
    model: Any,
    sentences: Sentences,
    asked: Mapping[str, tuple[Sentences, Callable[[Tensor], Tensor]]],
    few: int,
    other: Sentences,
    thresholds: Sequence[float],
) -> dict[str, Float[Tensor, " heads"]]:
    """How much each method makes of each head, in the order of `all_heads`; nothing for a model whose edges are not
    known here (see `is_gpt2_like`).

    Args:
        asked: name -> the other run and the metric of EAP.
        few: sentences for ACDC, which takes many passes; it removes towards `other`, the ABC ones.
        thresholds: of ACDC, in nats; a head scores the number of thresholds that one of its edges survives.
    """
    if not is_gpt2_like(model):
        return {}
    heads, graph = all_heads(model), wiring(model)
    found = {
        f"EAP, {name}": edge_scores(graph, edge_attribution(model, sentences, run, metric), heads)
        for name, (run, metric) in asked.items()
    }
    some = sentences[:few]
    damage = partial(divergence, target=end_logits(model, some))
    kept = [greedy_removal(model, some, other[:few], lambda x: damage(x).mean(), bar) for bar in thresholds]
    found["ACDC, KL, ABC"] = torch.stack([edge_scores(graph, edges, heads) for edges in kept]).sum(0)
    return found


def areas(
    scores: Mapping[str, Float[Tensor, " heads"]], heads: Sequence[Head], circuits: Sequence[Sequence[Head]]
) -> dict[str, list[float]]:
    """For each method the area under its ROC curve for each of `circuits`: 1 if its heads come before all others."""
    members = [[head in circuit for head in heads] for circuit in circuits]
    return {name: [roc(values, group).area for group in members] for name, values in scores.items()}
