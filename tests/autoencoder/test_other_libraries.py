"""Folders written by the real SAELens, sparsify and dictionary_learning: we compute what they computed.

`scripts/make_peer_fixtures.py` had them write these, with inputs, codes and reconstructions in `example.safetensors`.
"""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from sae_tutorial import load_sae, save_sae
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.saving import load_metadata

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
FOLDERS = sorted(path.parent for path in PEERS.glob("*/*/example.safetensors"))
UNSET = PEERS / "dictionary_learning" / "batchtopk_threshold_unset"
RULES = {
    "saelens/topk": "token_choice",
    "saelens/topk_rescaled": "token_choice",
    "saelens/batchtopk": "jumprelu",
    "saelens/matryoshka": "jumprelu",
    "saelens/gated": "gated",
    "sparsify/transcoder": "token_choice",
    "dictionary_learning/batchtopk": "mutual_choice",
    "dictionary_learning/matryoshka": "matryoshka",
    "dictionary_learning/jumprelu": "jumprelu",
}


def test_the_fixtures_are_there():
    assert len(FOLDERS) >= 20 and {path.parent.name for path in FOLDERS} == {path.name for path in PEERS.glob("*/")}


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f != UNSET], ids=lambda f: f"{f.parent.name}/{f.name}")
def test_codes_and_reconstructions_are_theirs(folder, tmp_path):
    example = load_file(folder / "example.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = load_sae(folder)
    assert_close(sae.encode(example["x"]).to_dense(), example["codes"], rtol=1e-5, atol=1e-5)
    assert_close(sae(example["x"]), example["x_hat"], rtol=1e-5, atol=1e-5)
    assert example["codes"].count_nonzero() > 20
    assert sae.config.rule == RULES.get(f"{folder.parent.name}/{folder.name}", sae.config.rule)
    again = load_sae(save_sae(sae, tmp_path))
    assert torch.equal(again(example["x"]), sae(example["x"]))


def test_a_threshold_that_was_never_set_is_not_taken_for_a_relu():
    example = load_file(UNSET / "example.safetensors")
    with pytest.warns(UserWarning, match="BatchTopKSAE has no inference threshold.*measure_thresholds"):
        sae = load_sae(UNSET)
    with pytest.raises(ValueError, match="no inference threshold yet"):
        sae.encode(example["x"])
    assert len(sae.encode(example["x"], batch_rule=True)) <= sae.config.k * len(example["x"])


def test_saelens_checkpoints_from_the_middle_of_a_training_say_what_to_do():
    with pytest.raises(ValueError, match="save_inference_model"):
        load_sae(PEERS / "saelens" / "in_the_middle_of_training")


def test_metadata_says_what_the_others_say():
    assert load_metadata(PEERS / "saelens" / "topk")["sae_lens_version"].startswith("6")
    assert load_metadata(PEERS / "dictionary_learning" / "topk")["submodule_name"] == "resid"
    assert load_metadata(PEERS / "sparsify" / "topk") == {}


def test_saelens_reads_our_folders():
    """Recorded by the script, in SAELens's own environment: every rule, to 1e-5."""
    found = json.loads((PEERS / "saelens_reads_ours.json").read_text())["largest difference"]
    assert set(BUDGET_RULES + PENALTY_RULES) <= set(found)
    for name, result in found.items():
        assert result["reconstruction"] < 1e-5 and result["codes"] < 1e-5, name
    assert found["mutual_choice"]["architecture"] == found["feature_choice"]["architecture"] == "jumprelu"
