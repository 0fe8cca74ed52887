"""The page of the gallery, notebooks/gallery/README.md, from the verdicts that its notebooks end with.

python scripts/gallery_index.py            write it
python scripts/gallery_index.py --check    change nothing, fail if it is not what it would be
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
import notebook_rules

PAGE = notebook_rules.GALLERY / "README.md"
FIRST = ("experts", "decoding", "training", "compression", "attention", "memory")
FAMILIES = (*FIRST, "latent", "predict", "select", "diffusion", "robust", "scenes")
OPENING = """# Gallery

Who gets to use which expert, weight, key, draft or step? The question of the course, asked of other things; and what
other learned representations keep. Each notebook states the claim of one paper, tries it at toy scale on data whose
truth is known, and says what was found.

"""


def page() -> str:
    rows = ["| notebook | claim | number | found |", "|---|---|---|---|"]
    for path in sorted(notebook_rules.GALLERY.glob("*.ipynb"), key=place):
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        found = notebook_rules.verdict(notebook)
        if found is None:
            raise ValueError(
                f"{path.name} has no verdict: execute it (make gallery ONLY=notebooks/gallery/{path.name})"
            )
        rows.append(f"| [{title}]({path.name}) | {found['Claim']} | {found['Number']} | {found['Found']} |")
    return OPENING + "\n".join(rows) + "\n"


def place(path: Path) -> tuple[int, str]:
    """Families in their order. ValueError for a notebook of none."""
    family = path.name.partition("_")[0]
    if family not in FAMILIES:
        raise ValueError(f"{path.name} begins with none of {', '.join(FAMILIES)}")
    return FAMILIES.index(family), path.name


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != page())
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
