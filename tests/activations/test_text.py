"""Rows of token ids: from files, and from data sets that stand in for the hub."""

import gzip
import json
import lzma
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sae_tutorial import text_tokens
from sae_tutorial.activations import hub, text
from sae_tutorial.activations.language_model import STORIES

END = "<|endoftext|>"
TALES = [f"Once upon a time there was a fox number {i}.\n\nIt ran, and ran.\nThen it slept." for i in range(40)]


@pytest.fixture(scope="module")
def model():
    """All that text_tokens asks of a model."""
    return SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(STORIES), cfg=SimpleNamespace(n_ctx=256))


# ---- files


def expected_ids(model, documents):
    return [i for d in documents for i in [*model.tokenizer(d)["input_ids"], model.tokenizer.eos_token_id]]


def assert_rows_hold(rows, model, documents, context):
    ids = expected_ids(model, documents)
    assert (rows[:, 0] == model.tokenizer.bos_token_id).all()
    assert rows.shape[1] == context and rows.dtype == torch.int64
    assert rows[:, 1:].flatten().tolist() == ids[: rows[:, 1:].numel()]


def written(path, documents):
    if ".jsonl" in path.name:
        content = "\n".join(json.dumps({"text": d, "id": i}) for i, d in enumerate(documents)) + "\n\n"
    else:
        content = f"\n{END}\n".join(documents) + "\n"
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.xz", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "no_suffix"])
def test_every_kind_of_file(name, model, tmp_path):
    rows = text_tokens(written(tmp_path / name, TALES), model, 32)
    assert_rows_hold(rows, model, TALES, 32)
    assert len(rows) == len(expected_ids(model, TALES)) // 31


def test_documents_keep_their_blank_lines(model, tmp_path):
    rows = text_tokens(written(tmp_path / "a.txt", TALES[:1]), model, 4)
    assert "\n\nIt ran" in model.tokenizer.decode(rows[:, 1:].flatten())


def test_limit_counts_tokens_with_the_beginnings(model, tmp_path):
    path = str(written(tmp_path / "a.txt", TALES))
    assert text_tokens(path, model, 32, limit=96).shape == (3, 32)
    assert text_tokens(path, model, 32, limit=127).shape == (3, 32)
    assert torch.equal(text_tokens(path, model, 32, limit=32), text_tokens(path, model, 32)[:1])


@pytest.mark.parametrize("piece", [1, 30, 100])
def test_long_documents_are_read_in_pieces_that_do_not_show(piece, model, tmp_path, monkeypatch):
    path = written(tmp_path / "a.txt", ["\n\n".join(TALES), "Short.", "A line\n  \n indented \n\n\nand more.\n" * 9])
    whole = text_tokens(path, model, 16)
    monkeypatch.setattr(text, "PIECE", piece)
    assert len(list(text._file_pieces(path, "path"))) > 3
    assert torch.equal(text_tokens(path, model, 16), whole)


@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_any_text_give_the_tokens_of_the_whole(seed, model, tmp_path, monkeypatch):
    """Words, runs of white space, marks and line breaks in any order, cut at any place; in a .jsonl as in a .txt."""
    generator = np.random.default_rng(seed)
    bits = ["the", " cat", "  ", "\n", "\n\n", "\t", " ", ".", " it's", "naïve", " 1234", "…", " \n", "(", "🦊"]
    documents = ["x" + "".join(generator.choice(bits, size=300)) + "x" for _ in range(5)]
    for name in ("a.txt", "a.jsonl"):
        path = written(tmp_path / name, documents)
        for piece in (1, 7, 50, 10_000):
            monkeypatch.setattr(text, "PIECE", piece)
            assert_rows_hold(text_tokens(path, model, 8), model, documents, 8)


@pytest.mark.parametrize("piece", [3, 64])
def test_a_text_without_spaces_is_cut_and_nothing_lost(piece, model, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "PIECE", piece)
    monkeypatch.setattr(text, "LONGEST_WORD", 100)
    documents = ["abcdefghij" * 200, "<|endof" * 60, "short"]
    rows = text_tokens(written(tmp_path / "a.txt", documents), model, 2)
    assert model.tokenizer.decode(rows[:, 1:].flatten()) == END.join(documents) + END
    assert max(len(piece) for piece, _ in text._file_pieces(tmp_path / "a.txt", "path")) <= 100 + piece + len(END)


