"""Ratios, slopes, turns, targets, and the file that a result goes to."""

import importlib
import json
import subprocess
import sys
import time

import common
import pytest
import report
import torch


def test_a_ratio_is_taken_round_by_round():
    """The machine was three times slower in the second round: the ratio does not care."""
    assert common.ratio([10, 30, 10], [5, 15, 4]) == {"median": 2.0, "low": 2.0, "high": 2.5}


def test_slope_is_the_exponent():
    x = [1.0, 2.0, 4.0, 16.0]
    assert common.slope(x, [3 * value**1.5 for value in x]) == pytest.approx(1.5)


def test_each_has_one_turn_in_each_round_in_changing_order():
    order = []
    names = "abcd"
    taken = common.take_turns({n: (lambda n=n: (order.append(n), float(len(order)))[1]) for n in names}, rounds=5)
    rounds = ["".join(order[i : i + 4]) for i in range(0, 20, 4)]
    assert all(sorted(one) == list(names) for one in rounds) and len(set(rounds)) > 1
    assert all(len(times) == 5 for times in taken.values())


def test_timed_returns_milliseconds():
    assert 10 <= common.timed(lambda: time.sleep(0.01), "cpu")() < 1000


BARS = [("at_least", 2.0, True), ("at_least", 2.1, False), ("at_most", 2.0, True), ("at_most", 1.9, False)]


@pytest.mark.parametrize(("bar", "met"), [({name: value}, met) for name, value, met in BARS] + [({}, None)], ids=str)
def test_the_median_decides_about_a_target(bar, met):
    assert common.target("a", "b", {"median": 2.0, "low": 1.0, "high": 3.0}, **bar)["met"] is met


def test_what_was_not_measured_has_a_reason():
    one = common.target("a", "b", None, at_least=2, note="no such hardware")
    assert one["met"] is None
    assert common.measured_text(one) == "not measured: no such hardware"
    assert common.bar_text(one) == "≥ 2×"


def test_machine_names_the_processor_and_the_load():
    described = common.machine("cpu")
    assert described["cpu"] and described["cores"] >= described["threads"] >= 1
    assert {"load_at_start", "torch", "python", "system", "date"} <= described.keys() and "gpu" not in described


def test_finish_writes_what_a_report_needs(tmp_path, capsys):
    args = common.parser("doc").parse_args(["--out", str(tmp_path / "a" / "result.json")])
    targets = [common.target("speed", "here", {"median": 3.0, "low": 2.0, "high": 4.0}, at_least=2)]
    tables = [common.table("A table", ["x", "y"], [[1, "two"]])]
    common.finish(args, "name", "a question", {"cpu": "some"}, raw=[1.5] * 40, tables=tables, targets=targets)
    written = json.loads((tmp_path / "a" / "result.json").read_text())
    assert written["targets"] == targets and written["tables"] == tables and written["raw"] == [1.5] * 40
    assert "3× (2 to 4)" in capsys.readouterr().out


def test_a_quick_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.finish(common.parser("doc").parse_args(["--quick"]), "name", "?", {"cpu": "some"}, raw=[])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a benchmark's command line, which must stop before it measures anything; what it printed."""

    def run(name, *arguments):
        def measured(*_):
            raise AssertionError("it began")

        monkeypatch.setattr(common, "machine", measured)
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(name).main()
        assert caught.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", report.ORDER)
def test_a_result_that_could_not_be_written_is_noticed_before_anything_is_measured(
    name, command, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    assert f"argument --out: {tmp_path} is a folder; give the path of a file" in command(name, "--out", tmp_path)
    assert "a.json cannot be written" in command(name, "--out", tmp_path / "file" / "a.json")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "file")  # where it goes without --out
    assert "cannot be written" in command(name)


@pytest.mark.parametrize("name", [*report.ORDER, "run_all"])
def test_wrong_arguments_are_refused_before_anything_is_measured(name, command):
    for wrong in ("0", "-1", "2.5", "many"):
        assert f"argument --rounds: must be a whole number, 1 or more, got {wrong!r}" in command(
            name, f"--rounds={wrong}"
        )
    if not torch.cuda.is_available():
        assert "there is no CUDA device here" in command(name, "--device", "cuda")
    if name == "oracle":
        assert "one seed has no standard deviation" in command(name, "--rounds", "1")
    assert "unrecognized arguments: --no-such" in command(name, "--no-such")


def test_other_outputs_and_sizes_are_checked_as_early(command, tmp_path, monkeypatch):
    import quality

    monkeypatch.setattr(quality, "do_one_group", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    for option in ("--out", "--cache"):
        assert f"argument {option}: {tmp_path / 'file'} is a file; give a folder" in command(
            "quality", option, tmp_path / "file"
        )
        assert "cannot be written" in command("quality", option, tmp_path / "file" / "folder")
    assert "argument --only: invalid choice: 'mian'" in command("quality", "--only", "mian")
    for name, option in (
        ("quality", "--steps"),
        ("harvest", "--tokens"),
        ("harvest", "--batch-size"),
    ):
        assert f"argument {option}: must be a whole number, 1 or more, got '0'" in command(name, option, 0)
    assert "is a file; give a folder" in command("training_step", "--environments", tmp_path / "file")
    assert "unrecognized arguments: --out" in command("run_all", "--out", "a.json"), "it writes several"


def test_a_file_to_write_may_be_at_home_and_in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert common.parser("doc").parse_args(["--out", "~/new/a.json"]).out == tmp_path / "new" / "a.json"
    assert [path.name for path in tmp_path.rglob("*")] == ["new"], "tried, and left nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", report.ORDER)
def test_a_quick_run_works(name):
    options = ["--peers"] if name == "training_step" else []
    command = [sys.executable, report.PAGE.parent / f"{name}.py", "--quick", *options]
    assert subprocess.run(command, capture_output=True, text=True, timeout=600).returncode == 0
