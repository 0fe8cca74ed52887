"""Files that are complete or absent, whatever interrupts us, and that notice damage; paths, caches and shipped assets.

Everything that is written goes through `write_atomically`: into a file beside the target, to the disk, and only then
under its name. `remove_abandoned` deletes what killed processes left unfinished.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

Content = bytes | memoryview | Callable[[IO[bytes]], Any]  # what to write, or what writes it into an open file
HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
UNFINISHED = re.compile(r"\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.unfinished$")
ASSETS = Path(__file__).parents[1] / "assets"  # what is shipped with the package
CHECKSUMS = "checksums.json"  # in ASSETS: the SHA-256 of each of them, kept by scripts/checksums.py


def path_of(name: str, path: Any) -> Path:
    """`path`, with `~` expanded: how every function here understands a path. TypeError that names anything else."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"{name} must be the path of a file or folder, got {path!r}")
    return Path(path).expanduser()


def cache_folder(name: str) -> Path:
    """Where things lie that can be made again: SAE_TUTORIAL_CACHE, else `sae_tutorial` in XDG_CACHE_HOME or ~/.cache.
    The folder need not exist yet."""
    home, ours = os.environ.get("XDG_CACHE_HOME"), os.environ.get("SAE_TUTORIAL_CACHE")
    folder = Path(ours) if ours else (Path(home) if home else Path.home() / ".cache") / "sae_tutorial"
    return folder.expanduser() / name


def write_atomically(path: Path, content: Content) -> None:
    """Write a file that is either complete or absent; one that is there already stays until the new one is complete.

    It is on the disk when this returns. Raises OSError that names the file and the fix; nothing unfinished remains.
    """
    unfinished = write_unfinished(path, content)
    try:
        os.replace(unfinished, path)
    except OSError as error:
        raise _explained(error, path) from None
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_once(path: Path, content: bytes) -> None:
    """Like `write_atomically`, but of several processes that write the same path only the first one does."""
    unfinished = write_unfinished(path, content)
    try:
        os.link(unfinished, path)  # unlike os.replace, this fails if another process was first
    except OSError:
        if not path.exists():  # a file system without hard links
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
            raise _explained(error, path) from None
        raise
    return unfinished


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system lets us: not on Windows, nor on some network file systems."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(folder: Path, exclusive: bool) -> Iterator[None]:
    """Wait until no other process writes in `folder` (or reads there, if `exclusive`); no lock where the system has no
    such locks."""
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # Windows, some network file systems
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def check_writable(path: Path, content: bytes = b"") -> None:
    """Make the folder of a file that is to be written later, and try it out. Raises what `write_atomically` would raise
    later; IsADirectoryError where a folder has that name."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{path} is a folder; give the path of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, path) from None
    write_unfinished(path, content).unlink()


def remove_abandoned(folder: Path, of: str = "") -> None:
    """Delete unfinished files in `folder` whose process is gone; `of`: those of this file only. What a process of
    another machine is writing stays."""
    for path in folder.glob(f"{glob.escape(of)}*.unfinished"):
        found = UNFINISHED.search(path.name)
        if found and found["host"] == HOST and not _runs(int(found["pid"])):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # anything else: it is another user's
    return True


def _explained(error: OSError, path: Path) -> OSError:
    """The same error, with the file and the fix in it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        fix = "the disk or your share of it is full: make room, or name a file on another disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "you may not write there: name a file in a folder of yours"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        fix = "a part of its path is a file, not a folder: name a file elsewhere"
    else:
        fix = "name another file, or mend its folder"
    return OSError(error.errno, f"{path} cannot be written ({error.strerror or error}); {fix}")


# ---------------------------------------------------------------------- files that notice damage


def sealed(content: dict[str, Any]) -> bytes:
    """`content` as JSON that carries a checksum of itself."""
    return json.dumps(content | {"checksum": _checksum(content)}).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """What `sealed` was given. Raises ValueError if anything has changed."""
    content = json.loads(data)
    if not isinstance(content, dict) or content.pop("checksum", None) != _checksum(content):
        raise ValueError("its checksum does not fit")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_asset(path: Path) -> bytes:
    """The bytes of a file. ValueError if it is shipped with the package, and not as it was shipped."""
    if not path.is_relative_to(ASSETS):
        return path.read_bytes()
    try:
        content, checksums = path.read_bytes(), json.loads((ASSETS / CHECKSUMS).read_bytes())
        if hashlib.sha256(content).hexdigest() == checksums[path.relative_to(ASSETS).as_posix()]:
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{path} or {ASSETS / CHECKSUMS} is missing or damaged. Reinstall the package: pip install --force-reinstall "
        "--no-deps sae-tutorial (in a clone: git checkout sae_tutorial/assets; after making assets anew: "
        "python scripts/checksums.py)."
    )
