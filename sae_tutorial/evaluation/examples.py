"""The activations of labelled examples, read once and judged through any dictionary; and what SAEs are compared with.

    examples = read_examples(model, tokens, hook_name, tasks)     of each task, one pass over the text
    examples[0].codes(dictionary_of(sae))                         (examples, features)
    random_sae(sae, examples)                                     as large and as sparse, with random weights
    coordinates(d)                                                no SAE: each coordinate of the activations

An example is one token, or a row of text: then its activation is the mean over its tokens, and its code the mean of
their codes, as SAEBench (Karvonen et al. 2025) has it.

Letters of shapes: T tokens, N examples, D width of an activation, F features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hook
from sae_tutorial.activations.kept_text import checked_tokens
from sae_tutorial.activations.massive import checked_max_norm
from sae_tutorial.activations.memory import at_once, rows_per_pass
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.labelled import WHOLE_ROW, Task, WordTypes


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of a yes-or-no question: `tokens`, one activation each, and the `example` that each belongs to."""

    name: str
    tokens: Float[Tensor, "tokens d"]
    example: Int[Tensor, " tokens"]
    label: Bool[Tensor, " examples"]
    test: Bool[Tensor, " examples"]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.example) or self.label.shape != self.test.shape or not len(self.example):
            shapes = [tuple(t.shape) for t in (self.tokens, self.example, self.label, self.test)]
            raise ValueError(f"{self.name}: tokens, example, label and test have shapes {shapes}; one entry for each")
        check_table(self.name, self.tokens, label=self.label, test=self.test)
        if (torch.bincount(self.example, minlength=len(self.label)) == 0).any():
            raise ValueError(f"{self.name}: some examples have no token; leave them out")
        for part, where in (("training", ~self.test), ("test", self.test)):
            if self.label[where].sum() in (0, int(where.sum())):
                raise ValueError(f"{self.name}: {part} examples are all of one kind; both kinds are needed")

    @classmethod
    def of(cls, name: str, x: Float[Tensor, "n d"], label: Bool[Tensor, " n"], test: Bool[Tensor, " n"]) -> Examples:
        """Of activations, each an example."""
        return cls(name, x, torch.arange(len(x), device=x.device), label.bool(), test.bool())

    @cached_property
    def x(self) -> Float[Tensor, "examples d"]:
        """The activation of each example."""
        return self.mean(self.tokens)

    def codes(self, dictionary: Dictionary) -> Float[Tensor, "examples features"]:
        """The code of each example, encoded piece by piece."""
        F = len(dictionary.directions)
        sums_NF = self.tokens.new_zeros(len(self.label), F)
        pieces = in_pieces(dictionary, self.tokens)
        for part, where in zip(pieces, self.example.split(len(pieces[0]))):
            sums_NF.index_add_(0, where, dictionary.encode(part).to(sums_NF.dtype))
        return sums_NF / self._lengths

    def reconstructed(self, dictionary: Dictionary) -> Examples:
        """The same examples as the dictionary reconstructs them."""
        pieces = [dictionary.reconstruct(part) for part in in_pieces(dictionary, self.tokens)]
        return replace(self, tokens=torch.cat(pieces))

    def mean(self, values: Float[Tensor, "tokens e"]) -> Float[Tensor, "examples e"]:
        """Over the tokens of each example."""
        return values.new_zeros(len(self.label), values.shape[1]).index_add_(0, self.example, values) / self._lengths

    @property
    def _lengths(self) -> Float[Tensor, "examples 1"]:
        return torch.bincount(self.example, minlength=len(self.label))[:, None].to(self.tokens.dtype)


@dataclass(frozen=True, eq=False)
class WordExamples:
    """Words, each with its activation, its token, which properties it has, and whether it is for test."""

    names: tuple[str, ...]
    x: Float[Tensor, "words d"]
    token: Int[Tensor, " words"]
    labels: Bool[Tensor, "words properties"]
    test: Bool[Tensor, " words"]

    def __post_init__(self) -> None:
        check_table("words", self.x, labels=self.labels, test=self.test)


def check_table(name: str, x: Float[Tensor, "n d"], **flags: Tensor) -> None:
    """Raises TypeError for activations that are not float32 and flags that are not boolean (as an index, numbers mean
    another thing), ValueError for NaN and inf: an activation that is no number would count as a no."""
    if x.dtype != torch.float32:
        raise TypeError(f"{name}: activations are {x.dtype}; give float32, x.float()")
    for flag, values in flags.items():
        if values.dtype != torch.bool:
            raise TypeError(f"{name}: {flag} is {values.dtype}; give True and False, {flag}.bool()")
    if not x.isfinite().all():
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{name}: activation {row} has NaN or inf; leave it out")


def read_examples(
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    hook_name: str,
    tasks: Sequence[Task],
    max_norm: float | None = 10.0,
) -> list[Examples]:
    """The activations of each task's examples at a hook, in float32 on the CPU.

    Rows begin with the beginning-of-text token. It is in no example, nor are tokens whose activation is longer than
    `max_norm` times the median of those that were read (massive activations); a warning says how many there were, and
    None keeps them. Raises ValueError for a hook or tokens that are not the model's, a max_norm that is not above 1,
    and where a task is left without an example.
    """
    tokens = checked_tokens(tokens, model)
    places = [_places(task, tokens.shape[1]) for task in tasks]
    if not places:
        raise ValueError("tasks is empty; give one or more, see labelled.token_tasks")
    wanted = torch.cat([row * tokens.shape[1] + column for row, column, _ in places]).unique()
    acts, fine = _activations(model, tokens, hook_name, wanted, max_norm)
    found = []
    for task, (row, column, example) in zip(tasks, places):
        at = torch.searchsorted(wanted, row * tokens.shape[1] + column)
        kept = fine[at]
        there = torch.bincount(example[kept], minlength=len(task.label)) > 0
        if not there.any():
            raise ValueError(f"{task.name}: max_norm={max_norm} leaves no example; raise it")
        new = there.long().cumsum(0) - 1
        found.append(Examples(task.name, acts[at[kept]], new[example[kept]], task.label[there], task.test[there]))
    return found


