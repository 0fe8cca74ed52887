"""The sparse products behind SparseCodes, forward and backward.

A code matrix of B tokens by F features is almost all zeros: with 32 matches per token and 24,576 features, 99.9 % of
it. So nothing here ever builds it. Two primitives carry everything, each stated with the dense expression it equals:

    _sum_rows   Z @ table          a weighted sum of a few rows of `table` for each row of the sparse Z
    dots        (A @ B.T) at Z     one dot product for each match

The decoder, the encoder and their gradients are uses of these two. Letters of shapes: B tokens, D inputs, F features,
N matches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae_tutorial.allocation import kernels
from sae_tutorial.allocation.checks import check_inside

# Elements of a gradient that are computed at a time, where it goes into memory that is there already: 2 MB of float32.
INTO_MEMORY = 2**19


class MatchPattern:
    """Where the matches sit: token and feature of each, and (made when first needed, then kept) how to walk them.

    By token: match `token_offsets[b]` is the first of token b. By feature: `feature_order` lists the matches
    feature after feature, and `feature_offsets[f]` is where feature f starts in that list.

    Raises ValueError for a match outside `shape`.
    """

    def __init__(self, tokens_N: Tensor, features_N: Tensor, shape: tuple[int, int]):
        check_inside(tokens_N, features_N, shape)
        self.tokens, self.features, self.shape = tokens_N, features_N, shape

    @cached_property
    def token_offsets(self) -> Int[Tensor, " tokens+1"]:
        return _offsets(self.tokens, self.shape[0])

    @cached_property
    def feature_offsets(self) -> Int[Tensor, " features+1"]:
        return _offsets(self.features[self.feature_order], self.shape[1])

    @cached_property
    def feature_order(self) -> Int[Tensor, " matches"]:
        # Sorting 4-byte keys is several times faster than sorting 8-byte ones.
        keys = self.features.int() if self.shape[1] < 2**31 else self.features
        return keys.argsort(stable=True)

    @cached_property
    def tokens_by_feature(self) -> Int[Tensor, " matches"]:
        return self.tokens[self.feature_order]


# Memory into which backward passes of this thread may write gradients, by the address of the weights (also that of Wᵀ).
_spare: ContextVar[dict[int, Tensor] | None] = ContextVar("_spare", default=None)


@contextmanager
def reusing_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Gradients of these parameters become None, and products write new ones into the memory that the old ones had.

    A gradient of more than 32 MB is otherwise new memory in each step, which the system clears page by page: at
    24,576 × 768 that takes three times as long as to compute what goes there. On a GPU nothing is cleared, so nothing
    is kept.
    """
    parameters = list(parameters)
    kept = {p.data_ptr(): p.grad for p in parameters if p.grad is not None and p.device.type == "cpu"}
    for p in parameters:
        p.grad = None
    token = _spare.set(kept)
    try:
        yield
    finally:
        _spare.reset(token)


def _memory_for(W_FD: Tensor) -> Float[Tensor, "features d"] | None:
    """Contiguous memory of the shape and dtype of these weights, if some is left. It is taken once."""
    kept = _spare.get() or {}
    spare = kept.get(W_FD.data_ptr())
    for memory in [] if spare is None else [spare, spare.T]:
        if memory.is_contiguous() and memory.shape == W_FD.shape and memory.dtype == W_FD.dtype:
            del kept[W_FD.data_ptr()]
            return memory
    return None


class Decode(torch.autograd.Function):
    """x̂ = Z W, with gradients dZ = (dx̂ Wᵀ at the matches) and dW = Zᵀ dx̂."""

    @staticmethod
    def forward(ctx, values_N, W_FD, pattern):
        ctx.save_for_backward(values_N, W_FD)
        ctx.pattern = pattern
        return _sum_rows(values_N, pattern.features, pattern.token_offsets, W_FD)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout_BD):
        values_N, W_FD = ctx.saved_tensors
        need_values, need_W, _ = ctx.needs_input_grad
        dvalues_N = dots(dout_BD, W_FD, ctx.pattern) if need_values else None
        dW_FD = _transposed_product(values_N, ctx.pattern, dout_BD, _memory_for(W_FD)) if need_W else None
        return dvalues_N, dW_FD, None


