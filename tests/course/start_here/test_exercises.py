from functools import partial

import numpy as np
import pytest
import torch

from sae_tutorial.course.start_here import exercises


def unanswered(verdict):
    return not verdict.passed and "not answered yet" in verdict.message


def loop(acts, tokens, n):
    found = torch.zeros(n, acts.shape[1])
    for token in tokens.unique():
        found[token] = acts[tokens == token].mean(0)
    return found


def rows_of_numbers(acts, tokens, n):
    return loop(acts, tokens, n).tolist()


def sums(acts, tokens, n):
    return torch.zeros(n, acts.shape[1]).index_add_(0, tokens, acts)


def overwritten(acts, tokens, n):
    """Sums in which each token has its last position only."""
    found = torch.zeros(n, acts.shape[1])
    for token, row in zip(tokens, acts):
        found[token] = row
    return found


def in_numpy(acts, tokens, n):
    found = np.zeros((n, acts.shape[1]))
    np.add.at(found, tokens.numpy(), acts.numpy())
    return found / np.bincount(tokens.numpy(), minlength=n).clip(1)[:, None]


def one_hot(acts, tokens, n):
    of = torch.nn.functional.one_hot(tokens, n).double()
    return of.T @ acts.double() / of.sum(0).clamp(min=1)[:, None]


def in_place(acts, tokens, n):
    acts *= (1 / counts(tokens, n))[tokens]
    return sums(acts, tokens, n)


def without_minlength(acts, tokens, n):
    return sums(acts, tokens, n) / torch.bincount(tokens).clamp(min=1)[:, None]


def without_minlength_in_numpy(acts, tokens, n):
    return sums(acts, tokens, n).numpy() / np.bincount(tokens.numpy()).clip(1)[:, None]


def largest(acts, tokens, n):
    at = tokens[:, None].expand_as(acts)
    return torch.zeros(n, acts.shape[1]).scatter_reduce(0, at, acts, "amax", include_self=False)


def scattered(acts, tokens, n, include_self):
    at = tokens[:, None].expand_as(acts)
    return torch.zeros(n, acts.shape[1]).scatter_reduce(0, at, acts, "mean", include_self=include_self)


def counts(tokens, n):
    return torch.bincount(tokens, minlength=n)[:, None]


def test_mean_by_word():
    check = exercises.check_mean_by_word
    assert unanswered(check(None)) and unanswered(check(lambda acts, tokens, n: None))
    assert check(exercises.solution_mean_by_word)
    for other_way in (loop, rows_of_numbers, in_numpy, one_hot, in_place, partial(scattered, include_self=False)):
        assert check(other_way), check(other_way).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (sums, "These are sums"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / len(tokens), "number of positions"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / counts(tokens, n), "NaN"),
        (lambda acts, tokens, n: loop(acts, tokens, n).T, "a row for each token"),
        (
            lambda acts, tokens, n: (
                sums(acts.clamp(min=0), tokens, n) / sums((acts > 0).float(), tokens, n).clamp(min=1)
            ),
            "not positive count as well",
        ),
        (lambda acts, tokens, n: overwritten(acts, tokens, n) / counts(tokens, n).clamp(min=1), "only one position"),
        (overwritten, "only one position"),
        (lambda acts, tokens, n: overwritten(acts.flip(0), tokens.flip(0), n), "only one position"),
        (largest, "This is the largest activation of each word"),
        (lambda acts, tokens, n: largest(acts, tokens, n).clamp(min=0), "This is the largest activation"),
        (partial(scattered, include_self=True), "You divide by one too many"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / (counts(tokens, n) + 1), "use `clamp(min=1)`"),
        (without_minlength, "`bincount` goes up to the largest token"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / torch.bincount(tokens)[:, None], "`bincount` goes up to"),
        (without_minlength_in_numpy, "`bincount` goes up to the largest token"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / torch.ones(7, 1), "RuntimeError"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / counts(tokens, n)[:, 0], "give the counts a second axis"),
        (lambda acts, tokens, n: sums(acts, tokens, n) / torch.bincount(tokens), "give the counts a second axis"),
        (
            lambda acts, tokens, n: sums(acts, tokens, n).numpy() / counts(tokens, n)[:, 0].clamp(min=1).numpy(),
            "give the counts a second axis",
        ),
        (lambda acts, tokens, n: list(loop(acts, tokens, n)), "`torch.stack` makes it of your rows"),
        (lambda acts, tokens, n: dict(enumerate(loop(acts, tokens, n))), "`torch.stack` makes it of your rows"),
        (lambda acts, tokens, n: 1 + loop(acts, tokens, n), "yours are [4.00, 0.00]"),
        (
            lambda acts, tokens, n: loop(acts.abs(), tokens, n),
            "For token 0 the means are [3.00, -1.00]; yours are [3.0",
        ),
        (lambda acts, tokens, n: loop(acts, tokens.where(tokens > 0, 3), n), "For token 0"),
        (lambda acts, tokens, n: loop(acts, tokens, n) + torch.eye(n)[2, :, None], "For token 2 the means are [2.67"),
        (lambda acts, tokens, n: acts.no_such(), "AttributeError"),
    ],
)
def test_mean_by_word_mistakes(mistake, says):
    verdict = exercises.check_mean_by_word(mistake)
    assert not verdict and says in verdict.message


