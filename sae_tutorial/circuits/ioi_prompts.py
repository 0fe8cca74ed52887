"""Indirect-object sentences that are not made from our templates: the classic eight, and one of your own."""

from __future__ import annotations

import re
from typing import Any

from sae_tutorial.circuits.ioi import Frame, Sentences, sentences_of, token_ids

# The eight prompts on which tutorials of GPT-2 agree: each sentence with both names as the giver.
CLASSIC = (
    ("When {a} and {b} went to the shops, {s} gave the bag to", "John", "Mary"),
    ("When {a} and {b} went to the park, {s} gave the ball to", "Tom", "James"),
    ("When {a} and {b} went to the shops, {s} gave an apple to", "Dan", "Sid"),
    ("After {a} and {b} went to the park, {s} gave a drink to", "Martin", "Amy"),
)


def classic_sentences(model: Any) -> Sentences:
    """The eight prompts of `CLASSIC`. GPT-2 small has a mean logit difference of 3.5519 on them."""
    frames = [Frame(template, a, b, s, "", "", io, s) for template, a, b in CLASSIC for s, io in ((a, b), (b, a))]
    return sentences_of(model, frames)


def own_sentence(model: Any, text: str, io: str, giver: str) -> Sentences:
    """One sentence of yours that names `io` once and `giver` twice, and stops where `io` is due.

    Raises ValueError, in words for its writer, if a name is not a single token of this model or not where it should be.
    """
    text = text.rstrip()
    for name, needed in ((io, 1), (giver, 2)):
        found = len(re.findall(rf"(?<= ){re.escape(name)}\b", text)) if name else 0
        if found != needed:
            times = ("once", "twice")[needed - 1]
            raise ValueError(
                f"The sentence must name {name or 'somebody'!r} {times}, behind a space; it does {found} times."
            )
    token_ids(model, [io, giver])
    marks = {io: "{a}", giver: "{b}"}
    template = re.sub(
        rf"(?<= )({re.escape(io)}|{re.escape(giver)})\b",
        lambda found: marks[found[1]],
        text.replace("{", "").replace("}", ""),
    )
    head, tail = template.rsplit("{b}", 1)
    if "{a}" not in head:
        raise ValueError(f"The second {giver!r} must come behind {io!r}, or nothing says who receives.")
    return sentences_of(model, [Frame(head + "{s}" + tail, io, giver, giver, "", "", io, giver)])
