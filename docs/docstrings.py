"""Our docstrings are plain English with indented examples; this makes reStructuredText of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

CODE = re.compile(r"(`[^`]+`)")
COLUMN = re.compile(r"\S {2,}\S")
SPECIAL = re.compile(r"([*|\\]|_(?!\w))")


def to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For Sphinx's event "autodoc-process-docstring", which wants the lines changed in place."""
    lines[:] = rest(lines)


def rest(lines: list[str]) -> list[str]:
    """Paragraphs as prose, columns of names and meanings as lists of definitions, indented blocks as they stand."""
    found: list[str] = []
    for block in _blocks(lines):
        if entries := _columns(block):
            for name, meaning in entries:
                found += [f"``{name}``", f"    {_prose(meaning)}", ""]
        elif any(line.startswith(" ") or COLUMN.search(line) for line in block):
            found += ["::", "", *(f"    {line}" for line in block), ""]
        else:
            found += [*map(_prose, block), ""]
    return found


def _columns(block: list[str]) -> list[tuple[str, str]]:
    """(name, meaning) of a block in which meanings begin below each other, two spaces or more after the names; nothing
    for other blocks."""
    first = re.match(r"\S.*? {2,}(?=\S)", block[0])
    if not first or "->" in first[0]:
        return []
    start, found = first.end(), []
    for line in block:
        name, meaning = line[:start], line[start:]
        if not meaning or meaning.startswith(" ") or (name.strip() and not name.endswith("  ")):
            return []
        if name.strip():
            found.append((name.strip(), meaning))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]} {meaning}")
    return found


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Paragraphs; where prose is followed by an indented block without an empty line between, they are two."""
    for empty, paragraph in groupby(lines, key=lambda line: not line.strip()):
        if not empty:
            whole = list(paragraph)
            if any(COLUMN.search(line) for line in whole):
                yield whole
            else:
                for _, block in groupby(whole, key=lambda line: line.startswith(" ")):
                    yield list(block)


def _prose(line: str) -> str:
    """A line with its code in double backticks, and without anything else that reStructuredText would read into it."""
    parts = CODE.split(line)
    return "".join(f"`{part}`" if CODE.fullmatch(part) else SPECIAL.sub(r"\\\1", part) for part in parts)
