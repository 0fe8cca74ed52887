"""Sentences for this lesson alone, and what heads make of the names in them.

Letters of shapes: L layers, H heads, B prompts, P positions, N names, D dimension of a head, M of the stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.direct_effects import centred
from sae_tutorial.circuits.ioi import NAMES, Frame, Sentences, sentences_of
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import Prompts, at, token_ids, usable


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


def rank_among_names(
    model: Any, prompts: Prompts, role: str, right: Int[Tensor, " prompts"], names: Int[Tensor, " names"]
) -> Float[Tensor, "layers heads prompts"]:
    """Where a name stands among all `names` in what each head would write if it read nothing but this name.

    The stream at `role`, as the head finds it, goes through its value and output matrices to the logits; 0 is the
    highest of all names, len(names) − 1 the lowest. A head that copies has ranks near 0. (The copying score of Wang
    et al. 2022 asks for the five highest of the whole vocabulary, on the stream after the first MLP.)
    """
    values = [f"blocks.{layer}.attn.hook_v" for layer in range(model.cfg.n_layers)]
    ranks = []
    for W_O_HDM, v_BPHD in zip(model.W_O, activations(model, prompts, values).values()):
        v_BHD = at(v_BPHD, prompts.positions[role])
        v_BHD = v_BHD.repeat_interleave(len(W_O_HDM) // v_BHD.shape[1], 1)  # heads may share their values
        out_HBM = centred(model, torch.einsum("bhd,hdm->hbm", v_BHD, W_O_HDM))
        own_HB1 = (out_HBM * model.W_U[:, right].T).sum(-1, keepdim=True)
        ranks.append((out_HBM @ model.W_U[:, names] > own_HB1 + 1e-5).sum(-1).float())
    return torch.stack(ranks)


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


def lead(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> Float[Tensor, " sentences"]:
    """Logit of the right name minus the mean logit of the names that the sentence does not ask about.

    The logit difference asks which of the two; this asks whether it is one of the two at all. See `name_ids`.
    """
    return at(logits, sentences.io) - logits.gather(1, absent_names(sentences, names)).mean(-1)


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
