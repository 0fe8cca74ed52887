"""What dictionaries of several seeds share: of a planted truth, all of it and nothing else."""

import pytest
import torch

from sae_tutorial.course.dark_matter import size
from sae_tutorial.course.results import load_sizes
from sae_tutorial.evaluation.ground_truth import random_directions


def test_what_all_have_is_counted_and_what_differs_is_not():
    truth = random_directions(20, 16)
    dictionaries = [torch.cat([3 * truth[torch.randperm(20)], random_directions(10, 16, seed)]) for seed in (5, 6, 7)]
    found = size.agreement(dictionaries, truth)
    assert len(found["agreed"]) == 3 and found["true_found"] == [1.0] * 3
    assert [30 * share for share in found["agreed"]] == pytest.approx([20] * 3, abs=1.01)
    assert found["mmcs_random"] < min(found["mmcs"]) < 1


def test_without_a_truth_nothing_is_said_of_it():
    one = random_directions(8, 4)
    assert "true_found" not in size.agreement([one, one])
    assert size.agreement([one, one])["agreed"] == [1.0]


@pytest.mark.parametrize("frequencies", size.FREQUENCIES)
def test_planted_tokens_are_sums_of_a_few(frequencies):
    truth, x = size.planted(frequencies)
    assert truth.shape == (size.N_TRUE, size.D) and x.shape == (size.N_TOKENS, size.D)
    assert size.FREQUENCIES[frequencies].sum() == pytest.approx(3.4, abs=0.05)


def test_shipped_rows_have_three_seeds_each():
    rows = load_sizes()
    assert {row["data"] for row in rows} >= {"equal", "Zipf", "stories"}
    assert all(len(row["agreed"]) == 3 and len(row["fvu"]) == 3 for row in rows)
