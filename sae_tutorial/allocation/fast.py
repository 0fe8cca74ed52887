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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
# What is taken off a guess of it, the last batch's: in training it hardly moves by 1 % from one batch to the next.
MARGIN = 0.04
# A capacity of up to a quarter of the groups finds its floor from the maxima of so many groups.
GROUPS = (64, 128, 256, 512)


def token_choice(affinities: Float[Tensor, "tokens features"], k: int) -> SparseCodes:
    z_BF, k = _table(affinities), min(rules.check_count("k", k), affinities.shape[1])
    return _codes(affinities, strongest(_compact(z_BF, _row_floors(z_BF, k)[:, None]), "token", k))


def feature_choice(
    affinities: Float[Tensor, "tokens features"], capacity: int | Int[Tensor, " features"]
) -> SparseCodes:
    z_BF = _table(affinities)
    capacity_F = rules.check_capacity(capacity, z_BF)
    listed = _compact(z_BF, _column_floors(z_BF, capacity_F)[None, :])
    return _codes(affinities, strongest(listed, "feature", capacity_F))


def mutual_choice(
    affinities: Float[Tensor, "tokens features"], n_matches: int, *, guess: float | None = None
) -> SparseCodes:
    z_BF, n_matches = _table(affinities), rules.check_count("n_matches", n_matches)
    for floor in _guessed_floors(z_BF.T if by_feature(z_BF) else z_BF, n_matches, guess):
        listed = _compact(z_BF, floor.view(1, 1))
        if len(listed) >= n_matches:
            break
    return _codes(affinities, strongest(listed, "batch", n_matches))


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


def _guessed_floors(z_RC: Tensor, n_matches: int, guess: float | None) -> Iterator[Float[Tensor, ""]]:
    """Lower and lower guesses, down to the least positive number."""
    least = _least_positive(z_RC)
    if guess is not None and least < guess * (1 - MARGIN) < math.inf and n_matches:
        yield z_RC.new_tensor(guess * (1 - MARGIN))
    slack = 4.0  # standard deviations
    while True:
        floor = _sampled_floor(z_RC, n_matches, slack)
        yield floor
        if floor <= least:
            return
        slack *= 8  # the sample misled us: ask for less


