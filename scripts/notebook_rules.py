"""The rules that every committed notebook keeps, checked by machine.

    python scripts/notebook_rules.py [notebooks]       all of them, those on how a course reads included: `make lint`

Used by the tests (every notebook in the repository) and by `execute_notebooks.py` (before a result is written).
Each function returns sentences that name the cell and the fix; an empty list means that all is well.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import badges
import nbformat

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 25
MAX_BYTES = 2_000_000

# How a course reads.
MAX_CELLS, MAX_WORDS, MAX_PARAGRAPH, MAX_BRACKETS, MAX_ASSERTS = 60, 3000, 90, 1, 2
MAX_WIDTH, MIN_HEIGHT, MAX_COURSE_BYTES = 620, 240, 1_000_000

# A notebook of the gallery: one claim, one exercise, a verdict.
GALLERY = ROOT / "notebooks" / "gallery"
GALLERY_CELLS, GALLERY_WORDS, GALLERY_BYTES = 25, 1200, 500_000
VERDICT = ("Claim", "Setting", "Number", "Found")
PRIVATE = {  # words of our own, and the field's
    r"places": "positions",
    r"dear(?:er|est)?": "expensive, or a large error",
    r"loud(?:er|est|ness)?|shouts?": "strong, large",
    r"quotas?": "capacity",
    r"bids?": "affinity",
    r"the push": "the auxiliary loss",
    r"start marks?": "BOS token",
    r"drawn by lot|by lot": "at random",
    r"second[- ]hand": "indirect",
    r"nobody picked": "drawn at random",
}

# Folders of somebody's machine. Urls are not meant: nothing that looks like a name or a slash stands before.
ABSOLUTE_PATH = re.compile(r"(?<![\w./:~-])/(?:home|root|Users|mnt|media|work|opt|tmp|var|usr|content)/[\w.-]+")
WINDOWS_PATH = re.compile(r"\b[A-Z]:\\\\?(?:Users|Windows|Program)")
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
PROGRESS = re.compile(r"\d+%\|[█▏▎▍▌▋▊▉ ]|\d(?:it/s|s/it)\b|\r[^\n]")
WARNING = re.compile(r"\b(?:\w*Warning|WARNING)\b")


def problems(path: Path, name: str | None = None) -> list[str]:
    """Everything that keeps the notebook at `path` from being committed, as `name` (None: where it is)."""
    notebook = nbformat.read(path, as_version=4)
    found = source_problems(notebook, name or name_of(path)) + output_problems(notebook)
    if path.stat().st_size >= MAX_BYTES:
        found.append(f"it takes {path.stat().st_size / 1e6:.1f} MB; below {MAX_BYTES / 1e6:.0f} MB is the rule")
    return [f"{path.name}: {problem}" for problem in found]


def name_of(path: Path) -> str:
    """How a notebook is named in its own badge: from the folder of notebooks on."""
    return f"{GALLERY.name}/{path.name}" if path.resolve().parent.name == GALLERY.name else path.name


def source_problems(notebook: Any, name: str) -> list[str]:
    """Rules for what is written: opening cells, parameters, lengths, paths, exercises, closing."""
    gallery = name.startswith(f"{GALLERY.name}/")
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    found = []

    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the metadata must name the kernel python3, or JupyterLab asks its reader for one")
    opening = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    for phrase in ("# ", "you will learn", "you need", "run time", badges.badge(name), *["the claim"] * gallery):
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
    if gallery and solutions != 1:
        found.append(f"one exercise with a folded solution; here are {solutions}")
    if not gallery and not 3 <= solutions <= 6:
        found.append(f"three to six exercises with a folded solution each; here are {solutions}")
    if not any(re.search(r"^\s*assert ", cell.source, flags=re.M) for cell in code):
        found.append("numbers in prose are asserted in code; here is no assert")
    closing = "\n".join(cell.source for cell in cells[-4:] if cell.cell_type == "markdown").lower()
    for word in ("limits", "references", "next"):
        if word not in closing:
            found.append(f"the closing cells lack {word!r}")
    return found


def course_problems(path: Path) -> list[str]:
    """How the course reads: its length, its sentences, its words, what stands in a learner's way, what is cut off."""
    notebook, gallery = nbformat.read(path, as_version=4), name_of(path) != path.name
    found = [f"cell {i} {problem}" for i, cell in enumerate(notebook.cells) for problem in _reads(cell)]
    prose = "\n".join(_without_code(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):  # an address on the network has a colon
        if not (path.parent / target).exists():
            found.append(f"a link leads nowhere: {target}")
    words = sum(len(_words(cell.source)) for cell in notebook.cells if cell.cell_type == "markdown")
    most_cells, most_words, most_bytes = MAX_CELLS, MAX_WORDS, MAX_COURSE_BYTES
    if gallery:
        most_cells, most_words, most_bytes = GALLERY_CELLS, GALLERY_WORDS, GALLERY_BYTES
        if verdict(notebook) is None:
            found.append(f"it ends with no verdict ({', '.join(VERDICT).lower()}): course/gallery's Verdict")
    for what, size, most in (("cells", len(notebook.cells), most_cells), ("words", words, most_words)):
        if size > most:
            found.append(f"it has {size:,} {what}; {most:,} are one sitting: split or cut it")
    if path.stat().st_size > most_bytes:
        megabytes, limit = path.stat().st_size / 1e6, most_bytes / 1e6
        found.append(f"it takes {megabytes:.2f} MB; figures of fewer numbers keep it below {limit:g} MB")
    outputs = json.dumps([cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"])
    if "sae-drawing" not in outputs:
        found.append("it has no drawing (figures/drawings.py)")
    if not gallery and not any("use_mine" in cell.source for cell in notebook.cells if cell.cell_type == "code"):
        found.append("no exercise builds something that the notebook can run on (use_mine)")
    return [f"{path.name}: {problem}" for problem in found]


def verdict(notebook: Any) -> dict[str, str] | None:
    """What a notebook of the gallery has found: the rows of the table that it ends with, as it was executed."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []) if cell.cell_type == "code" else []:
            rows = re.findall(
                r"^\| \*\*(\w+)\*\* \| (.*) \|$", output.get("data", {}).get("text/markdown", ""), flags=re.M
            )
            if tuple(name for name, _ in rows) == VERDICT:
                return dict(rows)
    return None


def all_notebooks() -> list[Path]:
    """Those of the course in their order, then those of the gallery."""
    return [*sorted(GALLERY.parent.glob("*.ipynb")), *sorted(GALLERY.glob("*.ipynb"))]


def _reads(cell: Any) -> Iterator[str]:
    """What is wrong with one cell for its reader."""
    if cell.cell_type == "code":
        asserts = len(re.findall(r"^\s*assert ", cell.source, flags=re.M))
        if asserts > MAX_ASSERTS and "checks" not in cell.metadata.get("tags", []):
            yield f"has {asserts} asserts in a learner's way; move them to the folded cell tagged 'checks'"
        for width, height in _sizes(cell):
            if width > MAX_WIDTH:
                yield f"shows a figure of {width} px; a column has {MAX_WIDTH}"
            if height < MIN_HEIGHT:
                yield f"shows a figure {height} px high, under {MIN_HEIGHT}: in a narrow page text would reach into it"
        return
    for heading in re.findall(r"^#+ .*Exercise \d.*$", cell.source, flags=re.M):
        if "★" not in heading:
            yield f"has an exercise without a mark of its difficulty, ★ to ★★★: {heading!r}"
    for paragraph in _paragraphs(cell.source):
        words, begin = _words(paragraph), paragraph.strip()[:40]
        if len(words) > MAX_PARAGRAPH:
            yield f"has a paragraph of {len(words)} words, over {MAX_PARAGRAPH}: {begin!r}"
        if (brackets := _brackets(paragraph)) > MAX_BRACKETS:
            yield f"has {brackets} brackets in one paragraph, over {MAX_BRACKETS}: {begin!r}"
    for private, standard in PRIVATE.items():
        if match := re.search(rf"\b(?:{private})\b", _prose(cell.source), flags=re.I):
            yield f"says {match.group()!r}; the field says {standard!r}"


def _without_code(source: str) -> str:
    """Markdown without its blocks of code."""
    return re.sub(r"```.*?```", "", source, flags=re.S)


def _prose(source: str) -> str:
    """Markdown without code, tags and addresses; a formula is one word."""
    source = _without_code(source)
    source = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`", "X", source, flags=re.S)
    source = re.sub(
        r"!?\[(!?\[[^\]]*\]\([^)]*\)|[^\]]*)\]\([^)]*\)", lambda m: m[1].strip("[]").partition("](")[0], source
    )
    return re.sub(r"<[^>]+>|https?://\S+", " ", source)


def _words(source: str) -> list[str]:
    return [word for word in _prose(source).split() if re.search(r"\w", word)]


def _paragraphs(source: str) -> list[str]:
    """Blocks between empty lines and items of lists; tables and headings are none."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.)\s)", _without_code(source))
    return [block for block in blocks if not block.lstrip().startswith(("|", "#", "<details", "**References"))]


def _brackets(paragraph: str) -> int:
    """Pairs of brackets in prose; a year and a letter in them are a name's part."""
    return _prose(re.sub(r"\((?:\d{4}[a-z]?|[a-z]|\w+ et al\.,? \d{4}[a-z]?)\)", "", paragraph)).count("(")


def _sizes(cell: Any) -> Iterator[tuple[int, int]]:
    """Width and height of the figures that a cell shows; a picture of a widget may be as low as it likes."""
    for output in cell.outputs:
        data = output.get("data", {})
        layout = data.get("application/vnd.plotly.v1+json", {}).get("layout", {})
        yield layout.get("width") or 0, layout.get("height") or MIN_HEIGHT
        if "image/png" in data:
            yield int.from_bytes(base64.b64decode(data["image/png"])[16:20], "big"), MIN_HEIGHT


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    paths = parser.parse_args().notebooks or all_notebooks()
    found = [problem for path in paths for problem in problems(path) + course_problems(path)]
    print("\n".join(found) or f"{len(paths)} notebooks keep the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
