"""Densities that others are compared with: of the grid's SAEs, and of the shipped SAEs of a second model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial import ActivationStore, SparseAutoencoder, load_language_model, reference_sae
from sae_tutorial.activations.shipped_text import text_for_training
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


def free_counts(evidence: Evidence) -> list[Counted]:
    """Of every rule that is free to choose its densities, the first seed in each place of the grid that is there."""
    found = []
    for place in PLACES:
        for row in sorted(evidence.runs.where(part=place), key=lambda row: row["k"]):
            density = evidence.density(row) if row["method"] in FREE else None
            if density is not None:
                counts = np.rint(density.astype(float) * row["n_tokens"]).astype(int)
                found.append(Counted(NAMES[row["method"]], place_of(row), counts, row["n_tokens"]))
    return found


def against(
    evidence: Evidence, methods: Mapping[str, str], rival: str, measures: Sequence[str]
) -> dict[str, dict[str, dict[str, Ratio]]]:
    """Measure -> what the method is called -> place -> how much more it has than the rival; gaps are left out."""
    rows = [row for part in PLACES for row in evidence.runs.where(part=part) if row["method"] in methods]
    settings = sorted({(row["part"], row["k"]) for row in rows}, key=lambda at: ([*PLACES].index(at[0]), at[1]))
    found: dict[str, dict[str, dict[str, Ratio]]] = {}
    for measure in measures:
        for method, called in methods.items():
            of = found.setdefault(measure, {}).setdefault(called, {})
            for part, k in settings:
                ratio = evidence.ratio(measure, method, rival, part=part, k=k)
                if ratio is not None:
                    of[place_of({"part": part, "k": k})] = ratio
    return found


@torch.no_grad()
def held_counts(sae: SparseAutoencoder, x: Tensor) -> Int[np.ndarray, " features"]:
    """How many of these tokens each feature matches, with the thresholds of inference."""
    return np.bincount(sae.encode(x).features.cpu().numpy(), minlength=sae.config.d_sae)


def second_model(rules: dict[str, str], n_tokens: int, name: str = "smollm2") -> list[Counted]:
    """The same of a second model's shipped SAEs, rule -> what it is called; empty where the model is not installed."""
    try:
        saes = {called: reference_sae(rule, model=name) for rule, called in rules.items()}
        model = load_language_model(name)
    except (ModuleNotFoundError, ValueError):  # an optional package; SAEs that are not shipped
        return []
    hook = next(iter(saes.values())).hook_name
    _, held_tokens = text_for_training(model=name)
    rows = held_tokens[: max(1, n_tokens // held_tokens.shape[1])]
    x = ActivationStore.harvest(model, rows, hook, progress=False).rows(slice(None))
    return [Counted(called, "SmolLM2", held_counts(sae, x), len(x)) for called, sae in saes.items()]
