"""Texts of which some positions have names, and what a model predicts at their ends.

Patching, path patching, edge attribution and the greedy removal of edges take any `Prompts`. Tasks add what they need:
see `ioi.Sentences`.

Letters of shapes: B prompts, P positions (shorter ones are padded on the right), V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hook

Hook = tuple[str, Callable[..., Any]]
OF_ALL = {"of_all": True}  # metadata of a field that is the same for all prompts: no slice cuts it
LOGITS = "unembed.hook_out"  # some models finish them after that, by a soft cap for example


@dataclass(frozen=True)
class Prompts:
    """A batch of texts, on the model's device.

    Attributes:
        text: B texts.
        tokens: (B, P) ids, the beginning-of-text token first (if the model has one); after END comes padding, which END
            cannot see.
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
        """Any texts. `positions` names tokens of each, 0 the first, whatever side the tokenizer pads; "END" need not be
        given. Without `groups`, texts whose named positions agree are one group.

        Raises ValueError for a text that is empty or longer than the model's context, for positions that a text does
        not have, and for groups within which named positions differ.
        """
        ids, tokens_BP = tokens_of(model, text)
        last = [len(row) - 1 for row in ids]
        named = {name: _numbers(f"positions[{name!r}]", where, last) for name, where in (positions or {}).items()}
        named = {"END": last} | named
        kinds = list(zip(*named.values()))
        kind_of = numbered(kinds) if groups is None else _numbers("groups", groups, [2**31] * len(ids))
        if len(set(zip(kind_of, kinds))) > len(set(kind_of)):
            raise ValueError("groups: named positions (END is one) must agree within a group; without groups, they do.")
        where_B = {name: tokens_BP.new_tensor(where) for name, where in named.items()}
        return cls(tuple(text), tokens_BP, where_B, tokens_BP.new_tensor(kind_of))

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: slice) -> Self:
        """Some of the prompts, as wide as all of them."""
        if not isinstance(rows, slice):
            raise TypeError(f"prompts[{rows!r}]: take a slice, such as prompts[:1], so that they stay a batch.")
        return self._mapped(lambda x: x[rows])

    def repeated(self, times: int) -> Self:
        """Copies of a single prompt. Raises ValueError if there are several."""
        if len(self) != 1:
            raise ValueError(f"{len(self)} prompts cannot be copied as one; give one, for example prompts[:1].")
        return self._mapped(lambda x: x.expand(times, *x.shape[1:]) if isinstance(x, Tensor) else x * times)

    def _mapped(self, change: Callable[[Any], Any]) -> Self:
        """The same with every list of B things changed: tuples, tensors, and the tensors of a dictionary; fields with
        OF_ALL stay."""
        changed: dict[str, Any] = {
            field.name: {name: change(x) for name, x in value.items()} if isinstance(value, dict) else change(value)
            for field in dataclasses.fields(self)
            if field.metadata != OF_ALL
            for value in [getattr(self, field.name)]
        }
        return dataclasses.replace(self, **changed)


def tokens_of(
    model: Any, text: Sequence[str], width: int = 0
) -> tuple[list[list[int]], Int[Tensor, "prompts positions"]]:
    """The ids of each text, and all of them as one table on the model's device, padded on the right with the id that
    rows begin with, to the longest or to `width`.

    Raises ValueError for a text that is empty, or longer than the model's context: nothing is cut silently.
    """
    if isinstance(text, str) or len(text) == 0 or not all(isinstance(one, str) and one for one in text):
        raise ValueError(f"text must be a list of at least one text, none of them empty, got {text!r}.")
    has_bos = (model.tokenizer.bos_token_id or 0) < model.cfg.d_vocab  # TransformerLens makes up one that is missing
    ids = [model.to_tokens(one, None if has_bos else False, truncate=False)[0].tolist() for one in text]
    for one, row in zip(text, ids):
        if len(row) > model.cfg.n_ctx:
            raise ValueError(f"{one[:40]!r}… has {len(row)} tokens; this model sees {model.cfg.n_ctx} at most: cut it.")
    width = max(width, *map(len, ids))
    return ids, torch.tensor([row + [row[0]] * (width - len(row)) for row in ids], device=model.cfg.device)


