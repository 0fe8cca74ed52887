"""A table that reads well in a notebook, in a terminal, and where HTML is not shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under headers. Integers get thousands separators, floats three digits; columns of numbers, written out
    ("-4.6%") or not, are set to the right. With a `fold`, a notebook shows these words alone, and the table when they
    are opened.

    Raises ValueError for a row whose length differs from that of the headers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    fold: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(
                    f"row {row!r} has {len(row)} cells, the headers {list(self.headers)} ask for {len(self.headers)}"
                )

    def __repr__(self) -> str:
        cells = [list(self.headers), *([_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.headers))]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, self._right())).rstrip()
            for row in cells
        ]
        return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])

    def _repr_html_(self) -> str:
        sides = [f'style="text-align:{"right" if right else "left"}"' for right in self._right()]

        def line(tag: str, values: Sequence[Any]) -> str:
            return "<tr>" + "".join(f"<{tag} {s}>{escape(_text(v))}</{tag}>" for v, s in zip(values, sides)) + "</tr>"

        body = "".join(line("td", row) for row in self.rows)
        table = f"<table><thead>{line('th', self.headers)}</thead><tbody>{body}</tbody></table>"
        return f"<details><summary>{escape(self.fold)}</summary>{table}</details>" if self.fold else table

    def _right(self) -> list[bool]:
        """Which columns hold numbers alone, at least one; "–" stands for one that is not there."""
        columns = list(zip(*self.rows)) or [()] * len(self.headers)
        return [any(map(_is_number, column)) and all(_is_number(v) or v == "–" for v in column) for column in columns]


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[+\-−]?[\d,]*\.?\d+ ?%?", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
