"""Text that the package ships, as tokens: what its models write themselves, and books that people wrote.

For each model in TEXT_OF there is a folder of `assets/texts`:

    model.npy.xz    rows that the model sampled at temperature 1: text that it finds natural
    books.npy.xz    rows of public-domain story books that the embedded model was not trained on
    titles.json     the title of each book, and how many rows it has, in the order of the rows
"""

from __future__ import annotations

import functools
import io
import json
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.files import ASSETS, read_asset

TEXTS = ASSETS / "texts"
TEXT_OF = {"stories": 0, "smollm2": 1}  # models, and the id that begins a row
SOURCES = ("model", "books")
HELD_OUT_ROWS = 256  # about 65,000 tokens


class Corpus(NamedTuple):
    """How much of which text SAEs of a model read; source as for `story_tokens`."""

    n_tokens: int
    source: str | None


TRAINED_ON = {"stories": Corpus(2_000_000, "model"), "smollm2": Corpus(1_000_000, None)}


def story_tokens(
    n_tokens: int, context: int = 256, seed: int = 0, *, source: str | None = "model", model: str = "stories"
) -> Int[Tensor, "rows context"]:
    """Text for a model that the package brings, without a network: rows that begin with its beginning-of-text token.

    `source="model"`: the model's own samples at temperature 1, all of them shipped. The embedded model wrote them after
    a mark that only stories have and the first words of a story, up to eight tokens that are not its own
    (scripts/sample_stories.py), SmolLM2 went on with passages from books (scripts/sample_smollm2.py). `source="books"`:
    real sentences, to read; the embedded model was trained on other books.

    Below 256, a sample is cut into as many rows as it yields, so some rows begin in the middle of a sentence; no row
    spans two samples.

    Args:
        n_tokens: tokens wanted, beginning-of-text tokens included; there are ceil(n_tokens / context) rows.
        context: tokens in a row, 2 to 256.
        seed: shuffles the rows. With the same seed, a longer answer begins with the shorter one, so what follows your
            training rows is held out.
        source: "model" or "books"; None takes both, shuffled together. See `story_titles`.
        model: "stories" or "smollm2", whose tokens they are.

    Raises TypeError or ValueError for arguments that are not whole numbers, a source or model that there is not, a
    context that the samples cannot fill, more tokens than are shipped (the error gives their number), and a damaged
    package.
    """
    pieces_RC, _ = _chosen(n_tokens, context, seed, source, model)
    return rows_with(TEXT_OF[model], pieces_RC)


def shipped_tokens(context: int = 256, *, source: str | None = "model", model: str = "stories") -> int:
    """How many tokens `story_tokens` has in rows of this context."""
    return len(_pieces(context, source, model)) * context


def story_samples(
    n_tokens: int, context: int = 256, seed: int = 0, *, source: str | None = "model", model: str = "stories"
) -> Int[Tensor, " rows"]:
    """Which sample each row of `story_tokens` with these arguments is from: below a context of 256, several rows are
    from one, and those that know the beginning of a story know something of its end."""
    return torch.from_numpy(_chosen(n_tokens, context, seed, source, model)[1])


def story_titles(
    n_tokens: int, context: int = 256, seed: int = 0, *, source: str | None = "model", model: str = "stories"
) -> tuple[str, ...]:
    """Where each row of `story_tokens` with these arguments is from: the title of a book, or "model"."""
    return tuple(_titles(model, source)[i] for i in _chosen(n_tokens, context, seed, source, model)[1])


def text_for_training(
    n_tokens: int | None = None, model: str = "stories"
) -> tuple[Int[Tensor, "rows 256"], Int[Tensor, "held_out 256"]]:
    """Shipped text in two parts: what SAEs of this model's middle are trained on, and measured on. The embedded model
    reads its own stories (2 million tokens unless you ask for fewer), SmolLM2 its own text and books (1 million).

    Raises ValueError where nothing would be left to train on.
    """
    corpus = TRAINED_ON.get(model, TRAINED_ON["stories"])  # a model without one is refused by `story_tokens`
    n_tokens = as_whole("n_tokens", corpus.n_tokens if n_tokens is None else n_tokens)
    if n_tokens < 2 * HELD_OUT_ROWS * 256:
        raise ValueError(f"n_tokens={n_tokens:,}: {HELD_OUT_ROWS} rows of 256 are held out; ask for 131,072 or more.")
    tokens = story_tokens(n_tokens, 256, source=corpus.source, model=model)
    return tokens[:-HELD_OUT_ROWS], tokens[-HELD_OUT_ROWS:]