def numbered(kinds: Sequence[Any]) -> list[int]:
    """The number of each kind, in the order in which kinds first come."""
    order = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    return [order[kind] for kind in kinds]


def _numbers(name: str, values: Iterable[Any], most: Sequence[int]) -> list[int]:
    given = values if isinstance(values, Iterable) else [values]
    numbers = [as_whole(f"{name}[{i}]", value) for i, value in enumerate(given)]
    if len(numbers) != len(most):
        raise ValueError(f"{name} has {len(numbers)} numbers for {len(most)} texts; give one each.")
    for number, last in zip(numbers, most):
        if number > last:
            raise ValueError(f"{name} holds {number}, but a text has tokens 0 to {last}.")
    return numbers


def single_tokens(model: Any, words: Sequence[str]) -> dict[str, int]:
    """The `words` that are one token after a space in this model's vocabulary, with its id."""
    ids = {word: model.tokenizer(" " + word, add_special_tokens=False).input_ids for word in words}
    return {word: found[0] for word, found in ids.items() if len(found) == 1}


def usable(model: Any, words: Sequence[str], what: str, needed: int) -> list[str]:
    """The words that are single tokens. ValueError for a word that comes twice, and one that lists what was dropped if
    fewer than `needed` are left."""
    if isinstance(words, str):
        raise TypeError(f"{what}={words!r}: give a list of words.")
    if len(set(words)) < len(words):
        raise ValueError(f"{what}: {max(words, key=list(words).count)} comes twice; give each word once.")
    kept = list(single_tokens(model, words))
    if len(kept) < needed:
        dropped = [word for word in words if word not in kept]
        raise ValueError(
            f"{what}: {needed} words that are one token after a space are needed, and this model's tokenizer has only "
            f"{len(kept)} of them ({', '.join(kept) or 'none'}). Dropped: {', '.join(dropped)}. Pass other {what}."
        )
    return kept


def token_ids(model: Any, names: Sequence[str]) -> Int[Tensor, " n"]:
    known = single_tokens(model, sorted(set(names)))
    dropped = sorted(set(names) - known.keys())
    if dropped:
        raise ValueError(f"names: {', '.join(dropped)} would be more than one token of this model; use other names.")
    return torch.tensor([known[name] for name in names], device=model.cfg.device)


@contextmanager
def only_end(model: Any, prompts: Prompts, hooks: Sequence[Hook] = ()) -> Iterator[Callable[[Tensor], Tensor]]:
    """With `hooks` in place, END alone is unembedded. Yields what makes its logits, (B, V), of what is read at LOGITS.

    Where a hook acts there, all positions are unembedded, so that it sees what it always sees.
    """
    for unknown in {name for name, _ in hooks} - model.hook_dict.keys():
        check_hook_name(model, unknown)
    where, finish = prompts.positions["END"], model.adapter.apply_output_logits_transform
    with model.hooks(fwd_hooks=list(hooks)):
        if model.hook_dict[LOGITS].has_hooks():
            yield lambda logits_BPV: finish(at(logits_BPV, where))
        else:
            with model.hooks(fwd_hooks=[("unembed.hook_in", lambda x_BPD, hook: at(x_BPD, where)[:, None])]):
                yield lambda logits_B1V: finish(logits_B1V[:, 0])


def end_logits(model: Any, prompts: Prompts, hooks: Sequence[Hook] = ()) -> Float[Tensor, "prompts vocab"]:
    """Logits of the token after each prompt, with these forward hooks in place, without gradients.

    Equals `model.run_with_hooks(tokens, fwd_hooks=hooks)` at END, up to rounding, for every hook of the model.
    """
    with only_end(model, prompts, hooks) as end, read_hook(model, LOGITS) as read:
        return end(read(prompts.tokens))


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
