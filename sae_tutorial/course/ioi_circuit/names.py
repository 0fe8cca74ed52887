"""Sentences for this lesson alone, and the names in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.ioi import NAMES, Frame, Sentences, sentences_of
from sae_tutorial.circuits.prompts import at, token_ids, usable


def own_sentence(model: Any, text: str, io: str, giver: str) -> Sentences:
    """One sentence of yours that names `io` once and `giver` twice, and stops where `io` is due.

    Raises ValueError, in words for its writer, if a name is not a single token of this model or not where it should be,
    or if the sentence is too long for the model.
    """
    text = text.rstrip()
    for name, needed, times in ((io, 1, "once"), (giver, 2, "twice")):
        found = len(re.findall(rf"(?<= ){re.escape(name)}\b", text)) if name else 0
        if found != needed:
            name = name or "somebody"
            raise ValueError(f"The sentence must name {name!r} {times}, after a space; it does {found} times.")
    token_ids(model, [io, giver])
    marks, either = {io: "{a}", giver: "{b}"}, rf"(?<= )({re.escape(io)}|{re.escape(giver)})\b"
    template = re.sub(either, lambda found: marks[found[1]], text.replace("{", "").replace("}", ""))
    head, tail = template.rsplit("{b}", 1)
    if "{a}" not in head:
        raise ValueError(f"The second {giver!r} must come after {io!r}, or nothing tells who receives.")
    return sentences_of(model, [Frame(head + "{s}" + tail, io, giver, giver, "", "", io, giver)])


def name_ids(model: Any, names: Sequence[str] = NAMES) -> Int[Tensor, " names"]:
    """Ids of those `names` that are single tokens of this model."""
    return token_ids(model, usable(model, names, "names", 3))


def absent_names(sentences: Sentences, names: Int[Tensor, " names"]) -> Int[Tensor, "sentences names-2"]:
    """For each sentence, those of `names` (see `name_ids`) that it does not ask about.

    Raises ValueError if it asks about a name that is none of them.
    """
    keep = (names != sentences.io[:, None]) & (names != sentences.wrong[:, None])
    if (keep.sum(1) != len(names) - 2).any():
        raise ValueError("names: every sentence must ask about two of them, and some do not; see name_ids.")
    return names.expand(len(sentences), -1)[keep].view(len(sentences), -1)


def lift(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> Float[Tensor, " sentences"]:
    """Logit of the right name minus the mean logit of the names that the sentence does not ask about.

    The logit difference asks which of the two; this asks whether it is one of the two at all. See `name_ids`.
    """
    return at(logits, sentences.io) - logits.gather(1, absent_names(sentences, names)).mean(-1)


def above_names(
    names: Int[Tensor, " names"], logits: Float[Tensor, "sentences vocab"], ids: Int[Tensor, " sentences"]
) -> Float[Tensor, " sentences"]:
    """Logits of one name in each row, above the mean of all `names`."""
    return at(logits, ids) - logits[:, names].mean(1)


def other_order(model: Any, sentences: Sentences) -> Sentences:
    """The same sentences with the two names in the other order; who gives stays."""
    return sentences_of(model, [replace(frame, a=frame.b, b=frame.a) for frame in sentences.frames])


def renamed(model: Any, sentences: Sentences, names: Int[Tensor, " names"]) -> Sentences:
    """The same sentences with two other `names` (see `name_ids`) in the places of their two, in the same order.

    Raises ValueError if there are fewer than four names: two of a sentence and two others.
    """
    if len(names) < 4:
        raise ValueError(f"names: four are needed to replace two of them, got {len(names)}.")
    known = [model.tokenizer.decode([i]).strip() for i in names.tolist()]

    def changed(i: int, frame: Frame) -> Frame:
        from_here = known[i % len(known) :] + known[: i % len(known)]
        io, wrong = [name for name in from_here if name not in (frame.io, frame.wrong)][:2]
        new = {frame.io: io, frame.wrong: wrong}
        return replace(frame, a=new[frame.a], b=new[frame.b], s=new[frame.s], io=io, wrong=wrong)

    return sentences_of(model, [changed(i, frame) for i, frame in enumerate(sentences.frames)])


def with_pause(model: Any, sentences: Sentences) -> Sentences:
    """The same, with one more position: "pause", the last comma or full stop before S2.

    Raises ValueError for a sentence that has neither there.
    """
    words, which = sentences.tokens.cpu().unique(return_inverse=True)
    marks = torch.tensor([model.tokenizer.decode([i]).strip() in (",", ".") for i in words.tolist()])
    before = torch.arange(sentences.tokens.shape[1])[None] < sentences.positions["S2"].cpu()[:, None]
    pauses = marks[which] & before
    if not pauses.any(1).all():
        raise ValueError(f"no comma or full stop before S2: {sentences.text[int(pauses.any(1).int().argmin())]!r}")
    last = pauses.shape[1] - 1 - pauses.flip(1).int().argmax(1)
    return replace(sentences, positions={**sentences.positions, "pause": last.to(sentences.tokens.device)})
