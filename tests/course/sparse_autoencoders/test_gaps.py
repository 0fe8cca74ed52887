"""The stages of an SAE's error tell its causes apart."""

import pytest
import torch

from sae_tutorial.course.sparse_autoencoders.gaps import STAGES, choose_anew, refit, stages
from sae_tutorial.evaluation.ground_truth import random_directions, sparse_strengths

W_DEC = random_directions(12, 32, seed=1)
TRUTH = sparse_strengths(200, 0.25, n=12, seed=2)
X = TRUTH @ W_DEC


def test_codes_that_are_all_too_small_by_an_amount_are_mended_by_adding_it():
    shrunk = TRUTH - 0.2 * (TRUTH > 0)
    amount, left = stages(X, shrunk, W_DEC)
    assert amount == pytest.approx(0.2, abs=1e-4) and list(left) == list(STAGES)
    assert left["as it is"] > 0.03 and left["one amount added"] < 1e-6


def test_wrong_strengths_of_the_right_features_are_mended_by_least_squares_only():
    _, left = stages(X, (TRUTH > 0).float(), W_DEC)
    assert left["one amount added"] > 0.05 and left["strengths refitted"] < 1e-6


def test_wrong_features_are_mended_by_choosing_anew_only():
    _, left = stages(X, TRUTH.roll(1, dims=1), W_DEC)
    assert left["strengths refitted"] > 0.3 and left["features chosen anew"] < 0.05


def test_no_strength_is_negative_and_no_token_gets_more_features_than_it_had():
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(3))  # half of all scalar products are negative
    z = (torch.rand(40, 12, generator=torch.Generator().manual_seed(4)) < 0.5).float()
    for codes in (refit(x, z, W_DEC), choose_anew(x, z, W_DEC)):
        assert (codes >= 0).all() and ((codes > 0).sum(dim=1) <= z.sum(dim=1)).all() and codes.any()


def test_a_token_without_features_stays_without():
    assert (refit(torch.ones(2, 3), torch.zeros(2, 5), torch.randn(5, 3)) == 0).all()
