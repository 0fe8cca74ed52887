import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercises import right, wrong_and_told

from sae_tutorial.course.directions import exercises
from sae_tutorial.course.directions import search as directions


def wrong(verdict, says):
    assert not verdict.passed and says in verdict.message, verdict.message


@pytest.mark.parametrize("topic", ["analogy", "pursuit", "read", "bent"])
def test_stub_and_solution(topic):
    right(getattr(exercises, f"check_{topic}"), getattr(exercises, f"solution_{topic}"))


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (exercises.check_analogy, lambda unit, a, b, c: 39, "you say 39"),
        (exercises.check_pursuit, lambda x, dictionary, k: torch.zeros_like(x), "an error of"),
        (exercises.check_order, ["positions", "axes", "random", "PCA"], "other way round"),
        (exercises.check_read, lambda x, writers: x @ writers.T, "dot product"),
        (exercises.check_bent, lambda x: x, "it is linear"),
    ],
)
def test_the_hint_comes_with_the_second_wrong_answer(check, answer, says):
    wrong_and_told(check, answer, says)


def test_analogy_mistakes():
    check = exercises.check_analogy

    def with_inputs(unit, a, b, c):
        return int((unit @ (unit[a] - unit[b] + unit[c])).argmax())

    wrong(check(with_inputs), "leave them out")
    wrong(check(lambda unit, a, b, c: exercises.solution_analogy(unit, b, a, c)), "signs")
    wrong(check(lambda unit, a, b, c: unit @ (unit[a] - unit[b] + unit[c])), "id of one token")
    wrong(check(lambda unit, a, b, c: 39), "you say 39")

    def farthest(unit, a, b, c):
        distance_V = (unit - (unit[a] - unit[b] + unit[c])).norm(dim=1)
        distance_V[[a, b, c]] = 0
        return int(distance_V.argmax())

    wrong(check(farthest), "smallest distance (`argmin`)")

    def rows_removed(unit, a, b, c):
        others = torch.ones(len(unit), dtype=torch.bool)
        others[[a, b, c]] = False
        return (unit[others] @ (unit[a] - unit[b] + unit[c])).argmax()

    def rows_removed_by_distance(unit, a, b, c):
        others = [i for i in range(len(unit)) if i not in (a, b, c)]
        return int((unit[others] - (unit[a] - unit[b] + unit[c])).norm(dim=1).argmin())

    def rows_removed_in_numpy(unit, a, b, c):
        unit = unit.numpy()
        return (np.delete(unit, [a, b, c], axis=0) @ (unit[a] - unit[b] + unit[c])).argmax()

    for answer in (rows_removed, rows_removed_by_distance, rows_removed_in_numpy):
        wrong(check(answer), "the rows behind them move up")

    def similarity(unit, a, b, c):
        similarity_V = unit @ (unit[a] - unit[b] + unit[c])
        similarity_V[[a, b, c]] = -torch.inf
        return similarity_V

    wrong(check(lambda *question: int(similarity(*question).argmin())), "wins every time")
    wrong(check(lambda unit, a, b, c: a), "one of the three words of the question; leave them out")

    def either_sign(unit, a, b, c):
        similarity_V = (unit @ (unit[a] - unit[b] + unit[c])).abs()
        similarity_V[[a, b, c]] = -torch.inf
        return int(similarity_V.argmax())

    wrong(check(either_sign), "leave `abs` out")

    def with_floor(floor):
        def answer(unit, a, b, c):
            similarity_V = similarity(unit, a, b, c)
            similarity_V[[a, b, c]] = floor
            return similarity_V.argmax()

        return answer

    wrong(check(lambda unit, a, b, c: similarity(unit, a, b, c).max()), "a similarity; the answer is the id")
    wrong(check(lambda unit, a, b, c: float(similarity(unit, a, b, c).max())), "a similarity; the answer is the id")
    wrong(check(with_floor(0)), "lower than any other can be")
    wrong(check(with_floor(-1)), "lower than any other can be")
    assert check(with_floor(-9))

    def across(unit, a, b, c):
        return F.cosine_similarity(unit, (unit[a] - unit[b] + unit[c])[None], dim=0).argmax()

    wrong(check(across), "(`dim=1`)")
    wrong(check(lambda unit, a, b, c: int((unit * (unit[a] - unit[b] + unit[c])).sum(0).argmax())), "(`dim=1`)")