def _sampled_floor(z_RC: Tensor, n_matches: int, slack: float) -> Float[Tensor, ""]:
    """A guess, from a sample, below the `n_matches`-th largest entry. Mostly right, by `slack` standard deviations.
    Rows of the table are neighbours in memory."""
    (R, C), least = z_RC.shape, _least_positive(z_RC)
    if n_matches == 0:
        return z_RC.new_tensor(math.inf)
    if z_RC.numel() <= 4 * SAMPLE or C < RUN:
        return z_RC.new_tensor(least)
    runs_per_row, n_runs = C // RUN, SAMPLE // RUN
    total = R * runs_per_row
    i = torch.arange(n_runs, device=z_RC.device) * int(0.6180339887 * total) % total  # spread evenly, no randomness
    columns = (i % runs_per_row)[:, None] * RUN + torch.arange(RUN, device=z_RC.device)
    sample = z_RC[(i // runs_per_row)[:, None], columns].flatten().nan_to_num(nan=0.0)
    expected = SAMPLE * n_matches / z_RC.numel()
    place = math.ceil(expected + slack * math.sqrt(expected) + slack)
    if place >= SAMPLE:
        return z_RC.new_tensor(least)
    return sample.topk(place).values[-1].clamp(min=least)


def _row_floors(z_BF: Tensor, k: int) -> Float[Tensor, " tokens"]:
    """`_floors` for each row, from the maxima of its groups."""
    if kernels.serve(z_BF):
        return kernels.floors.line_floors(z_BF, torch.full((z_BF.shape[0],), k, device=z_BF.device), dim=1)
    return _floors(_group_maxima(z_BF, max(64, 4 * k)), k)


def _column_floors(z_BF: Tensor, capacity_F: Int[Tensor, " features"]) -> Float[Tensor, " features"]:
    """`_floors` for each column, from few group maxima where few may match, from the whole column where many."""
    if kernels.serve(z_BF):
        return kernels.floors.line_floors(z_BF, capacity_F, dim=0)
    floor_F = torch.empty(z_BF.shape[1], dtype=z_BF.dtype, device=z_BF.device)
    maxima_FG = _group_maxima(z_BF.T, GROUPS[0])
    smaller = -1.0
    for groups in (*GROUPS, None):
        largest = groups / 4 if groups else math.inf
        these = ((capacity_F > smaller) & (capacity_F <= largest)).nonzero()[:, 0]
        if these.numel():
            part = (maxima_FG if groups == GROUPS[0] else z_BF.T).index_select(0, these)
            floor_F[these] = _floors(_group_maxima(part, groups) if groups else part, capacity_F[these])
        smaller = largest
    return floor_F


def _group_maxima(z_RC: Tensor, groups: int) -> Float[Tensor, "rows groups"]:
    """Of each row, the maxima of the entries i, i + groups, i + 2 groups, …: strided, as neighbours are often alike."""
    size = z_RC.shape[1]
    if size < 2 * groups:
        return z_RC
    whole = size - size % groups
    if z_RC.stride(1) == 1:
        maxima = z_RC[:, :whole].unflatten(1, (-1, groups)).amax(1)
    else:  # the same, as it lies in memory
        maxima = z_RC.T[:whole].unflatten(0, (-1, groups)).amax(0).T
    start = maxima[:, : size - whole]
    torch.maximum(start, z_RC[:, whole:], out=start)
    return maxima


def _floors(z_RG: Tensor, n: int | Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """For each row, a bound that at least `n` of its positive entries reach, if it has that many: the n-th largest.

    The row may hold maxima of G groups of entries: if m groups have a maximum of at least t, then at least m entries
    are at least t. So 64 numbers stand for a column of thousands.
    """
    R, G = z_RG.shape
    least, n_R1 = _least_positive(z_RG), torch.as_tensor(n, device=z_RG.device).expand(R)[:, None]
    if G == 0:
        return torch.full((R,), least, dtype=z_RG.dtype, device=z_RG.device)
    floor_R = _ascending(z_RG).gather(1, (G - n_R1).clamp(0, G - 1))[:, 0]
    return torch.where(n_R1[:, 0] == 0, math.inf, floor_R.clamp(min=least))


def _ascending(z_RG: Tensor) -> Tensor:
    """Each row in ascending order, NaN last; on a CPU numpy sorts many times faster than torch."""
    if z_RG.device.type != "cpu":
        return z_RG.sort(dim=1).values
    known = z_RG.float() if z_RG.element_size() < 4 else z_RG
    rows = max(1, 2**16 // max(z_RG.shape[1], 1))
    parts = _in_threads(lambda part: torch.from_numpy(np.sort(part.numpy(), axis=1)), known.split(rows))
    return torch.cat(parts).to(z_RG.dtype)


def _least_positive(z: Tensor) -> float:
    """The smallest positive number of this precision: not below it means positive."""
    return torch.finfo(z.dtype).tiny * torch.finfo(z.dtype).eps


# Compact: the short list.


def _compact(z_BF: Tensor, floor: Float[Tensor, "tokens|1 features|1"]) -> SparseCodes:
    """The entries that are not below their floor, row after row. Raises ValueError if one of them is NaN or inf."""
    if kernels.serve(z_BF):
        return kernels.selection.compact(z_BF, floor)
    B, F = z_BF.shape
    if by_feature(z_BF):  # read it as it lies in memory
        features, tokens, values = _compact_rows(z_BF.T, floor.T)
        order = tokens.int().argsort(stable=True)
        tokens, features, values = tokens[order], features[order], values[order]
    else:
        tokens, features, values = _compact_rows(z_BF, floor)
    if values.numel() and not math.isfinite(values.max()):  # NaN if there is one
        i = int((~values.isfinite()).nonzero()[0])
        raise rules.not_a_number(int(tokens[i]), int(features[i]), float(values[i]))
    return SparseCodes(values, tokens, features, (B, F))


def by_feature(z_BF: Tensor) -> bool:
    """Whether the table lies in memory feature after feature."""
    return z_BF.T.is_contiguous() and not z_BF.is_contiguous()


def _compact_rows(z_RC: Tensor, floor: Float[Tensor, "rows|1 columns|1"]) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of each entry that is not below its floor."""
    R, C = z_RC.shape
    rows = max(1, BLOCK.get(z_RC.device.type, BLOCK["other"]) // max(C, 1))

    def block(start: int) -> tuple[Tensor, Tensor]:
        part = z_RC[start : start + rows]
        places = _not_below(part, floor if floor.shape[0] == 1 else floor[start : start + rows])
        return places + start * C, part.reshape(-1).index_select(0, places)

    starts = range(0, max(R, 1), rows)
    blocks = _in_threads(block, starts) if _numpy_knows(z_RC) else [block(start) for start in starts]
    places_N, values_N = (torch.cat(parts) for parts in zip(*blocks))
    rows_N = places_N // max(C, 1)
    return rows_N, places_N - rows_N * C, values_N


def _numpy_knows(z: Tensor) -> bool:
    return z.device.type == "cpu" and z.dtype != torch.bfloat16


def _in_threads(compute: Callable[[Any], Any], pieces: Sequence) -> list:
    """`compute` for each piece. It should be numpy's: that computes with one thread, and lets go of the interpreter
    meanwhile, so there is room for others. Torch has threads of its own."""
    n_threads = min(torch.get_num_threads(), len(pieces))
    if n_threads < 2:
        return [compute(piece) for piece in pieces]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(compute, pieces))


def _not_below(z_RC: Tensor, floor: Tensor) -> Int[Tensor, " n"]:
    """`(~(z_RC < floor)).flatten().nonzero()[:, 0]`; on a CPU numpy does each part several times faster than torch."""
    if z_RC.device.type != "cpu":
        return (z_RC < floor).logical_not_().flatten().nonzero()[:, 0]
    below = np.less(z_RC.numpy(), floor.numpy()) if _numpy_knows(z_RC) else (z_RC < floor).numpy()
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
    weakest = _ascending(values_N[None])[0, -n]
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
    weakness_N, N = _weakness(values_N), values_N.numel()
    weakness_bits, place_bits = 8 * values_N.element_size() - 1, N.bit_length()
    if (n_owners - 1).bit_length() + weakness_bits + place_bits > 63:
        order = weakness_N.argsort(stable=True)
        return order[owner_N[order].int().argsort(stable=True)]
    # All three fit into one whole number: sorting these is one sort instead of two, and needs not be stable.
    key_N = ((owner_N << weakness_bits) + weakness_N << place_bits) + torch.arange(N, device=owner_N.device)
    return _ascending(key_N[None])[0] & ((1 << place_bits) - 1)


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
