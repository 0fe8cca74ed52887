"""Go on training under another rule: the features stay, and what belongs to a rule begins anew.

    first = train(SparseAutoencoder(SAEConfig(256, 4096, "mutual_choice", k=32)), store, decay=0.0)
    sae = with_rule(first.sae, "feature_choice", first.density)
    train(sae, store)

Feature Choice gets more out of features that have found their level in open competition first (`benchmarks/quality.py`,
part "phases"). That phases can follow each other is an idea of the field; this order and its details are ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.usage import rerank_

OF_THE_RULE = ("threshold", "rank", "zipf_law")  # what is in a state dict and means nothing to another rule


@torch.no_grad()
def with_rule(
    sae: SparseAutoencoder, rule: str, density: Float[Tensor, " features"] | None = None, **changes: Any
) -> SparseAutoencoder:
    """A copy of `sae` with another rule (and other fields of its config), ready to be trained on.

    density  (F,) share of tokens that match each feature, `TrainingRun.density`: feature_choice gives its capacities in
             this order

    Raises ValueError for feature_choice without densities, and where the new config has other weights.
    """
    if rule == "feature_choice" and (density is None or density.shape != (sae.config.d_sae,)):
        got = None if density is None else tuple(density.shape)
        raise ValueError(
            f"density must be ({sae.config.d_sae},) for rule='feature_choice', got {got}: the densest feature gets "
            "the largest capacity. Pass the density of the TrainingRun."
        )
    other = SparseAutoencoder(replace(sae.config, rule=rule, **changes)).to(sae.W_dec.device)
    kept = {name: t for name, t in sae.state_dict().items() if name not in OF_THE_RULE}
    missing, unexpected = other.load_state_dict(kept, strict=False)
    if unexpected or set(missing) - set(OF_THE_RULE):
        differing = ", ".join(sorted({*unexpected, *missing} - set(OF_THE_RULE)))
        raise ValueError(f"rule={rule!r} has other weights than {sae.config.rule!r} ({differing}): start anew")
    if density is not None and rule == "feature_choice":
        rerank_(other, density.to(other.rank.device))
    return other
