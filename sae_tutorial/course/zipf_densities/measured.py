"""Densities that were measured: of the SAEs of the grid, and of those that the package ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations import ActivationStore, load_language_model
from sae_tutorial.activations.shipped_text import text_for_training
from sae_tutorial.autoencoder import SparseAutoencoder, reference_sae
from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures.looks import NAMES

# Rules that are not told which densities to have.
FREE = ("token_choice", "mutual_choice", "relative", "relative_aux_zipf", "matryoshka", "relu", "gated", "jumprelu")
PLACES = {"main": "", "wide": "wide, ", "smollm2": "SmolLM2, "}  # parts of the grid that differ in more than the rule


@dataclass(frozen=True)
class Counted:
    """Counts of the matches of each feature on `n_tokens` held-out tokens, the most frequent first."""

    method: str
    place: str
    counts: Int[np.ndarray, " features"]
    n_tokens: int


def place_of(row: dict[str, Any]) -> str:
    """Model or width if they are not the usual ones, and the budget: "SmolLM2, k = 32"."""
    return f"{PLACES[row['part']]}k = {row['k']}"


def counts_of(evidence: Evidence, row: dict[str, Any]) -> Counted | None:
    """Of one run of the grid; None where densities were not kept."""
    density = evidence.density(row)
    if density is None:
        return None
    counts = np.rint(density.astype(float) * row["n_tokens"]).astype(int)
    return Counted(NAMES[row["method"]], place_of(row), counts, row["n_tokens"])


def free_counts(evidence: Evidence) -> list[Counted]:
    """Of every rule that is free to choose its densities, the first seed in each place of the grid that is there."""
    rows = [row for part in PLACES for row in sorted(evidence.runs.where(part=part), key=lambda row: row["k"])]
    found = [counts_of(evidence, row) for row in rows if row["method"] in FREE]
    return [one for one in found if one is not None]


def against(
    evidence: Evidence, methods: Mapping[str, str], rival: str, measures: Sequence[str]
) -> dict[str, dict[str, dict[str, Ratio]]]:
    """Measure -> what the method is called -> place -> how much more it has than the rival; gaps are left out."""
    rows = [row for part in PLACES for row in evidence.runs.where(part=part) if row["method"] in methods]
    cells = sorted({(row["part"], row["k"]) for row in rows}, key=lambda at: ([*PLACES].index(at[0]), at[1]))
    settings = [{"part": part, "k": k} for part, k in cells]
    found: dict[str, dict[str, dict[str, Ratio]]] = {m: {called: {} for called in methods.values()} for m in measures}
    ratios = evidence.ratios(measures, methods, rival, {place_of(fields): fields for fields in settings})
    for (measure, method, place), ratio in ratios.items():
        found[measure][methods[method]][place] = ratio
    return found


@torch.no_grad()
def held_counts(sae: SparseAutoencoder, x: Tensor) -> Int[np.ndarray, " features"]:
    """How many of these tokens each feature matches, with the thresholds of inference."""
    return np.bincount(sae.encode(x).features.cpu().numpy(), minlength=sae.config.d_sae)


def shipped_counts(rules: Mapping[str, str], n_tokens: int) -> list[Counted]:
    """The same of the SAEs that the package ships for the embedded model, on text that they have not seen: rule -> what
    it is called. Rules without one are left out."""
    saes = {}
    for rule, called in rules.items():
        with suppress(ValueError):  # none is shipped
            saes[called] = reference_sae(rule)
    if not saes:
        return []
    _, held_tokens = text_for_training()
    rows = held_tokens[: max(1, n_tokens // held_tokens.shape[1])]
    hook = str(next(iter(saes.values())).hook_name)
    x = ActivationStore.harvest(load_language_model(), rows, hook, progress=False).rows(slice(None))
    return [Counted(called, "shipped", held_counts(sae, x), len(x)) for called, sae in saes.items()]
