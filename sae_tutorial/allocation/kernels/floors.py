"""Floors on CUDA: for each column or row a bound, found digit by digit, that not much more than its capacity reaches.

Floats are read as whole numbers: the bits of positive floats order as the floats do, so thresholds are found by
counting. With everything not positive read as 0 and NaN as the largest number, there is one order for all (`_key`).

Letters of shapes: B tokens, F features; L lines (columns or rows) of the same length.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation.kernels import on_device_of

# Whole numbers of the same width, the bits of +inf, and the largest number; bits that count, most significant first.
FORMATS = {
    torch.float32: (torch.int32, 0x7F800000, 0x7FFFFFFF, (11, 10, 10)),
    torch.bfloat16: (torch.int16, 0x7F80, 0x7FFF, (11, 4)),
    torch.float16: (torch.int16, 0x7C00, 0x7FFF, (11, 4)),
}
GROUPS = 512  # of a line's entries, of which only the maxima are kept; they serve capacities up to a quarter of that


def line_floors(
    z_BF: Float[Tensor, "tokens features"], capacity: Int[Tensor, " lines"], dim: int
) -> Float[Tensor, " lines"]:
    """For each line along `dim` (0: columns, 1: rows) a positive bound that its `capacity` strongest positive entries
    reach: at most

        z.sort(dim, descending=True).values.select(dim, capacity - 1).clamp(min=least positive number)

    and near it; inf for a capacity of 0. A NaN counts as large, and nothing is raised.
    """
    integer, inf, top, _ = FORMATS[z_BF.dtype]
    bits_iL = (z_BF if dim == 0 else z_BF.T).view(integer)
    length, n_lines = bits_iL.shape
    floor_L = torch.full_like(capacity, inf, dtype=integer)
    if bits_iL.numel() == 0:
        return floor_L.view(z_BF.dtype)
    lines = 16 if bits_iL.stride(1) == 1 else 4  # columns lie side by side, rows do not
    with on_device_of(z_BF):
        _group_floors[(triton.cdiv(n_lines, lines),)](
            *(bits_iL, capacity, floor_L, length, n_lines, *bits_iL.stride()),
            **dict(INF=inf, TOP=top, GROUPS=GROUPS, LINES=lines, num_warps=8),
        )
    if length > GROUPS:  # otherwise each entry was a group of its own
        large = (capacity > GROUPS // 4).nonzero()[:, 0]
        base, lengths, form = large * bits_iL.stride(1), torch.full_like(large, length), FORMATS[z_BF.dtype]
        kth, _ = kth_of_lines(bits_iL, base, lengths, capacity[large], bits_iL.stride(0), form, rows=64, lines=16)
        floor_L[large] = kth.clamp(1, inf).to(integer)
    return floor_L.view(z_BF.dtype)


@triton.jit
def _key(bits, INF: tl.constexpr, TOP: tl.constexpr):
    """A number that orders as the float does: 0 if it is not positive, TOP if it is NaN."""
    bits = bits.to(tl.int32)
    return tl.where((bits & TOP) > INF, TOP, tl.maximum(bits, 0))


@triton.jit
def _group_floors(
    bits, capacity, floor, length, n_lines, stride_i, stride_l,
    INF: tl.constexpr, TOP: tl.constexpr, GROUPS: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """LINES lines. Group g holds the entries g, g + GROUPS, …: if m groups have a maximum of at least t, then at least
    m entries are at least t. The largest such t, in its 16 leading bits."""
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    here = line < n_lines
    column = bits + line.to(tl.int64)[None, :] * stride_l
    maxima = tl.zeros([GROUPS, LINES], tl.int32)
    for start in range(0, length, GROUPS):
        i = start + tl.arange(0, GROUPS)
        inside = (i < length)[:, None] & here[None, :]
        entries = tl.load(column + i.to(tl.int64)[:, None] * stride_i, mask=inside, other=0)
        maxima = tl.maximum(maxima, _key(entries, INF, TOP))
    wanted = tl.load(capacity + line, mask=here, other=1)
    bound = tl.zeros([LINES], tl.int32)
    bit = TOP // 2 + 1
    for _ in range(16 if TOP > 0x7FFF else 15):
        higher = bound | bit
        enough = tl.sum((maxima >= higher[None, :]).to(tl.int32), axis=0) >= wanted
        bound = tl.where(enough, higher, bound)
        bit = bit >> 1
    bound = tl.where(wanted == 0, INF, tl.minimum(tl.maximum(bound, 1), INF))
    tl.store(floor + line, bound.to(floor.dtype.element_ty), mask=here)


def kth_of_lines(
    bits: Tensor, base_L: Tensor, length_L: Tensor, capacity_L: Tensor, stride: int, form: tuple, rows: int, lines: int
) -> tuple[Int[Tensor, " lines"], Int[Tensor, " lines"]]:
    """For lines of any length, bits[base + i · stride]: the key of the `capacity`-th largest entry (0 if there are not
    so many), and how many entries are larger. Equals, for each line,

        kth = line.sort(descending=True).values[capacity - 1];  larger = (line > kth).sum()
    """
    n_lines = base_L.numel()
    kth_L, larger_L = torch.zeros_like(base_L, dtype=torch.int32), torch.zeros_like(base_L, dtype=torch.int32)
    if n_lines:
        with on_device_of(bits):
            _lines_kth[(triton.cdiv(n_lines, lines),)](
                *(bits, base_L, length_L, capacity_L, kth_L, larger_L, stride, n_lines),
                **dict(INF=form[1], TOP=form[2], ROWS=rows, LINES=lines),
            )
    return kth_L, larger_L


@triton.jit
def _lines_kth(
    bits, base, length, capacity, kth, larger, stride, n_lines,
    INF: tl.constexpr, TOP: tl.constexpr, ROWS: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """LINES lines, four bits of their thresholds at a time: 16 candidates, one walk along the lines to count."""
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    here = line < n_lines
    start = tl.load(base + line, mask=here, other=0)
    size = tl.load(length + line, mask=here, other=0)
    wanted = tl.load(capacity + line, mask=here, other=0)
    longest = tl.max(size)
    bound, above = tl.zeros([LINES], tl.int32), tl.zeros([LINES], tl.int32)
    for step in range(8 if TOP > 0x7FFF else 4):
        shift = (28 if TOP > 0x7FFF else 12) - 4 * step
        higher = bound[None, :] | (tl.arange(0, 16)[:, None] << shift)  # (16, LINES)
        count = tl.zeros([16, LINES], tl.int32)
        for first in range(0, longest, ROWS):
            i = first + tl.arange(0, ROWS)
            inside = i[:, None] < size[None, :]
            entries = tl.load(bits + start[None, :] + i.to(tl.int64)[:, None] * stride, mask=inside, other=0)
            reached = _key(entries, INF, TOP)[:, None, :] >= higher[None, :, :]
            count += tl.sum((reached & inside[:, None, :]).to(tl.int32), axis=0)
        possible = higher >= 0  # the first digit has only three bits: the fourth is the sign
        enough = possible & (count >= wanted[None, :])
        digit = tl.maximum(tl.sum(enough.to(tl.int32), axis=0) - 1, 0)
        above = tl.maximum(above, tl.max(tl.where(possible & (count < wanted[None, :]), count, 0), axis=0))
        bound = bound | (digit << shift)
    tl.store(kth + line, bound, mask=here)
    tl.store(larger + line, above, mask=here)
