"""The sparse autoencoders of notebook 09, trained alike, on text in which the names of the task are common.

Trained and measured by `scripts/train_task_saes.py`; a card lies beside each. A quarter of what
they read are sentences of `ioi.ioi_sentences`, the rest are stories. In stories alone each of the names makes up
less than one token in a thousand, and an autoencoder that is trained for minutes has no features for them yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.shipped import unpack
from sae_tutorial.circuits.ioi import ioi_sentences
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import TrainSettings

FOLDER = Path(__file__).parents[2] / "assets" / "saes" / "stories-ioi"
SEED = 1_000_000  # of the sentences that they are trained on; every other seed makes other sentences


@dataclass(frozen=True)
class Recipe:
    """What one of them is, but for its sizes, and what its training adds to the common settings.

    seed      of its first weights, and of the order of the batches
    frozen    its directions stay the random ones that it begins with, and only the encoder learns
    """

    config: dict[str, Any]
    settings: dict[str, Any]
    seed: int = 0
    frozen: bool = False


def _relu(l1: float) -> Recipe:
    """Cunningham et al. 2023: tied, no decoder bias, L1."""
    return Recipe({"rule": "relu", "tied": True, "b_dec": False}, {"l1": l1, "lr": 5e-3})


SEEDS = (0, 1, 2)
BUDGETS = ("token_choice", "mutual_choice", "feature_choice")
RECIPES = {f"relu_{l1:g}": _relu(l1) for l1 in (0.1, 0.03, 0.01, 0.0)}
RECIPES |= {f"{rule}_{seed}": Recipe({"rule": rule, "k": 32}, {}, seed) for rule in BUDGETS for seed in SEEDS}
RECIPES |= {"frozen_decoder": Recipe({"rule": "mutual_choice", "k": 32}, {}, frozen=True)}


def task_sae(name: str) -> SparseAutoencoder:
    """The shipped SAE of this recipe: 1,024 features of `shipped.HOOK` of the embedded model. ValueError for others."""
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, got {name!r}")
    return unpack(FOLDER / name)


def task_store(
    model: Any, hook_name: str, tokens: Int[Tensor, "rows context"], n_sentences: int, seed: int = SEED
) -> ActivationStore:
    """Activations of text and of IOI sentences, together; no start marks and no padding."""
    sentences = ioi_sentences(model, n_sentences, seed)
    width = [int(end) + 1 for end in sentences.positions["END"]]
    rows = []
    for length in sorted(set(width)):  # one length at a time: the shortest way to leave out padding
        rows.append(sentences.tokens[torch.tensor(width) == length, :length])
    stores = [ActivationStore.harvest(model, part, hook_name, progress=False) for part in [tokens, *rows]]
    acts = torch.cat([store.rows(torch.arange(len(store))) for store in stores])
    return ActivationStore.from_tensor(acts, hook_name)


def train_task_saes(
    store: ActivationStore,
    d_sae: int,
    steps: int,
    batch_size: int,
    k: float = 32,
    seeds: Sequence[int] = SEEDS,
    checkpoints: Path | None = None,
    progress: bool = False,
) -> dict[str, TrainingRun]:
    """All recipes of these seeds; those of one seed side by side on the same batches.

    `checkpoints`: a folder with one file for each seed, which an interrupted training goes on from.
    """
    runs: dict[str, TrainingRun] = {}
    for seed in seeds:
        recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.seed == seed}
        saes = [_fresh(recipe, store.d_in, d_sae, k) for recipe in recipes.values()]
        settings = [TrainSettings(steps, batch_size, seed, **recipe.settings) for recipe in recipes.values()]
        kept: dict[str, Any] = {"checkpoint": checkpoints / f"{seed}.pt", "resume": "auto"} if checkpoints else {}
        runs |= dict(zip(recipes, train_many(saes, store, settings, progress=progress, **kept)))
    return {name: runs[name] for name in RECIPES if name in runs}


def _fresh(recipe: Recipe, d_in: int, d_sae: int, k: float) -> SparseAutoencoder:
    config = recipe.config | ({"k": k} if "k" in recipe.config else {})
    sae = SparseAutoencoder(SAEConfig(d_in, d_sae, **config), seed=recipe.seed)
    sae.W_dec.requires_grad_(not recipe.frozen)
    return sae
