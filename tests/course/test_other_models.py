"""Notebooks 00 and 01 with another model of GPT-2's architecture: the same cells run, whatever is true of it."""

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


@pytest.mark.parametrize("name", ["00_start_here", "01_transformers"])
def test_the_same_cells_run(name, other, monkeypatch):
    import torch

    monkeypatch.setenv("SAE_TUTORIAL_SCALE", "smoke")
    cells = [c for c in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    variables = {}
    gradients = torch.is_grad_enabled()
    try:
        exec("from sae_tutorial.course import notebook", variables)
        for cell in cells[1:]:  # the first installs and sets up
            exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), variables)
            if "parameters" in cell.metadata.get("tags", []):
                variables |= {"MODEL": str(other[0]), "TEXT": str(other[1])}
    finally:
        torch.set_grad_enabled(gradients)
    assert variables["model"].cfg.d_model == 64
