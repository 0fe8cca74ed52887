"""The stub, the solution, and the mistakes that people make."""

import math

import pytest
import torch

from sae_tutorial.course.ioi_features import exercises as e

PAIRS = [
    (e.check_patch, e.solution_patch),
    (e.check_halfway, e.solution_halfway),
    (e.check_f1, e.solution_f1),
    (e.check_gain, e.solution_gain),
]


@pytest.mark.parametrize("check, solution", PAIRS)
def test_stub_and_solution(check, solution):
    assert check(solution).passed, check(solution)
    for stub in (None, lambda *args: None):
        assert not check(stub).passed and "not answered yet" in check(stub).message


@pytest.mark.parametrize("check, solution", PAIRS)
def test_exceptions_are_shown(check, solution):
    def broken(*args):
        raise RuntimeError("oh")

    assert "It stopped with RuntimeError: oh" in check(broken).message


def aliased(x, codes, wanted, directions, chosen):
    """Writes into the codes that it means to compare with, so nothing is left of the difference."""
    n = codes
    n[:, chosen] = wanted[:, chosen]
    return x + (n - codes) @ directions


def in_place(x, codes, wanted, directions, chosen):
    """Right, though it writes into everything that it is given."""
    wanted -= codes
    directions = directions.mul_(1)
    x += wanted[:, chosen] @ directions[chosen]
    return x


@pytest.mark.parametrize(
    "check, answer",
    [
        (e.check_patch, in_place),
        (e.check_f1, lambda a, h: 2 * float((a & h).sum()) / (float(a.sum() + h.sum()) + 1e-8)),
        (e.check_f1, lambda a, h: float((2 * (a & h).sum() + 1e-8) / (a.sum() + h.sum() + 1e-8))),
        (e.check_gain, lambda r, p: max(0.0, r - p / 2) ** 2 + 1e-9),
    ],
)
def test_other_right_answers(check, answer):
    assert check(answer).passed, check(answer)


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda x, c, w, d, f: torch.cat([c[:, f], w[:, f]], 1)[:, :0] @ d[:0] + c @ d, "what it leaves out is lost"),
        (lambda x, c, w, d, f: x + (c - w)[:, f] @ d[f], "leads away"),
        (lambda x, c, w, d, f: x + (w - c) @ d if f else x, "only those in `chosen`"),
        (lambda x, c, w, d, f: x + w[:, f] @ d[f], "the old part of the feature must go"),
        (lambda x, c, w, d, f: x + 1, "must stay as it is"),
        (lambda x, c, w, d, f: aliased(x, c, w, d, f), "`n = codes` does not copy"),
    ],
)
def test_patch_mistakes(answer, complaint):
    assert complaint in e.check_patch(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda n, kl: next((a for a, b in zip(n, kl) if b < kl[0] / 2), math.inf), "exactly half counts"),
        (lambda n, kl: max(n), "half is reached with 4"),
        (lambda n, kl: next((a for a, b in zip(n, kl) if b <= max(kl) / 2), math.inf), "the first loss is the measure"),
        (lambda n, kl: next((a for a, b in zip(n, kl) if b <= kl[0] / 2), n[-1]), "never gets there"),
    ],
)
def test_halfway_mistakes(answer, complaint):
    assert complaint in e.check_halfway(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda a, h: float((a & h).sum() / a.sum()), "that is the precision"),
        (lambda a, h: float((a & h).sum() / h.sum()), "that is the recall"),
        (lambda a, h: 2 * int((a & h).sum()) / int(a.sum() + h.sum()) if (a & h).any() else 1, "a silent feature"),
    ],
)
def test_f1_mistakes(answer, complaint):
    assert complaint in e.check_f1(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda r, p: r**2, "still a price to pay"),
        (lambda r, p: r**2 - p * r, "the best code is smaller"),
        (lambda r, p: (r - p / 2) ** 2, "silence is cheapest"),
        (lambda r, p: max(0, r - 0.5) ** 2, "a search over codes"),
    ],
)
def test_gain_mistakes(answer, complaint):
    assert complaint in e.check_gain(answer).message
