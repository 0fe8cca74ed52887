"""Gaps at one rate and at each rule's best, from lines of a grid made by hand."""

import pytest

from sae_tutorial.course.do_the_claims_hold import rates
from sae_tutorial.course.results import Evidence, Runs

SWEPT = {"token_choice": {0.5: 0.12, 1.0: 0.10, 2.0: 0.11}, "mutual_choice": {0.5: 0.15, 1.0: 0.12, 2.0: 0.09}}


def row(part, method, factor, **more):
    return {"part": part, "method": method, "factor": factor, "model": "stories", "k": 32, "seed": 0} | more


@pytest.fixture(scope="module")
def evidence():
    rows = [
        row("rates", m, f, validation_fvu=v, fvu=v + 0.001) for m, by in SWEPT.items() for f, v in reversed(by.items())
    ]
    rows += [row("main", "token_choice", 2.0, fvu=0.10), row("main", "mutual_choice", 2.0, fvu=0.09)]
    rows += [row("finer", "token_choice", 1.4, fvu=0.095), row("finer", "mutual_choice", 1.4, fvu=0.092)]
    rows += [row("rates", "relative", 1.0, validation_fvu=0.1)]
    return Evidence(Runs(tuple(rows)), {}, Runs(()))


def test_errors_are_in_the_order_of_rates(evidence):
    assert list(rates.errors(evidence, "token_choice", k=32)) == [0.5, 1.0, 2.0]
    assert rates.errors(evidence, "token_choice", k=16) == {}


def test_best_needs_a_sweep(evidence):
    assert rates.best(evidence, "mutual_choice", k=32) == 2.0
    assert rates.best(evidence, "relative", k=32) is None, "one rate is no sweep"


def test_trainers_are_chosen_by_rows_that_they_are_not_measured_on(evidence):
    found = rates.swept(evidence, ["mutual_choice", "relative", "token_choice"], k=32)
    assert list(found.rows) == [("Mutual Choice", 3, "2 ×", "0.0910"), ("Token Choice", 3, "1 ×", "0.1010")]


def test_gaps_at_one_rate_and_at_the_best(evidence):
    assert rates.gap(evidence, 2.0, k=32) == pytest.approx(0.09 / 0.11 - 1)
    assert rates.gap(evidence, k=32) == pytest.approx(0.09 / 0.10 - 1)
    assert rates.finer_gap(evidence, 32) == pytest.approx((0.09 / 0.10 - 1, 0.09 / 0.095 - 1))


def test_a_rate_is_found_in_the_grid_or_beside_it(evidence):
    assert [rates.measured(evidence, "token_choice", 32, factor) for factor in (2.0, 1.4)] == [0.10, 0.095]
