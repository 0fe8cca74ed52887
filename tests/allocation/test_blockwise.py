"""The rules over blocks of features: what `rules` does to the whole table, wherever it is cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_tutorial.allocation import blockwise, fast, rules

CHOICES = ["token_choice", "feature_choice", "mutual_choice", "threshold_choice"]
every_choice = pytest.mark.parametrize("choice", CHOICES)
# Few distinct values, so that ties, zeros and negatives are everywhere.
LEVELS = [-2.0, -0.0, 0.0, 0.5, 1.0, 1.0, 2.5, 7.0]


def blocks_of(table, widths):
    """The table's blocks, one after the other in the same memory, spoilt as soon as the next one is asked for."""
    memory = torch.empty(table.shape[0] * max(widths, default=0), dtype=table.dtype)
    for block in table.split(widths, dim=1):
        view = memory[: block.numel()].view(block.shape)
        yield view.copy_(block)
        memory.fill_(99)


@st.composite
def cut_tables(draw):
    """A table, and the widths of its blocks, empty ones included."""
    B, widths = draw(st.integers(0, 12)), draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    levels = draw(st.sampled_from([LEVELS, [0.0], [1.0], list(np.linspace(-1, 3, 97))]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return torch.tensor(random.choice(levels, size=(B, sum(widths)))).to(dtype), widths


def same(a, b):
    """Equal to the last bit."""
    fields = [(a.tokens, b.tokens), (a.features, b.features), (a.values, b.values)]
    return a.shape == b.shape and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in fields)


@every_choice
@settings(max_examples=150, deadline=None)
@given(cut=cut_tables(), level=st.integers(0, 20), each=st.booleans(), seed=st.integers(0, 999))
def test_blocks_are_the_whole(choice, cut, level, each, seed):
    table, widths = cut
    budget = level / 5 if choice == "threshold_choice" else level
    if each and choice in ("feature_choice", "threshold_choice"):
        budget = torch.from_numpy(np.random.default_rng(seed).integers(0, 1 + level, table.shape[1]))
        budget = budget / 5 if choice == "threshold_choice" else budget
    found = getattr(blockwise, choice)(blocks_of(table, widths), budget)
    assert same(found, getattr(rules, choice)(table, budget))


@every_choice
@settings(max_examples=30, deadline=None)
@given(
    cut=cut_tables(), bad=st.sampled_from([math.nan, math.inf]), where=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))
)
def test_nan_and_inf_are_named_by_their_place_in_the_whole(choice, cut, bad, where):
    table, widths = cut
    if table.numel():
        token, feature = (int(share * size) for share, size in zip(where, table.shape))
        table[token, feature] = bad
        with pytest.raises(ValueError, match=rf"affinities\[{token}, {feature}\] is {bad}"):
            getattr(blockwise, choice)(blocks_of(table, widths), 2)


@every_choice
def test_larger_tables(choice):
    table = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    for budget in (1, 40) if choice != "mutual_choice" else (1, 2000, 200_000):
        found = getattr(blockwise, choice)(table.split(170, dim=1), budget)
        assert same(found, getattr(rules, choice)(table, budget))


@every_choice
def test_gradients_reach_the_matched_affinities_and_no_others(choice):
    table = torch.randn(10, 12, requires_grad=True)
    codes = getattr(blockwise, choice)(table.split(5, dim=1), 1)
    (codes.values**2).sum().backward()
    assert torch.equal(table.grad, 2 * codes.to_dense().detach())


def test_what_is_refused():
    table = torch.rand(4, 6)
    for choice in CHOICES:
        with pytest.raises(ValueError, match="blocks is empty"):
            getattr(blockwise, choice)([], 1)
        with pytest.raises(ValueError, match="the same tokens, got 3 after 4"):
            getattr(blockwise, choice)([table, table[:3]], 1)
        with pytest.raises(ValueError, match=r"got shape \(2, 2, 6\).*flatten"):
            getattr(blockwise, choice)([table.view(2, 2, 6)], 1)
    with pytest.raises(ValueError, match="k must be 0 or more, got -1"):
        blockwise.token_choice([table], -1)
    with pytest.raises(ValueError, match="capacity must be 0 or more, got -2 for feature 5"):
        blockwise.feature_choice(table.split(2, dim=1), torch.tensor([1, 2, 3, 4, 5, -2]))
    with pytest.raises(ValueError, match=r"capacity has shape \(3,\), but there are 4 features or more"):
        blockwise.feature_choice(table.split(2, dim=1), torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"threshold must be one number or have shape \(6,\), got \(7,\)"):
        blockwise.threshold_choice(table.split(2, dim=1), torch.rand(7))
    with pytest.raises(ValueError, match="threshold is NaN for feature 4"):
        blockwise.threshold_choice(table.split(2, dim=1), torch.tensor([0, 0, 0, 0, math.nan, 0]))


def test_one_number_may_be_a_tensor_and_a_threshold_a_parameter():
    z = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    theta = torch.nn.Parameter(torch.full((10,), 0.5))
    for module, table in ((rules, z), (fast, z), (blockwise, [z])):
        assert len(module.feature_choice(table, torch.tensor(2))) == len(module.feature_choice(table, 2))
        assert len(module.threshold_choice(table, theta)) == (z > 0.5).sum()
        with pytest.raises(TypeError, match="capacity must hold whole numbers, got torch.float32"):
            module.feature_choice(table, torch.tensor(2.5))
