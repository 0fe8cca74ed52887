"""Exercises of notebook 03: what a feature is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sae_tutorial.course.directions import hierarchy
from sae_tutorial.course.directions import search as directions
from sae_tutorial.course.judge import Verdict, judge

# Exercise 2: arithmetic with embeddings.


def check_analogy(answer: Any) -> Verdict:
    """`answer(unit_VD, a, b, c)`: the token nearest to a − b + c by cosine, the three themselves left out."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator), dim=1)
    parallelogram = unit.clone()
    parallelogram[3] = unit[0] - unit[1] + unit[2]
    parallelogram = torch.nn.functional.normalize(parallelogram, dim=1)

    # the first and third word are alike, the second is their opposite, all others point away from a − b + c
    away = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-0.8, 0.6], [-0.6, 0.8], [-0.8, -0.6]])
    # a and c are alike, and b is nearer to a − b + c than any other: only b can win where a and c are left out
    second = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.6, 0.8], [-0.9, -0.4], [-0.6, -0.8], [-0.8, -0.6]])
    second = torch.nn.functional.normalize(second, dim=1)
    low = (
        "you leave the words of the question out where others have a positive similarity; where all others have 0 or "
        "less, a word of the question wins. Set theirs lower than any other can be: `-torch.inf`"
    )

    def one_token(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(unit, 0, 1, 2))
        if got.numel() != 1:
            return f"you return {got.numel()} numbers; the answer is the id of one token"
        if float(got) != round(float(got)):
            return f"you return {float(got):.2f}, a similarity; the answer is the id of the token that has it: `argmax`"
        if int(got) >= len(unit):
            return (
                f"you return {int(got)}; the tokens here are 0 to {len(unit) - 1}. `argmax` of a table counts through "
                "all of it: compute one similarity for each token"
            )
        return None

    def compares_tokens(answer: Callable) -> str | None:
        questions = (0, 1, 2), (3, 4, 5), (5, 6, 7)  # ids below 8: there are as many dimensions
        got = [int(answer(unit, *question)) for question in questions]
        right = [solution_analogy(unit, *question) for question in questions]
        if got != right and got in [[mistake(unit, *q) for q in questions] for mistake in _across_tokens()]:
            return (
                "you add up over the tokens, and get one number for each *dimension*; a dot product adds up over the "
                "dimensions (`dim=1`), and gives one number for each token"
            )
        return None

    def keeps_the_ids(answer: Callable) -> str | None:
        questions = (0, 1, 2), (3, 4, 5), (5, 6, 7), (9, 30, 11)
        got = [int(answer(unit, *question)) for question in questions]
        if got == [_without_rows(unit, *question) for question in questions]:
            return (
                "you take the three rows of the question away, so the rows behind them move up, and you return a place "
                "in the shorter list. Keep all rows, and see to it that those three cannot win: `-torch.inf`"
            )
        return None

    def leaves_the_question_out(answer: Callable) -> str | None:
        lowest = [(second, (0, 1, 2)), (second, (5, 4, 3)), (unit, (7, 6, 5)), (unit, (6, 5, 7))]
        if all(int(answer(u, *question)) == min(question) for u, question in lowest):  # the first of three that tie
            return (
                "a word of the question wins every time. With similarities, set those three to `-torch.inf` and take "
                "`argmax`; with distances, set them to `torch.inf` and take `argmin`"
            )
        elsewhere = ((5, 6, 7), (9, 30, 11))  # other tokens have positive similarities there
        corners = (0, 1, 2), *elsewhere  # in the first of them a large |similarity| is the right one
        if all(int(answer(parallelogram, *question)) == _farthest(parallelogram, *question) for question in corners):
            return (
                "you return the token that is farthest away: the nearest has the largest similarity (`argmax`), or the "
                "smallest distance (`argmin`)"
            )
        rows = [(unit, (0, 1, 2)), (parallelogram, (0, 1, 2)), (away, (0, 1, 2)), (unit, (7, 6, 5))]
        if all(int(answer(u, *question)) == _rows_of_minus_infinity(u, *question) for u, question in rows):
            return (
                "a row of −inf times a negative number is +inf, and a sum of both is no number, so a word of the "
                "question still wins. Leave the rows as they are, and set the three *similarities* to `-torch.inf`"
            )
        lone = torch.eye(6)  # unrelated words: the nearest to a − b + c are a and c themselves
        if int(answer(lone, 0, 1, 2)) in (0, 1, 2):
            left_out = all(int(answer(parallelogram, *question)) not in question for question in elsewhere)
            return low if left_out else "the answer is one of the three words of the question; leave them out"
        if int(answer(away, 0, 1, 2)) in (0, 1, 2):
            return low
        return "you leave *a* and *c* out, but *b* can win, too" if int(answer(second, 0, 1, 2)) == 1 else None

    def finds_the_corner(answer: Callable) -> str | None:
        questions = (0, 1, 2), (5, 6, 7), (9, 30, 11)
        every = [int(answer(parallelogram, *question)) for question in questions]
        if every != [solution_analogy(parallelogram, *question) for question in questions] and every == [
            _either_sign(parallelogram, *question) for question in questions
        ]:
            return "a token that points the other way has a large |similarity|, too; leave `abs` out"
        for a, b, c in questions:
            got, right = int(answer(parallelogram, a, b, c)), solution_analogy(parallelogram, a, b, c)
            if got != right:
                if got == solution_analogy(parallelogram, b, a, c) or got == solution_analogy(parallelogram, a, c, b):
                    return "the signs are mixed up: it is a − b + c"
                return f"for a, b, c = {a}, {b}, {c} it is token {right}; you say {got}"
        return None

    tests = [one_token, compares_tokens, keeps_the_ids, leaves_the_question_out, finds_the_corner]
    hints = (
        "the rows have length 1: what does a dot product of two of them measure?",
        "compare all tokens with one vector at once, and see to it that three of them cannot win.",
    )
    asked = _analogy_asked(answer) if callable(answer) else answer
    return judge("Exercise 2", asked, tests, hints, "That is the parallelogram. Try words of your own.")


