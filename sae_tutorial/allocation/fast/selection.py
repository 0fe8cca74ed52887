"""Selection: the short list of what is not below a floor, and the strongest of a list, for `fast`.

Letters of shapes: B tokens, F features, N listed entries; R rows and C columns of a table as it lies in memory.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation import checks, kernels
from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.allocation.fast.table import LINE, Table, ascending, bits, not_below

# Elements per block: on a CPU its mask stays in the cache; elsewhere it stays below what index kernels can count.
BLOCK = {"cpu": 2**22, "other": 2**28}


def compact(table: Table, floor: Float[Tensor, "tokens|1 features|1"]) -> SparseCodes:
    """The entries that are not below their floor, row after row. Raises ValueError if one of them is NaN or inf."""
    if kernels.serve(table.affinities):
        tokens, features, values, finite = kernels.selection.compact(table.affinities, floor)
    else:
        if table.by_feature:  # read as it lies in memory
            features, tokens, values = _compact_rows(table, floor.T)
            order = tokens.int().argsort(stable=True)
            tokens, features, values = tokens[order], features[order], values[order]
        else:
            tokens, features, values = _compact_rows(table, floor)
        finite = values.numel() == 0 or math.isfinite(values.max())  # NaN if there is one
    if not finite:
        i = int((~values.isfinite()).nonzero()[0])
        raise checks.not_a_number(int(tokens[i]), int(features[i]), float(values[i]))
    n_tokens, n_features = table.affinities.shape
    return SparseCodes(values, tokens, features, (n_tokens, n_features))


def _compact_rows(table: Table, floor: Float[Tensor, "rows|1 columns|1"]) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of each entry that is not below its floor."""
    z_RC = table.rows
    R, C = z_RC.shape
    rows = max(1, BLOCK.get(z_RC.device.type, BLOCK["other"]) // max(C, 1))
    # A line whose columns have floors of their own is as busy as the lowest of them makes it: nothing gained.
    lines_RL = table.lines if floor.shape[1] == 1 else None
    blocks = []
    for start in range(0, max(R, 1), rows):
        block = slice(start, start + rows)
        of_block = floor if floor.shape[0] == 1 else floor[block]
        if lines_RL is None:
            places = not_below(z_RC[block], of_block)
            values = z_RC[block].reshape(-1).index_select(0, places)
        else:
            places, values = _look_into_lines(z_RC[block], lines_RL[block], of_block)
        blocks.append((places + start * C, values))
    places_N, values_N = (torch.cat(parts) for parts in zip(*blocks))
    rows_N = places_N // max(C, 1)
    return rows_N, places_N - rows_N * C, values_N


def _look_into_lines(
    z_RC: Tensor, maxima_RL: Tensor, floor: Float[Tensor, "rows|1 1"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Places (counted row after row) and values of what is not below its floor, from the lines that may have any."""
    busy_M = not_below(maxima_RL, floor)
    z_ML = z_RC.reshape(-1, LINE).index_select(0, busy_M)
    found = not_below(z_ML, floor if floor.shape[0] == 1 else floor[busy_M // maxima_RL.shape[1]])
    return busy_M[found // LINE] * LINE + found % LINE, z_ML.view(-1).index_select(0, found)


def strongest(
    listed: SparseCodes,
    owner: str,
    budget: int | Int[Tensor, " owners"],
    by: Float[Tensor, " listed"] | None = None,
) -> SparseCodes:
    """Of listed matches, the `budget` strongest positive ones of the whole "batch", of each "token" or of each
    "feature": one number, or one for each. Ties go to the lowest token, then the lowest feature. `by` are the numbers
    to compare, where these are not the values."""
    listed, values_N = positive(listed, by)
    if owner == "batch":
        return listed.where(strongest_of(values_N, int(budget)))
    owner_N, n_owners = (listed.tokens, listed.shape[0]) if owner == "token" else (listed.features, listed.shape[1])
    return listed.where(strongest_of(values_N, budget, owner_N, n_owners))


def positive(listed: SparseCodes, by: Tensor | None = None) -> tuple[SparseCodes, Float[Tensor, " positive"]]:
    """What may match at all, and the numbers to compare: `by`, or the values."""
    by = (listed.values if by is None else by).detach()
    positive_N = by > 0
    return (listed, by) if positive_N.all() else (listed.where(positive_N), by[positive_N])


def strongest_of(
    values_N: Float[Tensor, " listed"],
    budget: int | Int[Tensor, " owners"],
    owner_N: Int[Tensor, " listed"] | None = None,
    n_owners: int = 1,
) -> Bool[Tensor, " listed"]:
    """Which of these positive numbers are among the `budget` largest, of all or of each owner. Ties go to the first in
    the list."""
    if owner_N is None:
        return _strongest(values_N, int(budget))
    return _strongest_in_each(values_N, owner_N, n_owners, budget)


def _strongest(values_N: Tensor, n: int) -> Bool[Tensor, " listed"]:
    """The n largest; ties go to the first in the list, which is the lowest token and then the lowest feature."""
    if kernels.serve(values_N):
        return kernels.selection.strongest(values_N, n)
    if values_N.numel() <= n or n == 0:
        return torch.full_like(values_N, n > 0, dtype=torch.bool)
    weakest = ascending(values_N[None])[0, -n]
    above, equal = values_N > weakest, values_N == weakest
    return above | (equal & (equal.cumsum(0) <= n - above.sum()))


def _strongest_in_each(
    values_N: Tensor, owner_N: Tensor, n_owners: int, budget: int | Int[Tensor, " owners"]
) -> Bool[Tensor, " listed"]:
    """For each owner (a feature, or a token) its `budget` largest; ties go to the first in the list."""
    if kernels.serve(values_N):
        return kernels.selection.strongest_in_each(values_N, owner_N, n_owners, budget)
    order = _owner_after_owner(values_N, owner_N, n_owners)
    owner_N = owner_N[order]
    starts = torch.searchsorted(owner_N, torch.arange(n_owners, device=owner_N.device))
    place_N = torch.arange(owner_N.numel(), device=owner_N.device) - starts[owner_N]
    within_N = place_N < (budget[owner_N] if isinstance(budget, Tensor) else min(budget, len(order)))
    return torch.empty_like(order, dtype=torch.bool).scatter_(0, order, within_N)


def _owner_after_owner(values_N: Tensor, owner_N: Tensor, n_owners: int) -> Int[Tensor, " listed"]:
    """The order in which each owner's values fall, owner after owner; equal values keep theirs."""
    bits_N, N = bits(values_N), values_N.numel()
    weakness_N = torch.iinfo(bits_N.dtype).max - bits_N  # falls as a value rises
    weakness_bits, place_bits = 8 * values_N.element_size() - 1, N.bit_length()
    if (n_owners - 1).bit_length() + weakness_bits + place_bits > 63:
        order = weakness_N.argsort(stable=True)
        return order[owner_N[order].int().argsort(stable=True)]
    # All three fit into one whole number: sorting these is one sort instead of two, and needs not be stable.
    key_N = ((owner_N << weakness_bits) + weakness_N << place_bits) + torch.arange(N, device=owner_N.device)
    return ascending(key_N[None])[0] & ((1 << place_bits) - 1)
