"""Patching with features: change some coordinates of an activation to what they are in another sentence.

    x' = x + Σ_{j∈F} (c̄_j − c_j) f_j          at every token; F the features that are patched

c are the codes of x in some dictionary, c̄ those of the other sentence, f_j the dictionary's directions. What the
dictionary does not explain stays as it is. Everything behind the hook is then run again, and the question is how far
the model's answer has come towards the other sentence's: KL(target ‖ patched) at END.

    Dictionary    how to read codes from activations, and the directions that they stand for
    Edit          all that a dictionary could change in a batch of sentences
    loss_towards  the function of x' that is made small; `feature_order` asks which features do most of that

Source: Cunningham et al. 2023, and the code that came with it (HoagyC/sparse_coding, ioi_feature_ident.py).

Letters of shapes: B sentences, P positions, D dimensions of the residual stream, F features, V vocabulary, N tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import check_hook_name, fused_forward
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.ioi import Sentences, at, end_logits

Loss = Callable[[Float[Tensor, "sentences positions d"]], Float[Tensor, " sentences"]]
Chosen = Bool[Tensor, "#sentences features"]  # one row for all sentences, or one for each


@dataclass(frozen=True)
class Dictionary:
    """A way to write activations as sums of directions: x = Σ_j c_j f_j + a constant + what is left.

    Attributes:
        name: what figures call it.
        encode: (N, D) raw activations -> (N, F) codes, each token by itself.
        directions: (F, D), what one unit of each code adds to the activation.
        constant: (D,), what an activation without any feature would be.
    """

    name: str
    encode: Callable[[Float[Tensor, "tokens d"]], Float[Tensor, "tokens features"]]
    directions: Float[Tensor, "features d"]
    constant: Float[Tensor, " d"]

    def reconstruct(self, x_ND: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        """The constant and the sum of the features."""
        return self.encode(x_ND) @ self.directions + self.constant

    @classmethod
    def of_sae(cls, name: str, sae: SparseAutoencoder) -> Dictionary:
        """The features of an SAE; codes in the units inside, so directions carry its scale."""

        def encode(x_ND: Tensor) -> Tensor:
            with torch.no_grad():
                return sae.encode(x_ND).to_dense()

        constant = sae.denormalise(sae.b_dec[None])[0]
        return cls(name, encode, (sae.W_dec * sae.scale).detach(), constant.detach())

    @classmethod
    def of_axes(
        cls, name: str, axes: Float[Tensor, "axes d"], mean: Float[Tensor, " d"], non_negative: bool = False
    ) -> Dictionary:
        """Orthonormal axes (of PCA) about a mean. `non_negative`: each axis twice, once for each of its sides."""

        def encode(x_ND: Tensor) -> Tensor:
            codes_NF = (x_ND - mean) @ axes.T
            return torch.cat([codes_NF, -codes_NF], dim=1).relu() if non_negative else codes_NF

        return cls(name, encode, torch.cat([axes, -axes]) if non_negative else axes, mean)


@dataclass(frozen=True)
class Edit:
    """All that a dictionary could change in some sentences, to make them like others.

    Attributes:
        x: (B, P, D) the activations as they are.
        changes: (B, P, F) how each code would change, c̄ − c; 0 wherever the two sentences have been the same so far.
        directions: (F, D).
        length: (B,) how many tokens each sentence has, without the one that begins it.
    """

    x: Float[Tensor, "sentences positions d"]
    changes: Float[Tensor, "sentences positions features"]
    directions: Float[Tensor, "features d"]
    length: Int[Tensor, " sentences"]

    @classmethod
    def towards(
        cls,
        dictionary: Dictionary,
        x: Float[Tensor, "sentences positions d"],
        target: Float[Tensor, "sentences positions d"],
        sentences: Sentences,
    ) -> Edit:
        """From `x` to `target`: activations of two batches of sentences that agree position by position."""
        codes, wanted = (dictionary.encode(acts.flatten(0, 1)).unflatten(0, acts.shape[:2]) for acts in (x, target))
        seen = torch.arange(x.shape[1], device=x.device) <= sentences.positions["END"][:, None]  # no padding
        return cls(x, (wanted - codes) * seen[..., None], dictionary.directions, sentences.positions["END"])

    def __getitem__(self, rows: slice) -> Edit:
        """The same for some of the sentences."""
        return replace(self, x=self.x[rows], changes=self.changes[rows], length=self.length[rows])

    @property
    def used(self) -> Chosen:
        """(B, F) the features that change at all in each sentence."""
        return (self.changes != 0).any(1)

    def added(self, chosen: Chosen) -> Float[Tensor, "sentences positions d"]:
        """Σ_{j∈F} (c̄_j − c_j) f_j, for the features that are chosen."""
        return (self.changes * chosen[:, None, :]) @ self.directions

    def patched(self, chosen: Chosen) -> Float[Tensor, "sentences positions d"]:
        """x'."""
        return self.x + self.added(chosen)

    def magnitude(self, chosen: Chosen) -> Float[Tensor, " sentences"]:
        """|x' − x|, averaged over the tokens of each sentence."""
        return self.added(chosen).norm(dim=-1).sum(1) / self.length


# ---------------------------------------------------------------------- behind the hook


def behind(model: Any, sentences: Sentences, hook_name: str) -> Callable[[Tensor], Float[Tensor, "sentences vocab"]]:
    """A function from the residual stream at `hook_name`, (B, P, D), to the logits at END: only what lies behind is
    run.

    Gradients flow through it. Equals running the whole model with the activations at the hook replaced. Raises
    ValueError for a hook that is not the residual stream behind a block.
    """
    check_hook_name(model, hook_name)
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook_name)
    if found is None:
        raise ValueError(f"hook_name={hook_name!r}: features are patched in blocks.N.hook_resid_post, behind a block.")
    later = list(model.blocks)[int(found[1]) + 1 :]
    where = sentences.positions["END"]

    def run(x_BPD: Tensor) -> Tensor:
        with fused_forward(model):
            for block in later:
                out = block(x_BPD)
                x_BPD = out[0] if isinstance(out, tuple) else out
            return model.ln_final(at(x_BPD, where)[:, None])[:, 0] @ model.W_U + model.b_U

    return run


def divergence(
    logits: Float[Tensor, "sentences vocab"], target: Float[Tensor, "sentences vocab"]
) -> Float[Tensor, " sentences"]:
    """KL(target ‖ patched) in nats: 0 where the patched model says what it would say to the other sentence."""
    log_p, log_q = target.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def loss_towards(model: Any, sentences: Sentences, other: Sentences, hook_name: str) -> Loss:
    """The function that everything here makes small: patched residual stream -> KL to the answer to `other`."""
    run, target = behind(model, sentences, hook_name), end_logits(model, other)
    return lambda x_BPD: divergence(run(x_BPD), target)