def solution_analogy(unit_VD: Tensor, a: int, b: int, c: int) -> int:
    """The token nearest to a − b + c."""
    similarity_V = unit_VD @ (unit_VD[a] - unit_VD[b] + unit_VD[c])
    similarity_V[[a, b, c]] = -torch.inf
    return int(similarity_V.argmax())


def _analogy_asked(answer: Callable) -> Callable:
    """`answer` with a unit matrix of its own to write into; says why if it stops at an index or a size."""

    def asked(unit_VD: Tensor, *question: int) -> Any:
        with _Calls() as calls:
            try:
                return answer(unit_VD.clone(), *question)
            except (IndexError, RuntimeError) as error:
                if words := _stopped_at(str(error), calls, unit_VD):
                    raise AssertionError(words) from error
                raise

    return asked


def _stopped_at(error: str, calls: _Calls, unit_VD: Tensor) -> str | None:
    """The likely reason why an answer to exercise 2 stopped."""
    (n_tokens, dims), (shape, index) = unit_VD.shape, calls.place
    commas = isinstance(index, tuple) and [type(i) for i in index] == [int] * 3
    if "too many indices" in error and (commas or "3 were indexed" in error):
        return (
            "`[a, b, c]` is *one* entry of a table with three dimensions; three entries of a list, or three rows, are "
            "`[[a, b, c]]`"
        )
    if "out of bounds" in error and shape == (1, n_tokens):
        return (
            f"your similarities have the shape (1, {n_tokens}), a table with one row, so `[[a, b, c]]` means rows that "
            "it does not have: take row 0 first"
        )
    if f"({n_tokens}) must match" in error and f"({dims}) at" in error:
        return (
            f"you combine {n_tokens} numbers, one for each token, with {dims}, one for each *dimension*. Dot products "
            "and norms of tokens add up over the dimensions (`dim=1`)"
        )
    return None


