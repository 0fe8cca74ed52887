"""What this lesson measures of an answer, how sure of it one can be, and the means that silence a part.

Letters of shapes: B sentences, V vocabulary, N names, S sites, P positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.ioi import Sentences, logit_difference
from sae_tutorial.circuits.patching import activations
from sae_tutorial.course.ioi_circuit.names import lead
from sae_tutorial.evaluation.intervals import bootstrap

MEASURES = ("difference", "lead", "right", "top")
BATCH = 48  # sentences whose activations are held at once


def scores(
    logits: Float[Tensor, "sentences vocab"], sentences: Sentences, names: Int[Tensor, " names"]
) -> Float[Tensor, "4 sentences"]:
    """The rows are `MEASURES`: the logit difference; the lead; 1 where the difference is above 0; 1 where the right
    name is the likeliest of all tokens. `names`: see `name_ids`."""
    difference = logit_difference(logits, sentences)
    right, top = difference > 0, logits.argmax(-1) == sentences.io
    return torch.stack([difference, lead(logits, sentences, names), right.to(difference), top.to(difference)])


def with_ends(values: Float[Tensor, " sentences"], form: str = ".2f") -> str:
    """The mean and the ends of its 95 % bootstrap interval over sentences, such as "8.34 [7.18, 9.47]"."""
    mean, low, high = bootstrap(values)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def share_restored(
    patched: Float[Tensor, "*sites sentences"],
    clean: Float[Tensor, " sentences"],
    corrupted: Float[Tensor, " sentences"] | float = 0.0,
) -> tuple[Float[Tensor, "*sites"], Float[Tensor, "*sites"], Float[Tensor, "*sites"]]:
    """How far `patched` leads from the corrupted run (0) to the clean one (1), as means over sentences, and the low and
    high end of its 95 % bootstrap interval.

    All three runs of a sentence are drawn together. With the default for `corrupted`: a share of the clean run.

    Raises ValueError if both runs have the same mean, and for runs of different numbers of sentences.
    """
    base = torch.as_tensor(corrupted).to(clean).expand_as(clean)
    if patched.shape[-1:] != clean.shape:
        raise ValueError(
            f"patched has {tuple(patched.shape)}, clean {tuple(clean.shape)}: one number per sentence each"
        )
    if abs(float((clean - base).mean())) < 1e-6:
        raise ValueError("clean and corrupted have the same mean: there is no scale between them.")
    runs = torch.cat([patched.reshape(-1, len(clean)), clean[None], base[None]])

    def share(values: Tensor) -> Tensor:  # (sites and the two runs, ..., sentences) to (sites, ...)
        *_, whole, nothing = means = values.mean(-1)
        return (means[:-2] - nothing) / (whole - nothing)

    middle, low, high = (found.view(patched.shape[:-1]) for found in bootstrap(runs, share))
    return middle, low, high


@dataclass(frozen=True)
class TemplateMeans:
    """Mean activations over a pool of sentences, one for each template and order of names: what silences a part.

    With an "abc" counterfactual as the pool this is the mean-ablation of Wang et al. 2022, as in
    `patching.mean_by_group`, but the pool may be larger than the sentences that are ablated, and other ones: what is
    left in a mean over few sentences is noise that the model reads.

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
