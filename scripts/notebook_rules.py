"""The rules that every committed notebook keeps, checked by machine.

Used by the tests (every notebook in the repository) and by `execute_notebooks.py` (before a result is written).
Each function returns sentences that name the cell and the fix; an empty list means that all is well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import badges
import nbformat

MAX_LINES = 25
MAX_BYTES = 2_000_000

# Folders of somebody's machine. Urls are not meant: nothing that looks like a name or a slash stands before.
ABSOLUTE_PATH = re.compile(r"(?<![\w./:~-])/(?:home|root|Users|mnt|media|work|opt|tmp|var|usr|content)/[\w.-]+")
WINDOWS_PATH = re.compile(r"\b[A-Z]:\\\\?(?:Users|Windows|Program)")
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
PROGRESS = re.compile(r"\d+%\|[█▏▎▍▌▋▊▉ ]|\d(?:it/s|s/it)\b|\r[^\n]")
WARNING = re.compile(r"\b(?:\w*Warning|WARNING)\b")


def problems(path: Path) -> list[str]:
    """Everything that keeps the notebook at `path` from being committed."""
    notebook = nbformat.read(path, as_version=4)
    found = source_problems(notebook, path.name) + output_problems(notebook)
    if path.stat().st_size >= MAX_BYTES:
        found.append(f"it takes {path.stat().st_size / 1e6:.1f} MB; below {MAX_BYTES / 1e6:.0f} MB is the rule")
    return [f"{path.name}: {problem}" for problem in found]


def source_problems(notebook: Any, name: str) -> list[str]:
    """Rules for what is written: opening cells, parameters, lengths, paths, exercises, closing."""
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    found = []

    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the metadata must name the kernel python3, or JupyterLab asks its reader for one")
    opening = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    for phrase in ("# ", "you will learn", "you need", "run time", badges.badge(name)):
        if phrase.lower() not in opening.lower():
            found.append(f"the first cell, in markdown, lacks {phrase.strip()!r}")
    if not code or _lines(code[0].source) != _lines(badges.setup_cell()):
        found.append("the first code cell must be the setup cell, exactly:\n" + badges.setup_cell())
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(parameters) != 1:
        found.append(f"one code cell is tagged 'parameters'; here {len(parameters)} are")

    for index, cell in enumerate(cells):
        if cell.cell_type == "code" and len(cell.source.splitlines()) > MAX_LINES:
            lines = len(cell.source.splitlines())
            found.append(f"cell {index} has {lines} lines; over {MAX_LINES} it belongs in the package")
        for match in _paths(cell.source):
            found.append(f"cell {index} names a path of one machine: {match}")
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) != len(ids):
        found.append("every cell needs an id of its own")

    solutions = sum(cell.source.count("<summary>Solution") for cell in cells if cell.cell_type == "markdown")
    if not 3 <= solutions <= 6:
        found.append(f"three to six exercises with a folded solution each; here are {solutions}")
    if not any(re.search(r"^\s*assert ", cell.source, flags=re.M) for cell in code):
        found.append("numbers in prose are asserted in code; here is no assert")
    closing = "\n".join(cell.source for cell in cells[-4:] if cell.cell_type == "markdown").lower()
    for word in ("limits", "references", "next"):
        if word not in closing:
            found.append(f"the closing cells lack {word!r}")
    return found


def output_problems(notebook: Any) -> list[str]:
    """Rules for what was recorded: everything executed in order, no errors, no debris, pictures beside figures."""
    found, out_of_order = [], []
    expected = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        expected += 1
        if cell.execution_count != expected:
            out_of_order.append(str(index))
        if "execution" in cell.metadata:
            found.append(f"cell {index} records when it ran: run `make notebooks`")
        last = cell.source.strip().splitlines()[-1]
        if re.fullmatch(r"\w*fig(ure)?\w*", last) and not cell.outputs:
            found.append(f"cell {index} ends in a figure but holds no output: run `make notebooks`")
        for output in cell.outputs:
            found += [f"cell {index} {problem}" for problem in _output(output)]
    if out_of_order:
        cells = ", ".join(out_of_order)
        found.append(f"not executed in order from a fresh kernel (cells {cells}): run `make notebooks`")
    return found


def _output(output: Any) -> list[str]:
    if output.output_type == "error":
        return [f"ends in an error: {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        data, text = {}, output.text
    else:
        data = output.get("data", {})
        text = "\n".join(str(value) for mime, value in data.items() if mime.startswith("text/"))
    found = []
    if any("plotly" in mime for mime in data) and "image/png" not in data:
        found.append("shows a figure without a static picture: run `make notebooks`")
    for what, pattern in [("a memory address", MEMORY_ADDRESS), ("progress-bar debris", PROGRESS)]:
        if pattern.search(text):
            found.append(f"holds {what}: {text.strip()[:80]!r}")
    if output.get("name") == "stderr" or (output.output_type == "stream" and WARNING.search(text)):
        found.append(f"holds a warning or something on stderr: {text.strip()[:200]!r}")
    found += [f"shows a path of one machine: {match}" for match in _paths(text)]
    return found


def _lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def _paths(text: str) -> list[str]:
    return [match.group() for pattern in (ABSOLUTE_PATH, WINDOWS_PATH) for match in pattern.finditer(text)]
