"""Arguments, checked where they come in: numbers of numpy and torch become Python's; errors name argument and value."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from torch import Tensor

P = ParamSpec("P")
First = TypeVar("First")
Result = TypeVar("Result")


def as_number(name: str, value: Any) -> float:
    """`value` as Python's int or float. TypeError that names what is not a number."""
    found = _unboxed(value)
    if isinstance(found, bool | np.bool_) or not isinstance(found, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return int(found) if isinstance(found, Integral) else float(found)


def as_whole(name: str, value: Any, least: int = 0) -> int:
    """`value` as Python's int. TypeError or ValueError that name what is not a whole number of at least `least`."""
    found = _unboxed(value)
    if isinstance(found, bool | np.bool_) or not isinstance(found, Integral):
        raise TypeError(f"{name} must be a whole number, {least} or more, got {value!r}")
    found = int(found)
    if not least <= found < 2**63:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return found


def as_part(part: Any, name: str, whole: int) -> tuple[int, int]:
    """(rank, world): which of how many parts of something whose size is called `name`. TypeError or ValueError."""
    try:
        rank, world = part
        rank, world = as_whole("rank", rank, 0), as_whole("world", world, 1)
    except (TypeError, ValueError) as error:
        raise type(error)(f"part must be (rank, world), as (0, 4) for the first of four, got {part!r}.") from None
    if rank >= world or world > whole:
        raise ValueError(f"part={part!r}: rank must be below world, and world at most {name}={whole}.")
    return rank, world


def _unboxed(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value


def arguments_of(
    many: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[Concatenate[First, ...], Result]], Callable[Concatenate[First, P], Result]]:
    """For a function of one thing that hands everything else on to `many`: help() and type checkers see the arguments
    of `many`, which stand in one place so that they agree."""

    def shown(one: Callable[Concatenate[First, ...], Result]) -> Callable[Concatenate[First, P], Result]:
        own, others = signature(one).parameters.values(), signature(many).parameters.values()
        vars(one)["__signature__"] = signature(one).replace(parameters=[*list(own)[:1], *list(others)[1:]])
        return one

    return shown
