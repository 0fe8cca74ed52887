"""The Triton twins equal the plain-torch expressions beside them, and through them the rules equal the oracle.

On the CPU this runs in Triton's interpreter, a thousand times slower than torch, so tables are tiny and limits are
brought down to match; tests marked `gpu` run the same on CUDA, and a last test compiles every kernel for Hopper GPUs,
which needs none.
"""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_tutorial.allocation import SparseCodes, decode, encode_matches, fast, kernels, products, rules
from sae_tutorial.allocation.fast.table import least_positive

pytestmark = pytest.mark.skipif(not kernels.INSTALLED, reason="needs triton")
CHOICES = ["token_choice", "feature_choice", "mutual_choice", "threshold_choice"]
every_choice = pytest.mark.parametrize("choice", CHOICES)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LEVELS = [-2.0, -0.0, 0.0, 0.5, 1.0, 1.0, 2.5, 7.0]  # few distinct values: ties, zeros and negatives are everywhere


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Where the kernels run; on the CPU they are made to serve too."""
    if request.param == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton was told to compile, not to interpret")
        monkeypatch.setattr(kernels, "serve", lambda *tensors: all(t.dtype in kernels.DTYPES for t in tensors))
        monkeypatch.setattr(kernels.selection, "OWNERS", 16)  # fewer programs: the interpreter counts those
    return request.param


@pytest.fixture
def tiny_limits(monkeypatch):
    """The limits that only large tables reach, brought down to small ones."""
    for name, value in {"BLOCK": 32, "WORDS": 16, "COPIES": 2}.items():
        monkeypatch.setattr(kernels.selection, name, value)
    monkeypatch.setattr(kernels.floors, "GROUPS", 8)
    monkeypatch.setattr(kernels.products, "LONGEST", 4)
    monkeypatch.setattr(kernels.products, "BLOCK_D", 16)


def random_table(shape, device, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def same(a, b):
    """Equal to the last bit, on any device."""
    fields = [(a.tokens, b.tokens), (a.features, b.features), (a.values, b.values)]
    return a.shape == b.shape and all(torch.equal(x.cpu(), y.cpu()) and x.dtype == y.dtype for x, y in fields)


def agrees(choice, table, budget):
    before = table.clone()
    ours, oracle = (getattr(module, choice)(table, budget) for module in (fast, rules))
    assert torch.equal(table, before)
    return same(ours, oracle)


def budgets(choice, B, F):
    """Some, uneven where that is possible, and more than there can be."""
    return {
        "token_choice": [4, F + 1],
        "feature_choice": [torch.arange(F) % 7, B + 1],
        "mutual_choice": [3 * B, B * F + 1],
        "threshold_choice": [torch.arange(F) / F * 3 - 0.5, 0.5],
    }[choice]


# The rules, through the kernels.


@every_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rules_equal_the_oracle(choice, dtype, device, tiny_limits):
    table = random_table((19, 53), device, dtype)
    for budget in budgets(choice, *table.shape):
        assert agrees(choice, table, budget), budget


@every_choice
def test_with_the_limits_of_large_tables(choice, device):
    assert agrees(choice, random_table((16, 200), device), budgets(choice, 16, 200)[0])


@every_choice
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 12)),
    budget=st.integers(0, 30),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(DTYPES),
)
def test_ties_zeros_and_small_tables(choice, device, tiny_limits, shape, budget, seed, dtype):
    table = torch.tensor(np.random.default_rng(seed).choice(LEVELS, size=shape)).to(device, dtype)
    assert agrees(choice, table, budget)


@every_choice
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 5), (5, 1)])
def test_empty_and_thin_tables(choice, shape, device):
    for table in (torch.ones(shape, device=device), -torch.ones(shape, device=device)):
        assert agrees(choice, table, 2)


@every_choice
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_are_errors_that_name_the_first(choice, bad, device):
    table = random_table((9, 40), device, torch.bfloat16)
    table[7, 31] = table[7, 33] = table[8, 0] = bad
    if bad != bad:
        table[8, 2] = math.inf
    for budget in (0, 2):
        with pytest.raises(ValueError, match=rf"affinities\[7, 31\] is {bad}"):
            getattr(fast, choice)(table, budget)


@every_choice
def test_layout_does_not_matter(choice, device):
    table = random_table((8, 40), device)
    spread = torch.zeros(16, 80, device=device)
    spread[::2, ::2] = table
    for view in (table.T.contiguous().T, spread[::2, ::2], table[:1].expand(8, 40)):
        assert not view.is_contiguous()
        assert agrees(choice, view, 3)


def test_gradients_reach_the_matched_affinities_and_no_others(device):
    table = random_table((10, 12), device).requires_grad_()
    codes = fast.mutual_choice(table, 30)
    (codes.values**2).sum().backward()
    assert torch.equal(table.grad, 2 * codes.to_dense().detach())


# Each function, and the expression in its docstring.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1])
def test_floors(dim, dtype, device, tiny_limits):
    """8 groups. Of lines of 8 entries all are looked at, in 16 bits; of lines of 40 the maxima, or where the capacity
    is more than a quarter of the groups, all, in all their bits."""
    capacity = torch.tensor([0, 1, 2, 3, 7, 8, 9, 30, 99], device=device)
    for length in (8, 40):
        table = random_table((length, len(capacity)), device, dtype)
        floors = kernels.floors.line_floors(table if dim == 0 else table.T, capacity, dim)
        exact = torch.cat([table.sort(0, descending=True).values, table.new_full((99, len(capacity)), -1)])
        exact = exact.gather(0, (capacity - 1).clamp(min=0)[None])[0].clamp(min=least_positive(table))
        exact[0] = math.inf
        assert (floors <= exact).all() and floors.isfinite()[1:].all()
        reached = ((table >= floors) & (table > 0)).sum(0)
        assert (reached <= (capacity if length == 8 else 3 * capacity)).all()
        if length == 8:
            assert torch.allclose(floors.float(), exact.float(), rtol=1 / 256)
        else:
            assert torch.equal(floors[capacity > 2], exact[capacity > 2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_compact(dtype, device):
    table = random_table((6, 100), device, dtype)
    for shape in ((1, 1), (6, 1), (1, 100), (6, 100)):
        floor = random_table(shape, device, dtype, seed=1).clamp(min=0.25)
        tokens, features = (~(table < floor)).nonzero(as_tuple=True)
        expected = SparseCodes(table[tokens, features], tokens, features, (6, 100))
        tokens, features, values, finite = kernels.selection.compact(table, floor)
        assert same(SparseCodes(values, tokens, features, (6, 100)), expected) and finite
    *_, everything, finite = kernels.selection.compact(table.abs() + 1, floor[:1, :1])
    assert len(everything) == 600 and finite
    table[3, 7] = torch.nan
    assert not kernels.selection.compact(table, floor)[-1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_kth_largest(dtype, device, tiny_limits):
    values = random_table((300,), device, dtype).abs() + 1e-6  # in half precision with many ties
    for n in (1, 2, 150, 299, 300):
        bits, quota = kernels.selection.kth_largest(values, n)
        kth = values.sort(descending=True).values[n - 1]
        assert bits == kth.view({4: torch.int32, 2: torch.int16}[values.element_size()])
        assert quota == n - (values > kth).sum()


def test_strongest_in_each(device, tiny_limits):
    values = random_table((60,), device, torch.bfloat16).abs() + 0.01
    owner = torch.arange(60, device=device) * 7 % 5
    capacity = torch.tensor([0, 3, 12, 99, 5, 4], device=device)  # the last owns nothing
    for budget in (capacity, 3):
        keep = kernels.selection.strongest_in_each(values, owner, 6, budget)
        for o in range(5):
            mine, limit = values[owner == o], int(capacity[o]) if budget is capacity else budget
            expected = torch.zeros_like(mine, dtype=torch.bool)
            expected[mine.sort(descending=True, stable=True).indices[:limit]] = True
            assert torch.equal(keep[owner == o], expected)


def some_codes(device, dtype=torch.float32):
    """20 tokens, 12 features: feature 3 in every token, feature 5 and tokens 4 to 6 in nothing."""
    dense = random_table((20, 12), device).relu()
    dense[:, 3], dense[:, 5], dense[4:7] = 1.0, 0.0, 0.0
    return SparseCodes.from_dense(dense.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_rows_and_dots(dtype, device, tiny_limits):
    """Rows of up to 17 matches: cut into pieces of 4, and put together again. D is more than one block, not two."""
    codes = some_codes(device, dtype)
    W, A = random_table((12, 20), device, dtype), random_table((20, 20), device, dtype)
    pattern, tolerance = codes._pattern, 1e-5 if dtype == torch.float32 else 2e-2
    close = dict(rtol=tolerance, atol=tolerance)
    dense = codes.to_dense().float()
    out = kernels.products.sum_rows(codes.values, codes.features, pattern.token_offsets, W)
    assert out.dtype == dtype and torch.allclose(out.float(), dense @ W.float(), **close)
    assert (out[4:7] == 0).all()
    for table in (A, A.T.contiguous().T, A[:1].expand(20, 20), A[:1, :1].expand(20, 20)):
        out = products._transposed_product(codes.values, pattern, table)
        assert torch.allclose(out.float(), dense.T @ table.float(), **close) and (out[5] == 0).all()
        out = kernels.products.dots(table, W, codes.tokens, codes.features)
        assert out.dtype == dtype
        assert torch.allclose(out.float(), (table.float() @ W.float().T)[codes.tokens, codes.features], **close)


def test_products_of_nothing(device):
    empty = SparseCodes.from_dense(torch.zeros(3, 4, device=device))
    W = torch.ones(4, 5, device=device, requires_grad=True)
    (empty @ W).sum().backward()
    assert torch.equal(empty @ W, torch.zeros(3, 5, device=device)) and torch.equal(W.grad, torch.zeros_like(W))
    no_tokens = SparseCodes.from_dense(torch.zeros(0, 4, device=device))
    assert (no_tokens @ W).shape == (0, 5)


def test_training_gradients_equal_those_of_the_dense_products(device, tiny_limits):
    codes, x = some_codes(device), random_table((20, 6), device)
    leaves = [random_table(s, device, seed=i).requires_grad_() for i, s in enumerate([(6, 12), (12,), (12, 6), (6,)])]
    W_enc, b_enc, W_dec, b_dec = leaves
    sparse = decode(encode_matches(x, W_enc, b_enc, codes, b_dec), W_dec)
    dense = (((x - b_dec) @ W_enc + b_enc).relu() * (codes.to_dense() > 0)) @ W_dec
    assert torch.allclose(sparse, dense, atol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad((out**2).sum(), leaves) for out in (sparse, dense))):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


# When they run.


def python(code, **environment):
    """Run this in a fresh Python; what it prints."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_switch():
    on = torch.empty(0, device="meta")
    assert not kernels.serve(torch.ones(2)) and not kernels.serve(on)  # not CUDA
    assert kernels._on
    with kernels.use(False):
        assert not kernels._on
        with kernels.use(True):
            assert kernels._on
        assert not kernels._on
    assert kernels._on
    ask = "from sae_tutorial.allocation import kernels; print(kernels._on)"
    assert python(ask, SAE_TUTORIAL_TRITON="0") == ["False"]


