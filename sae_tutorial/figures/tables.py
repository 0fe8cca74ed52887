"""A table that reads well in a notebook, in a terminal, and where HTML is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under headers. Integers get thousands separators, floats three digits; numbers are set to the right.

    Raises ValueError for a row whose length differs from that of the headers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(
                    f"row {row!r} has {len(row)} cells, the headers {list(self.headers)} ask for {len(self.headers)}"
                )

    def __repr__(self) -> str:
        cells = [list(self.headers), *([_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.headers))]
        right = [bool(self.rows) and all(_is_number(row[i]) for row in self.rows) for i in range(len(self.headers))]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)).rstrip() for row in cells
        ]
        return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align:left">{escape(str(header))}</th>' for header in self.headers)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{"right" if _is_number(value) else "left"}">{escape(_text(value))}</td>'
                for value in row
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
