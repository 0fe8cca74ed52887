"""The four choices: against brute force, against each other's promises, and `fast` against `rules`."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_tutorial.allocation import fast, rules
from sae_tutorial.allocation.fast import floors, selection
from sae_tutorial.allocation.fast import table as table_in_memory

CHOICES = ["token_choice", "feature_choice", "mutual_choice", "threshold_choice"]
both = pytest.mark.parametrize("module", [rules, fast], ids=["rules", "fast"])
every_choice = pytest.mark.parametrize("choice", CHOICES)
quick = settings(max_examples=40, deadline=None)

# Few distinct values, so that ties, zeros and negatives are everywhere.
LEVELS = [-2.0, -0.0, 0.0, 0.5, 1.0, 1.0, 2.5, 7.0]


@st.composite
def tables(draw, most_tokens=12, most_features=12):
    B, F = draw(st.integers(0, most_tokens)), draw(st.integers(0, most_features))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    random = np.random.default_rng(seed)
    levels = draw(st.sampled_from([LEVELS, [0.0], [1.0], list(np.linspace(-1, 3, 97))]))
    return torch.tensor(random.choice(levels, size=(B, F)).reshape(B, F)).to(dtype)


def brute_force(table, allowed):
    """Walk the positive cells, strongest first, lowest token and then lowest feature first; take what is allowed."""
    cells = [(-v, b, f) for b, row in enumerate(table.tolist()) for f, v in enumerate(row) if v > 0]
    taken = []
    for minus_v, b, f in sorted(cells):
        if allowed(taken, b, f):
            taken.append((b, f, -minus_v))
    return sorted(taken)


def as_list(codes):
    """The matches as (token, feature, value), in the order in which they come."""
    return list(zip(codes.tokens.tolist(), codes.features.tolist(), codes.values.tolist()))


def same(a, b):
    """Equal to the last bit."""
    fields = [(a.tokens, b.tokens), (a.features, b.features), (a.values, b.values)]
    return a.shape == b.shape and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in fields)


def call(module, choice, table):
    """A choice with an ordinary budget."""
    return getattr(module, choice)(table, 0.1 if choice == "threshold_choice" else 2)


@both
@quick
@given(table=tables(), k=st.integers(0, 14))
def test_token_choice_is_brute_force(module, table, k):
    expected = brute_force(table, lambda taken, b, f: sum(t == b for t, _, _ in taken) < k)
    assert as_list(module.token_choice(table, k)) == expected


@both
@quick
@given(table=tables(), seed=st.integers(0, 999), uniform=st.none() | st.integers(0, 14))
def test_feature_choice_is_brute_force(module, table, seed, uniform):
    F = table.shape[1]
    capacity = torch.from_numpy(np.random.default_rng(seed).integers(0, 15, F)) if uniform is None else uniform
    limits = capacity.tolist() if uniform is None else [uniform] * F
    expected = brute_force(table, lambda taken, b, f: sum(g == f for _, g, _ in taken) < limits[f])
    assert as_list(module.feature_choice(table, capacity)) == expected


@both
@quick
@given(table=tables(), n_matches=st.integers(0, 160))
def test_mutual_choice_is_brute_force(module, table, n_matches):
    expected = brute_force(table, lambda taken, b, f: len(taken) < n_matches)
    assert as_list(module.mutual_choice(table, n_matches)) == expected


@both
@quick
@given(table=tables(), level=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 9.0, math.inf]), each=st.booleans())
def test_threshold_choice_is_brute_force(module, table, level, each):
    F = table.shape[1]
    thresholds = [level + (f % 3) * 0.5 if each else level for f in range(F)]
    expected = brute_force(table, lambda taken, b, f: float(table[b, f]) > thresholds[f])
    assert as_list(module.threshold_choice(table, torch.tensor(thresholds) if each else level)) == expected


@both
@settings(max_examples=15, deadline=None)
@given(table=tables(most_tokens=3, most_features=3), budget=st.integers(0, 5))
def test_no_allocation_is_worth_more(module, table, budget):
    """Of all subsets of cells within the budget, the rule's has the largest sum of affinities."""
    table = table.double()
    B, F = table.shape
    cells = list(itertools.product(range(B), range(F)))
    subsets = [s for n in range(len(cells) + 1) for s in itertools.combinations(cells, n)]

    def best(within):
        return max(sum(float(table[c]) for c in s) for s in subsets if within(s))

    def most(s, axis):
        return max((sum(c[axis] == i for c in s) for i in range(max(B, F))), default=0)

    for rule, within in [
        (module.token_choice, lambda s: most(s, 0) <= budget),
        (module.feature_choice, lambda s: most(s, 1) <= budget),
        (module.mutual_choice, lambda s: len(s) <= budget),
    ]:  # sums in another order may round otherwise
        assert float(rule(table, budget).values.sum()) == pytest.approx(best(within), abs=1e-9)


