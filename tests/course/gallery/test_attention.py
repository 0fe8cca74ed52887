"""Exercises of the gallery's notebooks on attention."""

import pytest
import torch
from verdicts import said

from sae_tutorial.course.gallery import attention


def test_the_solution_for_routing_masks_passes():
    assert attention.check_routing_mask(attention.solution_routing_mask)


def test_a_routed_query_sees_earlier_keys_of_its_clusters_in_every_batch():
    to_q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    mask = attention.solution_routing_mask(to_q.expand(2, 3, 4, 2), to_q, 2)
    assert mask.shape == (2, 3, 4, 4)
    assert mask[1, 2].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]


def counted(to_q, to_k, w):
    return attention._members(to_q, w).float() @ attention._members(to_k, w).float().T


def own_clusters(to_q, to_k, w):
    return (attention._members(to_q.T, 1).T.float() @ attention._members(to_k.T, 1).float() > 0).tril()


def the_same_clusters(to_q, to_k, w):
    return (attention._members(to_q, w)[:, None] == attention._members(to_k, w)).all(-1).tril()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda to_q, to_k, w: counted(to_q, to_k, w).sum(), "for each query and key"),
        (lambda to_q, to_k, w: counted(to_q, to_k, w) > 0, "come after it"),
        (lambda to_q, to_k, w: (counted(to_q, to_k, w) > 0).tril(-1), "may see itself"),
        (lambda to_q, to_k, w: (counted(to_k, to_q, w) > 0).tril(), "other way round"),
        (lambda to_q, to_k, w: attention.solution_routing_mask(-to_q, -to_k, w), "not the w smallest"),
        (lambda to_q, to_k, w: counted(to_q, to_k, w).tril(), "one is enough to be seen"),
        (the_same_clusters, "asks for the same clusters"),
        (own_clusters, "lets positions choose"),
        (lambda to_q, to_k, w: torch.ones(8, 8).tril(), "every earlier key"),
        (lambda to_q, to_k, w: torch.zeros(8, 8), "query 7 should see"),
    ],
)
def test_wrong_routing_masks_are_told_why(answer, words):
    said(attention.check_routing_mask(answer), words)


def test_the_solution_for_stretched_bins_passes():
    assert attention.check_stretch(attention.solution_stretch)


def test_bins_of_one_key_each_are_the_keys():
    mass = torch.rand(2, 5, 5)
    assert torch.equal(attention.solution_stretch(mass)[:, 4], mass[:, 4])


def stretched(bin_of, past=lambda t, s: s <= t):
    def answer(mass):
        T, K = mass.shape
        t, s = torch.arange(T)[:, None], torch.arange(T)
        return mass.gather(-1, bin_of(t, s, T, K).clamp(0, K - 1).expand(T, T)) * past(t, s)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda mass: mass, "a number for each query and key"),
        (stretched(lambda t, s, T, K: s * K // (t + 1), lambda t, s: s < 99), "keys to come"),
        (stretched(lambda t, s, T, K: s * K // T), "cover the whole row"),
        (stretched(lambda t, s, T, K: s * K // t.clamp(min=1)), "with its own"),
        (stretched(lambda t, s, T, K: s * K // (t + 1), lambda t, s: s < t), "may look at itself"),
        (stretched(lambda t, s, T, K: (t - s) * K // (t + 1)), "from the newest key back"),
        (lambda mass: attention.solution_stretch(mass).T, "the other way round"),
        (lambda mass: torch.zeros(6, 6), "is in bin 2 of 4"),
    ],
)
def test_wrong_stretches_are_told_why(answer, words):
    said(attention.check_stretch(answer), words)
