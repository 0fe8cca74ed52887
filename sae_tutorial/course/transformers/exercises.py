"""Exercises of notebook 01: count a transformer, build its attention, mend a score, predict what breaks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge

# (layers, width, vocabulary, context) and the published number of parameters.
GPT2_SIZES = {
    "GPT-2 small": (12, 768, 50257, 1024, 124_439_808),
    "GPT-2 medium": (24, 1024, 50257, 1024, 354_823_168),
    "GPT-2 XL": (48, 1600, 50257, 1024, 1_557_611_200),
}

BLIND_TO_ITSELF = "the diagonal is masked as well: a position may see itself, so mask j > i and not j ≥ i"
BLIND_IN_A_LOOP = (
    "position i does not see itself: in a loop take `[: i + 1]`, not `[:i]`; in a mask, j > i and not j ≥ i"
)


def check_count_parameters(answer: Callable[[int, int, int, int], int | None] | None) -> Verdict:
    """A function (layers, width, vocabulary, context) -> number of parameters of a GPT-2."""

    def test(name: str) -> Callable[[Any], str | None]:
        *sizes, want = GPT2_SIZES[name]

        def right(count_parameters: Callable[..., Any]) -> str | None:
            if not callable(count_parameters):
                return "Write a function of the four sizes; you gave a value."
            got = count_parameters(*sizes)
            if got == want:
                return None
            why = _mistakes_of_count(int(got) - want, *sizes)
            return f"{name} has {want:,} parameters, yours has {got:,}.{' ' + why if why else ''}"

        return right

    return judge(
        "Exercise 1",
        answer,
        [test(name) for name in GPT2_SIZES],
        hints=(
            "How many entries has each matrix of the table above, all heads together, written in D alone?",
            "Beside its matrices a layer has biases, each as long as what its matrix puts out, and LayerNorms of two "
            "vectors. Outside the layers there are two tables and one LayerNorm.",
        ),
        praise="Small, medium and XL, to the last bias.",
    )


def _mistakes_of_count(off: int, layers: int, width: int, vocabulary: int, context: int) -> str:
    """Why a count is off by so many: at most one reason in the layers and one outside; "" if none is known."""
    in_layers = {  # in widths per layer
        0: "",
        -1: "one bias of D numbers is missing in each layer",
        -2: "each layer has two LayerNorms of two vectors each: one LayerNorm is missing, or the gains, or the biases",
        -3: "a bias is as long as what its matrix puts out: that of W_in has 4D numbers, not D",
        -4: "4D are missing in each layer: the biases of attention, that of W_in, or both LayerNorms",
        -5: "the biases of the MLP are missing, 4D + D in each layer",
        -8: "8D are missing in each layer: the biases of attention, and either that of W_in or both LayerNorms",
        -9: "the biases are missing: 4D in attention and 4D + D in the MLP of each layer",
        -13: "matrices only: the biases and LayerNorms of the layers are missing",
        2: "each layer has two LayerNorms, and the one after the last layer is counted once",
        3: "a bias is as long as what its matrix puts out: that of W_out has D numbers, not 4D",
        -width: "one D × D matrix of attention is missing in each layer: there are W_Q, W_K, W_V and W_O",
        -width - 1: "one matrix of attention is missing in each layer, with its bias: there are W_Q, W_K, W_V and W_O",
        -4 * width: "4 D × D are missing in each layer: attention's four matrices, or one of the MLP's two",
        -4 * width - 1: "W_out and its bias are missing in each layer",
        -4 * width - 4: "4 D × D + 4D are missing in each layer: all of attention, or W_in and its bias",
        -8 * width: "the two matrices of the MLP are missing, 4D × D each",
        -8 * width - 5: "the MLPs are missing, each of two matrices and two biases",
    }
    if off == vocabulary:
        return "The unembedding has no bias of its own in GPT-2."
    if off == (2 * layers + 1) * (2 - 2 * width):
        return "A LayerNorm has a gain and a bias for each of the D numbers, not one of each."
    heads = width // 64  # those of GPT-2
    for too_many in (4 * width, 4 * width + 4, 3 * width, 3 * width + 3):  # matrices of attention; and their biases
        in_layers[(heads - 1) * too_many] = "H · d = D: all heads together make D × D"
    for without, which in ((0, ""), (4, ", and its biases"), (9, ", and all biases"), (13, ", biases and LayerNorms")):
        told = "attention is that of one head; a layer has H of them, and H · d = D"
        in_layers[-4 * (width - 64) - without] = told + (which and f"{which} are missing")
    outside = {
        0: "",
        vocabulary: "the unembedding uses the table of tokens again: count it once",
        -vocabulary: "the table of tokens is missing: D numbers for each",
        -context: "the table of positions is missing: D numbers for each",
        -context - 2: "the table of positions and the LayerNorm after the last layer are missing",
        -vocabulary - context: "the two tables are missing, of tokens and of positions",
        -1: "the LayerNorm after the last layer has a gain and a bias, not one of them",
        -2: "the LayerNorm after the last layer is missing, with its gain and bias",
    }
    both = {  # one reason for two numbers
        (-2, -1): "each LayerNorm has two vectors, a gain and a bias",
        (2, -2): "the LayerNorm after the last layer is counted in every layer; count it once",
        (-4, -2): "all LayerNorms are missing, those of the layers and the last one",
        (-13, -2): "matrices only: all biases and LayerNorms are missing",
        (-13, -context - 2): "matrices and tokens only: the positions, all biases and all LayerNorms are missing",
    }
    for (in_each, why), (once, why_once) in itertools.product(in_layers.items(), outside.items()):
        if off == width * (layers * in_each + once):
            told = both.get((in_each, once)) or "; and ".join(filter(None, (why, why_once)))
            return f"{told[:1].upper()}{told[1:]}."
    return ""


def solution_count_parameters(layers: int, width: int, vocabulary: int, context: int) -> int:
    layer = (4 * width**2 + 4 * width) + (8 * width**2 + 5 * width) + 4 * width
    return (vocabulary + context) * width + layers * layer + 2 * width


def check_head(answer: Callable[..., tuple[Tensor, Tensor] | None] | None) -> Verdict:
    """A function (x (T, D), W_Q, W_K, W_V (D, d), b_Q, b_K, b_V (d,)) -> pattern (T, T) and gathered values (T, d)."""
    generator = torch.Generator().manual_seed(0)
    length, width, d_head = 5, 12, 3
    x_TD = torch.randn(length, width, generator=generator)
    weights = [torch.randn(width, d_head, generator=generator) / 2 for _ in "QKV"]
    biases = [torch.randn(d_head, generator=generator) for _ in "QKV"]
    inputs = (x_TD, *weights, *biases)
    want_TT, want_Td = solution_head(*inputs)

    q, k, v = (x_TD @ w + b for w, b in zip(weights, biases, strict=True))

    def returned(head: Callable[..., Any]) -> tuple[Any, Any]:
        try:
            got = head(*inputs)
        except RuntimeError as error:
            if "(5x3 and 5x3)" not in str(error):
                raise
            told = (
                "The score of a pair of positions is one number, so there are T × T of them: a row of q by a row of k."
            )
            raise AssertionError(f"{told} A transposed k makes them all at once.") from error
        assert isinstance(got, tuple | list) and len(got) == 2, "Return two tensors: the pattern and what is gathered."
        assert not any(isinstance(part, np.ndarray) for part in got), (
            "You return arrays of numpy; the notebook needs tensors. `torch.as_tensor` makes one of an array."
        )
        assert all(isinstance(part, Tensor) for part in got), "Return two tensors: the pattern and what is gathered."
        return got[0], got[1]

    def pattern(head: Callable[..., Any]) -> str | None:
        got_TT, got_Td = returned(head)
        if got_TT.shape == want_Td.shape and got_Td.shape == want_TT.shape:
            return "The other way round: first the pattern, then what is gathered."
        if got_TT.shape != want_TT.shape:
            return f"For {length} positions the pattern has shape (5, 5); yours has {tuple(got_TT.shape)}."
        if torch.allclose(got_TT, want_TT, atol=1e-5):
            return None
        mistakes = _mistakes_of_pattern(got_TT, x_TD, *weights[:2], *biases[:2])
        if not mistakes and not got_TT[0].any():  # of nothing seen: 0 in a loop, NaN from a softmax
            of_softmax_TT = got_TT.index_fill(0, torch.tensor(0), torch.nan)
            mistakes = _mistakes_of_pattern(of_softmax_TT, x_TD, *weights[:2], *biases[:2])
            mistakes = [why.replace(BLIND_TO_ITSELF, BLIND_IN_A_LOOP) for why in mistakes]
        if mistakes:
            return f"The pattern is not right: {'; and '.join(mistakes)}."
        if got_TT.isnan().any():
            return "The pattern has rows of NaN: a row in which nothing may be seen has no softmax."
        if got_TT.triu(1).abs().max() > 1e-6:
            return "The pattern is not right: positions still take from later ones."
        return "The pattern has the right shape, and other values than it should."

    def gathered(head: Callable[..., Any]) -> str | None:
        _, got_Td = returned(head)
        if got_Td.shape == x_TD.shape:
            return (
                f"What is gathered are values, of shape (5, {d_head}); yours has the width of x, and W_O comes later."
            )
        if got_Td.shape != want_Td.shape:
            return f"What is gathered has shape (5, {d_head}); yours has {tuple(got_Td.shape)}."
        if torch.allclose(got_Td, want_Td, atol=1e-5):
            return None
        mistakes = {
            "the bias of the values is missing": want_TT @ (x_TD @ weights[2]),
            "you gather the keys; values are made with W_V and b_V": want_TT @ k,
            "you gather the queries; values are made with W_V and b_V": want_TT @ q,
            "the values are divided by √d_head; only the scores are": want_TT @ v / d_head**0.5,
            "you sum over the positions that take; sum over those that are taken from": want_TT.T @ v,
            "these are the values themselves, not yet weighted by the pattern": v,
        }
        for why, wrong_Td in mistakes.items():
            if torch.allclose(got_Td, wrong_Td, atol=1e-5):
                return f"The pattern is right, what is gathered is not: {why}."
        return "The pattern is right, the values gathered with it are not."

    return judge(
        "Exercise 2",
        answer,
        [pattern, gathered],
        hints=(
            "Print the shape after each line: three of (T, d_head), then scores of (T, T), then a pattern of (T, T).",
            "What number must a score be, so that its share after the softmax is exactly 0?",
        ),
        praise="That is attention. With `use_mine = True`, the sections up to the logit lens run on it.",
    )


def _mistakes_of_pattern(got_TT: Tensor, x_TD: Tensor, W_Q: Tensor, W_K: Tensor, b_Q: Tensor, b_K: Tensor) -> list[str]:
    """The fewest mistakes, at most three, that together make exactly this pattern; none if no such are known."""
    width, d_head = W_Q.shape
    q, k = x_TD @ W_Q, x_TD @ W_K
    future = torch.ones(len(x_TD), len(x_TD), dtype=torch.bool).triu
    products: dict[str, Tensor] = {  # "" is always the right way
        "": (q + b_Q) @ (k + b_K).T,
        "query and key have changed roles: row i belongs to the query of position i": (k + b_K) @ (q + b_Q).T,
        # The keys' own bias adds the same to all scores of a row: its softmax does not change.
        "the bias of the queries is missing, or those of queries and keys": q @ (k + b_K).T,
        "you compare queries with queries": (q + b_Q) @ (q + b_Q).T,
        "you compare keys with keys": (k + b_K) @ (k + b_K).T,
    }
    scales = {
        "": d_head**0.5,
        "the scores are not divided, and large sums make the softmax too sharp; divide by √d_head": 1.0,
        "you divide by d_head; divide by its square root": float(d_head),
        f"you divide by √{width}, the width of x; it is √d_head, here √{d_head}": width**0.5,
        "you multiply by √d_head; divide by it": d_head**-0.5,
    }
    masks = {
        "": future(1),
        "nothing is masked, and position i may take from positions j ≤ i only": future(len(x_TD)),
        BLIND_TO_ITSELF: future(0),
        "the mask begins one diagonal too late: position i still sees position i + 1": future(2),
        "you mask the past and let the future through; turn the mask around": future(1).T,
        "you mask what may be seen and keep what may not; exchange the two": ~future(1),
    }
    kinds: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "": lambda s, hidden: s.masked_fill(hidden, -torch.inf).softmax(-1),
        "the softmax runs down the columns; each row is to sum to 1": lambda s, hidden: s.masked_fill(
            hidden, -torch.inf
        ).softmax(0),
        "masked scores are set to 0, and a score of 0 still gets a share; they must get none": lambda s, hidden: (
            s.masked_fill(hidden, 0).softmax(-1)
        ),
        "masked scores are set to 0, which gives them a share; and the softmax runs down the columns": (
            lambda s, hidden: s.masked_fill(hidden, 0).softmax(0)
        ),
        "the mask comes after the softmax, so the future has had its share and rows no longer sum to 1": (
            lambda s, hidden: s.softmax(-1).masked_fill(hidden, 0)
        ),
        "these are scores; a softmax over each row makes shares of them": lambda s, hidden: s.masked_fill(
            hidden, -torch.inf
        ),
        "these are scores; a softmax over each row makes shares of what is not masked": lambda s, hidden: s.masked_fill(
            hidden, 0
        ),
    }
    # A large negative number does the work of -inf: no mistake, but the rows in which all is masked come out otherwise.
    finite = {"": lambda s, hidden: s.masked_fill(hidden, -1e9).softmax(-1)}
    ways = itertools.product(products.items(), scales.items(), masks.items(), [*kinds.items(), *finite.items()])
    for way in sorted(ways, key=lambda way: sum(bool(why) for why, _ in way)):
        why = [reason for reason, _ in way if reason]
        (_, product), (_, scale), (_, hidden), (_, pattern) = way
        if len(why) > 3:
            break
        if torch.allclose(got_TT, pattern(product / scale, hidden), atol=1e-5, equal_nan=True):
            return why
    return []


def solution_head(
    x_TD: Tensor, W_Q: Tensor, W_K: Tensor, W_V: Tensor, b_Q: Tensor, b_K: Tensor, b_V: Tensor
) -> tuple[Tensor, Tensor]:
    q_Td, k_Td, v_Td = x_TD @ W_Q + b_Q, x_TD @ W_K + b_K, x_TD @ W_V + b_V
    scores_TT = q_Td @ k_Td.T / q_Td.shape[-1] ** 0.5
    future_TT = torch.ones_like(scores_TT, dtype=torch.bool).triu(1)
    pattern_TT = scores_TT.masked_fill(future_TT, -torch.inf).softmax(-1)
    return pattern_TT, pattern_TT @ v_Td


def check_overlap(answer: Callable[[Tensor, Tensor], Any] | None) -> Verdict:
    """A function (a (d, D), b (d, D)) -> mean squared cosine of the principal angles of their row spaces."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 32, generator=generator)
    mix, b = torch.randn(4, 4, generator=generator), torch.randn(4, 32, generator=generator)

    def value(overlap: Callable[[Tensor, Tensor], Any], x: Tensor, y: Tensor) -> float:
        return float(overlap(x, y))

    def itself(overlap: Callable) -> str | None:
        got = value(overlap, a, a)
        if abs(got - 1) < 1e-3:
            return None
        found = {  # what other ends make of a sum of squares of 4, where d = 4 and D = 32
            4.0: "you have the sum of the squared cosines; divide it by d, the number of rows, for their mean",
            0.25: "this is the mean over all d × d entries, or the largest; divide the sum of their squares by d",
            0.125: f"you divide by D = {a.shape[1]}, the length of a row; divide by d = {len(a)}, their number",
            2.0: "the formula has the square of the norm, divided by d",
            0.5: "the norm is not squared yet; the formula has its square, divided by d",
        }
        for value_found, why in found.items():
            if abs(got - value_found) < 1e-3:
                return f"A space overlaps with itself by 1; yours says {got:.3g}: {why}."
        unit = torch.nn.functional.normalize(a, dim=1)
        why = "make the rows orthonormal first"
        if abs(got - float((unit @ unit.T).square().sum() / 4)) < 1e-3:
            why = "your rows have length 1, but are not at right angles to each other; make them orthonormal first"
        if abs(got - float((a @ a.T).square().sum() / a.square().sum() ** 2)) < 1e-3:
            why = "you divide by the length of the whole matrix; make its rows orthonormal first"
        return f"A space overlaps with itself by 1; yours says {got:.3f}: {why}."

    def basis(overlap: Callable) -> str | None:
        got = value(overlap, a, mix @ a)
        return (
            None
            if abs(got - 1) < 1e-3
            else f"Another basis of the same space changed the answer to {got:.3f}; make the rows orthonormal first."
        )

    def orthogonal(overlap: Callable) -> str | None:
        eye = torch.eye(8)
        got = value(overlap, eye[:3], eye[3:6])
        if abs(got - 1) < 1e-3:
            return (
                "Yours says 1 for orthogonal spaces too. torch.linalg.qr makes *columns* orthonormal: they must be "
                "the vectors of a space, D numbers each, and the product of two bases d × d."
            )
        return None if abs(got) < 1e-3 else f"Orthogonal spaces overlap by 0; yours says {got:.3f}."

    def half(overlap: Callable) -> str | None:
        eye = torch.eye(8)
        got = value(overlap, eye[:2], eye[1:3])
        if abs(got - 0.25) < 1e-3:
            return "Square the cosines before the mean, not after it."
        if abs(got - 0.5**0.5) < 1e-3:
            return "You take the root of the mean square; the overlap is the mean square itself."
        if any(abs(value(overlap, a, b) - _of_pairs(basis, a, b)) < 1e-3 for basis in (_by_qr, _by_svd)):
            return "You compare the i-th vector of one basis with the i-th of the other; all d × d pairs count."
        return (
            None if abs(got - 0.5) < 1e-3 else f"Two planes that share one line overlap by 1/2; yours says {got:.3f}."
        )

    def slanted(overlap: Callable) -> str | None:
        got = value(overlap, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]).sqrt())
        if abs(got - 0.5**0.5) < 1e-3:
            return "Square the cosines: you take the mean of the cosines themselves."
        return None if abs(got - 0.5) < 1e-3 else f"Two lines at 45 degrees overlap by 1/2; yours says {got:.3f}."

    return judge(
        "Exercise 3",
        answer,
        [itself, orthogonal, half, slanted, basis],
        hints=(
            "The formula asks for bases whose rows have length 1 and are at right angles. A decomposition in "
            "torch.linalg makes one of any set of rows.",
            "torch.linalg.qr makes the columns of its Q orthonormal, so mind which side your vectors are on.",
        ),
        praise="It sees the space and not the basis.",
    )


