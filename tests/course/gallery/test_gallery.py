"""What notebooks of the gallery share."""

import pytest
import torch

from sae_tutorial.course import gallery


def test_digits_are_images_between_0_and_1_and_split_without_overlap():
    data = gallery.digits()
    assert data.train.shape == (1500, 64) and data.test.shape == (297, 64)
    assert data.train.min() == 0 and data.train.max() == 1 and set(data.test_label.tolist()) == set(range(10))
    whole = torch.cat([data.train, data.test]).sum()
    other = gallery.digits(seed=1)
    assert torch.isclose(torch.cat([other.train, other.test]).sum(), whole) and not torch.equal(other.test, data.test)


def test_differences_are_taken_pair_by_pair():
    found = gallery.paired([1.0, 2.0, 4.0], [0.0, 1.0, 3.0])
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    assert gallery.said(found, 1) == "1.0 [1.0, 1.0]"
    with pytest.raises(ValueError, match="shorter"):
        gallery.paired([1.0, 2.0], [0.0])


def test_a_verdict_is_a_table():
    page = gallery.Verdict("fewer passes", "digits", "12 of 64", "holds")._repr_markdown_()
    assert page.splitlines()[2:] == [
        "| **Claim** | fewer passes |",
        "| **Setting** | digits |",
        "| **Number** | 12 of 64 |",
        "| **Found** | holds |",
    ]
