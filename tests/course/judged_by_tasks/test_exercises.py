"""The exercises on SAEs judged by tasks: solutions pass, and the likeliest mistakes are told what they are."""

import pytest
from verdicts import said

from sae_tutorial.course.judged_by_tasks import exercises


def test_the_solutions_pass():
    assert exercises.check_choice(exercises.solution_choice)
    assert exercises.check_absorption(exercises.solution_absorption)
    assert exercises.check_swap(exercises.solution_swap)
    assert exercises.check_rank_correlation(0.2, 0.1)


def test_other_ways_to_the_same_answers_pass():
    def by_loop(codes, label, k):
        gaps = [abs(float(one[label].mean() - one[~label].mean())) for one in codes.T]
        return sorted(range(len(gaps)), key=lambda f: gaps[f])[-k:]

    assert exercises.check_choice(by_loop)
    assert exercises.check_absorption(
        lambda m, s, c: sum(a == 0 and b >= 0.4 and d >= 0.025 for a, b, d in zip(m, s, c)) / len(m)
    )

    def by_new_codes(x, codes, other, features, W_dec):
        error, codes = x - codes @ W_dec, codes.clone()
        codes[features] = other[features]
        return codes @ W_dec + error

    assert exercises.check_swap(by_new_codes)
    assert exercises.check_rank_correlation(-1, -0.9)
    assert exercises.check_choice(lambda z, y, k: gap(z, y).abs().topk(k)), "values and indices"


def gap(codes, label):
    return codes[label].mean(0) - codes[~label].mean(0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda z, y, k: None, "not answered"),
        (lambda z, y, k: gap(z, y), "one entry for each of all 6"),
        (lambda z, y, k: gap(z, y).abs().topk(1).indices, "numbers of 2 features"),
        (lambda z, y, k: gap(z, y).abs().topk(k).values, "their indices"),
        (lambda z, y, k: z[y].mean(0).topk(k).indices, "a large mean is not enough"),
        (lambda z, y, k: gap(z, y).topk(k).indices, "against"),
        (lambda z, y, k: (z[y].sum(0) - z[~y].sum(0)).abs().topk(k).indices, "take means"),
        (lambda z, y, k: gap(z, y).abs().argsort()[:k], "differ least"),
        (lambda z, y, k: gap((z > 0).float(), y).abs().topk(k).indices, "how reliably"),
        (lambda z, y, k: (gap(z, y).abs() / (z.std(0) + 1e-6)).topk(k).indices, "how reliably"),
        (lambda z, y, k: z[y].amax(0).topk(k).indices, "one example is no evidence"),
        (lambda z, y, k: [0, 4], "yours are"),
        (lambda z, y, k: z[:, 9], "IndexError"),
    ],
)
def test_wrong_choices_are_told_why(answer, words):
    said(exercises.check_choice(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (exercises.absorption_with_a_bug, "of all words"),
        (lambda m, s, c: (m == 0).float().mean(), "is a miss"),
        (lambda m, s, c: (m == 0) & (s >= 0.4), "one number"),
        (lambda m, s, c: ((s >= 0.4) & (c >= 0.025)).float().mean(), "where the main feature is active"),
        (lambda m, s, c: ((m == 0) & (s >= 0.4)).float().mean(), "its direction must be"),
        (lambda m, s, c: ((m == 0) & (c >= 0.025)).float().mean(), "taken nothing over"),
        (lambda m, s, c: ((m == 0) & (s > 0.4) & (c >= 0.025)).float().mean(), "exactly 0.4"),
        (lambda m, s, c: ((m == 0) & (s >= 0.4) & (c > 0)).float().mean(), "above 0 is not enough"),
        (lambda m, s, c: ((m == 0) & (s >= 0.4) & (c >= 0.4)).float().mean(), "another cosine"),
        (lambda m, s, c: ((m == 0) & (s >= 0.4) & (c >= 0.025)).sum(), "not their share"),
        (lambda m, s, c: ((s >= 0.4) & (c >= 0.025))[m == 0].float().mean(), "of all words"),
        (lambda m, s, c: 0.9, "yours says"),
    ],
)
def test_wrong_measures_of_absorption_are_told_why(answer, words):
    said(exercises.check_absorption(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda x, z, o, f, W: o[f], "return an activation"),
        (lambda x, z, o, f, W: z.index_copy(0, f, o[f]) @ W, "has gone, too"),
        (lambda x, z, o, f, W: x + o[f] @ W[f], "not taken away"),
        (lambda x, z, o, f, W: x - z[f] @ W[f], "are not there"),
        (lambda x, z, o, f, W: x + (z - o)[f] @ W[f], "wrong way"),
        (lambda x, z, o, f, W: x + (o - z) @ W, "all features are swapped"),
        (lambda x, z, o, f, W: (o - z)[f] @ W[f], "add it to x"),
        (lambda x, z, o, f, W: x + (o - z)[f] @ W[: len(f)], "rows of `W_dec`"),
        (lambda x, z, o, f, W: x + o @ W, "all features of the other"),
        (lambda x, z, o, f, W: o @ W, "change x"),
        (lambda x, z, o, f, W: z.copy_(o) @ W, "`codes` itself"),
        (lambda x, z, o, f, W: 2 * x, "expected"),
    ],
)
def test_wrong_swaps_are_told_why(answer, words):
    said(exercises.check_swap(answer), words)


@pytest.mark.parametrize(
    ("guess", "words"),
    [(None, "not answered"), (30, "from −1 to 1"), ("high", "from −1 to 1"), (0.9, "lower"), (-0.5, "higher")],
)
def test_guesses_at_a_correlation_are_told_where_they_lie(guess, words):
    said(exercises.check_rank_correlation(guess, 0.2), words)
