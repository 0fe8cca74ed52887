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
