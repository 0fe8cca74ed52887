"""Sentences with an indirect object, their counterfactuals, and how well a model tells the two names apart.

    When Mary and John went to the store, John gave a drink to  ->  " Mary", not " John"

The indirect object (IO) is named once, the subject twice (S1, S2); END is the last token, where the answer is due.
Sentences come as ABBA (the indirect object first) and BABA (the subject first), so that order gives nothing away. Every
name, place and object is one token of the model at hand, so a counterfactual differs from its original in the names
alone, position by position. Source of the task, the roles and the counterfactuals: Wang et al. 2022.

Letters of shapes: B sentences, P positions (shorter sentences are padded on the right), V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook

NAMES = (
    "Mary John Tom James Anna Ben Lily Sam Max Lucy Jack Emma Kate Alice Peter Paul David George Henry Charlie William "
    "Robert Thomas Richard Daniel Michael Simon Adam Luke Mark Martin Arthur Edward Frank Fred Harry Joe Bob Tim Sarah "
    "Jane Laura Julia Helen Rose Ruth Grace Ellen Elizabeth Rachel Amy Sara Lisa Susan Linda Martha"
).split()
PLACES = "store park school library shop station office hospital house garden market river church castle".split()
OBJECTS = "drink ring book necklace computer watch ball letter cake coin hat flower basket apple key".split()
# {a} and {b} are named first and second, {s} is the one who gives. No template begins with a name: a name at the start
# of a text is another token than the same name behind a space.
TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave the {object} to",
    "Yesterday {a} and {b} were working at the {place}, and {s} decided to give the {object} to",
    "After {a} ran into {b} outside the {place}, {s} showed the {object} to",
    "The day that {a} visited {b} at the {place}, {s} offered the {object} to",
    "Then {a} and {b} had lunch at the {place}. Later {s} passed the {object} to",
    "While {a} and {b} were bored in the {place}, {s} lent the {object} to",
)
ROLES = ("IO", "S1", "S1+1", "S2", "END")

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
class Sentences:
    """A batch of sentences, on the model's device.

    Attributes:
        frames: what each sentence is made of.
        tokens: (B, P) ids, the beginning-of-text token first; behind END comes padding, which END cannot see.
        io, wrong: (B,) ids of the right name and of the wrong one.
        positions: for each of ROLES, (B,) where it stands. In a counterfactual: where it stood in the original.
        groups: (B,) one number per template and order of names; within a group all positions agree.
    """

    frames: tuple[Frame, ...]
    tokens: Int[Tensor, "sentences positions"]
    io: Int[Tensor, " sentences"]
    wrong: Int[Tensor, " sentences"]
    positions: dict[str, Int[Tensor, " sentences"]]
    groups: Int[Tensor, " sentences"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def text(self) -> list[str]:
        return [frame.text for frame in self.frames]

    def __getitem__(self, rows: slice) -> Sentences:
        positions = {role: where[rows] for role, where in self.positions.items()}
        parts = (self.tokens[rows], self.io[rows], self.wrong[rows])
        return Sentences(self.frames[rows], *parts, positions, self.groups[rows])


def single_tokens(model: Any, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """`words` in two parts: those that are one token behind a space in this model's vocabulary, and the others."""
    tokenizer = model.tokenizer
    one = [len(tokenizer(" " + word, add_special_tokens=False).input_ids) == 1 for word in words]
    return [w for w, is_one in zip(words, one) if is_one], [w for w, is_one in zip(words, one) if not is_one]


