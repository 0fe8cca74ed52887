"""What the features of an SAE do on a text, read once, for `feature_browser` and `steering`; and a rule that finds the
features that one understands at once.

Letters of shapes: N rows, S positions in a row, F features, K strongest contexts, U tokens in use, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, clean_codes, feature_evidence
from sae_tutorial.evaluation.feature_pages import promoted_tokens
from sae_tutorial.figures.feature_report import words_of

K = 20  # contexts that a feature is judged by
RULE = (
    f"A feature is judged by its {K} strongest contexts, each from another row of text. They must hold at least five "
    "different words, none in more than half of them, and three of four must end a word. Of these features, the best "
    "is the one whose words are most alike: the highest mean cosine of the model's embeddings, the text's mean removed."
)


@dataclass(frozen=True)
class Features:
    """An SAE, the model that it reads, and what its features do on a text."""

    sae: Any
    model: Any
    evidence: FeatureEvidence

    @property
    def tokens(self) -> Int[Tensor, "rows positions"]:
        return self.evidence.tokens

    @property
    def density(self) -> Float[Tensor, " features"]:
        """The share of positions at which each feature is active."""
        return self.evidence.density

    @property
    def largest(self) -> Float[Tensor, " features"]:
        """The largest activation of each feature, in the units of the SAE's codes; 0 if it is never active."""
        return self.evidence.largest

    @property
    def strongest(self) -> Int[Tensor, "features contexts"]:
        """Flat indices of each feature's K strongest positions that have a next token, one a row of text; −1: none."""
        return self.evidence.strongest.place

    def promoted(self, feature: int, n: int = 10) -> tuple[list[int], list[int]]:
        """The n tokens in use whose logits a feature raises most, straight from its decoder; the n it lowers most."""
        [(raised, lowered)] = promoted_tokens(self.evidence, self.sae, self.model, [feature], n)
        return [token for token, _ in raised], [token for token, _ in lowered]

    def activations(self, feature: int) -> Float[Tensor, "rows positions"]:
        """One feature on the whole text."""
        codes, zeros = self.evidence.codes, torch.zeros(self.tokens.numel())
        assert codes is not None  # `read_features` keeps them
        mine = codes.features == feature
        return zeros.index_put((codes.tokens[mine].cpu(),), codes.values[mine].cpu()).view(self.tokens.shape)

    def words(self, tokens: Iterable[int]) -> list[str]:
        return words_of(self.model)(list(tokens))


def read_features(
    sae: Any, model: Any, tokens: Int[Tensor, "rows positions"], hook_name: str | None = None
) -> Features:
    """Let the model read `tokens`, rows that begin with BOS, and the SAE encode its activations at the hook.

    BOS and massive activations are left out. Raises ValueError if no hook is named and the SAE knows none.
    """
    found = feature_evidence(sae, model, tokens, hook_name, n_top=K, keep_codes=True, progress=False)
    return Features(sae, model, found)


@torch.no_grad()
def codes_of(features: Features, tokens: Int[Tensor, "rows positions"]) -> SparseCodes:
    """Codes of another text, rows · positions on the CPU, with the same positions left out."""
    with read_hook(features.model, features.evidence.hook_name) as read:
        codes, _ = clean_codes(features.sae, read(tokens), features.evidence.longest)
    return codes.to("cpu")


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