def test_no_more_is_read_and_tokenised_than_the_limit_asks(model, tmp_path):
    """A file of one line, and a line of a .jsonl: one piece goes to the tokenizer, whatever their size."""
    asked = []

    def tokenizer(text, **options):
        asked.append(len(text))
        return model.tokenizer(text, **options)

    tokenizer.bos_token_id = tokenizer.eos_token_id = model.tokenizer.eos_token_id
    spy = SimpleNamespace(tokenizer=tokenizer, cfg=model.cfg)
    line = "the cat sat on the mat. " * 100_000
    for name in ("a.txt", "a.jsonl", "a.txt.xz"):
        asked.clear()
        path = written(tmp_path / name, [line])
        assert text_tokens(path, spy, 256, limit=256).shape == (1, 256)
        assert len(asked) == 1 and asked[0] < 2 * text.PIECE


GROWTH = """
import resource, sys
from types import SimpleNamespace
from transformers import AutoTokenizer
from sae_tutorial import text_tokens
from sae_tutorial.activations.language_model import STORIES
model = SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(STORIES), cfg=SimpleNamespace(n_ctx=256))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = (text_tokens(sys.argv[1], model, 256, limit=256), peak())[1]
text_tokens(sys.argv[2], model, 256, limit=None if sys.argv[3] == "all" else int(sys.argv[3]))
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("line.txt", "the cat sat on the mat. " * 833_000, "256"),  # 20 MB
        ("bomb.txt.xz", "a" * 60_000_000, "256"),
        ("bomb.jsonl.gz", "a" * 120_000_000, "256"),
        ("line.txt", "the cat sat on the mat. " * 200_000, "all"),
    ],
)
def test_memory_does_not_grow_with_the_length_of_a_line(name, text, limit, tmp_path):
    """Peak memory of a fresh process, in MiB above what a short text takes."""
    small = written(tmp_path / "small.txt", ["the cat sat on the mat. " * 40_000])
    opener = {".xz": lambda p: lzma.open(p, "wt", preset=0), ".gz": lambda p: gzip.open(p, "wt", 1)}
    with opener.get((tmp_path / name).suffix, lambda p: open(p, "w"))(tmp_path / name) as file:
        file.write(text)
    command = [sys.executable, "-c", GROWTH, str(small), str(tmp_path / name), limit]
    done = subprocess.run(command, capture_output=True, text=True)
    if name.startswith("bomb.jsonl"):
        assert "line 1: longer than 33,554,432 characters" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) < 150


def test_reading_stops_at_the_limit(model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes((f"{TALES[0]}{END}" * 2000).encode() + b"\n" + b"line\n" * 100_000 + b"\xff\xff")  # never reached
    assert text_tokens(path, model, 32, limit=64).shape == (2, 32)


def test_file_errors(model, tmp_path):
    path = written(tmp_path / "a.txt", TALES[:1])
    for missing in (tmp_path / "b.txt", "b.txt", "./b", "folder/b.jsonl.gz"):
        with pytest.raises(FileNotFoundError, match="path_or_dataset=.*there is no such file"):
            text_tokens(missing, model, 16)
    with pytest.raises(FileNotFoundError, match="there is no such file"):  # a Path is no name on the hub
        text_tokens(tmp_path.relative_to(tmp_path.parent) / "stories", model, 16, limit=64)
    with pytest.raises(FileNotFoundError, match="my/own/stories"):  # nor can this be one
        text_tokens("my/own/stories", model, 16, limit=64)
    with pytest.raises(ValueError, match="limit=15.*context=16"):
        text_tokens(path, model, 16, limit=15)
    for context in (1, 257):
        with pytest.raises(ValueError, match=f"context={context}.*2 to 256"):
            text_tokens(path, model, context)
    with pytest.raises(ValueError, match="holds only .* tokens; a row takes 255"):
        text_tokens(path, model, 256)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="holds only 0 tokens"):
        text_tokens(tmp_path / "empty.txt", model, 16)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00" * 99)
    with pytest.raises(ValueError, match="not UTF-8"):
        text_tokens(tmp_path / "binary.txt", model, 16)
    with pytest.raises(ValueError, match="no tokenizer"):
        text_tokens(path, SimpleNamespace(tokenizer=None, cfg=model.cfg), 16)
    with pytest.raises(ValueError, match="/dev/null' is neither a file with text nor a folder"):
        text_tokens("/dev/null", model, 16)


@pytest.mark.parametrize("name", ["context", "limit"])
@pytest.mark.parametrize("wrong", [20.5, "x", True, [20]])
def test_numbers_that_are_none_are_named(name, wrong, model, tmp_path):
    path = written(tmp_path / "a.txt", TALES)
    with pytest.raises(TypeError, match=f"{name} must be a (whole )?number"):
        text_tokens(path, model, **{"context": 16, name: wrong})


@pytest.mark.parametrize("wrong", [None, 3, ["a.txt"], ""])
def test_paths_that_are_none_are_named(wrong, model):
    with pytest.raises(TypeError, match="path_or_dataset must be the path of a file or folder, got"):
        text_tokens(wrong, model, 16, limit=64)


def test_a_tilde_is_the_home_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = written(tmp_path / "a.txt", TALES)
    assert torch.equal(text_tokens("~/a.txt", model, 16), text_tokens(path, model, 16))
    with pytest.raises(FileNotFoundError, match="'~/b.txt': there is no such file"):
        text_tokens("~/b.txt", model, 16)


@pytest.mark.parametrize("line", ["not json", '{"story": "a"}', '["a"]'])
def test_bad_json_lines_are_named(line, model, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match='line 2.*"text"'):
        text_tokens(tmp_path / "a.jsonl", model, 16)


@pytest.mark.parametrize("value", ["null", "5", '["a"]'])
def test_text_that_is_no_string_is_named(value, model, tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": ' + value + "}\n")
    with pytest.raises(ValueError, match=r'a.jsonl.*line 2: "text" is .*must be a string'):
        text_tokens(tmp_path / "a.jsonl", model, 16)
    fake_datasets(monkeypatch, lambda name, **options: [{"text": "fine"}, {"text": json.loads(value)}])
    with pytest.raises(ValueError, match=r"path_or_dataset='some/thing', row 1: \"text\" is "):
        text_tokens("some/thing", model, 32, limit=96)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_damaged_archives_are_named_with_the_fix(suffix, model, tmp_path):
    whole = written(tmp_path / f"a.txt{suffix}", TALES).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"plain text", whole[: len(whole) // 2], bytes(flipped)):
        (tmp_path / f"b.txt{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=rf"b.txt{suffix}' is not a complete {suffix} file .*again"):
            text_tokens(tmp_path / f"b.txt{suffix}", model, 16)


def test_nothing_is_warned_or_left_on_the_screen(model, tmp_path, recwarn, caplog):
    text_tokens(written(tmp_path / "a.txt", TALES * 5), model, 16)  # longer than the model's context, on purpose
    assert not recwarn.list and not caplog.records


# ---- data sets


def fake_datasets(monkeypatch, load_dataset):
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setitem(
        sys.modules,
        "datasets",
        SimpleNamespace(load_dataset=load_dataset, config=SimpleNamespace(HF_HUB_OFFLINE=False)),
    )


def test_hub_data_set_is_streamed_and_no_further_than_needed(model, monkeypatch):
    asked, taken = [], []

    def load_dataset(name, **options):
        asked.append((name, options))
        return ({"text": tale, "other": taken.append(tale)} for tale in TALES)

    fake_datasets(monkeypatch, load_dataset)
    rows = text_tokens("roneneldan/TinyStories", model, 32, limit=96)
    assert asked == [("roneneldan/TinyStories", {"split": "train", "streaming": True})]
    assert_rows_hold(rows, model, TALES, 32)
    assert rows.shape == (3, 32) and len(taken) < 10


@pytest.mark.parametrize("rows, found", [([], "nothing"), ([{"story": "a", "id": 1}], "'story', 'id'")])
def test_data_set_without_text(rows, found, model, monkeypatch):
    fake_datasets(monkeypatch, lambda name, **options: rows)
    with pytest.raises(ValueError, match=f'column "text", found .*{found}'):
        text_tokens("someone/something", model, 32, limit=96)


def test_data_set_needs_a_limit(model):
    with pytest.raises(ValueError, match="limit=None.*roneneldan/TinyStories.*no such local file or folder"):
        text_tokens("roneneldan/TinyStories", model, 32)


def test_an_unknown_name_and_an_empty_folder(model, monkeypatch, tmp_path):
    def load_dataset(name, **options):
        raise FileNotFoundError("Dataset doesn't exist")

    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(
        FileNotFoundError,
        match="'data/stories' is not a file or folder, nor a data set on the hub",
    ):
        text_tokens("data/stories", model, 32, limit=96)
    with pytest.raises(FileNotFoundError, match=r"is not a folder with \.jsonl, \.txt or \.parquet files"):
        text_tokens(tmp_path, model, 32, limit=96)


def test_local_folder_is_read_with_datasets(model, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "train.jsonl", TALES)
    rows = text_tokens(str(tmp_path / "data"), model, 32, limit=320)
    assert rows.shape == (10, 32)
    assert_rows_hold(rows, model, TALES, 32)


def test_hub_name_offline_says_what_works_instead(model, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr(hub, "reachable", lambda: False)
    says = "TinyStories.*hub.*cannot be reached.*no such local folder.*story_tokens.*local text file"
    with pytest.raises(ConnectionError, match=says):
        text_tokens("roneneldan/TinyStories", model, 32, limit=1000)


def test_datasets_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"sae-tutorial\[hub\]"):
        text_tokens("roneneldan/TinyStories", model, 32, limit=1000)
