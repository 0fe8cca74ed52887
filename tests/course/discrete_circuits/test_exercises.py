"""The exercises on discrete circuits: solutions pass, and the likeliest mistakes are told what they are."""

import numpy as np
import pytest
from verdicts import said

from sae_tutorial.circuits.discrete import node_scores
from sae_tutorial.course.discrete_circuits import exercises


def by_numpy(codes, positive):
    codes, positive = codes.numpy(), positive.numpy()
    return [len(np.setdiff1d(codes[positive, h], codes[~positive, h])) for h in range(codes.shape[1])]


def test_the_solutions_pass():
    assert exercises.check_score(exercises.solution_score)
    assert exercises.check_score(node_scores) and exercises.check_score(by_numpy)
    assert exercises.check_shuffled(0.85, 0.87)
    assert exercises.check_area(exercises.solution_area)


def by_pairs(scores, members):
    gaps = scores[members][:, None] - scores[~members]
    return ((gaps > 0) + 0.5 * (gaps == 0)).float().mean()


def test_another_way_to_the_same_area_passes():
    assert exercises.check_area(by_pairs)


def ours(codes, positive, h):
    return codes[positive, h].tolist()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda c, p: None, "not answered"),
        (lambda c, p: len(set(ours(c, p, 0)) - set(ours(c, ~p, 0))), "one number for each of 3 heads"),
        (lambda c, p: [sum(x not in ours(c, ~p, h) for x in ours(c, p, h)) for h in range(3)], "counts once"),
        (lambda c, p: node_scores(c, ~p), "the other way round"),
        (lambda c, p: [len(set(ours(c, p, h))) for h in range(3)], "take away those that a negative has"),
        (lambda c, p: [len(set(c[:, h].tolist())) for h in range(3)], "all codes there are"),
        (lambda c, p: [len(set(ours(c, p, h))) - len(set(ours(c, ~p, h))) for h in range(3)], "subtract the sets"),
        (lambda c, p: [len(set(ours(c, p, h)) ^ set(ours(c, ~p, h))) for h in range(3)], "count only the positives'"),
        (lambda c, p: [len(set(c[p, h]) - set(c[~p, h])) for h in range(3)], ".tolist()"),
        (lambda c, p: [len(set(one[p].tolist())) for one in c], "codes.T"),
        (lambda c, p: [len(set(one[:3].tolist()) - set(one[3:].tolist())) for one in c.T], "the first half"),
        (lambda c, p: len(set(c[p].tolist()) - set(c[~p].tolist())), "one column of it at a time"),
        (lambda c, p: [set(ours(c, p, h)) - set(ours(c, ~p, h)) for h in range(3)], "not the sets"),
        (lambda c, p: [len(set(ours(c, p, h)) & set(ours(c, ~p, h))) for h in range(3)], "both kinds have"),
        (lambda c, p: [s / len(set(ours(c, p, h))) for h, s in enumerate(node_scores(c, p))], "a share of"),
        (lambda c, p: sum((a != b).long() for a, b in zip(c[p], c[~p])), "no negative example at all"),
        (lambda c, p: [len(set(ours(c, p, h)) - set(ours(c, not p, h))) for h in range(3)], "~positive"),
        (lambda c, p: node_scores(c, p, share=True), "a share of all the head's codes"),
        (lambda c, p: (len(set(ours(c, p, h)) - set(ours(c, ~p, h))) for h in range(3)), "of type generator"),
        (lambda c, p: {h: 1 for h in range(3)}, "of type dict"),
        (lambda c, p: [0, 0, 7], "yours says"),
        (lambda c, p: c.T[9], "IndexError"),
    ],
)
def test_wrong_scores_are_told_why(answer, words):
    said(exercises.check_score(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (exercises.area_with_a_bug, "as if the head of the circuit were ahead"),
        (lambda s, m: (s[m][:, None] > s[~m]).float().mean(), "as if the other head were ahead"),
        (lambda s, m: (s[m] > s[~m]).float().mean(), "in all pairs"),
        (lambda s, m: by_pairs(s, ~m), "the wrong head is ahead"),
        (lambda s, m: (s[m][:, None] - s[~m]).sign().mean(), "counts 0, not -1"),
        (lambda s, m: s[m][:, None] > s[~m], "return one number"),
        (lambda s, m: 0.5, "yours says 0.50"),
    ],
)
def test_wrong_areas_are_told_why(answer, words):
    said(exercises.check_area(answer), words)


@pytest.mark.parametrize(
    ("guess", "words"),
    [(None, "not answered"), (80, "write 0.8"), (0.5, "equally many things"), (0.6, "more"), (1, "less")],
)
def test_guesses_are_told_where_they_lie(guess, words):
    said(exercises.check_shuffled(guess, 0.87), words)
