"""The table of what SAEs are worth: means, differences and agreements of rows whose answers are known."""

import numpy as np
import pytest
from scipy.stats import t as student

from sae_tutorial.course.judged_by_tasks import table


def row(method, seed, level, fvu=None, model="stories", **more):
    """A row of which every score is `level`, but for what is said; two questions of each kind."""
    both = {"a": level - 0.01, "b": level + 0.01}
    asked = both | {"book: a": level, "book: b": level}
    return {
        "model": model,
        "method": method,
        "seed": seed,
        "fvu": 1 - level if fvu is None else fvu,
        "probing": {"1": asked, "2": asked, "5": asked},
        "kept": asked,
        "perturbation": {"5": both},
        "removal": {"5": both},
        "disentanglement": {"10": {"a": [level, level], "b": [level + 0.1, level - 0.1]}, "held": both},
        "absorption": {"a": {"main_f1": level, "rate": 0.02, "fraction": 0.1}},
        "detection": [level, level, level],
    } | more


def test_every_measure_reads_its_score_of_a_row_and_more_is_better():
    rows = [row("one", 0, 0.6)]
    for measure in table.MEASURES:
        [of] = table.scores(rows, "stories", "one", measure).values()
        assert float(of.mean()) == pytest.approx(0.6), measure
    with pytest.raises(ValueError, match="measure='beauty' is none of 'variance explained', "):
        table.scores(rows, "stories", "one", "beauty")


def test_what_was_not_asked_is_left_out():
    rows = [
        row("one", 0, 0.6),
        row("one", 1, 0.8),
        row("one", 0, 0.1, model="smollm2"),
        row("bare", 0, 0.5, detection=None),
    ]
    rows[-1]["fvu"] = None
    assert table.worth(rows, "stories", "words, 5 features", ("one", "bare", "absent")) == {
        "one": pytest.approx((0.7, 0.6, 0.8)),
        "bare": pytest.approx((0.5, 0.5, 0.5)),
    }
    for measure in (table.EXPLAINED, "told by explanations"):
        assert list(table.worth(rows, "stories", measure, ("one", "bare"))) == ["one"]
    without_size = [{**rows[0], "probing": {"a": 0.9, "b": 0.8}}]  # a probe on everything
    assert table.scores(without_size, "stories", "one", "words, 1 feature") == {}


def test_pairs_that_seeds_tell_apart():
    noise = (0.01, -0.01, 0.0)
    levels = {"base": 0.6, "alike": 0.602, "better": 0.7, "worse": 0.5}
    rows = [row(name, seed, level + noise[seed]) for name, level in levels.items() for seed in range(3)]
    rows += [row("once", 0, 0.9)]
    found = {(one.one, one.other): one for one in table.pairs(rows, "stories", "words, 5 features", [*levels, "once"])}
    assert len(found) == 6 and not any("once" in both for both in found)
    assert {both for both, one in found.items() if not one.apart} == {("base", "alike")}
    one = found["better", "worse"]
    # By hand: a spread of 0.01 with 8 degrees of freedom, 3 seeds of each.
    right = 2 * student.sf(0.2 / (0.01 * (2 / 3) ** 0.5), 8)
    assert one.difference == pytest.approx(0.2) and one.p >= right and one.p <= 6 * right
    same = [row(name, seed, 0.5) for name in "ab" for seed in range(2)]
    [equal] = table.pairs(same, "stories", "words, 5 features", "ab")
    assert equal.p == 1 and not equal.apart
    with pytest.raises(ValueError, match="1 have two seeds"):
        table.pairs(rows, "stories", "words, 5 features", ["base", "once"])


def test_pairs_by_the_spread_of_either():
    levels = {"wide": (0.5, 0.7, 0.9), "near": (0.600, 0.601, 0.602), "far": (0.610, 0.611, 0.612)}
    rows = [row(name, seed, level) for name, of in levels.items() for seed, level in enumerate(of)]

    def told(own):
        found = table.pairs(rows, "stories", "words, 5 features", levels, own_spread=own)
        return {(one.one, one.other) for one in found if one.apart}

    assert told(True) == {("near", "far")} and told(False) == set(), "one wide spread hides all differences"


