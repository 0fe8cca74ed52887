"""Properties of a token that a reader can check; the rules look at letters and marks, know no grammar, and are ours.

decoded = token_texts(model)
token_properties(decoded, tokens)       of the tokens of a text: name -> which have it, of which it is known
WORD_PROPERTIES["letter"]["s"](word)    of a word by itself
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

LETTERS = string.ascii_lowercase
QUOTES = '“”"'
FREQUENT = "stbm"  # letters that begin many words: tasks of their own
IRREGULAR = frozenset(
    "was were had did said went came saw took gave made got knew thought told found left felt kept began stood heard "
    "ran sat spoke wrote fell held brought grew lost threw ate drank rode sang slept broke chose drove flew caught "
    "taught bought fought paid met sent spent built led shook wore rose stuck struck hung flung became understood "
    "forgot crept swept meant lay laid sprang drew died tied used".split()
)
NO_PAST = frozenset("hundred hatred kindred sacred wicked naked rugged crooked".split())  # end in -ed all the same
TITLES = frozenset("Mr Mrs Ms Dr St Col Capt Gen Rev Prof Lieut Messrs Mme Mlle".split())  # a full stop, and no end


def token_texts(model: Any) -> list[str]:
    """The text of every token of the vocabulary. Raises ValueError for a model without a tokenizer."""
    if getattr(model, "tokenizer", None) is None:
        raise ValueError("model has no tokenizer, so its tokens have no text; load_language_model(…, tokenizer=…)")
    return list(model.tokenizer.batch_decode([[i] for i in range(model.cfg.d_vocab)]))


def is_word(text: str) -> bool:
    """A space and two or more Latin letters: a word, or its beginning."""
    return len(text) > 2 and text[0] == " " and text[1:].isascii() and text[1:].isalpha()


def is_past(word: str) -> bool:
    """By its letters: participles count too, which look alike (looked), and `won` does not, most of which is won't."""
    return word in IRREGULAR or (
        len(word) > 4 and word.endswith("ed") and not word.endswith("eed") and word not in NO_PAST
    )


WORD_PROPERTIES: dict[str, dict[str, Callable[[str], bool]]] = {
    "letter": {letter: lambda word, letter=letter: word[0].lower() == letter for letter in LETTERS},  # type: ignore
    "form": {
        "capital letter": lambda word: word[0].isupper(),
        "past tense": is_past,
        "ends in -ing": lambda word: len(word) > 4 and word.endswith("ing"),
        "ends in -ly": lambda word: len(word) > 3 and word.endswith("ly"),
        "ends in -s": lambda word: len(word) > 3 and word.endswith("s") and not word.endswith("ss"),
    },
}


def token_properties(
    decoded: Sequence[str], tokens: Int[Tensor, "rows positions"]
) -> dict[str, tuple[Bool[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]]:
    """For each property, which tokens have it, and of which tokens that is known (the same shape).

    capital letter    of words (a space and two or more letters): it begins with one
    first letter x    of words: for some frequent letters
    past tense        of words in small letters: it ends in -ed, or is one of a short list. So participles count, and
                      forms that look like the present do not (" put")
    name              of words with a capital letter: no sentence or speech starts there. Titles count (" King"), and a
                      name that begins a sentence does not, a few in a hundred of those without the property
    after a comma     the token before ends with a comma
    in quotation      a quotation mark has opened before it in its row, and not closed; unknown before the first one,
                      and of a token that holds a mark
    in a question     the first of its sentence's . ! ? that follows is a question mark; unknown where none follows in
                      its row, and of the token that holds it

    `decoded` holds the text of every token.
    """
    words_V = torch.tensor([is_word(text) for text in decoded])
    capital_V = torch.tensor([text[1:2].isupper() for text in decoded])
    past_V = torch.tensor([is_past(text[1:]) for text in decoded])
    comma_V = torch.tensor([text.rstrip().endswith(",") for text in decoded])
    words, capital, every = words_V[tokens], capital_V[tokens], torch.ones_like(tokens, dtype=torch.bool)
    after_comma = torch.zeros_like(every)
    after_comma[:, 1:] = comma_V[tokens[:, :-1]]
    quoted, known, opens, asks, ends = _marks(decoded, tokens)
    marked = torch.tensor([any(mark in text for mark in QUOTES) for text in decoded])[tokens]
    found = {"capital letter": (capital, words), "past tense": (past_V[tokens], words & ~capital)}
    found |= {"name": (words & capital & ~opens, words & capital), "after a comma": (after_comma, every)}
    found |= {"in quotation": (quoted & ~marked, known & ~marked), "in a question": (asks, ends)}
    for letter in FREQUENT:
        is_it_V = torch.tensor([text[1:2].lower() == letter for text in decoded])
        found[f"first letter {letter}"] = (is_it_V[tokens], words)
    return found


def _marks(decoded: Sequence[str], tokens: Tensor) -> tuple[Tensor, ...]:
    """Of each token: is it within a quotation, is that known, does a sentence or speech start there; does its sentence
    end with a question mark, and is that known?

    A straight mark opens where nothing but a space or a dash stands before it, else it closes. No sentence starts after
    the full stop of "Mr." or of an initial.
    """
    tables = [torch.zeros(tokens.shape, dtype=torch.bool) for _ in range(5)]
    quoted, known, opens, asks, ends = tables
    for r, row in enumerate(tokens.tolist()):
        inside, sure, start, before, word, since = False, False, True, " ", "", 0
        for s, token in enumerate(row):
            quoted[r, s], known[r, s], opens[r, s] = inside, sure, start
            for mark in decoded[token]:
                if mark in QUOTES:
                    inside, sure = mark == "“" or (mark == '"' and (before.isspace() or before in "-—(")), True
                    start = start or inside
                elif mark.isalnum():
                    start, word = False, word + mark if before.isalnum() else mark
                elif mark in "!?\n" or (mark == "." and not (before.isalnum() and _is_short(word))):
                    start = True
                    if mark != "\n":
                        asks[r, since:s], ends[r, since:s] = mark == "?", True
                    since = s + 1
                before = mark
    return tuple(tables)


def _is_short(word: str) -> bool:
    """What a full stop follows in the middle of a sentence: a title before a name, or an initial."""
    return word in TITLES or (len(word) == 1 and word.isupper() and word != "I")
