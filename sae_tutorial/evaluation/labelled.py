"""Yes-or-no tasks about tokens and rows of text, and words with their properties; no data but the text is needed.

    tasks = [*token_tasks(model, tokens), *row_tasks(titles)]
    words = word_types(model, tokens)          each word once, with its first letter

A task has as many examples with the property as without, and no row of text serves both training and test: even rows
are for training, odd ones for test. But where a passage was cut into rows and these were shuffled, as `story_tokens`
does, its rows stand on both sides. And a half is not what accuracies compare with: in the shipped books, rows of 64, a
table of what the training tokens were labelled is right in 57% (in a question) to 88% (name), one of the tokens before
them in 92% of "name", and a count of words tells books apart in 87%.

Letters of shapes: R rows, S positions in a row, N examples, C properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.kept_text import checked_tokens
from sae_tutorial.evaluation.properties import WORD_PROPERTIES, is_word, token_properties, token_texts

WHOLE_ROW = -1  # in the place of a column: the example is all tokens of the row
TABLES = ("row", "column", "label", "test")  # of a task


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
    where a part has none. Raises ValueError for shapes that differ and numbers below 2, TypeError for tables that are
    not boolean."""
    if yes.shape != usable.shape or yes.dim() != 2:
        raise ValueError(f"yes is {tuple(yes.shape)}, usable {tuple(usable.shape)}; give two (rows, positions) tables")
    if yes.dtype != torch.bool or usable.dtype != torch.bool:
        raise TypeError(f"yes is {yes.dtype}, usable {usable.dtype}; give True and False, yes.bool()")
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


def correlated_tasks(
    one: str,
    other: str,
    properties: Mapping[str, tuple[Bool[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]],
    usable: Bool[Tensor, "rows positions"] | None = None,
    *,
    n_train: int = 1000,
    n_test: int = 500,
    seed: int = 0,
) -> tuple[Task, Task, Task]:
    """For `concept_removal.correlation_removal`: a task whose examples have both properties or neither, one that is
    labelled by the first and balanced over the second, and the other way round.

    `properties` are those of `token_properties`. Raises ValueError for names that are not among them, and where some
    combination does not occur in both even and odd rows.
    """
    for name in (one, other):
        if name not in properties:
            raise ValueError(f"{name!r} is not among the properties {', '.join(properties)}")
    (yes_1, known_1), (yes_2, known_2) = properties[one], properties[other]
    where = known_1 & known_2 if usable is None else known_1 & known_2 & usable
    both = balanced(f"{one} and {other}", yes_1 & yes_2, where & (yes_1 == yes_2), n_train, n_test, seed)
    free = []
    for name, yes, rest in ((one, yes_1, yes_2), (other, yes_2, yes_1)):
        halves = [balanced(name, yes, where & side, n_train // 2, n_test // 2, seed) for side in (rest, ~rest)]
        free.append(_joined(halves))
    first, second = free
    if both is None or first is None or second is None:
        raise ValueError(f"tokens: {one!r} and {other!r} do not occur in all combinations; give more rows")
    return both, first, second


def _joined(halves: list[Task | None]) -> Task | None:
    """Two tasks of one name in one, as many examples of either."""
    there = [task for task in halves if task is not None]
    if len(there) < len(halves):
        return None
    kept = []
    for task in there:
        keep = torch.zeros(len(task.label), dtype=torch.bool)
        for test in (False, True):
            each = min(int((other.test == test).sum()) for other in there) // 2
            for label in (False, True):
                keep[((task.test == test) & (task.label == label)).nonzero()[:each, 0]] = True
        kept.append(keep)
    parts = [[getattr(task, name)[keep] for task, keep in zip(there, kept)] for name in TABLES]
    return Task(there[0].name, *map(torch.cat, parts))


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
    or ends in -ing, -ly or -s. A random share of the *words* is for test, " The" along with " the": what is found holds
    for words never seen, though not for other forms of theirs (" looked" may be for training, " looking" for test).

    Raises ValueError for another `by`, a share outside (0, 1), and a text without two such words.
    """
    if by not in WORD_PROPERTIES:
        raise ValueError(f"by={by!r} must be one of {', '.join(map(repr, WORD_PROPERTIES))}")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share!r} must lie between 0 and 1")
    tokens, decoded = checked_tokens(tokens, model), token_texts(model)
    word_V = torch.tensor([is_word(text) for text in decoded])
    places = word_V[tokens].nonzero()
    generator = torch.Generator().manual_seed(seed)
    places = places[torch.randperm(len(places), generator=generator)]
    found = tokens[places[:, 0], places[:, 1]]
    order = found.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = found[order][1:] != found[order][:-1]
    kept = order[first]
    words = [decoded[i][1:] for i in found[kept].tolist()]
    number: dict[str, int] = {}
    spelt = torch.tensor([number.setdefault(word.lower(), len(number)) for word in words])
    if len(number) < 2:
        raise ValueError("tokens: fewer than two words (a space and two or more letters); give more text")
    labels = torch.tensor([[has(word) for has in WORD_PROPERTIES[by].values()] for word in words])
    n_test = max(1, round(test_share * len(number)))
    test = torch.isin(spelt, torch.randperm(len(number), generator=generator)[:n_test])
    return WordTypes(tuple(WORD_PROPERTIES[by]), places[kept, 0], places[kept, 1], found[kept], labels, test)
