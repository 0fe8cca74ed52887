"""Rows of token ids that the package ships: what its models wrote, and books."""

import numpy as np
import pytest
import torch

from sae_tutorial import story_titles, story_tokens
from sae_tutorial.activations import shipped_text
from sae_tutorial.activations.forward import fused_forward
from sae_tutorial.course.transformers.measures import next_token_losses

VOCABULARY = {"stories": 5_000, "smollm2": 49_152}


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """100 samples of 255 tokens, all tokens different, in place of the stories."""
    samples = np.arange(1, 100 * 255 + 1).reshape(100, 255)
    folder = tmp_path / "stories"
    folder.mkdir()
    shipped_text.pack_rows(samples, folder / "model.npy.xz")
    shipped_text.pack_rows(samples[:7] + 30_000, folder / "books.npy.xz")
    (folder / "titles.json").write_text('[["Alice", 3], ["Heidi", 4]]')
    monkeypatch.setattr(shipped_text, "TEXTS", tmp_path)
    return samples


# ---- what is shipped


@pytest.mark.parametrize("name", shipped_text.TEXT_OF)
def test_it_is_much_and_small(name, request):
    least = {("stories", "model"): 2_000_000, ("stories", "books"): 80_000}
    size = 0
    for source in shipped_text.SOURCES:
        samples = shipped_text.shipped_rows(name, source)
        assert samples.size >= least.get((name, source), 500_000)
        assert samples.shape[1] == 255 and samples.dtype == np.uint16 and samples.max() < VOCABULARY[name]
        packed = (shipped_text.TEXTS / name / f"{source}.npy.xz").stat().st_size
        assert 8 * packed / samples.size < 13, "bits per token; 16 unpacked"
        size += packed
    assert size <= 4e6


@pytest.mark.parametrize("source", shipped_text.SOURCES)
@pytest.mark.parametrize("name, fixture", [("stories", "model"), ("smollm2", "smol")])
def test_it_is_text(name, fixture, source, request):
    tokenizer = request.getfixturevalue(fixture).tokenizer
    rows = story_tokens(20 * 256, 256, source=source, model=name)
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    read = tokenizer.batch_decode(rows[:, 1:])
    common = sum(row.count(" the ") + row.count(" and ") for row in read)
    assert common > 20 * 4, "English has more of these"
    if name == "smollm2":  # neither chats nor ends of texts
        assert not np.isin(rows[:, 1:], tokenizer.all_special_ids).any()


def strangest(model, rows):
    """The largest mean loss of 32 tokens in a row, in nats."""
    with torch.no_grad(), fused_forward(model):
        losses = next_token_losses(model(rows, return_type="logits", use_cache=False), rows)
    return float(losses.unfold(1, 32, 1).mean(-1).max())


KINDS = [
    ("stories", "model", "model"),
    ("stories", "model", "books"),
    ("smollm2", "smol", "model"),
    ("smollm2", "smol", "books"),
]


@pytest.mark.parametrize("name, fixture, source", KINDS)
def test_none_of_it_is_gibberish(name, fixture, source, request):
    """Random tokens have a loss of 8.5 nats for the embedded model, and of 10.8 for SmolLM2."""
    model = request.getfixturevalue(fixture)
    rows = story_tokens((256 if name == "stories" else 4) * 256, 256, seed=1, source=source, model=name)
    assert max(strangest(model, part) for part in rows.split(16)) < 7


@pytest.mark.slow
@pytest.mark.parametrize("name, fixture, source", KINDS)
def test_none_of_all_of_it_is_gibberish(name, fixture, source, request):
    model = request.getfixturevalue(fixture)
    n = len(shipped_text.shipped_rows(name, source))
    rows = story_tokens(n * 256, 256, source=source, model=name)
    assert max(strangest(model, part) for part in rows.split(16)) < 7


def test_every_row_has_the_title_of_what_it_is_from():
    for name in shipped_text.TEXT_OF:
        n = 50 * 64
        titles = story_titles(n, 64, source="books", model=name)
        assert len(titles) == 50 and len(set(titles)) > 8 and all("(" in title for title in titles)
        assert story_titles(n, 64, model=name) == ("model",) * 50
        assert 0 < story_titles(n, 64, source=None, model=name).count("model") < 51


def test_titles_are_those_of_the_rows(shipped):
    rows, titles = (of(100 * 64, 64, source=None) for of in (story_tokens, story_titles))
    for row, title in zip(rows.tolist(), titles):
        sample = (row[1] - 30_001) // 255  # of the books: they have the large numbers
        assert title == ("model" if row[1] <= 30_000 else "Alice" if sample < 3 else "Heidi")
    assert {"model", "Alice", "Heidi"} >= set(titles)


