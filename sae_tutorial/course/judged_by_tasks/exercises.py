"""Exercises on SAEs judged by tasks: which features a sparse probe takes, what absorption is, how
features are swapped, and whether FVU tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, known_mistake

# Exercise 1: build the choice of a sparse probe.


def check_choice(answer: Any) -> Verdict:
    """`answer(codes, label, k)`: (N, F), (N,) bool and a number -> (k,), the features whose mean over positive examples
    differs most from the mean over negative ones."""
    # Three positives and five negatives, so that sums and means order features differently. Feature 2 is large
    # everywhere, 0 is always on and larger with the property, 3 speaks against it, 1 has one large value, 5 is small
    # and never wrong, 4 says nothing.
    positive = [[7.0, 12.0, 9.0, 0.0, 0.0, 0.5], [5.0, 0.0, 9.0, 0.0, 0.0, 0.5], [6.0, 0.0, 9.0, 0.0, 0.0, 0.5]]
    negative = [[1.0, 8.0, 9.0, 4.0, 0.0, 0.0], [5.0, 0.0, 8.9, 1.0, 0.0, 0.0], [3.0, 8.0, 8.9, 4.0, 0.0, 0.0]]
    negative += [[1.0, 0.0, 9.0, 1.0, 0.0, 0.0], [5.0, 0.0, 9.0, 2.5, 0.0, 0.0]]
    codes = torch.tensor(positive + negative)
    label, k = torch.arange(8) < 3, 2
    right = solution_choice(codes, label, k)

    def chosen(answer: Callable) -> Tensor:
        got = answer(codes.clone(), label.clone(), k)
        return torch.as_tensor(got.indices if isinstance(got, torch.return_types.topk) else got)

    def k_numbers_of_features(answer: Callable) -> str | None:
        got = chosen(answer)
        if got.shape == (6,):
            return f"return the {k} chosen features; yours has one entry for each of all 6"
        if got.shape != (k,):
            return f"return the numbers of {k} features, here of the shape {(k,)}; yours is {tuple(got.shape)}"
        if got.is_floating_point():
            return "return the numbers of the features (their indices), not the values they were chosen by"
        return None

    def the_features(answer: Callable) -> str | None:
        got = chosen(answer).sort().values
        ours, theirs = codes[label], codes[~label]
        difference, sums = ours.mean(0) - theirs.mean(0), ours.sum(0) - theirs.sum(0)
        by = {
            "a large mean is not enough: feature 2 is as large without the property": ours.mean(0),
            "a feature that speaks *against* the property tells as much: take the size of the difference": difference,
            "sums depend on how many examples of a kind there are: take means": sums.abs(),
            "those are the features that differ least": -difference.abs(),
            "you ask how reliably a feature tells (how often it is on, or a correlation); compare means": (
                (ours > 0).float().mean(0) - (theirs > 0).float().mean(0)
            ).abs(),
            "you take the largest value of a feature; one example is no evidence, take means": ours.amax(0),
        }
        wrong = {told: values.topk(k).indices.sort().values for told, values in by.items()}
        if torch.equal(got, right.sort().values):
            return None
        return known_mistake(got, wrong) or f"here features {right.tolist()} differ most; yours are {got.tolist()}"

    hints = (
        "For each feature: the mean over rows with the label, minus the mean over rows without it. Its sign does not "
        "matter.",
        "`codes[label]` are the rows with it, `.mean(0)` is of each feature, and `topk(k)` gives values and indices.",
    )
    praise = "Nothing is fitted yet: the choice needs two means. Only then a regression weighs the chosen few."
    return judge("Exercise 1", answer, [k_numbers_of_features, the_features], hints, praise)


def solution_choice(codes: Tensor, label: Tensor, k: int) -> Tensor:
    return (codes[label].mean(0) - codes[~label].mean(0)).abs().topk(k).indices


# Exercise 2: find the bug in a measure of absorption.

SHARE, COSINE = 0.4, 0.025  # those of SAEBench


def absorption_with_a_bug(main: Tensor, share: Tensor, cosine: Tensor) -> float:
    """The share of words in which another feature has taken over; but not of all words."""
    taken = (share >= SHARE) & (cosine >= COSINE)
    return float(taken[main == 0].float().mean())


def check_absorption(answer: Any) -> Verdict:
    """`answer(main, share, cosine)`, of each word what the property's feature is, and of the feature that carries most
    of the property there its share and its cosine with the property's direction -> the share of absorbed words."""
    # How many words there are of each kind, so that every likely mistake has a number of its own.
    words = (
        [(0.0, 0.6, 0.3), (0.0, 0.6, 0.5), (0.0, SHARE, 0.3)]  # absorbed
        + [(1.2, 0.7, 0.9)] * 5  # not silent
        + [(0.0, 0.9, 0.01)] * 2 + [(0.0, 0.9, -0.1)]  # large, in another direction
        + [(0.0, 0.1, 0.3)] * 4  # carries little
        + [(0.0, 0.1, 0.01), (0.8, 0.1, 0.01), (0.3, 0.2, 0.02)]
    )  # fmt: skip
    main, share, cosine = torch.tensor(words).T
    right = solution_absorption(main, share, cosine)

    def the_share(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(main.clone(), share.clone(), cosine.clone())).float()
        if got.shape:
            return f"return one number, the share of all words; yours has the shape {tuple(got.shape)}"
        if torch.isclose(got, torch.tensor(right), atol=1e-4):
            return None
        silent, carries, alike = main == 0, share >= SHARE, cosine >= COSINE
        wrong = {
            "a silent feature alone is a miss. Absorbed is a word whose property another feature carries": silent,
            "where the main feature is active nothing was absorbed": carries & alike,
            "a feature may carry a large part by being large; its direction must be the property's, too": silent
            & carries,
            "a feature in the right direction that carries next to nothing has taken nothing over": silent & alike,
            "a share of exactly 0.4 counts": silent & (share > SHARE) & alike,
            "a cosine above 0 is not enough: it must be 0.025 or more": silent & carries & (cosine > 0),
            "that asks for another cosine than 0.025 or more": silent & carries & (cosine >= 0.4),
            "that is how many words, not their share": torch.full((1,), len(words) * right),
        }
        of_silent = (silent & carries & alike).sum() / silent.sum()
        told = {what: mask.float().mean() for what, mask in wrong.items()}
        told["that is the share of the words with a silent feature; take it of all words"] = of_silent
        return known_mistake(got, told) or f"here {right:.3f} of the words are absorbed; yours says {float(got):.3f}"

    hints = (
        "Three things must hold at once, and do. The mean is over which words?",
        "Each of the three gives a mask over words; join them with `&`, and take the mean over all words.",
    )
    praise = "A hole in one feature, and another feature that fills it: only both together are absorption."
    return judge("Exercise 2", answer, [the_share], hints, praise)


