"""Arguments, checked where they come in: numbers of numpy and torch become Python's; errors name argument and value."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor


def as_number(name: str, value: Any) -> float:
    """`value` as Python's int or float. TypeError that names what is not a number."""
    found = value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value
    if isinstance(found, bool | np.bool_) or not isinstance(found, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return int(found) if isinstance(found, Integral) else float(found)


def as_whole(name: str, value: Any, least: int = 0) -> int:
    """`value` as Python's int. TypeError or ValueError that name what is not a whole number of at least `least`."""
    found = as_number(name, value)
    if not isinstance(found, int):
        raise TypeError(f"{name} must be a whole number, {least} or more, got {value!r}")
    if not least <= found < 2**63:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return found
