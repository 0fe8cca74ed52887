"""Exercises of notebook 05: two rules built by hand, a prediction, capacities of a law, and a threshold to mend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge

# Exercise 1: Mutual Choice and Feature Choice, dense.


def check_rules(mutual: Any, feature: Any) -> Verdict:
    """Both rules of the exercise, one line each; right if both are."""
    verdicts = judge_mutual_choice(mutual), judge_feature_choice(feature)
    return Verdict(all(verdicts), "\n".join(verdict.message for verdict in verdicts))


def judge_mutual_choice(answer: Any) -> Verdict:
    """`answer(affinities, n_matches)`: a table that keeps the strongest positive affinities of the whole batch."""
    hints = (
        "the budget knows neither rows nor columns: what would the rule be if the table were one long row?",
        "topk of the flattened table gives values and their positions; scatter puts values at positions into zeros.",
    )
    equals = (
        "a threshold lets in all that are equal to it. What chooses among equals?",
        "topk keeps exactly n values, wherever the others are equal; so do ranks from sorting twice.",
    )
    praise = "This is Mutual Choice; BatchTopK selects the same."
    tests = [_pair(6), _ranks(2, _sorted_cells), _each_token(6, solution_mutual_choice)]
    shape, sign, matches, ties = _tests((6, 18, 2, 5), solution_mutual_choice, _others_than_mutual)
    stages = ([*tests, shape], hints), ([sign], OF_SIGN), ([matches], hints), ([ties], equals)
    return _in_stages("Exercise 1, Mutual Choice", answer, stages, praise)


def judge_feature_choice(answer: Any) -> Verdict:
    """`answer(affinities, capacity)`: a table that keeps the strongest positive affinities of each column, as many as
    its capacity says, a whole number for each feature."""
    hints = (
        "topk takes one k for all columns; here each has its own. In which place is a token in the order of a column?",
        "argsort(dim=0, descending=True) says which token comes first, second, third in a column. Sort this order once "
        "more, and you have the rank of each token. Which ranks get in?",
    )
    equals = (
        "a threshold lets in all that are equal to it. What chooses among equals?",
        "ranks do: no two tokens of a column have the same one.",
    )
    praise = "This is Feature Choice, and it takes any capacities: equal ones, or those of a law."
    capacities = torch.full((9,), 2), torch.tensor([3, 0, 1, 2, 4, 5, 1, 2, 2])
    tests = [_pair(capacities[0]), _ranks(capacities[0], _sorted_columns)]
    tests += [_each_token(capacities[0], solution_feature_choice)]
    shape, sign, matches, ties = _tests(capacities, solution_feature_choice, _others_than_feature)
    stages = ([*tests, shape], hints), ([sign], OF_SIGN), ([matches], hints), ([ties], equals)
    return _in_stages("Exercise 1, Feature Choice", answer, stages, praise)


OF_SIGN = (
    "the right cells are not enough: what should stand in a cell that would be filled with a negative affinity?",
    "relu the values that you keep.",
)


def _in_stages(
    name: str, answer: Any, stages: Sequence[tuple[list[Callable], tuple[str, str]]], praise: str
) -> Verdict:
    """`judge` with hints about what failed: tests and their hints, in turn, up to the first complaint."""
    for tests, hints in stages:
        if not (verdict := judge(name, answer, tests, hints, praise)):
            break
    return verdict


def _table() -> Tensor:
    """Affinities of 6 tokens and 9 features, four in ten negative, no two alike."""
    return torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) - 0.4


ONE_SORT = (
    "you use the result of one argsort as ranks. It says which cell comes first, second, third; you need the reverse: "
    "in which place each cell comes"
)
UPWARDS = "you keep the weakest: argsort sorts upwards unless you ask for descending=True"


def _ranks(amount: Any, sort: Callable[[Tensor, bool], Tensor]) -> Callable:
    """A test that names what comes out where ranks are wrong, whether or not negative affinities are kept out.

    `sort(table, descending)` says for each column, or for the table as one row, which cell comes in each place.
    """

    def ranks(answer: Callable) -> str | None:
        table = _table()
        got = torch.as_tensor(answer(table.clone(), amount)).float()
        if got.shape != table.shape or not got.any():
            return None
        down, up = sort(table, True), sort(table, False)
        for said, places in ((ONE_SORT, down), (ONE_SORT, up), (UPWARDS, sort(up, False))):
            if any(torch.allclose(got, kept * (places < amount)) for kept in (table, table.relu())):
                return said
        return None

    return ranks


def _pair(amount: Any) -> Callable:
    """A test that names what `topk` and sparse rules return, before anything takes it for a table."""

    def pair(answer: Callable) -> str | None:
        got = answer(_table(), amount)
        if isinstance(got, (tuple, list)) and len(got) == 2:
            return "you return a pair, values and positions; put the values into a table of zeros (scatter)"
        if hasattr(got, "to_dense") and getattr(got, "layout", None) != torch.strided:
            return "you return the matches alone; a table has all cells: .to_dense() makes it one"
        return None

    return pair


def _each_token(amount: Any, solve: Callable) -> Callable:
    """A test that names Token Choice where it holds negative affinities, too: before their sign is complained about."""

    def each_token(answer: Callable) -> str | None:
        table = _table()
        got = torch.as_tensor(answer(table.clone(), amount)).float()
        if got.shape != table.shape or torch.allclose(got, solve(table, amount)):
            return None
        chosen = (_token_choice(table, k, signed=True) for k in range(1, table.shape[1]))
        return TOKEN_SAID if any(torch.allclose(got, rows) for rows in chosen) else None

    return each_token


def _sorted_columns(table: Tensor, descending: bool) -> Tensor:
    return table.argsort(dim=0, descending=descending)


def _sorted_cells(table: Tensor, descending: bool) -> Tensor:
    return table.flatten().argsort(descending=descending).view_as(table)


def _tests(amounts: Sequence[Any], solve: Callable, others: Callable) -> list[Callable]:
    """What both rules of exercise 1 must pass: shape, sign, the right matches, and neither more nor fewer with ties.

    The first of `amounts` must fit into one row and one column, and be more than the positive affinities of `few`: with
    a larger one, an answer that is another rule ends in an error before it is recognised.
    """
    table = _table()
    few = torch.where(table > 0.52, table, -table.abs())
    alike = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]).repeat(2, 3)

    def shape(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(table.clone(), amounts[0]))
        if got.shape == table.shape:
            return None
        return f"for a table of shape (6, 9) you return {tuple(got.shape)}: values need their positions in the table"

    def sign(answer: Callable) -> str | None:
        if (torch.as_tensor(answer(few.clone(), amounts[0])) < 0).any():
            return "where positive affinities run out, negative ones got in: they never match"
        return None

    def matches(answer: Callable) -> str | None:
        for amount in amounts:
            try:
                got, right = torch.as_tensor(answer(table.clone(), amount)).float(), solve(table, amount)
            except IndexError:
                if isinstance(amount, Tensor) and not amount.all():
                    return "you look up the weakest match of a feature with capacity 0; it has none"
                raise
            if torch.allclose(got, right):
                continue
            if torch.equal(got != 0, right > 0):
                return "the right cells are filled, with wrong values: a match keeps its affinity"
            if said := next((said for said, other in others(table, amount) if torch.allclose(got, other)), None):
                return said
            n, most = int((got > 0).sum()), int((right > 0).sum())
            how = f"for capacities {amount.tolist()}" if isinstance(amount, Tensor) else f"for a budget of {amount}"
            if n != most:
                return f"{how} there should be {most} matches, yours are {n}"
            return f"{how} you have {n} matches, as you should, but not the strongest ones"
        return None

    def ties(answer: Callable) -> str | None:
        for amount in amounts:
            n = int((torch.as_tensor(answer(alike.clone(), amount)) > 0).sum())
            most = int((solve(alike, amount) > 0).sum())
            if n != most:
                why = "all that tie with the weakest match got in" if n > most else "of those that tie, too few got in"
                return f"where affinities are equal there should be {most} matches, yours are {n}: {why}"
        return None

    return [shape, sign, matches, ties]


CUT_SAID = "the weakest match is missing: a value is not above itself"
TOKEN_SAID = "each token has its own strongest features: that is Token Choice"


def _others_than_mutual(table: Tensor, n_matches: int) -> Iterator[tuple[str, Tensor]]:
    """What other rules make of the table, and what to say of it."""
    yield (
        "all positive affinities got in: `n_matches` is the budget of the whole table, k · B, and not of each row or "
        "column",
        table.relu(),
    )
    for of_abs in _by_abs(table, n_matches):
        yield "a large negative affinity is not a strong one: leave out `abs`", of_abs
    yield CUT_SAID, solution_mutual_choice(table, n_matches - 1)
    for n in range(1, 7):
        yield TOKEN_SAID, _token_choice(table, n)
        capacity = torch.full((table.shape[1],), n)
        yield (
            "each feature has its own strongest tokens: that is Feature Choice",
            solution_feature_choice(table, capacity),
        )


def _others_than_feature(table: Tensor, capacity: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same of Feature Choice; with unequal capacities also what comes out when they are taken as equal."""
    sorted_, places = table.sort(dim=0, descending=True).values.relu(), torch.arange(len(table))[:, None]
    yield (
        "the right affinities in the wrong rows: you sorted each column, and did not put its values back to their "
        "tokens",
        sorted_ * (places < capacity),
    )
    yield CUT_SAID, solution_feature_choice(table, capacity - 1)
    yield (
        "the feature with capacity 0 gets every positive affinity: its weakest match is at index capacity − 1, and "
        "index −1 is the last one",
        solution_feature_choice(table, capacity.where(capacity > 0, len(table))),
    )
    yield "the feature with capacity 0 gets a match", solution_feature_choice(table, capacity.clamp(min=1))
    yield "one token too many in each column: ranks begin at 0", solution_feature_choice(table, capacity + 1)
    for n in range(1, 7):
        yield TOKEN_SAID, _token_choice(table, n)
    yield (
        "the strongest of the whole table got in, whatever the capacities: that is Mutual Choice",
        solution_mutual_choice(table, int(capacity.sum())),
    )
    for n in range(7) if capacity.unique().numel() > 1 else ():
        equal = solution_feature_choice(table, torch.full_like(capacity, n))
        said = f"every feature has a capacity of {n} with you"
        if n == int(capacity[0]):
            said = f"you use capacity[0], {n}, for all features"
        yield f"{said}; they differ: {capacity.tolist()}", equal


