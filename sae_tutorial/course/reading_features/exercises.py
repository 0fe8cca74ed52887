"""Exercises of notebook 10: evidence, explanations, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sae_tutorial.course.judge import Verdict, judge, share_near

# Exercise 1: predict how often weak matches are at one of the words of the strong ones.


def check_weak_matches(guess: Any, measured: float) -> Verdict:
    """`guess`: a share, 0 to 1, of the weakest fifth of matches; `measured` is what the notebook finds."""

    hints = (
        "An SAE has thousands of features, and a weak activation need not be what the feature is for.",
        "Most features are weakly active at words that have little to do with their strongest ones.",
    )
    praise = f"It is {measured:.0%}. Whoever reads the strongest passages alone does not see this."
    return judge("Exercise 1", guess, share_near(measured), hints, praise)


# Exercise 2: build the explanation by token.

Rows = Sequence[tuple[list[int], list[float]]]


def check_token_table(answer: Any) -> Verdict:
    """`answer(passages)`: the mean activation at each token, over all passages, as a dictionary."""
    passages = [([3, 5, 7], [0.0, 0.0, 1.0]), ([5, 3, 3], [0.0, 5.0, 1.0]), ([9], [0.0])]
    right = solution_token_table(passages)

    def a_dictionary(answer: Callable) -> str | None:
        got = answer(_copied(passages))
        if not isinstance(got, Mapping):
            return f"return a dictionary from token to mean activation; you return {type(got).__name__}"
        if set(got) - {3, 5, 7, 9}:
            return f"the tokens are 3, 5, 7 and 9; your dictionary has {sorted(set(got) - {3, 5, 7, 9}, key=str)[0]!r}"
        missing = {3, 7} - set(got)
        return f"token {min(missing)} is missing" if missing else None

    def the_means(answer: Callable) -> str | None:
        got = {token: float(value) for token, value in answer(_copied(passages)).items()}
        return None if _same(got, right) else _diagnosis(got)

    def nothing(answer: Callable) -> str | None:
        return None if len(answer([])) == 0 else "of no passages the table is empty"

    hints = (
        "For each token you need two numbers: the sum of its activations, and how often it occurs.",
        "zip(tokens, activations) walks over both lists of a passage; collections.defaultdict(float) begins at 0.",
    )
    praise = "That is an explanation: it says what the feature will do at every token that it has seen."
    return judge("Exercise 2", answer, [a_dictionary, the_means, nothing], hints, praise)


def _diagnosis(got: Mapping[int, float]) -> str:
    """What a wrong table for the check's passages was made by."""
    at_3 = got[3]
    if math.isclose(at_3, 3.0):
        return "token 3 occurs three times, once with 0: you left the zeros out, and so every token looks like a match"
    if math.isclose(at_3, 6.0):
        return "those are sums; divide each by how often its token occurs"
    if math.isclose(at_3, 5.0):
        return "you keep the largest activation of each token; the mean is asked for"
    if math.isclose(at_3, 1.0):
        return "you overwrite: of token 3 only the last activation remains"
    if math.isclose(at_3, 1.75):
        return "you take the mean of the mean so far and the new value, so late ones weigh most: keep sums and counts"
    if math.isclose(at_3, 0.0, abs_tol=1e-9):
        return "you look at the first passage alone; token 3 occurs in the second, too, and is active there"
    if math.isclose(at_3, 1.5):
        return "you take the mean of the means of passages; count every occurrence once"
    if math.isclose(at_3, 6.0 / 7):
        return "you divide by the number of all tokens; divide by how often this one occurs"
    return f"token 3 has activations 0, 5 and 1, so its mean is 2; you say {at_3:g}"