@both
def test_known_table(module):
    table = torch.tensor([[3.0, 2.0, 2.0, -1.0], [2.0, 0.0, 5.0, 1.0], [2.0, 2.0, 0.5, 4.0]])
    assert as_list(module.token_choice(table, 1)) == [(0, 0, 3), (1, 2, 5), (2, 3, 4)]
    # Four cells hold 2: the lowest token wins, and of its two the lowest feature.
    assert as_list(module.mutual_choice(table, 4)) == [(0, 0, 3), (0, 1, 2), (1, 2, 5), (2, 3, 4)]
    # In column 0 the tie goes to token 1, in column 1 to token 0.
    assert as_list(module.feature_choice(table, torch.tensor([2, 1, 0, 9]))) == [
        *[(0, 0, 3), (0, 1, 2)],
        *[(1, 0, 2), (1, 3, 1)],
        *[(2, 3, 4)],
    ]
    assert as_list(module.threshold_choice(table, 2)) == [(0, 0, 3), (1, 2, 5), (2, 3, 4)]  # greater, not equal


@both
def test_budgets_are_met_exactly_or_as_far_as_possible(module):
    table = torch.rand(50, 30) + 0.1
    assert len(module.mutual_choice(table, 200)) == 200
    assert module.token_choice(table, 4).l0().tolist() == [4] * 50
    capacity = torch.arange(30)
    assert (module.feature_choice(table, capacity).density() * 50).round().int().tolist() == capacity.tolist()
    for codes in (module.mutual_choice(table, 9999), module.token_choice(table, 31), module.feature_choice(table, 51)):
        assert len(codes) == 50 * 30
        assert torch.equal(codes.to_dense(), table)
    table[:, 3:] -= 5  # only three features stay positive
    assert len(module.mutual_choice(table, 200)) == 150
    assert module.token_choice(table, 4).l0().tolist() == [3] * 50
    assert len(module.mutual_choice(-table.abs(), 5)) == len(module.mutual_choice(table * 0, 5)) == 0
    assert len(module.mutual_choice(table, 0)) == len(module.token_choice(table, 0)) == 0
    assert len(module.feature_choice(table, 0)) == 0


@both
@every_choice
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 5), (5, 1), (1, 1)])
def test_small_shapes(module, choice, shape):
    codes = call(module, choice, torch.ones(shape))
    assert codes.shape == shape and codes.to_dense().shape == shape
    assert codes.tokens.dtype == codes.features.dtype == torch.int64
    assert len(codes) == min(
        {"token_choice": shape[0] * 2, "feature_choice": shape[1] * 2, "mutual_choice": 2}.get(choice, math.inf),
        math.prod(shape),
    )


@both
@every_choice
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_inf_are_errors_that_name_the_first(module, choice, bad, dtype):
    table = torch.randn(320, 64, dtype=dtype)
    table[7, 31] = table[7, 33] = table[8, 0] = bad
    for laid in (table, table.T.contiguous().T, table[:300, :40]):
        with pytest.raises(ValueError, match=rf"affinities\[7, 31\] is {bad}"):
            call(module, choice, laid)
        with pytest.raises(ValueError, match=rf"affinities\[7, 31\] is {bad}"):
            getattr(module, choice)(laid, 0)


@every_choice
@pytest.mark.parametrize(
    "dtype, bits", [(torch.bfloat16, b) for b in (0x7F81, -0x40, -1, -0x7F)] + [(torch.float16, -1)]
)
def test_a_nan_of_any_sign_and_payload_is_found(choice, dtype, bits):
    """In half precision the bits are compared, and those of a NaN with its sign set are a negative number's."""
    table = torch.randn(320, 64, dtype=dtype)
    table.view(torch.int16)[7, 31] = bits
    assert table[7, 31].isnan()
    for laid in (table, table.T.contiguous().T):
        with pytest.raises(ValueError, match=r"affinities\[7, 31\] is nan"):
            call(fast, choice, laid)


@both
@every_choice
def test_minus_inf_is_only_very_negative(module, choice):
    table = torch.randn(300, 40)
    masked = table.clone()
    masked[::2] = -math.inf
    table[::2] = -1
    assert same(call(module, choice, masked), call(module, choice, table))


