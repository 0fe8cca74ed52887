"""Everything that SAEs of one hook are asked, read once; and the answers of one SAE, or of a dictionary without one.

    questions = Questions.read(model, "stories", hook_name, n_tokens=90_000)
    answers(sae, questions)                            one row of the table
    answers(random_sae(sae, questions.x), questions)   features that nobody trained
    answers(coordinates(d), questions)                 no SAE

Six measures, five of SAEBench's and RAVEL's question; where each differs from the published one stands in its module.
The text is from books, because titles and quotation marks are there; rows of 64 tokens, even ones to train probes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.shipped_text import story_titles, story_tokens
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.ioi import ioi_sentences
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import at
from sae_tutorial.evaluation.absorption import feature_absorption
from sae_tutorial.evaluation.concept_removal import (
    CorrelationRemoval,
    Perturbation,
    correlation_removal,
    mean_differences,
    targeted_perturbation,
)
from sae_tutorial.evaluation.disentanglement import Attributed, Disentanglement, attributed, disentanglement, subspaces
from sae_tutorial.evaluation.examples import Examples, WordExamples, read_examples, read_words
from sae_tutorial.evaluation.labelled import Task, correlated_tasks, row_tasks, token_tasks, word_types
from sae_tutorial.evaluation.probing import dense_probing, sparse_probing
from sae_tutorial.evaluation.properties import token_properties, token_texts

CONTEXT = 64
WORDS_BY = {"stories": "form", "smollm2": "letter"}  # the embedded model does not spell
TOGETHER = (("name", "in quotation"), ("past tense", "in quotation"), ("capital letter", "after a comma"))
KS, NS, SWAPPED = (1, 2, 5), (2, 5, 10), (10, 20, 50)  # features of probes; those that are taken away; and swapped
# Few values of each attribute: with dozens of names no few features could tell them apart.
NAMES = "Mary John Tom Anna Sam Lucy".split()
PLACES, OBJECTS = "store park school garden".split(), "ring book ball cake".split()


@dataclass(frozen=True, eq=False)
class Questions:
    """Activations of everything that is asked about.

    tokens, rows  questions about single tokens, and about rows of text (from which book?)
    words         words with the letter that they begin with, or their form
    together      for each pair of TOGETHER that the text has: examples of both or none, and of either alone
    attributes    indirect-object sentences at their end, with the name, place and object of each
    """

    tokens: list[Examples]
    rows: list[Examples]
    words: WordExamples
    together: dict[str, tuple[Examples, Examples, Examples]]
    attributes: Attributed

    @classmethod
    def read(
        cls,
        model: Any,
        name: str,
        hook_name: str,
        n_tokens: int = 90_000,
        n_sentences: int = 960,
        n_train: int = 1000,
        n_test: int = 500,
        least: int = 50,
    ) -> Questions:
        """n_train, n_test: examples of each task, fewer where the text has fewer; a question about tokens with fewer
        than `least` examples is left out."""
        text = story_tokens(n_tokens, CONTEXT, source="books", model=name)
        titles = story_titles(n_tokens, CONTEXT, source="books", model=name)
        of_tokens = token_tasks(model, text, n_train=n_train, n_test=n_test, least=least)
        of_rows = row_tasks(titles, n_train=n_train, n_test=n_test)
        of_pairs = _pairs(model, text, n_train, n_test)
        tasks = [*of_tokens, *of_rows, *(task for three in of_pairs.values() for task in three)]
        found = read_examples(model, text, hook_name, tasks)
        n, m = len(of_tokens), len(of_tokens) + len(of_rows)
        threes = [tuple(found[i : i + 3]) for i in range(m, len(found), 3)]
        words = read_words(model, text, hook_name, word_types(model, text, WORDS_BY[name]))  # type: ignore[arg-type]
        together: dict[str, Any] = dict(zip(of_pairs, threes))
        return cls(found[:n], found[n:m], words, together, _attributes(model, hook_name, n_sentences))

    @property
    def x(self) -> Float[Tensor, "tokens d"]:
        """Activations of all single tokens that are asked about."""
        return torch.cat([one.tokens for one in self.tokens])


def answers(sae: SparseAutoencoder | Dictionary, questions: Questions) -> dict[str, Any]:
    """What one dictionary is worth by each measure: for every question, so that intervals can be had over questions."""
    every = questions.tokens + questions.rows
    probing = sparse_probing(sae, every, KS)
    absorbed = feature_absorption(sae, questions.words)
    removed = {name: correlation_removal(sae, *three, NS) for name, three in questions.together.items()}
    return {
        "probing": {k: dict(zip(probing.tasks, probing.by_task(k).tolist())) for k in KS},
        "kept": dict(zip(probing.tasks, dense_probing(every, sae).by_task().tolist())),
        "perturbation": _perturbed(targeted_perturbation(sae, questions.tokens, NS)),
        "removal": _removed(removed),
        "disentanglement": _swapped(disentanglement(sae, questions.attributes, SWAPPED)),
        "absorption": {
            one.name: {
                "rate": float(one.full.double().mean()),
                "fraction": float(one.fraction.double().mean()),
                "main_f1": one.main_f1,
                "main": len(one.main),
            }
            for one in absorbed.properties
        },
    }


def dense(questions: Questions) -> dict[str, Any]:
    """Without any dictionary: probes on the whole activation, and directions that are made of the labels themselves."""
    found = dense_probing(questions.tokens + questions.rows)
    removed = {
        name: correlation_removal(mean_differences(three[1:]), *three, NS) for name, three in questions.together.items()
    }
    return {
        "probing": dict(zip(found.tasks, found.by_task().tolist())),
        "perturbation": _perturbed(targeted_perturbation(mean_differences(questions.tokens), questions.tokens, NS)),
        "removal": _removed(removed),
        "disentanglement": _swapped(disentanglement(subspaces(questions.attributes), questions.attributes, SWAPPED)),
    }


def _perturbed(found: Perturbation) -> dict[int, dict[str, float]]:
    return {n: dict(zip(found.questions, found.by_question(n).tolist())) for n in NS}


def _removed(found: dict[str, CorrelationRemoval]) -> dict[int, dict[str, float]]:
    return {n: {name: one.score(n) for name, one in found.items()} for n in NS}


def _swapped(found: Disentanglement) -> dict[int, dict[str, list[float]]]:
    return {n: dict(zip(found.names, found.by_attribute(n).tolist())) for n in SWAPPED}


def _pairs(
    model: Any, text: Int[Tensor, "rows positions"], n_train: int, n_test: int
) -> dict[str, tuple[Task, Task, Task]]:
    """Those of TOGETHER of which the text has all combinations."""
    properties, found = token_properties(token_texts(model), text), {}
    for one, other in TOGETHER:
        try:
            found[f"{one}, {other}"] = correlated_tasks(one, other, properties, n_train=n_train, n_test=n_test)
        except ValueError:  # too little text for this one
            continue
    return found


def _attributes(model: Any, hook_name: str, n: int) -> Attributed:
    """Sentences at their last token: who is to be named, where it happens, and what is given."""
    sentences = ioi_sentences(model, n, names=NAMES, places=PLACES, objects=OBJECTS)
    x_BD = at(activations(model, sentences, [hook_name])[hook_name], sentences.positions["END"])
    values = {
        "name": [frame.s for frame in sentences.frames],
        "place": [frame.place for frame in sentences.frames],
        "object": [frame.object for frame in sentences.frames],
    }
    return attributed(x_BD.float().cpu(), values)
