"""Fields of a frozen dataclass of settings: each is documented and checked where it stands.

    @described
    @dataclass(frozen=True)
    class Oven:
        \"\"\"How to bake.\"\"\"

        minutes: int = whole(least=1, default=30, help="how long")
        glow: float = number(above=0, default=1.5, help="how hot, in parts of the usual")

        def __post_init__(self):
            check_fields(self)

`described` writes the help into the class's docstring, `check_fields` replaces each value by what its check returns:
numbers of numpy and of torch become Python's, so that a checkpoint or JSON can hold them.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import textwrap
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Check = Callable[[str, Any], Any]  # (name, value) -> the value to keep; TypeError or ValueError that name it
C = TypeVar("C", bound=type)
NO_DEFAULT = dataclasses.MISSING


def setting(check: Check, *, help: str, default: Any = NO_DEFAULT, optional: bool = False, **more: Any) -> Any:
    """A field with its check and its help; `optional` lets None through, `more` goes into the field's metadata."""
    kept = (lambda name, value: None if value is None else check(name, value)) if optional else check
    return dataclasses.field(default=default, metadata={"check": kept, "help": help} | more)


def whole(*, least: int = 1, **more: Any) -> Any:
    return setting(lambda name, value: as_whole(name, value, least), **more)


def number(
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    finite: bool = True,
    **more: Any,
) -> Any:
    def check(name: str, value: Any) -> float:
        x = as_number(name, value)
        inside = least <= x <= most and above < x and (x < below or (not finite and x == below == math.inf))
        if not inside:
            raise ValueError(f"{name} must be {_span(least, above, most, below, finite)}, got {value!r}")
        return x

    return setting(check, **more)


def choice(options: Sequence[str], **more: Any) -> Any:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
        return str(value)

    return setting(check, **more)


def flag(**more: Any) -> Any:
    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        return bool(value)

    return setting(check, **more)


# ---------------------------------------------------------------------- values


def as_whole(name: str, value: Any, least: int = 0) -> int:
    """`value` as Python's int. TypeError or ValueError that name what is no whole number of at least `least`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        found: Any = value.item() if isinstance(value, Tensor) and value.dim() == 0 else value
        value = operator.index(found)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, {least} or more, got {value!r}") from None
    if value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
    if value >= 2**63:
        raise ValueError(f"{name} must be less than 2**63, got {value!r}")
    return value


def as_number(name: str, value: Any) -> float:
    """`value` as Python's int or float: of numpy and 0-d tensors, too. TypeError that names what is no number."""
    found = value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value
    if isinstance(found, bool | np.bool_) or not isinstance(found, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return int(found) if isinstance(found, Integral) else float(found)


def _span(least: float, above: float, most: float, below: float, finite: bool) -> str:
    """The range in words."""
    parts = [f"{least:g} or more"] * (least > -math.inf) + [f"greater than {above:g}"] * (above > -math.inf)
    parts += [f"at most {most:g}"] * (most < math.inf) + [f"less than {below:g}"] * (below < math.inf)
    return ("a finite number, " if finite and most == below == math.inf else "a number, ") + " and ".join(parts)


# ---------------------------------------------------------------------- classes


def check_fields(instance: Any) -> None:
    """Check every field that has a check, and keep what the check returns."""
    for field in dataclasses.fields(instance):
        if "check" in field.metadata:
            value = field.metadata["check"](field.name, getattr(instance, field.name))
            object.__setattr__(instance, field.name, value)


def described(cls: C) -> C:
    """The class, its fields listed with their defaults and help at the end of its docstring."""
    lines = []
    for field in dataclasses.fields(cls):
        default = "" if field.default is NO_DEFAULT else f" (default {field.default!r})"
        text = f"{field.name}: {field.metadata['help']}{default}"
        lines += textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="        ")
    cls.__doc__ = textwrap.dedent("    " + (cls.__doc__ or "").strip()) + "\n\nFields:\n" + "\n".join(lines) + "\n"
    return cls