def usable(model: Any, words: Sequence[str], what: str, needed: int) -> list[str]:
    """The words that are single tokens. ValueError that lists what was dropped if fewer than `needed` are left."""
    kept, dropped = single_tokens(model, words)
    if len(kept) < needed:
        raise ValueError(
            f"{what}: {needed} words that are one token behind a space are needed, and this model's tokenizer has only "
            f"{len(kept)} of them ({', '.join(kept) or 'none'}). Dropped: {', '.join(dropped)}. Pass other {what}."
        )
    return kept


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

    Raises:
        ValueError: too few usable words (the message lists what was dropped), or a template without its places.
    """
    for template in templates:
        lacking = [part for part in ("{a}", "{b}", "{s}") if part not in template]
        if lacking or template.startswith("{"):
            found = f"lacks {', '.join(lacking)}" if lacking else "begins with a name"
            raise ValueError(f"templates: {template!r} {found}; see ioi.TEMPLATES for the form.")
    if n < 1:
        raise ValueError(f"n={n}: ask for at least one sentence.")
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


def sentences_of(model: Any, frames: Sequence[Frame]) -> Sentences:
    """Frames as a batch of tokens. ValueError if a name is no single token or is not where its role says."""
    ids, tokens_BP = _tokens(model, frames)
    io, wrong = (token_ids(model, [getattr(frame, name) for frame in frames]) for name in ("io", "wrong"))
    rows = [_roles(row, int(i), int(w), frame) for row, i, w, frame in zip(ids, io, wrong, frames)]
    positions = {role: torch.tensor([row[role] for row in rows]) for role in ROLES}
    kinds = [(frame.template, frame.a == frame.io) for frame in frames]
    order = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    groups = torch.tensor([order[kind] for kind in kinds])
    device = model.cfg.device
    positions = {role: where.to(device) for role, where in positions.items()}
    return Sentences(tuple(frames), tokens_BP.to(device), io.to(device), wrong.to(device), positions, groups.to(device))


def _tokens(model: Any, frames: Sequence[Frame]) -> tuple[list[list[int]], Int[Tensor, "sentences positions"]]:
    """The ids of each sentence, and all of them as one table, padded on the right with the id that rows begin with."""
    ids = [model.to_tokens(frame.text)[0].tolist() for frame in frames]
    width = max(map(len, ids))
    return ids, torch.tensor([row + [row[0]] * (width - len(row)) for row in ids])


def token_ids(model: Any, names: Sequence[str]) -> Int[Tensor, " n"]:
    kept, dropped = single_tokens(model, sorted(set(names)))
    if dropped:
        raise ValueError(f"names: {', '.join(dropped)} would be more than one token of this model; use other names.")
    known = {name: model.tokenizer(" " + name, add_special_tokens=False).input_ids[0] for name in kept}
    return torch.tensor([known[name] for name in names])


def _roles(row: list[int], io: int, wrong: int, frame: Frame) -> dict[str, int]:
    where = {name: [i for i, token in enumerate(row) if token == name] for name in (io, wrong)}
    if len(where[io]) != 1 or len(where[wrong]) != 2:
        raise ValueError(f"frames: {frame.text!r} must name {frame.io} once and {frame.wrong} twice, behind a space.")
    s1, s2 = where[wrong]
    return {"IO": where[io][0], "S1": s1, "S1+1": s1 + 1, "S2": s2, "END": len(row) - 1}


def counterfactual(
    model: Any, sentences: Sentences, kind: Counterfactual, seed: int = 0, names: Sequence[str] = NAMES
) -> Sentences:
    """The same sentences with other names: token by token as long, and different nowhere else.

    `"other_io"`: another name for the indirect object; the subject stays. (Cunningham et al. 2023 patch towards it.)
    `"swapped"`: the giver is the other one of the two, so right and wrong name trade places.
    `"abc"`: three names that differ from each other and from the original's. Nothing says who receives: the question of
    who gives is gone, and the sentence around it stays. `io` and `wrong` are the original's. (Wang et al. 2022.)

    Raises ValueError for another `kind`, or if the tokenizer leaves too few names.
    """
    rng = random.Random(seed)
    usable_names = usable(model, names, "names", 5)

    def fresh(frame: Frame, k: int) -> list[str]:
        return rng.sample([name for name in usable_names if name not in (frame.io, frame.wrong)], k)

    def other_io(frame: Frame) -> Frame:
        (new,) = fresh(frame, 1)
        a, b = (new if name == frame.io else name for name in (frame.a, frame.b))
        return replace(frame, a=a, b=b, io=new)

    def swapped(frame: Frame) -> Frame:
        return replace(frame, s=frame.io, io=frame.wrong, wrong=frame.io)

    def abc(frame: Frame) -> Frame:
        a, b, s = fresh(frame, 3)
        return replace(frame, a=a, b=b, s=s)

    kinds: dict[str, Callable[[Frame], Frame]] = {"other_io": other_io, "swapped": swapped, "abc": abc}
    if kind not in kinds:
        raise ValueError(f"kind={kind!r} is none of {', '.join(map(repr, kinds))}.")
    frames = tuple(kinds[kind](frame) for frame in sentences.frames)
    _, tokens_BP = _tokens(model, frames)  # as long as the original's: every name is one token
    device = sentences.tokens.device
    io, wrong = (token_ids(model, [getattr(frame, name) for frame in frames]).to(device) for name in ("io", "wrong"))
    return replace(sentences, frames=frames, tokens=tokens_BP.to(device), io=io, wrong=wrong)


def end_logits(
    model: Any, sentences: Sentences, hooks: Sequence[tuple[str, Callable[..., Any]]] = ()
) -> Float[Tensor, "sentences vocab"]:
    """Logits of the token behind each sentence, with these forward hooks in place, without gradients.

    Only END is unembedded. Equals `model.run_with_hooks(tokens, fwd_hooks=hooks)` at END, up to rounding.
    """
    with model.hooks(fwd_hooks=list(hooks)), read_hook(model, "ln_final.hook_normalized") as read:
        final_BD = at(read(sentences.tokens), sentences.positions["END"])
    return final_BD @ model.W_U + model.b_U


def at(
    acts: Float[Tensor, "sentences positions *d"], where: Int[Tensor, " sentences"]
) -> Float[Tensor, " sentences *d"]:
    """One position of each sentence."""
    return acts[torch.arange(len(acts), device=acts.device), where]


def logit_difference(logits: Float[Tensor, "sentences vocab"], sentences: Sentences) -> Float[Tensor, " sentences"]:
    """Logit of the right name minus logit of the wrong one, as `sentences` has them: above 0 where it is right."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, sentences.io] - logits[rows, sentences.wrong]


