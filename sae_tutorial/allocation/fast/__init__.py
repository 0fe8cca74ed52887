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

from sae_tutorial.allocation import checks, rules
from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.allocation.fast.floors import feature_floors, guessed_floors, token_floors
from sae_tutorial.allocation.fast.selection import compact, strongest
from sae_tutorial.allocation.fast.table import Table, least_positive


def token_choice(affinities: Float[Tensor, "tokens features"], k: int) -> SparseCodes:
    table, k = Table(affinities), min(checks.check_count("k", k), affinities.shape[1])
    return _codes(affinities, strongest(compact(table, token_floors(table, k)[:, None]), "token", k))


def feature_choice(
    affinities: Float[Tensor, "tokens features"], capacity: int | Int[Tensor, " features"]
) -> SparseCodes:
    table, capacity_F = Table(affinities), checks.check_capacity(capacity, affinities)
    listed = compact(table, feature_floors(table, capacity_F)[None, :])
    return _codes(affinities, strongest(listed, "feature", capacity_F))


def mutual_choice(
    affinities: Float[Tensor, "tokens features"], n_matches: int, *, guess: float | None = None
) -> SparseCodes:
    table, n_matches = Table(affinities), checks.check_count("n_matches", n_matches)
    for floor in guessed_floors(table, n_matches, guess):
        listed = compact(table, floor.view(1, 1))
        if len(listed) >= n_matches:
            break
    return _codes(affinities, strongest(listed, "batch", n_matches))


def threshold_choice(
    affinities: Float[Tensor, "tokens features"], threshold: float | Float[Tensor, " features"]
) -> SparseCodes:
    table, theta = Table(affinities), checks.check_threshold(threshold, affinities).clamp(min=0)
    theta_1F = theta.expand(affinities.shape[1])[None, :]
    listed = compact(table, theta_1F.clamp(min=least_positive(affinities)))
    return _codes(affinities, listed.where(listed.values > theta_1F[0, listed.features]))


def gradient_choice(
    affinities: Float[Tensor, "tokens features"],
    sensitivity: Float[Tensor, "tokens features"],
    k: int,
    beta: float = 1.0,
) -> SparseCodes:
    chosen = token_choice(rules.scores(affinities, sensitivity, beta).detach(), k)
    return chosen.with_values(affinities[chosen.tokens, chosen.features])


def by_owner(
    affinities: Float[Tensor, "tokens features"],
    owner: str,
    budget: int | Int[Tensor, " features"],
    *,
    guess: float | None = None,
) -> SparseCodes:
    """The rule under which each "token" may match `budget` features, each "feature" `budget` tokens, or the whole
    "batch" `budget` pairs. `guess` is `mutual_choice`'s, and nothing to the other two."""
    if owner == "batch":
        return mutual_choice(affinities, int(budget), guess=guess)
    return token_choice(affinities, int(budget)) if owner == "token" else feature_choice(affinities, budget)


for _rule in (
    token_choice,
    feature_choice,
    mutual_choice,
    threshold_choice,
    gradient_choice,
):  # the same promise, in the same words
    _rule.__doc__ = getattr(rules, _rule.__name__).__doc__


def _codes(affinities: Tensor, codes: SparseCodes) -> SparseCodes:
    """Values that gradients flow through, where they are wanted."""
    if not affinities.requires_grad:
        return codes
    return SparseCodes(affinities[codes.tokens, codes.features], codes.tokens, codes.features, codes.shape)
