"""Our docstrings are plain English with indented examples; this makes reStructuredText of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

CODE = re.compile(r"(`[^`]+`)")
SPECIAL = re.compile(r"([*|\\]|_(?!\w))")


def to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For Sphinx's event "autodoc-process-docstring", which wants the lines changed in place."""
    lines[:] = rest(lines)


def rest(lines: list[str]) -> list[str]:
    """Paragraphs as prose, indented blocks and columns as they stand.

    A column is a line with two spaces or more between words. It and all of its paragraph are shown in fixed width.
    """
    found: list[str] = []
    for block in _blocks(lines):
        if any(line.startswith(" ") or re.search(r"\S {2,}\S", line) for line in block):
            found += ["::", "", *(f"    {line}" for line in block), ""]
        else:
            found += [*map(_prose, block), ""]
    return found


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Paragraphs; where prose is followed by an indented block without an empty line between, they are two."""
    for empty, paragraph in groupby(lines, key=lambda line: not line.strip()):
        if not empty:
            whole = list(paragraph)
            columns = any(re.search(r"\S {2,}\S", line) for line in whole)
            if columns:
                yield whole
            else:
                for _, block in groupby(whole, key=lambda line: line.startswith(" ")):
                    yield list(block)


def _prose(line: str) -> str:
    """A line with its code in double backticks, and without anything else that reStructuredText would read into it."""
    parts = CODE.split(line)
    return "".join(f"`{part}`" if CODE.fullmatch(part) else SPECIAL.sub(r"\\\1", part) for part in parts)
