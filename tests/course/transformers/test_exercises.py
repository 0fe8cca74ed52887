import numpy as np
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
        (["biases"], "biases are missing: 4D in attention and 4D + D in the MLP"),
        (["norms"], "both LayerNorms"),
        (["positions"], "The table of positions is missing"),
        (["positions", "biases"], "MLP of each layer; and the table of positions"),
        (["norms", "last"], "All LayerNorms are missing"),
        (["biases", "norms"], "biases and LayerNorms of the layers are missing"),
        (["biases", "norms", "last"], "Matrices only: all biases and LayerNorms"),
        (["biases", "norms", "last", "positions"], "Matrices and tokens only: the positions"),
    ],
)
def test_count_parameters_names_what_is_missing(missing, says):
    verdict = exercises.check_count_parameters(lambda *sizes: count(*sizes, **dict.fromkeys(missing, False)))
    assert not verdict and says in verdict.message


def test_one_mlp_matrix_too_few_is_named():
    verdict = exercises.check_count_parameters(lambda n, w, v, c: count(n, w, v, c) - n * 4 * w**2)
    assert not verdict and "attention's four matrices, or one of the MLP's two." in verdict.message


@pytest.mark.parametrize(
    ("off", "says"),  # how many parameters, with layers n, width w, vocabulary v and context c
    [
        (lambda n, w, v, c: -v * w, "The table of tokens is missing"),
        (lambda n, w, v, c: v, "no bias of its own"),
        (lambda n, w, v, c: (2 * n + 1) * (2 - 2 * w), "for each of the D numbers"),
        (lambda n, w, v, c: -(v + c) * w, "The two tables are missing"),
        (lambda n, w, v, c: v * w, "count it once"),
        (lambda n, w, v, c: -w, "a gain and a bias, not one of them"),
        (lambda n, w, v, c: -w * n, "One bias of D numbers"),
        (lambda n, w, v, c: -2 * w * n, "one LayerNorm is missing, or the gains, or the biases"),
        (lambda n, w, v, c: -2 * w * n - w, "Each LayerNorm has two vectors"),
        (lambda n, w, v, c: -3 * w * n, "that of W_in has 4D numbers, not D"),
        (lambda n, w, v, c: 3 * w * n, "that of W_out has D numbers, not 4D"),
        (lambda n, w, v, c: -4 * w * n, "the biases of attention, that of W_in, or both LayerNorms"),
        (lambda n, w, v, c: -5 * w * n, "The biases of the MLP are missing"),
        (lambda n, w, v, c: 2 * w * n, "counted once"),
        (lambda n, w, v, c: 2 * w * n - 2 * w, "The LayerNorm after the last layer is counted in every layer"),
        (lambda n, w, v, c: (w // 64 - 1) * 4 * w**2 * n, "H · d = D: all heads together make D × D"),
        (lambda n, w, v, c: (w // 64 - 1) * 4 * (w**2 + w) * n, "H · d = D: all heads together make D × D"),
        (lambda n, w, v, c: (w // 64 - 1) * 3 * w**2 * n, "H · d = D: all heads together make D × D"),
        (lambda n, w, v, c: -4 * (w - 64) * w * n, "that of one head; a layer has H of them, and H · d = D."),
        (lambda n, w, v, c: -(4 * (w - 64) + 9) * w * n, "H · d = D, and all biases are missing."),
        (lambda n, w, v, c: -(w**2) * n, "One D × D matrix of attention"),
        (lambda n, w, v, c: -(8 * w**2 + 5 * w) * n, "The MLPs are missing"),
        (lambda n, w, v, c: -(4 * w**2 + 4 * w) * n, "all of attention, or W_in and its bias"),
    ],
)
def test_count_parameters_says_what_a_difference_means(off, says):
    verdict = exercises.check_count_parameters(lambda *sizes: count(*sizes) + off(*sizes))
    assert not verdict and says in verdict.message, verdict.message
    assert verdict.message.endswith(".") and "?." not in verdict.message


def test_a_number_is_no_function():
    assert "Write a function" in exercises.check_count_parameters(124_439_808).message


def test_a_difference_without_a_known_reason_is_given_none():
    sizes = exercises.GPT2_SIZES["GPT-2 small"][:4]
    for off in (1, -1, 12 * 768, 10**9):
        assert exercises._mistakes_of_count(off, *sizes) == ""


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


def blind_head(scale=0.5):
    """Position by position, and none sees itself."""

    def head(x, wq, wk, wv, bq, bk, bv):
        q, k, v = x @ wq + bq, x @ wk + bk, x @ wv + bv
        pattern = torch.zeros(len(x), len(x))
        for i in range(len(x)):
            pattern[i, :i] = (q[i] @ k[:i].T / bq.shape[0] ** scale).softmax(0)
        return pattern, pattern @ v

    return head


def test_a_loop_that_stops_before_the_position_itself_is_told_where_to_stop():
    assert "in a loop take `[: i + 1]`, not `[:i]`" in exercises.check_head(blind_head()).message
    both = exercises.check_head(blind_head(scale=0)).message
    assert "`[: i + 1]`" in both and "not divided" in both


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
        (lambda x, *weights: (((q := x @ weights[0]) * q).softmax(-1), (q * q) @ q), "T × T of them"),
        (lambda *inputs: solution_pattern(*inputs)[0], "Return two tensors"),
        (lambda *inputs: (solution_pattern(*inputs)[1], 0), "Return two tensors"),
        (lambda *inputs: [part.numpy() for part in solution_pattern(*inputs)], "arrays of numpy"),
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


def of_columns(a, b):
    q, r = torch.linalg.qr(a).Q, torch.linalg.qr(b).Q
    return (q.T @ r).square().sum() / len(a)


def with_outer_product(a, b):
    q, r = bases(a, b)
    return (q @ r.T).square().sum() / len(a)


def with_mean_of_cosines(a, b):
    return torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).mean() ** 2


def of_pairs(a, b):
    q, r = bases(a, b)
    return (q.T @ r).diagonal().square().mean()


def of_pairs_by_svd(a, b):
    q, r = (torch.linalg.svd(x, full_matrices=False).Vh for x in (a, b))
    return (q * r).sum(1).square().mean()


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
        (with_sum, "divide it by d, the number of rows"),
        (lambda a, b: with_sum(a, b) / a.shape[1], "divide by d = 4"),
        (lambda a, b: with_sum(a, b) / len(a) ** 2, "all d × d entries"),
        (lambda a, b: with_sum(a, b).sqrt(), "has the square of the norm, divided by d"),
        (lambda a, b: with_sum(a, b).sqrt() / len(a), "not squared yet"),
        (lambda a, b: (with_sum(a, b) / len(a)).sqrt(), "root of the mean square"),
        (of_columns, "makes *columns* orthonormal"),
        (with_outer_product, "makes *columns* orthonormal"),
        (with_mean_of_cosines, "before the mean"),
        (of_pairs, "all d × d pairs count"),
        (of_pairs_by_svd, "all d × d pairs count"),
        (without_squares, "the cosines themselves"),
        (with_cosines, "the cosines themselves"),
        (of_one_basis, "make the rows orthonormal first"),
        (lambda a, b: (a @ b.T).square().sum() / (a.norm() * b.norm()) ** 2, "the length of the whole matrix"),
        (without_bases, "not at right angles to each other; make them orthonormal first"),
    ],
)
def test_overlap_mistakes(mistake, says):
    verdict = exercises.check_overlap(mistake)
    assert not verdict and says in verdict.message, verdict.message


@pytest.mark.parametrize(
    "way",
    [
        lambda a, b: torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).square().mean(),
        lambda a, b: (torch.linalg.pinv(a) @ a @ torch.linalg.pinv(b) @ b).trace() / len(a),
        lambda a, b: torch.linalg.svd(a, full_matrices=False).Vh @ torch.linalg.svd(b, full_matrices=False).Vh.T,
        lambda a, b: np.linalg.qr(a.numpy().T)[0].T @ np.linalg.qr(b.numpy().T)[0],
    ],
)
def test_other_ways_to_the_overlap_are_right(way):
    def overlap(a, b):
        got = way(a, b)
        return got if got.ndim == 0 else (got**2).sum() / len(a)

    assert exercises.check_overlap(overlap), exercises.check_overlap(overlap).message


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
        (lambda p, n: p[:, n + 1 :, 2 : n + 2].mean((1, 2)), "each row has one column of its own"),
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
    assert exercises.check_prediction(right.upper(), alone, 9.0) and exercises.check_prediction(f"{right})", alone, 9.0)
    assert "one letter" in exercises.check_prediction("d", alone, 9.0).message
    assert "not answered yet" in exercises.check_prediction(None, alone, 9.0).message


def test_the_predictions_solution_is_what_was_measured_here():
    assert exercises.check_prediction(exercises.solution_prediction(), 0.86, 9.2)
