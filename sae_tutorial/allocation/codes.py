"""SparseCodes: which token uses which feature, and how strongly. What allocation returns and training multiplies.

Letters of shapes: B tokens, D inputs, F features, N matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation.checks import FLOATING, WHOLE, check_inside, check_tensor
from sae_tutorial.allocation.products import Decode, EncodeMatches, MatchPattern, dots


@dataclass(frozen=True, eq=False, repr=False)
class SparseCodes:
    """The matches of a batch, as three lists of equal length, ordered by token and then by feature.

    Match i means that token `tokens[i]` uses feature `features[i]` with strength `values[i]`. Every (token, feature)
    pair appears at most once. Build one from an allocation rule, `from_matches` or `from_dense`: they keep the order,
    which the products rely on and the constructor, for speed, takes on trust. That all matches lie within `shape` is
    checked when they are first multiplied or counted.

        codes @ W_dec     (B, D), the decoder's product; gradients for values and W_dec, sparse both ways
    """

    values: Float[Tensor, " matches"]
    tokens: Int[Tensor, " matches"]
    features: Int[Tensor, " matches"]
    shape: tuple[int, int]

    def __post_init__(self):
        check_tensor("values", self.values, "real numbers", (*FLOATING, *WHOLE), "real")
        for name in ("tokens", "features"):
            check_tensor(name, getattr(self, name), "int64 numbers", (torch.int64,), "long()")
        if not self.values.shape == self.tokens.shape == self.features.shape or self.values.dim() != 1:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.values, self.tokens, self.features))
            raise ValueError(f"values, tokens and features must be three lists of one length, got shapes {shapes}")

    @classmethod
    def from_matches(cls, values: Tensor, tokens: Tensor, features: Tensor, shape: tuple[int, int]) -> SparseCodes:
        """Matches in any order: sorted here, and checked. Raises ValueError for a pair that is outside `shape`, or
        that comes twice."""
        for name, index in (("tokens", tokens), ("features", features)):
            check_tensor(name, index, "whole numbers", WHOLE, "long()")
        tokens, features = tokens.long(), features.long()
        cls(values, tokens, features, shape)  # lengths
        check_inside(tokens, features, shape)
        order = features.argsort(stable=True)
        order = order[tokens[order].argsort(stable=True)]
        values, tokens, features = values[order], tokens[order], features[order]
        twice = (tokens[1:] == tokens[:-1]) & (features[1:] == features[:-1])
        if twice.any():
            i = int(twice.nonzero()[0])
            raise ValueError(f"token {int(tokens[i])} and feature {int(features[i])} are matched twice; keep one match")
        return cls(values, tokens, features, (shape[0], shape[1]))

    @classmethod
    def from_dense(cls, dense_BF: Float[Tensor, "tokens features"]) -> SparseCodes:
        """The nonzero entries of a dense code matrix."""
        check_tensor("dense_BF", dense_BF, "real numbers", (*FLOATING, *WHOLE), "real")
        tokens, features = dense_BF.nonzero(as_tuple=True)
        return cls(dense_BF[tokens, features], tokens, features, (dense_BF.shape[0], dense_BF.shape[1]))

    def to_dense(self) -> Float[Tensor, "tokens features"]:
        """The same as a (B, F) tensor, zero where nothing matched. For small examples: this is what we avoid."""
        return self.values.new_zeros(self.shape).index_put((self._pattern.tokens, self._pattern.features), self.values)

    def l0(self) -> Int[Tensor, " tokens"]:
        """Features per token, a count for each token; its mean is the L0 that papers report."""
        return self._pattern.token_offsets.diff()

    def density(self) -> Float[Tensor, " features"]:
        """The share of the batch's tokens that use each feature, 0 to 1."""
        return self._pattern.feature_offsets.diff() / max(self.shape[0], 1)

    def with_values(self, values: Float[Tensor, " matches"]) -> SparseCodes:
        """The same matches with other strengths."""
        codes = SparseCodes(values, self.tokens, self.features, self.shape)
        codes.__dict__["_pattern"] = self._pattern  # already walked once: no need to sort again
        return codes

    def where(self, keep: Bool[Tensor, " matches"]) -> SparseCodes:
        """The matches for which `keep` is True."""
        check_tensor("keep", keep, "True and False", (torch.bool,), "bool()")
        if keep.shape != self.values.shape:
            raise ValueError(f"keep must have one entry for each of the {len(self)} matches, got {tuple(keep.shape)}")
        kept = keep.nonzero()[:, 0]
        return SparseCodes(self.values[kept], self.tokens[kept], self.features[kept], self.shape)

    def detach(self) -> SparseCodes:
        """The same matches, cut from the graph."""
        return self.with_values(self.values.detach())

    def to(self, device: torch.device | str) -> SparseCodes:
        """The same matches on another device."""
        return SparseCodes(self.values.to(device), self.tokens.to(device), self.features.to(device), self.shape)

    def __matmul__(self, W_dec: Float[Tensor, "features d_out"]) -> Float[Tensor, "tokens d_out"]:
        return decode(self, W_dec)

    def __len__(self) -> int:
        return self.values.numel()

    def __repr__(self) -> str:
        (n_tokens, n_features), n = self.shape, len(self)
        per_token = n / max(n_tokens, 1)
        return f"SparseCodes({n_tokens} tokens × {n_features} features, {n} matches, {per_token:.4g} per token)"

    @cached_property
    def _pattern(self) -> MatchPattern:
        return MatchPattern(self.tokens, self.features, self.shape)