def similarities(unit, a, b, c):
    return unit @ (unit[a] - unit[b] + unit[c])


def distances(unit, a, b, c):
    return (unit - (unit[a] - unit[b] + unit[c])).norm(dim=1)


@pytest.mark.parametrize("end", ["argmax", "argmin"])
@pytest.mark.parametrize(("measure", "right_end"), [(similarities, "argmax"), (distances, "argmin")])
def test_the_wrong_end_is_told_apart_from_words_that_are_not_left_out(measure, right_end, end):
    def set_to(value):
        def answer(unit, a, b, c):
            score_V = measure(unit, a, b, c)
            score_V[[a, b, c]] = value
            return int(getattr(score_V, end)())

        return exercises.check_analogy(answer)

    wins = torch.inf if end == "argmax" else -torch.inf
    wrong(set_to(wins), "a word of the question wins every time")
    if end == right_end:
        assert set_to(-wins), set_to(-wins).message
    else:
        wrong(set_to(-wins), "farthest away")
        wrong(set_to(0), "farthest away")


def test_an_analogy_that_stops_is_told_why():
    check = exercises.check_analogy

    def left_out(score, write):
        def answer(unit, a, b, c):
            score_V = score(unit, unit[a] - unit[b] + unit[c])
            write(score_V, a, b, c)
            return int(score_V.argmax())

        return check(answer)

    def with_commas(score, a, b, c):
        score[a, b, c] = -9

    def as_list(score, a, b, c):
        score[[a, b, c]] = -9

    def two_commas(score, a, b, c):
        score[0, [a, b, c]] = -9

    cosine = lambda unit, target: (target @ unit.T) / (unit.norm(dim=1) * target.norm())  # noqa: E731
    for score in (cosine, lambda unit, target: unit.numpy() @ target.numpy(), lambda u, target: u @ target[:, None]):
        assert left_out(score, as_list)
        wrong(left_out(score, with_commas), "three entries of a list, or three rows, are `[[a, b, c]]`")
    wrong(check(lambda unit, a, b, c: unit[a, b, c].argmax()), "three rows, are `[[a, b, c]]`")
    wrong(left_out(cosine, two_commas), "It stopped with IndexError: too many indices")
    wrong(left_out(lambda unit, target: target[None] @ unit.T, as_list), "the shape (1, 40)")
    by_dimension = lambda unit, target: (unit @ target) / unit.norm(dim=0)  # noqa: E731
    wrong(left_out(by_dimension, as_list), "you combine 40 numbers, one for each token, with 8")
    as_table = lambda unit, target: (unit @ target) / unit.norm(dim=1, keepdim=True)  # noqa: E731
    wrong(left_out(as_table, as_list), "`argmax` of a table")
    wrong(check(lambda unit, a, b, c: unit @ unit), "It stopped with RuntimeError")


@pytest.mark.parametrize("read", [lambda unit, target: unit @ target, lambda unit, target: (unit * target).sum(1)])
def test_rows_of_minus_infinity_are_not_a_way_to_leave_words_out(read):
    def rows_set(unit, a, b, c):
        target, unit = unit[a] - unit[b] + unit[c], unit.clone()
        unit[[a, b, c]] = -torch.inf
        return int(read(unit, target).argmax())

    wrong(exercises.check_analogy(rows_set), "set the three *similarities*")


@pytest.mark.parametrize("floor", [-torch.inf, -9])
def test_the_second_word_can_win_as_well(floor):
    def without_the_second(unit, a, b, c):
        similarity_V = unit @ (unit[a] - unit[b] + unit[c])
        similarity_V[[a, c]] = floor
        return similarity_V.argmax()

    wrong(exercises.check_analogy(without_the_second), "*b* can win")