def _across_tokens() -> list[Callable[[Tensor, int, int, int], int]]:
    """Similarities along the wrong axis, one for each dimension: sums or cosines, the question left out or not."""

    def way(cosine: bool, leave_out: bool) -> Callable[[Tensor, int, int, int], int]:
        def answer(unit_VD: Tensor, a: int, b: int, c: int) -> int:
            target_D = unit_VD[a] - unit_VD[b] + unit_VD[c]
            product_D = (unit_VD * target_D).sum(0)
            if cosine:
                product_D = torch.nn.functional.cosine_similarity(unit_VD, target_D.expand_as(unit_VD), dim=0)
            if leave_out:
                product_D[[a, b, c]] = -torch.inf
            return int(product_D.argmax())

        return answer

    return [way(cosine, leave_out) for cosine in (False, True) for leave_out in (False, True)]


def _without_rows(unit_VD: Tensor, a: int, b: int, c: int) -> int:
    """Where the nearest stands among the tokens that are left when the rows of the question are taken away."""
    left_V = [i for i in range(len(unit_VD)) if i not in (a, b, c)]
    return left_V.index(solution_analogy(unit_VD, a, b, c))


def _rows_of_minus_infinity(unit_VD: Tensor, a: int, b: int, c: int) -> int:
    """What wins if the rows of the question, and not their similarities, are set to −inf: nan counts as largest."""
    rows_VD = unit_VD.clone()
    rows_VD[[a, b, c]] = -torch.inf
    return int((rows_VD @ (unit_VD[a] - unit_VD[b] + unit_VD[c])).argmax())


def _either_sign(unit_VD: Tensor, a: int, b: int, c: int) -> int:
    """The largest similarity in absolute value, the question left out."""
    similarity_V = (unit_VD @ (unit_VD[a] - unit_VD[b] + unit_VD[c])).abs()
    similarity_V[[a, b, c]] = -torch.inf
    return int(similarity_V.argmax())


def _farthest(unit_VD: Tensor, a: int, b: int, c: int) -> int:
    """The largest distance in place of the smallest, the question left out."""
    distance_V = (unit_VD - (unit_VD[a] - unit_VD[b] + unit_VD[c])).norm(dim=1)
    distance_V[[a, b, c]] = -torch.inf
    return int(distance_V.argmax())


# Exercise 3: matching pursuit.


