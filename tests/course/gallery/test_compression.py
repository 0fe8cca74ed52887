"""Exercises of the gallery's notebooks on compression."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import compression


def test_the_solution_for_shares_passes():
    assert compression.check_shares(compression.solution_shares)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda r: 0.5, "for each of the columns"),
        (lambda r: [(j + 1) / r for j in range(r)], "other way round"),
        (lambda r: [1 / r] * r, "how often b is each number"),
        (lambda r: [1.0] * r, "only where b is largest"),
        (lambda r: [(r - j - 1) / r for j in range(r)], "counts from 0"),
        (lambda r: [r - j for j in range(r)], "not their share"),
        (lambda r: [0.5**j for j in range(r)], "yours says"),
    ],
)
def test_wrong_shares_are_told_why(answer, words):
    said(compression.check_shares(answer), words)


def test_the_solution_for_student_passes():
    assert compression.check_student(compression.solution_student)


def student(step, first=True):
    def answer(x, W_in, blocks, W_out, width):
        cut = slice(width) if first else slice(-width, None)
        h = x @ W_in[:, cut]
        for W, b in blocks:
            h = step(h, h @ W[cut, cut], b[cut])
        return h @ W_out[cut]

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda x, W_in, blocks, W_out, width: x @ W_in[:, :width], "for each of the inputs"),
        (lambda x, W_in, blocks, W_out, width: compression.solution_student(x, W_in, blocks, W_out, 6), "the large"),
        (student(lambda h, y, b: h + torch.tanh(y + b), first=False), "the last rows"),
        (student(lambda h, y, b: torch.tanh(y + b)), "adds"),
        (student(lambda h, y, b: h + y + b), "tanh is missing"),
        (student(lambda h, y, b: h + torch.tanh(y) + b), "inside of the tanh"),
        (student(lambda h, y, b: h + torch.tanh(y)), "b is missing"),
        (student(lambda h, y, b: torch.tanh(h + y + b)), "stays outside"),
        (student(lambda h, y, b: h), "blocks are missing"),
        (student(lambda h, y, b: h + torch.sigmoid(y + b)), "yours says"),
    ],
)
def test_wrong_students_are_told_why(answer, words):
    said(compression.check_student(answer), words)


def test_the_solution_for_mask_passes():
    assert compression.check_mask(compression.solution_mask)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda w, kept: w.abs().topk(3).indices, "for each weight"),
        (lambda w, kept: (w >= w.topk(3).values[..., -1:]).float(), "with their sign"),
        (lambda w, kept: (w.abs() <= 0.22).float(), "the smallest"),
        (lambda w, kept: compression.solution_mask(w, 1 - kept), "the share that is cut"),
        (lambda w, kept: 1 - compression.solution_mask(w, kept), "exchanged"),
        (lambda w, kept: w * compression.solution_mask(w, kept), "not the weight itself"),
        (lambda w, kept: (w.abs() > kept * w.abs().max()).float(), "of the largest weight"),
        (lambda w, kept: (w.abs() > 0.45).float(), "should stay"),
    ],
)
def test_wrong_masks_are_told_why(answer, words):
    said(compression.check_mask(answer), words)


def test_the_solution_for_sparse_passes():
    assert compression.check_sparse(compression.solution_sparse)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda w, mask: (w * mask).sum(), "for each weight"),
        (lambda w, mask: w * mask, "can never come back"),
        (lambda w, mask: (w * mask).detach(), "nothing gets a gradient"),
        (lambda w, mask: w, "w itself"),
        (lambda w, mask: w * mask + w - w.detach(), "twice"),
        (lambda w, mask: w * (mask + w - w.detach()), "multiplied by w"),
        (lambda w, mask: w + (mask - w).detach(), "added, not multiplied"),
        (lambda w, mask: compression.solution_sparse(w, 1 - mask), "exchanged"),
        (lambda w, mask: 2 * compression.solution_sparse(w, mask), "yours uses"),
    ],
)
def test_wrong_sparse_weights_are_told_why(answer, words):
    said(compression.check_sparse(answer), words)