def test_other_ways_to_do_arithmetic_are_right():
    def in_numpy(unit, a, b, c):
        unit = unit.numpy().astype("float64")
        target = unit[a] - unit[b] + unit[c]
        return max((i for i in range(len(unit)) if i not in (a, b, c)), key=lambda i: unit[i] @ target)

    def by_distance(unit, a, b, c):
        distance = (unit - (unit[a] - unit[b] + unit[c])).norm(dim=1)
        distance[[a, b, c]] = torch.inf
        return distance.argmin()

    def by_cosine(unit, a, b, c):
        cosine = F.cosine_similarity(unit, (unit[a] - unit[b] + unit[c])[None], dim=1)
        cosine[[a, b, c]] = -2
        return float(cosine.argmax(dim=0))

    def rows_removed_and_found_again(unit, a, b, c):
        others = [i for i in range(len(unit)) if i not in (a, b, c)]
        return others[int((unit[others] @ (unit[a] - unit[b] + unit[c])).argmax())]

    def rows_turned_in_place(unit, a, b, c):
        target = unit[a] - unit[b] + unit[c]
        unit[[a, b, c]] = -target
        return int((unit @ target).argmax())

    for answer in (in_numpy, by_distance, by_cosine, rows_removed_and_found_again, rows_turned_in_place):
        verdict = exercises.check_analogy(answer)
        assert verdict, verdict.message


def test_the_librarys_pursuit_is_right_as_well():
    assert exercises.check_pursuit(directions.reconstruction)


def greedy(x, dictionary, k, choose=torch.abs, refit=True):
    """Token by token, with the normal equations."""
    guess = torch.zeros_like(x)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            chosen.append(int(choose(dictionary @ left).argmax()))
            atoms = dictionary[chosen]
            left = x[row] - atoms.T @ torch.linalg.solve(atoms @ atoms.T, atoms @ x[row])
        guess[row] = x[row] - left
    return guess


def test_another_way_to_pursue_is_right():
    verdict = exercises.check_pursuit(greedy)
    assert verdict, verdict.message


def solved_as(x, dictionary, k, shared_from):
    """Right below `shared_from` directions, and from there on one choice for all."""
    if k < shared_from:
        return exercises.solution_pursuit(x, dictionary, k)
    return x @ torch.linalg.pinv(dictionary[:k]) @ dictionary[:k]


def test_pursuit_mistakes():
    check = exercises.check_pursuit

    def once_for_all(x, dictionary, k):
        chosen = (x @ dictionary.T).abs().topk(k, dim=1).indices
        atoms = dictionary[chosen].mT
        return (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]

    def along_the_first_axis(x, dictionary, k):
        left, chosen = x, []
        for _ in range(k):
            chosen.append((left @ dictionary.T).abs().argmax(1))
            atoms = dictionary[torch.stack(chosen)].mT
            left = x - (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]
        return x - left

    wrong(check(along_the_first_axis), "less error than any one direction can")
    one_more = lambda x, dictionary, k: directions.reconstruction(x, dictionary, k + 1)  # noqa: E731
    wrong(check(one_more), "one step too many")

    def plain(x, dictionary, k):
        guess = torch.zeros_like(x)
        for _ in range(k):
            overlap = (x - guess) @ dictionary.T
            best = overlap.abs().argmax(1)
            guess = guess + overlap.gather(1, best[:, None]) * dictionary[best]
        return guess

    wrong(check(lambda x, d, k: greedy(x, d, k, choose=lambda overlap: overlap)), "negative")
    wrong(check(once_for_all), "choose each by what is still left")
    wrong(check(plain), "newest coefficient")

    def dots_at_once(x, dictionary, k):
        z = x @ dictionary.T
        weak = z.abs() < z.abs().topk(k, dim=1).values[:, -1:]
        return z.masked_fill(weak, 0) @ dictionary

    def dots_step_by_step(x, dictionary, k):
        guess = torch.zeros_like(x)
        for _ in range(k):
            best = ((x - guess) @ dictionary.T).abs().argmax(1)
            guess = guess + (x * dictionary[best]).sum(1, keepdim=True) * dictionary[best]
        return guess

    wrong(check(dots_at_once), "the coefficients are plain dot products; what two")
    wrong(check(dots_step_by_step), "one by one, but with plain dot products")

    def shared(x, dictionary, k, score):
        atoms = dictionary[score(x @ dictionary.T).topk(k).indices].T
        return (atoms @ torch.linalg.lstsq(atoms, x.T).solution).T

    for score in (
        lambda z: z.abs().sum(0),
        lambda z: z.square().sum(0),
        lambda z: z.abs().amax(0),
        lambda z: z[0].abs(),
    ):
        wrong(check(lambda x, d, k, score=score: shared(x, d, k, score)), "all tokens share the same direction;")
    wrong(check(lambda x, d, k: solved_as(x, d, k, 2)), "all tokens share the same 2 directions")
    wrong(check(lambda x, d, k: x - exercises.solution_pursuit(x, d, k)), "what is left; return x̂")
    wrong(check(lambda x, d, k: d[(x @ d.T).abs().argmax(1)]), "how much of it")
    wrong(check(directions.pursuit), "It stopped")
    wrong(check(lambda x, d, k: directions.pursuit(x, d, k)[0]), "return x̂")


