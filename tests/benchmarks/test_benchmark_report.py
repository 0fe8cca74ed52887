"""The page says what the results say."""

import json

import common
import report

FOUND = {
    "a": {
        "question": "how fast",
        "command": "python benchmarks/a.py --device cpu",
        "machine": common.machine("cpu"),
        "targets": [
            common.target("speed | b", "here", {"median": 3.0, "low": 2.0, "high": 4.0}, at_least=5),
            common.target("other", "here", {"median": 3.0, "low": 3.0, "high": 3.0}),
        ],
        "tables": [common.table("Title", ["x"], [["1"]])],
    }
}
PAGE = "before\n<!-- targets -->\nold\n<!-- /targets -->\nbetween\n<!-- tables -->\n<!-- /tables -->\nafter\n"


def test_the_page_agrees_with_the_results():
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.rewritten(page, report.results()) == page, "run `python benchmarks/report.py`"


def test_only_what_stands_between_markers_changes():
    page = report.rewritten(PAGE, FOUND)
    assert page.startswith("before\n<!-- targets -->\n") and page.endswith("<!-- /tables -->\nafter\n")
    assert "old" not in page and "\nbetween\n" in page
    assert r"| speed \| b | here | ≥ 5× | 3× (2 to 4) | **missed** |" in page
    assert "| other | here | 3× |" in page, "no bar: in the list below"
    assert "**Title**\n\n| x |\n| --- |\n| 1 |" in page and common.machine("cpu")["cpu"] in page
    assert report.rewritten(page, FOUND) == page


def test_without_results_the_page_says_how_to_get_them():
    assert "make bench" in report.rewritten(PAGE, {})


def test_results_come_in_the_order_of_the_page_with_gpus_last(tmp_path):
    for name in ("oracle", "allocation-cuda", "training_step", "unknown"):
        (tmp_path / f"{name}.json").write_text(json.dumps({}))
    assert list(report.results(tmp_path)) == ["training_step", "oracle", "unknown", "allocation-cuda"]


def test_every_result_is_of_a_script():
    scripts = {path.stem for path in report.PAGE.parent.glob("*.py")}
    assert set(report.ORDER) <= scripts
    assert {name.split("-")[0] for name in report.results()} <= set(report.ORDER)
