"""Texts of which some positions have names, and what a model says at their ends.

Patching, path patching, edge attribution and the greedy removal of edges take any `Prompts`. Tasks add what they need:
see `ioi.Sentences`.

Letters of shapes: B prompts, P positions (shorter ones are padded on the right), V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook


@dataclass(frozen=True)
class Prompts:
    """A batch of texts, on the model's device.

    Attributes:
        text: B texts.
        tokens: (B, P) ids, the beginning-of-text token first; after END comes padding, which END cannot see.
        positions: name -> (B,) where it stands in each text; "END" is the last token of each. In a counterfactual:
            where it stood in the original.
        groups: (B,) one number per kind of text; within a group all named positions agree.
    """

    text: tuple[str, ...]
    tokens: Int[Tensor, "prompts positions"]
    positions: dict[str, Int[Tensor, " prompts"]]
    groups: Int[Tensor, " prompts"]

    @classmethod
    def of(
        cls,
        model: Any,
        text: Sequence[str],
        positions: Mapping[str, Sequence[int]] | None = None,
        groups: Sequence[int] | None = None,
    ) -> Prompts:
        """Any texts. `positions` names tokens of each, counted with the beginning-of-text token (0); "END" need not be
        given. Without `groups`, texts whose named positions agree are one group.

        Raises ValueError for a text that is empty or longer than the model's context, and for positions that a text
        does not have.
        """
        ids, tokens_BP = tokens_of(model, text)
        named = {name: list(where) for name, where in (positions or {}).items()}
        for name, where in named.items():
            if len(where) != len(ids):
                raise ValueError(f"positions[{name!r}] has {len(where)} numbers for {len(ids)} texts; give one each.")
            for row, place in zip(ids, where):
                if not 0 <= place < len(row):
                    raise ValueError(f"positions[{name!r}] holds {place}, but a text has tokens 0 to {len(row) - 1}.")
        named.setdefault("END", [len(row) - 1 for row in ids])
        if groups is None:
            kinds = list(zip(*named.values()))
            order = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
            groups = [order[kind] for kind in kinds]
        elif len(groups) != len(ids):
            raise ValueError(f"groups has {len(groups)} numbers for {len(ids)} texts; give one each.")
        device = model.cfg.device
        where_B = {name: torch.tensor(where, device=device) for name, where in named.items()}
        return cls(tuple(text), tokens_BP.to(device), where_B, torch.tensor(list(groups), device=device))

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: slice) -> Self:
        """Some of the prompts."""
        return self._mapped(lambda x: x[rows])

    def repeated(self, times: int) -> Self:
        """Copies of a single prompt. Raises ValueError if there are several."""
        if len(self) != 1:
            raise ValueError(f"{len(self)} prompts cannot be copied as one; give one, for example prompts[:1].")
        return self._mapped(lambda x: x.expand(times, *x.shape[1:]) if isinstance(x, Tensor) else x * times)

    def _mapped(self, change: Callable[[Any], Any]) -> Self:
        """The same with every list of B things changed: tuples, tensors, and the tensors of a dictionary."""
        changed: dict[str, Any] = {
            field.name: {name: change(x) for name, x in value.items()} if isinstance(value, dict) else change(value)
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }
        return dataclasses.replace(self, **changed)


def tokens_of(model: Any, text: Sequence[str]) -> tuple[list[list[int]], Int[Tensor, "prompts positions"]]:
    """The ids of each text, and all of them as one table, padded on the right with the id that rows begin with.

    Raises ValueError for a text that is longer than the model's context: nothing is cut without a word.
    """
    if len(text) == 0 or isinstance(text, str):
        raise ValueError(f"text must be a list of at least one text, got {text!r}.")
    ids = [model.to_tokens(one, truncate=False)[0].tolist() for one in text]
    width = max(map(len, ids))
    if width > model.cfg.n_ctx:
        one = text[[len(row) for row in ids].index(width)]
        raise ValueError(
            f"{one[:40]!r}… has {width} tokens, but this model sees {model.cfg.n_ctx} at most; give a shorter text."
        )
    return ids, torch.tensor([row + [row[0]] * (width - len(row)) for row in ids])


def single_tokens(model: Any, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """`words` in two parts: those that are one token after a space in this model's vocabulary, and the others."""
    tokenizer = model.tokenizer
    one = [len(tokenizer(" " + word, add_special_tokens=False).input_ids) == 1 for word in words]
    return [w for w, is_one in zip(words, one) if is_one], [w for w, is_one in zip(words, one) if not is_one]


def usable(model: Any, words: Sequence[str], what: str, needed: int) -> list[str]:
    """The words that are single tokens. ValueError that lists what was dropped if fewer than `needed` are left."""
    kept, dropped = single_tokens(model, words)
    if len(kept) < needed:
        raise ValueError(
            f"{what}: {needed} words that are one token after a space are needed, and this model's tokenizer has only "
            f"{len(kept)} of them ({', '.join(kept) or 'none'}). Dropped: {', '.join(dropped)}. Pass other {what}."
        )
    return kept


def token_ids(model: Any, names: Sequence[str]) -> Int[Tensor, " n"]:
    kept, dropped = single_tokens(model, sorted(set(names)))
    if dropped:
        raise ValueError(f"names: {', '.join(dropped)} would be more than one token of this model; use other names.")
    known = {name: model.tokenizer(" " + name, add_special_tokens=False).input_ids[0] for name in kept}
    return torch.tensor([known[name] for name in names])


def end_logits(
    model: Any, prompts: Prompts, hooks: Sequence[tuple[str, Callable[..., Any]]] = ()
) -> Float[Tensor, "prompts vocab"]:
    """Logits of the token after each prompt, with these forward hooks in place, without gradients.

    Only END is unembedded. Equals `model.run_with_hooks(tokens, fwd_hooks=hooks)` at END, up to rounding.
    """
    with model.hooks(fwd_hooks=list(hooks)), read_hook(model, "ln_final.hook_normalized") as read:
        final_BD = at(read(prompts.tokens), prompts.positions["END"])
    return final_BD @ model.W_U + model.b_U


def at(acts: Float[Tensor, "prompts positions *d"], where: Int[Tensor, " prompts"]) -> Float[Tensor, " prompts *d"]:
    """One position of each prompt."""
    return acts[torch.arange(len(acts), device=acts.device), where]


def normalised(difference: Tensor, clean: Tensor | float, corrupted: Tensor | float) -> Tensor:
    """Differences of logits on a scale where the corrupted run is 0 and the clean run 1.

    Raises ValueError if the two runs do not differ: there is no scale between them.
    """
    span = torch.as_tensor(clean - corrupted)
    if (span.abs() < 1e-6).any():
        raise ValueError(f"clean={clean} and corrupted={corrupted} are the same: nothing was corrupted.")
    return (difference - corrupted) / span
