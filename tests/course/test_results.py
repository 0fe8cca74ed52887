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
from sae_tutorial.course.results import Runs, load_evidence, load_explanations, load_model_scores, load_runs
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


def test_values_want_one_cell():
    with pytest.raises(ValueError, match="seed 0 comes twice"):
        GRID.values("fvu", method="mutual_choice")


def test_repr_says_how_much_is_there():
    assert repr(GRID) == "Runs(7 SAEs, 4 cells, seeds [0, 1, 2])"
    assert len(GRID.where(k=16)) == 2 and len(Runs(())) == 0


def test_files_are_read_and_their_absence_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"benchmarks/quality\.py"):
        load_runs(tmp_path)
    (tmp_path / "runs.jsonl").write_text(json.dumps(row()) + "\n\n" + json.dumps(row(seed=1)) + "\n")
    assert [r["seed"] for r in load_runs(tmp_path)] == [0, 1]
    with pytest.raises(FileNotFoundError, match=r"benchmarks/quality\.py"):
        load_evidence(tmp_path)
    np.savez_compressed(tmp_path / "arrays.npz", **{"a/density": np.array([0.5, 0.1], dtype=np.float32)})
    (tmp_path / "stability.jsonl").write_text(json.dumps({"method": "a", "seeds": [0, 1], "mutual": 0.5}))
    evidence = load_evidence(tmp_path)
    assert evidence.density({"key": "a"}).tolist() == pytest.approx([0.5, 0.1])
    assert evidence.density({"key": "b"}) is None and evidence.stability.rows[0]["mutual"] == 0.5


def test_what_is_shipped_is_one_grid():
    """Every line that was measured has its sums, they give its numbers, and none of them is from another recipe."""
    evidence = load_evidence()
    measured = [row for row in evidence.runs if "kl" in row]
    assert len(measured) > 100
    for row in measured:
        text, error = evidence.text(row), evidence.sums("error", row)
        assert float(error.sum() / text["spread"].sum()) == pytest.approx(row["fvu"], rel=1e-4), row["key"]
        assert float(evidence.sums("kl", row).sum() / text["tokens"].sum()) == pytest.approx(row["kl"], rel=1e-3)
        assert row["l0"] == pytest.approx(row["k"], rel=0.03), row["key"]
        assert evidence.density(row) is not None or row["seed"] > 0
    assert {row["steps"] for row in evidence.runs if row["part"] == "main"} == {1000}
    for row in measured:  # its rate is the best of a sweep on its own model, for its own length
        swept = evidence.runs.where(part="rates", method=row["method"], model=row["model"], steps=row["steps"])
        assert not swept or row["part"] == "finer" or row["factor"] in {one["factor"] for one in swept}, row["key"]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of what is shipped, in the place of it."""
    assets = tmp_path / "assets"
    shutil.copytree(files.ASSETS / "evidence", assets / "evidence")
    shutil.copy(files.ASSETS / files.CHECKSUMS, assets / files.CHECKSUMS)
    monkeypatch.setattr(files, "ASSETS", assets)
    monkeypatch.setattr(results, "EVIDENCE", assets / "evidence")
    return assets / "evidence"


@pytest.mark.parametrize(
    ("name", "load"), [("runs.jsonl", load_runs), ("arrays.npz", load_evidence), ("stability.jsonl", load_evidence)]
)
def test_a_damaged_grid_names_its_file_and_what_to_do(shipped, name, load):
    path = shipped / name
    whole = path.read_bytes()
    load()
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
    (tmp_path / "runs.jsonl").write_text(json.dumps(row()))
    np.savez_compressed(tmp_path / "arrays.npz", a=np.arange(1000.0))
    whole = (tmp_path / "arrays.npz").read_bytes()
    for content in (b"", b"no zip", whole[:-30], whole[:60] + b"\0" * 20 + whole[80:]):
        (tmp_path / "arrays.npz").write_bytes(content)
        with pytest.raises(ValueError, match="arrays.npz: damaged .*; delete it, and train the grid again"):
            load_evidence(tmp_path)
    with pytest.raises(TypeError, match="folder must be the path"):
        load_runs(3)


def test_what_a_model_makes_of_explanations_it_reads_is_about_those_it_was_asked_about():
    """Two scripts draw the same features first, and explain them in the same words from the same text."""
    asked, scored = load_explanations(), load_model_scores()
    assert [row["feature"] for row in scored[: len(asked)]] == [row["feature"] for row in asked]
    for row, other in zip(scored, asked):
        assert row["statistics"]["text"] == other["statistics"]["text"]
        assert row["statistics"]["detection"] == pytest.approx(other["by itself"]["detection"], nan_ok=True)
    for row in scored:
        for name in ("statistics", "another feature"):
            numbers = [row[name][score] for score in ("surprisal", "embedding", "detection", "fuzzing")]
            alone = row["n_active"] == 0 or row["n_silent"] == 0  # then there is nothing to compare
            assert all(math.isnan(number) if alone else 0 <= number <= 1 for number in numbers)
        effects = [row[name] for name in ("statistics", "another feature", "raised", "raised by another feature")]
        assert all(math.isfinite(one["intervention"]) for one in effects)
        assert row["statistics"]["text"] != row["another feature"]["text"]