def solution_mutual_choice(affinities: Tensor, n_matches: int) -> Tensor:
    """The top M of the flattened table, scattered back."""
    flat = affinities.flatten()
    values, cells = flat.topk(n_matches)
    return torch.zeros_like(flat).scatter(0, cells, values.relu()).view_as(affinities)


def solution_feature_choice(affinities: Tensor, capacity: Tensor) -> Tensor:
    """Of each column the tokens whose rank is below its capacity."""
    order = affinities.argsort(dim=0, descending=True)
    rank = order.argsort(dim=0)
    return affinities.relu() * (rank < capacity)


def _by_abs(affinities: Tensor, n_matches: int) -> tuple[Tensor, Tensor]:
    """The largest absolute values, and what a relu leaves of them where they keep their sign."""
    size = solution_mutual_choice(affinities.abs(), n_matches)
    return size, affinities.relu() * (size > 0)


def _token_choice(affinities: Tensor, k: int, signed: bool = False) -> Tensor:
    values, features = affinities.topk(k, dim=1)
    return torch.zeros_like(affinities).scatter(1, features, values if signed else values.relu())


# Exercise 2: who gets the most?


PLACES = ("first", "second", "third")


def check_prediction(answer: Any, measured: Mapping[str, float]) -> Verdict:
    """`answer`: {"most": kind, "fewest": kind}; right if each is one of the three kinds at its end of `measured`."""
    order = sorted(measured, key=lambda kind: -measured[kind])

    def kind_of(word: Any) -> Any:
        """A kind as it is called here, however it is written: "Names" is "name"."""
        word = " ".join(str(word).lower().replace("_", " ").split())
        return next((kind for kind in order if word in (kind, f"{kind}s")), word)

    def two_kinds(answer: Any) -> str | None:
        if not isinstance(answer, Mapping) or set(answer) != {"most", "fewest"}:
            return 'write {"most": ..., "fewest": ...}, two kinds of the table above'
        strange = [kind for kind in answer.values() if kind_of(kind) not in measured]
        return f"{strange[0]!r} is not one of {', '.join(sorted(measured))}" if strange else None

    def at_the_end(answer: Any) -> str | None:
        for key, group in (("most", order[: len(PLACES)]), ("fewest", order[-len(PLACES) :])):
            kind = kind_of(answer[key])
            if kind not in group:
                place = order.index(kind) + 1
                return f"{kind} has {measured[kind]:.0f} features per token, place {place} of {len(order)}"
        return None

    def praise(answer: Any) -> str:
        said = []
        for key, ranked, how in (("most", order, "more"), ("fewest", order[::-1], "fewer")):
            kind, first = kind_of(answer[key]), ranked[0]
            place, away = ranked.index(kind), abs(measured[kind] - measured[first])
            said.append(f"{kind} is {PLACES[place]}" + f" ({first} has {away:.1f} {how})" * (place > 0))
        told = ", ".join(f"{kind} {measured[kind]:.0f}" for kind in order)
        return f"of the most, {said[0]}; of the fewest, {said[1]}. Features per token: {told}."

    hints = (
        "a frequent token can have a feature of its own; what must a token without one be made of?",
        "sort the kinds by how often one of their tokens occurs, and guess again.",
    )
    return judge("Exercise 2", answer, [two_kinds, at_the_end], hints, praise)


