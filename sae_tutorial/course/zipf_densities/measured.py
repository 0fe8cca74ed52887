"""Densities that were measured: of the SAEs of the grid, those that the package ships among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures.looks import NAMES

# Rules that are not told which densities to have, by capacities or by a loss that fits a law (aux_zipf).
FREE = ("token_choice", "mutual_choice", "relative", "matryoshka", "relu", "gated", "jumprelu")
PARTS = ("main", "smollm2")  # of the grid, in which rules are compared; "reference" has the SAEs that are shipped
MODELS = {"stories": "", "smollm2": "SmolLM2, "}


@dataclass(frozen=True)
class Counted:
    """Counts of the matches of each feature on `n_tokens` held-out tokens, the most frequent first."""

    method: str
    place: str
    counts: Int[np.ndarray, " features"]
    n_tokens: int


def place_of(row: dict[str, Any]) -> str:
    """The model if it is not the embedded one, and the budget: "SmolLM2, k = 32"; "SmolLM2, shipped"."""
    return MODELS[row["model"]] + ("shipped" if row["part"] == "reference" else f"k = {row['k']}")


def counts_of(evidence: Evidence, row: dict[str, Any]) -> Counted | None:
    """Of one run of the grid; None where densities were not kept."""
    density = evidence.density(row)
    if density is None:
        return None
    counts = np.rint(density.astype(float) * row["n_tokens"]).astype(int)
    return Counted(NAMES[row["method"]], place_of(row), counts, row["n_tokens"])


def free_counts(evidence: Evidence) -> list[Counted]:
    """Of every rule that is free to choose its densities, the first seed in each place of the grid that is there; those
    that are shipped last."""
    parts = (*PARTS, "reference")
    rows = [row for part in parts for row in sorted(evidence.runs.where(part=part), key=lambda row: row["k"])]
    found = [counts_of(evidence, row) for row in rows if row["method"] in FREE]
    return [one for one in found if one is not None]


def against(
    evidence: Evidence, methods: Mapping[str, str], rival: str, measures: Sequence[str]
) -> dict[str, dict[str, dict[str, Ratio]]]:
    """Measure -> what the method is called -> place -> how much more it has than the rival; gaps are left out."""
    rows = [row for part in PARTS for row in evidence.runs.where(part=part) if row["method"] in methods]
    rows.sort(key=lambda row: (PARTS.index(row["part"]), row["k"]))
    settings = {place_of(row): {"part": row["part"], "k": row["k"]} for row in rows}
    found: dict[str, dict[str, dict[str, Ratio]]] = {m: {called: {} for called in methods.values()} for m in measures}
    ratios = evidence.ratios(measures, methods, rival, settings)
    for (measure, method, place), ratio in ratios.items():
        found[measure][methods[method]][place] = ratio
    return found


@torch.no_grad()
def held_counts(sae: SparseAutoencoder, x: Tensor) -> Int[np.ndarray, " features"]:
    """How many of these tokens each feature matches, with the thresholds of inference."""
    return np.bincount(sae.encode(x).features.cpu().numpy(), minlength=sae.config.d_sae)
