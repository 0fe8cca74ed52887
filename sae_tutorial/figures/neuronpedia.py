"""Dashboards of features in the files that Neuronpedia reads: `batch-0.json`, `batch-1.json`, … of 128 features each.

    evidence = feature_evidence(sae, model, tokens)
    names = {"model_id": "gpt2-small", "layer": 6, "sae_set": "res-mine"}
    neuronpedia_batches(sae, model, evidence, range(256), "dashboards", **names)

Fields are those of SAEDashboard's NeuronpediaDashboardBatch, with the same names and meanings. What differs: tokens
that a feature promotes are among those that the text has (five times or more), not all of the vocabulary; passages have
up to 25 tokens; intervals hold equal numbers of matches instead of equal ranges of activations; neurons and features
that are correlated over the text are left out (empty lists, as SAEDashboard writes where it did not ask).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.files import write_atomically
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence
from sae_tutorial.evaluation.feature_pages import FeaturePage, Passage, Words, check_features, feature_pages
from sae_tutorial.figures.feature_report import words_of

PER_FILE, BINS, COORDINATES = 128, 50, 3
TOP = -1.0  # as SAEDashboard marks passages that were chosen for being the strongest: bin_min and bin_contains


def neuronpedia_batches(
    sae: Any,
    model: Any,
    evidence: FeatureEvidence,
    features: Iterable[int],
    folder: str | Path,
    *,
    model_id: str,
    layer: int,
    sae_set: str,
    dataset: str = "",
) -> list[Path]:
    """Writes the files into `folder`, and returns where they are.

    model_id, layer, sae_set   under which Neuronpedia shows them: its name of the model, and a name of yours
    dataset                    of the text that `evidence` was gathered from

    Raises ValueError for no feature, and for features that the SAE does not have.
    """
    there = Path(folder)
    there.mkdir(parents=True, exist_ok=True)
    words, written = words_of(model), []
    about = {
        "n_prompts_total": len(evidence.tokens),
        "n_tokens_in_prompt": evidence.tokens.shape[1],
        "dataset": dataset,
    }
    every = check_features(features, sae.config.d_sae)
    for n, first in enumerate(range(0, len(every), PER_FILE)):
        pages = feature_pages(evidence, sae, model, every[first : first + PER_FILE])
        dashboards = [dashboard(page, sae.W_dec[page.feature].detach().cpu(), words) | about for page in pages]
        batch = {"model_id": model_id, "layer": layer, "sae_set": sae_set, "features": dashboards}
        written.append(there / f"batch-{n}.json")
        write_atomically(written[-1], json.dumps(batch).encode())
    return written


def dashboard(page: FeaturePage, direction: Float[Tensor, " d"], words: Words) -> dict[str, Any]:
    """One feature; `direction` is its decoder row."""
    size = direction.abs()
    strong = size.topk(min(COORDINATES, len(size))).indices
    raised, lowered = (
        (words([token for token, _ in of]), [how for _, how in of]) for of in (page.raised, page.lowered)
    )
    none = ("correlated_neurons", "correlated_features")
    return {
        "feature_index": page.feature,
        "neuron_alignment_indices": strong.tolist(),
        "neuron_alignment_values": _rounded(direction[strong]),
        "neuron_alignment_l1": _rounded(size[strong] / size.sum()),
        **{f"{what}_{field}": [] for what in none for field in ("indices", "l1", "pearson")},
        "neg_str": lowered[0],
        "neg_values": _rounded(lowered[1]),
        "pos_str": raised[0],
        "pos_values": _rounded(raised[1]),
        "frac_nonzero": page.density,
        **_histogram("freq", page.sampled),
        **_histogram("logits", torch.tensor(raised[1] + lowered[1])),
        "activations": [*_top(page, words), *_intervals(page, words)],
        "decoder_weights_dist": [],
    }


def _top(page: FeaturePage, words: Words) -> list[dict[str, Any]]:
    bounds = {"bin_min": TOP, "bin_max": round(page.largest, 3), "bin_contains": TOP}
    return [bounds | _shown(passage, words) for passage in page.strongest]


def _intervals(page: FeaturePage, words: Words) -> list[dict[str, Any]]:
    """Passages of the fair sample: each part of it holds the same share of the matches."""
    parts, found = page.sampled.chunk(len(page.groups)) if page.groups else (), []
    for part, passages in zip(parts, page.groups):
        low, high = round(float(part.min()), 3), round(float(part.max()), 3)
        bounds = {"bin_min": low, "bin_max": high, "bin_contains": len(part) / len(page.sampled)}
        found += [bounds | _shown(passage, words) for passage in passages]
    return found


def _shown(passage: Passage, words: Words) -> dict[str, Any]:
    return {"tokens": words(passage.tokens.tolist()), "values": _rounded(passage.activations)}


def _histogram(name: str, values: Float[Tensor, " values"]) -> dict[str, list[float]]:
    """Middles of equal bins, and how many values lie in each."""
    heights, edges = torch.histogram(values.float(), BINS) if len(values) else (torch.zeros(0), torch.zeros(1))
    middles = (edges[1:] + edges[:-1]) / 2
    return {f"{name}_hist_data_bar_values": _rounded(middles), f"{name}_hist_data_bar_heights": _rounded(heights)}


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in values]
