"""Floors: cheap lower bounds for what can match, a little too low, for `fast`.

Letters of shapes: B tokens, F features; R rows and C columns of a table, or G groups of its entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation import kernels
from sae_tutorial.allocation.fast.table import Table, ascending, largest, least_positive

# Entries looked at to guess mutual_choice's floor, in runs of RUN neighbours, which come in one memory access.
SAMPLE, RUN = 2**16, 16
# What is taken off a guess of it, the last batch's: in training it hardly moves by 1 % from one batch to the next.
MARGIN = 0.04
# A capacity of up to a quarter of the groups finds its floor from the maxima of so many groups.
GROUPS = (64, 128, 256, 512)


def guessed_floors(table: Table, n_matches: int, guess: float | None) -> Iterator[Float[Tensor, ""]]:
    """Lower and lower guesses for the whole table, down to the least positive number."""
    z_RC, least = table.rows, least_positive(table.rows)
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
    (R, C), least = z_RC.shape, least_positive(z_RC)
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


def token_floors(table: Table, k: int) -> Float[Tensor, " tokens"]:
    """`_floors` for each token, from the maxima of groups of features."""
    z_BF = table.affinities
    if kernels.serve(z_BF):
        return kernels.floors.line_floors(z_BF, torch.full((z_BF.shape[0],), k, device=z_BF.device), dim=1)
    groups = max(64, 4 * k)
    lines = None if table.by_feature else table.lines
    return _floors(_group_maxima(z_BF if lines is None or lines.shape[1] < groups else lines, groups), k)


def feature_floors(table: Table, capacity_F: Int[Tensor, " features"]) -> Float[Tensor, " features"]:
    """`_floors` for each feature, from few groups of tokens where few may match, from the whole column where many."""
    z_FB = table.affinities.T
    if kernels.serve(z_FB):
        return kernels.floors.line_floors(z_FB.T, capacity_F, dim=0)
    floor_F = torch.empty(z_FB.shape[0], dtype=z_FB.dtype, device=z_FB.device)
    lines = table.lines if table.by_feature else None
    maxima_FG = _group_maxima(z_FB if lines is None or lines.shape[1] < GROUPS[0] else lines, GROUPS[0])
    smaller = -1.0
    for groups in (*GROUPS, None):
        largest = groups / 4 if groups else math.inf
        these = ((capacity_F > smaller) & (capacity_F <= largest)).nonzero()[:, 0]
        if these.numel():
            part = (maxima_FG if groups == GROUPS[0] else z_FB).index_select(0, these)
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
        maxima = largest(z_RC[:, :whole].unflatten(1, (-1, groups)), 1)
    else:  # the same, as it lies in memory
        maxima = largest(z_RC.T[:whole].unflatten(0, (-1, groups)), 0).T
    start = maxima[:, : size - whole]
    torch.maximum(start, z_RC[:, whole:], out=start)
    return maxima


def _floors(z_RG: Tensor, n: int | Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """For each row, a bound that at least `n` of its positive entries reach, if it has that many: the n-th largest.

    The row may hold maxima of G groups of entries: if m groups have a maximum of at least t, then at least m entries
    are at least t. So 64 numbers stand for a column of thousands.
    """
    R, G = z_RG.shape
    least, n_R1 = least_positive(z_RG), torch.as_tensor(n, device=z_RG.device).expand(R)[:, None]
    if G == 0:
        return torch.full((R,), least, dtype=z_RG.dtype, device=z_RG.device)
    floor_R = ascending(z_RG).gather(1, (G - n_R1).clamp(0, G - 1))[:, 0]
    return torch.where(n_R1[:, 0] == 0, math.inf, floor_R.clamp(min=least))
