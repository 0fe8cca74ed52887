"""What the tables hold, from a grid made by hand."""

import numpy as np
import pytest

from sae_tutorial.course.do_the_claims_hold import tables
from sae_tutorial.course.results import OF_A_RUN, OF_A_TEXT, Evidence, Runs


def row(method, seed, fvu, part="main", noise=0.0):
    measures = {"fvu": fvu, "l0": 32.0, "kl": 0.1, "recovered": 0.9, "dead": 0.1 * seed, "rare": 0.2, "l0_std": 3.0}
    measures["train_dead"] = 0.1 * seed
    where = {"part": part, "model": "stories", "k": 32, "d_sae": 64, "steps": 10, "noise": noise, "n_tokens": 510}
    return {"key": f"{part}-{method}-{seed}", "method": method, "seed": seed} | where | measures


@pytest.fixture(scope="module")
def evidence():
    rows = [row("token_choice", 0, 0.3), row("token_choice", 1, 0.2), row("mutual_choice", 0, 0.1)]
    rows += [row("token_choice", 0, 0.3, "noise", 0.05), row("mutual_choice", 0, 0.3, "noise", 0.05)]
    rows += [{"part": "rates", "method": "token_choice", "seed": 0, "model": "stories"}]
    arrays = {f"stories-noise{share:g}/text": np.ones((len(OF_A_TEXT), n)) for share, n in ((0, 2), (0.05, 4))}
    for method, matches in {"token_choice": [255, 255, 255, 255], "mutual_choice": [255, 255, 510, 765]}.items():
        error = {"token_choice": np.ones(4), "mutual_choice": np.array([1, 1, 0.5, 0.5])}[method]
        sums = {"matches": np.array(matches, float), "error": error}
        arrays[f"noise-{method}-0/rows"] = np.stack([sums.get(name, np.ones(4)) for name in OF_A_RUN])
        arrays[f"main-{method}-0/rows"] = arrays[f"noise-{method}-0/rows"][:, 1:3]  # measured on text alone
    pair = {"part": "main", "model": "stories", "k": 32, "method": "token_choice", "seed": 0}
    pairs = (pair | {"mutual": 0.25}, pair | {"mutual": 0.75}, pair | {"k": 16, "mutual": 0.0})
    return Evidence(Runs(tuple(rows)), arrays, Runs(pairs))


def test_parts_leave_sweeps_out(evidence):
    assert [one[0] for one in tables.parts(evidence).rows] == ["main", "noise"]
    assert tables.parts(evidence).rows[1][4:] == ("5%", "32", 510, 2)


def test_rules_are_means_over_seeds_least_error_first(evidence):
    found = tables.rules(evidence, part="main", model="stories", k=32)
    assert list(found) == ["Mutual Choice", "Token Choice"]
    token = found["Token Choice"]
    assert token["FVU"] == pytest.approx(0.25) and token["seeds"] == 2
    assert token["shared"] == pytest.approx(0.5), "pairs of this budget alone"
    assert found["Mutual Choice"]["shared"] is None
    shown = tables.of_rules(found)
    assert shown.rows[0][1] == "0.1000" and shown.rows[0][-2:] == ("–", "1") and shown.rows[1][-2:] == ("50%", "2")


def test_what_never_fires_is_not_counted_among_the_live(evidence):
    found = tables.shared_of_live(evidence, part="main", k=32, method="token_choice")
    assert found == pytest.approx(0.5 / 0.95), "0% and 10% of two seeds are dead"
    assert tables.shared_of_live(evidence, part="main", k=32, method="mutual_choice") is None


def test_recovered_is_of_the_seeds_that_both_have():
    rows = [row("token_choice", seed, 0.3) | {"recovered": 0.5 + 0.1 * seed} for seed in (0, 1, 2)]
    rows += [row("mutual_choice", seed, 0.3) | {"recovered": 0.9} for seed in (1, 2, 3)]
    found = tables.recovered(Evidence(Runs(tuple(rows)), {}, Runs(())), ("token_choice", "mutual_choice"), {"k": 32})
    assert found == pytest.approx((0.65, 0.9))


def test_shared_has_a_column_where_there_are_pairs(evidence):
    settings = {"here": {"part": "main", "k": 32}, "nowhere": {"part": "wide"}}
    shown = tables.of_shared(evidence, ("token_choice", "mutual_choice"), settings)
    assert list(shown.headers)[1:] == ["here"]
    assert list(shown.rows) == [("Token Choice", "50% (53%)"), ("Mutual Choice", "–")]


def test_most_dead_takes_the_worst_seed_and_leaves_out_what_is_not_there(evidence):
    found = tables.most_dead(evidence, {"here": {"part": "main"}}, ["token_choice", "matryoshka"])
    assert found == {("here", "token_choice"): pytest.approx(0.1)}
    assert tables.most_dead(evidence, {"here": {"part": "main"}}, ["token_choice"], "not measured") == {}


def test_crossed_has_a_column_for_each_method():
    shown = tables.crossed({("a", "token_choice"): 0.5, ("b", "other"): 0.25}, "corner", ".0%")
    assert list(shown.headers) == ["corner", "Token Choice", "other"]
    assert list(shown.rows) == [("a", "50%", "–"), ("b", "–", "25%")]


def test_random_rows_tell_text_from_random(evidence):
    found = tables.random_rows(evidence, ("token_choice", "mutual_choice"), slice(2), slice(2, None))
    mutual = found[0.05, "mutual_choice"]
    assert mutual["L0 on text"] == 1 and mutual["L0 on random rows"] == pytest.approx(2.5)
    ratios = [mutual[f"error on {name}"] for name in ("text", "random rows", "all rows")]
    assert ratios == pytest.approx([0, -0.5, -0.25]) and found[0.05, "token_choice"]["error on text"] == 0
    without = found[0.0, "mutual_choice"]
    assert without == {"L0 on text": pytest.approx(1.5), "error on text": pytest.approx(-0.25), "seeds": 1}
    shown = tables.of_random_rows(found)
    assert shown.rows[1] == ("0%", "Mutual Choice", "1.5", "–", "-25.0%", "–", "–", "1")
    assert shown.rows[3] == ("5%", "Mutual Choice", "1.0", "2.5", "+0.0%", "-50.0%", "-25.0%", "1")
