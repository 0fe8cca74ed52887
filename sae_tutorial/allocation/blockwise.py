"""The four rules, streamed over blocks of features: the same matches, while affinities exist one block at a time.

A rule here takes blocks where `rules` takes a table: an iterable of affinities (B, W), for features 0 to W − 1, then
the next W, and so on, of any widths. A block is read once, when its turn comes; nothing of it is kept but its matches,
so all blocks may live in the same memory. What a block decides depends on what the rule compares:

    feature_choice, threshold_choice   one feature with itself: a block's matches are final
    token_choice, mutual_choice        features with each other: each block nominates as many candidates as the whole
                                       budget, and the strongest so far stay. What is not among the strongest of its
                                       own block, or of all blocks so far, is not among them in the end

Letters of shapes: B tokens, W features of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation import checks, fast
from sae_tutorial.allocation.codes import SparseCodes, stack_features
from sae_tutorial.allocation.fast.selection import strongest

Blocks = Iterable[Float[Tensor, "tokens some"]]


def token_choice(blocks: Blocks, k: int) -> SparseCodes:
    """`rules.token_choice` of all blocks side by side."""
    k = checks.check_count("k", k)
    return _strongest_so_far(_each(blocks, lambda affinities_BW, _: fast.token_choice(affinities_BW, k)), "token", k)


def mutual_choice(blocks: Blocks, n_matches: int) -> SparseCodes:
    """`rules.mutual_choice` of all blocks side by side."""
    n = checks.check_count("n_matches", n_matches)
    return _strongest_so_far(_each(blocks, lambda affinities_BW, _: fast.mutual_choice(affinities_BW, n)), "batch", n)


def feature_choice(blocks: Blocks, capacity: int | Int[Tensor, " features"]) -> SparseCodes:
    """`rules.feature_choice` of all blocks side by side."""
    return _limited(blocks, fast.feature_choice, checks.check_capacity, "capacity", capacity)


def threshold_choice(blocks: Blocks, threshold: float | Float[Tensor, " features"]) -> SparseCodes:
    """`rules.threshold_choice` of all blocks side by side."""
    return _limited(blocks, fast.threshold_choice, checks.check_threshold, "threshold", threshold)


def by_owner(blocks: Blocks, owner: str, budget: int | Int[Tensor, " features"]) -> SparseCodes:
    """`fast.by_owner` of all blocks side by side."""
    if owner == "feature":
        return feature_choice(blocks, budget)
    return (token_choice if owner == "token" else mutual_choice)(blocks, int(budget))


def _strongest_so_far(nominated: Iterator[SparseCodes], owner: str, budget: int) -> SparseCodes:
    so_far = next(nominated)
    for candidates in nominated:
        so_far = strongest(stack_features([so_far, candidates]), owner, budget)
    return so_far


def _limited(blocks: Blocks, choice: Callable, check: Callable, name: str, limit: Any) -> SparseCodes:
    """A choice whose limit is one number, or one for each feature, of which a block gets those of its features."""
    if not isinstance(limit, Tensor) or limit.dim() == 0:
        return stack_features(list(_each(blocks, lambda affinities_BW, _: choice(affinities_BW, limit))))
    limit_F = check(limit, limit[None])

    def own(affinities_BW: Tensor, features: slice) -> SparseCodes:
        if features.stop > len(limit_F):
            raise ValueError(f"{name} has shape ({len(limit_F)},), but there are {features.stop} features or more")
        return choice(affinities_BW, limit_F[features])

    codes = stack_features(list(_each(blocks, own)))
    if codes.shape[1] != len(limit_F):
        raise ValueError(f"{name} must be one number or have shape ({codes.shape[1]},), got ({len(limit_F)},)")
    return codes


def _each(blocks: Blocks, choice: Callable[[Tensor, slice], SparseCodes]) -> Iterator[SparseCodes]:
    """The choice of each block, which is given the slice of its features, too."""
    first, n_tokens = 0, None
    for affinities_BW in blocks:
        checks.check_table(affinities_BW)
        if n_tokens not in (None, affinities_BW.shape[0]):
            raise ValueError(f"every block must have the same tokens, got {affinities_BW.shape[0]} after {n_tokens}")
        n_tokens, width = affinities_BW.shape
        try:
            codes = choice(affinities_BW, slice(first, first + width))
        except ValueError:
            checks.refuse_nan_and_inf(affinities_BW, first)  # the same error, with the feature's number among all
            raise
        del affinities_BW  # the next block may need the memory
        yield codes
        first += width
    if n_tokens is None:
        raise ValueError("blocks is empty: give at least one, as it shows how many tokens there are")