class EncodeMatches(torch.autograd.Function):
    """z = relu((x − b_dec) W + b) at the matches. With G = dz where z > 0: dx = G Wᵀ, dW = (x − b_dec)ᵀ G, db = ΣG."""

    @staticmethod
    def forward(ctx, x_BD, W_DF, b_enc_F, b_dec_D, known_N, pattern):
        centred_BD = x_BD if b_dec_D is None else x_BD - b_dec_D
        if known_N is None:
            values_N = (dots(centred_BD, W_DF.T, pattern) + b_enc_F[pattern.features]).relu()
        else:
            values_N = known_N.clone()  # an output must not be an input
        ctx.save_for_backward(centred_BD, W_DF, values_N)
        ctx.pattern = pattern
        return values_N

    @staticmethod
    @once_differentiable
    def backward(ctx, dvalues_N):
        centred_BD, W_DF, values_N = ctx.saved_tensors
        need_x, need_W, need_b_enc, need_b_dec = ctx.needs_input_grad[:4]
        pattern = ctx.pattern
        G_N = dvalues_N * (values_N > 0)
        dx_BD = dW_DF = db_enc_F = db_dec_D = None
        if need_x:
            dx_BD = _sum_rows(G_N, pattern.features, pattern.token_offsets, W_DF.T)
        if need_W:
            dW_DF = _transposed_product(G_N, pattern, centred_BD, _memory_for(W_DF.T)).T
        if need_b_enc or need_b_dec:
            db_enc_F = G_N.new_zeros(pattern.shape[1]).index_add_(0, pattern.features, G_N)
        if need_b_dec:
            db_dec_D = -(W_DF @ db_enc_F)  # b_dec meets every match through its feature: one small product
        return dx_BD, dW_DF, db_enc_F if need_b_enc else None, db_dec_D, None, None


def _sum_rows(weights_N: Tensor, columns_N: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    """`Z @ table` for the sparse Z with `weights_N` in `columns_N`, its row i in offsets[i]:offsets[i+1]."""
    if kernels.serve(weights_N, table):
        return kernels.products.sum_rows(weights_N, columns_N, offsets, table)
    return nnf.embedding_bag(
        columns_N, table.contiguous(), offsets, mode="sum", per_sample_weights=weights_N, include_last_offset=True
    )


def _transposed_product(
    weights_N: Tensor, pattern: MatchPattern, table_BD: Tensor, memory_FD: Tensor | None = None
) -> Float[Tensor, "features d"]:
    """`Z.T @ table_BD`: the same walk, feature after feature; into `memory_FD` if there is some."""
    weights_N, tokens_N, offsets = weights_N[pattern.feature_order], pattern.tokens_by_feature, pattern.feature_offsets
    if memory_FD is None:
        return _sum_rows(weights_N, tokens_N, offsets, table_BD)
    rows = max(1, INTO_MEMORY // memory_FD.shape[1])
    cuts = [*offsets[:-1:rows].tolist(), weights_N.numel()]
    for start, first, last in zip(range(0, memory_FD.shape[0], rows), cuts, cuts[1:]):
        of_block = offsets[start : start + rows + 1] - first
        memory_FD[start : start + rows] = _sum_rows(weights_N[first:last], tokens_N[first:last], of_block, table_BD)
    return memory_FD


def dots(A_BD: Tensor, W_FD: Tensor, pattern: MatchPattern) -> Float[Tensor, " matches"]:
    """`(A_BD @ W_FD.T)[tokens, features]`."""
    if kernels.serve(A_BD, W_FD):
        return kernels.products.dots(A_BD, W_FD, pattern.tokens, pattern.features)
    if A_BD.dtype in (torch.float32, torch.float64) and A_BD.device.type in ("cpu", "cuda"):
        _hush_csr_warning()
        zeros = A_BD.new_zeros(pattern.features.numel())
        where = torch.sparse_csr_tensor(
            pattern.token_offsets, pattern.features, zeros, size=pattern.shape, check_invariants=False
        )
        return torch.sparse.sampled_addmm(where, A_BD.contiguous(), W_FD.T, beta=0.0).values()
    # Half precision, and devices without that kernel: gather both sides, a bounded piece at a time, and sum in float32.
    piece = max(1, 2**24 // max(A_BD.shape[1], 1))
    dots = [
        (A_BD[tokens].float() * W_FD[features].float()).sum(1)
        for tokens, features in zip(pattern.tokens.split(piece), pattern.features.split(piece))
    ]
    return torch.cat(dots).to(A_BD.dtype)


def _offsets(sorted_N: Tensor, size: int) -> Int[Tensor, " size+1"]:
    """Where each of 0..size-1 starts in a sorted list, and the list's length at the end."""
    return torch.searchsorted(sorted_N, torch.arange(size + 1, device=sorted_N.device))


@cache
def _hush_csr_warning() -> None:
    """PyTorch warns once that CSR tensors are in beta. Let that happen here, unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.long), torch.tensor([]), size=(1, 1))