def test_slips_in_what_is_left():
    check = exercises.check_pursuit

    def without_sign(x, dictionary, k):
        left = x.clone()
        for _ in range(k):
            best = (left @ dictionary.T).abs().max(1)
            left -= best.values[:, None] * dictionary[best.indices]
        return x - left

    def fitted(x, dictionary, chosen):
        atoms = dictionary[torch.stack(chosen, dim=1)].mT
        return (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]

    def taken_twice(x, dictionary, k):
        left, chosen = x.clone(), []
        for _ in range(k):
            chosen.append((left @ dictionary.T).abs().argmax(1))
            left -= fitted(x, dictionary, chosen)
        return x - left

    def written_into_x(x, dictionary, k):
        left, chosen = x, []
        for _ in range(k):
            chosen.append((left @ dictionary.T).abs().argmax(1))
            left -= fitted(x, dictionary, chosen)
        return x - left

    def plain_into_x(x, dictionary, k):
        left, guess = x, torch.zeros_like(x)
        for _ in range(k):
            atom = dictionary[(left @ dictionary.T).abs().argmax(1)]
            part = (left * atom).sum(1, keepdim=True) * atom
            left -= part
            guess += part
        return guess

    wrong(check(without_sign), "lost their sign")
    wrong(check(taken_twice), "off what is left")
    wrong(check(written_into_x), "`left = x_BD.clone()`")
    wrong(check(plain_into_x), "newest coefficient")  # it writes into x, too, but that does not matter


def pursued(x, dictionary, k, choose=lambda table: table.argmax(1), turn=lambda atoms: atoms.mT):
    """The notebook's solution, with other ways to choose and to hand the directions to `lstsq`."""
    left, chosen = x, []
    for _ in range(k):
        chosen.append(choose((left @ dictionary.T).abs()))
        atoms = turn(dictionary[torch.stack(chosen, dim=1)])
        left = x - (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]
    return x - left


def test_pursuit_that_stops_is_told_why():
    check = exercises.check_pursuit
    for way in (lambda table: table.argmax(axis=1), lambda table: torch.argmax(input=table, dim=-1)):
        assert check(lambda x, d, k, way=way: pursued(x, d, k, choose=way))
    by_axis = lambda x, d, k: pursued(x, d, k, lambda table: table.argmax(axis=1), lambda atoms: atoms.mT[:3])  # noqa: E731
    wrong(check(by_axis), "It stopped with RuntimeError")
    wrong(check(lambda x, d, k: pursued(x, d, k, choose=lambda table: table.argmax())), "one number for all tokens")
    wrong(check(lambda x, d, k: pursued(x, d, k, choose=torch.argmax)), "one number for all tokens")
    for over_tokens in (lambda table: table.argmax(0), lambda table: torch.argmax(table, dim=-2)):
        wrong(check(lambda x, d, k, way=over_tokens: pursued(x, d, k, choose=way)), "one token for each direction")

    def at_once(x, dictionary, k):
        return dictionary[(x @ dictionary.T).abs().argmax()]

    wrong(check(at_once), "one number for all tokens")
    wrong(check(lambda x, d, k: pursued(x, d, k, turn=lambda atoms: atoms)), "swap the last two axes, `.mT`")
    # what stops for another reason is not explained away
    wrong(check(lambda x, d, k: pursued(x, d, k, turn=lambda atoms: atoms.mT[:3])), "It stopped with RuntimeError")
    wrong(check(lambda x, d, k: x @ x), "It stopped with RuntimeError")