def solution_prediction() -> dict[str, str]:
    """What was measured with the embedded model."""
    return {"most": "word piece", "fewest": "punctuation"}


# Exercise 3: capacities that follow a Zipf law.

LAWS = ((50, 400, 1.0, 10.0), (30, 125, 1.0, 1.0), (7, 100, 0.5, 0.0), (8, 67, 0.0, 3.0))
SCARCE = (40, 60, 1.0, 1.0)  # a law with shares below 1: rank 40 has 0.44


def check_capacities(answer: Any) -> Verdict:
    """`answer(n_features, n_matches, exponent, offset)`: whole tokens for each rank, most first, which add up to
    `n_matches`, none more than 1 away from its share."""

    def law(answer: Callable) -> str | None:
        many = 1_000_000  # so many that it does not matter how they are rounded
        for exponent in (1.0, 0.7):
            got = torch.as_tensor(answer(50, many, exponent, 10.0), dtype=torch.float64)
            if got.shape != (50,):
                return f"for 50 features you return shape {tuple(got.shape)}"
            if abs(float(got.sum()) - many) > 100:
                return f"the budget is {many:,} matches, yours hand out {float(got.sum()):,.4g}"
            ratio, right = float(got[0] / got[-1]), (60 / 11) ** exponent
            if _near(ratio, right):
                continue
            if _near(ratio, (59 / 10) ** exponent):
                return "the first rank is 1, not 0"
            if _near(ratio, 1 / right):
                return "the first rank gets the least: the power is to the minus exponent"
            if _near(ratio, (50**exponent + 10) / 11) or _near(ratio, 11 / (50**-exponent + 10)):
                return "the power is taken of the rank alone: the offset is added before, (rank + offset) ** -exponent"
            if _near(ratio, 60 / 11):
                return f"an exponent of {exponent} gives the shares of an exponent of 1"
            if _near(ratio, 50**exponent):
                return "the offset has no effect"
            return f"exponent {exponent}: rank 1 should get {right:.3g} times as much as rank 50, not {ratio:.3g} times"
        return None

    def whole(answer: Callable) -> str | None:
        for case in (*LAWS, SCARCE):
            got, n = torch.as_tensor(answer(*case)).double(), case[1]
            if not torch.equal(got, got.round()):
                return f"a feature cannot have {float(got[0]):.4g} tokens: capacities are whole numbers"
            if int(got.sum()) > n and case == SCARCE and torch.equal(got, got.clamp(min=1)):
                return (
                    f"{case}: every feature gets at least 1 with you. That limit is the package's, and here it breaks "
                    f"the budget: the sum is {int(got.sum())}, not {n}"
                )
            if int(got.sum()) != n:
                return f"{case}: the budget is {n} matches, and the rounded shares add up to {int(got.sum())}"
        return None

    def fair(answer: Callable) -> str | None:
        for case in (*LAWS, SCARCE):
            away = torch.as_tensor(answer(*case)).double() - _shares(*case)
            worst = int(away.abs().argmax())
            if float(away.abs()[worst]) > 1 + 1e-6:
                off = f"{case}: the capacity of rank {worst + 1} is {float(away[worst]):+.1f} away from its share"
                return f"{off}; what is left over is not for one feature alone"
        return None

    of_the_law = (
        "first the shares: one weight for each rank from 1 to F, divided by the sum of all weights, times the budget.",
        "a weight is (rank + offset) ** -exponent; torch.arange counts from 0, ranks from 1.",
    )
    of_rounding = (
        "round all shares down and count the matches that are left over. Which features have lost most by rounding?",
        "argsort of the rounded capacities minus the shares has those that lost most in front: one more for each, as "
        "far as the matches that are left over go.",
    )
    praise = "`zipf_capacity` adds two things: at least 1 token for every feature, at most the whole batch."
    shares = judge("Exercise 3", answer, [law], of_the_law)
    return judge("Exercise 3", answer, [whole, fair], of_rounding, praise) if shares else shares


