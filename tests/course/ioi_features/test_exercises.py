"""The stub, the solution, and the mistakes that people make."""

import math

import numpy as np
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


def mirrored(n, kl):
    """The share of the way from the wrong end."""
    i = next(i for i in range(1, len(n)) if kl[i] <= kl[0] / 2)
    return n[i - 1] + (kl[0] / 2 - kl[i]) / (kl[i - 1] - kl[i]) * (n[i] - n[i - 1])


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


def rows_exchanged(x, codes, wanted, directions, chosen):
    """Takes tokens for features."""
    new = codes.clone()
    new[chosen] = wanted[chosen]
    return x + (new - codes) @ directions


def one_feature(x, codes, wanted, directions, one):
    """What is left of a loop that returns at its first feature, or begins again from x at the last."""
    return x + (wanted - codes)[:, one] @ directions[one]


def in_place(x, codes, wanted, directions, chosen):
    """Right, though it writes into everything that it is given."""
    wanted -= codes
    directions = directions.mul_(1)
    x += wanted[:, chosen] @ directions[chosen]
    return x


def in_stages_of_the_package(edit, loss, sizes):
    return thin_out(edit, loss, sizes, shared=False).chosen


def weighed(edit, loss, at=0.5, chosen=None, weigh=None, half_of_all=False):
    """(prompts, features), written out by hand; `weigh` takes changes, slopes along directions and their gradient."""
    start = edit.x * at if half_of_all else edit.x
    x = (start + at * edit.added(chosen)).requires_grad_()
    along = torch.einsum("bpd,fd->bpf", torch.autograd.grad(loss(x).sum(), x)[0], edit.directions)
    return weigh(edit.changes, along) if weigh else -(edit.changes * along).sum(1)


def summed_after_the_mask(edit, loss, sizes):
    """One order for all prompts, in which −inf of one is −inf of all."""
    stages = [edit.used]
    for size in sizes:
        worth = weighed(edit, loss, chosen=stages[-1]).masked_fill(~stages[-1], -math.inf).sum(0)
        best = worth.topk(size).indices.expand(len(edit.used), -1)
        stages.append(torch.zeros_like(edit.used).scatter(1, best, True) & stages[-1])
    return stages


def in_numpy(x, codes, wanted, directions, chosen):
    """Right, in float64."""
    mask = np.zeros(codes.shape[1])
    mask[chosen] = 1
    return x.numpy() + ((wanted - codes).numpy() * mask) @ directions.numpy()


def times_a_row(x, codes, wanted, directions, chosen):
    for j in chosen:
        x = x + (wanted[:, j] - codes[:, j]) * directions[j]
    return x


def sorted_out(edit, loss, sizes, **how):
    """As the solution, with `argsort` for `topk`."""
    stages = [edit.used]
    for size in sizes:
        worth = weighed(edit, loss, chosen=stages[-1], **how).masked_fill(~stages[-1], -math.inf)
        best = worth.argsort(dim=1, descending=True)[:, :size]
        stages.append(torch.zeros_like(edit.used).scatter(1, best, True) & stages[-1])
    return stages


def left_out_one_by_one(edit, loss, sizes):
    """As the solution, in numpy, with a loop over prompts; masks as 0 and 1."""
    stages = [edit.used.numpy().astype(int)]
    for size in sizes:
        worth = weighed(edit, loss, chosen=torch.tensor(stages[-1]).bool()).detach().numpy()
        kept = np.zeros_like(stages[-1])
        for row, (mine, left) in enumerate(zip(worth, stages[-1])):
            there = np.flatnonzero(left)
            kept[row, there[np.argsort(-mine[there])[:size]]] = 1
        stages.append(kept)
    return np.stack(stages)


def from_the_end(edit, loss, sizes):
    """Right until nothing is to be left."""
    stages = [edit.used]
    for size in sizes:
        worth = weighed(edit, loss, chosen=stages[-1]).masked_fill(~stages[-1], -math.inf)
        best = worth.argsort(dim=1)[:, -size:]
        chosen = torch.zeros_like(edit.used).scatter(1, best, True)
        stages.append(chosen & stages[-1] if size else chosen)
    return stages


