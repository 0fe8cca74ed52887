"""The two sparse products on CUDA: sums of rows, and dots at the matches.

They are the primitives of `sae_tutorial.allocation.products`; forward, backward and transposes are all made of them.
Everything is summed in float32. Letters of shapes: B tokens, D inputs, F features, N matches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sae_tutorial.allocation.kernels import on_device_of

LONGEST = 512  # matches that one program walks: rows with more are cut into pieces
TILE = 8  # rows of a table that a program reads at a time, in sum_rows; in dots there are two tables, and 16 matches
BLOCK_D = 256


def sum_rows(
    weights_N: Float[Tensor, " matches"],
    columns_N: Int[Tensor, " matches"],
    offsets: Int[Tensor, " rows+1"],
    table: Float[Tensor, "columns d"],
) -> Float[Tensor, "rows d"]:
    """A weighted sum of rows of `table` for each row i of the sparse Z, which has `weights_N` in `columns_N`, at
    offsets[i]:offsets[i+1]. Equals Z @ table, or

        embedding_bag(columns, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)

    One program sums a row. A feature that every token uses would keep its program busy long after all others are
    done, so rows of more than LONGEST matches are summed in pieces first. The order of the sum is always the same.
    """
    n_rows, N, D = offsets.numel() - 1, columns_N.numel(), table.shape[1]
    out = table.new_empty(n_rows, D)
    if out.numel() == 0:
        return out
    weights_N, table = weights_N.contiguous(), table if table.stride(1) == 1 else table.contiguous()
    pieces = table.new_empty(2 * N // LONGEST, D, dtype=torch.float32)  # as many as there can be: no asking the device
    n_pieces = (offsets.diff() + LONGEST - 1) // LONGEST
    first_piece = pad(torch.where(n_pieces > 1, n_pieces, 0).cumsum(0), (1, 0))
    block = min(BLOCK_D, triton.next_power_of_2(D))
    with on_device_of(table):
        if len(pieces):
            j = torch.arange(len(pieces), device=table.device)
            # Pieces beyond the last real one come out empty, or are never read.
            owner = (torch.searchsorted(first_piece, j, right=True) - 1).clamp(max=n_rows - 1)
            starts = offsets[owner] + (j - first_piece[owner]) * LONGEST
            ends = torch.minimum(starts + LONGEST, offsets[owner + 1])
            _sum_rows[(len(pieces), triton.cdiv(D, block))](
                *(weights_N, columns_N, starts, ends, table, table.stride(0), pieces, pieces, starts, D),
                **dict(LAST=False, TILE=TILE, BLOCK_D=block),
            )
        _sum_rows[(n_rows, triton.cdiv(D, block))](
            *(weights_N, columns_N, offsets, offsets[1:], table, table.stride(0), out, pieces, first_piece, D),
            **dict(LAST=True, TILE=TILE, BLOCK_D=block),
        )
    return out


@triton.jit
def _sum_rows(
    weights, columns, starts, ends, table, stride, out, pieces, first_piece, D,
    LAST: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_D columns of one row of the result: from its matches, or (LAST, and the row was cut) from its pieces."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    start, end = tl.load(starts + row), tl.load(ends + row)
    total = tl.zeros([TILE, BLOCK_D], tl.float32)
    if LAST:
        first, last = tl.load(first_piece + row), tl.load(first_piece + row + 1)
        for j in range(first, last, TILE):
            piece = j + tl.arange(0, TILE)
            inside = (piece < last)[:, None] & (d < D)[None, :]
            total += tl.load(pieces + piece[:, None] * D + d[None, :], mask=inside, other=0.0)
        end = tl.where(first < last, start, end)
    for n in range(start, end, TILE):
        match = n + tl.arange(0, TILE)
        column = tl.load(columns + match, mask=match < end, other=0)
        weight = tl.load(weights + match, mask=match < end, other=0.0).to(tl.float32)
        inside = (match < end)[:, None] & (d < D)[None, :]
        rows = tl.load(table + column[:, None] * stride + d[None, :], mask=inside, other=0.0)
        total += weight[:, None] * rows.to(tl.float32)
    tl.store(out + row * D + d, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=(d < D) & (LAST | (start < end)))


def dots(
    A_BD: Float[Tensor, "tokens d"],
    W_FD: Float[Tensor, "features d"],
    tokens_N: Int[Tensor, " matches"],
    features_N: Int[Tensor, " matches"],
) -> Float[Tensor, " matches"]:
    """One dot product for each match. Equals

        (A @ W.T)[tokens, features]

    A program takes 16 matches, so a token with many delays no other; its row of A comes from the cache after the
    first time.
    """
    N, D = tokens_N.numel(), A_BD.shape[1]
    A_BD, W_FD = (t if t.stride(1) == 1 else t.contiguous() for t in (A_BD, W_FD))
    out = A_BD.new_empty(N)
    if N:
        with on_device_of(A_BD):
            _dots[(triton.cdiv(N, 2 * TILE),)](
                *(A_BD, W_FD, tokens_N, features_N, out, A_BD.stride(0), W_FD.stride(0), N, D),
                **dict(TILE=2 * TILE, BLOCK_D=min(BLOCK_D // 2, triton.next_power_of_2(max(D, 1)))),
            )
    return out


@triton.jit
def _dots(A, W, tokens, features, out, stride_a, stride_w, N, D, TILE: tl.constexpr, BLOCK_D: tl.constexpr):
    """TILE matches, BLOCK_D columns at a time."""
    match = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    here = match < N
    row_a = A + tl.load(tokens + match, mask=here, other=0)[:, None] * stride_a
    row_w = W + tl.load(features + match, mask=here, other=0)[:, None] * stride_w
    total = tl.zeros([TILE, BLOCK_D], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = here[:, None] & (d < D)[None, :]
        a, w = tl.load(row_a + d[None, :], mask=inside, other=0.0), tl.load(row_w + d[None, :], mask=inside, other=0.0)
        total += a.to(tl.float32) * w.to(tl.float32)
    tl.store(out + match, tl.sum(total, axis=1).to(out.dtype.element_ty), mask=here)
