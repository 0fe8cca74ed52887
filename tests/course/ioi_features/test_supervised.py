"""Supervised dictionaries, the three tests, and the two toys."""

import pytest
import torch

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.shipped import HOOK
from sae_tutorial.circuits import ioi, patching
from sae_tutorial.circuits.feature_patching import run_from
from sae_tutorial.course.ioi_features import supervised


@pytest.fixture(scope="module")
def sentences(model):
    return ioi.ioi_sentences(model, 40, seed=2)


@pytest.fixture(scope="module")
def x(model, sentences):
    return patching.activations(model, sentences, [HOOK])[HOOK]


def test_labels(sentences):
    frame = sentences.frames[0]
    assert supervised.label(frame, "IO") == frame.io and supervised.label(frame, "S") == frame.s
    orders = [supervised.label(frame, "order") for frame in sentences.frames]
    assert orders[:4] == ["ABB", "BAB", "ABB", "BAB"]
    on = supervised.indicators(sentences, supervised.values_of(sentences))
    assert (on.sum(1) == 3).all()  # three features in every sentence
    with pytest.raises(ValueError, match="attribute='place' is none of IO, S, order"):
        supervised.label(frame, "place")


def test_roles_are_taken_and_put_back(sentences, x):
    roles = supervised.at_roles(x, sentences)
    for r, role in enumerate(ioi.ROLES):
        assert torch.equal(roles[3, r], x[3, sentences.positions[role][3]])
    moved = supervised.with_roles(x, roles + 1, sentences)
    assert torch.equal(supervised.at_roles(moved, sentences), roles + 1)
    assert ((moved != x).any(-1).sum(1) == len(ioi.ROLES)).all()


def test_mean_vectors_are_means(sentences, x):
    roles = supervised.at_roles(x, sentences)
    fitted = supervised.fit(roles, sentences, "mean")
    for f in (0, len(fitted.values) - 1):
        attribute, value = fitted.values[f]
        rows = torch.tensor([supervised.label(frame, attribute) == value for frame in sentences.frames])
        assert torch.allclose(fitted.vectors[f], roles[rows].mean(0) - roles.mean(0), atol=1e-4)
    frame = sentences.frames[5]
    names = [fitted.values.index(v) for v in (("IO", frame.io), ("S", frame.s), ("order", "BAB"))]
    by_hand = fitted.mean + sum(fitted.vectors[i] for i in names)
    assert torch.allclose(fitted.reconstruct(sentences)[5], by_hand, atol=1e-4)


def test_least_squares_is_the_least(sentences, x):
    roles = supervised.at_roles(x, sentences)
    fitted = supervised.fit(roles, sentences, "mse")
    on = supervised.indicators(sentences, fitted.values)
    best = torch.linalg.lstsq(
        torch.cat([on, torch.ones(len(on), 1)], 1).double(), roles.flatten(1).double(), driver="gelsd"
    )
    expected = torch.cat([on, torch.ones(len(on), 1)], 1).double() @ best.solution
    assert torch.allclose(fitted.reconstruct(sentences).flatten(1).double(), expected, atol=1e-3)
    error = {
        h: (supervised.fit(roles, sentences, h).reconstruct(sentences) - roles).square().sum() for h in ("mean", "mse")
    }
    assert error["mse"] <= error["mean"]
    with pytest.raises(ValueError, match="how='median' must be"):
        supervised.fit(roles, sentences, "median")


def test_a_supervised_edit_takes_one_vector_out_and_puts_another_in(model, sentences, x):
    other = supervised.changed(model, sentences, "IO")
    fitted = supervised.fit(supervised.at_roles(x, sentences), sentences, "mean")
    edit = fitted.edit(x, sentences, other)
    known = [b for b, frame in enumerate(other.frames) if ("IO", frame.io) in fitted.values]
    b = known[0]
    old, new = (fitted.values.index(("IO", s.frames[b].io)) for s in (sentences, other))
    moved = supervised.at_roles(edit.patched(edit.used), sentences)[b] - supervised.at_roles(x, sentences)[b]
    assert torch.allclose(moved, fitted.vectors[new] - fitted.vectors[old], atol=1e-4)
    assert int(edit.used[b].sum()) == 2 * len(ioi.ROLES)


@pytest.mark.parametrize("attribute", supervised.ATTRIBUTES)
def test_changed_sentences_differ_in_one_attribute(model, sentences, attribute):
    other = supervised.changed(model, sentences, attribute, seed=4)
    for before, after in zip(sentences.frames, other.frames):
        differ = [a for a in supervised.ATTRIBUTES if supervised.label(before, a) != supervised.label(after, a)]
        assert differ == [attribute]
    assert other.tokens.shape == sentences.tokens.shape
    assert all(torch.equal(other.positions[role], where) for role, where in sentences.positions.items())


def test_sufficiency_and_necessity_have_their_ends(model, sentences, x):
    run, roles = run_from(model, sentences, HOOK), supervised.at_roles(x, sentences)
    mean = roles.mean(0)
    assert supervised.sufficient_and_necessary(run, x, roles, mean, sentences) == pytest.approx((1, 1), abs=1e-4)
    nothing = supervised.sufficient_and_necessary(run, x, mean.expand_as(roles), mean, sentences)
    assert nothing == pytest.approx((0, 0), abs=1e-4)
    with torch.no_grad():
        whole = ioi.logit_difference(run(x), sentences)
    assert torch.allclose(supervised.answers(run, x, roles, sentences), whole, atol=1e-3)