def _by_qr(x_dD: Tensor) -> Tensor:
    return torch.linalg.qr(x_dD.T).Q


def _by_svd(x_dD: Tensor) -> Tensor:
    return torch.linalg.svd(x_dD, full_matrices=False).Vh.T


def _of_pairs(basis: Callable[[Tensor], Tensor], a_dD: Tensor, b_dD: Tensor) -> float:
    """The diagonal of the d × d cosines only."""
    return float((basis(a_dD) * basis(b_dD)).sum(0).square().mean())


def solution_overlap(a_dD: Tensor, b_dD: Tensor) -> float:
    q_a, q_b = torch.linalg.qr(a_dD.T).Q, torch.linalg.qr(b_dD.T).Q
    return float((q_a.T @ q_b).square().sum() / len(a_dD))


def check_induction_score(answer: Callable[[Tensor, int], Tensor | None] | None) -> Verdict:
    """A function (pattern (H, T, T), length) -> (H,): mean attention of each position of the repetition to the one
    after its earlier occurrence. T is 1 + 2 · length: a BOS token, then the same tokens twice."""
    length = 5
    size = 2 * length + 1
    scores_HTT = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0))
    future_TT = torch.ones(size, size, dtype=torch.bool).triu(1)
    patterns_HTT = scores_HTT.masked_fill(future_TT, -torch.inf).softmax(-1)
    want_H = solution_induction_score(patterns_HTT, length)

    def right(induction_score: Callable[..., Any]) -> str | None:
        got_H = torch.as_tensor(induction_score(patterns_HTT.clone(), length))
        if got_H.shape != want_H.shape:
            return f"For 3 heads return 3 numbers; yours has shape {tuple(got_H.shape)}."
        if torch.allclose(got_H, want_H, atol=1e-4):
            return None
        block_HTT = patterns_HTT[:, length + 1 :, 2 : length + 2]
        if torch.allclose(got_H, block_HTT.mean((1, 2)), atol=1e-4):
            return "You average a whole block of rows and columns; each row has one column of its own."
        mistakes = _mistakes_of_score(got_H, patterns_HTT, length)
        if mistakes:
            return f"{'; and '.join(mistakes)}."
        numbers = [", ".join(f"{x:.3f}" for x in of_H.tolist()) for of_H in (want_H, got_H)]
        return f"For three random heads the scores are {numbers[0]}; yours are {numbers[1]}."

    return judge(
        "Exercise 4",
        answer,
        [right],
        hints=(
            "Write the positions of “BOS a b c a b c” on paper. At which position is the second b, and which one is it "
            "to look at?",
            "In `suspect` the rows are right; only its columns, `again_T - length`, need a change.",
        ),
        praise="One position further, and it finds the heads that know what comes next.",
    )


