import pytest
import torch

from sae_tutorial.course.transformers import exercises

CHECKS = [
    (
        exercises.check_count_parameters,
        exercises.solution_count_parameters,
        lambda layers, width, vocabulary, context: None,
    ),
    (exercises.check_head, exercises.solution_head, lambda *inputs: None),
    (exercises.check_overlap, exercises.solution_overlap, lambda a, b: None),
    (exercises.check_induction_score, exercises.solution_induction_score, lambda pattern, length: None),
]


@pytest.mark.parametrize(("check", "solution", "stub"), CHECKS)
def test_stub_and_solution(check, solution, stub):
    assert "not answered yet" in check(stub).message
    assert "not answered yet" in check(None).message
    assert check(solution), check(solution).message


def count(layers, width, vocabulary, context, *, tied=True, last=True, biases=True, norms=True, positions=True):
    layer = 12 * width**2 + (9 * width if biases else 0) + (4 * width if norms else 0)
    return (
        (vocabulary + (context if positions else 0)) * width
        + layers * layer
        + (2 * width if last else 0)
        + (0 if tied else vocabulary * width)
    )


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["tied"], "count it once"),
        (["last"], "LayerNorm after the last layer"),
        (["biases"], "the biases"),
        (["norms"], "two LayerNorms"),
        (["positions"], "a table of their own"),
        (["norms", "last"], "all LayerNorms are missing"),
        (["biases", "norms"], "biases and LayerNorms in the layers"),
        (["biases", "norms", "last"], "all biases and LayerNorms are missing"),
    ],
)
def test_count_parameters_names_what_is_missing(missing, says):
    verdict = exercises.check_count_parameters(lambda *sizes: count(*sizes, **dict.fromkeys(missing, False)))
    assert not verdict and says in verdict.message


def test_one_mlp_matrix_too_few_is_named():
    verdict = exercises.check_count_parameters(lambda n, w, v, c: count(n, w, v, c) - n * 4 * w**2)
    assert not verdict and "one MLP matrix" in verdict.message


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (exercises.check_count_parameters, lambda *sizes: 0),
        (exercises.check_head, lambda x, *weights: (torch.zeros(5, 5), torch.zeros(5, 3))),
        (exercises.check_overlap, lambda a, b: 0.5),
        (exercises.check_induction_score, lambda pattern, length: pattern.diagonal(dim1=-2, dim2=-1).mean(-1)),
    ],
)
def test_hints_come_one_after_the_other_and_are_no_solutions(check, wrong):
    first, second, third = (check(wrong).message for _ in range(3))
    assert [message.count("Hint") for message in (first, second, third)] == [0, 1, 2]
    for spoiler in ("12 *", "masked_fill", "-inf", "Q_a", "length + 1", "4 M"):
        assert spoiler not in third


def my_head(x, wq, wk, wv, bq, bk, bv):
    """Position by position, with the future left out instead of masked."""
    q, k, v = x @ wq + bq, x @ wk + bk, x @ wv + bv
    pattern = torch.zeros(len(x), len(x))
    for i in range(len(x)):
        pattern[i, : i + 1] = (q[i] @ k[: i + 1].T / bq.shape[0] ** 0.5).softmax(0)
    return pattern, pattern @ v


def test_a_head_written_position_by_position_is_right():
    assert exercises.check_head(my_head)


