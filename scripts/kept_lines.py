"""Results of a long run that may stop: a line of JSON for each, in the cache; and all of them into the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae_tutorial.activations.files import write_atomically
from sae_tutorial.course.results import EVIDENCE


def done(kept: Path, name: str) -> set[Any]:
    """What the lines that are there are about: their values of `name`. The folder is made where there is none."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    return {json.loads(line)[name] for line in kept.read_text().splitlines()} if kept.exists() else set()


def add(kept: Path, row: dict[str, Any]) -> None:
    with kept.open("a") as file:
        file.write(json.dumps(row) + "\n")


def ship(kept: Path) -> None:
    write_atomically(EVIDENCE / kept.name, kept.read_bytes())
