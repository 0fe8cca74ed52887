"""A folder holds the old SAE or the new one, bit for bit, whatever interrupts a save and whoever else saves there."""

import errno
import json
import os
import shutil
import signal
import sys
import warnings

import pytest
import torch
from synthetic import make

from sae_tutorial import load_sae, save_sae
from sae_tutorial.autoencoder import saving
from sae_tutorial.autoencoder.folders import JOURNAL, reading, replace

OURS = ["cfg.json", "sae_tutorial.json", "sae_tutorial.safetensors", "sae_weights.safetensors"]
WATCHED = ("folders.py", "files.py")


@pytest.fixture
def contents(monkeypatch):
    """Two different SAEs, and the files that a save of each writes."""
    saes, files = [make("token_choice", d_sae=24), make("gated", d_sae=40, d_out=5)], []
    with monkeypatch.context() as patch:
        patch.setattr(saving, "replace", lambda folder, content: files.append(content))
        for sae in saes:
            save_sae(sae, "nowhere")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses nothing that it has written
    return saes, files


def which(folder, saes):
    """0 or 1: the SAE that is in the folder, bit for bit."""
    found = load_sae(folder).state_dict()
    same = [
        found.keys() == sae.state_dict().keys()
        and all(torch.equal(found[name], tensor) for name, tensor in sae.state_dict().items())
        for sae in saes
    ]
    assert sum(same) == 1
    return same.index(True)


def forked(work):
    """The process id of a child that does this and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child touches neither threads nor torch
        pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


def killed_at(line, folder, content):
    """Replace the files in a process that is killed when it comes to its `line`-th line; whether it got that far."""
    left = line

    def watch(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return watch

    def work():
        sys.settrace(watch)
        replace(folder, content)

    return os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1]) == -signal.SIGKILL


def test_killed_at_any_line(contents, tmp_path):
    saes, (old, new) = contents
    replace(tmp_path / "old", old)
    found, line = [], 1
    while True:
        folder = tmp_path / f"killed_{line}"
        shutil.copytree(tmp_path / "old", folder)
        reached = killed_at(line, folder, new)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        found.append(which(folder, saes))
        assert before == {path: path.read_bytes() for path in folder.iterdir()}  # reading mends nothing
        if not reached:
            break
        replace(folder, old)  # the next save finishes or discards what it finds
        assert which(folder, saes) == 0 and sorted(os.listdir(folder)) == OURS
        line += 5  # every fifth, for the sake of time
    assert len(found) > 30 and found == sorted(found) and set(found) == {0, 1}
    assert sum(found) > 3  # some of them after the point of no return


def test_killed_where_there_was_nothing(contents, tmp_path):
    saes, (_, new) = contents
    for line in range(10, 400, 30):
        folder = tmp_path / f"killed_{line}"
        killed_at(line, folder, new)
        try:
            assert which(folder, saes) == 1
        except FileNotFoundError:
            assert not (set(OURS) & set(os.listdir(folder) if folder.exists() else ()))


def test_a_full_disk_changes_nothing(contents, tmp_path, monkeypatch):
    saes, (old, new) = contents
    replace(tmp_path, old)
    for room in range(12):
        left = room

        def full(descriptor):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        try:
            save_sae(saes[1], tmp_path)
        except OSError as error:
            assert "the disk or your share of it is full" in str(error) and str(tmp_path) in str(error)
            assert sorted(os.listdir(tmp_path)) == OURS and which(tmp_path, saes) == 0
        else:
            break
    assert room > 7 and which(tmp_path, saes) == 1  # four trials, four files, one journal


def test_processes_that_save_into_one_folder(contents, tmp_path):
    saes, files = contents
    replace(tmp_path / "sae", files[0])

    def save_again_and_again(content):
        for _ in range(60):
            replace(tmp_path / "sae", content)

    children = [forked(lambda content=content: save_again_and_again(content)) for content in files]
    found, running = set(), set(children)
    while running:
        found.add(which(tmp_path / "sae", saes))
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                assert os.waitstatus_to_exitcode(status) == 0
    found.add(which(tmp_path / "sae", saes))
    assert found <= {0, 1} and sorted(os.listdir(tmp_path / "sae")) == OURS


def test_a_folder_that_cannot_be_written(contents, tmp_path):
    saes, _ = contents
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/.* cannot be written .*a part of its path is a file, not a folder"):
        save_sae(saes[0], tmp_path / "file")
    (tmp_path / "taken" / "cfg.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="cfg.json is a folder"):
        save_sae(saes[0], tmp_path / "taken")
    assert os.listdir(tmp_path / "taken") == ["cfg.json"]


@pytest.mark.parametrize("journal", ["{", "[1]", '{"cfg.json": "../secret.json"}', '{"../x": null}', '{"cfg.json": 3}'])
def test_a_journal_names_files_of_its_folder_only(contents, journal, tmp_path):
    saes, (old, _) = contents
    (tmp_path / "secret.json").write_text("{}")
    replace(tmp_path / "sae", old)
    (tmp_path / "sae" / JOURNAL).write_text(journal)
    for use in (load_sae, lambda folder: save_sae(saes[1], folder)):
        with pytest.raises(ValueError, match=f"{JOURNAL} is damaged"):
            use(tmp_path / "sae")
    assert (tmp_path / "secret.json").exists()


def test_readers_see_removals(tmp_path):
    replace(tmp_path, {"a": b"1", "b": b"2"})
    (tmp_path / JOURNAL).write_text(json.dumps({"a": None, "b": "b.unfinished"}))
    (tmp_path / "b.unfinished").write_bytes(b"3")
    with reading(tmp_path) as files:
        assert "a" not in files and files["b"].read_bytes() == b"3" and "c" not in files
    replace(tmp_path, {"c": b"4"})
    assert sorted(os.listdir(tmp_path)) == ["b", "c"] and (tmp_path / "b").read_bytes() == b"3"