def _mistakes_of_score(got_H: Tensor, patterns_HTT: Tensor, length: int) -> list[str]:
    """The fewest mistakes that together make exactly these scores; none if no such are known."""
    end = 2 * length + 1
    looks = {  # how many positions back
        length - 1: "",
        length: "It still finds heads that look at the earlier copy of the token itself: duplicate-token heads",
        length + 1: "It finds heads that look at the token before the earlier copy: that is the wrong direction",
        length + 2: "It finds heads that look two tokens before the earlier copy: that is the wrong direction",
        length - 2: "It finds heads that look two tokens after the earlier copy: that is one position too far",
        length - 3: "It finds heads that look three tokens after the earlier copy: that is two positions too far",
        1: "It finds heads that look at the token just before: previous-token heads",
    }
    rows = {
        (length + 1, end): "",
        (length, end - 1): "The rows begin one position too early, at the last token of the first time",
        (length, end): "The rows begin one position too early, at the last token of the first time",
        (length + 1, end - 1): "The last position of the second time is missing",
        (length + 2, end): "The first position of the second time is missing",
        (1, length + 1): "These are the positions of the first time: only those of the second time have a copy before",
        (0, end): "The mean is over all positions: only those of the second time have a copy before",
        (1, end): "The mean is over all positions: only those of the second time have a copy before",
    }
    sides = {False: "", True: "Rows are the positions that take, columns those taken from; you have exchanged them"}
    divided: dict[str, Callable[[Tensor], Tensor]] = {
        "": lambda taken_HT: taken_HT.mean(-1),
        "Take the mean over positions, not the sum": lambda taken_HT: taken_HT.sum(-1),
        "You divide by the length of the whole text: only positions of the second time count": lambda taken_HT: (
            taken_HT.sum(-1) / end
        ),
    }
    ways = itertools.product(looks.items(), rows.items(), sides.items(), divided.items())
    for way in sorted(ways, key=lambda way: sum(map(bool, (way[0][1], way[1][1], way[2][1], way[3][0])))):
        (back, wrong_column), ((start, stop), wrong_row), (turned, wrong_side), (wrong_sum, total) = way
        first = max(start, back) if wrong_row.startswith("The mean") else start
        row_T = torch.arange(first, max(first, stop))  # a column below 0 counts from the end, as it does for a learner
        taken_HT = (patterns_HTT.mT if turned else patterns_HTT)[:, row_T, row_T - back]
        if len(row_T) and torch.allclose(got_H, total(taken_HT), atol=1e-4):
            return [why for why in (wrong_column, wrong_row, wrong_side, wrong_sum) if why]
    return []


