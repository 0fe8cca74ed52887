"""Which names a feature stands for, and how many features it takes until the model names somebody else.

Letters of shapes: B sentences, F features, N tokens of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.circuits import patching
from sae_tutorial.circuits.feature_patching import Edit, loss_towards, run_from
from sae_tutorial.circuits.ioi import TEMPLATES, Frame, sentences_of
from sae_tutorial.course.ioi_features.feature_order import thin_out


def switched_on(
    active_BF: Bool[Tensor, "sentences features"], names: Sequence[str], wanted: Sequence[str]
) -> Float[Tensor, "names features"]:
    """In which share of the sentences of each wanted name a feature is active. `names` has one for each sentence; a
    wanted name that has none gets 0."""
    of_VB = torch.tensor([[name == one for name in names] for one in wanted], device=active_BF.device).float()
    return of_VB @ active_BF.float() / of_VB.sum(1, keepdim=True).clamp(min=1)


def patterns_by_chance(
    on_VK: Bool[Tensor, "names features"], draws: int = 500, seed: int = 0
) -> tuple[float, int, int]:
    """How many different rows there would be if each feature were a coin, on for as many names as it is, on average,
    and independent of the others: mean, least and most of some draws. Few features that are each on for half of the
    names tell most names apart, whatever they stand for."""
    generator, odds_K = torch.Generator().manual_seed(seed), on_VK.float().mean(0).cpu()
    drawn = [torch.rand(on_VK.shape, generator=generator) < odds_K for _ in range(draws)]
    counts = [len(rows.unique(dim=0)) for rows in drawn]
    return sum(counts) / draws, min(counts), max(counts)


def drawn(
    among_BF: Bool[Tensor, "sentences features"], sizes_B: Int[Tensor, " sentences"], draws: int, seed: int = 0
) -> list[Bool[Tensor, "sentences features"]]:
    """Some of each sentence's features, as many as its size (or all, if they are fewer), at random, a few times. Sets
    are compared fairly only where each sentence has as many of the one as of the other."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        luck = torch.rand(among_BF.shape, generator=generator).to(among_BF.device).masked_fill(~among_BF, -1)
        place = luck.argsort(dim=1, descending=True).argsort(dim=1)
        found.append((place < sizes_B[:, None]) & among_BF)
    return found


def ends(shares: Float[Tensor, " draws"]) -> str:
    """Of several draws the lowest and the highest: "91% to 96%"; "92%" of one."""
    low, high = (f"{float(end):.0%}" for end in shares.aminmax())
    return low if low == high else f"{low} to {high}"


def strongest_words(
    acts_NF: Float[Tensor, "tokens features"], words: Int[Tensor, " tokens"], decode: Callable, n: int = 12
) -> list[str]:
    """For each feature, the words at its `n` strongest tokens, each named once."""
    return [
        " ".join(dict.fromkeys(decode([t]).strip() for t in words[column.topk(min(n, len(words))).indices].tolist()))
        for column in acts_NF.T
    ]


def change_of_mind(
    model: Any,
    hook_name: str,
    dictionary: Dictionary,
    receiver: str,
    giver: str,
    instead: str,
    sizes: Sequence[int],
    template: str = TEMPLATES[0],
) -> list[tuple[int, str, float, float]]:
    """One sentence, patched towards the same with another receiver: for each of `sizes`, the number of features that
    are patched, the word that the model says, and the probabilities of `receiver` and of `instead`.

    Raises ValueError for names that are not single tokens, and unless the three differ.
    """
    if len({receiver, giver, instead}) < 3:
        raise ValueError(f"receiver={receiver!r}, giver={giver!r}, instead={instead!r} must be three different names.")
    both = [Frame(template, io, giver, giver, "store", "drink", io, giver) for io in (receiver, instead)]
    before, after = (sentences_of(model, [frame]) for frame in both)
    x, target = (patching.activations(model, s, [hook_name])[hook_name] for s in (before, after))
    edit = Edit.towards(dictionary, x, target, before)
    stages = thin_out(edit, loss_towards(model, before, after, hook_name), sorted(sizes, reverse=True), shared=False)
    run, rows = run_from(model, before, hook_name), []
    for chosen in reversed(stages.chosen):
        if (n := int(chosen.sum())) in sizes:
            with torch.no_grad():
                said = run(edit.patched(chosen))[0].softmax(-1)
            word = model.tokenizer.decode([int(said.argmax())]).strip()
            rows.append((n, word, float(said[before.io[0]]), float(said[after.io[0]])))
    return rows
