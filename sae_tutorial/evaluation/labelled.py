"""Properties of tokens and of rows of text that a reader can check, as yes-or-no tasks; no data but the text is needed.

    tasks = [*token_tasks(model, tokens), *row_tasks(titles)]
    words = word_types(model, tokens)          each word once, with its first letter

A task has as many examples with the property as without, and no row of text serves both training and test: even rows
are for training, odd ones for test. The rules look at letters and marks and know no grammar; they are ours.

Letters of shapes: R rows, S positions in a row, N examples, C properties.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.kept_text import checked_tokens

WHOLE_ROW = -1  # in the place of a column: the example is all tokens of the row
LETTERS = string.ascii_lowercase
FREQUENT = "stbm"  # letters that begin many words: tasks of their own
IRREGULAR = frozenset(
    "was were had did said went came saw took gave made got knew thought told found left felt kept began stood heard "
    "ran sat spoke wrote fell held brought grew lost threw ate drank rode sang slept won broke chose drove flew".split()
)


def _is_word(text: str) -> bool:
    return len(text) > 2 and text[0] == " " and text[1:].isascii() and text[1:].isalpha()


def _is_past(word: str) -> bool:
    return word in IRREGULAR or (len(word) > 4 and word.endswith("ed") and not word.endswith("eed"))


BY: dict[str, dict[str, Callable[[str], bool]]] = {
    "letter": {letter: lambda word, letter=letter: word[0].lower() == letter for letter in LETTERS},  # type: ignore
    "form": {
        "capital letter": lambda word: word[0].isupper(),
        "past tense": _is_past,
        "ends in -ing": lambda word: len(word) > 4 and word.endswith("ing"),
        "ends in -ly": lambda word: len(word) > 3 and word.endswith("ly"),
        "ends in -s": lambda word: len(word) > 3 and word.endswith("s") and not word.endswith("ss"),
    },
}


@dataclass(frozen=True, eq=False)
class Task:
    """Examples with a yes-or-no label: token `column` of `row`, or the whole row where the column is WHOLE_ROW."""

    name: str
    row: Int[Tensor, " examples"]
    column: Int[Tensor, " examples"]
    label: Bool[Tensor, " examples"]
    test: Bool[Tensor, " examples"]

    def __repr__(self) -> str:
        return f"Task({self.name!r}: {int((~self.test).sum())} examples to train on, {int(self.test.sum())} for test)"


@dataclass(frozen=True, eq=False)
class WordTypes:
    """Words of a text, each once: where it stands, its token, which of the properties `names` it has, and whether it is
    for test."""

    names: tuple[str, ...]
    row: Int[Tensor, " words"]
    column: Int[Tensor, " words"]
    token: Int[Tensor, " words"]
    labels: Bool[Tensor, "words properties"]
    test: Bool[Tensor, " words"]


def token_texts(model: Any) -> list[str]:
    """The text of every token of the vocabulary. Raises ValueError for a model without a tokenizer."""
    if getattr(model, "tokenizer", None) is None:
        raise ValueError("model has no tokenizer, so its tokens have no text; load_language_model(…, tokenizer=…)")
    return list(model.tokenizer.batch_decode([[i] for i in range(model.cfg.d_vocab)]))


# ---------------------------------------------------------------------- tasks


def token_tasks(
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    *,
    n_train: int = 1000,
    n_test: int = 500,
    least: int = 50,
    seed: int = 0,
) -> list[Task]:
    """A task for each property of `token_properties`, on rows that begin with the beginning-of-text token.

    n_train, n_test    examples, half of them with the property; fewer where the text has fewer
    least              properties with fewer examples than this of either kind, in either part, are left out

    Raises ValueError for tokens that are not the model's, or if no property has enough examples.
    """
    tokens, decoded = checked_tokens(tokens, model), token_texts(model)
    special = tokens.new_tensor([i for i in getattr(model.tokenizer, "all_special_ids", ()) if i is not None])
    usable = ~torch.isin(tokens, special)
    usable[:, 0] = False
    tasks = []
    for name, (yes, known) in token_properties(decoded, tokens).items():
        task = balanced(name, yes, known & usable, n_train, n_test, seed)
        if task is not None and _smallest(task) >= least:
            tasks.append(task)
    if not tasks:
        raise ValueError(
            f"tokens: no property has least={least} examples of each kind; give more rows, or a smaller least"
        )
    return tasks


def row_tasks(
    titles: Sequence[str], *, n_train: int = 1000, n_test: int = 500, least: int = 5, seed: int = 0
) -> list[Task]:
    """For each title "is this row from this book?", where there are at least `least` rows of it in either part.

    `titles` names the source of each row, as `story_titles` does. Raises ValueError for fewer than two sources, or none
    that is large enough.
    """
    names = list(dict.fromkeys(titles))
    if len(names) < 2:
        raise ValueError(f"titles has {len(names)} source of rows; two or more are needed to tell apart")
    whole, tasks = torch.ones(len(titles), 1, dtype=torch.bool), []
    for name in names:
        yes = torch.tensor([title == name for title in titles])[:, None]
        task = balanced(f"book: {name}", yes, whole, n_train, n_test, seed)
        if task is not None and _smallest(task) >= least:
            tasks.append(Task(task.name, task.row, torch.full_like(task.column, WHOLE_ROW), task.label, task.test))
    if not tasks:
        raise ValueError(f"titles: no source has least={least} even and odd rows; give more rows, or a smaller least")
    return tasks


def balanced(
    name: str,
    yes: Bool[Tensor, "rows positions"],
    usable: Bool[Tensor, "rows positions"],
    n_train: int,
    n_test: int,
    seed: int = 0,
) -> Task | None:
    """As many usable places with the property as without, drawn from even rows for training and odd rows for test; None
    where a part has none. Raises ValueError for shapes that differ and numbers below 2."""
    if yes.shape != usable.shape or yes.dim() != 2:
        raise ValueError(f"yes is {tuple(yes.shape)}, usable {tuple(usable.shape)}; give two (rows, positions) tables")
    n_train, n_test = as_whole("n_train", n_train, 2), as_whole("n_test", n_test, 2)
    generator, parts = torch.Generator().manual_seed(seed), []
    for odd, n in ((0, n_train), (1, n_test)):
        here = usable & (torch.arange(len(yes)) % 2 == odd)[:, None]
        kinds = [place.nonzero() for place in (here & yes, here & ~yes)]
        each = min(n // 2, *map(len, kinds))
        if each == 0:
            return None
        for label, places in zip((True, False), kinds):
            chosen = places[torch.randperm(len(places), generator=generator)[:each]]
            parts.append((chosen, torch.full((each,), label), torch.full((each,), bool(odd))))
    drawn, labels, tests = (torch.cat(part) for part in zip(*parts))
    return Task(name, drawn[:, 0], drawn[:, 1], labels, tests)


def _smallest(task: Task) -> int:
    """Of one kind in one part; both kinds have as many."""
    return int(min((task.label & task.test).sum(), (task.label & ~task.test).sum()))


# ---------------------------------------------------------------------- words


def word_types(
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    by: Literal["letter", "form"] = "letter",
    *,
    test_share: float = 0.2,
    seed: int = 0,
) -> WordTypes:
    """Every token that is a space and two or more Latin letters, at one random place of the text, with the letter that
    it begins with, or (`by="form"`, for models that do not spell) whether it has a capital letter, is in the past tense
    or ends in -ing, -ly or -s. A random share of the *words* is for test: what is found holds for words never seen.

    Raises ValueError for another `by`, a share outside (0, 1), and a text without two such words.
    """
    if by not in BY:
        raise ValueError(f"by={by!r} must be one of {', '.join(map(repr, BY))}")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share!r} must lie between 0 and 1")
    tokens, decoded = checked_tokens(tokens, model), token_texts(model)
    is_word = torch.tensor([_is_word(text) for text in decoded])
    places = is_word[tokens].nonzero()
    generator = torch.Generator().manual_seed(seed)
    places = places[torch.randperm(len(places), generator=generator)]
    found = tokens[places[:, 0], places[:, 1]]
    if len(found.unique()) < 2:
        raise ValueError("tokens: fewer than two words (a space and two or more letters); give more text")
    order = found.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = found[order][1:] != found[order][:-1]
    kept = order[first]
    words = [decoded[i][1:] for i in found[kept].tolist()]
    labels = torch.tensor([[has(word) for has in BY[by].values()] for word in words])
    test = torch.zeros(len(kept), dtype=torch.bool)
    test[torch.randperm(len(kept), generator=generator)[: max(1, round(test_share * len(kept)))]] = True
    return WordTypes(tuple(BY[by]), places[kept, 0], places[kept, 1], found[kept], labels, test)


# ---------------------------------------------------------------------- properties


def token_properties(
    decoded: Sequence[str], tokens: Int[Tensor, "rows positions"]
) -> dict[str, tuple[Bool[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]]:
    """For each property, which tokens have it, and of which tokens that is known (the same shape).

    capital letter    of words (a space and two or more letters): it begins with one
    first letter x    of words: for some frequent letters
    past tense        of words in small letters: it ends in -ed, or is one of a short list
    name              of words with a capital letter: no sentence or speech starts there
    after a comma     the token before ends with a comma
    in quotation      a quotation mark has opened before it in its row, and not closed; unknown before the first one

    `decoded` holds the text of every token.
    """
    words_V = torch.tensor([_is_word(text) for text in decoded])
    capital_V = torch.tensor([text[1:2].isupper() for text in decoded])
    past_V = torch.tensor([_is_past(text[1:]) for text in decoded])
    comma_V = torch.tensor([text.rstrip().endswith(",") for text in decoded])
    words, capital, every = words_V[tokens], capital_V[tokens], torch.ones_like(tokens, dtype=torch.bool)
    after_comma = torch.zeros_like(every)
    after_comma[:, 1:] = comma_V[tokens[:, :-1]]
    quoted, known, opens = _marks(decoded, tokens)
    found = {"capital letter": (capital, words), "past tense": (past_V[tokens], words & ~capital)}
    found |= {"name": (words & capital & ~opens, words & capital), "after a comma": (after_comma, every)}
    found["in quotation"] = (quoted, known)
    for letter in FREQUENT:
        is_it_V = torch.tensor([text[1:2].lower() == letter for text in decoded])
        found[f"first letter {letter}"] = (is_it_V[tokens], words)
    return found


def _marks(decoded: Sequence[str], tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token: is it within a quotation, is that known, and does a sentence or speech start there?

    A straight mark opens where nothing but a space or a dash stands before it, else it closes.
    """
    quoted, known, opens = (torch.zeros(tokens.shape, dtype=torch.bool) for _ in range(3))
    for r, row in enumerate(tokens.tolist()):
        inside, sure, start, before = False, False, True, " "
        for s, token in enumerate(row):
            quoted[r, s], known[r, s], opens[r, s] = inside, sure, start
            for mark in decoded[token]:
                if mark in "“”" or mark == '"':
                    inside, sure = mark == "“" or (mark == '"' and (before.isspace() or before in "-—(")), True
                    start = start or inside
                elif mark.isalnum():
                    start = False
                elif mark in ".!?\n":
                    start = True
                before = mark
    return quoted, known, opens
