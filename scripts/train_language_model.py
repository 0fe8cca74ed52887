"""Train the small language model that the course ships: GPT-2's architecture, stories, and three circuits.

    python scripts/train_language_model.py --data FOLDER --out FOLDER [--steps 3000] [--start MODEL]

FOLDER holds text files (.txt or .txt.xz), documents separated by `<|endoftext|>`; `--data` may be given several times.
The run saves a checkpoint every `--save-every` steps and goes on from it when it is started again, so a long CPU run
may span several sittings; `--steps` and `--decay` may be changed in between (the learning rate only looks at them).
The end of every sitting is kept as `end-STEP.pt`, and `--average 3` exports the mean of the weights of the last three:
each annealing leans its own way, and their mean generalises better (Izmailov et al. 2018, Wortsman et al. 2022).

A batch holds two kinds of rows, each starting with `<|endoftext|>`: long rows of story text or of a sequence repeated
(random tokens, or a piece of a story), and short rows with generated sentences (`circuit_sentences.py`). The share of
generated rows falls when the learning rate starts to fall.

Most stories are marked: a form feed stands at their beginning, and nowhere else. A marked row is a story from end to
end: no random tokens, no generated sentences. So the model learns to go on with a story after the mark
(`sample_stories.py` adds the first words of one). All other rows come without the mark, so that any text, and the
circuits, work without it: plain stories, a few with a generated sentence inside, and the generated rows, of which half
begin with a line break.

`--start MODEL` goes on from the weights and the tokenizer of a trained model in place of random ones, with the second
mixture throughout.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import shutil
import time
from pathlib import Path

import circuit_sentences
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae_tutorial.training.settings import encoder_dtype_here

END = "<|endoftext|>"
STORY = "\f"  # the mark of a story's beginning
CONTEXT, SHORT = 256, 64
# Words with their space in front, numbers two digits at a time (a year is century + year), the rest as GPT-2 does.
SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
# Rows per batch: story, repeated, short. The first mixture forms the circuits, the second keeps a model of stories.
MIXTURES = {"form": (8, 4, 32), "settle": (10, 1, 24)}
MARKED, WITH_SENTENCE = 0.6, 0.1  # parts of the story rows
TALES = 0.25  # part of the story rows that are from the short tales


def read_documents(folders: list[Path]) -> list[str]:
    """All documents of all text files, in a fixed order, typographic quotes and dashes made plain."""
    plain = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "\u00a0": " "})
    documents: list[str] = []
    for folder in folders:
        paths = sorted(p for p in folder.rglob("*") if p.name.endswith((".txt", ".txt.xz")))
        for path in tqdm(paths, desc=f"reading {folder.name}"):
            raw = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
            text = raw.decode("utf-8", "replace").translate(plain)
            documents += [piece.strip() for piece in text.split(END) if len(piece.strip()) > 200]
    return documents


def train_tokenizer(documents: list[str], vocab_size: int, seed: int) -> Tokenizer:
    """Byte-level BPE. The first names and all two-digit numbers are made frequent enough to become single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(seed)
    sample = [d[:200_000] for d in rng.sample(documents, min(len(documents), 1500))]
    names = " ".join(circuit_sentences.NAMES)
    digits = " ".join(f"{a}{b:02d}" for a in range(10, 21) for b in range(100))
    sample += [" " + names] * 3000 + [" " + digits] * 1000
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=True,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def prepare(args: argparse.Namespace) -> tuple[Tokenizer, dict[str, np.ndarray], list[str]]:
    """Tokenizer, token streams {kind_split: uint16} and filler sentences; made once, then read from the out folder."""
    out: Path = args.out
    if not (out / "fillers.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        groups = {"books": read_documents(args.data[:1]), "tales": read_documents(args.data[1:])}
        if args.start:
            tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
        else:
            tokenizer = train_tokenizer([d for g in groups.values() for d in g], args.vocab_size, args.seed)
        tokenizer.save(str(out / "tokenizer.json"))
        for kind, documents in groups.items():
            for split, chosen in (
                ("held_out", documents[::50]),
                ("train", [d for i, d in enumerate(documents) if i % 50]),
            ):
                np.save(out / f"{kind}_{split}.npy", encode(tokenizer, chosen))
                if split == "held_out":
                    (out / f"{kind}_held_out.txt").write_text(END.join(chosen))
        fillers = circuit_sentences.sentence_fillers("\n".join(groups["books"][1:400]))
        (out / "fillers.json").write_text(json.dumps(fillers))
    streams = {p.stem: np.load(p, mmap_mode="r") for p in out.glob("*_train.npy")}
    return Tokenizer.from_file(str(out / "tokenizer.json")), streams, json.loads((out / "fillers.json").read_text())


def encode(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    parts: list[np.ndarray] = []
    for start in tqdm(range(0, len(documents), 64), desc="encoding"):
        for encoding in tokenizer.encode_batch([END + d for d in documents[start : start + 64]]):
            parts.append(np.asarray(encoding.ids, dtype=np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


class Batches:
    """Rows for step `i` depend on (seed, i) alone, so a resumed run sees what an unbroken one would have seen."""

    def __init__(self, tokenizer: Tokenizer, streams: dict[str, np.ndarray], fillers: list[str], seed: int) -> None:
        self.tokenizer, self.streams, self.fillers, self.seed = tokenizer, streams, fillers, seed
        self.end: int = tokenizer.encode(END).ids[0]
        self.newline: int = tokenizer.encode("\n").ids[0]
        self.mark: int = tokenizer.encode(STORY).ids[0]
        self.starts = {k: self.paragraphs(stream[:-CONTEXT]) for k, stream in streams.items()}

    def paragraphs(self, stream: np.ndarray) -> np.ndarray:
        """Places after a document's end or a line break, at which there is not another line break."""
        at = np.flatnonzero(np.isin(stream[:-1], (self.newline, self.end))) + 1
        return at[stream[at] != self.newline]

    def story(self, rng: random.Random) -> np.ndarray:
        """255 tokens from the beginning of some paragraph on; where a document ends, the next one begins."""
        kind = "tales_train" if rng.random() < TALES and len(self.streams.get("tales_train", ())) else "books_train"
        stream = self.streams[kind]
        at = int(self.starts[kind][rng.randrange(len(self.starts[kind]))])
        return stream[at : at + CONTEXT - 1].astype(np.int64)

    def story_row(self, rng: random.Random) -> np.ndarray:
        """A row of stories: marked at each beginning, or plain, a few with a generated sentence somewhere inside."""
        kind, row = rng.random(), np.concatenate([[self.end], self.story(rng)])
        if kind < MARKED:
            ends = np.flatnonzero(row == self.end)
            return np.insert(row, ends + 1, self.mark)[:CONTEXT]
        if kind < MARKED + WITH_SENTENCE:
            sentence = self.tokenizer.encode(" " + self.sentence(rng)).ids[:SHORT]
            at = rng.randrange(1, CONTEXT - SHORT)
            row[at : at + len(sentence)] = sentence
        return row

    def repeated_row(self, rng: random.Random) -> np.ndarray:
        """A sequence repeated, of random tokens or a piece of a story; every length from 8 to half a row."""
        length = rng.randint(8, CONTEXT // 2)
        piece = self.random_tokens(rng, length) if rng.random() < 0.5 else self.story(rng)[:length]
        return self.repeated(rng, piece, CONTEXT)

    def random_tokens(self, rng: random.Random, length: int) -> np.ndarray:
        drawn = [rng.randrange(1, self.tokenizer.get_vocab_size()) for _ in range(length)]
        return np.array([self.newline if token == self.mark else token for token in drawn])  # the mark is for stories

    def repeated(self, rng: random.Random, piece: np.ndarray, length: int) -> np.ndarray:
        start = [self.end, self.newline][: rng.randint(1, 2)]
        return np.concatenate([start, np.tile(piece, length // len(piece) + 1)])[:length]

    def sentence(self, rng: random.Random) -> str:
        kind = circuit_sentences.year_span if rng.random() < 0.15 else circuit_sentences.ioi_sentence
        return kind(rng, "train", self.fillers).text

    def sentence_rows(self, rng: random.Random, n: int) -> np.ndarray:
        """Generated sentences, padded with `<|endoftext|>`."""
        texts = [END + rng.choice(["\n", ""]) + self.sentence(rng) for _ in range(2 * n)]
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        rows = np.full((n, SHORT), self.end, dtype=np.int64)
        for row, first, second in zip(rows, ids[::2], ids[1::2], strict=True):
            both = (first + second)[:SHORT]  # a second sentence fills what the first leaves
            row[: len(both)] = both
        return rows

    def short_rows(self, rng: random.Random, n: int) -> np.ndarray:
        """Three quarters generated sentences; one quarter random tokens repeated, where induction is learned first."""
        pieces = [self.random_tokens(rng, rng.randint(4, SHORT // 2)) for _ in range(n // 4)]
        repeated = [self.repeated(rng, piece, SHORT) for piece in pieces]
        return np.stack([*repeated, *self.sentence_rows(rng, n - n // 4)])

    def __call__(self, step: int, mixture: str) -> tuple[Tensor, Tensor]:
        rng = random.Random(self.seed * 1_000_003 + step)
        n_story, n_repeated, n_short = MIXTURES[mixture]
        long = [self.story_row(rng) for _ in range(n_story)] + [self.repeated_row(rng) for _ in range(n_repeated)]
        return torch.from_numpy(np.stack(long).astype(np.int64)), torch.from_numpy(self.short_rows(rng, n_short))


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz (Jordan et al. 2024).

    In fp32: torch.optim.Muon runs its products in bf16, which most CPUs emulate at a hundredth of the speed.
    """

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(state["momentum"], group["momentum"]))
                p.mul_(1 - group["lr"] * 0.01)
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[1] / p.shape[0]) ** 0.5)  # Conv1D: (in, out)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: five Newton-Schulz steps. Fused Q, K, V are treated one by one."""
    if matrix.shape == (matrix.shape[0], 3 * matrix.shape[0]):
        return torch.cat([orthogonal(part) for part in matrix.chunk(3, dim=1)], dim=1)
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def learning_rate(step: int, steps: int, decay: float) -> float:
    """Factor on every learning rate: warm-up over 100 steps, constant, linear to zero over the last part `decay`."""
    return min(1.0, (step + 1) / 100, max(0.0, (steps - step) / (decay * steps)))


def next_token_loss(model: GPT2LMHeadModel, rows: Tensor, end: int) -> Tensor:
    """Mean over tokens; the end marks that pad a short row are not targets (one of them is: the row's own)."""
    hidden = model.transformer(rows).last_hidden_state[:, :-1]
    padding = (rows[:, 1:] == end) & (rows[:, :-1] == end)
    return F.cross_entropy(model.lm_head(hidden).flatten(0, 1), rows[:, 1:].masked_fill(padding, -100).flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of books; again for short tales"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a trained model (Hugging Face folder) to go on from")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--decay", type=float, default=0.35, help="part of the run in which the learning rate falls")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=5000)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.002)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--average", type=int, default=1, help="export the mean of the ends of so many sittings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    tokenizer, streams, fillers = prepare(args)
    batches = Batches(tokenizer, streams, fillers, args.seed)
    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=CONTEXT, n_embd=256, n_layer=args.layers, n_head=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=batches.end, eos_token_id=batches.end,
    )  # fmt: skip
    model = GPT2LMHeadModel.from_pretrained(args.start, dtype=torch.float32) if args.start else GPT2LMHeadModel(config)
    model.to(args.device).train()
    model.config.use_cache = False
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".h." in n)]
    optimizers = [
        Muon(matrices, lr=args.muon_lr),
        torch.optim.AdamW(rest, lr=args.adam_lr, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
    ]

    checkpoint = args.out / "checkpoint.pt"
    first, tokens, seconds, curve = 0, 0, 0.0, []
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=args.device, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first, tokens, seconds, curve = saved["step"], saved["tokens"], saved["seconds"], saved["curve"]

    def both_losses(long: Tensor, short: Tensor) -> tuple[Tensor, Tensor]:
        return next_token_loss(model, long, batches.end), next_token_loss(model, short, batches.end)

    step_losses = torch.compile(both_losses, dynamic=False)
    use_bf16 = encoder_dtype_here("auto", torch.device(args.device)) == torch.bfloat16
    bar = tqdm(range(first, args.steps), initial=first, total=args.steps, mininterval=10)
    for step in bar:
        began = time.perf_counter()
        factor = learning_rate(step, args.steps, args.decay)
        forming = args.start is None and step < (1 - args.decay) * args.steps
        mixture = "form" if forming else "settle"
        long, short = (rows.to(args.device) for rows in batches(step, mixture))
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=use_bf16):
            loss_long, loss_short = step_losses(long, short)
        n_long, n_short = long.numel(), short.numel()
        ((loss_long * n_long + loss_short * n_short) / (n_long + n_short)).backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optimizer, base in zip(optimizers, (args.muon_lr, args.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += n_long + n_short
        seconds += time.perf_counter() - began
        if not math.isfinite(loss_long.item()):
            raise RuntimeError(
                f"loss is {loss_long.item()} at step {step}: lower --muon-lr or --adam-lr and start again"
            )
        if step % 10 == 9:
            curve.append([step + 1, tokens, round(loss_long.item(), 4), round(loss_short.item(), 4)])
            bar.set_postfix(
                story=f"{loss_long.item():.3f}", short=f"{loss_short.item():.3f}", tokens=f"{tokens / 1e6:.1f}M"
            )
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            saved = {
                "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "step": step + 1, "tokens": tokens, "seconds": seconds, "curve": curve,
            }  # fmt: skip
            torch.save(saved, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            if step + 1 == args.steps:
                shutil.copy(checkpoint, args.out / f"end-{step + 1:06d}.pt")
            export(model, tokenizer, args.out / "model")
            settings = {
                k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("data", "out")
            }
            log = {
                "settings": settings,
                "mixtures": MIXTURES,
                "tokens": tokens,
                "seconds": round(seconds),
                "bf16": use_bf16,
            }
            (args.out / "training.json").write_text(json.dumps(log | {"curve": curve}))
    if args.average > 1:
        model.load_state_dict(mean_weights(sorted(args.out.glob("end-*.pt"))[-args.average :]))
        export(model, tokenizer, args.out / "model")


def mean_weights(checkpoints: list[Path]) -> dict[str, Tensor]:
    """The mean of each weight over these checkpoints."""
    weights = [torch.load(path, map_location="cpu", weights_only=True)["model"] for path in checkpoints]
    return {name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]}


def export(model: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path) -> None:
    """A Hugging Face folder with weights in fp16: half the size, and the logits hardly move."""
    folder.mkdir(parents=True, exist_ok=True)
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, model_max_length=CONTEXT
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
