"""The exercises on transcoders: solutions pass, and the likeliest mistakes are told what they are."""

import numpy as np
import pytest
import torch
from verdicts import said

from sae_tutorial.course.transcoders import exercises

FVU = {"SAE": 0.2, "transcoder": 0.25}


def test_the_solutions_pass():
    assert exercises.check_leaves_more("transcoder", FVU)
    assert exercises.check_attribution(exercises.solution_attribution)
    assert exercises.check_de_embedding(exercises.solution_de_embedding)
    assert exercises.check_path(exercises.solution_path)


def test_other_ways_to_the_same_numbers_pass():
    assert exercises.check_attribution(lambda z, W, r, s: np.asarray(z) * (W.numpy() @ (r - r.mean()).numpy()) / s)
    assert exercises.check_attribution(lambda z, W, r, s: [float(a * ((w - w.mean()) @ r) / s) for a, w in zip(z, W)])
    assert exercises.check_de_embedding(lambda E, enc, dec, f: (E @ enc)[:, f])

    def forwards(E, heads, r):
        for v, o in heads:
            E = E @ v @ o
        return E.numpy() @ r.numpy()

    assert exercises.check_path(forwards)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        ("neither", "one of"),
        (3, "one of"),
        ("SAE", "the other one has more"),
    ],
)
def test_which_leaves_more(answer, words):
    said(exercises.check_leaves_more(answer, FVU), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda z, W, r, s: None, "not answered"),
        (lambda z, W, r, s: z @ W @ r / s, "summed over them"),
        (lambda z, W, r, s: z @ W, "each coordinate"),
        (lambda z, W, r, s: z[:, None] * W, "dot product with `reads`"),
        (lambda z, W, r, s: z * (W @ r) / s, "subtracts the stream's mean"),
        (lambda z, W, r, s: z * (W @ r), "`scale` and the mean"),
        (lambda z, W, r, s: W @ (r - r.mean()) / s, "the same for every text"),
        (lambda z, W, r, s: z * (W @ (r - r.mean())), "where is `scale`"),
        (lambda z, W, r, s: W @ (r - r.mean()), "without the code and without the scale"),
        (lambda z, W, r, s: z * (W @ (r - r.mean())) * s, "you multiply"),
        (lambda z, W, r, s: (z * (W @ (r - r.mean())) / s).relu(), "cut nothing off"),
        (lambda z, W, r, s: (z > 0) * (W @ (r - r.mean())) / s, "0 or 1"),
        (lambda z, W, r, s: 2 * z * (W @ r) / s, "yours says"),
        (lambda z, W, r, s: W @ W, "stopped with"),
    ],
)
def test_attribution_is_told_what_is_wrong(answer, words):
    said(exercises.check_attribution(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (exercises.de_embedding_with_a_bug, "*writes*"),
        (lambda E, enc, dec, f: E @ enc, "take the one feature"),
        (lambda E, enc, dec, f: E @ enc[f], "you took a row"),
        (lambda E, enc, dec, f: E @ dec[:, f], "a column of it"),
        (lambda E, enc, dec, f: (E @ enc[:, f]).relu(), "cut nothing off"),
        (lambda E, enc, dec, f: 2 * E @ enc[:, f], "yours says"),
        (lambda E, enc, dec, f: torch.zeros(3), "return a number for each token"),
    ],
)
def test_de_embedding_is_told_what_is_wrong(answer, words):
    said(exercises.check_de_embedding(answer), words)


def through(*changes):
    """What `solution_path` says with the heads changed."""

    def answer(E, heads, r):
        for change in changes:
            heads = change(heads)
        return exercises.solution_path(E, heads, r)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda E, heads, r: E @ heads[0][0] @ heads[0][1], "dot product with `reads`"),
        (lambda E, heads, r: r @ heads[0][1], "return a number for each token"),
        (lambda E, heads, r: E @ r, "where are the heads"),
        (through(lambda heads: heads[::-1]), "where the first one wrote"),
        (through(lambda heads: heads[:1]), "the first head alone"),
        (through(lambda heads: heads[-1:]), "the last head alone"),
        (through(lambda heads: [(o, v) for v, o in heads]), "other way round"),
        (through(lambda heads: [(v.T, o.T) for v, o in heads]), "transposed"),
        (lambda E, heads, r: sum(E @ v @ o @ r for v, o in heads), "they follow each other"),
        (lambda E, heads, r: exercises.solution_path(E, heads, r).relu(), "cut nothing off"),
        (lambda E, heads, r: 2 * exercises.solution_path(E, heads, r), "yours says"),
        (through(lambda heads: heads[:2]), "not for three"),
        (lambda E, heads, r: E @ torch.ones(3), "stopped with"),
    ],
)
def test_paths_are_told_what_is_wrong(answer, words):
    said(exercises.check_path(answer), words)
