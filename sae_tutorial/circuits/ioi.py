"""Sentences with an indirect object, their counterfactuals, and how well a model tells the two names apart.

    When Mary and John went to the store, John gave a drink to  ->  " Mary", not " John"

The indirect object (IO) is named once, the subject twice (S1, S2); END is the last token, where the answer is due.
Sentences come as ABBA (the indirect object first) and BABA (the subject first), so that order gives nothing away. Every
name, place and object is one token of the model, so a counterfactual differs from its original in the names
alone, position by position. Source of the task, the roles and the counterfactuals: Wang et al. 2022.

Letters of shapes: B sentences, P positions (shorter sentences are padded on the right), V vocabulary.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import Prompts, at, numbered, token_ids, tokens_of, usable

NAMES = (
    "Mary John Tom James Anna Ben Lily Sam Max Lucy Jack Emma Kate Alice Peter Paul David George Henry Charlie William "
    "Robert Thomas Richard Daniel Michael Simon Adam Luke Mark Martin Arthur Edward Frank Fred Harry Joe Bob Tim Sarah "
    "Jane Laura Julia Helen Rose Ruth Grace Ellen Elizabeth Rachel Amy Sara Lisa Susan Linda Martha"
).split()
PLACES = "store park school library shop station office hospital house garden market river church castle".split()
OBJECTS = "drink ring book necklace computer watch ball letter cake coin hat flower basket apple key".split()
# {a} and {b} are named first and second, {s} is the one who gives. No template begins with a name: a name at the start
# of a text is another token than the same name after a space.
TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave the {object} to",
    "Yesterday {a} and {b} were working at the {place}, and {s} decided to give the {object} to",
    "After {a} ran into {b} outside the {place}, {s} showed the {object} to",
    "The day that {a} visited {b} at the {place}, {s} offered the {object} to",
    "Then {a} and {b} had lunch at the {place}. Later {s} passed the {object} to",
    "While {a} and {b} were bored in the {place}, {s} lent the {object} to",
)
ROLES = ("IO", "S1", "S1+1", "S2", "END")
BATCH = 48  # sentences whose activations are held at once

Counterfactual = Literal["other_io", "swapped", "abc"]


@dataclass(frozen=True)
class Frame:
    """What one sentence is made of. `a`, `b`, `s` fill the template; `io` and `wrong` are what is asked for."""

    template: str
    a: str
    b: str
    s: str
    place: str
    object: str
    io: str
    wrong: str

    @property
    def text(self) -> str:
        return self.template.format(a=self.a, b=self.b, s=self.s, place=self.place, object=self.object)


@dataclass(frozen=True)
class Sentences(Prompts):
    """Prompts with an indirect object: positions are those of ROLES, groups one for each template and order of names.

    Attributes:
        frames: what each sentence is made of.
        io, wrong: (B,) ids of the right name and of the wrong one.
    """

    frames: tuple[Frame, ...]
    io: Int[Tensor, " sentences"]
    wrong: Int[Tensor, " sentences"]


def ioi_sentences(
    model: Any,
    n: int,
    seed: int = 0,
    templates: Sequence[str] = TEMPLATES,
    names: Sequence[str] = NAMES,
    places: Sequence[str] = PLACES,
    objects: Sequence[str] = OBJECTS,
) -> Sentences:
    """`n` sentences: templates and orders (ABBA, BABA) in turn, names, places and objects at random.

    Args:
        model: its tokenizer decides which names, places and objects can be used; see `single_tokens`.
        templates: with {a}, {b}, {s}, {place} and {object}; a name must not come first.

    Raises ValueError for too few usable words (it lists what was dropped), a word that is given twice, a sentence that
    is too long for the model, and templates that are none or not of this form.
    """
    n = as_whole("n", n, least=1)
    if isinstance(templates, str) or not templates:
        raise ValueError(f"templates={templates!r}: give a list of them; see ioi.TEMPLATES.")
    for template in templates:
        _check_template(template)
    rng = random.Random(seed)
    names = usable(model, names, "names", 3)
    places, objects = usable(model, places, "places", 1), usable(model, objects, "objects", 1)
    frames = []
    for i in range(n):
        template, abba = templates[i // 2 % len(templates)], i % 2 == 0
        io, s = rng.sample(names, 2)
        a, b = (io, s) if abba else (s, io)
        frames.append(Frame(template, a, b, s, rng.choice(places), rng.choice(objects), io, s))
    return sentences_of(model, frames)


def _check_template(template: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        wrong = [f"lacks {{{name}}}" for name in ("a", "b", "s") if name not in fields]
        wrong += [f"has {{{name}}}" for name in sorted(fields - {"a", "b", "s", "place", "object"})]
        wrong += ["begins with a name"] * template.startswith("{")
    except ValueError as error:  # a brace without its partner
        wrong = [str(error)]
    if wrong:
        raise ValueError(f"templates: {template!r} {', '.join(wrong)}; see ioi.TEMPLATES for the form.")


def sentences_of(model: Any, frames: Sequence[Frame], width: int = 0) -> Sentences:
    """Frames as a batch, at least `width` tokens wide. ValueError if a name is no single token, or not in its role."""
    text = tuple(frame.text for frame in frames)
    ids, tokens_BP = tokens_of(model, text, width)
    io, wrong = (token_ids(model, [getattr(frame, name) for frame in frames]) for name in ("io", "wrong"))
    rows = [_roles(row, i, w, frame) for row, i, w, frame in zip(ids, io.tolist(), wrong.tolist(), frames)]
    positions = {role: tokens_BP.new_tensor([row[role] for row in rows]) for role in ROLES}
    groups = tokens_BP.new_tensor(numbered([(frame.template, frame.a == frame.io) for frame in frames]))
    return Sentences(text, tokens_BP, positions, groups, tuple(frames), io, wrong)


def _roles(row: list[int], io: int, wrong: int, frame: Frame) -> dict[str, int]:
    where = {name: [i for i, token in enumerate(row) if token == name] for name in (io, wrong)}
    if len(where[io]) != 1 or len(where[wrong]) != 2:
        raise ValueError(f"frames: {frame.text!r} must name {frame.io} once and {frame.wrong} twice, after a space.")
    s1, s2 = where[wrong]
    return {"IO": where[io][0], "S1": s1, "S1+1": s1 + 1, "S2": s2, "END": len(row) - 1}


def counterfactual(
    model: Any, sentences: Sentences, kind: Counterfactual, seed: int = 0, names: Sequence[str] = NAMES
) -> Sentences:
    """The same sentences with other names: as long token by token, and different nowhere else.

    `"other_io"`: another name for the indirect object; the subject stays. (Cunningham et al. 2023 patch towards it.)
    `"swapped"`: the giver is the other one of the two, so right and wrong name trade places.
    `"abc"`: three names that differ from each other and from the original's. Nothing tells who receives: the question
    of who gives is gone, and the sentence around it stays. `io` and `wrong` are the original's. (Wang et al. 2022.)

    Raises ValueError for another `kind`, or if the tokenizer leaves too few names.
    """
    rng = random.Random(seed)
    usable_names = usable(model, names, "names", 5)

    def changed(frame: Frame) -> Frame:
        fresh = [name for name in usable_names if name not in (frame.io, frame.wrong)]
        if kind == "other_io":
            (new,) = rng.sample(fresh, 1)
            a, b = (new if name == frame.io else name for name in (frame.a, frame.b))
            return replace(frame, a=a, b=b, io=new)
        if kind == "swapped":
            return replace(frame, s=frame.io, io=frame.wrong, wrong=frame.io)
        a, b, s = rng.sample(fresh, 3)
        return replace(frame, a=a, b=b, s=s)

    if kind not in get_args(Counterfactual):
        raise ValueError(f"kind={kind!r} is none of {', '.join(map(repr, get_args(Counterfactual)))}.")
    frames = tuple(changed(frame) for frame in sentences.frames)
    text = tuple(frame.text for frame in frames)
    _, tokens_BP = tokens_of(model, text, sentences.tokens.shape[1])  # each is as long as its original
    io, wrong = (token_ids(model, [getattr(frame, name) for frame in frames]) for name in ("io", "wrong"))
    return replace(sentences, text=text, frames=frames, tokens=tokens_BP, io=io, wrong=wrong)


def logit_difference(logits: Float[Tensor, "sentences vocab"], sentences: Sentences) -> Float[Tensor, " sentences"]:
    """Logit of the right name minus logit of the wrong one, as `sentences` has them: above 0 where it is right."""
    return at(logits, sentences.io) - at(logits, sentences.wrong)


@dataclass(frozen=True)
class TemplateMeans:
    """Mean activations over a pool of sentences, one for each template and order of names: what ablates a part.

    With an "abc" counterfactual as the pool this is the mean-ablation of Wang et al. 2022: an ablated head still writes
    what all sentences of the template have in common. The pool may be larger than the sentences that are ablated, and
    other ones: what is left in a mean over few sentences is noise that the model reads.

    Attributes:
        kinds: template, and where its roles stand (ABBA and BABA differ in that), of each kind of sentence.
        means: hook -> (kinds, positions, ...).
    """

    kinds: tuple[tuple[str, tuple[int, ...]], ...]
    means: dict[str, Float[Tensor, "kinds positions *more"]]

    @classmethod
    def over(cls, model: Any, pool: Sentences, hook_names: Iterable[str]) -> TemplateMeans:
        """Of what the model computes at these hooks. ValueError for a hook that does not exist."""
        kinds = tuple(dict.fromkeys(_kinds(pool)))
        row_B = pool.tokens.new_tensor([kinds.index(kind) for kind in _kinds(pool)])
        counts, names = row_B.bincount(), list(hook_names)
        sums: dict[str, Tensor] = {}
        for start in range(0, len(pool), BATCH):
            part = slice(start, start + BATCH)
            for name, acts_BP in activations(model, pool[part], names).items():
                total = sums.setdefault(name, acts_BP.new_zeros(len(kinds), *acts_BP.shape[1:]))
                total.index_add_(0, row_B[part], acts_BP)
        means = {name: total / counts.view(-1, *[1] * (total.dim() - 1)) for name, total in sums.items()}
        return cls(kinds, means)

    def of(self, sentences: Sentences) -> dict[str, Float[Tensor, "sentences positions *more"]]:
        """For each sentence the means of its kind: a donor.

        Raises ValueError for a kind of sentence that the pool lacks, and for sentences of another width.
        """
        lacking = set(_kinds(sentences)) - set(self.kinds)
        if lacking:
            raise ValueError(
                f"the pool has no sentence of this kind (template, roles): {min(lacking)}; make it larger."
            )
        width, wide = sentences.tokens.shape[1], next(iter(self.means.values())).shape[1]
        if width != wide:
            raise ValueError(f"sentences are {width} tokens wide, the pool {wide}: use the same templates in both.")
        row_B = sentences.tokens.new_tensor([self.kinds.index(kind) for kind in _kinds(sentences)])
        return {name: mean[row_B] for name, mean in self.means.items()}


def _kinds(sentences: Sentences) -> list[tuple[str, tuple[int, ...]]]:
    """Template, and where its roles stand: ABBA and BABA differ in where the indirect object is."""
    where = zip(*(positions.tolist() for positions in sentences.positions.values()))
    return [(frame.template, places) for frame, places in zip(sentences.frames, where, strict=True)]
