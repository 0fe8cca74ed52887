"""A table of affinities as it lies in memory, and what numpy does with it faster than torch.

The bits of positive floats, read as whole numbers, rise as they do (those of negative ones are all negative, and fall;
no rule asks for their order): a CPU compares these faster in half precision, and sorts them faster in any.

Letters of shapes: B tokens, F features; R rows and C columns as they lie in memory, L lines in a row.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation.checks import check_table

# Neighbours in memory that share a maximum: two cache lines of float32.
LINE = 32


class Table:
    """Affinities (tokens, features), wherever they lie.

    by_feature    they lie in memory feature after feature: the encoder's product is faster so on a CPU
    rows          the same memory row after row, whichever of the two a row is
    lines         maxima of LINE neighbours, one pass over the table: where a maximum is below a floor, no entry
                  is read again. None where they would not be quick: on GPUs, in half precision, in odd sizes
    """

    def __init__(self, affinities: Tensor):
        check_table(affinities)
        self.affinities = affinities.detach()
        self.by_feature = self.affinities.T.is_contiguous() and not self.affinities.is_contiguous()
        self.rows: Float[Tensor, "rows columns"] = self.affinities.T if self.by_feature else self.affinities

    @cached_property
    def lines(self) -> Float[Tensor, "rows lines"] | None:
        z_RC = self.rows
        quick = z_RC.device.type == "cpu" and z_RC.element_size() >= 4 and z_RC.is_contiguous()
        if not quick or z_RC.shape[1] % LINE or z_RC.numel() == 0:
            return None
        return z_RC.unflatten(1, (-1, LINE)).amax(2)


def not_below(z_RC: Tensor, floor: Tensor) -> Int[Tensor, " n"]:
    """`(~(z_RC < floor)).flatten().nonzero()[:, 0]` for a floor above 0; on a CPU numpy does each part several times
    faster than torch."""
    if z_RC.device.type != "cpu":
        return (z_RC < floor).logical_not_().flatten().nonzero()[:, 0]
    if z_RC.element_size() == 2:
        return _bits_not_below(z_RC, floor)
    below = np.less(z_RC.numpy(), floor.numpy())
    return torch.from_numpy(np.flatnonzero(np.logical_not(below, out=below)))


def _bits_not_below(z_RC: Tensor, floor: Tensor) -> Int[Tensor, " n"]:
    """`not_below` in half precision, for positive floors. A NaN whose sign is set would pass for a negative number."""
    bits_RC = bits(z_RC).numpy()
    listed = np.greater_equal(bits_RC, bits(floor).numpy())
    minus_inf = bits(z_RC.new_tensor(-torch.inf)).numpy().view(np.uint16)
    if bits_RC.view(np.uint16).max(initial=0) > minus_inf:
        listed |= z_RC.isnan().numpy()
    return torch.from_numpy(np.flatnonzero(listed))


def largest(z: Tensor, dim: int) -> Tensor:
    """`z.amax(dim)` where that is positive; else something that is not."""
    if z.device.type == "cpu" and z.element_size() == 2:
        return bits(z).amax(dim).view(z.dtype)
    return z.amax(dim)


def ascending(z_RG: Tensor) -> Tensor:
    """Each row in ascending order as far as it is positive; on a CPU numpy sorts many times faster than torch."""
    if z_RG.device.type != "cpu":
        return z_RG.sort(dim=1).values
    known = bits(z_RG) if z_RG.element_size() == 2 else z_RG
    return torch.from_numpy(np.sort(known.numpy(), axis=1)).view(z_RG.dtype)


def bits(z: Tensor) -> Int[Tensor, "..."]:
    """Floats read as whole numbers of their size."""
    return z.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[z.element_size()])


def least_positive(z: Tensor) -> float:
    """The smallest positive number of this precision: not below it means positive."""
    return torch.finfo(z.dtype).tiny * torch.finfo(z.dtype).eps
