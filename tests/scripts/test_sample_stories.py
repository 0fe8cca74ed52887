import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sample_stories
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_tutorial.activations.shipped_text import unpack_rows

MARK = 7


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = dict(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=12)
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    return GPT2LMHeadModel(config).eval()


def test_writer_computes_what_the_model_computes(model):
    tokens_BS = torch.randint(40, (5, 12))
    writer = sample_stories.Writer(model, batch=5)
    with torch.inference_mode():
        logits = torch.stack([writer.logits(tokens_BS[:, i], i) for i in range(12)], dim=1)
        torch.testing.assert_close(logits, model(tokens_BS).logits, atol=1e-4, rtol=1e-4)


def test_draw_has_the_right_probabilities():
    logits = torch.tensor([0.0, 1.0, -2.0, 3.0, -30.0])
    drawn = sample_stories.draw(logits.expand(40_000, 5), torch.Generator().manual_seed(0))
    frequencies = torch.bincount(drawn, minlength=5) / 40_000
    torch.testing.assert_close(frequencies, logits.softmax(0), atol=0.01, rtol=0)


def run(monkeypatch, model, out, *options):
    monkeypatch.setattr(sample_stories.GPT2LMHeadModel, "from_pretrained", lambda *args, **kwargs: model)
    tokenizer = SimpleNamespace(from_pretrained=lambda folder: lambda text: SimpleNamespace(input_ids=[MARK]))
    monkeypatch.setattr(sample_stories, "AutoTokenizer", tokenizer)
    argv = ["sample_stories.py", "--out", str(out), "--tokens", "100", "--batch", "4", "--device", "cpu", *options]
    monkeypatch.setattr(sys, "argv", argv)
    sample_stories.main()


def test_stopped_run_ends_like_an_unbroken_one(model, monkeypatch, tmp_path):
    run(monkeypatch, model, tmp_path / "whole")
    sample_rows = sample_stories.sample_rows

    def stopped(writer, mark, seed, index, bar):
        if index == 1:
            raise KeyboardInterrupt
        return sample_rows(writer, mark, seed, index, bar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sample_stories, "sample_rows", stopped)
        run(patch, model, tmp_path / "broken")
    assert [p.name for p in sorted((tmp_path / "broken.parts").iterdir())] == ["00000.npy", "run.txt"]
    with pytest.raises(SystemExit, match="another run"):
        run(monkeypatch, model, tmp_path / "broken", "--seed", "1")
    run(monkeypatch, model, tmp_path / "broken")
    assert not (tmp_path / "broken.parts").exists()
    whole = unpack_rows(tmp_path / "whole")
    assert whole.shape == (12, 11)  # three batches of four rows, at least 100 tokens
    assert np.array_equal(unpack_rows(tmp_path / "broken"), whole)
    run(monkeypatch, model, tmp_path / "other", "--seed", "1")
    assert not np.array_equal(unpack_rows(tmp_path / "other"), whole)


def test_rows_are_what_the_model_writes_after_the_mark(model):
    """The first token of a row has the probabilities that follow `<|endoftext|>` and the mark; both are left out."""
    with sample_stories.tqdm(disable=True) as bar:
        rows = sample_stories.sample_rows(sample_stories.Writer(model, batch=4000), MARK, 0, 0, bar)
    assert rows.shape == (4000, 11)
    with torch.inference_mode():
        expected = model(torch.tensor([[0, MARK]])).logits[0, -1].softmax(-1)
    frequencies = torch.bincount(torch.from_numpy(rows[:, 0].astype(int)), minlength=40) / 4000
    torch.testing.assert_close(frequencies, expected, atol=0.03, rtol=0)


def test_a_story_inside_a_row_is_marked_as_well(model):
    model.lm_head.weight.data[0] += 1.0  # so that stories end
    with sample_stories.tqdm(disable=True) as bar:
        rows = sample_stories.sample_rows(sample_stories.Writer(model, batch=500), MARK, 0, 0, bar)
    after_end = rows[:, 1:][rows[:, :-1] == 0]
    assert len(after_end) > 100 and (after_end == MARK).all()