def stack_tokens(parts: Sequence[SparseCodes]) -> SparseCodes:
    """Codes of consecutive tokens, one part after the other, as the codes of all."""
    if len(parts) == 1:
        return parts[0]
    *starts, n_tokens = accumulate((part.shape[0] for part in parts), initial=0)
    return SparseCodes(
        torch.cat([part.values for part in parts]),
        torch.cat([part.tokens + start for start, part in zip(starts, parts)]),
        torch.cat([part.features for part in parts]),
        (n_tokens, parts[0].shape[1]),
    )


def stack_features(parts: Sequence[SparseCodes]) -> SparseCodes:
    """Codes of the same tokens by consecutive features, one part beside the other, as the codes of all."""
    if len(parts) == 1:
        return parts[0]
    *starts, n_features = accumulate((part.shape[1] for part in parts), initial=0)
    tokens_N = torch.cat([part.tokens for part in parts])
    order = tokens_N.int().argsort(stable=True)  # within a token, parts stay in the order of their features
    values_N = torch.cat([part.values for part in parts])[order]
    features_N = torch.cat([part.features + start for start, part in zip(starts, parts)])[order]
    return SparseCodes(values_N, tokens_N[order], features_N, (parts[0].shape[0], n_features))


def decode(codes: SparseCodes, W_dec: Float[Tensor, "features d_out"]) -> Float[Tensor, "tokens d_out"]:
    """`codes.to_dense() @ W_dec` without the dense matrix: each token sums the rows of the few features it uses.

    Gradients reach `codes.values` and `W_dec`; a feature without a match gets a zero row. Raises ValueError if W_dec
    has another number of features than the codes.
    """
    check_tensor("W_dec", W_dec, "floating point numbers", FLOATING, "float()")
    if W_dec.dim() != 2 or W_dec.shape[0] != codes.shape[1]:
        raise ValueError(f"W_dec must have shape ({codes.shape[1]}, d_out) for these codes, got {tuple(W_dec.shape)}")
    return Decode.apply(codes.values.to(W_dec.dtype), W_dec, codes._pattern)


def encode_matches(
    x: Float[Tensor, "tokens d_in"],
    W_enc: Float[Tensor, "d_in features"],
    b_enc: Float[Tensor, " features"],
    codes: SparseCodes,
    b_dec: Float[Tensor, " d_in"] | None = None,
    *,
    rescore: bool = True,
) -> SparseCodes:
    """The encoder, computed only where a match is: values relu((x − b_dec) @ W_enc + b_enc) at the matches of `codes`.

    The way to train sparsely: compute all affinities without a graph (in bfloat16 if that is fast), let a rule choose
    the matches, then call this. Gradients reach x, W_enc, b_enc and b_dec (None counts as zero), at the matches only,
    and equal those of the dense encoder with every other entry masked.

    `rescore=True` computes the values anew, in the precision of `x`. `rescore=False` trusts `codes.values` to be these
    affinities already, which saves one dot product per match. A W_enc whose transpose is contiguous, as in
    `torch.empty(F, D).T`, is read and written fastest: a feature's weights then lie side by side.
    """
    (B, F), D = codes.shape, len(W_enc)
    expected = {"x": (B, D), "W_enc": (D, F), "b_enc": (F,), "b_dec": (D,)}
    given = {"x": x, "W_enc": W_enc, "b_enc": b_enc} | ({} if b_dec is None else {"b_dec": b_dec})
    for name, tensor in given.items():
        check_tensor(name, tensor, "floating point numbers", FLOATING, "float()")
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]} for these codes, got {tuple(tensor.shape)}")
    known = None if rescore else codes.values.detach().to(x.dtype)
    return codes.with_values(EncodeMatches.apply(x, W_enc, b_enc, b_dec, known, codes._pattern))


def sensitivity_at(
    codes: SparseCodes, gradients: Float[Tensor, "tokens d_out"], W_dec: Float[Tensor, "features d_out"]
) -> Float[Tensor, " matches"]:
    """`(gradients @ W_dec.T)` at the matches of `codes`, one dot product for each: how fast the loss changes along the
    feature's direction. Without a graph."""
    return dots(gradients.detach(), W_dec.detach(), codes._pattern)
