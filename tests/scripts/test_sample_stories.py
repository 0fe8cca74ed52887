import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sample_stories
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_tutorial.activations.shipped_text import unpack_rows

MARK = 7
STARTS = torch.tensor([[MARK, 11, 12, 13], [MARK, 21, -1, -1]])  # a mark and a beginning; -1: it is over


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
    monkeypatch.setattr(sample_stories, "beginnings", lambda run, tokenizer: STARTS)
    argv = [
        "sample_stories.py",
        "--run",
        ".",
        "--out",
        str(out),
        "--tokens",
        "100",
        "--batch",
        "4",
        "--device",
        "cpu",
        *options,
    ]
    monkeypatch.setattr(sys, "argv", argv)
    sample_stories.main()


def test_stopped_run_ends_like_an_unbroken_one(model, monkeypatch, tmp_path):
    run(monkeypatch, model, tmp_path / "whole")
    sample_rows = sample_stories.sample_rows

    def stopped(writer, starts, seed, index, bar):
        if index == 1:
            raise KeyboardInterrupt
        return sample_rows(writer, starts, seed, index, bar)

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


def test_every_story_has_a_beginning_and_then_what_the_model_writes(model):
    """Also a story inside a row. The first free token has the model's probabilities; the first mark is left out."""
    with sample_stories.tqdm(disable=True) as bar:
        rows = sample_stories.sample_rows(sample_stories.Writer(model, batch=4000), STARTS, 0, 0, bar)
    assert rows.shape == (4000, 11)
    long = rows[:, 0] == 11
    assert abs(long.mean() - 0.5) < 0.05 and (rows[long, 1:3] == [12, 13]).all() and (rows[~long, 0] == 21).all()
    inside = np.argwhere(rows[:, :-3] == 0)
    assert len(inside) > 100
    after = rows[inside[:, 0, None], inside[:, 1, None] + [1, 2]]
    assert (after[:, 0] == MARK).all() and np.isin(after[:, 1], (11, 21)).all()
    with torch.inference_mode():
        logits = model(torch.tensor([[0, MARK, 21]])).logits[0, -1]
    found = np.bincount(rows[~long, 1], minlength=40) / (~long).sum()
    torch.testing.assert_close(torch.from_numpy(found).float(), logits.softmax(0), atol=0.03, rtol=0)


def test_beginnings_are_the_first_words_of_paragraphs_and_openings(tmp_path):
    ids = {sample_stories.STORY: [MARK], "\n": [1], sample_stories.END: [0]}
    tokenizer = lambda text: SimpleNamespace(input_ids=ids.get(text, [30, 31]))  # noqa: E731
    paragraphs = [[n, *range(n + 1, n + 10), 1] for n in (100, 200, 300)]
    short = [400, 401, 1]  # the next line is not part of a beginning
    np.save(tmp_path / "books_train.npy", np.array([0, *sum(paragraphs, []), *short, *paragraphs[0]], dtype=np.uint16))
    found = sample_stories.beginnings(tmp_path, tokenizer, n=40)
    assert found.shape == (40, 9) and (found[:, 0] == MARK).all()
    assert (found[:10, 1:] == torch.tensor([30, 31, *[-1] * 6])).all(), "one in four is an opening"
    books = found[10:, 1:]
    assert set(books[:, 0].tolist()) == {100, 200, 300} and (books.diff(dim=1) == 1).all()


def test_gibberish_is_written_again(model, monkeypatch):
    """Rows whose loss is high are replaced by the next rows, until none is left."""
    monkeypatch.setattr(sample_stories, "WINDOW", 4)
    rows = np.random.default_rng(0).integers(1, 40, (50, 11)).astype(np.uint16)
    with torch.inference_mode():
        ids = torch.from_numpy(np.pad(rows.astype(np.int64), ((0, 0), (1, 0))))
        log_p = model(ids).logits.log_softmax(-1)
    losses = np.array([[-float(log_p[n, i, ids[n, i + 1]]) for i in range(11)] for n in range(50)])
    worst = np.array([max(row[i : i + 4].mean() for i in range(8)) for row in losses])
    level = float(np.median(worst))  # of 50 rows: between two of them
    monkeypatch.setattr(sample_stories, "GIBBERISH", level)
    bad = sample_stories.is_gibberish(model, rows)
    assert bad.tolist() == (worst > level).tolist() and bad.sum() == 25
    asked = []

    def sample(index, bar):
        asked.append(index)
        return rows[~bad][:3]

    found = sample_stories.write_again(model, rows, sample, first=7)
    assert not sample_stories.is_gibberish(model, found).any() and (found[~bad] == rows[~bad]).all()
    assert asked == list(range(7, 7 + -(-bad.sum() // 3)))
