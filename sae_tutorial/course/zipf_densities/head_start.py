"""An experiment on history: a random half of the features learns first, while the other half sleeps.

Twins are trained side by side on the same batches, from the same start. In one of each pair the sleepers match nothing
and learn nothing from the second step to step `stop`; then they wake up with the weights that they fell asleep with.
Chance alone decides who sleeps, so whatever the two twins differ in later is due to the head start. All of it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.activations import ActivationStore
from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.training import TrainSettings, train_many

ASLEEP = -1e4  # a bias below which no affinity comes


@dataclass
class Twins:
    """One start, twice: `plain`, and `favoured`, in which only `lucky` features learn until the others wake up.

    `moments` are steps; after each of them `density` holds how often each feature of (plain, favoured) matches the
    probe. `strength` is the mean affinity of the sleepers over that of the lucky, when the sleepers wake up.
    """

    plain: SparseAutoencoder
    favoured: SparseAutoencoder
    lucky: Bool[Tensor, " features"]
    moments: list[int] = field(default_factory=list)
    density: list[tuple[Float[Tensor, " features"], Float[Tensor, " features"]]] = field(default_factory=list)
    strength: float = float("nan")
    kept: list[Tensor] = field(default_factory=list, repr=False)

    def share(self, of: int = 1) -> list[float]:
        """The share of all matches that the lucky half has at each moment, in `plain` (0) or `favoured` (1)."""
        return [float(densities[of][self.lucky].sum() / densities[of].sum()) for densities in self.density]

    def dead_sleepers(self, since: int) -> int:
        """How many of the other half of `favoured` had no match on the probe, at the worst moment from `since` on."""
        later = [favoured for step, (_, favoured) in zip(self.moments, self.density) if step >= since]
        return max(int((density[~self.lucky] == 0).sum()) for density in later)


def head_start(
    new_sae: Callable[[int], SparseAutoencoder],
    store: ActivationStore,
    probe: Float[Tensor, "tokens d_in"],
    settings: TrainSettings,
    seeds: Sequence[int],
    stop: int,
    moments: Sequence[int],
) -> list[Twins]:
    """Train a pair of twins for each seed, which gives their start and draws the lucky half.

    Raises ValueError if the sleepers would not wake up before the end.
    """
    if not 1 < stop < settings.steps:
        raise ValueError(f"stop must be a step after the first and before the last of {settings.steps}, got {stop}")
    pairs = [Twins(new_sae(seed), new_sae(seed), _half(new_sae(seed), seed)) for seed in seeds]

    @torch.no_grad()
    def watch(step: int, metrics: Any) -> None:
        for twins in pairs:
            if step == stop:
                _wake(twins, probe)
            if step in moments:
                _count(twins, step, probe)
            if step == 1:
                _sleep(twins)

    saes = [sae for twins in pairs for sae in (twins.plain, twins.favoured)]
    train_many(saes, store, settings, progress=False, on_step=watch, log_every=1)
    return pairs


def _half(sae: SparseAutoencoder, seed: int) -> Bool[Tensor, " features"]:
    """Half of the features, drawn at random."""
    F = sae.config.d_sae
    return torch.randperm(F, generator=torch.Generator().manual_seed(1000 + seed)) < F // 2


def _rows(sae: SparseAutoencoder) -> tuple[Tensor, ...]:
    """Parameters with a row for each feature."""
    return sae.b_enc, sae.W_dec, sae.W_enc.T


def _sleep(twins: Twins) -> None:
    twins.kept = [rows[~twins.lucky].clone() for rows in _rows(twins.favoured)]
    twins.favoured.b_enc[~twins.lucky] = ASLEEP


def _wake(twins: Twins, probe: Float[Tensor, "tokens d_in"]) -> None:
    for rows, as_they_were in zip(_rows(twins.favoured), twins.kept):
        rows[~twins.lucky] = as_they_were
    sae = twins.favoured
    strength_F = sae.preactivations(sae.normalise(probe)).relu().mean(dim=0)
    twins.strength = float(strength_F[~twins.lucky].mean() / strength_F[twins.lucky].mean())


def _count(twins: Twins, step: int, probe: Float[Tensor, "tokens d_in"]) -> None:
    plain, favoured = (sae.encode(probe, batch_rule=True).density() for sae in (twins.plain, twins.favoured))
    twins.moments.append(step)
    twins.density.append((plain, favoured))
