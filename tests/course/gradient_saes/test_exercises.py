"""The exercises of notebook 12: solutions pass, and the likeliest mistakes are told what they are."""

import numpy as np
import pytest
import torch
from verdicts import said

from sae_tutorial.allocation import gradient_choice
from sae_tutorial.course.gradient_saes import exercises
from sae_tutorial.evaluation.intervals import Ratio

AGREEMENT = {"affinity": 0.9, "sensitivity": 0.5, "both": 0.7}


def test_the_solutions_pass():
    assert exercises.check_prediction(exercises.solution_prediction(AGREEMENT), AGREEMENT)
    assert exercises.check_gradient_choice(exercises.solution_gradient_choice)
    assert exercises.check_mean_sensitivity(exercises.solution_mean_sensitivity)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(None, "not answered"), ("the product", "'both'"), ("both", "0.70"), ("sensitivity", "0.50")],
)
def test_predictions(answer, words):
    said(exercises.check_prediction(answer, AGREEMENT), words)


def by_numpy(z, sensitivity, k, beta):
    z, found = z.numpy(), np.zeros(z.shape, dtype=np.float32)
    scores = np.maximum(z, 0) * (1 + beta * np.abs(sensitivity.numpy()))
    for row, best in enumerate(np.argsort(-scores, axis=1)[:, :k]):
        found[row, best] = np.maximum(z[row, best], 0)
    return found


def in_place(z, sensitivity, k, beta):
    scores = z.relu_().mul(1 + beta * sensitivity.abs_())
    z[scores < scores.topk(k, dim=1).values[:, -1:]] = 0
    return z


def in_the_words_of_the_hint(z, slope, k, beta):
    chosen = (z + beta * z * slope.abs()).topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, chosen, z.relu().gather(1, chosen))


def in_doubles(z, slope, k, beta):
    return exercises.solution_gradient_choice(z.double(), slope.double(), k, beta)


@pytest.mark.parametrize("answer", [by_numpy, in_place, in_the_words_of_the_hint, in_doubles])
def test_other_ways_to_the_same_codes_pass(answer):
    assert exercises.check_gradient_choice(answer)


def chosen(z, scores, k):
    best = scores.topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, best, z.gather(1, best))


def with_scores_as_values(z, sensitivity, k, beta):
    scores = (z + beta * z * sensitivity.abs()).relu()
    best = scores.topk(k, dim=1)
    return torch.zeros_like(z).scatter(1, best.indices, best.values)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (with_scores_as_values, "keeps its affinity"),
        (lambda z, s, k, beta: chosen(z, z + beta * z * s, k), "abs()"),
        (lambda z, s, k, beta: chosen(z, (z + beta * z * s.square()).relu(), k), "not squared"),
        (lambda z, s, k, beta: chosen(z, (z + beta * z * s.abs().sqrt()).relu(), k), "token 1 should have"),
        (lambda z, s, k, beta: chosen(z, (z * s.abs()).relu(), k), "leaves out the z itself"),
        (lambda z, s, k, beta: chosen(z, (z + z * s.abs()).relu(), k), "does not use `beta`"),
        (lambda z, s, k, beta: chosen(z.relu(), (z + beta * s.abs()) * (z > 0), k), "multiplied by z"),
        (lambda z, s, k, beta: exercises._chosen(z, z + beta * z * s.abs(), k, dim=0), "dim=1"),
        (lambda z, s, k, beta: chosen(z, z + beta * z * s.abs(), k), "negative"),
        (lambda z, s, k, beta: (z + beta * z * s.abs()).topk(k, dim=1).values, "(2, 4)"),
        (lambda z, s, k, beta: (exercises.solution_gradient_choice(z, s, k, beta) > 0).float(), "other values"),
        (lambda z, s, k, beta: exercises._by_size(z, z + beta * z * s.abs(), k), "negative affinity took a slot"),
        (lambda z, s, k, beta: gradient_choice(z, s, k, beta), ".to_dense()"),
    ],
)
def test_wrong_choices_are_told_why(answer, words):
    said(exercises.check_gradient_choice(answer), words)


@pytest.mark.parametrize(
    "answer",
    [
        lambda g, d: np.sqrt(((g.numpy() @ d.numpy()) ** 2).mean()),
        lambda g, d: (g @ d).norm() / len(g) ** 0.5,
        lambda g, d: (g @ d[:, None]).square().mean(0).sqrt(),
        lambda g, d: (d @ (g.T @ g / len(g)) @ d).sqrt(),
    ],
)
def test_other_ways_to_the_same_average_pass(answer):
    assert exercises.check_mean_sensitivity(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (exercises.mean_sensitivity_with_a_bug, "cancel"),
        (lambda g, d: (g @ d).mean().abs(), "cancel"),
        (lambda g, d: (g @ d).square().mean(), "root"),
        (lambda g, d: (g @ d).abs().mean(), "absolute"),
        (lambda g, d: (g @ d).std(), "as a std does"),
        (lambda g, d: g.norm(dim=1).mean(), "mean square is 2.00"),
        (lambda g, d: (g.square().mean(0).sqrt() @ d).abs(), "between two coordinates"),
        (lambda g, d: (g.square().mean(0) @ d.square()).sqrt(), "between two coordinates"),
        (lambda g, d: (g @ d).norm(), "not their sum"),
        (lambda g, d: (g @ d).norm() / len(g), "under the root"),
        (lambda g, d: (g @ d).abs(), "one for each answer"),
        (lambda g, d: g.square().mean(0).sqrt(), "where is `direction`"),
    ],
)
def test_wrong_averages_are_told_why(answer, words):
    said(exercises.check_mean_sensitivity(answer), words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        ("more", "two of"),
        (("less", "bigger"), "two of"),
        (("less", "more"), "squared error changes by +5.0% [+4.0%, +6.0%], which counts as “more”"),
        (("more", "more"), "KL changes by -0.2% [-1.0%, +0.5%], which counts as “open”, not as “more”"),
    ],
)
def test_words(answer, words):
    changes = Ratio(0.05, 0.04, 0.06, 0.001, 3, 256), Ratio(-0.002, -0.01, 0.005, 0.6, 3, 256)
    said(exercises.check_words(answer, changes), words)
    assert exercises.check_words(exercises.solution_words(changes), changes)
