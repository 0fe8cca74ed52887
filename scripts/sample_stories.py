"""Let the embedded language model write the stories that the course ships.

    python scripts/sample_stories.py --run FOLDER [--model FOLDER] [--out FILE] [--tokens 2100000]

RUN is the output folder of `train_language_model.py`. Every story begins with `<|endoftext|>`, the mark that only
stories have, and a beginning: the first eight tokens of a paragraph of a public-domain book that the model was trained
on, or, one time in four, an opening of a short tale (`OPENINGS`). From there the model writes at temperature 1. The
mark alone is not enough: after it six rows in a thousand were random tokens, which also follow `<|endoftext|>` in
training, without the mark. Where the model ends a story inside a row, the next one gets a beginning as well. So what is
written goes on with a story. A row in which 32 tokens in a row still have a mean loss above 7 nats (random tokens have
8.5) is written again, and the script says how many were; of 8,448 it was one. The mark at the beginning of a row is
left out of what is written, those inside stay.

Batch `i` depends on (beginnings, seed, i) alone and is saved when it is done, so a run that was stopped goes on where
it was and ends as it would have. Uses a GPU if there is one; on two CPU cores 2.1 million tokens take some ten minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checksums
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from train_language_model import END, STORY
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from sae_tutorial.activations.files import check_writable
from sae_tutorial.activations.language_model import STORIES
from sae_tutorial.activations.shipped_text import TEXTS, pack_rows
from sae_tutorial.course.transformers.measures import next_token_losses

LENGTH = 8  # tokens of a beginning
OPENINGS = ("Once upon a time", "Once upon a time, there was a", "One day,", "Once there was a", "There was a")
TALES = 0.25  # part of the stories that begin with one of these, as in training
WINDOW, GIBBERISH = 32, 7.0  # tokens in a row, and their mean loss in nats


class Writer:
    """GPT-2, one token per row at a time, with keys and values of all tokens so far kept in place."""

    def __init__(self, model: Any, batch: int) -> None:
        config, weight = model.config, model.lm_head.weight
        self.model, self.n_heads, self.d_head = model, config.n_head, config.n_embd // config.n_head
        shape = (config.n_layer, batch, self.n_heads, config.n_positions, self.d_head)
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)

    def logits(self, tokens_B: Tensor, position: int) -> Tensor:
        """Next-token logits (batch, vocabulary) for the tokens at `position`, after those before it were passed."""
        gpt: Any = self.model.transformer
        x_BD = gpt.wte(tokens_B) + gpt.wpe.weight[position]
        for layer, block in enumerate(gpt.h):
            x_BD = x_BD + self.attention(block.attn, block.ln_1(x_BD), layer, position)
            hidden = F.gelu(block.mlp.c_fc(block.ln_2(x_BD)), approximate="tanh")
            x_BD = x_BD + block.mlp.c_proj(hidden)
        return self.model.lm_head(gpt.ln_f(x_BD))

    def attention(self, attn: Any, x_BD: Tensor, layer: int, position: int) -> Tensor:
        q, k, v = attn.c_attn(x_BD).view(len(x_BD), 3, self.n_heads, self.d_head).unbind(1)
        self.keys[layer, :, :, position] = k
        self.values[layer, :, :, position] = v
        seen = slice(0, position + 1)
        z = F.scaled_dot_product_attention(q[:, :, None], self.keys[layer, :, :, seen], self.values[layer, :, :, seen])
        return attn.c_proj(z.reshape(len(x_BD), -1))


def draw(logits_BV: Tensor, generator: torch.Generator) -> Tensor:
    """One token per row with probability softmax(logits): where the cumulative sum passes a uniform random number."""
    cumulative_BV = logits_BV.softmax(-1).cumsum(-1)
    u_B1 = torch.rand(len(logits_BV), 1, generator=generator).to(logits_BV.device) * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, u_B1, right=True).squeeze(1).clamp(max=logits_BV.shape[1] - 1)


def beginnings(run: Path, tokenizer: PreTrainedTokenizerBase, n: int = 20_000, seed: int = 0) -> Tensor:
    """(n, 1 + LENGTH) ids of the mark and a beginning; -1 where a beginning is over, and the model goes on."""
    mark, newline, end = (tokenizer(text).input_ids[0] for text in (STORY, "\n", END))
    stream, rng = np.load(run / "books_train.npy", mmap_mode="r"), np.random.default_rng(seed)
    starts = np.flatnonzero(np.isin(stream[:-LENGTH], (newline, end))) + 1
    pieces = stream[rng.choice(starts, 2 * n)[:, None] + np.arange(LENGTH)].astype(np.int64)
    pieces = pieces[~np.isin(pieces, (mark, newline, end)).any(1)][:n]
    if len(pieces) < n:
        raise SystemExit(f"{run}: only {len(pieces):,} beginnings of {n:,} hold no line break; is this the stream?")
    openings = [tokenizer(text).input_ids[:LENGTH] for text in OPENINGS]
    for row in range(int(TALES * n)):
        opening = openings[rng.integers(len(openings))]
        pieces[row] = [*opening, *[-1] * (LENGTH - len(opening))]
    return torch.from_numpy(np.concatenate([np.full((n, 1), mark), pieces], axis=1))


@torch.inference_mode()
def sample_rows(writer: Writer, beginnings_NK: Tensor, seed: int, index: int, bar: tqdm) -> np.ndarray:
    """Batch `index` of rows: (batch, n_positions - 1) ids, the leading `<|endoftext|>` and its mark left out."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    (n, length), (_, batch, _, n_positions, _) = beginnings_NK.shape, writer.keys.shape
    end = writer.model.config.bos_token_id
    tokens_B = torch.full((batch,), end, device=writer.keys.device)
    chosen_B, since_B = torch.zeros_like(tokens_B), torch.zeros_like(tokens_B)
    columns = []
    for position in range(n_positions):
        logits_BV, ended_B = writer.logits(tokens_B, position), tokens_B == end
        others_B = torch.randint(n, (batch,), generator=generator).to(tokens_B.device)
        chosen_B = torch.where(ended_B, others_B, chosen_B)
        since_B = torch.where(ended_B, 0, since_B + 1)
        given_B = beginnings_NK[chosen_B, since_B.clamp(max=length - 1)]
        is_given_B = (since_B < length) & (given_B >= 0)
        tokens_B = torch.where(is_given_B, given_B, draw(logits_BV, generator))
        columns.append(tokens_B)
        bar.update(batch)
    return torch.stack(columns[1:], dim=1).cpu().numpy().astype(np.uint16)  # the first column is the mark of each row


