"""Many comparisons at once: what is there, corrected for how many there are."""

import numpy as np
import pytest
import torch

from sae_tutorial.course.do_the_claims_hold.comparisons import against, by_budget, figure, table
from sae_tutorial.course.results import OF_A_RUN, OF_A_TEXT, Evidence, Runs
from sae_tutorial.evaluation.intervals import Ratio, holm


@pytest.fixture(scope="module")
def evidence():
    """Three seeds of two methods, 40 rows: mutual_choice has a tenth less error, and a KL that differs by luck."""
    rng, rows, arrays = np.random.default_rng(0), [], {}
    arrays["stories-noise0/text"] = np.ones((len(OF_A_TEXT), 40))
    for seed in range(3):
        error = rng.uniform(1, 2, 40)
        for method, factor in (("token_choice", 1.0), ("mutual_choice", 0.9)):
            key = f"{method}-{seed}"
            rows.append({"key": key, "method": method, "seed": seed, "k": 32, "model": "stories", "noise": 0.0})
            sums = {"error": factor * error * rng.uniform(0.99, 1.01, 40), "kl": rng.uniform(0.1, 2, 40)}
            arrays[f"{key}/rows"] = np.stack([sums.get(name, np.full(40, 1.5)) for name in OF_A_RUN])
    return Evidence(Runs(tuple(rows)), arrays, Runs(()))


def test_verdicts_are_corrected_for_all_of_them(evidence):
    found = against(evidence, "token_choice", ["mutual_choice", "nobody"], {"k = 32": {"k": 32}, "k = 9": {"k": 9}})
    assert list(found) == [("error", "mutual_choice", "k = 32"), ("kl", "mutual_choice", "k = 32")], "what is there"
    error, kl = found.values()
    assert [error.p, kl.p] == holm([error.ratio.p, kl.ratio.p])
    assert error.verdict == "less" and error.ratio.mean == pytest.approx(-0.1, abs=0.01)
    assert kl.verdict == "open" and kl.ratio.low < 0 < kl.ratio.high
    back = against(evidence, "mutual_choice", ["token_choice"], {"k = 32": {"k": 32}})
    assert back["error", "token_choice", "k = 32"].verdict == "more"


def test_one_seed_has_no_verdict_and_takes_none_from_others(evidence):
    one_seed = {"k = 32": {"k": 32}, "first": {"k": 32, "seed": 0}}
    found = against(evidence, "token_choice", ["mutual_choice"], one_seed, ("error",))
    alone = against(evidence, "token_choice", ["mutual_choice"], {"k = 32": {"k": 32}}, ("error",))
    assert found["error", "mutual_choice", "first"].verdict == "(one seed)"
    labels = "".join(figure(found, "error", "title", "token_choice").layout.yaxis.ticktext)
    assert labels.replace("<br>", " ").count("(one seed)") == 1
    assert found["error", "mutual_choice", "k = 32"].p == alone["error", "mutual_choice", "k = 32"].p


def test_lines_of_text_can_be_left_out_in_some_settings(evidence):
    settings = {"all": {"k": 32}, "some": {"k": 32}}
    kept = torch.arange(40) >= 10
    found = against(evidence, "token_choice", ["mutual_choice"], settings, ("error",), {"some": kept})
    assert [one.ratio.rows for one in found.values()] == [40, 30]


def test_what_is_not_settled_is_hollow(evidence):
    found = against(evidence, "token_choice", ["mutual_choice"], {"k = 32": {"k": 32}})
    [symbol], [hollow] = (
        figure(found, measure, "", "token_choice").data[0].marker.symbol for measure in ("error", "kl")
    )
    assert [one.verdict for one in found.values()] == ["less", "open"]
    assert hollow == f"{symbol}-open"


def test_figure_and_table_show_what_was_found(evidence):
    found = against(evidence, "token_choice", ["mutual_choice"], {"k = 32": {"k": 32}, "k = 9": {"k": 9}})
    fig = figure(found, "error", "title", "token_choice")
    ratio = found["error", "mutual_choice", "k = 32"].ratio
    assert list(fig.data[0].x) == pytest.approx([ratio.mean], rel=1e-3) and len(fig.data) == 1
    assert "squared error against Token Choice" in fig.layout.xaxis.title.text.replace("<br>", " ")
    shown = table(found, ["k = 32", "k = 9"])
    assert shown.rows[0][:2] == ("squared error", "Mutual Choice")
    assert shown.rows[0][2] == f"{ratio.mean:+.1%} less" and shown.rows[0][3] == "–"
    assert {len(row) for row in shown.rows} == {4}
    assert shown.headers[0] == "corrected for 2", "a verdict depends on how many were compared"
    assert table(found, ["k = 32"], ["nobody"]).rows == []


def test_budgets_of_methods_are_beside_each_other():
    ratios = {16: Ratio(-0.1, -0.2, -0.05, 0.01, 3, 40), 32: Ratio(0.1, 0.05, 0.2, 0.01, 3, 40)}
    fig = by_budget({"Mutual Choice": ratios, "Mutual Choice, floor": ratios}, "title")
    one, other = fig.data[:2]
    assert list(one.y) == pytest.approx([-0.1, 0.1]) and list(one.error_y.array) == pytest.approx([0.05, 0.1])
    assert one.x[0] < 16 < other.x[0] and other.x[1] / one.x[1] == pytest.approx(1.08, rel=1e-3)