@both
@every_choice
def test_wrong_tables_are_errors_that_say_what_to_do(module, choice):
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 4\).*affinities.flatten\(0, 1\)"):
        call(module, choice, torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"got shape \(3,\).*affinities\[None\]"):
        call(module, choice, torch.ones(3))
    for other in (np.ones((3, 4)), [[1.0, 2.0]], None):
        with pytest.raises(TypeError, match=rf"affinities must be a tensor, got {type(other).__name__}"):
            call(module, choice, other)
    with pytest.raises(TypeError, match="affinities must hold floating point numbers, got torch.complex64"):
        call(module, choice, torch.ones(3, 4, dtype=torch.complex64))
    with pytest.raises(
        TypeError, match=r"affinities must hold floating point numbers, got torch.int64.*affinities.float\(\)"
    ):
        call(module, choice, torch.ones(3, 4, dtype=torch.int64))


@both
def test_wrong_budgets_are_errors(module):
    table = torch.ones(3, 4)
    with pytest.raises(ValueError, match="k must be 0 or more, got -1"):
        module.token_choice(table, -1)
    with pytest.raises(TypeError, match="n_matches must be a whole number, got 2.5"):
        module.mutual_choice(table, 2.5)
    with pytest.raises(ValueError, match=r"capacity must be one number or have shape \(4,\), got \(3,\)"):
        module.feature_choice(table, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="capacity must be 0 or more, got -2 for feature 1"):
        module.feature_choice(table, torch.tensor([1, -2, 3, 0]))
    with pytest.raises(ValueError, match="capacity must be 0 or more, got -2"):
        module.feature_choice(table, -2)
    for wrong in (torch.ones(4), [1.0, 2.0, 3.0, 4.0], 2.5, torch.ones(4, dtype=torch.bool), torch.ones(4) * 1j):
        with pytest.raises(TypeError, match="capacity must hold whole numbers, got torch.(float32|bool|complex64)"):
            module.feature_choice(table, wrong)
    for wrong in (None, "2", ["a"], object()):
        with pytest.raises(TypeError, match=r"capacity must be one number, or a \(4,\) tensor of numbers, got "):
            module.feature_choice(table, wrong)
        with pytest.raises(TypeError, match=r"threshold must be one number, or a \(4,\) tensor of numbers, got "):
            module.threshold_choice(table, wrong)
    with pytest.raises(TypeError, match="threshold must hold real numbers, got torch.complex64"):
        module.threshold_choice(table, torch.ones(4) * 1j)
    with pytest.raises(ValueError, match=r"threshold must be one number or have shape \(4,\), got \(3,\)"):
        module.threshold_choice(table, torch.ones(3))
    with pytest.raises(ValueError, match="threshold is NaN for feature 2"):
        module.threshold_choice(table, torch.tensor([0, 0, math.nan, 0]))


@both
def test_limits_may_be_lists_and_numbers_of_numpy(module):
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = module.feature_choice(table, torch.tensor([1, 2, 3, 0]))
    for capacity in ([1, 2, 3, 0], np.array([1, 2, 3, 0]), torch.tensor([1, 2, 3, 0], dtype=torch.uint8)):
        assert same(module.feature_choice(table, capacity), expected)
    assert same(module.feature_choice(table, np.int64(2)), module.feature_choice(table, 2))
    assert same(module.feature_choice(table, 10**30), module.feature_choice(table, 6))
    expected = module.threshold_choice(table, torch.tensor([0.5, 1, 0, 0]))
    for threshold in ([0.5, 1, 0, 0], np.array([0.5, 1, 0, 0])):
        assert same(module.threshold_choice(table, threshold), expected)


@both
@every_choice
def test_layout_does_not_matter_and_nothing_is_overwritten(module, choice):
    table = torch.randn(40, 60)
    before = table.clone()
    expected = call(module, choice, table)
    assert torch.equal(table, before)
    spread = torch.zeros(80, 120)
    spread[::2, ::2] = table
    for view in (table.T.contiguous().T, spread[::2, ::2]):
        assert not view.is_contiguous()
        assert same(call(module, choice, view), expected)
    row = torch.randn(60)
    assert same(call(module, choice, row.expand(40, 60)), call(module, choice, row.repeat(40, 1)))


@both
@every_choice
def test_gradients_reach_the_matched_affinities_and_no_others(module, choice):
    table = torch.randn(10, 12, requires_grad=True)
    codes = call(module, choice, table)
    (codes.values**2).sum().backward()
    assert torch.equal(table.grad, 2 * codes.to_dense().detach())