def test_a_single_refit_at_the_end():
    def one_refit(x, dictionary, k):
        left, chosen = x, []
        for _ in range(k):
            chosen.append((left @ dictionary.T).abs().argmax(1))
            atom = dictionary[chosen[-1]]
            left = left - (left * atom).sum(1, keepdim=True) * atom
        atoms = dictionary[torch.stack(chosen, dim=1)].mT
        return (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]

    wrong(exercises.check_pursuit(one_refit), "only once, at the end")


def test_the_order_is_judged_pair_by_pair():
    check = exercises.check_order
    assert check(exercises.solution_order()) and check(("axes", "random", "PCA", "positions"))
    assert "not answered yet" in check(None).message
    wrong(check(["axes", "PCA"]), "each once")
    wrong(check(["positions", "PCA", "random", "axes"]), "begin with the worst")
    wrong(check(["axes", "random", "positions", "PCA"]), "the place of PCA")
    wrong(check(["random", "axes", "PCA", "positions"]), "more to choose from")
    wrong(check(["positions", "axes", "random", "PCA"]), "3 of the 6 pairs")
    wrong(check(["axes", "random", "PCA", "k-means"]), "each once")
    wrong(check(4), "each once")


@pytest.mark.parametrize(
    "answer",
    ["axes, random, pca, positions", "axes < random < PCA < positions", ["Axes", " random", "PCA", "Positions"]],
)
def test_an_order_is_understood_in_any_notation(answer):
    assert exercises.check_order(answer)


def test_reading_mistakes():
    check = exercises.check_read
    wrong(check(lambda x, w: x @ w.T), "with writer 1 also sees what writer 2 wrote")
    wrong(check(lambda x, w: x @ torch.nn.functional.normalize(torch.linalg.pinv(w), dim=0)), "wrong length")
    wrong(check(lambda x, w: x @ torch.linalg.inv(w)), "square matrix")
    wrong(check(lambda x, w: x @ torch.linalg.pinv(w) @ w), "return z")
    wrong(check(lambda x, w: x @ torch.linalg.pinv(w).T), "without a transpose")
    wrong(check(lambda x, w: x @ w), "once more")
    wrong(check(lambda x, w: (x @ w.T).sum(1)), "not (5, 2)")
    wrong(check(lambda x, w: torch.linalg.lstsq(w.T, x.T).solution), "transpose it")
    wrong(check(lambda x, w: x @ torch.linalg.qr(w.T).Q), "made the writers orthogonal")
    wrong(check(lambda x, w: x @ torch.linalg.svd(w, full_matrices=False).Vh.T @ torch.eye(2)), "should be (0, 1)")
    overlap = lambda w: w @ w.T - torch.eye(len(w))  # noqa: E731
    wrong(check(lambda x, w: x @ w.T - x @ w.T @ overlap(w)), "wrong length")
    wrong(check(lambda x, w: exercises.solution_read(x, w).relu()), "cut off at 0")
    wrong(check(lambda x, w: exercises.solution_read(x, w).abs()), "lost its sign")
    wrong(check(lambda x, w: exercises.solution_read(x, w).clamp_max(1.5)), "z = (0.50, 2.00)")
    wrong(check(lambda x, w: x), "return z")


