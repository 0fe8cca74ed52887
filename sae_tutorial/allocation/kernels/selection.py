"""Selection on CUDA: the short list of what is not below a floor, and the strongest of a list.

    compact       one read of the table, which leaves one bit for each entry; then only the bits are read
    strongest     three histograms of the short list, for 11, 10 and 10 bits

`floors` explains how floats become whole numbers. Letters of shapes: B tokens, F features, N listed entries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.allocation.kernels import on_device_of
from sae_tutorial.allocation.kernels.floors import FORMATS, _key, kth_of_lines

BLOCK = 4096  # entries that one program of compact or of a histogram reads
WORDS = 512  # of 32 bits, one for each entry, that one program of compact's second half reads
OWNERS = 1  # that one program of strongest_in_each serves: some have thousands of entries, most have few
COPIES = 16  # of a histogram, so that programs seldom wait for each other


def compact(
    z_BF: Float[Tensor, "tokens features"], floor: Float[Tensor, "tokens|1 features|1"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"], bool]:
    """The entries that are not below their floor, row after row; floors below the least positive number count as that.

        tokens, features = (~(z < floor)).nonzero(as_tuple=True);  values = z[tokens, features]
        finite = values.isfinite().all()

    The table is read once. What is kept of that are bits, 1/32 of a float32 table's size, and counts, which show where
    in the list the entries go.
    """
    (B, F), (integer, inf, top, _) = z_BF.shape, FORMATS[z_BF.dtype]
    if z_BF.numel() == 0:
        index = torch.empty(0, dtype=torch.int64, device=z_BF.device)
        return index, index, z_BF.new_empty(0), True
    block = min(BLOCK, max(32, triton.next_power_of_2(F)))
    pieces, words_per_tile = triton.cdiv(F, block), block // 32  # a row is so many tiles, a tile so many words
    n_words = B * pieces * words_per_tile
    words, counts = z_BF.new_empty(n_words, dtype=torch.int32), z_BF.new_empty(B * pieces, dtype=torch.int32)
    bad = z_BF.new_zeros(1, dtype=torch.int64)
    bits_BF, floor = z_BF.view(integer), floor.contiguous().view(integer)
    with on_device_of(z_BF):
        _mark[(B * pieces,)](
            *(bits_BF, floor, words, counts, bad, F, pieces, *bits_BF.stride()),
            **dict(PER_TOKEN=floor.shape[0] > 1, PER_FEATURE=floor.shape[1] > 1),
            **dict(INF=inf, TOP=top, BLOCK=block, num_warps=8 if block > 1024 else 4),
        )
    ends = counts.cumsum(0)
    n, any_bad = torch.cat([ends[-1:], bad]).tolist()
    values = z_BF.new_empty(n)
    tokens, features = torch.empty(2, n, dtype=torch.int64, device=z_BF.device)
    with on_device_of(z_BF):
        _write[(triton.cdiv(n_words, WORDS),)](
            *(bits_BF, words, counts, ends, values.view(integer), tokens, features),
            *(n_words, pieces * words_per_tile, words_per_tile, *bits_BF.stride()),
            **dict(WORDS=WORDS),
        )
    return tokens, features, values, not any_bad


@triton.jit
def _mark(
    bits, floor, words, counts, bad, F, pieces, stride_b, stride_f,
    PER_TOKEN: tl.constexpr, PER_FEATURE: tl.constexpr, INF: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile, a piece of a row: which entries are listed, as bits, and how many."""
    tile = tl.program_id(0).to(tl.int64)
    b = tile // pieces
    f = (tile % pieces).to(tl.int32) * BLOCK + tl.arange(0, BLOCK)
    inside = f < F
    key = _key(tl.load(bits + b * stride_b + f.to(tl.int64) * stride_f, mask=inside, other=0), INF, TOP)
    if PER_TOKEN:
        floor += b * (F if PER_FEATURE else 1)
    bound = tl.load(floor + f, mask=inside, other=0) if PER_FEATURE else tl.load(floor)
    keep = (inside & (key >= tl.maximum(_key(bound, INF, TOP), 1))).to(tl.int32)
    word = tl.sum(tl.reshape(keep << (tl.arange(0, BLOCK) % 32), [BLOCK // 32, 32]), axis=1)
    tl.store(words + tile * (BLOCK // 32) + tl.arange(0, BLOCK // 32), word)
    tl.store(counts + tile, tl.sum(keep))
    tl.store(bad, 1, mask=tl.max(key) >= INF)


@triton.jit
def _write(
    bits, words, counts, ends, values, tokens, features, n_words, words_per_row, words_per_tile, stride_b, stride_f,
    WORDS: tl.constexpr,
):  # fmt: skip
    """WORDS words of 32 bits: the entries whose bit is set, to their places in the list, one of each word at a time."""
    w = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    word = tl.load(words + w, mask=w < n_words, other=0).to(tl.int64) & 0xFFFFFFFF
    first_tile = tl.program_id(0).to(tl.int64) * WORDS // words_per_tile
    size = _ones(word).to(tl.int32)
    place = tl.load(ends + first_tile) - tl.load(counts + first_tile) + tl.cumsum(size) - size
    b, f = w // words_per_row, w % words_per_row * 32
    for _ in range(tl.max(size)):
        here = word > 0
        lowest = word & -word
        feature = f + _ones(lowest - 1)
        entry = tl.load(bits + b * stride_b + feature * stride_f, mask=here, other=0)
        tl.store(values + place, entry, mask=here)
        tl.store(tokens + place, b, mask=here)
        tl.store(features + place, feature, mask=here)
        word, place = word - lowest, place + 1


@triton.jit
def _ones(x):
    """How many of the lower 32 bits are set, in a few sums of ever wider fields."""
    x = (x & 0x55555555) + ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x & 0x0F0F0F0F) + ((x >> 4) & 0x0F0F0F0F)
    x = (x & 0x00FF00FF) + ((x >> 8) & 0x00FF00FF)
    return (x & 0x0000FFFF) + ((x >> 16) & 0x0000FFFF)


def strongest(values_N: Float[Tensor, " listed"], n: int) -> Bool[Tensor, " listed"]:
    """The n largest of a list of positive numbers, as a mask; ties go to the first in the list. Equals

    mask = torch.zeros(N, dtype=torch.bool);  mask[values.sort(descending=True, stable=True).indices[:n]] = True
    """
    if values_N.numel() <= n or n == 0:
        return torch.full_like(values_N, n > 0, dtype=torch.bool)
    kth, quota = kth_largest(values_N, n)
    bits_N = values_N.view(FORMATS[values_N.dtype][0])
    above, equal = bits_N > kth, bits_N == kth
    return above | (equal & (equal.cumsum(0) <= quota))


def kth_largest(values_N: Float[Tensor, " listed"], n: int) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """The bits of the n-th largest of N ≥ n ≥ 1 positive numbers, and how many equal to it are among the n. Equals

        kth = values.sort(descending=True).values[n - 1];  quota = n - (values > kth).sum()

    A histogram of the leading 11 bits shows in which bin the n-th is; the next bits are counted in that bin only.
    Nothing waits for the device.
    """
    integer, inf, top, digits = FORMATS[values_N.dtype]
    # The bits known so far, and the rank among those that share them.
    state = torch.tensor([0, n], device=values_N.device)
    shift, N, bits_N = sum(digits), values_N.numel(), values_N.view(integer)
    with on_device_of(values_N):
        for width in digits:
            shift -= width
            counts = torch.zeros(COPIES, 2**width, dtype=torch.int32, device=values_N.device)
            grid = (triton.cdiv(N, BLOCK),)
            shapes = dict(SHIFT=shift, WIDTH=width, COPIES=COPIES)
            _histogram[grid](bits_N, counts, state, N, INF=inf, TOP=top, BLOCK=BLOCK, num_warps=8, **shapes)
            _narrow[(1,)](counts, state, WIDTH=width, COPIES=COPIES)
    return state[0], state[1]


@triton.jit
def _histogram(
    bits, counts, state, N,
    INF: tl.constexpr, TOP: tl.constexpr, SHIFT: tl.constexpr, WIDTH: tl.constexpr,
    COPIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """counts[copy, d] += the entries whose known bits are those of the n-th, and whose next WIDTH bits are d."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = _key(tl.load(bits + i, mask=i < N, other=0), INF, TOP).to(tl.int64)
    mine = (i < N) & ((key >> (SHIFT + WIDTH)) == tl.load(state))
    digit = (key >> SHIFT) & ((1 << WIDTH) - 1)
    copy = tl.program_id(0) % COPIES
    tl.atomic_add(counts + copy * (1 << WIDTH) + digit, 1, mask=mine, sem="relaxed")


@triton.jit
def _narrow(counts, state, WIDTH: tl.constexpr, COPIES: tl.constexpr):
    """The digit of the n-th largest: the largest one with at least n entries in its own bin and those above."""
    digit = tl.arange(0, 1 << WIDTH)
    count = tl.zeros([1 << WIDTH], tl.int64)
    for copy in range(COPIES):
        count += tl.load(counts + copy * (1 << WIDTH) + digit)
    known, rank = tl.load(state), tl.load(state + 1)
    found = tl.sum((tl.cumsum(count, reverse=True) >= rank).to(tl.int32)) - 1
    tl.store(state, (known << WIDTH) | found)
    tl.store(state + 1, rank - tl.sum(tl.where(digit > found, count, 0)))


def strongest_in_each(
    values_N: Float[Tensor, " listed"],
    owner_N: Int[Tensor, " listed"],
    n_owners: int,
    budget: int | Int[Tensor, " owners"],
) -> Bool[Tensor, " listed"]:
    """For each owner its `budget` largest (one number, or one for each) of a list of positive numbers, as a mask; ties
    go to the first in the list. Equals, for every owner o,

        mask[owner == o] = strongest(values[owner == o], budget[o])
    """
    capacity = torch.as_tensor(budget, device=owner_N.device).expand(n_owners).contiguous()
    order = owner_N.int().argsort(stable=True)  # owner after owner
    owner_N, bits_N = owner_N[order].long(), values_N[order].view(FORMATS[values_N.dtype][0])
    starts = torch.searchsorted(owner_N, torch.arange(n_owners + 1, device=owner_N.device))
    form = FORMATS[values_N.dtype]
    kth, larger = kth_of_lines(bits_N, starts[:-1], starts.diff(), capacity, 1, form, rows=512, lines=OWNERS)
    equal = bits_N == kth[owner_N]
    seen = torch.nn.functional.pad(equal.cumsum(0), (1, 0))  # ties before each entry, in all owners
    tie = seen[1:] - seen[starts[owner_N]]  # this one's number among its owner's
    keep = (bits_N > kth[owner_N]) | (equal & (tie <= (capacity - larger)[owner_N]))
    return torch.empty_like(keep).scatter_(0, order, keep)
