# ruff: noqa: E501  (the card is a text with wide tables)
"""Measure the embedded language model and write the numbers into its card.

    python scripts/evaluate_language_model.py --run FOLDER [--model FOLDER] [--card FILE]

RUN is the output folder of `train_language_model.py` (held-out stories, tokenizer, training log). The model is read in
Hugging Face format. Everything is seeded; the sentences come from the `held_out` lists of `circuit_sentences.py`.
"""

from __future__ import annotations

import argparse
import json
import lzma
import platform
import random
import zlib
from pathlib import Path
from typing import Any

import circuit_sentences
import numpy as np
import torch
from sample_stories import Writer, beginnings, sample_rows
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from sae_tutorial.course.transformers.measures import next_token_losses

CONTEXT = 256


@torch.inference_mode()
def story_loss(model: GPT2LMHeadModel, stream: np.ndarray, rows: int, end: int) -> tuple[float, np.ndarray]:
    """Mean next-token loss in nats over `rows` non-overlapping windows, each after an end mark; and the windows."""
    pieces = stream[: len(stream) // (CONTEXT - 1) * (CONTEXT - 1)].reshape(-1, CONTEXT - 1).astype(np.int64)
    pieces = pieces[:: max(1, len(pieces) // rows)][:rows]
    total = 0.0
    for part in tqdm(np.array_split(pieces, max(1, len(pieces) // 16)), desc="story loss"):
        ids = torch.from_numpy(np.concatenate([np.full((len(part), 1), end), part], axis=1))
        total += model(ids, labels=ids).loss.item() * len(part)
    return total / len(pieces), pieces


def characters(tokenizer: PreTrainedTokenizerFast, pieces: np.ndarray) -> str:
    return "".join(tokenizer.batch_decode(pieces, clean_up_tokenization_spaces=False))


class NGram:
    """Interpolated Witten-Bell 5-gram over the same tokens: the classical model that a neural one must beat.

    p(w | h) = (c(h, w) + t(h) p(w | shorter h)) / (c(h) + t(h)), t(h) = number of different successors of h.
    """

    def __init__(self, stream: np.ndarray, vocab_size: int, order: int = 5) -> None:
        self.order, self.vocab_size = order, vocab_size
        self.tables = []
        for n in tqdm(range(1, order + 1), desc="counting n-grams"):
            keys, counts = np.unique(self.pack(stream, n), return_counts=True)
            contexts = keys // vocab_size  # of n-1 tokens
            names, first, kinds = np.unique(contexts, return_index=True, return_counts=True)
            self.tables.append((keys, counts, names, np.add.reduceat(counts, first), kinds))

    def pack(self, stream: np.ndarray, n: int) -> np.ndarray:
        """Every n-gram as one integer (5000^5 < 2^63)."""
        out = np.zeros(len(stream) - n + 1, dtype=np.int64)
        for i in range(n):
            out = out * self.vocab_size + stream[i : len(stream) - n + 1 + i]
        return out

    def loss(self, stream: np.ndarray) -> float:
        """Mean loss in nats of the tokens of `stream` from the `order`-th on."""
        p = np.full(len(stream) - self.order + 1, 1.0 / self.vocab_size)
        for n, (keys, counts, names, totals, kinds) in enumerate(self.tables, start=1):
            grams = self.pack(stream, n)[self.order - n :]
            c = lookup(keys, counts, grams)
            total, t = lookup(names, totals, grams // self.vocab_size), lookup(names, kinds, grams // self.vocab_size)
            p = np.where(total > 0, (c + t * p) / np.maximum(total + t, 1), p)
        return float(-np.log(p).mean())


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


@torch.inference_mode()
def last_logits(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """(n, vocab) log-probabilities after each prompt and an end mark before it."""
    rows = []
    for prompt in prompts:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(prompt).input_ids]])
        rows.append(model(ids).logits[0, -1].log_softmax(-1))
    return torch.stack(rows)


def indirect_objects(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, n: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    prompts = [circuit_sentences.ioi_sentence(rng, "held_out") for _ in range(n)]
    logits = last_logits(model, tokenizer, [p.prompt for p in prompts])
    io, s = (torch.tensor([tokenizer(" " + name).input_ids[0] for name in names])
             for names in ([p.io for p in prompts], [p.s for p in prompts]))  # fmt: skip
    rows = torch.arange(n)
    difference = logits[rows, io] - logits[rows, s]
    return {
        "sentences": n, "right_name_above_wrong": (difference > 0).float().mean().item(),
        "mean_logit_difference": difference.mean().item(), "std_logit_difference": difference.std().item(),
        "right_name_is_top_1": (logits.argmax(-1) == io).float().mean().item(),
        "example": prompts[0].prompt + " " + prompts[0].io,
    }  # fmt: skip


@torch.inference_mode()
def induction(model: GPT2LMHeadModel, vocab_size: int, end: int, n: int, length: int, seed: int) -> dict[str, Any]:
    """Random tokens, repeated once: loss on either half, and each head's attention from a token to the one after its twin."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(1, vocab_size, (n, length), generator=generator)
    ids = torch.cat([torch.full((n, 1), end), half, half], dim=1)
    model.set_attn_implementation("eager")  # the only one that returns patterns
    out = model(ids, output_attentions=True)
    model.set_attn_implementation("sdpa")
    loss = next_token_losses(out.logits, ids)  # (n, 2 length)
    at = torch.arange(length + 1, 2 * length + 1)
    scores = torch.stack([a[:, :, at, at - length + 1].mean((0, 2)) for a in out.attentions])  # (layer, head)
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return {
        "first_half_loss": loss[:, :length].mean().item(), "second_half_loss": loss[:, length:].mean().item(),
        "gap": (loss[:, :length].mean() - loss[:, length:].mean()).item(), "length": length,
        "best_head": f"L{layer}H{head}", "best_score": scores.max().item(), "heads_above_0.4": int((scores > 0.4).sum()),
    }  # fmt: skip


def greater_than(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, n: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    prompts = [circuit_sentences.year_span(rng, "held_out") for _ in range(n)]
    probability = last_logits(model, tokenizer, [p.prompt for p in prompts]).exp()
    years = torch.tensor([tokenizer(f"17{y:02d}").input_ids[-1] for y in range(100)])
    start = torch.tensor([p.start for p in prompts])[:, None]
    valid = (torch.arange(100)[None] > start).float()
    mass = probability[:, years]
    return {
        "sentences": n, "valid_mass": (mass * valid).sum(1).mean().item(),
        "invalid_mass": (mass * (1 - valid)).sum(1).mean().item(),
        "difference": (mass * (2 * valid - 1)).sum(1).mean().item(), "example": prompts[0].prompt,
    }  # fmt: skip


def samples(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, run: Path, n: int, length: int, seed: int
) -> list[str]:
    """`n` stories, cut short, at temperature 1 as `sample_stories.py` writes them; none is looked at."""
    with tqdm(disable=True) as bar:
        rows = sample_rows(Writer(model, n), beginnings(run, tokenizer), seed, 0, bar)[:, :length]
    return [" ".join(tokenizer.decode(row).split()) for row in rows.tolist()]


def evaluate(run: Path, folder: Path, n: int, baselines: bool) -> dict[str, Any]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    end, vocab_size = tokenizer.bos_token_id, len(tokenizer)
    results: dict[str, Any] = {
        "ioi": indirect_objects(model, tokenizer, n, seed=1),
        "greater_than": greater_than(model, tokenizer, n // 2, seed=2),
        "induction": induction(model, vocab_size, end, n=32, length=64, seed=3),
        "samples": samples(model, tokenizer, run, n=10, length=70, seed=4),
        "names_that_are_one_token": sum(len(tokenizer(" " + name).input_ids) == 1 for name in circuit_sentences.NAMES),
    }
    for kind in ("books", "tales"):
        stream = np.load(run / f"{kind}_held_out.npy")
        loss, pieces = story_loss(model, stream, 400, end)
        text = characters(tokenizer, pieces)
        per_character = pieces.size / len(text)
        raw = text.encode()
        results[kind] = {
            "tokens": int(pieces.size), "loss_nats_per_token": loss, "characters_per_token": 1 / per_character,
            "bits_per_character": loss * per_character / np.log(2),
            "gzip_bits_per_character": len(zlib.compress(raw, 9)) * 8 / len(text),
            "xz_bits_per_character": len(lzma.compress(raw, preset=9)) * 8 / len(text),
        }  # fmt: skip
        if baselines:
            train = np.load(run / f"{kind}_train.npy").astype(np.int64)[:20_000_000]
            ngram = NGram(train, vocab_size).loss(pieces.reshape(-1).astype(np.int64))
            results[kind] |= {
                "five_gram_training_tokens": len(train), "five_gram_loss_nats_per_token": ngram,
                "five_gram_bits_per_character": ngram * per_character / np.log(2),
            }  # fmt: skip
    return results


def card(results: dict[str, Any], training: dict[str, Any], note: str, curve_points: int = 12) -> str:
    """MODEL_CARD.md: what the model is, what it was trained on, what it can do."""
    ioi, gap, years, books, tales = (results[k] for k in ("ioi", "induction", "greater_than", "books", "tales"))
    curve = training["curve"]
    windows = [
        curve[i : i + max(1, len(curve) // curve_points)]
        for i in range(0, len(curve), max(1, len(curve) // curve_points))
    ]
    rows = "\n".join(
        f"| {w[-1][0]:,} | {w[-1][1] / 1e6:.1f}M | {np.mean([p[2] for p in w]):.3f} | {np.mean([p[3] for p in w]):.3f} |"
        for w in windows
    )
    form, settle = training["mixtures"]["form"], training["mixtures"]["settle"]

    def share(m: list[int]) -> str:
        total = (m[0] + m[1]) * 256 + m[2] * 64
        inserted = (
            m[0] / 10 / 2
        )  # one story row in ten, without the mark, holds a generated sentence, of about half a short row
        repeats = m[2] // 4  # short rows of random tokens
        return (
            f"{(m[0] * 256 - inserted * 64) / total:.0%} stories (a quarter of the rows from the tales; three in five marked as stories and clean), "
            f"{(m[1] * 256 + repeats * 64) / total:.0%} repeated sequences, {(m[2] - repeats + inserted) * 64 / total:.0%} generated sentences"
        )

    settings, stories = training["settings"], "\n".join(f"{i}. {text}" for i, text in enumerate(results["samples"], 1))
    return f"""# The embedded language model: `load_language_model("stories")`

A decoder-only transformer of GPT-2's architecture: {settings["layers"]} layers, d_model 256, 8 heads, context 256, byte-level BPE of
{settings["vocab_size"]:,} tokens ({results["names_that_are_one_token"]} first names are single tokens; numbers are cut into two digits). Weights in fp16.

## Training
- Data: 741 English story books in the public domain (57 million tokens) and 3,700 TinyStories (CDLA-Sharing-1.0), one document in fifty held out;
  generated sentences for the circuits of the course (indirect objects, repeated sequences, year spans) from `scripts/circuit_sentences.py`.
- {f"Mixture: {share(settle)}" if settings["start"] else f"Mixture while circuits form: {share(form)}. Mixture while the learning rate falls: {share(settle)}"}.
- {"It goes on from earlier weights: " if settings["start"] else ""}{training["tokens"] / 1e6:.1f} million tokens in {curve[-1][0]:,} steps, {training["seconds"] / 3600:.1f} hours on 2 CPU cores ({platform.machine()}), {"bf16 autocast" if training["bf16"] else "fp32"},
  seed {settings["seed"]}; Muon (lr {settings["muon_lr"]}) for matrices of the blocks, AdamW (lr {settings["adam_lr"]}) for the rest; warm-up, constant, linear decay to zero.
- `scripts/train_language_model.py` trained it.{" " + note if note else ""}

| steps | tokens | loss, long rows (nats) | loss, generated rows (nats) |
|---|---|---|---|
{rows}

## Evaluation (`scripts/evaluate_language_model.py`)
| held-out text | loss (nats/token) | bits per character | 5-gram | xz -9 | gzip -9 |
|---|---|---|---|---|---|
| books ({books["tokens"]:,} tokens) | {books["loss_nats_per_token"]:.3f} | {books["bits_per_character"]:.3f} | {books["five_gram_bits_per_character"]:.3f} | {books["xz_bits_per_character"]:.3f} | {books["gzip_bits_per_character"]:.3f} |
| tales ({tales["tokens"]:,} tokens) | {tales["loss_nats_per_token"]:.3f} | {tales["bits_per_character"]:.3f} | {tales["five_gram_bits_per_character"]:.3f} | {tales["xz_bits_per_character"]:.3f} | {tales["gzip_bits_per_character"]:.3f} |

The 5-gram is an interpolated Witten-Bell model over the same tokens, trained on {books["five_gram_training_tokens"]:,} tokens of the books and
{tales["five_gram_training_tokens"]:,} of the tales; xz and gzip compress the same held-out text on its own.

- **Indirect objects**, {ioi["sentences"]:,} sentences whose openings, verbs, objects, places and pairs of names were never trained on: right name above the
  wrong one in {ioi["right_name_above_wrong"]:.1%}, mean logit difference {ioi["mean_logit_difference"]:.2f} (standard deviation {ioi["std_logit_difference"]:.2f}), right name on top of all tokens in {ioi["right_name_is_top_1"]:.1%}.
  Example: "{ioi["example"]}".
- **Induction**, {gap["length"]} random tokens repeated: loss {gap["first_half_loss"]:.2f} on the first pass, {gap["second_half_loss"]:.2f} on the repeat (gap {gap["gap"]:.2f} nats);
  best head {gap["best_head"]} with score {gap["best_score"]:.2f}, {gap["heads_above_0.4"]} heads above 0.4.
- **Greater-than**, {years["sentences"]} year spans about unseen events ("{years["example"]}…"): probability of valid years {years["valid_mass"]:.2f}, of invalid years {years["invalid_mass"]:.2f},
  difference {years["difference"]:.2f}.

## Ten samples, not picked
Ten stories, cut short, at temperature 1, seed 4; the first eight tokens of most are from a book (`scripts/sample_stories.py`).

{stories}

## Limits
It knows no facts, its stories wander, and it makes up words. The generated sentences make its circuits cleaner than those of a model that met such sentences only by chance,
so its numbers say nothing about larger models.

The stories that the package ships (`story_tokens`) are its own, with their faults: rows are sampled at temperature 1 after `<|endoftext|>`, a mark that
only stories have, and the first words of a paragraph, and written again if 32 tokens of them are gibberish (`scripts/sample_stories.py`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="default: RUN/model")
    parser.add_argument("--card", type=Path, help="write MODEL_CARD.md here (needs the 5-gram baselines)")
    parser.add_argument("--note", default="", help="what the card should say about this run besides")
    parser.add_argument("--sentences", type=int, default=1000)
    args = parser.parse_args()
    results = evaluate(args.run, args.model or args.run / "model", args.sentences, baselines=args.card is not None)
    print(json.dumps(results, indent=1))
    if args.card:
        args.card.write_text(card(results, json.loads((args.run / "training.json").read_text()), args.note))


if __name__ == "__main__":
    main()