def test_a_sparse_edit_is_the_greedy_choice_one_token_at_a_time():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(5, 8, generator=generator), torch.randn(5, 8, generator=generator)
    changes, directions = torch.randn(5, 12, generator=generator), torch.randn(12, 8, generator=generator)
    changes[:, ::3] = 0
    fast = supervised.sparse_edit(source, target, changes, directions, 3)
    for n in range(5):
        at, used = source[n].clone(), set()
        for _ in range(3):
            steps = {j: at + changes[n, j] * directions[j] for j in range(12) if j not in used and changes[n, j] != 0}
            j = min(steps, key=lambda j: float((steps[j] - target[n]).norm()))
            if (steps[j] - target[n]).norm() >= (at - target[n]).norm():
                break
            at = steps[j]
            used.add(j)
        assert torch.allclose(fast[n], at, atol=1e-4)
    assert torch.equal(changes[:, ::3], torch.zeros(5, 4))


def test_the_largest_codes_are_each_tokens_own():
    axes = Dictionary.of_axes("axes", torch.eye(4), torch.zeros(4))
    x = torch.tensor([[3.0, -4.0, 1.0, 0.0], [0.0, 1.0, 2.0, -5.0]])
    kept = supervised.largest(axes, 2).reconstruct(x)
    assert kept.tolist() == [[3, -4, 0, 0], [0, 0, 2, -5]] and torch.equal(axes.reconstruct(x), x)


def test_f1_is_counted():
    active, has = torch.rand(30, 6) < 0.4, (torch.rand(30, 4) < 0.3).float()
    best, which = supervised.best_f1(active, has)
    for v in range(4):
        scores = []
        for f in range(6):
            both = float((active[:, f] & has[:, v].bool()).sum())
            scores.append(2 * both / max(1.0, float(active[:, f].sum()) + float(has[:, v].sum())))
        assert best[v] == pytest.approx(max(scores)) and scores[which[v]] == pytest.approx(max(scores))
    assert supervised.best_f1(torch.zeros(5, 2, dtype=torch.bool), torch.zeros(5, 1))[0] == 0
    assert supervised.best_f1(torch.zeros(0, 2, dtype=torch.bool), torch.zeros(0, 3))[0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no features to choose from"):
        supervised.best_f1(torch.zeros(5, 0, dtype=torch.bool), torch.zeros(5, 1))


def test_changed_sentences_are_as_wide_as_the_original(model):
    sentences = ioi.ioi_sentences(model, 12, seed=1)
    short = int(sentences.positions["END"].argmin())
    one = sentences[short : short + 1]
    for attribute in supervised.ATTRIBUTES:
        names = one if attribute != "S" else sentences  # another giver is drawn from all names
        assert supervised.changed(model, names, attribute).tokens.shape == names.tokens.shape


def test_f1_on_other_tokens_finds_a_feature_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(1000, 500, generator=generator) < 0.03
    has = (torch.rand(1000, 2, generator=generator) < 0.03).float()
    active[:, 7] = has[:, 1].bool()
    noise, real = supervised.held_out_f1(active, has).tolist()
    assert noise < 0.05 < 0.12 < float(supervised.best_f1(active, has)[0][0]) and real == 1
    off = supervised.held_out_f1(torch.zeros(10, 3, dtype=torch.bool), torch.ones(10, 1))
    assert off.tolist() == [0]


def test_who_follows_an_edit(model, sentences, x):
    run, roles = run_from(model, sentences, HOOK), supervised.at_roles(x, sentences)
    other = ioi.counterfactual(model, sentences, "swapped")
    goal = supervised.at_roles(patching.activations(model, other, [HOOK])[HOOK], sentences)
    assert (supervised.follow(run, x, [goal], goal, sentences) == 1).all()
    unedited = supervised.follow(run, x, [roles], goal, sentences)
    assert unedited.shape == (len(sentences.io),) and unedited.mean() < 0.3
    middle, low, high = supervised.share(unedited)
    assert low <= middle <= high and middle == pytest.approx(float(unedited.mean()))
    both = supervised.follow(run, x, [roles, goal], goal, sentences)
    assert torch.equal(both, (1 + unedited) / 2)


def test_f1_of_each_is_held_out():
    generator = torch.Generator().manual_seed(0)
    x, has = torch.randn(200, 300, generator=generator), (torch.rand(200, 3, generator=generator) < 0.1).float()
    axes = Dictionary.of_axes("axes", torch.eye(300), torch.full((300,), 1.5))
    active, fair = axes.encode(x) > 0, supervised.f1_of_each(axes, x, has)
    where_chosen = supervised.best_f1(active[:100], has[:100])[0]
    assert torch.equal(fair, supervised.held_out_f1(active, has)) and where_chosen.mean() > 2 * fair.mean()


def test_on_top_counts_the_right_name(model, sentences, x):
    run, roles = run_from(model, sentences, HOOK), supervised.at_roles(x, sentences)
    said = run(x).argmax(dim=1) == sentences.io
    assert supervised.on_top(run, x, roles, sentences) == pytest.approx(float(said.float().mean()))
    assert supervised.on_top(run, x, torch.zeros_like(roles), sentences) < 0.5
