"""Cut the real text that the course ships out of public-domain books that the embedded model was not trained on.

    python scripts/ship_books.py --text RUN/books_held_out.txt

FILE is what `train_language_model.py` held out (Project Gutenberg, a book between two `<|endoftext|>`). Of each book
in BOOKS, one piece is taken, from the first paragraph after an eighth of it on, so that title pages and prefaces stay
out; books shorter than their share give what they have, and the others make up for it. For each model in TEXT_OF, the
pieces are encoded by its tokenizer and cut into rows of 255 tokens. A row in which the model finds 32 tokens above 7
nats on average (lists of old names, dialect) makes room for the next one of its book.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import checksums
import numpy as np
import torch
from sample_stories import GIBBERISH, worst_window
from transformers import AutoTokenizer

from sae_tutorial import load_language_model
from sae_tutorial.activations.files import write_atomically
from sae_tutorial.activations.forward import fused_forward
from sae_tutorial.activations.language_model import STORIES
from sae_tutorial.activations.shipped_text import TEXT_OF, TEXTS, pack_rows, rows_with
from sae_tutorial.activations.smollm2 import smollm2_folder
from sae_tutorial.activations.text import END
from sae_tutorial.course.transformers.measures import next_token_losses

LENGTH = 255  # tokens in a row
ROWS = {"stories": 345, "smollm2": 2_000}  # 300 kB of text, and half a million tokens
# Title (author), and words from the beginning of its text by which it is found.
BOOKS = {
    "The Sea Fogs (Robert Louis Stevenson)": "A sheeted spectre white and",
    "A Debt of Honor (Horatio Alger)": "OUR story opens in a cabin among the foothills of Colorado",
    "An Old-Fashioned Girl (Louisa May Alcott)": "AS a preface is the only place where an author",
    "Bonnie Prince Charlie (G. A. Henty)": "A Tale of Fontenoy and Culloden",
    "The Errand Boy (Horatio Alger)": "Phil Brent was plodding",
    "The Prince and the Pauper (Mark Twain)": "The Great Seal\nLet us skip a number of years",
    "By England's Aid (G. A. Henty)": "In my preface to By Pike and Dyke",
    "Tales of Daring and Danger (G. A. Henty)": "bungalows of Poonah",
    "Aunt Jo's Scrap-Bag (Louisa May Alcott)": "As grandmothers rummage their piece-bags",
    "Lodusky (Frances Hodgson Burnett)": "They were rather an incongruous element amid the festivities",
    "The Dreadnought Boys on a Submarine (Wilbur Lawton)": "The Dreadnought Boys On a Submarine.",
    "The Story Girl (L. M. Montgomery)": 'Author of "Anne of Green Gables," "Anne of Avonlea,"',
    "The Gilded Age (Mark Twain and Charles Dudley Warner)": "Only two or three days had elapsed since the funeral",
    "Rinkitink in Oz (L. Frank Baum)": "Wherein is recorded the Perilous Quest of Prince Inga",
    "Two Little Pilgrims' Progress (Frances Hodgson Burnett)": "Their dream had come true",
}


def found(documents: list[str]) -> dict[str, str]:
    """Each book's text from the first paragraph after an eighth of it on. SystemExit for a book that is not there."""
    texts = {}
    for title, words in BOOKS.items():
        book = next((one for one in documents if words.lower() in one[:6_000].lower()), None)
        if book is None:
            raise SystemExit(f"{title} ({words!r}) is not in the text: is it what this model's training held out?")
        texts[title] = book[book.index("\n", len(book) // 8) + 1 :]
    return texts


def shares(available: list[int], wanted: int) -> list[int]:
    """How many rows each book gives: the same number, as far as it has them. SystemExit if that is not enough."""
    if sum(available) < wanted:
        raise SystemExit(f"the books have {sum(available):,} rows, {wanted:,} are wanted")
    level = next(n for n in range(max(available) + 1) if sum(min(n, most) for most in available) >= wanted)
    return [min(level, most) for most in available]


@torch.no_grad()
def legible(rows_NT: np.ndarray, name: str, model: Any) -> np.ndarray:
    """(n,) bool: not gibberish by the measure of the model's own text."""
    found = []
    with fused_forward(model):
        for part in rows_with(TEXT_OF[name], rows_NT).split(16):
            losses = next_token_losses(model(part, return_type="logits", use_cache=False).float(), part)
            found.append(worst_window(losses) <= GIBBERISH)
    return torch.cat(found).numpy()


def with_legible_rows(rows_NT: np.ndarray, n: int, name: str, model: Any) -> tuple[np.ndarray, int]:
    """The first n rows of a book, where the next ones have taken the places of those that are not legible; and how many
    were left out."""
    taken, good = np.arange(n), legible(rows_NT[:n], name, model)
    spare = iter(range(n, len(rows_NT)))
    for place in np.flatnonzero(~good):
        taken[place] = next((i for i in spare if legible(rows_NT[i : i + 1], name, model)[0]), -1)
    if (taken < 0).any():
        raise SystemExit(f"a book has no {n} rows that {name} finds legible; ask for fewer in ROWS")
    return rows_NT[taken], int((~good).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TEXTS)
    parser.add_argument("--only", choices=ROWS, nargs="+", default=list(ROWS))
    args = parser.parse_args()
    texts = found(args.text.read_text(encoding="utf-8").split(END))
    folders = {"stories": lambda: STORIES, "smollm2": smollm2_folder}
    for model in args.only:
        tokenizer = AutoTokenizer.from_pretrained(folders[model]())
        ids = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts.values()]
        numbers = shares([len(one) // LENGTH for one in ids], ROWS[model])
        language_model, chosen = load_language_model(model), []
        for one, n in zip(ids, numbers):
            of_book = np.array(one[: len(one) // LENGTH * LENGTH]).reshape(-1, LENGTH)
            chosen.append(with_legible_rows(of_book, n, model, language_model))
        rows, left_out = np.concatenate([rows for rows, _ in chosen]), sum(n for _, n in chosen)
        (args.out / model).mkdir(parents=True, exist_ok=True)
        path = args.out / model / "books.npy.xz"
        pack_rows(rows, path)
        write_atomically(path.with_name("titles.json"), json.dumps(list(zip(texts, numbers)), indent=1).encode())
        n_bytes = len(tokenizer.decode(rows.flatten()).encode())
        sizes = f"{rows.size:,} tokens, {n_bytes:,} bytes of text, {path.stat().st_size:,} packed"
        print(f"{model}: {len(rows):,} rows, {left_out} others left out, {sizes}")
    checksums.record(args.out)


if __name__ == "__main__":
    main()