def minus_last(edit, loss, sizes):
    """The minus of the worth comes after the mask, and makes +inf of its −inf."""
    stages = [edit.used]
    for size in sizes:
        worth = -(-weighed(edit, loss, chosen=stages[-1])).masked_fill(~stages[-1], -math.inf)
        best = worth.topk(size, dim=1).indices
        stages.append(torch.zeros_like(edit.used).scatter(1, best, True) & stages[-1])
    return stages


def left_out_at_zero(edit, loss, sizes):
    """What was left out has a worth of 0, and so comes before what does harm."""
    stages = [edit.used]
    for size in sizes:
        best = (weighed(edit, loss, chosen=stages[-1]) * stages[-1]).topk(size, dim=1).indices
        stages.append(torch.zeros_like(edit.used).scatter(1, best, True) & stages[-1])
    return stages


def one_mask(edit, loss, sizes):
    """Each stage is right when it is appended, and is written over by the next."""
    chosen, stages = edit.used, []
    for mask in e.solution_thin_out(edit, loss, sizes):
        chosen[:] = mask
        stages.append(chosen)
    return stages


def all_are_used(edit, loss, sizes):
    return [torch.ones_like(edit.used), *e.solution_thin_out(edit, loss, sizes)[1:]]


def without_a_graph(edit, loss, sizes):
    return torch.autograd.grad(loss(edit.x + edit.added(edit.used) / 2).sum(), edit.x)


def chosen_and_scored(active, has, choose, score):
    f1 = lambda a, h: 2 * (a & h[:, None]).sum(0) / (a.sum(0) + h.sum())  # noqa: E731
    return float(f1(active[score], has[score])[f1(active[choose], has[choose]).argmax()])


@pytest.mark.parametrize(
    "check, answer",
    [
        (e.check_patch, in_place),
        (e.check_patch, in_numpy),
        (e.check_thin_out, in_stages_of_the_package),
        (e.check_thin_out, sorted_out),
        (e.check_thin_out, left_out_one_by_one),
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
        (lambda x, c, w, d, f: w[:, f] @ d[f] + x - c @ d, "those not chosen are gone"),
        (lambda x, c, w, d, f: (w - c)[:, f] @ d[f], "add it to x"),
        (lambda x, c, w, d, f: aliased(x, c, w, d, f), "`n = codes` does not copy"),
        (lambda x, c, w, d, f: x + (w - c)[f] @ d[f], "features are columns: `[:, chosen]`"),
        (lambda x, c, w, d, f: x + (w - c)[:, f] @ d[:, f], "`directions[chosen]`, not columns"),
        (lambda x, c, w, d, f: x + (w - c)[f] @ d, "tokens 0 and 3 here; features are columns"),
        (lambda x, c, w, d, f: x + (w - c)[:, f] @ d[:, f].T, "no transpose is needed"),
        (lambda x, c, w, d, f: x + (w - c)[:, f] @ d, "the same rows of these, `directions[chosen]`"),
        (times_a_row, "times one direction needs a column"),
        (lambda x, c, w, d, f: rows_exchanged(x, c, w, d, f), "all features are patched at tokens 0 and 3"),
        (lambda x, c, w, d, f: (x.add_((w - c)[:, f] @ d[f]), None)[1], "returns None: return x"),
        (lambda x, c, w, d, f: one_feature(x, c, w, d, f[:1]), "only feature 0 is patched"),
        (lambda x, c, w, d, f: one_feature(x, c, w, d, f[-1:]), "only feature 3 is patched"),
        (lambda x, c, w, d, f: x.index_add(1, torch.tensor(f).long(), (w - c)[:, f]), "not coordinates of x"),
    ],
)
def test_patch_mistakes(answer, complaint):
    assert complaint in e.check_patch(answer).message


