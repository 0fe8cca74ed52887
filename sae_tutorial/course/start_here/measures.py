"""How notebook 00 chooses its neuron, so that nobody chooses it by hand."""

from __future__ import annotations

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
    mean_VZ, _ = vocabulary.mean_by_token(activations, tokens, len(embedding))
    top = mean_VZ[words].topk(10, dim=0)
    effective_Z = vocabulary.effective_words(words[top.indices].T, embedding)
    return int(effective_Z.where(reliable(activations, top.values), effective_Z.new_zeros(())).argmax())


def reliable(activations: Float[Tensor, "positions neurons"], top_means: Float[Tensor, "ten neurons"]) -> Tensor:
    """Whether a neuron's mean on its fifth word reaches half of its peak, the mean of its 50 largest activations."""
    return top_means[4] >= 0.5 * activations.topk(50, dim=0).values.mean(0)
