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
    assert exercises.check_through_a_head(exercises.solution_through_a_head)


def test_other_ways_to_the_same_numbers_pass():
    assert exercises.check_attribution(lambda z, W, r, s: np.asarray(z) * (W.numpy() @ r.numpy()) / s)
    assert exercises.check_attribution(lambda z, W, r, s: [float(a * (w @ r) / s) for a, w in zip(z, W)])
    assert exercises.check_de_embedding(lambda E, enc, dec, f: (E @ enc)[:, f])
    assert exercises.check_through_a_head(lambda E, v, o, r: (E @ v @ o).numpy() @ r.numpy())


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
        (lambda z, W, r, s: W @ r / s, "the same for every text"),
        (lambda z, W, r, s: z * (W @ r), "where is `scale`"),
        (lambda z, W, r, s: W @ r, "without the code and without the scale"),
        (lambda z, W, r, s: z * (W @ r) * s, "you multiply"),
        (lambda z, W, r, s: (z * (W @ r) / s).relu(), "cut nothing off"),
        (lambda z, W, r, s: (z > 0) * (W @ r) / s, "0 or 1"),
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


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda E, v, o, r: None, "not answered"),
        (lambda E, v, o, r: E @ v @ o, "dot product with `reads`"),
        (lambda E, v, o, r: r @ o, "return a number for each token"),
        (lambda E, v, o, r: E @ r, "where is the head"),
        (lambda E, v, o, r: E @ o @ v @ r, "other way round"),
        (lambda E, v, o, r: E @ v.T @ o @ r, "W_V takes the stream"),
        (lambda E, v, o, r: E @ v @ o.T @ r, "W_O takes the head back"),
        (lambda E, v, o, r: E @ v, "inside for each token"),
        (lambda E, v, o, r: E @ o @ r, "where is W_V"),
        (lambda E, v, o, r: E @ (v @ o).T @ r, "forwards through the head"),
        (lambda E, v, o, r: E @ v.T @ o.T @ r, "both matrices"),
        (lambda E, v, o, r: E @ v @ r, "inside the head"),
        (lambda E, v, o, r: (E @ v @ o @ r).relu(), "cut nothing off"),
        (lambda E, v, o, r: 2 * E @ v @ o @ r, "yours says"),
        (lambda E, v, o, r: v @ torch.ones(3), "stopped with"),
    ],
)
def test_through_a_head_is_told_what_is_wrong(answer, words):
    said(exercises.check_through_a_head(answer), words)