@pytest.mark.parametrize(
    "answer, complaint",
    [
        (lambda n, kl: next((a for a, b in zip(n, kl) if b <= kl[0] / 2), math.inf), "6 is the first count"),
        (lambda n, kl: max(a for a, b in zip(n, kl) if b > kl[0] / 2), "not yet half"),
        (lambda n, kl: 5.0, "crosses 4.0 at 4.86"),
        (lambda n, kl: next((i for i, b in enumerate(kl) if b <= kl[0] / 2), math.inf), "a position in the list"),
        (lambda n, kl: float(np.interp(kl[0] / 2, kl, n)), "wants rising x"),
        (lambda n, kl: 4.0, "4 is the middle of 2 and 6"),
        (lambda n, kl: mirrored(n, kl), "the way begins at the loss of 2 features"),
        (lambda n, kl: crossing(range(len(n)), kl), "a position in the list"),
        (lambda n, kl: crossing(n, [kl[0] + kl[-1], *kl[1:]]), "between the first loss and the last one"),
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
        (lambda *it: [c[:1] for c in e.solution_thin_out(*it)], "6 masks of shape"),
        (lambda ed, f, sizes: [ed.used, *(torch.zeros(6, n) for n in sizes)], "not numbers of features"),
        (lambda ed, f, sizes: e.solution_thin_out(ed, f, [5, 4, 2, 1, 0]), "yours leave [8, 5, 4, 2, 1, 0]"),
        (minus_last, "yours leave [8, 6, 2, 0, 0, 0]: features that are out are chosen again"),
        (summed_after_the_mask, "all sentences keep the same features, and none that one"),
        (from_the_end, "for size 0 you leave 8, not 0"),
        (lambda *it: [*e.solution_thin_out(*it)[:-1], e.solution_thin_out(*it)[-2]], "for size 0 you leave 1, not 0"),
        (one_mask, "append a clone of it"),
        (all_are_used, "not every feature changes in every sentence"),
        (without_a_graph, "needs x.requires_grad_()"),
        (lambda ed, f, sizes: f(ed.x.requires_grad_()).backward(), "take the gradient of its sum"),
        (lambda ed, f, sizes: list(sizes), "not numbers of features"),
        (left_out_at_zero, "must rank below all, at −inf"),
        (lambda *it: sorted_out(*it, at=1.0), "its slope says nothing"),
        (lambda *it: sorted_out(*it, at=0.0), "as if nothing were patched"),
        (lambda *it: sorted_out(*it, half_of_all=True), "x itself was halved"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: (c * g).sum(1)), "of *most* worth were left out"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: (c * g).sum(1).abs()), "one that does harm"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: -g.sum(1)), "slope alone"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: c.norm(dim=1).square()), "others are kept than"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: c.sum(1)), "the loss has no say"),
        (lambda *it: sorted_out(*it, weigh=lambda c, g: -(c * g)[:, -1]), "a sum over positions"),
        (
            lambda *it: sorted_out(*it, weigh=lambda c, g: -(c * g).sum((0, 1)).expand(6, -1)),
            "each is to choose its own",
        ),
        (
            lambda ed, f, sizes: [ed.used, *(sorted_out(ed, f, [n])[1] for n in sizes)],
            "weigh those that are left again",
        ),
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
        (lambda r, p: r**2 - p * r, "the best lies between them"),
        (lambda r, p: r**2 - p**2 - p * (r - p), "the best lies between them"),
        (lambda r, p: p * max(0, r - p / 2) + min(r, p / 2) ** 2, "what there is to pay"),
        (lambda r, p: max(0, r - p / 2), "1.5 is the best code, not what it saves"),
        (lambda r, p: max(0, r - p) ** 2, "is 1.5 and saves 2.25; you say 1"),
        (lambda r, p: (r - p / 2) ** 2, "a code cannot be negative"),
        (lambda r, p: max(0, r - p / 2) ** 2 + 0.1 * (p > 2 * r), "no feature is cheapest"),
        (lambda r, p: 0 if r < p else (r - p / 2) ** 2, "it stops paying at penalty 2 · norm"),
        (lambda r, p: max(0, r - 0.5) ** 2, "a search over codes"),
    ],
)
def test_gain_mistakes(answer, complaint):
    assert complaint in e.check_gain(answer).message


@pytest.mark.parametrize("told, how", e.THINNED)
def test_every_other_order_is_told_from_the_others(told, how):
    assert told in e.check_thin_out(lambda *given: e._kept(*given, **how)).message


@pytest.mark.parametrize("choose", [slice(0, None, 2), slice(280)])
def test_other_halves_are_right_too(choose):
    def other_halves(active, has):
        score = slice(1, None, 2) if choose.step else slice(280, None)
        return chosen_and_scored(active, has, choose, score)

    assert e.check_best_feature(other_halves).passed, e.check_best_feature(other_halves)
