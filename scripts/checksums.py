"""Write down the checksums of everything that the package ships, for `files.read_asset` to compare with.

    python scripts/checksums.py      after an asset was made anew (the scripts that make them call `record` themselves)

Cards are left out: they are read by people.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sae_tutorial.activations.files import ASSETS, CHECKSUMS, write_atomically

SUFFIXES = (".json", ".jsonl", ".npz", ".safetensors", ".xz")


def checksums() -> dict[str, str]:
    """File, counted from the folder of assets -> its SHA-256."""
    paths = sorted(path for path in ASSETS.rglob("*") if path.suffix in SUFFIXES)
    found = {path.relative_to(ASSETS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return {name: digest for name, digest in found.items() if name != CHECKSUMS}


def record(made: Path = ASSETS) -> None:
    """Write the file, if what was `made` is shipped."""
    if made.resolve().is_relative_to(ASSETS):
        write_atomically(ASSETS / CHECKSUMS, (json.dumps(checksums(), indent=2) + "\n").encode())


if __name__ == "__main__":
    record()
