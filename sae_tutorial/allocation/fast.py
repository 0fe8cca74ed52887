"""The four rules of `rules`, with fewer passes over the table: the same matches, ties included.

Of a table of 2048 × 8192 affinities 0.4 % will match, so sorting all of it is a waste. Every rule goes three steps:

    floor        a lower bound for what can match, cheap and a little too low (`floors`)
    compact      one pass that lists the entries not below the floor, a few more than will match (`selection`)
    strongest    the exact rule, on that short list (`selection`)

A NaN is not below anything, so it always makes the list: looking for it costs no pass of its own. The table is read
block after block of rows, so tables beyond 2³¹ elements work, and nothing of its size is written. It may lie in
memory token after token or feature after feature: each is read as it lies.

Letters of shapes: B tokens, F features, N listed entries.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation import rules
from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.allocation.floors import column_floors, guessed_floors, least_positive, row_floors
from sae_tutorial.allocation.selection import by_feature, compact, strongest


def token_choice(affinities: Float[Tensor, "tokens features"], k: int) -> SparseCodes:
    z_BF, k = _table(affinities), min(rules.check_count("k", k), affinities.shape[1])
    return _codes(affinities, strongest(compact(z_BF, row_floors(z_BF, k)[:, None]), "token", k))


def feature_choice(
    affinities: Float[Tensor, "tokens features"], capacity: int | Int[Tensor, " features"]
) -> SparseCodes:
    z_BF = _table(affinities)
    capacity_F = rules.check_capacity(capacity, z_BF)
    listed = compact(z_BF, column_floors(z_BF, capacity_F)[None, :])
    return _codes(affinities, strongest(listed, "feature", capacity_F))


def mutual_choice(
    affinities: Float[Tensor, "tokens features"], n_matches: int, *, guess: float | None = None
) -> SparseCodes:
    z_BF, n_matches = _table(affinities), rules.check_count("n_matches", n_matches)
    for floor in guessed_floors(z_BF.T if by_feature(z_BF) else z_BF, n_matches, guess):
        listed = compact(z_BF, floor.view(1, 1))
        if len(listed) >= n_matches:
            break
    return _codes(affinities, strongest(listed, "batch", n_matches))


def threshold_choice(
    affinities: Float[Tensor, "tokens features"], threshold: float | Float[Tensor, " features"]
) -> SparseCodes:
    z_BF = _table(affinities)
    theta_1F = rules.check_threshold(threshold, z_BF).clamp(min=0).expand(z_BF.shape[1])[None, :]
    listed = compact(z_BF, theta_1F.clamp(min=least_positive(z_BF)))
    return _codes(affinities, listed.where(listed.values > theta_1F[0, listed.features]))


for _rule in (token_choice, feature_choice, mutual_choice, threshold_choice):  # the same promise, in the same words
    _rule.__doc__ = getattr(rules, _rule.__name__).__doc__


def _table(affinities: Tensor) -> Tensor:
    rules.check_table(affinities)
    return affinities.detach()


def _codes(affinities: Tensor, codes: SparseCodes) -> SparseCodes:
    """Values that gradients flow through, where somebody wants them."""
    if not affinities.requires_grad:
        return codes
    return SparseCodes(affinities[codes.tokens, codes.features], codes.tokens, codes.features, codes.shape)
