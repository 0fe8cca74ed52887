"""Dashboards for Neuronpedia: every field that it reads, with the meaning that it has there."""

import json

import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.evaluation.feature_evidence import feature_evidence
from sae_tutorial.evaluation.feature_pages import feature_pages
from sae_tutorial.figures.feature_report import words_of
from sae_tutorial.figures.neuronpedia import BINS, dashboard, neuronpedia_batches

# The fields of SAEDashboard's NeuronpediaDashboardBatch, -Feature and -Activation that are always written.
BATCH = {"model_id": str, "layer": int, "sae_set": str, "features": list}
LISTS = [f"neuron_alignment_{x}" for x in ("indices", "values", "l1")]
LISTS += [f"correlated_{what}_{x}" for what in ("neurons", "features") for x in ("indices", "l1", "pearson")]
LISTS += [f"{sign}_{x}" for sign in ("neg", "pos") for x in ("str", "values")]
LISTS += [f"{what}_hist_data_bar_{x}" for what in ("freq", "logits") for x in ("values", "heights")]
FEATURE = dict.fromkeys([*LISTS, "activations", "decoder_weights_dist"], list)
FEATURE |= {"feature_index": int, "frac_nonzero": float, "n_prompts_total": int, "n_tokens_in_prompt": int}
FEATURE |= {"dataset": str}
ACTIVATION = {"bin_min": float, "bin_max": float, "bin_contains": float, "tokens": list, "values": list}


def check(found, fields):
    assert set(found) == set(fields)
    assert {name: type(value) for name, value in found.items()} == fields


@pytest.fixture(scope="module")
def made(model):
    sae, tokens = reference_sae("mutual_choice"), story_tokens(8_192, 64, source="books")
    return sae, feature_evidence(sae, model, tokens, progress=False)


def test_every_field_that_is_read_is_there_and_of_its_type(made, model, tmp_path):
    sae, evidence = made
    names = {"model_id": "stories", "layer": 1, "sae_set": "res-mine", "dataset": "books"}
    [path] = neuronpedia_batches(sae, model, evidence, [3, 7], tmp_path / "new", **names)
    assert path.name == "batch-0.json"
    batch = json.loads(path.read_text())
    check(batch, BATCH)
    assert [one["feature_index"] for one in batch["features"]] == [3, 7]
    for one in batch["features"]:
        check(one, FEATURE)
        for activation in one["activations"]:
            check(activation, ACTIVATION)
            assert len(activation["tokens"]) == len(activation["values"]) > 0
        assert one["n_tokens_in_prompt"] == 64 and one["n_prompts_total"] == len(evidence.tokens)


def test_what_it_says_is_what_was_found(made, model):
    sae, evidence = made
    feature = int(evidence.counts.topk(30).indices[-1])
    [page] = feature_pages(evidence, sae, model, [feature])
    found = dashboard(page, sae.W_dec[feature].detach(), words_of(model))
    assert found["frac_nonzero"] == pytest.approx(float(evidence.density[feature]))
    largest = max(max(one["values"]) for one in found["activations"] if one["bin_min"] == -1)
    assert largest == pytest.approx(float(evidence.largest[feature]), abs=1e-3)
    assert found["pos_str"] == words_of(model)([token for token, _ in page.raised])
    assert found["pos_values"] == sorted(found["pos_values"], reverse=True)
    assert (
        sum(found["freq_hist_data_bar_heights"]) == len(page.sampled)
        and len(found["freq_hist_data_bar_values"]) == BINS
    )
    row = sae.W_dec[feature].detach()
    assert found["neuron_alignment_indices"][0] == int(row.abs().argmax())
    inside = [one for one in found["activations"] if one["bin_min"] != -1]
    assert inside and all(one["bin_min"] <= max(one["values"]) for one in inside)
    bounds = {(one["bin_min"], one["bin_max"], one["bin_contains"]) for one in inside}
    assert len(bounds) > 1 and sum(share for *_, share in bounds) == pytest.approx(1)


def test_many_features_are_several_files_and_silent_ones_are_written_too(made, model, tmp_path, monkeypatch):
    sae, evidence = made
    monkeypatch.setattr("sae_tutorial.figures.neuronpedia.PER_FILE", 2)
    silent = int(evidence.counts.argmin())
    names = {"model_id": "stories", "layer": 1, "sae_set": "res-mine"}
    paths = neuronpedia_batches(sae, model, evidence, [3, 7, silent], tmp_path, **names)
    assert [path.name for path in paths] == ["batch-0.json", "batch-1.json"]
    [one] = json.loads(paths[1].read_text())["features"]
    if not evidence.counts[silent]:
        assert one["activations"] == [] and one["frac_nonzero"] == 0
    with pytest.raises(ValueError, match="must be between 0 and"):
        neuronpedia_batches(sae, model, evidence, [sae.config.d_sae], tmp_path, **names)


def test_a_feature_that_is_never_active_has_empty_lists(made, model):
    sae, evidence = made
    [page] = feature_pages(evidence, sae, model, [3])
    from dataclasses import replace

    silent = replace(page, strongest=[], groups=[], sampled=torch.zeros(0), density=0.0, largest=0.0)
    found = dashboard(silent, sae.W_dec[3].detach(), words_of(model))
    assert found["activations"] == found["freq_hist_data_bar_values"] == []
