"""Taking features out of superposition: a course and a research bench around sparse allocation.

`import sae_tutorial` is cheap. Every public name is loaded when it is first used, so nothing heavy
(transformer_lens above all) is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what editors and type checkers see; Python itself goes through __getattr__ below
    from sae_tutorial.activations import ActivationStore, load_language_model, story_titles, story_tokens, text_tokens
    from sae_tutorial.allocation import (
        SparseCodes,
        feature_choice,
        fit_zipf,
        mutual_choice,
        threshold_choice,
        token_choice,
        zipf_capacity,
    )
    from sae_tutorial.autoencoder import (
        SAEConfig,
        SparseAutoencoder,
        load_metadata,
        load_sae,
        measure_thresholds,
        reference_sae,
        save_sae,
    )
    from sae_tutorial.evaluation import Evaluation, evaluate, evaluate_many
    from sae_tutorial.figures.feature_report import feature_report
    from sae_tutorial.training import TrainingRun, TrainSettings, train, train_many, with_rule

# Public name -> the room that holds it, in the order in which data flows.
_HOMES = {
    "load_language_model": "activations",
    "story_tokens": "activations",
    "story_titles": "activations",
    "text_tokens": "activations",
    "ActivationStore": "activations",
    "SparseCodes": "allocation",
    "token_choice": "allocation",
    "feature_choice": "allocation",
    "mutual_choice": "allocation",
    "threshold_choice": "allocation",
    "zipf_capacity": "allocation",
    "fit_zipf": "allocation",
    "SAEConfig": "autoencoder",
    "SparseAutoencoder": "autoencoder",
    "measure_thresholds": "autoencoder",
    "reference_sae": "autoencoder",
    "save_sae": "autoencoder",
    "load_sae": "autoencoder",
    "load_metadata": "autoencoder",
    "TrainSettings": "training",
    "TrainingRun": "training",
    "train": "training",
    "train_many": "training",
    "with_rule": "training",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "evaluate_many": "evaluation",
    "feature_report": "figures.feature_report",
}

# Kept literal, and equal to _HOMES (tested): tools that read source do not run it.
__all__ = [
    "ActivationStore",
    "Evaluation",
    "SAEConfig",
    "SparseAutoencoder",
    "SparseCodes",
    "TrainSettings",
    "TrainingRun",
    "evaluate",
    "evaluate_many",
    "feature_choice",
    "feature_report",
    "fit_zipf",
    "load_language_model",
    "load_metadata",
    "load_sae",
    "measure_thresholds",
    "mutual_choice",
    "reference_sae",
    "save_sae",
    "story_titles",
    "story_tokens",
    "text_tokens",
    "threshold_choice",
    "token_choice",
    "train",
    "train_many",
    "with_rule",
    "zipf_capacity",
]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use, and remember the result."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