def test_a_source_or_model_that_there_is_not(shipped):
    with pytest.raises(ValueError, match="source='tales': text is shipped for 'model', 'books', None"):
        story_tokens(1000, source="tales")
    with pytest.raises(ValueError, match="model='gpt2': text is shipped for 'stories', 'smollm2'; see text_tokens"):
        story_tokens(1000, model="gpt2")


def test_unpacked_once_and_read_only(shipped):
    samples = shipped_text.shipped_rows("stories", "model")
    assert samples is shipped_text.shipped_rows("stories", "model")
    with pytest.raises(ValueError, match="read-only"):
        samples[0, 0] = 1


@pytest.mark.parametrize("context", [2, 64, 100, 128, 129, 255, 256])
def test_rows_are_pieces_of_samples(shipped, context):
    rows = story_tokens(10 * context - 1, context)
    assert rows.shape == (10, context) and rows.dtype == torch.int64
    assert (rows[:, 0] == shipped_text.TEXT_OF["stories"]).all()
    body = rows[:, 1:]
    assert (body.diff(dim=1) == 1).all(), "consecutive tokens of the source"
    assert torch.equal((body[:, 0] - 1) // 255, (body[:, -1] - 1) // 255), "no row spans two samples"
    assert len(body[:, 0].unique()) == 10, "no row twice"


def test_everything_that_is_shipped_can_be_had(shipped):
    rows = story_tokens(100 * 256, 256)
    assert torch.equal(rows[:, 1:].flatten().sort().values, torch.arange(1, 100 * 255 + 1))
    assert story_tokens(400 * 64, 64).shape == (400, 64)  # four rows of 63 to a sample


def test_seed_decides(shipped):
    assert torch.equal(story_tokens(5000, 64, seed=1), story_tokens(5000, 64, seed=1))
    assert not torch.equal(story_tokens(5000, 64, seed=1), story_tokens(5000, 64, seed=2))
    short, long = story_tokens(1000, 50, seed=3), story_tokens(9000, 50, seed=3)
    assert torch.equal(long[: len(short)], short), "what follows the training rows is held out"


def test_story_errors_name_value_and_limit(shipped):
    with pytest.raises(ValueError, match=r"n_tokens=25,601.*25,600 tokens.*rows of 256"):
        story_tokens(25_601, 256)
    with pytest.raises(ValueError, match=r"n_tokens=100,000.*25,600 tokens.*rows of 64"):
        story_tokens(100_000, 64)
    for context in (257, 1, 0):
        with pytest.raises(ValueError, match=f"context={context}.*samples of 256"):
            story_tokens(1000, context)


@pytest.mark.parametrize("name", ["n_tokens", "context", "seed"])
def test_story_arguments_that_are_no_whole_numbers_are_named(shipped, name):
    for wrong in (2.5, "x", None, True, [100]):
        with pytest.raises(TypeError, match=f"{name} must be a (whole )?number"):
            story_tokens(**{"n_tokens": 1000, name: wrong})
    least = 1 if name == "n_tokens" else 0
    with pytest.raises(ValueError, match=f"{name} must be a whole number, {least} or more, got {least - 1}"):
        story_tokens(**{"n_tokens": 1000, name: least - 1})


def test_numbers_of_numpy_and_torch_are_numbers(shipped):
    rows = story_tokens(np.int64(1000), torch.tensor(50), np.array(3))
    assert torch.equal(rows, story_tokens(1000, 50, 3))


def test_packing_is_lossless_and_compact(tmp_path):
    """Zipf-distributed ids, the hardest case: within 15% of their entropy."""
    weights = 1 / np.arange(10, 5010)
    p = weights / weights.sum()
    samples = np.random.default_rng(0).choice(5000, size=(400, 255), p=p)
    shipped_text.pack_rows(samples, tmp_path / "packed")
    assert np.array_equal(shipped_text.unpack_rows(tmp_path / "packed"), samples)
    entropy = -(p * np.log2(p)).sum()
    assert 8 * (tmp_path / "packed").stat().st_size / samples.size < 1.15 * entropy


@pytest.mark.parametrize("samples", [np.array([[70_000]]), np.array([[-1]]), np.array([1]), np.zeros((0, 5), int)])
def test_packing_refuses_what_does_not_fit(samples, tmp_path):
    with pytest.raises(ValueError, match="samples must be"):
        shipped_text.pack_rows(samples, tmp_path / "packed")
