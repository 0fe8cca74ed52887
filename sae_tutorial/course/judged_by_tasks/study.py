"""Everything that SAEs of one hook are asked, read once; and the answers of one SAE, or of a dictionary without one.

    questions = Questions.read(model, "stories", hook_name, n_tokens=90_000)
    answers(sae, questions)                            one row of the table
    answers(random_sae(sae, questions.x), questions)   features that nobody trained
    answers(coordinates(d), questions)                 no SAE

Six measures, five of SAEBench's and RAVEL's question; where each differs from the published one stands in its module.
The text is from books, because titles and quotation marks are there. Every other passage is for training, so that no
probe is asked about a passage that it has seen a part of. Which letter a word begins with is no question here: a table
of frequent words answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.shipped_text import story_titles, story_tokens
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.ioi import Sentences, ioi_sentences
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
from sae_tutorial.evaluation.disentanglement import (
    Attributed,
    Disentanglement,
    attributed,
    different_pairs,
    disentanglement,
    principal_axes,
    read_by,
    reader_of,
)
from sae_tutorial.evaluation.examples import Examples, WordExamples, read_examples, read_words
from sae_tutorial.evaluation.labelled import Task, correlated_tasks, row_tasks, token_tasks, word_types
from sae_tutorial.evaluation.probing import dense_probing, sparse_probing
from sae_tutorial.evaluation.properties import token_properties, token_texts

CONTEXT = 64
WORDS_BY = {"stories": "form", "smollm2": "letter"}  # the embedded model does not spell
TOGETHER = (
    ("name", "in quotation"),
    ("past tense", "in quotation"),
    ("capital letter", "after a comma"),
    ("past tense", "in a question"),
    ("capital letter", "in a question"),
)
KS, NS, SWAPPED = (1, 2, 5), (2, 5, 10), (10, 50)  # features of probes; those that are taken away; and swapped
ONE = (1,)  # what speaks for a property without an SAE is one direction
PASSAGE = 256  # tokens of a shipped passage
# Few values of each attribute: with dozens of names no few features could tell them apart.
NAMES = "Mary John Tom Anna Sam Lucy".split()
PLACES, OBJECTS = "store park school garden".split(), "ring book ball hat".split()


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
        passages = story_tokens(n_tokens, PASSAGE, source="books", model=name)
        text, titles = by_passage(passages, story_titles(n_tokens, PASSAGE, source="books", model=name))
        found_tasks = token_tasks(model, text, n_train=n_train, n_test=n_test, least=least)
        of_tokens = [task for task in found_tasks if not task.name.startswith("first letter")]
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


def by_passage(
    passages_RP: Int[Tensor, "passages 256"], titles: Sequence[str]
) -> tuple[Int[Tensor, "rows 64"], list[str]]:
    """Passages cut into rows of CONTEXT that begin as the passages do, so that even rows are all from passages with an
    even number, and odd ones from the others; and the title of each row. An odd one out at the end is left out."""
    pairs, width = len(passages_RP) // 2, CONTEXT - 1
    n = (passages_RP.shape[1] - 1) // width  # rows from each passage
    pieces = passages_RP[: 2 * pairs, 1 : 1 + n * width].reshape(pairs, 2, n, width).transpose(1, 2).reshape(-1, width)
    rows = torch.cat([passages_RP[:1, :1].expand(len(pieces), 1), pieces], 1)
    return rows, [titles[2 * pair + odd] for pair in range(pairs) for _ in range(n) for odd in (0, 1)]


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
    """Without an SAE: probes on the whole activation, one direction for each property, made of its labels, and the
    principal directions of the sentences."""
    found = dense_probing(questions.tokens + questions.rows)
    removed = {
        name: correlation_removal(mean_differences(three[1:]), *three, ONE)
        for name, three in questions.together.items()
    }
    perturbed = targeted_perturbation(mean_differences(questions.tokens), questions.tokens, ONE)
    return {
        "probing": dict(zip(found.tasks, found.by_task().tolist())),
        "perturbation": _perturbed(perturbed, ONE),
        "removal": _removed(removed, ONE),
        "disentanglement": _swapped(
            disentanglement(principal_axes(questions.attributes), questions.attributes, SWAPPED)
        ),
    }


def _perturbed(found: Perturbation, ns: Sequence[int] = NS) -> dict[int, dict[str, float]]:
    return {n: dict(zip(found.questions, found.by_question(n).tolist())) for n in ns}


def _removed(found: dict[str, CorrelationRemoval], ns: Sequence[int] = NS) -> dict[int, dict[str, float]]:
    return {n: {name: one.score(n) for name, one in found.items()} for n in ns}


def _swapped(found: Disentanglement) -> dict[Any, Any]:
    swapped: dict[Any, Any] = {n: dict(zip(found.names, found.by_attribute(n).tolist())) for n in SWAPPED}
    return swapped | {"held": dict(zip(found.names, found.held.tolist()))}


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


def _sentences(model: Any, n: int) -> tuple[Sentences, list[int]]:
    """Indirect-object sentences, and which of them occur for the first time."""
    sentences = ioi_sentences(model, n, names=NAMES, places=PLACES, objects=OBJECTS)
    return sentences, [i for i, text in enumerate(sentences.text) if text not in sentences.text[:i]]


def _values(sentences: Sentences, which: Sequence[int]) -> dict[str, list[str]]:
    """Who is to be named, where it happens, and what is given."""
    frames = [sentences.frames[i] for i in which]
    return {
        "name": [frame.io for frame in frames],
        "place": [frame.place for frame in frames],
        "object": [frame.object for frame in frames],
    }


def _attributes(model: Any, hook_name: str, n: int) -> Attributed:
    """Sentences at their last token, each once, with their attributes."""
    sentences, first = _sentences(model, n)
    x_BD = at(activations(model, sentences, [hook_name])[hook_name], sentences.positions["END"])[first]
    return attributed(x_BD.float().cpu(), _values(sentences, first))


Swap = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def one_pair(
    model: Any, n_sentences: int, data: Attributed, dictionary: Dictionary, swap: Swap, seed: int = 0
) -> tuple[tuple[str, str], list[tuple[str, ...]]]:
    """Two sentences of `data` (`Questions.attributes` of so many) that differ in all attributes, drawn by
    `seed`, and what probes read in the first of them: as it is, with ten features of the name swapped, with ten
    principal directions of such sentences for it, with all features. Rows of what was done, and the attributes."""
    (sentences, first), train = _sentences(model, n_sentences), ~data.test
    names = [list(dict.fromkeys(of)) for of in _values(sentences, first).values()]
    readers = [reader_of(data.x[train], data.value[train, a]) for a in range(len(data.names))]
    known = data.test & (read_by(readers, data.x) == data.value).all(1)
    generator, tests = torch.Generator().manual_seed(seed), known.nonzero()[:, 0]
    base, source = (int(tests[of[0]]) for of in different_pairs(data.value[tests], 1, generator))
    axes = principal_axes(data)
    done = {
        "nothing": (dictionary, torch.tensor([], dtype=torch.long)),
        "ten features of the name": (dictionary, disentanglement(dictionary, data, (10,)).features[10][0]),
        "all features": (dictionary, torch.arange(len(dictionary.directions))),
        "ten principal directions of the name": (axes, disentanglement(axes, data, (10,)).features[10][0]),
    }
    rows = []
    for what, (one, chosen) in done.items():
        mine, theirs = one.encode(data.x[[base, source]])
        changed_D = torch.as_tensor(swap(data.x[base], mine, theirs, chosen, one.directions))
        value_A = read_by(readers, changed_D[None])[0].tolist()
        rows.append((what, *(of[value] for of, value in zip(names, value_A))))
    return (sentences.text[first[base]], sentences.text[first[source]]), rows


def left_out(dictionary: Dictionary, data: Attributed) -> dict[str, tuple[float, float]]:
    """attribute -> its share of the variance of x, and how much of that share the dictionary does not reconstruct.

    An attribute's variance is that between the means of its values, less what means of so few examples vary by anyhow.
    """
    error = data.x - dictionary.reconstruct(data.x)
    whole = float((data.x - data.x.mean(0)).square().sum())
    found = {}
    for name, value in zip(data.names, data.value.T):
        of_x = _between(data.x, value)
        found[name] = of_x / whole, _between(error, value) / of_x
    return found


def _between(x: Float[Tensor, "examples d"], value: Int[Tensor, " examples"]) -> float:
    """Sum of squares between the means of values, without the part that comes from the spread around them."""
    of = [x[value == one] for one in value.unique()]
    between = sum(len(one) * float((one.mean(0) - x.mean(0)).square().sum()) for one in of)
    around = sum(float((one - one.mean(0)).square().sum()) for one in of)
    return between - (len(of) - 1) * around / (len(x) - len(of))