def read_words(
    model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str, words: WordTypes, max_norm: float | None = 10.0
) -> WordExamples:
    """The activation of each word at its place; those that are massive are left out. Raises as `read_examples` does."""
    tokens = checked_tokens(tokens, model)
    place = words.row * tokens.shape[1] + words.column
    wanted = place.unique()
    acts, fine = _activations(model, tokens, hook_name, wanted, max_norm)
    at = torch.searchsorted(wanted, place)
    kept = fine[at]
    return WordExamples(words.names, acts[at[kept]], words.token[kept], words.labels[kept], words.test[kept])


def _places(task: Task, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and number of the example, for each of its tokens."""
    number = torch.arange(len(task.row))
    whole = task.column == WHOLE_ROW
    columns = torch.arange(1, context)
    row = torch.cat([task.row[~whole], task.row[whole].repeat_interleave(context - 1)])
    column = torch.cat([task.column[~whole], columns.repeat(int(whole.sum()))])
    return row, column, torch.cat([number[~whole], number[whole].repeat_interleave(context - 1)])


def _activations(
    model: Any, tokens: Tensor, hook_name: str, wanted: Int[Tensor, " places"], max_norm: float | None
) -> tuple[Float[Tensor, "places d"], Bool[Tensor, " places"]]:
    """At these flat places (in order), and which of them are neither BOS nor massive."""
    check_hook_name(model, hook_name)
    limit = checked_max_norm(max_norm) or math.inf
    context, found = tokens.shape[1], []
    step = rows_per_pass(model.cfg.device, context)
    with read_hook(model, hook_name) as read:
        for first in range(0, len(tokens), step):
            here = wanted[(wanted >= first * context) & (wanted < (first + step) * context)] - first * context
            if len(here):
                found.append(read(tokens[first : first + step]).flatten(2).flatten(0, 1).cpu()[here].float())
    acts = torch.cat(found)
    norms, text = acts.norm(dim=1), wanted % context > 0
    massive = text & (norms > limit * norms[text].median())
    if massive.any():
        warnings.warn(f"{int(massive.sum())} of {len(wanted):,} tokens are massive and in no example", stacklevel=3)
    return acts, text & ~massive


# ---------------------------------------------------------------------- dictionaries, and what they are compared with


def dictionary_of(sae: SparseAutoencoder | Dictionary) -> Dictionary:
    """An SAE's features, or the dictionary itself. Raises TypeError for anything else, ValueError for a transcoder."""
    if isinstance(sae, Dictionary):
        return sae
    if not isinstance(sae, SparseAutoencoder):
        raise TypeError(f"sae must be a SparseAutoencoder or a Dictionary, got {type(sae).__name__}")
    return Dictionary.of_sae(sae.config.rule, sae)


def in_pieces(dictionary: Dictionary, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "some d"], ...]:
    """Activations, in pieces whose codes fit into memory."""
    return x.split(at_once(x.device, 8 * len(dictionary.directions)))


def each_size(name: str, sizes: Sequence[int]) -> list[int]:
    """Numbers of features to measure with, each once. Raises TypeError and ValueError for what is none."""
    return list(dict.fromkeys(as_whole(name, size, least=1) for size in sizes))


def check_width(dictionary: Dictionary, x: Float[Tensor, "n d"]) -> None:
    """Raises ValueError where the dictionary is for activations of another width."""
    if dictionary.directions.shape[1] != x.shape[1]:
        raise ValueError(f"sae reads {dictionary.directions.shape[1]} numbers, the examples have {x.shape[1]} each")


def random_sae(sae: SparseAutoencoder | Dictionary, x: Float[Tensor, "tokens d"], seed: int = 0) -> SparseAutoencoder:
    """An SAE of as many features, of which as many are active on each token of `x` as `sae` has there on average, and
    with random weights: decoder rows drawn evenly from the sphere, the encoder their transpose. It knows of the
    activations their mean and scale, and what one factor makes its reconstructions fit best: without it they would be
    far too long, and to change features would change too much."""
    dictionary = dictionary_of(sae)
    check_width(dictionary, x)
    part = x[:: max(1, len(x) // 2048)]
    l0 = float((dictionary.encode(part) != 0).sum(1).float().mean())
    F, D = dictionary.directions.shape
    found = SparseAutoencoder(SAEConfig(D, F, "token_choice", max(1, round(l0))), seed=seed).to(x.device)
    found.mean.copy_(x.mean(0))
    found.scale.copy_((x - x.mean(0)).square().mean().sqrt())
    with torch.no_grad():
        centred, rebuilt = part - found.mean, found(part) - found.mean
        found.W_dec.mul_((centred * rebuilt).sum() / rebuilt.square().sum())
    return found


def coordinates(d: int) -> Dictionary:
    """No SAE at all: the code of an activation is the activation itself."""
    return Dictionary.of_axes("coordinates", torch.eye(d), torch.zeros(d))
