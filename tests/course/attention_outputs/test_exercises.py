"""The exercises on attention outputs: solutions pass, and the likeliest mistakes are told what they are."""

import numpy as np
import pytest
import torch
from verdicts import said

from sae_tutorial.course.attention_outputs import exercises


def test_the_solutions_pass():
    assert exercises.check_induction_share(0.3, 0.25)
    assert exercises.check_attribution(exercises.solution_attribution)
    assert exercises.check_share(exercises.solution_share)


def by_loops(pattern, values, reads):
    table = torch.zeros_like(pattern)
    for h in range(len(pattern)):
        for s in range(pattern.shape[1]):
            table[h, s] = pattern[h, s] * values[s, h] @ reads[h]
    return table


def test_other_ways_to_the_same_table_pass():
    assert exercises.check_attribution(by_loops)
    assert exercises.check_attribution(lambda p, v, r: p.numpy() * np.einsum("shd,hd->hs", v.numpy(), r.numpy()))
    assert exercises.check_attribution(lambda p, v, r: ((p.T[..., None] * v) * r).sum(2).T)
    assert exercises.check_share(lambda parts, where: parts.relu()[:, where].sum() / parts.relu().sum())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda p, v, r: None, "not answered"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).T, "the other way round"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).sum(0), "summed over heads"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).sum(1), "summed over sources"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).sum(), "summed over both"),
        (lambda p, v, r: torch.einsum("hs,shd->hsd", p, v), "dot product"),
        (lambda p, v, r: [p[h] * (v[:, h] @ r[h]) for h in range(3)], "torch.stack"),
        (lambda p, v, r: torch.einsum("shd,hd->hs", v, r), "multiply by `pattern`"),
        (lambda p, v, r: p * v.sum(2).T, "reads one direction"),
        (lambda p, v, r: p * (v @ r[0]).T, "reads[h] for head h"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).relu(), "cut nothing off"),
        (lambda p, v, r: p * v.norm(dim=2).T, "the sign would be lost"),
        (lambda p, v, r: exercises.solution_attribution(p, v, r).flip(0), "not shared out"),
        (lambda p, v, r: p * (v * r).sum(2).view(p.shape), "turned round: .T"),
        (lambda p, v, r: 2 * exercises.solution_attribution(p, v, r), "yours says"),
        (lambda p, v, r: p * (v * r).sum(-1), "turned round"),
        (lambda p, v, r: torch.stack([p[h] * (v[h] @ r[h]) for h in range(3)]), "values[:, h]"),
    ],
)
def test_wrong_tables_are_told_why(answer, words):
    said(exercises.check_attribution(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (exercises.share_with_a_bug, "clamp the entries"),
        (lambda p, w: p[:, w].sum().clamp(min=0) / p.sum().clamp(min=0), "clamp the entries"),
        (lambda p, w: min(1.0, exercises.share_with_a_bug(p, w)), "looks like a share"),
        (lambda p, w: (p[:, w] > 0).sum() / (p > 0).sum(), "count parts"),
        (lambda p, w: (p.relu()[:, w].sum(1) / p.relu().sum(1)).mean(), "each head"),
        (lambda parts, where: parts.abs()[:, where].sum() / parts.abs().sum(), "absolute values"),
        (lambda p, w: p.sum(0).clamp(min=0)[w].sum() / p.sum(0).clamp(min=0).sum(), "add up heads first"),
        (lambda p, w: p[:, w].sum() / p.clamp(min=0).sum(), "above the line"),
        (lambda p, w: p.clamp(min=0)[:, w].sum() / p.sum(), "below the line"),
        (lambda p, w: 0.33, "you say 0.33"),
    ],
)
def test_wrong_shares_are_told_why(answer, words):
    said(exercises.check_share(answer), words)


@pytest.mark.parametrize(("guess", "words"), [(None, "not answered"), (25, "write 0.25"), (0.9, "less"), (0, "more")])
def test_guesses_are_told_where_they_lie(guess, words):
    said(exercises.check_induction_share(guess, 0.25), words)