def _chosen(
    n_tokens: int, context: int, seed: int, source: str | None, model: str
) -> tuple[Int[np.ndarray, "rows context-1"], Int[np.ndarray, " rows"]]:
    """The rows, without the token that begins them, and the sample that each is from."""
    n_tokens, context, seed = as_whole("n_tokens", n_tokens, 1), as_whole("context", context), as_whole("seed", seed)
    for name, value, there in (("source", source, (*SOURCES, None)), ("model", model, tuple(TEXT_OF))):
        if value not in there:
            raise ValueError(f"{name}={value!r}: text is shipped for {', '.join(map(repr, there))}; see text_tokens.")
    pieces_RC = _pieces(context, source, model)
    n_rows, available = -(-n_tokens // context), len(pieces_RC)
    if n_rows > available:
        shipped = f"{available * context:,} tokens in rows of {context} (source={source!r}, model={model!r})"
        raise ValueError(f"n_tokens={n_tokens:,}: the package ships {shipped}. Ask for fewer, or try text_tokens.")
    chosen = np.random.default_rng(seed).permutation(available)[:n_rows]
    return pieces_RC[chosen], chosen // (available // len(_samples(model, source)))


def _pieces(context: int, source: str | None, model: str) -> Int[np.ndarray, "rows context-1"]:
    """All samples, cut into as many rows as they yield, without the token that begins a row."""
    samples_NS = _samples(model, source)
    longest = samples_NS.shape[1] + 1
    if not 2 <= context <= longest:
        raise ValueError(
            f"context={context}: stories come in samples of {longest} tokens, their writer's context. Ask for 2 to "
            f"{longest}, or read longer rows from a file with text_tokens."
        )
    per_sample = (longest - 1) // (context - 1)
    return samples_NS[:, : per_sample * (context - 1)].reshape(-1, context - 1)


def _samples(model: str, source: str | None) -> Int[np.ndarray, "samples tokens"]:
    if source is None:
        return np.concatenate([shipped_rows(model, one) for one in SOURCES])
    return shipped_rows(model, source)


def _titles(model: str, source: str | None) -> list[str]:
    own = [] if source == "books" else ["model"] * len(shipped_rows(model, "model"))
    if source == "model":
        return own
    return own + [
        title for title, n_rows in json.loads(read_asset(TEXTS / model / "titles.json")) for _ in range(n_rows)
    ]


def shipped_rows(model: str, source: str) -> Int[np.ndarray, "samples tokens"]:
    """All samples of a source, without the token that begins a row, read-only; unpacked once per session."""
    return unpack_rows(TEXTS / model / f"{source}.npy.xz")


@functools.cache
def unpack_rows(path: Path) -> Int[np.ndarray, "samples tokens"]:
    """What `pack_rows` wrote. Raises ValueError if it is shipped, and damaged."""
    samples_NS = np.lib.format.read_array(io.BytesIO(lzma.decompress(read_asset(path))), allow_pickle=False)
    samples_NS.flags.writeable = False
    return samples_NS


def pack_rows(samples: Int[np.ndarray, "samples tokens"], path: Path) -> None:
    """Write samples (ids below 65,536, without the token that begins a row) as a 16-bit .npy inside .xz."""
    if samples.ndim != 2 or samples.size == 0 or samples.min() < 0 or samples.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"samples must be (samples, tokens) ids from 0 to 65,535, not {samples.dtype}{samples.shape}.")
    with lzma.open(path, "wb", preset=9) as file:
        np.lib.format.write_array(file, samples.astype("<u2"), allow_pickle=False)


def rows_with(first: int, pieces_RC: Int[np.ndarray, "rows tokens"]) -> Int[Tensor, "rows tokens+1"]:
    """Rows of ids, int64, each after the id that begins it."""
    rows = torch.full((len(pieces_RC), pieces_RC.shape[1] + 1), first, dtype=torch.int64)
    rows[:, 1:] = torch.from_numpy(pieces_RC.astype(np.int64))
    return rows