def solution_token_table(passages: Rows) -> dict[int, float]:
    """Sums and counts by token."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for tokens, activations in passages:
        for token, activation in zip(tokens, activations):
            sums[token] = sums.get(token, 0.0) + activation
            counts[token] = counts.get(token, 0) + 1
    return {token: sums[token] / counts[token] for token in sums}


def _copied(passages: Rows) -> list[tuple[list[int], list[float]]]:
    return [(list(tokens), list(activations)) for tokens, activations in passages]


def _same(got: Mapping[int, float], right: Mapping[int, float]) -> bool:
    """A token whose mean is 0 may be left out."""
    return all(math.isclose(got.get(token, 0.0), value, abs_tol=1e-6) for token, value in right.items())


# Exercise 3: find the bug: a score on what the explainer has seen.


def own_score_with_a_bug(passages: Rows) -> float:
    """The correlation of a table's predictions with the activations that it was made from."""
    table = solution_token_table(passages)
    said = [table.get(token, 0.0) for tokens, _ in passages for token in tokens]
    real = [activation for _, activations in passages for activation in activations]
    return float(np.corrcoef(said, real)[0, 1])


def check_own_score(answer: Any) -> Verdict:
    """`answer(passages)`: the correlation on passages 1, 3, 5, … of what the table of passages 0, 2, 4, … predicts."""
    rng = np.random.default_rng(0)
    noise = [
        (rng.integers(40, size=12).tolist(), (rng.random(12) * (rng.random(12) < 0.2)).tolist()) for _ in range(40)
    ]
    clear = [(tokens, [2.0 * (token < 5) + 0.1 * (token % 3) for token in tokens]) for tokens, _ in noise]
    clear[1] = ([99, *clear[1][0][1:]], [3.0, *clear[1][1][1:]])  # a token that no even passage has

    def a_number(answer: Callable) -> str | None:
        got = answer(_copied(noise))
        return None if np.ndim(got) == 0 else f"return one number; you return something of shape {np.shape(got)}"

    def of_noise(answer: Callable) -> str | None:
        got, right = float(answer(_copied(noise))), solution_own_score(noise)
        if abs(got - right) < 1e-6:
            return None
        told = f"of activations without any rule the score is {right:.2f}, you say {got:.2f}"
        if abs(got - own_score_with_a_bug(noise)) < 1e-6:
            return f"{told}: the table still predicts what it was made from"
        if abs(got - own_score_with_a_bug(noise[1::2])) < 1e-6 or abs(got - own_score_with_a_bug(noise[::2])) < 1e-6:
            return f"{told}: you use one half of the passages, and for both purposes"
        if abs(got - solution_own_score([*noise[1:], noise[0]])) < 1e-6:
            return "you make the table of the odd passages and test on the even ones; the task asks for the reverse"
        if abs(got - _held_out(noise[::2], noise)) < 1e-6:
            return f"{told}: you test on all passages, and the even ones have made the table"
        half = len(noise) // 2
        if abs(got - _held_out(noise[:half], noise[half:])) < 1e-6:
            return "you split into a first and a second half; the task asks for even and odd passages"
        return told

    def of_a_rule(answer: Callable) -> str | None:
        try:
            got, right = float(answer(_copied(clear))), solution_own_score(clear)
        except KeyError:
            return "a token that the table has not seen stops it: predict 0 there, with table.get(token, 0)"
        if abs(got - _held_out(clear[::2], clear[1::2], skipping=True)) < 1e-6:
            return "a token that the table has not seen is predicted as 0, and not left out: you skip it"
        return None if abs(got - right) < 1e-6 else f"of a clear rule the score is {right:.2f}, you say {got:.2f}"

    hints = (
        "Which passages does `table` know, and which does it predict?",
        "passages[::2] are those with an even number, passages[1::2] those with an odd one.",
    )
    praise = "Now an explanation that has only learned its examples by heart is found out."
    return judge("Exercise 3", answer, [a_number, of_noise, of_a_rule], hints, praise)


def solution_own_score(passages: Rows) -> float:
    """Even passages make the table, odd ones test it."""
    return _held_out(passages[::2], passages[1::2])


def _held_out(shown: Rows, tests: Rows, skipping: bool = False) -> float:
    """The correlation of the table of `shown` with `tests`; a token that it has not seen counts as 0, or not at all."""
    table = solution_token_table(shown)
    pairs = [pair for tokens, activations in tests for pair in zip(tokens, activations)]
    pairs = [pair for pair in pairs if pair[0] in table or not skipping]
    return float(np.corrcoef([table.get(token, 0.0) for token, _ in pairs], [a for _, a in pairs])[0, 1])