@every_choice
def test_more_than_2_to_the_31_elements_are_refused_by_the_definition(choice):
    table = torch.zeros(1, 1).expand(2**16, 2**16)
    with pytest.raises(ValueError, match="4,294,967,296 elements.*allocation.fast"):
        call(rules, choice, table)


@pytest.mark.slow
def test_more_than_2_to_the_31_elements_go_block_by_block():
    row = torch.zeros(40_000)
    row[5], row[-1] = 2, 1
    table = row.expand(70_000, 40_000)  # 2.8e9 elements in 160 kB of memory
    codes = fast.mutual_choice(table, 70_001)
    assert torch.equal(codes.tokens, torch.cat([torch.tensor([0]), torch.arange(70_000)]))
    assert codes.features.tolist()[:3] == [5, 39_999, 5] and int(codes.features[2:].max()) == 5


# `fast` against `rules`, where its machinery is at work.


@every_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(300, 520), (1, 5000), (3000, 7), (130, 1201)])
def test_fast_equals_rules(choice, dtype, shape):
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)  # half precision: many ties
    B, F = shape
    budgets = {
        "token_choice": [0, 1, 40, 300, F],
        "feature_choice": [1, 20, 600, torch.arange(F) % 40, (2000 / (1 + torch.arange(F))).long()],
        "mutual_choice": [0, 1, 40 * B, B * F // 2, B * F],
        "threshold_choice": [0.0, 1.5, torch.arange(F) / F * 4, math.inf],
    }[choice]
    for budget in budgets:
        expected = getattr(rules, choice)(table, budget)
        for laid in (table, table.T.contiguous().T):
            assert same(getattr(fast, choice)(laid, budget), expected), budget


@every_choice
@quick
@given(table=tables(40, 40), budget=st.integers(0, 60), turned=st.booleans(), line=st.integers(1, 5))
def test_fast_equals_rules_with_tiny_blocks_groups_and_samples(choice, table, budget, turned, line):
    """The limits that only large tables reach, brought down to small ones; in both layouts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK", {"cpu": 64, "other": 64})
        patch.setattr(floors, "SAMPLE", 16)
        patch.setattr(floors, "RUN", 4)
        patch.setattr(floors, "GROUPS", (4, 8))
        patch.setattr(table_in_memory, "LINE", line)
        patch.setattr(selection, "LINE", line)
        laid = table.T.contiguous().T if turned else table
        assert same(getattr(fast, choice)(laid, budget), getattr(rules, choice)(table, budget))


@pytest.mark.gpu
@every_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_finds_the_same_matches(choice, dtype):
    table = torch.randn(500, 3000, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = call(rules, choice, table)
    for module in (rules, fast):
        assert same(call(module, choice, table.cuda()).to("cpu"), expected)


def test_a_misleading_sample_costs_time_and_nothing_else():
    """All that the sample can see is large, and the matches asked for are many more than that."""
    table = torch.rand(4096, 256)
    fooled = floors._sampled_floor(table, 1000, 4.0)
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        honest = floors._sampled_floor
        patch.setattr(
            floors, "_sampled_floor", lambda *a: (calls.append(a), fooled if len(calls) == 1 else honest(*a))[1]
        )
        assert same(fast.mutual_choice(table, 100_000), rules.mutual_choice(table, 100_000))
        assert len(calls) == 2


@both
@quick
@given(table=tables(40, 40), n_matches=st.integers(0, 300), guess=st.floats() | st.sampled_from([0.5, 1.0, 1.04, 2.5]))
def test_a_guess_changes_nothing(module, table, n_matches, guess):
    assert same(module.mutual_choice(table, n_matches, guess=guess), rules.mutual_choice(table, n_matches))


def test_a_good_guess_saves_a_sample_and_a_bad_one_a_pass(monkeypatch):
    table = torch.rand(1000, 600)
    weakest = float(rules.mutual_choice(table, 5000).values.min())
    looks = []
    real = fast.compact
    monkeypatch.setattr(fast, "compact", lambda z, floor: looks.append(float(floor)) or real(z, floor))
    for guess, n_looks in [(weakest, 1), (weakest * 1.01, 1), (weakest * 1.05, 2), (None, 1)]:
        looks.clear()
        assert same(fast.mutual_choice(table, 5000, guess=guess), rules.mutual_choice(table, 5000))
        assert len(looks) == n_looks


@every_choice
def test_fast_keeps_the_docstrings(choice):
    assert getattr(fast, choice).__doc__ == getattr(rules, choice).__doc__
    assert "Source:" in getattr(fast, choice).__doc__