def check_pursuit(answer: Any) -> Verdict:
    """`answer(x_BD, dictionary_FD, k)`: x̂ from k directions per token, all refitted after each choice."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator)
    dictionary = torch.nn.functional.normalize(torch.randn(15, 6, generator=generator), dim=1)
    overlapping = (
        "what two directions have in common counts twice unless they are at a right angle. Fit all the chosen ones "
        "to x together (least squares)"
    )
    mistakes = {
        "you look for the largest dot product; a direction with a large *negative* one serves as well": _signed,
        "you choose all k by what they have in common with x; choose each by what is still left of x": _all_at_once,
        "only the newest coefficient is fitted; fit all the chosen directions to x together, each time": _plain,
        f"the coefficients are plain dot products; {overlapping}": _unfitted,
        f"you choose one by one, but with plain dot products of x as coefficients; {overlapping}": _unfitted_steps,
        "you choose one by one, and fit all of them together only once, at the end. Fit them after each choice: the "
        "next direction is chosen by what that fit leaves of x": _one_refit,
        "your coefficients have lost their sign: take the direction from `abs()`, the coefficient from the dot "
        "products themselves": _without_sign,
        "you take a fit *of x* off what is left, so it comes off again at each step: `left = x − fit`": _taken_twice,
        "you fit the residual again with the old directions, and forget what they already explain": _forgets,
    }

    def tried(answer: Callable, k: int) -> tuple[Tensor, bool]:
        """What the answer returns, and whether it wrote into x on the way."""
        given = x.clone()
        with _Calls() as calls:
            try:
                got = torch.as_tensor(answer(given, dictionary.clone(), k)).float()
            except (IndexError, RuntimeError, TypeError) as error:
                if words := calls.mistake(len(x), len(dictionary), x.shape[1]):
                    raise AssertionError(words) from error
                raise
        return got, not torch.equal(given, x)

    def right_shape(answer: Callable) -> str | None:
        got = tried(answer, 1)[0].shape
        return None if got == x.shape else f"x has shape {tuple(x.shape)}, you return {tuple(got)}; return x̂"

    def told(got: Tensor, right: Tensor, wrote: bool, k: int) -> str:
        words = _named(x, got, mistakes, dictionary, k)
        if words is None and wrote:
            return (
                "your answer changes x itself: after `left = x_BD` both names mean one tensor, and `left -= …` writes "
                "into it. Begin with `left = x_BD.clone()`"
            )
        if words is None and k == 1 and ((x - got).norm(dim=1) < (x - right).norm(dim=1) - 1e-3).any():
            return (
                "yours leaves less error than any one direction can, so each token's fit uses more than its own k "
                "directions: those of other tokens, if you stack along dim 0 (`torch.stack(chosen, dim=1)`), or those "
                "of one step too many"
            )
        return words or _how_far_off(x, got, right, k)

    def one_direction(answer: Callable) -> str | None:
        (got, wrote), right = tried(answer, 1), directions.reconstruction(x, dictionary, 1)
        if torch.allclose(got, x - right, atol=1e-4):
            return "you return what is left; return x̂, what the chosen directions give"
        chosen = directions.pursuit(x, dictionary, 1)[0][:, 0]
        if torch.allclose(got, dictionary[chosen], atol=1e-4):
            return "you return the direction itself; how much of it is in x?"
        return None if torch.allclose(got, right, atol=1e-4) else told(got, right, wrote, 1)

    def several_directions(answer: Callable) -> str | None:
        for k in (2, 3, 5):
            (got, wrote), right = tried(answer, k), directions.reconstruction(x, dictionary, k)
            if not torch.allclose(got, right, atol=1e-3):
                return told(got, right, wrote, k)
        return None

    hints = (
        "keep what is left of every token in a variable of its own; the next direction is chosen by that, "
        "the coefficients are fitted to x.",
        "`dictionary_FD[chosen_BK]` has shape (B, k, D); `torch.linalg.lstsq` solves all B least-squares problems.",
    )
    tests = [right_shape, one_direction, several_directions]
    return judge("Exercise 3", answer, tests, hints, "That is matching pursuit. Set `use_mine = True` to run on it.")


def solution_pursuit(x_BD: Tensor, dictionary_FD: Tensor, k: int) -> Tensor:
    """Orthogonal matching pursuit: x̂ (tokens, dims)."""
    left_BD, chosen = x_BD, []
    for _ in range(k):
        chosen.append((left_BD @ dictionary_FD.T).abs().argmax(1))
        atoms_BDK = dictionary_FD[torch.stack(chosen, dim=1)].mT
        z_BK1 = torch.linalg.lstsq(atoms_BDK, x_BD[:, :, None]).solution
        left_BD = x_BD - (atoms_BDK @ z_BK1)[:, :, 0]
    return x_BD - left_BD


class _Calls(TorchFunctionMode):
    """Keeps what `argmax`, `lstsq` and `[…]` were asked, for an answer that stops: PyTorch's message names none."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[tuple[int, ...], int | None]] = []  # the shapes that argmax saw, and its dim
        self.matrix: tuple[int, ...] = ()  # the shape of the last matrix that lstsq was to solve with
        self.place: tuple[tuple[int, ...], Any] = (), None  # the last shape in which [index] was looked up, and index

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        first = args[0] if args else kwargs.get("input", kwargs.get("A"))
        if name == "argmax" and isinstance(first, Tensor):
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
            self.tables.append((tuple(first.shape), dim))
        if name == "linalg_lstsq" and isinstance(first, Tensor):
            self.matrix = tuple(first.shape)
        if name in ("__getitem__", "__setitem__") and isinstance(first, Tensor):
            self.place = tuple(first.shape), args[1]
        return function(*args, **kwargs)

    def mistake(self, n_tokens: int, n_directions: int, dims: int) -> str | None:
        """The likely reason why the answer stopped."""
        sizes = {n_tokens, n_directions}
        for shape, dim in self.tables:
            if set(shape) == sizes and (dim is None or shape[dim] == n_tokens):
                found = "one number for all tokens" if dim is None else "one token for each direction"
                return (
                    f"your `argmax` gives {found}; each token needs a direction of its own: one `argmax` for each row "
                    "of x @ dictionary_FD.T (`dim=1`)"
                )
        if len(self.matrix) == 3 and self.matrix[2] == dims != self.matrix[1]:
            return (
                f"`lstsq` wants the chosen directions as columns, (B, D, k), and gets {self.matrix}: swap the last two "
                "axes, `.mT`"
            )
        return None


