"""What the features of an SAE do on a text, read once, for `feature_browser` and `steering`; and a rule that finds the
features that one understands at once.

Letters of shapes: N rows, S positions in a row, F features, K strongest contexts, U tokens in use, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.evaluation.feature_evidence import hook_of

K, IN_USE = 20, 5  # contexts that a feature is judged by; a token counts as used if it occurs so often
MASSIVE = 10  # times the median norm: massive activations tell of a position and not of a word
RULE = (
    f"A feature is judged by its {K} strongest contexts, each from another row of text. They must hold at least five "
    "different words, none in more than half of them, and three of four must end a word. Of these features, the best "
    "is the one whose words are most alike: the highest mean cosine of the model's embeddings, the text's mean removed."
)


@dataclass(frozen=True)
class Features:
    """Every match of a feature and a position in a text: feature by feature, strongest first."""

    sae: Any
    model: Any
    hook_name: str
    tokens: Int[Tensor, "rows positions"]
    values: Float[Tensor, " matches"]
    where: Int[Tensor, " matches"]  # flat indices into tokens
    offsets: Int[Tensor, " features+1"]  # where the matches of each feature begin

    @cached_property
    def density(self) -> Float[Tensor, " features"]:
        """The share of positions, BOS left out, at which each feature is active."""
        return self.offsets.diff() / self.tokens[:, 1:].numel()

    @cached_property
    def largest(self) -> Float[Tensor, " features"]:
        """The largest activation of each feature, in the units of the SAE's codes; 0 if it is never active."""
        first = self.offsets[:-1].clamp(max=max(len(self.values) - 1, 0))
        return torch.where(self.offsets.diff() > 0, self.values[first], 0.0)

    @cached_property
    def strongest(self) -> Int[Tensor, "features contexts"]:
        """Flat indices of each feature's K strongest positions that have a next token, one a row of text; −1: none."""
        width, n = self.tokens.shape[1], len(self.density)
        feature = torch.repeat_interleave(torch.arange(n), self.offsets.diff())
        usable = (self.where % width < width - 1).nonzero()[:, 0]
        pairs = feature[usable] * len(self.tokens) + self.where[usable] // width
        kept = usable[
            np.sort(np.unique(pairs.numpy(), return_index=True)[1])
        ]  # of equal pairs the first: the strongest
        counts = torch.bincount(feature[kept], minlength=n)
        at = torch.arange(len(kept)) - (counts.cumsum(0) - counts)[feature[kept]]
        top_FK = torch.full((n, K), -1)
        top_FK[feature[kept][at < K], at[at < K]] = self.where[kept][at < K]
        return top_FK

    @cached_property
    def in_use(self) -> Int[Tensor, " used"]:
        """Tokens that occur often enough; what a feature does to all the others is mostly noise."""
        counts = torch.bincount(self.tokens[:, 1:].flatten(), minlength=self.model.cfg.d_vocab)
        return (counts >= IN_USE).nonzero()[:, 0]

    def promoted(self, feature: int, n: int = 10) -> tuple[list[int], list[int]]:
        """The n tokens in use whose logits a feature raises most, straight from its decoder; the n it lowers most."""
        logits_U = (self.sae.W_dec[feature].detach() @ self.model.W_U[:, self.in_use.to(self.model.W_U.device)]).cpu()
        order = self.in_use[logits_U.argsort(descending=True)].tolist()
        return order[:n], order[: -n - 1 : -1]

    def positions(self, feature: int, n: int = 10) -> list[int]:
        return [place for place in self.strongest[feature].tolist() if place >= 0][:n]

    def activations(self, feature: int) -> Float[Tensor, "rows positions"]:
        """One feature on the whole text."""
        mine, zeros = slice(*self.offsets[feature : feature + 2].tolist()), torch.zeros(self.tokens.numel())
        return zeros.index_put((self.where[mine],), self.values[mine]).view(self.tokens.shape)

    def words(self, tokens: Iterable[int]) -> list[str]:
        return [self.model.tokenizer.decode([int(token)]) for token in tokens]


def read_features(
    sae: Any, model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str | None = None
) -> Features:
    """Let the model read `tokens`, rows that begin with BOS, and the SAE encode its activations at the hook.

    BOS and massive activations are left out. Raises ValueError if no hook is named and the SAE knows none.
    """
    hook_name = hook_of(sae, hook_name)
    codes = codes_of(sae, model, tokens, hook_name)
    order = codes.values.argsort(descending=True, stable=True)
    order = order[codes.features[order].argsort(stable=True)]
    offsets = torch.cat([torch.zeros(1).long(), torch.bincount(codes.features, minlength=codes.shape[1]).cumsum(0)])
    return Features(sae, model, hook_name, tokens.cpu(), codes.values[order], codes.tokens[order], offsets)


@torch.no_grad()
def codes_of(sae: Any, model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str) -> SparseCodes:
    """Codes of all rows · positions, on the CPU; those of BOS and of massive activations are empty."""
    with read_hook(model, hook_name) as read:
        acts_NSD = torch.cat([read(rows) for rows in tokens.split(16)])
    norm_NS = acts_NSD.norm(dim=-1)
    kept_NS = norm_NS < MASSIVE * norm_NS[:, 1:].median()
    kept_NS[:, 0] = False
    codes = sae.encode(acts_NSD.flatten(0, 1)).to("cpu")
    return codes.where(kept_NS.flatten().cpu()[codes.tokens])


def likeness(features: Features) -> Float[Tensor, " features"]:
    """How alike the words of each feature's strongest contexts are, by RULE; −1 for a feature that is not eligible."""
    tokens, at_FK = features.tokens.flatten(), features.strongest
    used, count_U = tokens.unique(return_counts=True)
    texts = features.words(used)
    names = {name: i for i, name in enumerate(dict.fromkeys(text.strip().lower() for text in texts))}
    word_V, opens_V = torch.zeros(2, features.model.cfg.d_vocab).long()
    word_V[used] = torch.tensor([names[text.strip().lower()] for text in texts])
    opens_V[used] = torch.tensor([int(not text[:1].isalpha()) for text in texts])  # ends the word before it
    embedding_UM = features.model.W_E[used].detach().cpu()
    embedding_UM = embedding_UM - (count_U[:, None] * embedding_UM).sum(0) / count_U.sum()
    unit_VM = torch.zeros(len(word_V), embedding_UM.shape[1])
    unit_VM[used] = torch.nn.functional.normalize(embedding_UM, dim=1)
    found = []
    for at_K in at_FK.split(256):
        word_K, unit_K = word_V[tokens[at_K]], unit_VM[tokens[at_K]]
        same_KK = word_K[:, :, None] == word_K[:, None]
        many_K = same_KK.sum(-1)  # contexts that share the word of each
        weight_KK = ~same_KK / (many_K[:, :, None] * many_K[:, None])  # every pair of different words counts once
        alike = (weight_KK * (unit_K @ unit_K.mT)).sum((1, 2)) / weight_KK.sum((1, 2)).clamp(min=1e-9)
        whole = opens_V[tokens[at_K + 1]].float().mean(1) >= 0.75
        eligible = whole & (at_K >= 0).all(1) & ((1 / many_K).sum(1) > 4.5) & (many_K.amax(1) <= K / 2)
        found.append(torch.where(eligible, alike, -1.0))
    return torch.cat(found)
