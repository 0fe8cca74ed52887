"""Notebooks with another model than the embedded one: the same cells run, whatever is true of it."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """(model folder, text file): a random GPT-2 with 3 layers of 4 heads, and something for it to read."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from sae_tutorial import story_tokens
    from sae_tutorial.activations.language_model import STORIES

    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_embd": 64, "n_head": 4, "n_positions": 160, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    text = folder / "stories.txt"
    text.write_text("".join(tokenizer.batch_decode(story_tokens(40_000, seed=5))), encoding="utf-8")
    return folder, text


def run_with(name, parameters):
    """The variables that are left when all cells of a notebook have run at smoke scale, with these parameters."""
    import torch

    cells = [c for c in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    variables = {}
    gradients = torch.is_grad_enabled()
    try:
        exec("from sae_tutorial.course import notebook", variables)
        for cell in cells[1:]:  # the first installs and sets up
            exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), variables)
            if "parameters" in cell.metadata.get("tags", []):
                variables |= parameters
    finally:
        torch.set_grad_enabled(gradients)
    return variables


@pytest.fixture(autouse=True)
def smoke(monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_SCALE", "smoke")


@pytest.mark.parametrize("name", ["00_start_here", "01_transformers"])
def test_a_model_of_the_same_architecture(name, other):
    variables = run_with(name, {"MODEL": str(other[0]), "TEXT": str(other[1])})
    assert variables["model"].cfg.d_model == 64


# A pass of SmolLM2 takes thirty times as long as one of the embedded model: still fewer of them than at smoke scale.
SMOLLM2 = {
    "01_transformers": {"N_CONTROLS": 2, "N_TOKENS": 512, "N_REPEATS": 2, "LENGTH": 16},
    "05_sparse_allocation": {},
    "08_ioi_circuit": {"N_TRIED": 6, "N_LAYERS": 3, "N_SUBSETS": 1, "N_FRESH": 12, "N_MEANS": 12},
    "09_ioi_features": {"N_LAYERS": 2, "N_SENTENCES": 6, "SIZES": (8, 0)},
    "10_reading_features": {"N_TOKENS": 1_024, "N_FEATURES": 2, "N_RANDOM": 2, "N_SHORT": 1},
    "11_dark_matter": {"N_ROWS": 8, "N_READ": 2},
    "12_gradient_saes": {"N_ROWS": 2, "N_REMOVED": 3, "SAMPLES": (1,)},
    "13_attention_outputs": {"CONTEXT": 32, "N_TRAIN": 10, "N_READ": 24, "STEPS": 3, "N_SENTENCES": 12, "N_REPEATS": 1},
    "14_discrete_circuits": {"N": 2, "N_CIRCUIT": 2, "N_TRIED": 3, "N_TOYS": 1, "STEPS": 3},
    "16_judged_by_tasks": {"N_TOKENS": 9_000, "N_TRAIN": 40, "N_TEST": 20, "N_SENTENCES": 96},
}
MINUTES = ("01_transformers", "05_sparse_allocation", "08_ioi_circuit", "09_ioi_features", "14_discrete_circuits")


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory):
    """(model folder, text file): the first six layers of SmolLM2, with its tokenizer, its key-value heads that query
    heads share, its norms and its rotary positions. It writes nonsense, at a fifth of the price."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sae_tutorial import story_tokens
    from sae_tutorial.activations.smollm2 import smollm2_folder

    folder = tmp_path_factory.mktemp("six_layers")
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), num_hidden_layers=6)
    model.save_pretrained(folder)
    text = folder / "text.txt"
    text.write_text("".join(tokenizer.batch_decode(story_tokens(40_000, model="smollm2")[:, 1:])), encoding="utf-8")
    return folder, text


@pytest.mark.parametrize("name", MINUTES)
def test_the_architecture_of_smollm2(name, six_layers):
    """No number in the text is asserted of it, and every law is."""
    parameters = {"MODEL": str(six_layers[0]), "TEXT": str(six_layers[1])} | SMOLLM2[name]
    assert run_with(name, parameters)["model"].cfg.n_layers == 6


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in MINUTES else ()) for n in SMOLLM2])
def test_smollm2(name):
    assert run_with(name, {"MODEL": "smollm2"} | SMOLLM2[name])["model"].cfg.n_layers == 30


def test_transcoders_of_a_model_that_none_are_shipped_for(other):
    """SmolLM2 does not write a year as two tokens; what is asked here needs that."""
    parameters = {"MODEL": str(other[0]), "TEXT": str(other[1]), "CONTEXT": 64, "N_TRAIN": 60}
    variables = run_with("15_transcoders", parameters)
    assert [len(one.W_dec) for one in variables["transcoders"]] == [256] * 3