def test_everything_works_without_triton_and_nothing_imports_it_early():
    code = """
        import sys; sys.modules["triton"] = None  # as if it were not installed
        import torch; from sae_tutorial import mutual_choice; from sae_tutorial.allocation import kernels
        print(len(mutual_choice(torch.ones(3, 4), 5)), kernels.INSTALLED, kernels.serve(torch.ones(1)))
    """
    assert python("\n".join(line.strip() for line in code.splitlines())) == ["5", "False", "False"]
    code = "import sys, sae_tutorial.allocation; print('triton' in sys.modules)"
    assert python(code) == ["False"]


@pytest.mark.gpu
def test_on_a_gpu_the_kernels_serve_and_agree_with_the_switch_off():
    table, W = random_table((500, 3000), "cuda"), random_table((3000, 64), "cuda")
    assert kernels.serve(table) and not kernels.serve(table.double()) and not kernels.serve(table, W.cpu())
    for choice in CHOICES:
        ours = getattr(fast, choice)(table, 2)
        with kernels.use(False):
            assert not kernels.serve(table) and same(getattr(fast, choice)(table, 2), ours)
    with kernels.use(False):
        expected = ours @ W
    assert torch.allclose(ours @ W, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_tables_beyond_2_to_the_31_elements():
    row = torch.zeros(40_000, device="cuda")
    row[5], row[-1] = 2, 1
    table = row.expand(70_000, 40_000)  # 2.8e9 elements in 160 kB of memory
    codes = fast.mutual_choice(table, 70_001)
    assert torch.equal(codes.tokens.cpu(), torch.cat([torch.tensor([0]), torch.arange(70_000)]))
    assert codes.features.tolist()[:3] == [5, 39_999, 5] and int(codes.features[2:].max()) == 5


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="Triton brings its compiler for Linux only"
)
def test_every_kernel_compiles_for_hopper_gpus(tmp_path):
    """The interpreter forgives what the compiler does not. This needs no GPU: it stops before anything would run."""
    script = Path(__file__).with_name("compile_kernels.py").read_text(encoding="utf-8")
    compiled = python(script, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    selection = {"_group_floors", "_lines_kth", "_mark", "_write", "_histogram", "_narrow"}
    assert set(compiled) == selection | {"_sum_rows", "_dots"}
