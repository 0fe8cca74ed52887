"""What a figure draws, as plain lists to compare with what it was given."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import plotly.graph_objects as go


def drawn(fig: go.Figure) -> dict[str, tuple[list, list]]:
    """Trace name -> (x, y). A name that comes again is followed by a number: "a", "a 2", …; without one it is "1", …"""
    found: dict[str, tuple[list, list]] = {}
    for place, trace in enumerate(fig.data, start=1):
        name = trace.name or str(place)
        times = sum(other.name == trace.name for other in fig.data[: place - 1]) + 1
        found[name if times == 1 or not trace.name else f"{name} {times}"] = (plain(trace.x), plain(trace.y))
    return found


def cells(fig: go.Figure, place: int = 0) -> list[list]:
    """The numbers of a heatmap, NaN as None, rounded to what float32 holds."""
    (*heats,) = (trace for trace in fig.data if trace.type == "heatmap")
    z = np.asarray(heats[place].z, dtype=float)
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in z]


def written(fig: go.Figure) -> list[str]:
    """The texts of all annotations."""
    return [note.text for note in fig.layout.annotations]


def says_nothing_is_there(fig: go.Figure) -> bool:
    """Is this figure empty, with words in place of data?"""
    return not fig.data and any("Nothing to draw" in text for text in written(fig))


def figure_functions(module: ModuleType) -> set[str]:
    """The public functions of a module that return a figure."""
    return {
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and "Figure" in str(inspect.signature(function).return_annotation)
        and "tuple" not in str(inspect.signature(function).return_annotation)
    }


def plain(values: Any) -> list:
    return [] if values is None else [v.item() if isinstance(v, np.generic) else v for v in values]
