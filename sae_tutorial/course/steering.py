"""Text written with one feature of an SAE switched on, beside text without, and with a random direction instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.course.features import Features, codes_of
from sae_tutorial.evaluation.steered_text import write
from sae_tutorial.figures.feature_report import cell, shaded


@dataclass(frozen=True)
class Written:
    """Texts of one kind, and what the model finds in them when it reads them without any change.

    loss        nats per written token: how unlikely the text is for the model left alone
    active      share of written tokens at which the feature is active
    promoted    share of written tokens that are among the ten whose logits the feature raises most
    shares      activation of the feature at each written token, in parts of its largest, (texts, positions)
    """

    tokens: Int[Tensor, "texts positions"]
    loss: float
    active: float
    promoted: float
    shares: Float[Tensor, "texts positions"]


class Steering(dict[str, Written]):
    """What `steer` wrote, by kind: what was added ("nothing", "the feature", "a random direction"); shown with the
    first texts of each."""

    def __init__(self, kinds: Mapping[str, Written], words: Callable[[Any], list[str]], prompt: str) -> None:
        super().__init__(kinds)
        self.words, self.prompt = words, prompt

    def _repr_html_(self, n: int = 2) -> str:
        head = (
            "added",
            "feature active",
            "promoted tokens",
            "loss (nats)",
            f"what comes after “{escape(self.prompt)}”",
        )
        rows = ["".join(f'<th style="text-align:left">{name}</th>' for name in head)]
        for name, one in self.items():
            texts = [shaded(self.words(ids), s) for ids, s in zip(one.tokens[:n].tolist(), one.shares[:n].tolist())]
            rows.append(
                "".join(
                    map(
                        cell,
                        (name, f"{one.active:.0%}", f"{one.promoted:.0%}", f"{one.loss:.1f}", "<br><br>".join(texts)),
                    )
                )
            )
        return f'<table style="font-size:12px">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'

    def __repr__(self) -> str:
        lines = []
        for name, one in self.items():
            lines.append(f"{name}: active {one.active:.0%}, promoted {one.promoted:.0%}, loss {one.loss:.1f}")
            lines.append("  " + "".join(self.words(one.tokens[0].tolist())))
        return "\n".join(lines)


@torch.no_grad()
def steer(
    features: Features,
    feature: int,
    strength: float,
    prompt: str,
    *,
    n_tokens: int = 40,
    n_texts: int = 8,
    seed: int = 0,
) -> Steering:
    """Texts that the model writes after `prompt` at temperature 1, in three kinds: unchanged; with `strength` times the
    feature's largest activation, along its decoder row, added at its hook at every position but BOS; and with a random
    direction of the same length added.

    Text i of each kind is drawn with the same random numbers; `seed` fixes them and the direction. Raises ValueError
    for a feature that is never active on the text of `features`, which gives no unit of strength.
    """
    largest = float(features.largest[feature])
    if largest == 0:
        raise ValueError(f"feature {feature} is never active on this text, so its largest activation is no unit")
    model, generator = features.model, torch.Generator().manual_seed(seed)
    along_D = features.sae.W_dec[feature] * features.sae.scale * largest * strength
    random_D = torch.randn(len(along_D), generator=generator).to(along_D)
    kinds = {
        "nothing": 0 * along_D,
        "the feature": along_D,
        "a random direction": random_D * along_D.norm() / random_D.norm(),
    }
    add_BD = torch.stack(list(kinds.values())).repeat_interleave(n_texts, 0).to(model.cfg.device)
    start = model.to_tokens(prompt)
    tokens = write(
        model, start.repeat(len(add_BD), 1), features.evidence.hook_name, add_BD, n_tokens, n_texts, generator
    )
    found = {name: _read(features, feature, some, start.shape[1]) for name, some in zip(kinds, tokens.split(n_texts))}
    return Steering(found, features.words, prompt)


def _read(features: Features, feature: int, tokens: Int[Tensor, "texts positions"], n_prompt: int) -> Written:
    """What the unchanged model makes of texts whose first `n_prompt` tokens are not counted."""
    logits = features.model(tokens, return_type="logits", use_cache=False)[:, n_prompt - 1 : -1].float()
    written = tokens[:, n_prompt:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), written.flatten())
    codes = codes_of(features, tokens)
    mine = codes.features == feature
    acts = torch.zeros(tokens.numel()).index_put((codes.tokens[mine],), codes.values[mine]).view(tokens.shape)
    shares = acts[:, n_prompt:] / features.largest[feature]
    promoted = torch.isin(written.cpu(), torch.tensor(features.promoted(feature)[0])).float().mean()
    return Written(written.cpu(), float(loss), float((shares > 0).float().mean()), float(promoted), shares)
