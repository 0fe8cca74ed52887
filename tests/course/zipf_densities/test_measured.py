"""Densities that were measured: read from the grid, those of the shipped SAEs included, and counted anew."""

import numpy as np
import pytest
import torch

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.course.results import Evidence, Runs
from sae_tutorial.course.zipf_densities import measured


def row(method: str, part: str = "main", k: int = 32, seed: int = 0, model: str = "stories") -> dict:
    key = f"{part}-{model}-{method}-{k}-{seed}"
    return {"key": key, "part": part, "method": method, "k": k, "seed": seed, "model": model, "noise": 0.0} | {
        "n_tokens": 100
    }


@pytest.fixture
def evidence():
    """Two budgets, SmolLM2, a sweep, and SAEs that are shipped; densities of seed 0 alone."""
    rows = [row(m, k=k, seed=s) for m in ("token_choice", "feature_choice_zipf") for k in (64, 16) for s in (0, 1)]
    rows += [row("mutual_choice"), row("token_choice", "smollm2", model="smollm2"), row("token_choice", "rates")]
    rows += [row(rule, "reference", model="smollm2") for rule in ("mutual_choice", "feature_choice_zipf")]
    arrays = {f"{r['key']}/density": np.array([0.5, 0.25, 0.01, 0], "float32") for r in rows if r["seed"] == 0}
    for number, r in enumerate(rows):
        arrays[f"{r['key']}/rows"] = np.full((4, 3), 1.0 + number)
    return Evidence(Runs(tuple(rows)), arrays, Runs(()))


def test_free_rules_come_in_order_with_whole_counts(evidence):
    found = measured.free_counts(evidence)
    assert [(one.method, one.place) for one in found] == [
        ("Token Choice", "k = 16"), ("Mutual Choice", "k = 32"), ("Token Choice", "k = 64"),
        ("Token Choice", "SmolLM2, k = 32"), ("Mutual Choice", "SmolLM2, shipped"),
    ]  # fmt: skip
    assert all(one.counts.tolist() == [50, 25, 1, 0] and one.n_tokens == 100 for one in found)


def test_densities_that_were_not_kept_are_none(evidence):
    assert measured.counts_of(evidence, row("token_choice", k=16, seed=1)) is None
    given = measured.counts_of(evidence, row("feature_choice_zipf", k=16))
    assert given.method == "Feature Choice, Zipf", "asked for by name, it is there"


def test_against_has_only_the_places_where_both_are(evidence):
    found = measured.against(evidence, {"feature_choice_zipf": "default", "relu": "absent"}, "token_choice", ["error"])
    assert list(found["error"]) == ["default", "absent"] and not found["error"]["absent"]
    assert list(found["error"]["default"]) == ["k = 16", "k = 64"], "the smaller budget first"
    assert found["error"]["default"]["k = 16"].seeds == 2


def test_counts_are_those_of_the_codes():
    sae, x = SparseAutoencoder(SAEConfig(6, 12, "token_choice", 3)), torch.randn(40, 6)
    counts = measured.held_counts(sae, x)
    assert counts.shape == (12,) and counts.tolist() == (sae.encode(x).to_dense() > 0).sum(0).tolist()