@pytest.mark.parametrize(
    "divided",
    [
        lambda x, w: (x @ w.T) / w.sum(1),
        lambda x, w: (x @ w.T) / w.norm(),
        lambda x, w: (x @ w.T) / (w @ w.T).sum(1),
        lambda x, w: (x @ w.T) / (x @ w.T).sum(1, keepdim=True),
    ],
)
def test_dividing_dot_products_does_not_turn_a_reader(divided):
    wrong(exercises.check_read(divided), "divided by a number still sees")


def test_dividing_by_a_matrix_is_not_undoing_it():
    wrong(exercises.check_read(lambda x, w: (x @ w.T) / (w @ w.T)), "multiply by its inverse")
    wrong(exercises.check_read(lambda x, w: x @ x), "It stopped with RuntimeError")


@pytest.mark.parametrize("left", [torch.linalg.pinv, torch.linalg.inv, lambda w: w, lambda w: torch.linalg.inv(w).T])
def test_a_matrix_left_of_the_table_mixes_its_rows(left):
    wrong(exercises.check_read(lambda x, w: left(w) @ x), "stands right of it")


def test_a_system_of_equations_left_of_the_table_mixes_its_rows():
    wrong(exercises.check_read(lambda x, w: torch.linalg.solve(w, x)), "stands right of it")
    wrong(exercises.check_read(lambda x, w: torch.linalg.lstsq(w, x).solution), "stands right of it")


def test_least_squares_reads_as_well():
    verdict = exercises.check_read(lambda x, w: torch.linalg.lstsq(w.T, x.T).solution.T)
    assert verdict, verdict.message
    verdict = exercises.check_read(lambda x, w: x @ w.T @ torch.linalg.inv(w @ w.T))
    assert verdict, verdict.message


def test_bent_mistakes():
    check = exercises.check_bent
    wrong(check(lambda x: x), "it is linear")
    wrong(check(lambda x: 3 * x - 1), "it is linear")
    wrong(check(lambda x: x**1.1), "hardly")
    wrong(check(lambda x: x.softmax(1)), "explains 99.97% of it")
    wrong(check(lambda x: x.log()), "infinite")
    wrong(check(lambda x: (x - 0.5).sqrt()), "no number")
    wrong(check(lambda x: torch.cat([x, x[:, :1] * x[:, 1:]], dim=1)), "multiply")
    wrong(check(lambda x: (torch.pi * x[:, :1]).cos()), "nothing changes when feature 2 does")
    wrong(check(lambda x: x.sum()), "one row per sample")
    wrong(check(lambda x: x**2 @ torch.randn(2, 24)), "outside of the function")
    wrong(check(lambda x: x**2 + 0.01 * torch.randn_like(x)), "add no noise")
    hidden = lambda x: 5 * (2 * torch.pi * x).sin().prod(1, keepdim=True)  # noqa: E731  zero at 0, 1/2 and 1
    wrong(check(lambda x: torch.cat([x**3, hidden(x)], dim=1)), "multiply")


@pytest.mark.parametrize(
    "curve",
    [
        lambda x: torch.cat([(6 * x).sin(), (6 * x).cos()], dim=1),
        lambda x: (torch.pi * x).sin(),  # the same at x and 1 − x
        lambda x: (x - 0.5) ** 2,
        lambda x: (x - 0.5).abs(),
        lambda x: x**2,
        lambda x: 1e-4 * x**2,
        torch.sqrt,
        lambda x: x.exp(),
        lambda x: x.square_(),  # in place
        lambda x: x.numpy() ** 2,
        lambda x: (x > 0.5).float(),
    ],
)
def test_other_curves_are_right_as_well(curve):
    verdict = exercises.check_bent(curve)
    assert verdict, verdict.message


@pytest.mark.parametrize(("curve", "share"), [(lambda x: x**2, 15 / 16), (exercises.solution_bent, 0.829)])
def test_the_praise_says_how_linear_it_was(curve, share):
    """Closed forms for x uniform on [0, 1]: 15/16, and 48/π⁴ / (1 − 4/π²) for half a circle."""
    said = float(re.search(r"explains ([\d.]+)%", exercises.check_bent(curve).message)[1])
    assert said == pytest.approx(100 * share, abs=1)
