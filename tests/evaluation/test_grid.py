"""Rows of the grid: selected, paired by seed, and summed up with honest intervals."""

import json
import math

import numpy as np
import pytest

from sae_tutorial.evaluation.grid import NAMES, Runs, load_densities, load_runs
from sae_tutorial.evaluation.intervals import Interval


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