def wrong_head(
    scale=lambda width, d: d**0.5,
    mask=-torch.inf,
    diagonal=1,
    softmax=-1,
    swap=False,
    biases=True,
    turn=False,
    after=False,
    gather=None,
):
    """Each argument is one mistake; `biases` are those of queries and keys."""
    of_queries, of_keys = biases if isinstance(biases, tuple) else (biases, biases)

    def head(x, wq, wk, wv, bq, bk, bv):
        q, k, v = x @ wq + bq * of_queries, x @ wk + bk * of_keys, x @ wv + bv
        q, k = (k, q) if swap else (q, k)
        scores = q @ k.T / scale(*wq.shape)
        future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal)
        future = future.T if turn else future
        if after:
            pattern = scores.softmax(-1).masked_fill(future, 0)
        elif mask is None:
            pattern = scores.softmax(-1)
        else:
            pattern = scores.masked_fill(future, mask).softmax(softmax)
        return pattern, (pattern @ v if gather is None else gather(pattern, x, v, wv))

    return head


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (wrong_head(scale=lambda width, d: 1), "not divided"),
        (wrong_head(scale=lambda width, d: d), "its square root"),
        (wrong_head(scale=lambda width, d: width**0.5), "√12, the width of x"),
        (wrong_head(mask=0), "a score of 0 still gets a share"),
        (wrong_head(mask=None), "nothing is masked"),
        (wrong_head(after=True), "after the softmax"),
        (wrong_head(diagonal=0), "see itself"),
        (wrong_head(diagonal=0, mask=-1e9), "see itself"),
        (wrong_head(diagonal=0, mask=0), "see itself"),
        (wrong_head(diagonal=2), "one diagonal too late"),
        (wrong_head(scale=lambda width, d: d**-0.5), "you multiply by √d_head"),
        (wrong_head(scale=lambda width, d: 1, mask=None), "nothing is masked"),
        (wrong_head(biases=(False, True)), "bias of the queries"),
        (wrong_head(turn=True), "turn the mask around"),
        (wrong_head(softmax=0), "down the columns"),
        (wrong_head(swap=True), "changed roles"),
        (wrong_head(biases=False), "bias of the queries"),
        (wrong_head(gather=lambda p, x, v, w: p @ x), "the width of x"),
        (wrong_head(gather=lambda p, x, v, w: p @ (x @ w)), "bias of the values"),
        (wrong_head(gather=lambda p, x, v, w: p.T @ v), "sum over those that are taken from"),
        (wrong_head(gather=lambda p, x, v, w: v), "not yet weighted"),
        (wrong_head(gather=lambda p, x, v, w: 2 * (p @ v)), "the values gathered with it are not"),
        (lambda *inputs: solution_pattern(*inputs)[0], "Return two tensors"),
        (lambda *inputs: (solution_pattern(*inputs)[1], 0), "Return two tensors"),
        (lambda *inputs: solution_pattern(*inputs)[::-1], "first the pattern"),
        (lambda x, *weights: (x, x), "has shape (5, 5)"),
    ],
)
def test_head_mistakes(mistake, says):
    verdict = exercises.check_head(mistake)
    assert not verdict and says in verdict.message, verdict.message


@pytest.mark.parametrize(
    ("which", "says"),
    [("queries", "you gather the queries"), ("keys", "you gather the keys"), ("scaled", "only the scores are")],
)
def test_values_of_the_wrong_matrix_are_named(which, says):
    def head(x, wq, wk, wv, bq, bk, bv):
        pattern, gathered = solution_pattern(x, wq, wk, wv, bq, bk, bv)
        taken = {"queries": x @ wq + bq, "keys": x @ wk + bk, "scaled": (x @ wv + bv) / bv.shape[0] ** 0.5}
        return pattern, pattern @ taken[which]

    verdict = exercises.check_head(head)
    assert not verdict and says in verdict.message, verdict.message


def test_two_mistakes_are_both_named_and_no_third():
    no_scale = {"scale": lambda width, d: 1}
    for mistake, says in (({"softmax": 0}, "down the columns"), ({"mask": 0}, "set to 0"), ({"swap": True}, "roles")):
        message = exercises.check_head(wrong_head(**no_scale, **mistake)).message
        assert says in message and "not divided" in message and message.count("; and ") == 1, message


def test_a_large_negative_number_masks_as_well_and_the_bias_of_the_keys_drops_out():
    assert exercises.check_head(wrong_head(mask=-1e9))
    assert exercises.check_head(wrong_head(biases=(True, False)))


solution_pattern = exercises.solution_head


def bases(a, b):
    return torch.linalg.qr(a.T).Q, torch.linalg.qr(b.T).Q


