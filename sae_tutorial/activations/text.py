"""Batches of token ids from any local text file, or from a data set on the hub.

Every row starts with the beginning-of-text token, as in the model's training. Ids are int64, on the CPU.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations import hub
from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.files import path_of
from sae_tutorial.activations.shipped_text import rows_with

END = "<|endoftext|>"  # separates the documents of a text file
PIECE = 1 << 18  # characters that are read and tokenised at once, or a few more, up to the next space
LONGEST_WORD = 1 << 20  # without a space among so many characters, a cut is made all the same
LONGEST_LINE = 1 << 25  # characters of a .jsonl file
BEFORE_SPACE, BEFORE_BREAK = re.compile(r"\S(?= \S)"), re.compile(r"\S(?=\s)")


def text_tokens(
    path_or_dataset: str | Path, model: Any, context: int = 256, limit: int | None = None
) -> Int[Tensor, "rows context"]:
    """Rows of token ids from a local text file, or streamed from a data set on the hub.

    Documents are strung together with the model's end-of-text token between them and cut into pieces of context - 1
    tokens, each after the beginning-of-text token; what does not fill the last row is dropped. So a row can hold the
    end of one document and the beginning of the next. Files are read piece by piece, no further than `limit` asks: a
    long line of a text takes no more memory than a short one.

    Args:
        path_or_dataset: a `.txt` file, its documents separated by `<|endoftext|>` (a file without is one document,
            blank lines are just part of it); a `.jsonl` file, one `{"text": ...}` per line; either of them also as
            `.xz` or `.gz`. Anything that is not a file is read with `datasets`, split "train", column "text": a name
            on the hub (`"roneneldan/TinyStories"`, `"Skylion007/openwebtext"`) or a local folder.
        model: gives the tokenizer and the longest context; from `load_language_model`.
        context: tokens in a row, 2 to `model.cfg.n_ctx`.
        limit: at most this many tokens, beginning-of-text ones included. Default: the whole file; a data set needs one.

    Raises FileNotFoundError if there is no such file, folder or data set, ConnectionError or ImportError if the hub or
    `datasets` is needed and not there, and TypeError or ValueError for a context or limit that cannot be met, a text
    too short for one row, a damaged file, or not text.
    """
    path, name = path_of("path_or_dataset", path_or_dataset), f"path_or_dataset={str(path_or_dataset)!r}"
    context, limit = as_whole("context", context), None if limit is None else as_whole("limit", limit)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("model has no tokenizer: load it with load_language_model(..., tokenizer=...).")
    if not 2 <= context <= model.cfg.n_ctx:
        raise ValueError(f"context={context}: this model reads 2 to {model.cfg.n_ctx} tokens at once.")
    if limit is not None and limit < context:
        raise ValueError(f"limit={limit}: one row alone takes context={context} tokens; ask for at least that many.")
    wanted = None if limit is None else limit // context * (context - 1)

    if path.is_file():
        ids = _ids(_file_pieces(path, name), tokenizer, wanted)
    elif path.exists() and not path.is_dir():
        raise ValueError(f"{name} is neither a file with text nor a folder of them.")
    elif not path.exists() and (isinstance(path_or_dataset, Path) or _looks_like_a_path(path_or_dataset)):
        raise FileNotFoundError(f"{name}: there is no such file or folder, seen from {str(Path.cwd())!r}.")
    elif wanted is None:
        kind = "folder" if path.exists() else "data set (there is no such local file or folder)"
        raise ValueError(f"limit=None: specify how many tokens to read of {name}, a {kind}.")
    else:
        ids = _dataset_ids(str(path_or_dataset), name, path.is_dir(), tokenizer, wanted)
    n_rows = len(ids) // (context - 1)
    if n_rows == 0:
        raise ValueError(f"{name} holds only {len(ids)} tokens; a row takes {context - 1}. Take a smaller context.")
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return rows_with(bos, ids[: n_rows * (context - 1)].reshape(n_rows, context - 1))


def _looks_like_a_path(name: str) -> bool:
    """Whether this cannot be the name of a data set on the hub, "owner/name"."""
    named_so = name.startswith(("/", ".", "~")) or name.endswith((".txt", ".jsonl", ".xz", ".gz"))
    return named_so or "\\" in name or name.count("/") > 1


def _ids(pieces: Iterator[tuple[str, bool]], tokenizer: Any, wanted: int | None) -> np.ndarray:
    """At most so many token ids of (text, whether a document ends there); no further pieces are asked for."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
    found, n = [], 0
    parts = ((part, ends and last) for piece, ends in pieces for part, last in _parts(piece))
    with tqdm(total=wanted, unit=" tokens", unit_scale=True, desc="reading text", leave=False) as bar:
        for part, ends in parts:
            ids = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] + [end] * ends
            found.append(np.asarray(ids, dtype=np.int64))
            n += len(ids)
            bar.update(len(ids))
            if wanted is not None and n >= wanted:
                break
    return np.concatenate(found)[:wanted] if found else np.zeros(0, dtype=np.int64)


