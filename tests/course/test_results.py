"""Rows of the grid: selected, paired by seed, and summed up with honest intervals."""

import json
import math
import random
import re
import shutil

import numpy as np
import pytest

from sae_tutorial.activations import files
from sae_tutorial.course import results
from sae_tutorial.course.results import Runs, load_densities, load_runs
from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.figures.looks import NAMES


def row(method="token_choice", seed=0, k=32, fvu=0.1, part="main", **more):
    return {"method": method, "seed": seed, "k": k, "d_sae": 4096, "fvu": fvu, "part": part, **more}


GRID = Runs(
    (
        row(seed=0, fvu=0.10),
        row(seed=1, fvu=0.14),
        row("mutual_choice", seed=0, fvu=0.09),
        row("mutual_choice", seed=1, fvu=0.126),
        row("mutual_choice", seed=2, fvu=0.2),
        row("mutual_choice", k=16, fvu=0.3),
        row("odd_one", k=16, fvu=math.nan),
    )
)


@pytest.mark.parametrize(("values", "verdict"), [([1, 1.1], "holds"), ([-1, -1.1], "fails"), ([-1, 1], "open")])
def test_verdicts(values, verdict):
    assert Interval.of(values).verdict(above=0) == verdict
    assert (-Interval.of([-v for v in values])).verdict(above=0) == verdict


def test_cells_come_in_the_order_of_the_methods():
    assert GRID.cells() == [
        ("mutual_choice", 4096, 16),
        ("odd_one", 4096, 16),
        ("token_choice", 4096, 32),
        ("mutual_choice", 4096, 32),
    ]
    assert list(NAMES).index("token_choice") < list(NAMES).index("mutual_choice")


def test_summary_leaves_out_what_is_not_finite():
    found = GRID.summary("fvu")
    assert ("odd_one", 4096, 16) not in found
    assert found["token_choice", 4096, 32].mean == pytest.approx(0.12)
    assert found["mutual_choice", 4096, 32].n == 3


def test_paired_differences_use_the_seeds_that_both_have():
    one = GRID.paired("fvu", "mutual_choice", "token_choice", k=32)
    assert one.n == 2 and one.mean == pytest.approx(-0.012)
    relative = GRID.paired("fvu", "mutual_choice", "token_choice", relative=True, k=32)
    assert relative.mean == pytest.approx(-0.1) and relative.high < 0, "both seeds agree on 10 %"
    assert GRID.paired("fvu", "mutual_choice", "token_choice", k=16) is None


def test_values_want_one_cell():
    with pytest.raises(ValueError, match="seed 0 comes twice"):
        GRID.values("fvu", method="mutual_choice")


def test_repr_says_how_much_is_there():
    assert repr(GRID) == "Runs(7 SAEs, 4 cells, seeds [0, 1, 2])"
    assert len(GRID.where(k=16)) == 2 and len(Runs(())) == 0


def test_files_are_read_and_their_absence_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmarks/quality\.py"):
        load_runs(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"benchmarks/quality\.py"):
        load_densities(tmp_path)
    (tmp_path / "runs.jsonl").write_text(json.dumps(row()) + "\n\n" + json.dumps(row(seed=1)) + "\n")
    np.savez_compressed(tmp_path / "densities.npz", a=np.array([0.5, 0.1], dtype=np.float32))
    assert [r["seed"] for r in load_runs(tmp_path)] == [0, 1]
    assert load_densities(tmp_path)["a"].tolist() == pytest.approx([0.5, 0.1])


def test_nothing_is_relative_to_nothing():
    runs = Runs((row(fvu=0.1), row("mutual_choice", fvu=0.0)))
    assert runs.paired("fvu", "token_choice", "mutual_choice").mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match="fvu of mutual_choice is 0, and nothing is relative to 0"):
        runs.paired("fvu", "token_choice", "mutual_choice", relative=True)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of what is shipped, in the place of it."""
    assets = tmp_path / "assets"
    shutil.copytree(files.ASSETS / "grid", assets / "grid")
    shutil.copy(files.ASSETS / files.CHECKSUMS, assets / files.CHECKSUMS)
    monkeypatch.setattr(files, "ASSETS", assets)
    monkeypatch.setattr(results, "FOLDER", assets / "grid")
    return assets / "grid"


@pytest.mark.parametrize(("name", "load"), [("runs.jsonl", load_runs), ("densities.npz", load_densities)])
def test_a_damaged_grid_names_its_file_and_what_to_do(shipped, name, load):
    path = shipped / name
    whole = path.read_bytes()
    assert len(load()) > 100
    rng = random.Random(0)
    damaged = [b"", whole[: len(whole) // 2], whole + b"1"]
    for _ in range(20):
        bits = bytearray(whole)
        bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(bits))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*damaged. Reinstall the package"):
            load()
    path.unlink()
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*missing or damaged. Reinstall"):
        load()


def test_a_grid_of_ones_own_says_where_it_is_damaged(tmp_path):
    """Checksums are for what is shipped; a grid that grows has none, and its pieces are read as they are."""
    (tmp_path / "runs.jsonl").write_text(json.dumps(row()) + "\n\n" + json.dumps(row(seed=1)) + "\n")
    assert len(load_runs(tmp_path)) == 2
    for line in ('{"method": "a', "3", "\udcff", "[1, 2]"):
        (tmp_path / "runs.jsonl").write_text(json.dumps(row()) + "\n" + line, errors="surrogateescape")
        with pytest.raises(ValueError, match=r"runs.jsonl, line 2: damaged .*; delete it, and train that SAE again"):
            load_runs(tmp_path)
    np.savez_compressed(tmp_path / "densities.npz", a=np.arange(1000.0))
    whole = (tmp_path / "densities.npz").read_bytes()
    for content in (b"", b"no zip", whole[:-30], whole[:60] + b"\0" * 20 + whole[80:]):
        (tmp_path / "densities.npz").write_bytes(content)
        with pytest.raises(ValueError, match="densities.npz: damaged .*; delete it, and train the grid again"):
            load_densities(tmp_path)
    with pytest.raises(TypeError, match="folder must be the path"):
        load_runs(3)
