"""The stub, the solution, and the mistakes that people make."""

import math

import pytest
import torch

from sae_tutorial.course.ioi_features import exercises as e
from sae_tutorial.course.ioi_features.feature_order import Stages, thin_out

PAIRS = [
    (e.check_patch, e.solution_patch),
    (e.check_halfway, e.solution_halfway),
    (e.check_thin_out, e.solution_thin_out),
    (e.check_best_feature, e.solution_best_feature),
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


def crossing(n, kl, strictly=False, last=False):
    """The solution, and two ways to miss it."""
    there = [b < kl[0] / 2 if strictly else b <= kl[0] / 2 for b in kl]
    firsts = [i for i in range(1, len(n)) if there[i] and not there[i - 1]]
    if not firsts:
        return math.inf
    i = firsts[-1 if last else 0]
    step = (kl[i - 1] - kl[0] / 2) / (kl[i - 1] - kl[i])
    return n[i - 1] + step * (n[i] - n[i - 1]) + 0.5 * strictly * (kl[i - 1] == kl[0] / 2)


def test_halfway_is_that_of_the_notebook():
    """The exercise teaches what `Stages.halfway` computes."""
    counts = (0, 1, 3, 7)
    loss = torch.rand(4, 30, generator=torch.Generator().manual_seed(0))
    chosen = tuple(torch.arange(8)[None] < n for n in counts[::-1])
    found, _ = Stages(torch.tensor(counts[::-1]).float(), loss.flip(0), loss.flip(0), chosen).halfway()
    assert found.tolist() == pytest.approx([e.solution_halfway(counts, one) for one in loss.T.tolist()])


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


def in_stages_of_the_package(edit, loss, sizes):
    return thin_out(edit, loss, sizes, shared=False).chosen


def sorted_out(edit, loss, sizes, at=0.5):
    """As the solution, with `argsort` for `topk`, at a point `at` of the way."""
    stages = [edit.used]
    for size in sizes:
        x = (edit.x + at * edit.added(stages[-1])).requires_grad_()
        slope = torch.autograd.grad(loss(x).sum(), x)[0]
        worth = -(edit.changes * (slope @ edit.directions.T)).sum(1)
        worth = worth.masked_fill(~stages[-1], -math.inf)
        best = worth.argsort(dim=1, descending=True)[:, :size]
        stages.append(torch.zeros_like(edit.used).scatter(1, best, True) & stages[-1])
    return stages


def chosen_and_scored(active, has, choose, score):
    f1 = lambda a, h: 2 * (a & h[:, None]).sum(0) / (a.sum(0) + h.sum())  # noqa: E731
    return float(f1(active[score], has[score])[f1(active[choose], has[choose]).argmax()])


@pytest.mark.parametrize(
    "check, answer",
    [
        (e.check_patch, in_place),
        (e.check_thin_out, in_stages_of_the_package),
        (e.check_thin_out, sorted_out),
        (e.check_best_feature, lambda a, h: chosen_and_scored(a, h, slice(200), slice(200, None))),
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
        (lambda x, c, w, d, f: x + (w - c) @ d, "even for an empty list"),
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
        (lambda n, kl: next((a for a, b in zip(n, kl) if b <= kl[0] / 2), math.inf), "4 is the first count"),
        (lambda n, kl: max(a for a, b in zip(n, kl) if b > kl[0] / 2), "not yet half"),
        (lambda n, kl: max(n), "crosses 4.0 at 3.33"),
        (lambda n, kl: crossing(n, kl, strictly=True), "exactly half counts"),
        (lambda n, kl: crossing(n, kl, last=True), "the smallest count is asked for"),
        (lambda n, kl: crossing(n, [max(kl), *kl[1:]]), "the first loss is the measure"),
        (lambda n, kl: min(crossing(n, kl), n[-1]), "never gets there"),
        (lambda n, kl: None if math.isinf(crossing(n, kl)) else crossing(n, kl), "returns None where half is never"),
    ],
)
def test_halfway_mistakes(answer, complaint):
    assert complaint in e.check_halfway(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda *it: e.solution_thin_out(*it)[1:], "before any is left out"),
        (lambda *it: [c[:1] for c in e.solution_thin_out(*it)], "5 masks of shape"),
        (lambda ed, f, sizes: e.solution_thin_out(ed, f, [5, 4, 2, 1]), "yours leave [8, 5, 4, 2, 1]"),
        (lambda *it: e.solution_thin_out(*it, at=1.0), "its slope says nothing"),
        (lambda *it: sorted_out(*it, at=1.0), "its slope says nothing"),
        (lambda *it: sorted_out(*it, at=0.0), "as if nothing were patched"),
        (lambda *it: e.solution_thin_out(*it, at=0.0), "as if nothing were patched"),
        (lambda *it: e.solution_thin_out(*it, again=False), "weigh those that are left again"),
        (lambda *it: e.solution_thin_out(*it, sign=-1), "of *most* worth were left out"),
    ],
)
def test_thin_out_mistakes(answer, complaint):
    assert complaint in e.check_thin_out(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (e.best_feature_with_a_bug, "scored where it was chosen"),
        (lambda a, h: chosen_and_scored(a, h, slice(200), slice(200)), "scored where it was chosen"),
        (lambda a, h: chosen_and_scored(a, h, slice(400), slice(200, None)), "scored where it was chosen"),
        (lambda a, h: 0.0, "feature 7"),
    ],
)
def test_best_feature_mistakes(answer, complaint):
    assert complaint in e.check_best_feature(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda r, p: r**2, "still a penalty to pay"),
        (lambda r, p: r**2 - p * r, "the best code is smaller"),
        (lambda r, p: max(0, r - p / 2), "1.5 is the best code, not what it saves"),
        (lambda r, p: max(0, r - p) ** 2, "is 1.5 and saves 2.25; you say 1"),
        (lambda r, p: (r - p / 2) ** 2, "no feature is cheapest"),
        (lambda r, p: max(0, r - 0.5) ** 2, "a search over codes"),
    ],
)
def test_gain_mistakes(answer, complaint):
    assert complaint in e.check_gain(answer).message


def test_a_feature_that_does_harm_is_left_out_first():
    def by_size(edit, loss, sizes):
        """Ranks by |worth|."""
        stages, chosen = [edit.used], edit.used
        for size in sizes:
            x = (edit.x + edit.added(chosen) / 2).requires_grad_()
            worth = (edit.changes * (torch.autograd.grad(loss(x).sum(), x)[0] @ edit.directions.T)).sum(1).abs()
            best = worth.masked_fill(~chosen, -1).topk(size, dim=1).indices
            chosen = torch.zeros_like(chosen).scatter(1, best, True) & chosen
            stages.append(chosen)
        return stages

    assert not e.check_thin_out(by_size).passed


@pytest.mark.parametrize("choose", [slice(0, None, 2), slice(280)])
def test_other_halves_are_right_too(choose):
    def other_halves(active, has):
        score = slice(1, None, 2) if choose.step else slice(280, None)
        return chosen_and_scored(active, has, choose, score)

    assert e.check_best_feature(other_halves).passed, e.check_best_feature(other_halves)