def with_sum(a, b):
    q, r = bases(a, b)
    return (q.T @ r).square().sum()


def with_mean_of_cosines(a, b):
    return torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).mean() ** 2


def without_squares(a, b):
    q, r = bases(a, b)
    return (q.T @ r).abs().sum() / len(a)


def with_cosines(a, b):
    return torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).mean()


def of_one_basis(a, b):
    return (a @ b.T).square().sum() / (a @ a.T).square().sum().sqrt() / (b @ b.T).square().sum().sqrt()


def without_bases(a, b):
    unit = torch.nn.functional.normalize
    return (unit(a, dim=-1) @ unit(b, dim=-1).T).square().sum() / len(a)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (with_sum, "divide by d_head"),
        (with_mean_of_cosines, "before the mean"),
        (without_squares, "the cosines themselves"),
        (with_cosines, "the cosines themselves"),
        (of_one_basis, "make the rows orthonormal first"),
        (without_bases, "not at right angles to each other; make them orthonormal first"),
    ],
)
def test_overlap_mistakes(mistake, says):
    verdict = exercises.check_overlap(mistake)
    assert not verdict and says in verdict.message


def at(pattern, rows, back):
    return pattern[:, rows, rows - back]


def second(length):
    return torch.arange(length + 1, 2 * length + 1)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda p, n: at(p, second(n), n).mean(-1), "duplicate-token heads"),  # the bug as it was planted
        (lambda p, n: at(p, second(n), n + 1).mean(-1), "token before the earlier copy"),
        (lambda p, n: at(p, second(n), n + 2).mean(-1), "two tokens before the earlier copy"),
        (lambda p, n: at(p, second(n), n - 2).mean(-1), "one position too far"),
        (lambda p, n: at(p, second(n), n - 3).mean(-1), "two positions too far"),
        (lambda p, n: at(p, second(n), 1).mean(-1), "previous-token heads"),
        (lambda p, n: at(p, second(n), n - 1).sum(-1), "not the sum"),
        (lambda p, n: at(p.mT, second(n), n - 1).mean(-1), "Rows are the positions that take"),
        (lambda p, n: at(p, second(n), n - 1).sum(-1) / (2 * n + 1), "only positions of the second time"),
        (lambda p, n: p.diagonal(1 - n, -2, -1).mean(-1), "The mean is over all positions"),
        (lambda p, n: at(p, second(n) - 1, n - 1).mean(-1), "one position too early"),
        (lambda p, n: at(p, second(n) - 1, n).mean(-1), "duplicate-token heads"),
        (lambda p, n: at(p, second(n)[:-1], n - 1).mean(-1), "The last position of the second time is missing"),
        (lambda p, n: at(p, second(n), n - 1), "3 numbers"),
        (lambda p, n: 7 * at(p, second(n), n - 1).mean(-1), "For three random heads"),
    ],
)
def test_induction_score_mistakes(mistake, says):
    verdict = exercises.check_induction_score(mistake)
    assert not verdict and says in verdict.message, verdict.message


def test_an_induction_score_by_its_diagonal_is_right():
    assert exercises.check_induction_score(lambda p, n: p.diagonal(offset=-(n - 1), dim1=-2, dim2=-1)[:, 2:].mean(-1))


@pytest.mark.parametrize(("alone", "right"), [(8.0, "a"), (2.5, "b"), (0.9, "c")])
def test_a_prediction_is_held_against_what_was_measured(alone, right):
    for guess in "abc":
        verdict = exercises.check_prediction(guess, alone, together=9.0)
        assert bool(verdict) == (guess == right) and f"{alone:.1f} nats" in verdict.message
    assert exercises.check_prediction(right.upper(), alone, 9.0)
    assert "one letter" in exercises.check_prediction("d", alone, 9.0).message
    assert "not answered yet" in exercises.check_prediction(None, alone, 9.0).message


def test_the_predictions_solution_is_what_was_measured_here():
    assert exercises.check_prediction(exercises.solution_prediction(), 0.86, 9.2)