def test_pairs_of_what_is_alike_are_seldom_told_apart():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        rows = [row(name, seed, 0.6 + 0.05 * rng.standard_normal()) for name in "abcde" for seed in range(3)]
        wrong += any(one.apart for one in table.pairs(rows, "stories", "words, 5 features", "abcde"))
    assert 0 < wrong / 200 < 0.09, "Holm keeps 5 % for all pairs together"


def test_agreement_knows_one_order_from_another():
    levels = {"a": 0.2, "b": 0.4, "c": 0.6, "d": 0.8}
    rows = [
        row(m, seed, level, fvu=level) for m, level in levels.items() for seed in (0, 1)
    ]  # less explained, more told
    found = table.agreement(rows, "stories", list(levels))
    assert tuple(found) == table.TASKS and table.EXPLAINED not in found
    for one in found.values():
        assert one.between_seeds == pytest.approx(1) and one.with_explained == pytest.approx((-1, -1, -1))
    turned = [row(m, 0, x) for m, x in levels.items()] + [row(m, 1, 1 - x, fvu=1 - x) for m, x in levels.items()]
    one = table.agreement(turned, "stories", list(levels))["words, 5 features"]
    assert one.between_seeds == pytest.approx(-1), "seeds that contradict each other"
    assert one.with_explained == pytest.approx((0, -1, 1)), "the first goes with what is explained, the second against"
    with pytest.raises(ValueError, match="'a' has 1 seeds on 'stories'"):
        table.agreement(turned[:4], "stories", list(levels))


def test_without_an_sae_one_direction_is_taken_away_and_books_are_no_words():
    bare = row("dense", 0, 0.5, perturbation={"1": {"a": 0.4}}, removal={"1": {"a": 0.7}})
    assert table.scores([bare], "stories", "dense", "one property removed")[0].tolist() == [pytest.approx(0.4)]
    assert table.scores([bare], "stories", "dense", "the spurious one removed")[0].tolist() == [pytest.approx(0.7)]
    asked = row("one", 0, 0.5, probing={"1": {"a": 0.9, "book: a": 0.3}, "5": {"a": 0.8, "book: a": 0.2}})
    for measure, value in (("words, 1 feature", 0.9), ("words, 5 features", 0.8), ("books, 5 features", 0.2)):
        assert table.scores([asked], "stories", "one", measure)[0].tolist() == [pytest.approx(value)]


def test_absorption_comes_with_the_f1_of_what_stands_for_the_property():
    rows = [row("one", 0, 0.7), row("one", 1, 0.4), row("bare", 0, 0.9, model="smollm2"), row("other", 0, 0.9)]
    found = table.absorbed(rows, "stories", ["one", "bare"])
    assert found == {"a": [table.Absorbed(0.7, 0.02, 0.1), table.Absorbed(0.4, 0.02, 0.1)]}
    assert table.absorbed(rows, "stories", ["one"], least=2) == {}, "in one of two main features stand for it"


def test_what_a_swap_changes_and_leaves():
    rows = [row("one", 0, 0.5), row("one", 1, 0.7)]
    found = table.swapped(rows, "stories", "one", 10)
    assert found.cause == pytest.approx((0.65, 0.55, 0.75)) and found.isolation == pytest.approx((0.55, 0.45, 0.65))
    assert found.score == pytest.approx((0.6, 0.5, 0.7))
    assert table.swapped(rows, "stories", "other", 10) is None


def test_places_are_means_over_tasks():
    rows = [row("best", 0, 0.9), row("middle", 0, 0.5), row("alike", 0, 0.5), row("worst", 0, 0.1, fvu=0.0)]
    found = table.places(rows, "stories", ["worst", "alike", "best", "middle"])
    assert found == {"worst": 4, "alike": 2.5, "best": 1, "middle": 2.5}, "what is explained is no task"
