"""What the gradient of the loss knows of a feature, and what is left of a text when features are chosen by it.

Letters of shapes: R rows, S context, N = R·S positions, D width of an activation, F features, M matches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_gradients, read_hook, read_hooks
from sae_tutorial.allocation import SparseCodes, gradient_choice, token_choice
from sae_tutorial.allocation.codes import sensitivity_at
from sae_tutorial.autoencoder import SparseAutoencoder
from sae_tutorial.autoencoder.dictionaries import variance_explained
from sae_tutorial.evaluation.intervals import bootstrap
from sae_tutorial.evaluation.splicing import divergence, replacing

AT_ONCE = 16  # rows in a forward pass


@dataclass(frozen=True, eq=False)
class Text:
    """A text, and what a model makes of it: activations at one hook, and its predictions. Every row begins with BOS,
    whose activation is neither read nor replaced."""

    model: Any
    hook_name: str
    tokens: Int[Tensor, "rows context"]

    @cached_property
    def x(self) -> Float[Tensor, "positions d"]:
        """Activations, row after row, that of BOS among them."""
        with read_hook(self.model, self.hook_name) as read:
            return torch.cat([read(some).flatten(0, 1).float() for some in self.tokens.split(AT_ONCE)])

    @cached_property
    def is_read(self) -> Bool[Tensor, " positions"]:
        """All but BOS, and but the last token of each row, after which nothing is predicted."""
        column = torch.arange(self.tokens.shape[1]).expand(self.tokens.shape)
        return ((column > 0) & (column + 1 < self.tokens.shape[1])).flatten()

    @cached_property
    def log_probs(self) -> Float[Tensor, "rows context vocabulary"]:
        return torch.cat([predictions(self, some, []) for some in self.tokens.split(AT_ONCE)])

    def gradients(self, answers: Int[Tensor, "rows context"] | None = None) -> Float[Tensor, "positions d"]:
        """Of the summed loss of all following tokens, or of `answers` in their places, by x."""
        whole = torch.ones_like(self.tokens, dtype=torch.bool)
        answers = self.tokens if answers is None else answers
        found = []
        with read_gradients(self.model, self.hook_name) as read:
            for a in range(0, len(self.tokens), AT_ONCE):
                here = slice(a, a + AT_ONCE)
                found.append(read(self.tokens[here], whole[here], answers[here])[1].flatten(0, 1).float())
        return torch.cat(found)

    def sampled_answers(self, seed: int) -> Int[Tensor, "rows context"]:
        """In place of each token one that the model would have written there: it predicts it from the same context."""
        generator, answers = torch.Generator().manual_seed(seed), self.tokens.clone()
        for row, log_probs in zip(answers, self.log_probs):
            row[1:] = torch.multinomial(log_probs[:-1].exp(), 1, generator=generator)[:, 0]
        return answers


@torch.no_grad()
def predictions(
    text: Text, tokens: Int[Tensor, "rows context"], hooks: Sequence[Any]
) -> Float[Tensor, "rows context v"]:
    """Log probabilities of the next token, with these hooks in place; for as many rows as go at once."""
    with read_hooks(text.model, ()), text.model.hooks(fwd_hooks=list(hooks)):
        return text.model(tokens, return_type="logits", use_cache=False).float().log_softmax(-1)


# ---------------------------------------------------------------------- what features do


def in_units(gradients: Float[Tensor, "positions d"], text: Text) -> Float[Tensor, "positions d"]:
    """With a root-mean-square coordinate of 1, as `train` has them: what β is counted in."""
    return gradients / gradients[text.is_read].square().mean().sqrt()


@torch.no_grad()
def mean_sensitivity(
    text: Text, codes: SparseCodes, W_dec: Float[Tensor, "features d"], samples: Sequence[int]
) -> dict[int, Float[Tensor, " matches"]]:
    """Root mean square of W_dec g at each match, over so many answers that the model would have given."""
    squares, found = torch.zeros(len(codes)), {}
    for seed in range(max(samples)):
        answers = text.sampled_answers(seed)
        squares += sensitivity_at(codes, text.gradients(answers), W_dec).square()
        if seed + 1 in samples:
            found[seed + 1] = (squares / (seed + 1)).sqrt()
    return found


@dataclass(frozen=True)
class Removed:
    """Matches that were taken out of their activations one by one: their places in the codes, and the KL of all later
    predictions of their rows, in nats."""

    match: Int[Tensor, " removed"]
    kl: Float[Tensor, " removed"]


@torch.no_grad()
def remove(text: Text, sae: SparseAutoencoder, codes: SparseCodes, n: int, seed: int = 0) -> Removed:
    """Take out `n` matches, drawn among those that are read, and let the model go on."""
    usable = text.is_read[codes.tokens].nonzero()[:, 0]
    match = usable[torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))[:n]]
    rows, columns = codes.tokens[match] // text.tokens.shape[1], codes.tokens[match] % text.tokens.shape[1]
    written = codes.values[match, None] * sae.W_dec[codes.features[match]] * sae.scale
    found = []
    for some in torch.arange(len(match)).split(AT_ONCE):
        row, column = rows[some], columns[some]

        def without(acts: Tensor, hook: Any, column: Tensor = column, some: Tensor = some) -> Tensor:
            changed = acts.clone()
            changed[torch.arange(len(some)), column] -= written[some]
            return changed

        clean, other = text.log_probs[row], predictions(text, text.tokens[row], [(text.hook_name, without)])
        found.append(divergence(clean, other)[:, :-1].sum(1))
    return Removed(match, torch.cat(found))


def agreement(
    foretold: Mapping[str, Float[Tensor, " removed"]], truth: Float[Tensor, " removed"]
) -> dict[str, tuple[float, float, float]]:
    """Rank correlation of each with the truth, and its 95 % bootstrap interval over what was removed."""

    def of(ranks: Tensor) -> Tensor:
        apart = ranks - ranks.mean(-1, keepdim=True)
        return (apart[0] * apart[1]).sum(-1) / (apart[0].norm(dim=-1) * apart[1].norm(dim=-1))

    def ranks(values: Tensor) -> Tensor:
        return values.argsort().argsort().double()

    found = {name: bootstrap(torch.stack([ranks(one), ranks(truth)]), of) for name, one in foretold.items()}
    return {name: _floats(*ends) for name, ends in found.items()}


def _floats(middle: Tensor, low: Tensor, high: Tensor) -> tuple[float, float, float]:
    return float(middle), float(low), float(high)


# ---------------------------------------------------------------------- choosing by it


def chosen(
    z: Float[Tensor, "positions features"], sensitivity: Float[Tensor, "positions features"], k: int, beta: float
) -> Float[Tensor, "positions features"]:
    """Codes as a table, by Gradient Choice."""
    return gradient_choice(z, sensitivity, k, beta).to_dense()


def kept(codes: SparseCodes, worth: Float[Tensor, " matches"], k: int) -> SparseCodes:
    """Of the matches of each position those `k` that are worth most, with the values that they had."""
    table = torch.zeros(codes.shape)
    table[codes.tokens, codes.features] = worth.float()
    chosen = token_choice(table, k)
    values = torch.zeros(codes.shape)
    values[codes.tokens, codes.features] = codes.values
    return chosen.with_values(values[chosen.tokens, chosen.features])


@torch.no_grad()
def what_is_left(text: Text, sae: SparseAutoencoder, codes: SparseCodes) -> dict[str, Any]:
    """With these codes in the place of the activations: FVU, and row by row sums of the KL and of the rise in loss."""
    x_hat, read = sae.decode(codes), text.is_read
    put = torch.arange(text.tokens.shape[1]).expand(text.tokens.shape) > 0
    rows_kl, rows_loss = [], []
    for a in range(0, len(text.tokens), AT_ONCE):
        here = slice(a, a + AT_ONCE)
        new = x_hat.view(*text.tokens.shape, -1)[here][put[here]]
        clean = text.log_probs[here]
        other = predictions(text, text.tokens[here], [(text.hook_name, replacing(put[here], new))])
        rows_kl.append(divergence(clean, other)[:, 1:-1].sum(1))
        rows_loss.append((clean - other)[:, 1:-1].gather(2, text.tokens[here, 2:, None]).sum((1, 2)))
    return {
        "fvu": 1 - variance_explained(text.x[read], x_hat[read]),
        "kl": torch.cat(rows_kl),
        "loss": torch.cat(rows_loss),
    }


def per_token(text: Text, sums: Float[Tensor, " rows"]) -> tuple[float, float, float]:
    """The mean over predictions that are read, with its 95 % bootstrap interval over rows."""
    return _floats(*bootstrap(sums.double() / (text.tokens.shape[1] - 2)))