def name_ids(model: Any, names: Sequence[str] = NAMES) -> Int[Tensor, " names"]:
    """Ids of those `names` that are single tokens of this model."""
    return token_ids(model, usable(model, names, "names", 3)).to(model.cfg.device)


def absent_names(sentences: Sentences, names: Int[Tensor, " names"]) -> Int[Tensor, "sentences names-2"]:
    """For each sentence, those of `names` (see `name_ids`) that it does not ask about.

    Raises ValueError if it asks about a name that is none of them.
    """
    keep = (names != sentences.io[:, None]) & (names != sentences.wrong[:, None])
    if (keep.sum(1) != len(names) - 2).any():
        raise ValueError("names: every sentence must ask about two of them, and some do not; see name_ids.")
    return names.expand(len(sentences), -1)[keep].view(len(sentences), -1)


def lead(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> Float[Tensor, " sentences"]:
    """Logit of the right name minus the mean logit of the names that the sentence does not mention.

    The logit difference asks which of the two; this asks whether it is one of the two at all. See `name_ids`.
    """
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, sentences.io] - logits.gather(1, absent_names(sentences, names)).mean(-1)


def normalised(difference: Tensor, clean: Tensor | float, corrupted: Tensor | float) -> Tensor:
    """Logit differences on a scale where the corrupted run is 0 and the clean run 1.

    Raises ValueError if the two runs do not differ: there is no scale between them.
    """
    span = torch.as_tensor(clean - corrupted)
    if (span.abs() < 1e-6).any():
        raise ValueError(f"clean={clean} and corrupted={corrupted} are the same: nothing was corrupted.")
    return (difference - corrupted) / span
