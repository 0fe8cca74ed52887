"""Every check of notebook 04: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import right, wrong_and_told
from torch.nn.functional import normalize

from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.course.sparse_autoencoders import exercises as ex

SAE = {name: getattr(by_hand, name) for name in ex.PARTS}


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
    assert sae(encode=lambda x, W, b: torch.clamp(x @ W.mT + b, min=0), loss_of=squared, train_step=longhand)
    assert ex.check_best_code(lambda s, lam: s - lam / 2 if s > lam / 2 else 0)
    assert ex.check_mended(ex._weighted_step)

    def in_place(x, W_enc, b, W_dec, lam, adam):
        loss = by_hand.broken_step(x, W_enc, b, W_dec, lam, adam)
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        return loss

    assert ex.check_mended(in_place)


def test_what_is_right_is_said_before_what_comes_next():
    half = sae(loss_of=lambda *_: None)
    assert not half and half.message.count("✓") == 2 and "○ Exercise 1, loss_of: not answered yet" in half.message


def step(*, zero=True, go=True, keep=True, late=False, lam_counts=True):
    """A training step with something left out."""

    def one(x, W, b, lam, adam):
        loss = by_hand.loss_of(x, W, b, lam * lam_counts)
        if zero:
            adam.zero_grad()
        loss.backward()
        if go:
            adam.step()
        if keep:
            W.data = normalize(W.data, dim=1)
        return by_hand.loss_of(x, W, b, lam).item() if late else loss.item()

    return one


def with_after(repair):
    def one(x, W_enc, b, W_dec, lam, adam):
        loss = by_hand.broken_step(x, W_enc, b, W_dec, lam, adam)
        repair(W_enc, W_dec)
        return loss

    return one


def into(weights, dim):
    return lambda W_enc, W_dec: [W_enc, W_dec][weights].data.copy_(normalize([W_enc, W_dec][weights].data, dim=dim))


ERROR = {"a": 0.3, "b": 0.2}


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (part("encode"), lambda x, W, b: x @ W.T + b, "negative entries"),
        (part("encode"), lambda x, W, b: torch.relu(x @ W.T), "without a bias"),
        (part("encode"), lambda x, W, b: torch.relu(x @ W.T) + b, "negative entries"),
        (part("encode"), lambda x, W, b: torch.relu(x @ W.T) + b.abs(), "yours is"),
        (part("encode"), lambda x, W, b: torch.relu(W @ x.T + b[:, None]), "yours is (6, 50)"),
        (part("decode"), lambda z, W: W.T @ z.T, "yours has (4, 50)"),
        (part("decode"), lambda z, W: torch.relu(z @ W), "reconstruction is"),
        (part("decode"), lambda z, W: z, "yours has (50, 6)"),
        (part("loss_of"), lambda x, W, b, lam: squared(x, W, b, 0), "missing λ"),
        (part("loss_of"), lambda x, W, b, lam: 50 * squared(x, W, b, lam), "sum over tokens"),
        (
            part("loss_of"),
            lambda x, W, b, lam: squared(x, W, b, 0) * 0.25 + lam * by_hand.encode(x, W, b).sum(1).mean(),
            "mean of the squared error over dimensions",
        ),
        (
            part("loss_of"),
            lambda x, W, b, lam: squared(x, W, b, 0) + lam * by_hand.encode(x, W, b).mean(),
            "mean of the code over features",
        ),
        (part("loss_of"), lambda x, W, b, lam: by_hand.encode(x, W, b).sum(1), "one number"),
        (part("train_step"), step(go=False), "where they were"),
        (part("train_step"), step(keep=False), "bring them back"),
        (part("train_step"), step(zero=False), "gradients add up"),
        (part("train_step"), step(late=True), "before the step"),
        (part("train_step"), step(lam_counts=False), "does not depend on lam"),
        (ex.check_best_code, lambda s, lam: s - lam, "mind the 2"),
        (ex.check_best_code, lambda s, lam: s - lam / 2, "never negative"),
        (ex.check_best_code, lambda s, lam: s, "each unit of z costs"),
        (ex.check_best_code, lambda s, lam: s * (1 - lam / 2), "does not grow with a"),
        (ex.check_mended, by_hand.broken_step, "exactly as before"),
        (ex.check_mended, with_after(into(0, 0)), "keep the encoder's norms"),
        (ex.check_mended, with_after(into(1, 0)), "a feature is a row"),
        (ex.check_mended, with_after(lambda W_enc, W_dec: W_dec.data.mul_(0.9)), "can still trade"),
        (lambda answer: ex.check_prediction(answer, ERROR), "a", "the least is left by b: b 20%, a 30%"),
        (lambda answer: ex.check_prediction(answer, ERROR), "k-means++", "choose one of 'a', 'b'"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_a_prediction_is_praised_with_the_numbers():
    assert "b 20%, a 30%" in ex.check_prediction("b", ERROR).message
    assert "not answered yet" in ex.check_prediction(None, ERROR).message


def test_an_exception_of_the_learner_is_shown():
    assert "ZeroDivisionError" in ex.check_best_code(lambda s, lam: 1 / 0).message
