"""Fields of a frozen dataclass of settings: each is documented and checked where it stands.

    minutes: int = whole(30, "how long")

`described` writes the help into the class's docstring, `check_fields` (in `__post_init__`) replaces each value by what
its check returns: numbers of numpy and of torch become Python's, so that a checkpoint or JSON can hold them.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from sae_tutorial.activations.arguments import as_number, as_whole

C = TypeVar("C", bound=type)
NO_DEFAULT = dataclasses.MISSING


def setting(default: Any, help: str, check: Callable[[str, Any], Any], **more: Any) -> Any:
    """A field with its help and its check, (name, value) -> the value to keep; TypeError or ValueError that name both.
    A default of None lets None through. `more` goes into the field's metadata."""
    kept = check if default is not None else lambda name, value: None if value is None else check(name, value)
    return dataclasses.field(default=default, metadata={"check": kept, "help": help} | more)


def whole(default: Any, help: str, least: int = 1, **more: Any) -> Any:
    return setting(default, help, lambda name, value: as_whole(name, value, least), **more)


def number(
    default: Any,
    help: str,
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
        if not (least <= x <= most and above < x and (x < below or (not finite and x == math.inf))):
            raise ValueError(f"{name} must be {_span(least, above, most, below, finite)}, got {value!r}")
        return x

    return setting(default, help, check, **more)


def choice(default: str, help: str, options: Sequence[str], **more: Any) -> Any:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
        return str(value)  # numpy's texts, too, which a checkpoint cannot hold

    return setting(default, help, check, **more)


def flag(default: bool, help: str, **more: Any) -> Any:
    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        return bool(value)

    return setting(default, help, check, **more)


def several(default: Any, help: str, one: Callable[[str, Any], Any], **more: Any) -> Any:
    """A list of values, each checked by `one`, kept as a tuple: a list, from JSON for example, is welcome."""

    def check(name: str, value: Any) -> tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"{name} must be a list, got {value!r}")
        return tuple(one(f"{name}[{i}]", item) for i, item in enumerate(value))

    return setting(default, help, check, **more)


def _span(least: float, above: float, most: float, below: float, finite: bool) -> str:
    """The range in words."""
    parts = [f"{least:g} or more"] * (least > -math.inf) + [f"greater than {above:g}"] * (above > -math.inf)
    parts += [f"at most {most:g}"] * (most < math.inf) + [f"less than {below:g}"] * (below < math.inf)
    return ("a finite number, " if finite and most == below == math.inf else "a number, ") + " and ".join(parts)


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
