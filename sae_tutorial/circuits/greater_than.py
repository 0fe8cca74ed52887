"""Greater-than: a span of years whose end has begun, and whose last two digits must be larger than the first ones.

    spans = year_spans(model, 100)                     "The battle lasted from the year 1743 to the year 17"
    greater_than(end_logits(model, spans), spans)      P(later) − P(not later), one for each

Source of task and measure: Hanna, Liu & Variengien 2023; transcoders of GPT-2 on it: Dunefsky, Chlenski & Nanda 2024.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.circuits.prompts import OF_ALL, Prompts

EVENTS = "battle friendship campaign plague project revolution".split()  # none that the embedded model was trained on
CENTURIES = tuple(range(11, 20))
TEMPLATE = "The {event} lasted from the year {start} to the year {century}"
FIRST, LAST = 2, 97  # last two digits of a start: some years are earlier, and some later


@dataclass(frozen=True)
class YearSpans(Prompts):
    """Prompts that end with a century; "YY" is where the last two digits of the start stand.

    Attributes:
        start: (B,) the last two digits of the year in which each span begins.
        years: (100,) the id of "00", "01", … after a century.
    """

    start: Int[Tensor, " prompts"]
    years: Int[Tensor, " hundred"] = field(metadata=OF_ALL)


def year_spans(
    model: Any,
    n: int,
    seed: int = 0,
    template: str = TEMPLATE,
    events: Sequence[str] = EVENTS,
    centuries: Sequence[int] = CENTURIES,
    starts: Sequence[int] | None = None,
) -> YearSpans:
    """`n` spans, with events and centuries at random, and starts at random or, one after the other, from `starts`.

    Raises ValueError for a model that does not write a year as its century and two digits, for a template without its
    three fields or that does not end with {century}, and for starts that are not 0 to 99.
    """
    n, rng = as_whole("n", n, least=1), random.Random(seed)
    if not template.endswith("{century}") or not all(field in template for field in ("{event}", "{start}")):
        raise ValueError(f"template={template!r} must have {{event}} and {{start}}, and end with {{century}}")
    if starts is not None and (not len(starts) or not all(0 <= start <= 99 for start in starts)):
        raise ValueError(f"starts must be numbers from 0 to 99, got {list(starts)}")
    years = _years(model)
    text, chosen = [], []
    for i in range(n):
        start = rng.randint(FIRST, LAST) if starts is None else starts[i % len(starts)]
        century = rng.choice(list(centuries))
        text.append(template.format(event=rng.choice(list(events)), start=f"{century}{start:02d}", century=century))
        chosen.append(start)
    found = Prompts.of(model, text)
    start_B = found.tokens.new_tensor(chosen)
    is_start = found.tokens == years.to(found.tokens.device)[start_B, None]
    is_start &= torch.arange(found.tokens.shape[1], device=start_B.device) < found.positions["END"][:, None]
    if not is_start.any(1).all():
        raise ValueError(
            f"centuries={tuple(centuries)}: this model does not write {text[0]!r} with two digits at a time"
        )
    positions = {"YY": is_start.long().argmax(1)} | found.positions
    return YearSpans(found.text, found.tokens, positions, found.groups, start_B, years.to(start_B.device))


def greater_than(logits: Float[Tensor, "prompts vocab"], spans: YearSpans) -> Float[Tensor, " prompts"]:
    """Probability of all later years minus that of all others, the year of the start among these: 1 is perfect."""
    of_years = logits.softmax(-1)[:, spans.years]
    later = torch.arange(100, device=of_years.device) > spans.start[:, None]
    return (of_years * torch.where(later, 1.0, -1.0)).sum(1)


def _years(model: Any) -> Int[Tensor, " hundred"]:
    ids = [model.tokenizer(f" 17{year:02d}", add_special_tokens=False).input_ids for year in range(100)]
    if any(len(one) != 2 for one in ids) or len({one[0] for one in ids}) > 1 or len({one[1] for one in ids}) < 100:
        raise ValueError(
            "model: its tokenizer does not write a year as its century and two digits; take the embedded model or GPT-2"
        )
    return torch.tensor([one[1] for one in ids])
