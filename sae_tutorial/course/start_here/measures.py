"""How notebook 00 chooses its neuron, so that nobody chooses it by hand, and what words drawn at random count as."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.course import vocabulary


def most_mixed(
    activations: Float[Tensor, "positions neurons"],
    tokens: Int[Tensor, " positions"],
    words: Int[Tensor, " words"],
    embedding: Float[Tensor, "vocab model"],
) -> int:
    """Among the neurons that answer reliably, the one whose ten words count as most different words."""
    mean_VN, _ = vocabulary.mean_by_token(activations, tokens, len(embedding))
    top = mean_VN[words].topk(10, dim=0)
    effective_N = vocabulary.effective_words(words[top.indices].T, embedding)
    return int(effective_N.where(reliable(activations, top.values), effective_N.new_zeros(())).argmax())


def reliable(activations: Float[Tensor, "positions neurons"], top_means: Float[Tensor, "ten neurons"]) -> Tensor:
    """Whether a neuron's mean on its fifth word reaches half of its peak, the mean of its 50 largest activations."""
    return top_means[4] >= 0.5 * activations.topk(50, dim=0).values.mean(0)


def ten_at_random(
    tokens: Int[Tensor, " tokens"], embedding: Float[Tensor, "vocab model"], draws: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """What ten different ones of `tokens` count as, and the share of cosines above 0 among them: means over `draws`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.stack([torch.randperm(len(tokens), generator=generator)[:10] for _ in range(draws)])
    drawn_R10 = tokens.cpu()[chosen].to(embedding.device)
    unit_R10D = vocabulary.unit_embedding(embedding)[drawn_R10]
    above_R = (unit_R10D @ unit_R10D.mT > 0).sum((-2, -1)) - 10  # not each with itself
    return vocabulary.effective_words(drawn_R10, embedding).mean().item(), above_R.float().mean().item() / 90
