"""The four rules of `rules`, with fewer passes over the table: the same matches, ties included.

Of a table of 2048 × 8192 affinities 0.4 % will match, so sorting all of it is a waste. Every rule goes three steps:

    floor      a lower bound for what can match, cheap and a little too low
    compact    one pass that lists the entries not below the floor, a few more than will match
    choose     the exact rule, on that short list

A NaN is not below anything, so it always makes the list: looking for it costs no pass of its own. The table is read
block after block of rows, so tables beyond 2³¹ elements work, and nothing of its size is written.

Letters of shapes: B tokens, F features, N listed entries.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation import kernels, rules
from sae_tutorial.allocation.codes import SparseCodes

# Elements per block: on a CPU its mask stays in the cache; elsewhere it stays below what index kernels can count.
BLOCK = {"cpu": 2**20, "other": 2**28}
# Entries looked at to guess mutual_choice's floor, in runs of RUN neighbours, which come in one memory access.
SAMPLE, RUN = 2**16, 16
# A capacity of up to a quarter of the groups finds its floor from the maxima of so many groups.
GROUPS = (64, 512)


def token_choice(affinities: Float[Tensor, "tokens features"], k: int) -> SparseCodes:
    z_BF, k = _table(affinities), rules.check_count("k", k)
    k_B = torch.full((z_BF.shape[0],), min(k, z_BF.shape[1]), device=z_BF.device)
    floor_B = _row_floors(z_BF, k_B, max(64, 4 * k))
    listed = _compact(z_BF, floor_B[:, None])
    return _codes(affinities, strongest(listed, "token", k_B))


def feature_choice(
    affinities: Float[Tensor, "tokens features"], capacity: int | Int[Tensor, " features"]
) -> SparseCodes:
    z_BF = _table(affinities)
    capacity_F = rules.check_capacity(capacity, z_BF)
    listed = _compact(z_BF, _column_floors(z_BF, capacity_F)[None, :])
    return _codes(affinities, strongest(listed, "feature", capacity_F))


def mutual_choice(affinities: Float[Tensor, "tokens features"], n_matches: int) -> SparseCodes:
    z_BF, n_matches = _table(affinities), rules.check_count("n_matches", n_matches)
    slack = 4.0  # standard deviations
    while True:
        floor = _sampled_floor(z_BF, n_matches, slack)
        listed = _compact(z_BF, floor.view(1, 1))
        if len(listed) >= n_matches or floor <= _least_positive(z_BF):
            return _codes(affinities, strongest(listed, "batch", n_matches))
        slack *= 8  # the sample misled us: ask for less


def threshold_choice(
    affinities: Float[Tensor, "tokens features"], threshold: float | Float[Tensor, " features"]
) -> SparseCodes:
    z_BF = _table(affinities)
    theta_1F = rules.check_threshold(threshold, z_BF).clamp(min=0).expand(z_BF.shape[1])[None, :]
    listed = _compact(z_BF, theta_1F.clamp(min=_least_positive(z_BF)))
    return _codes(affinities, listed.where(listed.values > theta_1F[0, listed.features]))


for _rule in (token_choice, feature_choice, mutual_choice, threshold_choice):  # the same promise, in the same words
    _rule.__doc__ = getattr(rules, _rule.__name__).__doc__


# Floors: cheap lower bounds.


def _sampled_floor(z_BF: Tensor, n_matches: int, slack: float) -> Float[Tensor, ""]:
    """A guess, from a sample, below the `n_matches`-th largest entry. Mostly right, by `slack` standard deviations."""
    (B, F), least = z_BF.shape, _least_positive(z_BF)
    if n_matches == 0:
        return z_BF.new_tensor(math.inf)
    if z_BF.numel() <= 4 * SAMPLE or F < RUN:
        return z_BF.new_tensor(least)
    runs_per_row, n_runs = F // RUN, SAMPLE // RUN
    total = B * runs_per_row
    i = torch.arange(n_runs, device=z_BF.device) * int(0.6180339887 * total) % total  # spread evenly, no randomness
    columns = (i % runs_per_row)[:, None] * RUN + torch.arange(RUN, device=z_BF.device)
    sample = z_BF[(i // runs_per_row)[:, None], columns].flatten().nan_to_num(nan=0.0)
    expected = SAMPLE * n_matches / z_BF.numel()
    place = math.ceil(expected + slack * math.sqrt(expected) + slack)
    if place >= SAMPLE:
        return z_BF.new_tensor(least)
    return sample.topk(place).values[-1].clamp(min=least)


def _row_floors(z_BF: Tensor, k_B: Int[Tensor, " tokens"], groups: int) -> Float[Tensor, " tokens"]:
    """`_bisect_floors` for each row, from the maxima of its groups."""
    if kernels.serve(z_BF):
        return kernels.floors.line_floors(z_BF, k_B, dim=1)
    return _bisect_floors(_group_maxima(z_BF, groups, dim=1).T, k_B)


def _column_floors(z_BF: Tensor, capacity_F: Int[Tensor, " features"]) -> Float[Tensor, " features"]:
    """`_bisect_floors` for each column, from few group maxima where few may match, from the whole column where many."""
    if kernels.serve(z_BF):
        return kernels.floors.line_floors(z_BF, capacity_F, dim=0)
    floor_F = torch.empty(z_BF.shape[1], dtype=z_BF.dtype, device=z_BF.device)
    maxima_GF = _group_maxima(z_BF, GROUPS[0], dim=0)
    smaller = -1.0
    for groups in (*GROUPS, None):
        largest = groups / 4 if groups else math.inf
        these = ((capacity_F > smaller) & (capacity_F <= largest)).nonzero()[:, 0]
        if these.numel():
            part = (maxima_GF if groups == GROUPS[0] else z_BF).index_select(1, these)
            part = _group_maxima(part, groups, dim=0) if groups else part
            floor_F[these] = _bisect_floors(part, capacity_F[these])
        smaller = largest
    return floor_F


def _group_maxima(z_BF: Tensor, groups: int, dim: int) -> Tensor:
    """The maxima along `dim` of the entries i, i + groups, i + 2 groups, …: strided, as neighbours are often alike."""
    size = z_BF.shape[dim]
    if size < 2 * groups:
        return z_BF
    whole = size - size % groups
    maxima = z_BF.narrow(dim, 0, whole).unflatten(dim, (-1, groups)).amax(dim)
    start = maxima.narrow(dim, 0, size - whole)
    torch.maximum(start, z_BF.narrow(dim, whole, size - whole), out=start)
    return maxima


def _bisect_floors(z_GC: Tensor, capacity_C: Tensor) -> Float[Tensor, " columns"]:
    """For each column, a bound that at least `capacity` of its positive entries reach, if it has that many.

    G rows may be maxima of G groups of entries: if m groups have a maximum of at least t, then at least m entries are
    at least t. So 64 numbers stand for a column of thousands, and six halvings come close enough.
    """
    low_C = torch.full_like(capacity_C, _least_positive(z_GC), dtype=z_GC.dtype)
    if z_GC.shape[0] == 0:
        return low_C
    high_C = z_GC.amax(0)
    for _ in range(6):
        middle_C = low_C / 2 + high_C / 2
        enough_C = (z_GC >= middle_C).sum(0, dtype=torch.int32) >= capacity_C
        low_C, high_C = torch.where(enough_C, middle_C, low_C), torch.where(enough_C, high_C, middle_C)
    return torch.where(capacity_C == 0, math.inf, low_C.clamp(min=_least_positive(z_GC)))


def _least_positive(z: Tensor) -> float:
    """The smallest positive number of this precision: not below it means positive."""
    return torch.finfo(z.dtype).tiny * torch.finfo(z.dtype).eps


# Compact: the short list.


def _compact(z_BF: Tensor, floor: Float[Tensor, "tokens|1 features|1"]) -> SparseCodes:
    """The entries that are not below their floor, row after row. Raises ValueError if one of them is NaN or inf."""
    if kernels.serve(z_BF):
        return kernels.selection.compact(z_BF, floor)
    B, F = z_BF.shape
    rows = max(1, BLOCK.get(z_BF.device.type, BLOCK["other"]) // max(F, 1))
    places = []
    for start in range(0, B, rows):
        part = z_BF[start : start + rows]
        part_floor = floor if floor.shape[0] == 1 else floor[start : start + rows]
        places.append(_not_below(part, part_floor) + start * F)
    places_N = torch.cat(places) if places else torch.empty(0, dtype=torch.int64, device=z_BF.device)
    tokens, features = places_N // max(F, 1), places_N % max(F, 1)
    values = z_BF[tokens, features]
    bad = ~values.isfinite()
    if bad.any():
        i = int(bad.nonzero()[0])
        raise rules.not_a_number(int(tokens[i]), int(features[i]), float(values[i]))
    return SparseCodes(values, tokens, features, (B, F))


def _not_below(z_BF: Tensor, floor: Tensor) -> Int[Tensor, " n"]:
    """`(~(z_BF < floor)).flatten().nonzero()[:, 0]`; on a CPU numpy does each part several times faster than torch."""
    if z_BF.device.type != "cpu":
        return (z_BF < floor).logical_not_().flatten().nonzero()[:, 0]
    if z_BF.dtype == torch.bfloat16:  # numpy has none
        below = (z_BF < floor).numpy()
    else:
        below = np.less(z_BF.numpy(), floor.numpy())
    return torch.from_numpy(np.flatnonzero(np.logical_not(below, out=below)))


# Choose: the exact rule on the short list.


def strongest(listed: SparseCodes, owner: str, budget: int | Int[Tensor, " owners"]) -> SparseCodes:
    """Of listed matches, the `budget` strongest positive ones of the whole "batch", of each "token" or of each
    "feature": one number, or one for each. Ties go to the lowest token, then the lowest feature."""
    positive_N = listed.values > 0
    if not positive_N.all():
        listed = listed.where(positive_N)
    values_N = listed.values.detach()
    if owner == "batch":
        return listed.where(_strongest(values_N, int(budget)))
    owner_N, n_owners = (listed.tokens, listed.shape[0]) if owner == "token" else (listed.features, listed.shape[1])
    return listed.where(_strongest_in_each(values_N, owner_N, n_owners, budget))


def _strongest(values_N: Tensor, n: int) -> Bool[Tensor, " listed"]:
    """The n largest; ties go to the first in the list, which is the lowest token and then the lowest feature."""
    if kernels.serve(values_N):
        return kernels.selection.strongest(values_N, n)
    if values_N.numel() <= n or n == 0:
        return torch.full_like(values_N, n > 0, dtype=torch.bool)
    weakest = values_N.kthvalue(values_N.numel() - n + 1).values
    above, equal = values_N > weakest, values_N == weakest
    return above | (equal & (equal.cumsum(0) <= n - above.sum()))


def _strongest_in_each(
    values_N: Tensor, owner_N: Tensor, n_owners: int, budget: int | Int[Tensor, " owners"]
) -> Bool[Tensor, " listed"]:
    """For each owner (a feature, or a token) its `budget` largest; ties go to the first in the list."""
    if kernels.serve(values_N):
        return kernels.selection.strongest_in_each(values_N, owner_N, n_owners, budget)
    order = _weakness(values_N).argsort(stable=True)
    order = order[owner_N[order].int().argsort(stable=True)]  # owner after owner, strongest first
    owner_N = owner_N[order]
    starts = torch.searchsorted(owner_N, torch.arange(n_owners, device=owner_N.device))
    place_N = torch.arange(owner_N.numel(), device=owner_N.device) - starts[owner_N]
    within_N = place_N < (budget[owner_N] if isinstance(budget, Tensor) else budget)
    return torch.empty_like(order, dtype=torch.bool).scatter_(0, order, within_N)


def _weakness(values_N: Tensor) -> Int[Tensor, " listed"]:
    """A whole number that falls as a positive value rises: the bits of positive floats order as whole numbers do,
    and whole numbers of 4 bytes or less sort several times faster."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values_N.element_size()]
    return torch.iinfo(integer).max - values_N.view(integer)


def _table(affinities: Tensor) -> Tensor:
    rules.check_table(affinities)
    return affinities.detach()


def _codes(affinities: Tensor, codes: SparseCodes) -> SparseCodes:
    """Values that gradients flow through, where somebody wants them."""
    if not affinities.requires_grad:
        return codes
    return SparseCodes(affinities[codes.tokens, codes.features], codes.tokens, codes.features, codes.shape)