def solution_induction_score(pattern_HTT: Tensor, length: int) -> Tensor:
    again_T = torch.arange(length + 1, 2 * length + 1)
    return pattern_HTT[:, again_T, again_T - length + 1].mean(-1)


def check_prediction(answer: str | None, alone: float, together: float) -> Verdict:
    """ "a", "b" or "c": what the strongest induction head alone costs, of what all of them cost together."""
    share = alone / together if together > 0 else 0.0
    right = "a" if share > 0.6 else "b" if share > 0.175 else "c"
    measured = f"silenced alone it costs {alone:.1f} nats, all together cost {together:.1f}"

    def said(guess: str) -> str | None:
        letter = str(guess).strip().lower().rstrip(").")
        if letter not in ("a", "b", "c"):
            return f"Answer with one letter, 'a', 'b' or 'c', not {guess!r}."
        if letter == right:
            return None
        expected = {
            "a": "That would be so if it did the work alone",
            "b": "That would be so if each head did its part and no other could step in",
            "c": "That would be so if the others could do its work too",
        }
        return f"{expected[letter]}. Measured: {measured}."

    return judge(
        "Exercise 5",
        answer,
        [said],
        hints="The measured numbers are in the answer: which letter do they belong to?",
        praise=f"{measured[0].upper()}{measured[1:]}.",
    )


def solution_prediction() -> str:
    return "c"