def worst_window(losses_NS: Tensor) -> Tensor:
    """(n,) the largest mean loss of WINDOW tokens in a row, of all tokens where there are fewer."""
    return losses_NS.unfold(1, min(WINDOW, losses_NS.shape[1]), 1).mean(-1).amax(1)


@torch.inference_mode()
def is_gibberish(model: Any, rows_NS: np.ndarray) -> np.ndarray:
    """(n,) whether 32 tokens in a row have a mean loss above GIBBERISH nats, for rows without their `<|endoftext|>`."""
    found, device = [], next(model.parameters()).device
    for part in np.array_split(rows_NS.astype(np.int64), math.ceil(len(rows_NS) / 64)):
        ids = F.pad(torch.from_numpy(part), (1, 0), value=model.config.bos_token_id).to(device)
        losses = next_token_losses(model(ids).logits, ids)
        found.append(worst_window(losses) > GIBBERISH)
    return torch.cat(found).cpu().numpy()


def write_again(model: Any, rows_NS: np.ndarray, sample: Callable[[int, tqdm], np.ndarray], first: int) -> np.ndarray:
    """The rows, those that are gibberish replaced by rows of batches from `first` on."""
    rows_NS, bad = rows_NS.copy(), np.flatnonzero(is_gibberish(model, rows_NS))
    with tqdm(disable=True) as bar:
        while bad.size:
            print(f"{len(bad):,} of {len(rows_NS):,} rows left out and written again")
            new = sample(first, bar)[: len(bad)]
            rows_NS[bad[: len(new)]], first = new, first + 1
            bad = bad[is_gibberish(model, rows_NS[bad])]
    return rows_NS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=STORIES)
    parser.add_argument("--out", type=Path, default=TEXTS / "stories" / "model.npy.xz")
    parser.add_argument("--tokens", type=int, default=2_100_000, help="at least this many")
    parser.add_argument("--batch", type=int, default=256, help="rows written at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    check_writable(args.out)

    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=torch.float32).eval().to(args.device)
    writer = Writer(model, args.batch)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    mark, starts_NK = tokenizer(STORY).input_ids[0], beginnings(args.run, tokenizer).to(args.device)
    per_batch = args.batch * (model.config.n_positions - 1)
    n_batches = math.ceil(args.tokens / per_batch)
    begun = hashlib.sha256(starts_NK.cpu().numpy().tobytes()).hexdigest()[:12]
    run = f"{fingerprint(model)} batch={args.batch} seed={args.seed} beginnings={begun}\n"

    def sample(index: int, bar: tqdm) -> np.ndarray:
        return sample_rows(writer, starts_NK, args.seed, index, bar)

    def write(rows: np.ndarray, out: Path) -> None:
        ship_rows(write_again(model, rows, sample, n_batches), out)

    rows = sample_in_parts(args.out, n_batches, per_batch, run, sample, write)
    size, several = args.out.stat().st_size, int((rows == mark).any(1).sum())
    print(
        f"{len(rows):,} rows begun as a story, {several:,} of them with a second story inside. "
        f"{rows.size:,} tokens, {size / 1e6:.2f} MB ({8 * size / rows.size:.2f} bits per token)"
    )


