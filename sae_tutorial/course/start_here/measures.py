"""How notebook 00 chooses its neuron, so that nobody chooses it by hand, and what words drawn at random count as."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.course import vocabulary
from sae_tutorial.course.features import Features


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


def reach(
    activations: Float[Tensor, " positions"],
    tokens: Int[Tensor, " positions"],
    words: Int[Tensor, " words"],
    low: float,
) -> tuple[float, float, list[int]]:
    """The share of positions with at least `low`, the share of these that hold one of `words`, and the tokens at the
    rest of them, the most frequent first."""
    there = tokens[activations >= low]
    hold = torch.isin(there, words.to(there.device))
    counts = torch.bincount(there[~hold])
    others = [token for token in counts.argsort(descending=True, stable=True).tolist() if counts[token]]
    return len(there) / len(tokens), hold.float().mean().item(), others


def mean_by_word(features: Features, words: Int[Tensor, " words"]) -> Float[Tensor, "words features"]:
    """Each feature's mean activation on each of `words`, as `vocabulary.mean_by_token` has it for neurons.

    From the sparse codes, since all features on the whole text would fill the memory.
    """
    codes, tokens_B = features.evidence.codes, features.tokens.flatten()
    assert codes is not None  # `read_features` keeps them
    n_features, words = codes.shape[1], words.to(tokens_B.device)
    row_V = torch.full((int(tokens_B.max()) + 1,), -1, device=tokens_B.device)
    row_V[words] = torch.arange(len(words), device=tokens_B.device)
    row_M = row_V.to(codes.tokens.device)[tokens_B.to(codes.tokens.device)[codes.tokens.long()]]
    ours = row_M >= 0
    cells = row_M[ours] * n_features + codes.features[ours].long()
    sums = codes.values.new_zeros(len(words) * n_features).index_add_(0, cells, codes.values[ours])
    counts_W = torch.bincount(tokens_B, minlength=len(row_V))[words].to(sums.device)
    return sums.view(len(words), n_features) / counts_W.clamp(min=1)[:, None]


def words_of_random_mixes(
    means: Float[Tensor, "words axes"],
    words: Int[Tensor, " words"],
    embedding: Float[Tensor, "vocab model"],
    draws: int = 4_096,
    seed: int = 0,
) -> Float[Tensor, " draws"]:
    """What the ten words count as on which a random direction is largest: a mix with weights of a normal distribution.

    The mean of a mix is the mix of the `means` by word, so no text needs to be read for it.
    """
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(means.shape[1], draws, generator=generator).to(means)
    return vocabulary.effective_words(words[(means @ mix).topk(10, dim=0).indices].T, embedding)


def overlapping(bars: Float[Tensor, "words examples"]) -> int:
    """How many words have a range of values that meets the range of another word."""
    low, high = bars.aminmax(dim=1)
    meet = (low[:, None] < high) & (low < high[:, None])  # each with itself as well
    return int((meet.sum(1) > 1).sum())


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
