"""Every check of notebook 04: the stub, the solution, and the mistakes that learners make."""

from functools import partial

import numpy as np
import pytest
import torch
from exercises import right, wrong_and_told
from torch.nn.functional import normalize

from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.course.sparse_autoencoders import exercises as ex

SAE = dict(zip(ex.PARTS, (by_hand.encode, by_hand.decode, by_hand.loss_of, by_hand.train_step), strict=True))


def sae(**changed):
    """Exercise 1 answered by the solution, some functions changed."""
    return ex.check_sae(**(SAE | changed))


def part(name):
    """Exercise 1 as a check of one function, the others solved."""
    return lambda answer: sae(**{name: answer})


SOLUTIONS = [
    *((part(name), SAE[name]) for name in ex.PARTS),
    (ex.check_best_code, ex.solution_best_code),
    (ex.check_mended, by_hand.mended_step),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solution_passes_and_stub_is_not_an_error(check, solution):
    right(check, solution)


def squared(x, W, b, lam):
    z = torch.clamp(x @ W.mT + b, min=0)
    return torch.einsum("bf,fd->bd", z, W).sub(x).norm(dim=-1).pow(2).mean() + lam * z.norm(p=1, dim=-1).mean()


def longhand(x, W, b, lam, adam):
    loss = squared(x, W / W.norm(dim=1, keepdim=True), b, lam)
    for parameter in (W, b):
        parameter.grad = None
    loss.backward()
    adam.step()
    with torch.no_grad():
        W /= W.norm(dim=1, keepdim=True)
    return loss


def test_other_ways_to_write_it_pass_too():
    assert sae(my_encode=lambda x, W, b: torch.clamp(x @ W.mT + b, min=0), my_loss=squared, my_step=longhand)
    assert ex.check_best_code(lambda s, lam: s - lam / 2 if s > lam / 2 else 0)


def untied(decoder=lambda W: W, price=lambda W: 1.0):
    """A step that decodes with `decoder(W_dec)`, each feature's code priced by `price(W_dec)`."""

    def one(x, W_enc, b, W_dec, lam, adam):
        z = torch.relu(x @ W_enc + b)
        loss = (z @ decoder(W_dec) - x).square().sum(dim=1).mean() + lam * (z * price(W_dec)).sum(dim=1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return one


def at_the_start(x, W_enc, b, W_dec, lam, adam):
    W_dec.data = normalize(W_dec.data, dim=1)
    return by_hand.broken_step(x, W_enc, b, W_dec, lam, adam)


@pytest.mark.parametrize(
    "cure",
    [
        lambda *given: untied(price=lambda W: W.norm(dim=1))(*given),
        lambda *given: untied(decoder=lambda W: normalize(W, dim=1))(*given),
        lambda *given: with_after(lambda _, W: W.data.div_(W.data.norm(dim=1, keepdim=True)))(*given),
        lambda *given: with_after(lambda _, W: W.data.div_(W.data.norm(dim=1, keepdim=True).clamp(min=1)))(*given),
        at_the_start,
    ],
    ids=["norms in the penalty", "normalised when decoding", "in place", "at most 1", "before the step"],
)
def test_every_cure_of_the_bug_passes(cure):
    verdict = ex.check_mended(cure)
    assert verdict.passed, verdict.message


def without_the_part_along_rows(x, W_enc, b_enc, W_dec, lam, adam):
    """The gradient projected, and the rows not brought back to norm 1: Adam lengthens them all the same."""
    error, penalty, _ = by_hand.untied_loss(x, W_enc, b_enc, W_dec)
    loss = error + lam * penalty
    adam.zero_grad()
    loss.backward()
    unit = normalize(W_dec.data, dim=1)
    W_dec.grad -= (W_dec.grad * unit).sum(dim=1, keepdim=True) * unit
    adam.step()
    return loss.item()


@pytest.mark.parametrize(
    "cure",
    [
        without_the_part_along_rows,
        lambda *given: with_after(lambda _, W: W.data.mul_(len(W) ** 0.5 / W.data.norm()))(*given),
    ],
    ids=["projected gradient", "norm of the whole matrix"],
)
def test_a_cure_that_leaves_the_norms_free_passes_by_what_it_finds(cure):
    verdict = ex.check_mended(cure)
    assert verdict.passed and "It works on this data: the true directions" in verdict.message, verdict.message
    assert "can still become longer" in verdict.message


def test_norms_of_encoder_and_decoder_at_1_are_a_cure():
    def both(W_enc, W_dec):
        into(0, 0)(W_enc, W_dec)
        into(1, 1)(W_enc, W_dec)

    verdict = ex.check_mended(with_after(both))
    assert verdict.passed and "λ means what it says" in verdict.message, verdict.message


def test_what_is_right_is_said_before_what_comes_next():
    half = sae(my_loss=lambda *_: None)
    assert not half and half.message.count("✓") == 2 and "○ Exercise 1, my_loss: not answered yet" in half.message


def step(*, zero=True, go=True, keep=True, late=False, lam_counts=True, columns=False, silent=False, frozen=""):
    """A training step with something left out."""

    def one(x, W, b, lam, adam):
        rows, bias = W.detach() if frozen == "W" else W, b.detach() if frozen == "b" else b
        loss = by_hand.loss_of(x, rows, bias, lam * lam_counts)
        if zero:
            adam.zero_grad()
        loss.backward()
        if go:
            adam.step()
        if keep:
            W.data = normalize(W.data, dim=0 if columns else 1)
        if silent:
            return None
        return by_hand.loss_of(x, W, b, lam).item() if late else loss.item()

    return one


def broken(*_):
    raise RuntimeError("no")


def zeroed_too_late(x, W, b, lam, adam):
    loss = by_hand.loss_of(x, W, b, lam)
    loss.backward()
    adam.zero_grad()
    adam.step()
    return loss.item()


def normalised_before(x, W, b, lam, adam):
    W.data = normalize(W.data, dim=1)
    return step(keep=False)(x, W, b, lam, adam)


def with_after(repair):
    def one(x, W_enc, b, W_dec, lam, adam):
        loss = by_hand.broken_step(x, W_enc, b, W_dec, lam, adam)
        repair(W_enc, W_dec)
        return loss

    return one


def tied_again(W_enc, W_dec):
    W_enc.data = W_dec.data.T.clone()


def into(weights, dim):
    return lambda W_enc, W_dec: [W_enc, W_dec][weights].data.copy_(normalize([W_enc, W_dec][weights].data, dim=dim))


def priced(price):
    """A step with another penalty, `price(z, W_dec)`, multiplied by lam."""

    def one(x, W_enc, b, W_dec, lam, adam):
        z = torch.relu(x @ W_enc + b)
        loss = ((z @ W_dec - x).square().sum(1) + lam * price(z, W_dec)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return one


def then(change, x, W, b, lam, adam):
    """A step that leaves the norms free, and then `change(W_dec)`."""
    loss = step(keep=False)(x, W, b, lam, adam)
    change(W)
    return loss


def in_place(W):
    W /= W.norm(dim=1, keepdim=True)


def into_itself(W):
    W[:] = normalize(W, dim=1)


def whole_matrix(W):
    W.data /= W.data.norm()


def with_price(price):
    """The loss of exercise 1 with another penalty, `price(z)`."""
    return lambda x, W, b, lam: squared(x, W, b, 0) + lam * price(by_hand.encode(x, W, b))


ERROR = {"SAE": 0.11, "k-means": 0.18, "sampled tokens": 0.19}


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (part("my_encode"), lambda x, W, b: x @ W.T + b, "negative entries"),
        (part("my_encode"), lambda x, W, b: torch.relu(x @ W + b), "asked for is the code, (50, 6)"),
        (part("my_encode"), lambda x, W, b: torch.relu(x * W + b), "the shapes do not fit"),
        (part("my_encode"), lambda x, W, b: torch.relu(W @ x.T + b), "the shapes do not fit"),
        (part("my_encode"), lambda x, W, b: np.maximum(x.numpy() @ W.numpy(), 0), "the shapes do not fit"),
        (part("my_encode"), lambda x, W, b: torch.relu(torch.einsum("bd,df->bf", x, W)), "the shapes do not fit"),
        (part("my_encode"), broken, "It stopped with RuntimeError: no"),
        (part("my_encode"), lambda x, W, b: int("x"), "It stopped with ValueError"),
        (part("my_decode"), lambda z, W: z @ W.T, "asked for is the reconstruction, (50, 4)"),
        (part("my_encode"), lambda x, W, b: torch.relu(x @ W.T), "without a bias"),
        (part("my_encode"), lambda x, W, b: torch.relu(x @ W.T) + b, "the bias comes before the ReLU"),
        (part("my_encode"), lambda x, W, b: torch.relu(x @ W.T) + b.abs(), "yours is"),
        (part("my_encode"), lambda x, W, b: torch.relu(W @ x.T + b[:, None]), "yours is (6, 50)"),
        (part("my_decode"), lambda z, W: W.T @ z.T, "yours has (4, 50)"),
        (part("my_decode"), lambda z, W: torch.relu(z @ W), "reconstruction is"),
        (part("my_decode"), lambda z, W: z, "yours has (50, 6)"),
        (part("my_loss"), lambda x, W, b, lam: squared(x, W, b, 0), "missing λ"),
        (part("my_loss"), lambda x, W, b, lam: 50 * squared(x, W, b, lam), "sum over tokens"),
        (
            part("my_loss"),
            lambda x, W, b, lam: squared(x, W, b, 0) * 0.25 + lam * by_hand.encode(x, W, b).sum(1).mean(),
            "mean of the squared error over dimensions",
        ),
        (
            part("my_loss"),
            lambda x, W, b, lam: squared(x, W, b, 0) + lam * by_hand.encode(x, W, b).mean(),
            "mean of the code over features",
        ),
        (part("my_loss"), lambda x, W, b, lam: by_hand.encode(x, W, b).sum(1), "one number"),
        (part("my_loss"), lambda x, W, b, lam: squared(x, W, b, 1.0), "not multiplied by λ"),
        (part("my_loss"), lambda x, W, b, lam: squared(x, W, b, 0.0) + lam * W.abs().sum(), "not on the weights"),
        (
            part("my_loss"),
            lambda x, W, b, lam: (
                (by_hand.decode(by_hand.encode(x, W, b), W) - x).square().mean() + lam * by_hand.encode(x, W, b).mean()
            ),
            "also average over dimensions and features",
        ),
        (part("my_encode"), lambda x, W, b: torch.relu(x @ W.T - b), "you subtract the bias"),
        (part("my_encode"), lambda x, W, b: np.maximum(x.numpy() @ W.numpy().T + b.numpy(), 0), "NumPy has no grad"),
        (part("my_decode"), lambda z, W: z.numpy() @ W.numpy(), "NumPy has no grad"),
        (part("my_loss"), lambda *given: squared(*given).numpy().mean(), "NumPy has no grad"),
        (part("my_loss"), lambda *given: squared(*given).item(), "lost its gradient"),
        (part("my_loss"), lambda *given: squared(*given).detach(), "lost its gradient"),
        (part("my_loss"), with_price(lambda z: z.square().sum(1).mean()), "not of its squares"),
        (part("my_loss"), with_price(lambda z: (z > 0).sum(1).float().mean()), "a count has no gradient"),
        (part("my_loss"), with_price(lambda z: z.sum()), "runs over tokens, too"),
        (
            part("my_loss"),
            lambda x, W, b, lam: squared(x, W, b, 0) * 0.25 + lam * by_hand.encode(x, W, b).sum(),
            "also sums over tokens",
        ),
        (part("my_step"), step(silent=True), "trains, but returns nothing"),
        (part("my_step"), step(columns=True), "a feature is a row"),
        (part("my_step"), step(go=False), "where they were"),
        (part("my_step"), zeroed_too_late, "with no zero_grad() between them"),
        (part("my_step"), normalised_before, "back to 1 after adam.step()"),
        (part("my_step"), step(keep=False), "bring them back"),
        (part("my_step"), step(zero=False), "gradients add up"),
        (part("my_step"), step(late=True), "before the step"),
        (part("my_step"), step(frozen="b"), "b_enc is where it was"),
        (part("my_step"), step(frozen="W"), "W_dec is where it was"),
        (part("my_step"), partial(then, in_place), "or change `W_dec.data`"),
        (part("my_step"), partial(then, into_itself), "or change `W_dec.data`"),
        (part("my_step"), partial(then, whole_matrix), "norm of the whole matrix"),
        (part("my_step"), broken, "It stopped with RuntimeError: no"),
        (part("my_step"), step(lam_counts=False), "does not depend on lam"),
        (part("my_step"), lambda x, W, b, lam, adam: step()(x, W, b, 0.08, adam), "does not depend on lam"),
        (part("my_step"), lambda x, W, b, lam, adam: step()(x, W, b, 0.3, adam), "does not depend on lam"),
        (ex.check_best_code, lambda s, lam: s + lam / 2, "smaller, not larger"),
        (ex.check_best_code, lambda s, lam: 2 * s - lam, "smaller, not larger"),
        (ex.check_best_code, lambda s, lam: s - lam, "mind the 2"),
        (ex.check_best_code, lambda s, lam: s - lam / 2, "never negative"),
        (ex.check_best_code, lambda s, lam: s, "each unit of z costs"),
        (ex.check_best_code, lambda s, lam: s * (1 - lam / 2), "does not grow with a"),
        (ex.check_best_code, lambda s, lam: s - lam / 2 if s > lam else 0, "only one below λ/2 is"),
        (ex.check_mended, by_hand.broken_step, "exactly as before"),
        (ex.check_mended, with_after(into(0, 0)), "often works, but not always: the true"),
        (ex.check_mended, with_after(into(1, 0)), "a feature is a row"),
        (ex.check_mended, with_after(lambda W_enc, W_dec: W_dec.data.mul_(0.9)), "can still trade"),
        (ex.check_mended, untied(price=lambda W: W.norm(dim=1).square()), "can still trade"),
        (ex.check_mended, priced(lambda z, W: 0 * z.sum(1)), "does not depend on λ"),
        (ex.check_mended, priced(lambda z, W: (z > 0).float().sum(1)), "does not depend on λ"),
        (ex.check_mended, priced(lambda z, W: z.sum(1) + W.square().sum()), "Leave the penalty at λ"),
        (ex.check_mended, priced(lambda z, W: (z * W.norm(dim=1)).square().sum(1)), "Leave the penalty at λ"),
        (ex.check_mended, untied(decoder=lambda W: W.detach()), "decoder does not learn"),
        (ex.check_mended, with_after(lambda V, W: W.data.copy_(normalize(V.data.T, dim=1))), "copies of each other"),
        (ex.check_mended, lambda *given: with_after(into(1, 1))(*given) and None, "trains, but returns nothing"),
        (ex.check_mended, with_after(lambda _, W: in_place(W)), "or change `W_dec.data`"),
        (ex.check_mended, with_after(lambda _, W: whole_matrix(W)), "norm of the whole matrix"),
        (ex.check_mended, with_after(tied_again), "; rows held at norm 1 reach 0.99"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


@pytest.mark.parametrize(
    ("best", "error", "says"),
    [
        (None, 0.2, "not answered yet"),
        ("SAE", None, "not answered yet"),
        ("kmeans", 0.2, "choose one of 'SAE', 'k-means'"),
        ("SAE", "0.2", "without quotes"),
        ("SAE", [0.2], "without quotes"),
        ("SAE", 20, "between 0 and 1"),
    ],
)
def test_what_is_no_prediction_is_said_and_costs_no_hint(best, error, says):
    for verdict in (ex.note_prediction(best, error), ex.check_prediction(best, error, ERROR)):
        assert not verdict and says in verdict.message and "✗" not in verdict.message and "Hint" not in verdict.message


def test_a_prediction_is_noted_and_then_compared_with_the_numbers():
    assert ex.note_prediction("k-means", 0.15) and "noted" in ex.note_prediction("k-means", 0.15).message
    right = ex.check_prediction("SAE", 0.12, ERROR)
    assert right and "SAE 11%, k-means 18%, sampled tokens 19%" in right.message and "close" in right.message
    assert "it is less" in ex.check_prediction("SAE", 0.2, ERROR).message
    wrong = ex.check_prediction("k-means", 0.05, ERROR)
    assert not wrong and "left by SAE" in wrong.message and "it is more" in wrong.message


FALL = {1: (0.98, 0.89), 4: (0.98, 0.9), 12: (0.97, 0.86), 20: (0.94, 0.62)}


@pytest.mark.parametrize(
    ("on", "says"), [(None, "not answered yet"), (5, "choose one of 1, 4, 12, 20"), ("4", "quotes"), ([4], "quotes")]
)
def test_what_is_not_among_the_choices_is_said(on, says):
    for verdict in (ex.note_fall(on, list(FALL)), ex.check_fall(on, FALL)):
        assert not verdict and says in verdict.message and "✗" not in verdict.message


def test_where_k_means_falls_behind_is_noted_and_compared():
    assert ex.note_fall(20, list(FALL)) and "first at 20" in ex.note_fall(20, list(FALL)).message
    right, wrong = ex.check_fall(20, FALL), ex.check_fall(4, FALL)
    assert right and "at 20 it is 0.94 against 0.62" in right.message
    assert not wrong and "at 4 it is 0.98 against 0.90, at 20 0.94 against 0.62" in wrong.message
    nowhere = ex.check_fall(1, {1: FALL[1], 4: FALL[4]})
    assert not nowhere and "at none of them" in nowhere.message


@pytest.mark.parametrize(
    ("shares", "says"),
    [((None, 0.5), "not answered yet"), ((0.5, 50), "from 0 to 1"), (("0.5", 0.5), "from 0 to 1")],
)
def test_what_is_not_two_shares_is_said(shares, says):
    for verdict in (ex.note_shares(*shares), ex.check_shares(*shares, (0.46, 0.68))):
        assert not verdict and says in verdict.message and "✗" not in verdict.message


def test_who_agrees_more_decides_and_the_sizes_are_compared():
    assert "share 30% and two runs of k-means 20%" in ex.note_shares(0.3, 0.2).message
    right, wrong = ex.check_shares(0.4, 0.9, (0.46, 0.68)), ex.check_shares(0.8, 0.1, (0.46, 0.68))
    assert right and "share 46%, you said 40%: close" in right.message and "it is less" in right.message
    assert not wrong and "it is more" in wrong.message and "✗" in wrong.message


def test_an_exception_of_the_learner_is_shown():
    assert "ZeroDivisionError" in ex.check_best_code(lambda s, lam: 1 / 0).message