def ship_rows(rows: np.ndarray, out: Path) -> None:
    pack_rows(rows, out)
    checksums.record(out)


def sample_in_parts(
    out: Path,
    n_batches: int,
    per_batch: int,
    run: str,
    sample: Callable[[int, tqdm], np.ndarray],
    write: Callable[[np.ndarray, Path], None] = ship_rows,
) -> np.ndarray:
    """All rows of `n_batches` times sample(index, bar), written to `out` by write(rows, out).

    Each batch is saved beside `out` when it is done; a later call goes on there, if it is of the same `run`.
    """
    parts = out.with_name(out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    check_same_run(parts, run)
    with tqdm(total=n_batches * per_batch, unit=" tokens", unit_scale=True, mininterval=1) as bar:
        for index in range(n_batches):
            part = parts / f"{index:05d}.npy"
            if part.exists():
                bar.update(per_batch)
                continue
            np.save(part.with_suffix(".tmp.npy"), sample(index, bar))
            part.with_suffix(".tmp.npy").replace(part)
    rows = np.concatenate([np.load(parts / f"{index:05d}.npy") for index in range(n_batches)])
    write(rows, out)
    for path in parts.iterdir():
        path.unlink()
    parts.rmdir()
    return rows


def fingerprint(model: torch.nn.Module) -> str:
    """A few digits that change with the weights."""
    return f"{sum(p.double().abs().sum().item() for p in model.parameters()):.6f}"


def check_same_run(parts: Path, run: str) -> None:
    """Parts of another model, batch size or seed must not end up in the same file."""
    label = parts / "run.txt"
    if label.exists() and label.read_text() != run:
        raise SystemExit(
            f"{parts} holds the beginning of another run ({label.read_text().strip()}); remove it to start anew."
        )
    label.write_text(run)


if __name__ == "__main__":
    main()
