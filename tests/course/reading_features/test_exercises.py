"""Solutions pass, and the likeliest mistakes get the right diagnosis."""

from collections import defaultdict

import numpy as np
import pytest

from sae_tutorial.course.reading_features import exercises


@pytest.mark.parametrize(
    ("guess", "passed", "said"),
    [
        (0.11, True, "11%"),
        (0.2, True, "11%"),
        (0.69, False, "less than that"),
        (0.0, False, "more than that"),
        (12, False, "write 0.12 for 12%"),
        (-1, False, "from 0 to 1"),
        ("many", False, "a number"),
        (True, False, "a number"),
    ],
)
def test_the_guess(guess, passed, said):
    measured = 0.11 if guess != 0.0 else 0.15
    verdict = exercises.check_weak_matches(guess, measured)
    assert verdict.passed == passed and said in verdict.message


def test_stubs_are_not_answers():
    assert "not answered" in exercises.check_weak_matches(None, 0.1).message
    for check in (exercises.check_token_table, exercises.check_own_score):
        assert "not answered" in check(lambda passages: None).message


# ---------------------------------------------------------------------- the table


def gathered(passages):
    found = defaultdict(list)
    for tokens, activations in passages:
        for token, activation in zip(tokens, activations):
            found[token].append(activation)
    return found


def flat(passages):
    tokens = np.array([t for tokens, _ in passages for t in tokens])
    acts = np.array([a for _, acts in passages for a in acts])
    return {int(t): acts[tokens == t].mean() for t in np.unique(tokens)}


def without_zeros(passages):
    return {t: np.mean([v for v in values if v > 0] or [0]) for t, values in gathered(passages).items()}


def of_the_first(passages):
    return {t: np.mean(v) for t, v in gathered(passages[:1]).items()} if passages else {}


def mean_of_means(passages):
    each = defaultdict(list)
    for passage in passages:
        for token, values in gathered([passage]).items():
            each[token].append(np.mean(values))
    return {token: np.mean(values) for token, values in each.items()}


def running(passages):
    found = {}
    for tokens, activations in passages:
        for token, a in zip(tokens, activations):
            found[token] = (found[token] + a) / 2 if token in found else a
    return found


def by_all(passages):
    n = sum(len(tokens) for tokens, _ in passages)
    return {t: sum(v) / n for t, v in gathered(passages).items()}


def nonzero_only(passages):
    return {t: v for t, v in exercises.solution_token_table(passages).items() if v > 0}


@pytest.mark.parametrize("answer", [exercises.solution_token_table, flat, nonzero_only])
def test_right_tables(answer):
    assert exercises.check_token_table(answer)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (without_zeros, "left the zeros out"),
        (lambda p: {t: sum(v) for t, v in gathered(p).items()}, "those are sums"),
        (lambda p: {t: max(v) for t, v in gathered(p).items()}, "largest activation"),
        (of_the_first, "first passage alone"),
        (mean_of_means, "mean of the means"),
        (lambda p: {t: a for tokens, acts in p for t, a in zip(tokens, acts)}, "you overwrite"),
        (running, "the mean of the mean so far"),
        (by_all, "number of all tokens"),
        (lambda p: [1.0], "return a dictionary"),
        (lambda p: {"3": 2.0}, "your dictionary has '3'"),
        (lambda p: {3: 2.0}, "token 7 is missing"),
        (lambda p: {3: 4.5, 7: 1.0}, "its mean is 2; you say 4.5"),
    ],
)
def test_wrong_tables(answer, said):
    verdict = exercises.check_token_table(answer)
    assert not verdict and said in verdict.message, verdict.message


# ---------------------------------------------------------------------- the score


def scored(shown, tests):
    table = exercises.solution_token_table(shown)
    said = [table.get(t, 0) for tokens, _ in tests for t in tokens]
    real = [a for _, acts in tests for a in acts]
    return np.corrcoef(said, real)[0, 1]


def skipping(p):
    table = exercises.solution_token_table(p[::2])
    pairs = [(table[t], a) for tokens, acts in p[1::2] for t, a in zip(tokens, acts) if t in table]
    return np.corrcoef(np.array(pairs).T)[0, 1]


def stopping(p):
    table = exercises.solution_token_table(p[::2])
    pairs = [(table[t], a) for tokens, acts in p[1::2] for t, a in zip(tokens, acts)]
    return np.corrcoef(np.array(pairs).T)[0, 1]


def test_the_right_score():
    assert exercises.check_own_score(exercises.solution_own_score)
    assert exercises.check_own_score(lambda p: scored(p[::2], p[1::2]))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (exercises.own_score_with_a_bug, "still predicts what it was made from"),
        (lambda p: scored(p[1::2], p[1::2]), "for both purposes"),
        (lambda p: scored(p[::2], p[::2]), "for both purposes"),
        (lambda p: scored(p[1::2], p[::2]), "the task asks for the reverse"),
        (lambda p: scored(p[: len(p) // 2], p[len(p) // 2 :]), "a first and a second half"),
        (lambda p: scored(p[::2], p), "you test on all passages"),
        (skipping, "you skip it"),
        (stopping, "stops it: predict 0 there"),
        (lambda p: 0.5, "without any rule"),
        (lambda p: np.zeros((2, 2)), "return one number"),
    ],
)
def test_wrong_scores(answer, said):
    verdict = exercises.check_own_score(answer)
    assert not verdict and said in verdict.message, verdict.message


def test_the_bug_shows_in_noise_alone():
    rng = np.random.default_rng(1)
    noise = [(rng.integers(40, size=12).tolist(), rng.random(12).tolist()) for _ in range(40)]
    assert exercises.own_score_with_a_bug(noise) > 0.2 > abs(exercises.solution_own_score(noise))