def _near(one: float, other: float) -> bool:
    """Equal but for rounding: even all that is left over, given to the last rank alone, changes its share by less."""
    return math.isclose(one, other, rel_tol=0.01)


def _shares(n_features: int, n_matches: int, exponent: float, offset: float) -> Tensor:
    """Zipf–Mandelbrot, scaled to the budget: fractions."""
    weights = (torch.arange(1, n_features + 1).double() + offset) ** -exponent
    return n_matches * weights / weights.sum()


def solution_capacities(n_features: int, n_matches: int, exponent: float, offset: float) -> Tensor:
    """Shares rounded down, and one match more for those that lost most."""
    shares = _shares(n_features, n_matches, exponent, offset)
    capacity = shares.floor()
    left = n_matches - int(capacity.sum())
    capacity[(capacity - shares).argsort(stable=True)[:left]] += 1
    return capacity.long()


# Exercise 4: a threshold that does not keep its budget.


def uneven_batches() -> list[Tensor]:
    """Three tables of affinities, of 20, 40 and 60 tokens and 30 features, weak, middling and strong, as texts are."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 30, generator=generator) * scale for n, scale in ((20, 0.4), (40, 1.0), (60, 3.0))]


def check_threshold(answer: Any) -> Verdict:
    """`answer(batches, k)`: the threshold above which, over all these tables together, lie exactly k matches per
    token."""
    batches = uneven_batches()
    n_tokens = sum(map(len, batches))

    def exactly_k(answer: Callable) -> str | None:
        for k in (2, 5):
            got = float(answer([batch.clone() for batch in batches], k))
            let_in = sum(int((batch > got).sum()) for batch in batches)
            if let_in == k * n_tokens:
                continue
            cuts = [batch.flatten().topk(k * len(batch) + 1).values[-2:] for batch in batches]
            if _mean_of_batches(got, cuts, [len(batch) for batch in batches]):
                return (
                    f"for k={k} it lets in {let_in / n_tokens:.2f} features per token: it is still a mean over "
                    "batches, each cut off for itself"
                )
            few = torch.cat(batches).flatten().topk(k * len(batches) + 1).values[-2:].tolist()
            if few[1] - 1e-4 <= got <= few[0] + 1e-4:
                return "the budget is k for each *token*; `len(batches)` counts the batches"
            if any(low - 1e-4 <= got <= high + 1e-4 for high, low in torch.stack(cuts).tolist()):
                return "that is the cut of one batch; the budget is about all tokens together"
            together = torch.cat(batches)
            own = together.topk(k, dim=1).values[:, -1]  # the weakest match of each token
            for how, each in (("a mean", own.mean()), ("the lowest", own.min()), ("the median", own.median())):
                if math.isclose(got, float(each), rel_tol=1e-3):
                    return f"that is {how} of one threshold for each token; they are to share one"
            if let_in in (k, k - 1):
                return f"the budget is k for each of {n_tokens} tokens, {k * n_tokens} matches, and not k in all"
            if math.isclose(got, float(together.flatten().topk(k * n_tokens).values[-1]), rel_tol=1e-6):
                return (
                    f"that is the weakest match itself, {got:.3f}, and it does not lie above itself: one match is "
                    "missing. Go below it, towards the next value"
                )
            return f"for k={k} there should be {k * n_tokens} matches in all, your threshold {got:.3f} lets in {let_in}"
        return None

    hints = (
        "which tokens is the budget about: those of one batch, or all of them?",
        "put all tables into one, then look for the value that has exactly k · (all tokens) above it.",
    )
    praise = "One quantile over all batches together. That is how the package measures it."
    return judge("Exercise 4", answer, [exactly_k], hints, praise)


def _mean_of_batches(got: float, cuts: Sequence[Tensor], sizes: Sequence[int]) -> bool:
    """Is this a mean, weighted by size or not, of values at or just below the weakest match of each batch?"""
    ends = torch.stack(list(cuts))  # (batches, weakest match and first left out)
    weights = torch.tensor([[1.0] * len(sizes), list(sizes)])
    means = (weights / weights.sum(dim=1, keepdim=True)) @ ends
    return any(low - 1e-4 <= got <= high + 1e-4 for high, low in means.tolist())


def mean_of_weakest(batches: Sequence[Tensor], k: int) -> float:
    """The function with the bug: the weakest match of each batch, averaged over batches."""
    return float(torch.stack([batch.flatten().topk(k * len(batch)).values[-1] for batch in batches]).mean())


def solution_threshold(batches: Sequence[Tensor], k: int) -> float:
    """Halfway between the last value that gets in and the first that does not."""
    everything = torch.cat(list(batches))
    values = everything.flatten().topk(k * len(everything) + 1).values
    return float(values[-2:].mean())