def upper(x, diagonal):
    row, column = torch.triu_indices(len(x), len(x), diagonal)
    return (x @ x.T).clamp(min=0)[row, column]


def test_a_guess():
    words = torch.cat([torch.full((3,), 1.5), torch.full((997,), 4.0)])
    check = exercises.check_guess
    assert unanswered(check(None, words))
    assert check(3, words) and check(0, words) and check(20.0, words)
    assert "close enough" not in check(3, words).message and "3 of 1,000: close enough" in check(33, words).message
    assert "rare exception" in check(900, words).message
    assert "Far fewer: not 200, but less than one in a hundred." in check(200, words).message
    assert "Far fewer: not 50, but" in check(50, words).message and "Nearly none: 3 of 1,000" in check(0, words).message
    assert "There are fewer." in check(400, torch.cat([words, torch.ones(100)])).message
    for odd in (0.3, 2.5, -1, 1001, float("nan"), float("inf")):
        assert "Give a whole number of neurons" in check(odd, words).message
    assert "Far fewer: not 34, but less than one in a hundred" in check(34, words).message
    for no_number in ("few", True, torch.tensor(True), torch.tensor([3, 4]), [3]):
        for _ in range(3):  # neither is a wrong answer: no hints
            assert "is no number" in check(no_number, words).message and "Hint" not in check(-1, words).message


@pytest.mark.parametrize("kind", [torch.tensor, np.int64, np.float32, np.array, lambda n: torch.tensor([n])])
def test_a_guess_may_be_a_number_of_torch_or_numpy(kind):
    words = torch.cat([torch.full((3,), 1.5), torch.full((997,), 4.0)])
    check = exercises.check_guess
    assert check(kind(3), words).message == check(3, words).message
    assert "Far fewer: not 200" in check(kind(200), words).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda x: 1 / (x @ x.T).clamp(min=0).fill_diagonal_(0).mean(), "not compared with itself"),
        (lambda x: 1 / (x @ x.T).clamp(min=0).sum(), "not the sum"),
        (lambda x: (x @ x.T).clamp(min=0).mean(), "one divided by it"),
        (lambda x: 1 / (x @ x.T).mean(), "Opposite vectors"),
        (lambda x: len(x) / (x @ x.T).clamp(min=0).sum(), "divides it by K²"),
        (lambda x: 1 / (x @ x.T).clamp(min=0).triu().mean(), "each pair of different words once"),
        (lambda x: 1 / upper(x, 0).mean(), "each pair of different words once"),
        (lambda x: 1 / upper(x, 1).mean(), "not compared with itself"),
        (lambda x: 1 / (x @ x.T).clamp(min=0).triu(1).mean(), "not compared with itself"),
        (lambda x: 1 / (x @ x.T).abs().mean(), "You take them for the same word"),
        (5.0, "Give the function itself"),
        (lambda x: 5.0, "Ten times the same word"),
        (lambda x: 1 / ((x @ x.T).clamp(min=0) ** 2).mean(), "not of their squares"),
        (lambda x: 1 / ((x @ x.T) > 0.1).float().mean(), "count as 4/3"),
    ],
)
def test_effective_number_mistakes(mistake, says):
    verdict = exercises.check_effective_number(mistake)
    assert not verdict and says in verdict.message


def test_effective_number():
    assert unanswered(exercises.check_effective_number(lambda x: None))
    assert exercises.check_effective_number(exercises.solution_effective_number)
    for other_way in (
        lambda x: 1 / np.maximum(x.numpy() @ x.numpy().T, 0).mean(),
        lambda x: len(x) ** 2 / (x.double() @ x.double().T).clamp_(min=0).sum().item(),
    ):
        assert exercises.check_effective_number(other_way)
    assert exercises.check_effective_number(lambda x: torch.tensor(exercises.solution_effective_number(x)))
