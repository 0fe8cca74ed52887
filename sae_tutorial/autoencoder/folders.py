"""A folder whose files change together, whatever interrupts us and whatever else writes there.

Every file is first written completely, beside its target. Then, while other writers wait, a journal is written that
lists which of them gets which name: from here on the folder has changed. The files are renamed, the journal deleted.
Where it is found, that was interrupted: a reader takes the files that it names, the next writer renames them first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_tutorial.activations import files

JOURNAL = "save_in_progress.json"
PLAIN = re.compile(r"[\w-][\w.-]*")  # a file's name: no folder above this one


@dataclass(frozen=True)
class Files:
    """The files of a folder: `files[name]` is the path that holds one (or would), `name in files` whether it is there.
    `waiting` is the journal: under which name the content of a file is still stored, None for one that is to go."""

    folder: Path
    waiting: Mapping[str, str | None]

    def __getitem__(self, name: str) -> Path:
        stored = self.folder / (self.waiting.get(name) or name)
        return stored if stored.exists() else self.folder / name

    def __contains__(self, name: str) -> bool:
        return self.waiting.get(name, name) is not None and self[name].is_file()


@contextmanager
def reading(folder: Path) -> Iterator[Files]:
    """The files of `folder` as one `replace` left them; writers wait while this is open. Nothing is written."""
    with files.locked(folder, exclusive=False):
        yield Files(folder, _journal(folder))


def replace(folder: Path, content: Mapping[str, bytes | None]) -> None:
    """Write all these files into `folder`, or none of them; None removes one. What a crash at any moment leaves is the
    old or the new. Raises OSError that names the file and the fix, and changes nothing then."""
    for name in content:
        files.check_writable(folder / name)
    waiting: dict[str, str | None] = {}
    try:
        for name, data in content.items():
            waiting[name] = None if data is None else files.write_unfinished(folder / name, data).name
        with files.locked(folder, exclusive=True):
            _finish(folder)
            files.write_atomically(folder / JOURNAL, json.dumps(waiting).encode())
            _finish(folder)
            files.remove_abandoned(folder)
    except BaseException:
        for stored in set(waiting.values()) - {None, *_journal(folder).values()}:  # what that names counts already
            (folder / str(stored)).unlink(missing_ok=True)
        raise


def _finish(folder: Path) -> None:
    """Do what the journal lists, and remove it."""
    for name, stored in _journal(folder).items():
        if stored is None:
            (folder / name).unlink(missing_ok=True)
        elif (folder / stored).exists():
            os.replace(folder / stored, folder / name)
    files.sync_folder(folder)
    (folder / JOURNAL).unlink(missing_ok=True)


def _journal(folder: Path) -> dict[str, str | None]:
    """What an interrupted `replace` was about to do; usually nothing. It may name files of its folder only."""
    try:
        journal = json.loads((folder / JOURNAL).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        journal = None
    names = [*journal, *(n for n in journal.values() if n is not None)] if isinstance(journal, dict) else [""]
    if not all(isinstance(name, str) and PLAIN.fullmatch(name) for name in names):
        raise ValueError(f"{folder / JOURNAL} is damaged: save again into another folder")
    return journal
