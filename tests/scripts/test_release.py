"""What a wheel and an sdist must hold, and what they must not."""

import io
import subprocess
import tarfile
import zipfile

import pytest
import release

FILES = subprocess.run(
    ["git", "ls-files", "-z"], cwd=release.ROOT, check=True, capture_output=True, text=True
).stdout.split("\0")[:-1]
ABOUT = f"{release.NAME}.dist-info/entry_points.txt"
COMMAND = "[console_scripts]\nsae-tutorial = sae_tutorial.__main__:main\n"


def packed(folder, wheel_files, sdist_files, about=COMMAND):
    wheel, sdist = folder / f"{release.NAME}-py3-none-any.whl", folder / f"{release.NAME}.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(ABOUT, about)
        for name in wheel_files:
            archive.writestr(name, "")
    with tarfile.open(sdist, "w:gz") as archive:
        for name in sdist_files:
            archive.addfile(tarfile.TarInfo(f"{release.NAME}/{name}"), io.BytesIO())
    return wheel, sdist


@pytest.fixture
def package():
    return [name for name in FILES if name.startswith("sae_tutorial/")]


def test_what_is_complete_has_no_faults(tmp_path, package):
    assert release.faults(*packed(tmp_path, package, FILES)) == []


def test_what_is_missing_or_too_much_is_named(tmp_path, package):
    weights = "sae_tutorial/assets/checksums.json"
    less = [name for name in package if name != weights]
    wheel, sdist = packed(tmp_path, [*less, "tests/test_x.py"], [n for n in FILES if n != "LICENSE"], about="")
    assert release.faults(wheel, sdist) == [
        f"the wheel lacks {weights}",
        "the sdist lacks LICENSE",
        "the wheel has tests/test_x.py",
        "the wheel has no command sae-tutorial",
    ]


def test_what_is_too_large_is_named(tmp_path, package, monkeypatch):
    monkeypatch.setattr(release, "LIMIT_MB", 0.001)
    assert any("over 0.001" in fault for fault in release.faults(*packed(tmp_path, package, FILES)))
