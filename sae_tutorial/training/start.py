"""What a run begins with: biases, norms and units from a sample of the activations, or the features of another run.

    first = train(SparseAutoencoder(SAEConfig(256, 4096, "mutual_choice", k=32)), store, decay=0.0)
    sae = with_rule(first.sae, "feature_choice", first.density)
    train(sae, store)

Feature Choice gets more out of features that have found their level in open competition first (`benchmarks/quality.py`,
part "phases"). That phases can follow each other is an idea of the field; this order and its details are ours.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.ranks import Grid, Ranks
from sae_tutorial.autoencoder.config import RULES
from sae_tutorial.autoencoder.distributed import match
from sae_tutorial.autoencoder.rescaling import unit_decoder_
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.training.usage import rerank_

OF_THE_RULE = (
    "threshold",
    "rank",
    "zipf_law",
    "subsidy",
    "gradient_scale",
)  # what is in a state dict and means nothing to another rule


def geometric_median(
    points: Float[Tensor, "n d"], iterations: int = 100, tolerance: float = 1e-6
) -> Float[Tensor, " d"]:
    """The point with the smallest summed distance to all others, by Weiszfeld's iteration.

    Like a median it does not follow a few far points, as a mean would. Stops when a move is below `tolerance` times
    the mean distance.
    """
    median = points.mean(0)
    for _ in range(iterations):
        distance = (points - median).norm(dim=1)
        if not distance.any():
            break  # all points are one
        weight = 1 / distance.clamp(min=1e-6 * float(distance.mean()))  # a point may lie on the median
        before, median = median, (weight @ points) / weight.sum()
        if (median - before).norm() <= tolerance * distance.mean():
            break
    return median


@torch.no_grad()
def unit_rows_(sae: SparseAutoencoder, of_features: Ranks | None = None) -> None:
    """Decoder rows of unit norm, in place, as far as the function stays what it is; training then keeps their norms.

    Where features compete for a budget (token_choice, mutual_choice, matryoshka), a longer row goes with smaller
    affinities, so rescaling rows one by one would change which match: all of them are divided by the same power of two,
    which rounds nothing and leaves norms about 1. Tied weights, of one norm for two matrices, and frozen ones stay.
    """
    if sae.config.tied or not all(p.requires_grad for name, p in sae.named_parameters() if name != "b_dec"):
        return
    if sae.config.how.owner not in ("token", "batch"):
        unit_decoder_(sae)
    elif (norm := float((of_features or Ranks()).summed(sae.W_dec.norm(dim=1).sum())) / sae.config.d_sae) > 0:
        common = 2.0 ** round(math.log2(norm))
        sae.W_dec.div_(common)
        for tensor in (sae.W_enc, sae.b_enc, sae.threshold):
            tensor.mul_(common)
        if sae.config.gradient_weight:
            sae.gradient_scale.div_(common)


@torch.no_grad()
def start_(
    sae: SparseAutoencoder,
    x: Float[Tensor, "n d_in"],
    target: Float[Tensor, "n d_out"] | None = None,
    of_features: Ranks | None = None,
) -> SparseAutoencoder:
    """Prepare a fresh SAE for its first step, in place, from a sample of raw activations (and raw targets).

    b_dec starts at the geometric median of what is predicted. The encoder is the decoder's transpose already (not in
    a transcoder, where input and output are different spaces); it is scaled so that the reconstruction is as long
    as the input on average: Gao et al. 2024. A transcoder's first guess is a tenth as long, as it is no better than a
    random one: our choice. Penalty rules start with all positive affinities matching; the threshold of jumprelu is
    small: Rajamanoharan et al. 2024b. Where the SAE is a part, `of_features` have the others.
    """
    u = sae.normalise(x)
    goal = u if target is None else sae.normalise_target(target)
    if sae.config.how.learned and not sae.config.normalise and sae.threshold.requires_grad:
        sae.threshold.mul_(u.std(0).square().mean().sqrt())  # small in the units of these activations
    if sae.b_dec.requires_grad:
        sae.b_dec.copy_(geometric_median(goal))
    if sae.config.tied or not sae.W_enc.requires_grad:
        return sae  # tied: one matrix with rows of unit norm, there is nothing left to scale
    ranks = of_features or Ranks()
    if sae.config.how.owner is None:
        codes = sae.allocate(sae.bids(u))
    else:
        codes = match(Grid.of_features(ranks), sae, u, 0, len(u), bids=sae.bids(u))
    length = ranks.summed(sae.from_bids(u, codes) @ sae.W_dec).norm(dim=1).mean()
    wanted = (goal - sae.b_dec).norm(dim=1).mean() * (0.1 if sae.config.is_transcoder else 1.0)
    if length > 0:
        sae.W_enc.mul_(wanted / length)
    return sae


@torch.no_grad()
def with_rule(
    sae: SparseAutoencoder, rule: str, density: Float[Tensor, " features"] | None = None, **changes: Any
) -> SparseAutoencoder:
    """A copy of `sae` with another rule (and other fields of its config), ready to be trained on.

    density  (F,) share of tokens that match each feature, `TrainingRun.density`: feature_choice gives its capacities in
             this order

    Raises ValueError for feature_choice without densities, and where the new config has other weights.
    """
    sae.must_be_whole("with_rule")
    by_density = rule in RULES and RULES[rule].owner == "feature"
    if by_density and (density is None or density.shape != (sae.config.d_sae,)):
        got = None if density is None else tuple(density.shape)
        shape = f"density must be ({sae.config.d_sae},) for rule={rule!r}, got {got}"
        raise ValueError(f"{shape}: the densest feature gets the largest capacity. Give that of the TrainingRun")
    other = SparseAutoencoder(replace(sae.config, rule=rule, **changes)).to(sae.W_dec.device, sae.W_dec.dtype)
    kept, fresh = ({n: t for n, t in one.state_dict().items() if n not in OF_THE_RULE} for one in (sae, other))
    differing = {(name, t.shape) for name, t in kept.items()} ^ {(name, t.shape) for name, t in fresh.items()}
    if differing:
        names = ", ".join(sorted({name for name, _ in differing}))
        raise ValueError(f"rule={rule!r} has other weights than {sae.config.rule!r} ({names}): start anew")
    other.load_state_dict(kept, strict=False)
    for name, parameter in sae.named_parameters():
        other.get_parameter(name).requires_grad_(parameter.requires_grad)
    other.take_origin(sae)
    if density is not None and by_density:
        rerank_(other, density.to(other.rank.device))
    return other