def solution_absorption(main: Tensor, share: Tensor, cosine: Tensor) -> float:
    return float(((main == 0) & (share >= SHARE) & (cosine >= COSINE)).float().mean())


# Exercise 3: build the swap of some features between two sentences.


def check_swap(answer: Any) -> Verdict:
    """`answer(x, codes, other, features, W_dec)`: (D,), (F,), (F,), (k,) and (F, D) -> (D,), x with the codes of
    `features` as they are in the other sentence, and with all that the SAE leaves out of x."""
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.randn(6, 4, generator=generator)
    codes, other = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 3.0]), torch.tensor([0.0, 1.5, 1.0, 2.5, 4.0, 0.0])
    features, error = torch.tensor([1, 2, 5]), torch.tensor([0.3, -0.2, 0.1, 0.4])
    x = codes @ W_dec + error
    right, more = solution_swap(x, codes, other, features, W_dec), (other - codes)[features] @ W_dec[features]

    def swapped(answer: Callable) -> tuple[Tensor, Tensor]:
        """The answer, and what it has made of its `codes`."""
        given = [one.clone() for one in (x, codes, other, features, W_dec)]
        return torch.as_tensor(answer(*given)).float(), given[1]

    def an_activation(answer: Callable) -> str | None:
        got, _ = swapped(answer)
        return None if got.shape == x.shape else f"return an activation, {tuple(x.shape)}; yours is {tuple(got.shape)}"

    def the_activation(answer: Callable) -> str | None:
        got, its_codes = swapped(answer)
        if not torch.equal(its_codes, codes):
            return "you have changed `codes` itself; change a copy, `codes.clone()`"
        if torch.allclose(got, right, atol=1e-4):
            return None
        wrong = {
            "what the SAE leaves out of x has gone, too: change x, do not build it again from codes": right - error,
            "the other sentence's features are there now, but those of x were not taken away": x
            + other[features] @ W_dec[features],
            "those of x are taken away, but the other sentence's are not there": x - codes[features] @ W_dec[features],
            "that goes the wrong way: add what the other sentence has more": x - more,
            "all features are swapped; only `features` should be": x + (other - codes) @ W_dec,
            "that is the change alone; add it to x": more,
            "those of x are not taken away, and all features of the other sentence are added": x + other @ W_dec,
            "that is built of the other sentence's codes alone; change x": other @ W_dec,
            "the directions are the rows of `W_dec` that `features` names": x + (other - codes)[features] @ W_dec[:3],
        }
        return known_mistake(got, wrong) or f"expected {right.tolist()}, got {got.tolist()}"

    hints = (
        "How much more does the other sentence have of each of these features? Each such difference goes along a row "
        "of `W_dec`.",
        "A change is `(k,) @ (k, D)`: what the other sentence has more of each feature, times these rows of `W_dec`.",
    )
    praise = "Only these few features have changed: the others, and all that no feature holds, are those of x."
    return judge("Exercise 3", answer, [an_activation, the_activation], hints, praise)


def solution_swap(x: Tensor, codes: Tensor, other: Tensor, features: Tensor, W_dec: Tensor) -> Tensor:
    return x + (other[features] - codes[features]) @ W_dec[features]


# Exercise 4: predict whether less error goes with better answers.


def check_rank_correlation(guess: Any, measured: float, within: float = 0.15) -> Verdict:
    """`guess`: the rank correlation over rules of what is explained (1 − FVU) with a task's score, −1 to 1."""

    def a_correlation(guess: Any) -> str | None:
        known = isinstance(guess, (int, float)) and not isinstance(guess, bool) and -1 <= guess <= 1
        return None if known else f"answer with a rank correlation, a number from −1 to 1; you say {guess!r}"

    def near(guess: float) -> str | None:
        if abs(guess - measured) <= within:
            return None
        return "it is lower than that" if guess > measured else "it is higher than that"

    hints = (
        "1 would say that rules come in the same order by both, −1 in opposite orders, 0 that one does not tell.",
        "What a task asks for is a small part of what an SAE has to reconstruct.",
    )
    return judge("Exercise 4", guess, [a_correlation, near], hints, f"It is {measured:.2f}. Which rules make it so?")
