"""Files that are complete or absent, whatever interrupts us; how paths are read, and where caches lie.

Everything that is written goes through `write_atomically`: into a file beside the target, to the disk, and only then
under its name. What a killed process leaves behind is named so that it can be told from what another process is writing
right now, and `remove_abandoned` takes it away.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

Content = bytes | memoryview | Callable[[IO[bytes]], Any]  # what to write, or what writes it into an open file
HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
UNFINISHED = re.compile(r"\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.unfinished$")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def path_of(name: str, path: Any) -> Path:
    """`path`, with `~` expanded: how every function here understands a path. TypeError that names what is none."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"{name} must be the path of a file or folder, got {path!r}")
    return Path(path).expanduser()


def cache_folder(name: str) -> Path:
    """Where things lie that can be made again: SAE_TUTORIAL_CACHE, else `sae_tutorial` in XDG_CACHE_HOME or ~/.cache.

    The folder need not be there; whoever writes into it makes it.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    ours = os.environ.get("SAE_TUTORIAL_CACHE")
    return (Path(ours) if ours else (Path(home) if home else Path.home() / ".cache") / "sae_tutorial") / name


def write_atomically(path: Path, content: Content) -> None:
    """Write a file that is either complete or absent; one that is there already stays until the new one is complete.

    It is on the disk when this returns. Raises OSError that names the file and the fix, and leaves nothing behind then.
    """
    unfinished = write_unfinished(path, content)
    os.replace(unfinished, path)
    sync_folder(path.parent)


def write_once(path: Path, content: bytes) -> None:
    """Like `write_atomically`, but of several processes that write the same path only the first one does."""
    unfinished = write_unfinished(path, content)
    try:
        os.link(unfinished, path)  # unlike os.replace, this fails if another process was first
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_unfinished(path: Path, content: Content) -> Path:
    """The first half of `write_atomically`: a file beside `path` that is complete and on the disk, under a name that no
    other process or thread uses. `os.replace(result, path)` is the second half."""
    unfinished = path.with_name(f"{path.name}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{path} cannot be written ({error.strerror or error}); {_fix(error)}") from None
        raise
    return unfinished


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system lets us."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(descriptor)


def check_writable(path: Path, content: bytes = b"") -> None:
    """Make the folder of a file that is to be written later, and write there now. Raises what `write_atomically` would
    raise later, OSError that names the file and the fix; IsADirectoryError where a folder has that name."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{path} is a folder; give the path of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"the folder of {path} cannot be made ({error.strerror}); {_fix(error)}"
        raise type(error)(error.errno, why) from None
    write_unfinished(path, content).unlink()


def remove_abandoned(folder: Path) -> None:
    """Delete unfinished files in `folder` whose process is gone. What a process of another machine is writing stays."""
    for path in folder.glob("*.unfinished"):
        found = UNFINISHED.search(path.name)
        if found and found["host"] == HOST and not _runs(int(found["pid"])):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _fix(error: OSError) -> str:
    if error.errno in FULL:
        return "the disk or your share of it is full: make room, or name a file on another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you may not write there: name a file in a folder of yours"
    return "name another file, or mend its folder"
