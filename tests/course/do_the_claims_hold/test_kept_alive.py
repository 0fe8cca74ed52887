"""Duplicates and features of one token are told from the others."""

import torch
from torch.testing import assert_close

from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.course.do_the_claims_hold.kept_alive import (
    figure,
    nearest_other,
    purity_of,
    strongest_contexts,
    token_purity,
)


def test_a_duplicate_is_near_another_row_and_nothing_is_near_itself():
    rows = torch.nn.functional.normalize(torch.randn(5000, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    rows[4999] = 3 * rows[7]
    found = nearest_other(rows)
    assert_close(found[[7, 4999]], torch.ones(2), atol=1e-5, rtol=0)
    few = torch.tensor([0, 100, 4000])
    expected = [max(float(rows[i] @ rows[j]) for j in range(4999) if j != i) for i in few.tolist()]
    assert_close(found[few], torch.tensor(expected), atol=1e-5, rtol=0)


def test_features_of_another_dictionary_count_under_another_number():
    rows = torch.eye(3)
    among = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.8, 0.6, 0.0]])
    assert_close(nearest_other(rows, among), torch.tensor([0.8, 0.6, 0.8]))


def test_purity_asks_the_strongest_matches():
    table = torch.zeros(12, 4)
    tokens = torch.tensor([5, 5, 5, 9, 1, 2, 3, 4, 6, 7, 8, 10])
    table[:, 0] = torch.linspace(2, 1, 12)  # strongest at 5, 5, 5, 9
    table[:4, 1] = torch.tensor([1.0, 1.0, 1.0, 3.0])
    table[[0, 1, 2], 2] = 1.0
    codes = SparseCodes.from_dense(table)
    found = token_purity(codes, tokens, n=4)
    assert found[:2].tolist() == [0.75, 0.75] and found[2:].isnan().all(), "three matches, none"
    assert token_purity(codes, tokens, n=3)[:3].tolist() == [1.0, float(torch.tensor(2 / 3)), 1.0]


def test_a_direction_copied_from_a_token_is_not_asked_about_it():
    x = torch.zeros(40, 2)
    x[:11, 0] = torch.arange(30.0, 19.0, -1)
    tokens = torch.tensor(5 * [7] + 35 * [8])
    across = torch.tensor([[1.0, 0.0]])
    assert_close(purity_of(across, x, tokens), 0.5)
    assert_close(purity_of(across, x, tokens, copied_from=torch.tensor([0])), 0.6)


def test_the_figure_has_tenths_of_the_densest_first():
    density = torch.arange(20.0).flip(0)
    names = ("same", "other", "share")
    asked = {name: torch.arange(20.0) / 20 for name in names}
    asked["same"] = torch.zeros(20)
    fig = figure(asked, density, (0.1, 0.6), 0.3)
    assert list(fig.data[1].y) == 7 * [0.0] + 3 * [1.0], "from 14 / 20 on"
    shown = {(trace.name, trace.y[0]) for trace in fig.data if trace.y is not None and trace.name}
    assert {("activations of single tokens", 0.1), ("activations of single tokens", 0.6)} <= shown
    said = "At a cosine of 0.7, 100% of the rarest features are found elsewhere, 0% in their own SAE, of single"
    assert fig.layout.title.text.replace("<br>", " ").startswith(said)


def test_contexts_are_those_of_the_strongest_matches():
    tokens = torch.arange(6).view(2, 3)
    table = torch.zeros(6, 2)
    table[[1, 4, 5], 1] = torch.tensor([1.0, 3.0, 2.0])

    class Words:
        def decode(self, ids, **_):
            return "".join(f"<{int(i)}>" for i in (ids if isinstance(ids, (list, torch.Tensor)) else [ids]))

    shown = strongest_contexts(SparseCodes.from_dense(table), [1], tokens, Words(), n=2)
    assert [row[:2] for row in shown.rows] == [(1, "3.0"), (1, "2.0")]
    assert [row[3] for row in shown.rows] == ["<4>", "<5>"]