def _named(x: Tensor, got: Tensor, mistakes: dict[str, Callable], dictionary: Tensor, k: int) -> str | None:
    """What was done instead, if it is one of the likely mistakes."""
    for complaint, mistake in mistakes.items():
        if torch.allclose(got, mistake(x, dictionary, k), atol=1e-3):
            return complaint
    if 0 < torch.linalg.matrix_rank(got, rtol=1e-4) <= k < min(x.shape):
        return (
            f"all tokens share the same {'direction' if k == 1 else f'{k} directions'}; let each token choose its own: "
            "one `argmax` for each row (`dim=1`)"
        )
    return None


def _how_far_off(x: Tensor, got: Tensor, right: Tensor, k: int) -> str:
    row = int((got - right).square().sum(1).argmax())
    left = [float((x[row] - guess[row]).square().sum()) for guess in (got, right)]
    return f"with k = {k}, token {row} should be left with an error of {left[1]:.3f}; yours leaves {left[0]:.3f}"


def _fit(x: Tensor, dictionary: Tensor, chosen: list[Tensor]) -> Tensor:
    atoms = dictionary[torch.stack(chosen, dim=1)].mT
    return (atoms @ torch.linalg.lstsq(atoms, x[:, :, None]).solution)[:, :, 0]


def _signed(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    chosen: list[Tensor] = []
    fit = torch.zeros_like(x)
    for _ in range(k):
        chosen.append(((x - fit) @ dictionary.T).argmax(1))
        fit = _fit(x, dictionary, chosen)
    return fit


def _all_at_once(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    return _fit(x, dictionary, list((x @ dictionary.T).abs().topk(k, dim=1).indices.T))


def _plain(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    left = x
    for _ in range(k):
        atom = dictionary[(left @ dictionary.T).abs().argmax(1)]
        left = left - (left * atom).sum(1, keepdim=True) * atom
    return x - left


def _without_sign(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    left = x
    for _ in range(k):
        size, chosen = (left @ dictionary.T).abs().max(1)
        left = left - size[:, None] * dictionary[chosen]
    return x - left


def _taken_twice(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    chosen: list[Tensor] = []
    left = x
    for _ in range(k):
        chosen.append((left @ dictionary.T).abs().argmax(1))
        left = left - _fit(x, dictionary, chosen)
    return x - left


def _one_refit(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    left, chosen = x, []
    for _ in range(k):
        chosen.append((left @ dictionary.T).abs().argmax(1))
        atom = dictionary[chosen[-1]]
        left = left - (left * atom).sum(1, keepdim=True) * atom
    return _fit(x, dictionary, chosen)


def _unfitted(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    overlap = x @ dictionary.T
    chosen = overlap.abs().topk(k, dim=1).indices
    return torch.einsum("bk,bkd->bd", overlap.gather(1, chosen), dictionary[chosen])


def _unfitted_steps(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    overlap, guess = x @ dictionary.T, torch.zeros_like(x)
    for _ in range(k):
        chosen = ((x - guess) @ dictionary.T).abs().argmax(1)
        guess = guess + overlap.gather(1, chosen[:, None]) * dictionary[chosen]
    return guess


def _forgets(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    chosen: list[Tensor] = []
    left, fit = x, torch.zeros_like(x)
    for _ in range(k):
        chosen.append((left @ dictionary.T).abs().argmax(1))
        fit = _fit(left, dictionary, chosen)
        left = left - fit
    return fit


# Exercise 4: which dictionary will win?

WORST_FIRST = ("axes", "random", "PCA", "positions")


def check_order(answer: Any) -> Verdict:
    """`answer`: the names of four dictionaries, from the one that explains least to the one that explains most.

    A list, or one string with commas, spaces or "<" between the names; capitals do not matter.
    """
    listed = answer if answer is None else _listed(answer)

    def all_four(names: list[str]) -> str | None:
        if sorted(names) == sorted(WORST_FIRST):
            return None
        return f"list these four, each once: {', '.join(sorted(WORST_FIRST))}"

    def in_order(names: list[str]) -> str | None:
        if names == list(WORST_FIRST[::-1]):
            return "if you began with the best: begin with the worst. If not, every pair is the other way round"
        wrong = [pair for pair in _pairs(WORST_FIRST) if names.index(pair[0]) > names.index(pair[1])]
        if not wrong:
            return None
        if wrong == [("axes", "random")]:
            return (
                "one pair is the other way round. Both are arbitrary directions; one of them offers more to choose from"
            )
        if all("PCA" in pair for pair in wrong):
            return (
                "all is right but the place of PCA. It knows the activations, unlike axes and random directions; it "
                "has 256 directions, fitted to the average position and not to single ones"
            )
        low, high = wrong[0]
        return f"{len(wrong)} of the 6 pairs are the other way round, among them {low!r} and {high!r}"

    hints = (
        "count how many directions there are to choose from.",
        "which of the four has seen what activations of this model look like, and how closely?",
    )
    return judge("Exercise 4", listed, [all_four, in_order], hints, "The next cells measure by how much.")


def _listed(answer: Any) -> list[str]:
    """Names in the order given, spelt as in `WORST_FIRST` where they are known."""
    spelt = {name.lower(): name for name in WORST_FIRST}
    words = re.findall(r"[\w-]+", " ".join(map(str, answer)) if isinstance(answer, (list, tuple)) else str(answer))
    return [spelt.get(word.lower(), word) for word in words]


def solution_order() -> list[str]:
    """Asserted by the notebook, which measures it."""
    return list(WORST_FIRST)


def _pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(low, high) for i, low in enumerate(names) for high in names[i + 1 :]]


# Exercise 6: a bug in reading.


def check_read(answer: Any) -> Verdict:
    """`answer(x_BD, writers_FD)`: z with z @ writers = x, for writers that are independent and not orthogonal."""
    oblique = torch.tensor([[0.6, 0.8], [0.96, 0.28]])  # their dot product is 0.8; neither lies along a coordinate
    wide = torch.nn.functional.normalize(torch.randn(3, 7, generator=torch.Generator().manual_seed(0)), dim=1)

    def right_shape(answer: Callable) -> str | None:
        try:
            got = torch.as_tensor(answer(torch.ones(5, 2), oblique)).shape
        except RuntimeError as error:
            if _divides_by_a_matrix(answer, oblique):
                raise AssertionError(
                    "`/` divides number by number, and here two tables of different sizes. To undo a matrix, multiply "
                    "by its inverse: `@ torch.linalg.inv(…)`"
                ) from error
            if _multiplies_from_the_left(answer, oblique):
                raise AssertionError(
                    "x is a table with one row for each x, so a matrix that changes every row stands right of it: "
                    "`x @ …`, and yours stands left"
                ) from error
            raise
        if got == (2, 5):
            return "for five x and two writers you return (2, 5), not (5, 2): transpose it, one row for each x"
        return None if got == (5, 2) else f"for five x and two writers you return {tuple(got)}, not (5, 2)"

    def alone(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(oblique[1:], oblique))[0].tolist()

        def near(*z: float) -> bool:
            return all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(got, z, strict=True))

        if near(0, 1):
            return None
        if near(0.8, 1):
            return (
                "x is writer 2 with strength 1 and nothing else; you read (0.80, 1.00): a dot product with writer 1 "
                "also sees what writer 2 wrote, because the two are not at a right angle"
            )
        if _only_divided(answer, oblique):
            return (
                f"x is writer 2 with strength 1 and nothing else; you read ({got[0]:.2f}, {got[1]:.2f}): a dot product "
                "divided by a number still sees what the other writer wrote. Look for readers with other *directions*"
            )
        if near(*(oblique[1:] @ oblique)[0].tolist()):
            return (
                "you multiply by the writers once more, and mix coordinates with features: `x @ readers`, with one "
                "column for each writer"
            )
        if near(0.96, 0.28):
            return "you return x̂, what the writers write; return z, how strongly each of them does"
        if near(0.8, 0.6) or near(0.8, -0.6) or near(-0.8, 0.6) or near(-0.8, -0.6):
            return (
                "you made the writers orthogonal first, and read with the result: that changes them, and writer 2 is "
                "no longer the direction that x lies along. Keep the writers as they are, and look for other readers"
            )
        if math.isclose(got[0], 0, abs_tol=1e-3):
            return (
                f"x is writer 2 with strength 1; you read {got[1]:.2f} of it: your reader does not see writer 1, "
                "but it has the wrong length"
            )
        if near(*(oblique[1:] @ torch.linalg.pinv(oblique).T)[0].tolist()):
            return "nearly: x is a row, so the pseudo-inverse comes right of it without a transpose"
        return (
            f"x is writer 2 with strength 1 and nothing else: z should be (0, 1); you read ({got[0]:.2f}, {got[1]:.2f})"
        )

    def together(answer: Callable) -> str | None:
        z = torch.tensor([[1.0, 0.0], [0.5, 2.0], [-1.0, 0.3]])
        got = torch.as_tensor(answer(z @ oblique, oblique)).float()
        if torch.allclose(got, z, atol=1e-3):
            return None
        if torch.allclose(got, z.relu(), atol=1e-3):
            return "a strength may be negative; yours is cut off at 0"
        if torch.allclose(got, z.abs(), atol=1e-3):
            return "a strength may be negative; yours has lost its sign"
        row = int((got - z).abs().sum(dim=1).argmax())
        own, right = (", ".join(f"{value:.2f}" for value in values[row].tolist()) for values in (got, z))
        return f"x = z @ writers with z = ({right}); from that x you read ({own})"

    def fewer_writers_than_dimensions(answer: Callable) -> str | None:
        z = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]])
        try:
            got = torch.as_tensor(answer(z @ wide, wide)).float()
        except RuntimeError as error:
            return f"for 3 writers in 7 dimensions it stops ({type(error).__name__}): an inverse needs a square matrix"
        return None if torch.allclose(got, z, atol=1e-3) else "with 3 writers in 7 dimensions z is not found again"

    hints = (
        "what must a reader's dot product be with its own writer, and with every other writer?",
        "you look for the z whose z @ writers_FD comes closest to x: a problem that linear algebra has a name for.",
    )
    tests = [right_shape, alone, together, fewer_writers_than_dimensions]
    return judge(
        "Exercise 6", answer, tests, hints, "Each reader now sees its own writer with 1, and the others with 0."
    )


def solution_read(x_BD: Tensor, writers_FD: Tensor) -> Tensor:
    """z (tokens, writers): the readers are the columns of the pseudo-inverse."""
    return x_BD @ torch.linalg.pinv(writers_FD)


def _only_divided(answer: Callable, writers_FD: Tensor) -> bool:
    """Are these the dot products, each column or row multiplied by a number? Then the table of ratios has rank 1."""
    x_BD = torch.tensor([[1.0, 0.5], [0.5, 2.0], [2.0, 0.3]]) @ writers_FD
    ratio_BF = torch.as_tensor(answer(x_BD, writers_FD)).float() / (x_BD @ writers_FD.T)
    return bool(ratio_BF.isfinite().all()) and int(torch.linalg.matrix_rank(ratio_BF, rtol=1e-4)) == 1


def _divides_by_a_matrix(answer: Callable, writers_FD: Tensor) -> bool:
    """Does it divide by all dot products of the writers, entry by entry? That runs only for as many x as writers."""
    x_FD = torch.tensor([[1.0, 0.5], [0.5, 2.0]])
    got = torch.as_tensor(answer(x_FD, writers_FD))
    return torch.allclose(got, (x_FD @ writers_FD.T) / (writers_FD @ writers_FD.T), atol=1e-3)


def _multiplies_from_the_left(answer: Callable, writers_FD: Tensor) -> bool:
    """Is it matrix @ x, with any matrix but one that only scales? That runs only for as many x as dimensions."""
    x_FD = torch.tensor([[1.0, 0.5], [0.5, 2.0]])
    try:
        matrix_FD, got = (torch.as_tensor(answer(x, writers_FD)) for x in (torch.eye(2), x_FD))
    except RuntimeError:
        return False
    left, right = (torch.allclose(got, product, atol=1e-3) for product in (matrix_FD @ x_FD, x_FD @ matrix_FD))
    return left and not right


# Exercise 1: decomposable, and not linear.


def check_bent(answer: Any) -> Verdict:
    """`answer(x_B2)`: activations of two features that is decomposable and not linear, and not constant."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 2, generator=generator)

    def asked(answer: Callable, x: Tensor) -> Tensor:
        return torch.as_tensor(answer(x.clone()))  # an answer may work in place, or in numpy

    def right_shape(answer: Callable) -> str | None:
        got = asked(answer, x)
        if got.ndim != 2 or len(got) != 400:
            return f"for x of shape (400, 2) you return {tuple(got.shape)}; one row per sample"
        ends = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        if not (got.isfinite().all() and asked(answer, ends).isfinite().all()):
            return "some of your activations are infinite or no number; x takes all values from 0 to 1, both included"
        if not torch.equal(asked(answer, x), asked(answer, x)):
            return (
                "the same x gives other activations when asked again: draw what is random once, outside of the "
                "function, and add no noise"
            )
        return None

    def like(first: Tensor, second: Tensor, size: float) -> bool:
        return bool((first.float() - second.float()).abs().max() <= 1e-3 * size)

    def uses_both(answer: Callable) -> str | None:
        for feature in (0, 1):
            moved = x.clone()
            moved[:, feature] *= 0.37  # not 1 − x: a curve may be symmetric
            if like(asked(answer, moved), asked(answer, x), float(asked(answer, x).float().std(dim=0).max())):
                return f"nothing changes when feature {feature + 1} does: it is not represented"
        return None

    def decomposes(answer: Callable) -> str | None:
        for feature in (0, 1):
            for low, high in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.0, 0.3), (0.2, 0.9)):
                ends = []
                for value in (low, high):
                    set_to = x.clone()
                    set_to[:, feature] = value
                    ends.append(asked(answer, set_to).float())
                effect = ends[1] - ends[0]
                if (
                    effect.norm() > 1e-3 * asked(answer, x).float().std(dim=0).norm()
                    and hierarchy.same_effect(effect) < 0.99
                ):
                    return (
                        f"moving feature {feature + 1} from {low:g} to {high:g} has another effect when the other "
                        f"changes (agreement: {hierarchy.same_effect(effect):.2f}); treat each feature by itself, "
                        "do not multiply the two features, nor bend their sum"
                    )
        return None

    def linear(answer: Callable) -> float:
        return hierarchy.linear_fit(x, asked(answer, x).float())[1]

    def is_bent(answer: Callable) -> str | None:
        share = linear(answer)
        if share > 0.9999:
            return "it is linear: twice the strength moves the activations twice as far, in the same direction"
        if share > 0.99:
            return f"it is bent, but hardly: a linear map explains {share:.2%} of it. Bend it more, to below 99%"
        return None

    def praise(answer: Callable) -> str:
        own = "What one feature does never depends on the other, and not all of it is a straight line."
        return f"{own} A linear map explains {linear(answer):.1%} of it; a line would be 100%."

    tests = [right_shape, uses_both, decomposes, is_bent]
    hints = (
        "what must not happen between the two features for the effect of one to be the same whatever the other is?",
        "give each feature coordinates of its own, and look at the second panel of the first drawing.",
    )
    return judge("Exercise 1", answer, tests, hints, praise)


def solution_bent(x_B2: Tensor) -> Tensor:
    """Half a circle for each feature, in a plane of its own."""
    return torch.cat([(math.pi * x_B2).cos(), (math.pi * x_B2).sin()], dim=1)