def _file_pieces(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """(text, whether a document ends there) from a file of any size; a long document of a .txt comes in pieces."""
    kind = path.name.removesuffix(".xz").removesuffix(".gz")
    opener: Any = lzma.open if path.suffix == ".xz" else gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from _json_documents(file, name) if kind.endswith(".jsonl") else _text_pieces(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text ({error.reason}).") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        fix = "Fetch or compress it again, or take the suffix away if it is plain text."
        raise ValueError(f"{name} is not a complete {path.suffix} file ({error}). {fix}") from error


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """(part, whether it is the last) of a text: parts of about PIECE characters, cut at white space, best before a
    single space, which moves no token of GPT-2's kind of tokenizer. The last one may be longer, up to LONGEST_WORD."""
    start = 0
    while len(text) - start > PIECE:
        window = start + PIECE - 1, start + LONGEST_WORD
        found = BEFORE_SPACE.search(text, *window) or BEFORE_BREAK.search(text, *window)
        if found is None and len(text) - start <= LONGEST_WORD + len(END):
            break
        stop = found.end() if found else start + LONGEST_WORD
        yield text[start:stop], False
        start = stop
    yield text[start:], True


def _text_pieces(file: IO[str]) -> Iterator[tuple[str, bool]]:
    rest, begun = "", False  # begun: a first piece of this document is out already
    for piece in chain(iter(lambda: file.read(PIECE), ""), [END]):  # the end of the file ends the last document
        *closed, rest = (rest + piece).split(END)
        for document in closed:
            document = document.rstrip("\n") if begun else document.strip("\n")
            if document or begun:
                yield document, True
            begun = False
        *parts, (rest, _) = _parts(rest)
        for part, _ in parts:
            part = part if begun else part.lstrip("\n")
            if part:
                yield part, False
                begun = True


def _json_documents(file: IO[str], name: str) -> Iterator[tuple[str, bool]]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
        where = f"{name}, line {number}"
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise ValueError(f"{where}: longer than {LONGEST_LINE:,} characters; put such texts into a .txt file.")
        if line.strip():
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(f'{where}: expected a JSON object with a "text" field.') from error
            yield _checked(text, where), True


def _checked(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f'{where}: "text" is {json.dumps(text, default=repr)}. It must be a string; leave others out.')
    return text


def _dataset_ids(source: str, name: str, is_folder: bool, tokenizer: Any, wanted: int) -> np.ndarray:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f'{source!r} is read with `datasets`: pip install "sae-tutorial[hub]".') from error

    with nullcontext(True) if is_folder else hub.offline_unless_reachable() as online:
        try:
            with hub.quiet():  # offline, a data set may still lie in the cache, but not as a stream
                documents = iter(datasets.load_dataset(source, split="train", streaming=online))
                first = next(documents, None)
        except OSError as error:
            if not online:
                raise ConnectionError(
                    f"{name} is a data set on the Hugging Face hub, which cannot be reached from here (or "
                    "HF_HUB_OFFLINE is set), and there is no such local folder. Two ways work without a network: "
                    "story_tokens(...), which the package ships, and text_tokens with the path of a local text file."
                ) from error
            if not isinstance(error, FileNotFoundError):
                raise
            what = (
                "folder with .jsonl, .txt or .parquet files for `datasets` to read" if is_folder else "file or folder"
            )
            raise FileNotFoundError(f"{name} is not a {what}, nor a data set on the hub that you may see.") from error
        if first is None or "text" not in first:
            found = "nothing" if first is None else f"the columns {', '.join(map(repr, first))}"
            raise ValueError(f'{name}: expected a column "text", found {found}.')
        rows = enumerate(chain([first], documents))
        return _ids(((_checked(row["text"], f"{name}, row {i}"), True) for i, row in rows), tokenizer, wanted)
