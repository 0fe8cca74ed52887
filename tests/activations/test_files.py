"""Files are complete or absent, and damage is noticed: in the midst of errors, kills and full disks."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import checksums
import pytest

from sae_tutorial import load_language_model, story_tokens
from sae_tutorial.activations import files, language_model, shipped_text


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def full(file):
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(file):
    file.write(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b"new", memoryview(b"new"), lambda file: file.write(b"new")])
def test_a_file_is_replaced_as_a_whole(content, tmp_path):
    for _ in range(2):
        files.write_atomically(tmp_path / "file", content)
        assert contents(tmp_path) == {"file": b"new"}


def test_the_old_file_stays_where_writing_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(
        OSError, match=r"file cannot be written \(No space left on device\); the disk .* is full"
    ) as error:
        files.write_atomically(tmp_path / "file", full)
    assert error.value.errno == errno.ENOSPC
    for failing, expected in ((interrupted, KeyboardInterrupt), (lambda file: 1 / 0, ZeroDivisionError)):
        with pytest.raises(expected):
            files.write_atomically(tmp_path / "file", failing)
    assert contents(tmp_path) == {"file": b"old"}


def test_nothing_is_left_where_the_name_cannot_be_given(tmp_path, monkeypatch):
    def refused(*paths):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(PermissionError, match="file cannot be written .*you may not write there"):
        files.write_atomically(tmp_path / "file", b"new")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_named(number, tmp_path, monkeypatch):
    def read_only(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", read_only)
    for write in (files.write_atomically, files.check_writable):
        with pytest.raises(OSError, match="file cannot be written .*name a file in a folder of yours"):
            write(tmp_path / "file", b"x")


def test_check_writable_makes_the_folder_and_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "a" / "b" / "file", b"x" * 1000)
    assert contents(tmp_path / "a" / "b") == {}
    with pytest.raises(IsADirectoryError, match="is a folder; give the path of a file"):
        files.check_writable(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="below cannot be written"):
        files.check_writable(tmp_path / "file" / "below")


def test_no_two_writers_share_an_unfinished_file(tmp_path):
    """Eight threads write the same path at the same time: at the end it holds what one of them wrote, as a whole."""
    barrier, wanted = threading.Barrier(8), [bytes([i]) * 100_000 for i in range(8)]

    def write(i):
        def content(file):
            file.write(wanted[i][:50_000])
            barrier.wait(timeout=60)
            file.write(wanted[i][50_000:])

        files.write_atomically(tmp_path / "file", content)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = contents(tmp_path).values()
    assert found in wanted


KILLED = """
import os, signal, sys
from pathlib import Path
from sae_tutorial.activations.files import write_atomically
def content(file):
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), content)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")])
    assert killed.returncode == -9
    (abandoned,) = set(contents(tmp_path)) - {"file"}
    ours = files.write_unfinished(tmp_path / "file", b"being written")
    elsewhere = tmp_path / ours.name.replace(f".{files.HOST}.", ".another-machine.").replace(str(os.getpid()), "1")
    shutil.copy(ours, elsewhere)
    (tmp_path / "notes.unfinished").touch()  # not one of ours
    files.remove_abandoned(tmp_path)
    assert set(contents(tmp_path)) == {"file", ours.name, elsewhere.name, "notes.unfinished"}
    assert abandoned.startswith("file.") and (tmp_path / "file").read_bytes() == b"old"
    files.remove_abandoned(tmp_path / "nowhere")


@pytest.mark.parametrize("links", [True, False])
def test_only_the_first_writes(links, tmp_path, monkeypatch):
    def no_links(*paths):
        raise PermissionError("no hard links on this file system")

    if not links:
        monkeypatch.setattr("os.link", no_links)
    for content in (b"first", b"second"):
        files.write_once(tmp_path / "file", content)
    assert contents(tmp_path) == {"file": b"first"}


@pytest.mark.parametrize("path", [None, 3, b"", "", ["a"], 2.5])
def test_what_is_no_path_is_named(path):
    with pytest.raises(TypeError, match="folder must be the path of a file or folder, got"):
        files.path_of("folder", path)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert files.path_of("folder", "~/x") == files.path_of("folder", Path("~/x")) == tmp_path / "x"


def test_sealed_content_notices_every_flipped_bit():
    content = {"mean": [0.1, -2.5e-7], "rows": 12, "key": "abc", "odd": float("inf")}
    whole = files.sealed(content)
    assert files.unsealed(whole) == content
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            try:
                found = files.unsealed(bytes(flipped))
            except ValueError:
                continue
            assert found == content, f"byte {place}, bit {bit}"  # another way to write the same
    for wrong in (b"", b"[]", b"{}", b'{"checksum": 3}', whole[:-1]):
        with pytest.raises(ValueError):
            files.unsealed(wrong)


# ---- what is shipped


def test_the_checksums_are_those_of_what_is_shipped():
    """If not: `python scripts/checksums.py`, where the assets are meant to be what they are."""
    recorded = json.loads((files.ASSETS / files.CHECKSUMS).read_text())
    assert recorded == checksums.checksums()
    shipped = {path.relative_to(files.ASSETS).as_posix() for path in files.ASSETS.rglob("*") if path.is_file()}
    assert {name for name in shipped - set(recorded) if not name.endswith(".md")} == {files.CHECKSUMS}


@pytest.fixture
def copy_of_assets(tmp_path, monkeypatch):
    for part in ("models", "texts"):
        shutil.copytree(files.ASSETS / part, tmp_path / part)
    shutil.copy(files.ASSETS / files.CHECKSUMS, tmp_path)
    monkeypatch.setattr(files, "ASSETS", tmp_path)
    monkeypatch.setattr(language_model, "STORIES", tmp_path / "models" / "stories")
    monkeypatch.setattr(shipped_text, "TEXTS", tmp_path / "texts")
    return tmp_path


def flip(path):
    content = bytearray(path.read_bytes())
    entry = content.find(b"models/stories/model.safetensors")  # of the checksums, that of the weights
    content[entry + 40 if entry > 0 else len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [*language_model.FILES, files.CHECKSUMS])
def test_a_damaged_language_model_is_not_loaded(copy_of_assets, name, damage):
    folder = copy_of_assets if name == files.CHECKSUMS else copy_of_assets / "models" / "stories"
    DAMAGE[damage](folder / name)
    with pytest.raises(ValueError, match=rf"{name}.* is missing or damaged. Reinstall the package"):
        load_language_model()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_stories_are_not_read(copy_of_assets, damage):
    assert story_tokens(10).shape == (1, 256)
    shipped_text.unpack_rows.cache_clear()
    DAMAGE[damage](copy_of_assets / "texts" / "stories" / "model.npy.xz")
    with pytest.raises(ValueError, match=r"model.npy.xz.* is missing or damaged. Reinstall the package"):
        story_tokens(10)


def test_files_of_the_users_are_read_as_they_are(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    assert files.read_asset(tmp_path / "mine") == b"mine"


@pytest.mark.parametrize("name", ["SAE_TUTORIAL_CACHE", "XDG_CACHE_HOME"])
def test_a_tilde_in_the_environment_is_the_home_folder(name, monkeypatch, tmp_path):
    for variable in ("SAE_TUTORIAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/kept")
    assert files.cache_folder("x").is_relative_to(tmp_path / "kept")
