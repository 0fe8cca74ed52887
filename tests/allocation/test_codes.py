"""SparseCodes and its products: equal to dense ones, forward and backward, and never dense."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from sae_tutorial.allocation import SparseCodes, decode, encode_matches, mutual_choice, products, token_choice

# Token 1, token 4 and features 0 and 5 have no match; two matches of token 0 are equally strong.
MATCHES = {"tokens": [0, 0, 0, 2, 3, 3], "features": [1, 2, 4, 4, 1, 3], "values": [0.7, 0.7, 1.5, 0.3, 2.0, 0.1]}
SHAPE = (5, 6)


def example(dtype=torch.float64, requires_grad=False):
    values = torch.tensor(MATCHES["values"], dtype=dtype, requires_grad=requires_grad)
    return SparseCodes(values, torch.tensor(MATCHES["tokens"]), torch.tensor(MATCHES["features"]), SHAPE)


def empty(shape=SHAPE):
    nothing = torch.tensor([], dtype=torch.int64)
    return SparseCodes(torch.tensor([], dtype=torch.float64, requires_grad=True), nothing, nothing, shape)


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# What the dataclass shows.


def test_dense_and_back():
    codes = example()
    dense = codes.to_dense()
    assert dense.shape == SHAPE and int((dense != 0).sum()) == 6 and dense[3, 1] == 2.0
    again = SparseCodes.from_dense(dense)
    assert torch.equal(again.values, codes.values)
    assert again.tokens.tolist() == MATCHES["tokens"] and again.features.tolist() == MATCHES["features"]


def test_counts():
    codes = example()
    assert len(codes) == 6
    assert codes.l0().tolist() == [3, 0, 1, 2, 0]
    assert codes.density().tolist() == pytest.approx([0, 0.4, 0.2, 0.2, 0.4, 0])
    assert repr(codes) == "SparseCodes(5 tokens × 6 features, 6 matches, 1.2 per token)"
    assert repr(empty((0, 3))) == "SparseCodes(0 tokens × 3 features, 0 matches, 0 per token)"


def test_matches_in_any_order_are_sorted():
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    codes = example()
    shuffled = SparseCodes.from_matches(codes.values[order], codes.tokens[order], codes.features[order], SHAPE)
    assert shuffled.tokens.tolist() == MATCHES["tokens"] and shuffled.features.tolist() == MATCHES["features"]
    assert torch.equal(shuffled.values, codes.values)


def test_impossible_matches_are_errors():
    one = torch.tensor([1])
    with pytest.raises(ValueError, match="features holds 7, but shape .* allows 0 to 5"):
        SparseCodes.from_matches(torch.ones(1), one, torch.tensor([7]), SHAPE)
    with pytest.raises(ValueError, match="token 1 and feature 3 are matched twice"):
        SparseCodes.from_matches(torch.ones(2), torch.tensor([1, 1]), torch.tensor([3, 3]), SHAPE)
    with pytest.raises(ValueError, match="one length"):
        SparseCodes(torch.ones(2), one, one, SHAPE)
    with pytest.raises(ValueError, match="one length"):
        SparseCodes.from_matches(torch.ones(2), one, one, SHAPE)


@pytest.mark.parametrize("make", [SparseCodes, SparseCodes.from_matches])
def test_what_is_no_list_of_matches_is_named(make):
    one, whole = torch.ones(1), torch.tensor([1])
    for name in ("values", "tokens", "features"):
        lists = {"values": one, "tokens": whole, "features": whole}
        for wrong in ([1], np.array([1]), 1):
            with pytest.raises(TypeError, match=f"{name} must be a tensor, got {type(wrong).__name__}"):
                make(**lists | {name: wrong}, shape=SHAPE)
        if name != "values":
            with pytest.raises(TypeError, match=f"{name} must hold .*, got torch.float32"):
                make(**lists | {name: torch.tensor([1.5])}, shape=SHAPE)
    with pytest.raises(TypeError, match="values must hold real numbers, got torch.complex64"):
        make(one * 1j, whole, whole, SHAPE)


def test_tensors_without_numbers_in_memory_are_named():
    table = random(4, 6)
    for wrong in (table.to("meta"), table.to_sparse()):
        for use in (SparseCodes.from_dense, lambda t: token_choice(t, 2), lambda t: mutual_choice(t, 2)):
            with pytest.raises(TypeError, match="must be a dense tensor in memory, got torch"):
                use(wrong)
    with pytest.raises(TypeError, match="dense_BF must be a tensor, got list"):
        SparseCodes.from_dense(table.tolist())


def test_a_mask_fits_the_matches():
    codes = example()
    kept = codes.where(torch.tensor([True, False, True, False, False, True]))
    assert kept.features.tolist() == [1, 4, 3] and kept.tokens.tolist() == [0, 0, 3]
    for wrong in (torch.ones(5, dtype=torch.bool), torch.ones(6, 1, dtype=torch.bool), torch.tensor(True)):
        with pytest.raises(ValueError, match="keep must have one entry for each of the 6 matches"):
            codes.where(wrong)
    for wrong in (torch.tensor([0, 2, 5, 1, 1, 1]), [True] * 6):
        with pytest.raises(TypeError, match="keep must"):
            codes.where(wrong)


@pytest.mark.parametrize("bad", [-1, 6, 7, 1000, 10**11, -(10**11)])
@pytest.mark.parametrize("where", ["tokens", "features"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_refuse_matches_outside_the_shape(bad, where, dtype):
    """The constructor trusts its lists, and products must not read memory that is not theirs: it could end Python."""
    lists = {name: torch.tensor(MATCHES[name]) for name in ("tokens", "features")}
    lists[where][3] = bad
    codes = SparseCodes(torch.tensor(MATCHES["values"], dtype=dtype), **lists, shape=SHAPE)
    x, W_enc, b_enc, b_dec = encoder(dtype)
    for product in (
        lambda: encode_matches(x, W_enc, b_enc, codes, b_dec),
        lambda: encode_matches(x, W_enc, b_enc, codes, b_dec, rescore=False),
        lambda: codes @ random(6, 3).to(dtype),
        lambda: codes.with_values(codes.values),
        codes.l0,
        codes.density,
        codes.to_dense,
    ):
        with pytest.raises(
            ValueError, match=f"{where} holds {bad}, but shape .* allows 0 to {SHAPE[where == 'features'] - 1}"
        ):
            product()


def test_frozen_and_cheap_to_revalue():
    codes = example()
    with pytest.raises(dataclasses.FrozenInstanceError):
        codes.values = torch.zeros(6)
    codes.density()  # walks the features
    other = codes.with_values(codes.values * 2)
    assert other._pattern is codes._pattern and torch.equal(other.to_dense(), codes.to_dense() * 2)
    assert not example(requires_grad=True).detach().values.requires_grad
    assert torch.equal(codes.to("cpu").to_dense(), codes.to_dense())


# The decoder.


def test_decode_is_the_dense_product():
    codes, W_dec = example(), random(6, 3)
    torch.testing.assert_close(codes @ W_dec, codes.to_dense() @ W_dec)
    torch.testing.assert_close(decode(codes, W_dec.T.contiguous().T), codes.to_dense() @ W_dec)


def test_decode_gradients():
    codes, W_dec = example(), random(6, 3).requires_grad_()
    values = codes.values.requires_grad_()
    assert gradcheck(lambda v, W: codes.with_values(v) @ W, (values, W_dec))
    assert gradcheck(lambda v: codes.with_values(v) @ W_dec.detach(), (values,))
    assert gradcheck(lambda W: codes.detach() @ W, (W_dec,))


def test_decode_of_nothing():
    for shape in [SHAPE, (0, 6), (5, 0)]:
        codes, W_dec = empty(shape), random(shape[1], 3).requires_grad_()
        x_hat = codes @ W_dec
        assert torch.equal(x_hat, torch.zeros(shape[0], 3, dtype=torch.float64))
        x_hat.sum().backward()
        assert torch.equal(W_dec.grad, torch.zeros_like(W_dec)) and codes.values.grad.shape == (0,)


def test_decode_refuses_another_dictionary():
    with pytest.raises(ValueError, match=r"W_dec must have shape \(6, d_out\) for these codes, got \(5, 3\)"):
        _ = example() @ random(5, 3)


# The encoder at the matches.


def encoder(dtype=torch.float64, transposed=False):
    x, W_enc, b_enc, b_dec = random(5, 4, seed=1), random(4, 6, seed=2), random(6, seed=3), random(4, seed=4)
    if transposed:
        W_enc = W_enc.T.contiguous().T
    return [t.detach().to(dtype).requires_grad_() for t in (x, W_enc, b_enc, b_dec)]


def dense_encoder(x, W_enc, b_enc, b_dec, codes):
    affinities = ((x if b_dec is None else x - b_dec) @ W_enc + b_enc).relu()
    return affinities[codes.tokens, codes.features]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("with_b_dec", [False, True])
def test_encode_matches_is_the_dense_encoder(transposed, with_b_dec):
    tensors = encoder(transposed=transposed)
    if not with_b_dec:
        tensors[3] = None
    leaves = [t for t in tensors if t is not None]
    expected = dense_encoder(*tensors, example())
    assert (expected == 0).any() and (expected > 0).any()  # relu is at work
    values = encode_matches(*tensors[:3], example(), tensors[3]).values
    torch.testing.assert_close(values, expected)
    weights = random(6, seed=5)
    for mine, dense in zip(
        torch.autograd.grad((values * weights).sum(), leaves), torch.autograd.grad((expected * weights).sum(), leaves)
    ):
        torch.testing.assert_close(mine, dense)


def test_encode_matches_gradients():
    x, W_enc, b_enc, b_dec = encoder()
    assert gradcheck(lambda *t: encode_matches(*t[:3], example(), t[3]).values, (x, W_enc, b_enc, b_dec))
    assert gradcheck(lambda W: encode_matches(x.detach(), W, b_enc.detach(), example()).values, (W_enc,))
    assert gradcheck(
        lambda b: encode_matches(x.detach(), W_enc.detach(), b_enc.detach(), example(), b).values, (b_dec,)
    )


def test_known_values_are_trusted_and_have_the_same_gradients():
    x, W_enc, b_enc, b_dec = encoder()
    chosen = mutual_choice(((x - b_dec) @ W_enc + b_enc).detach(), 9)
    scored = encode_matches(x, W_enc, b_enc, chosen, b_dec)
    known = encode_matches(x, W_enc, b_enc, chosen, b_dec, rescore=False)
    torch.testing.assert_close(scored.values, known.values)
    for a, b in zip(*(torch.autograd.grad((c.values**2).sum(), (x, W_enc, b_enc, b_dec)) for c in (scored, known))):
        torch.testing.assert_close(a, b)


def test_encode_matches_of_nothing():
    x, W_enc, b_enc, b_dec = encoder()
    encode_matches(x, W_enc, b_enc, empty(), b_dec).values.sum().backward()
    assert all(torch.equal(t.grad, torch.zeros_like(t)) for t in (x, W_enc, b_enc, b_dec))


def test_encode_matches_refuses_other_shapes():
    x, W_enc, b_enc, b_dec = encoder()
    with pytest.raises(ValueError, match=r"x must have shape \(5, 4\) for these codes, got \(3, 4\)"):
        encode_matches(x[:3], W_enc, b_enc, example())
    with pytest.raises(ValueError, match=r"W_enc must have shape \(4, 6\) for these codes, got \(4, 5\)"):
        encode_matches(x, W_enc[:, :5], b_enc, example())


def test_products_name_what_is_no_tensor_of_floats():
    tensors = dict(zip(("x", "W_enc", "b_enc", "b_dec"), (t.detach() for t in encoder())))
    for name in tensors:
        for wrong in (tensors[name].numpy(), tensors[name].long(), tensors[name] * 1j):
            with pytest.raises(TypeError, match=f"{name} must "):
                encode_matches(codes=example(), **tensors | {name: wrong})
    for wrong in (np.ones((6, 3)), torch.ones(6, 3, dtype=torch.int64)):
        with pytest.raises(TypeError, match="W_dec must "):
            decode(example(), wrong)


# A whole autoencoder, and precision.


def reconstruction_loss(tensors, W_dec, choose, sparse):
    x, W_enc, b_enc, b_dec = tensors
    affinities = (x - b_dec) @ W_enc + b_enc
    codes = choose(affinities.detach())
    if sparse:
        x_hat = encode_matches(x, W_enc, b_enc, codes, b_dec) @ W_dec + b_dec
    else:
        x_hat = (affinities * (codes.to_dense() > 0)) @ W_dec + b_dec
    return ((x - x_hat) ** 2).mean()


@pytest.mark.parametrize("choose", [lambda z: mutual_choice(z, 300), lambda z: token_choice(z, 5)])
def test_a_training_step_equals_the_dense_one(choose):
    B, D, F = 64, 16, 200
    leaves = [random(B, D), random(D, F, seed=1) / 4, random(F, seed=2) / 9, random(D, seed=3) / 9]
    W_dec = (random(F, D, seed=4) / 4).requires_grad_()
    tensors = [t.requires_grad_() for t in leaves]
    dense, sparse = (reconstruction_loss(tensors, W_dec, choose, s) for s in (False, True))
    torch.testing.assert_close(sparse, dense)
    for a, b in zip(*(torch.autograd.grad(loss, [*tensors, W_dec]) for loss in (sparse, dense))):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_lower_precision_stays_close_to_float64(dtype, tolerance):
    B, D, F = 48, 32, 96
    exact = [random(B, D), random(D, F, seed=1) / 6, random(F, seed=2) / 9, random(D, seed=3) / 9, random(F, D, seed=4)]
    rounded = [t.to(dtype).requires_grad_() for t in exact]
    exact = [t.detach().double().requires_grad_() for t in rounded]
    codes = mutual_choice(((exact[0] - exact[3]) @ exact[1] + exact[2]).detach(), 400)
    results = []
    for x, W_enc, b_enc, b_dec, W_dec in (rounded, exact):
        x_hat = encode_matches(x, W_enc, b_enc, codes, b_dec) @ W_dec
        assert x_hat.dtype == x.dtype
        gradients = torch.autograd.grad(x_hat.pow(2).mean(), (x, W_enc, b_enc, b_dec, W_dec))
        results.append([x_hat.double(), *(g.double() for g in gradients)])
    for got, expected in zip(*results):
        assert (got - expected).norm() <= tolerance * expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_a_gpu_multiplies_the_same(dtype, tolerance):
    results = []
    for device in ("cpu", "cuda"):
        x, W_enc, b_enc, b_dec = (t.detach().to(device).requires_grad_() for t in encoder(dtype))
        W_dec = random(6, 3).to(device, dtype).requires_grad_()
        loss = (encode_matches(x, W_enc, b_enc, example(dtype).to(device), b_dec) @ W_dec).pow(2).sum()
        results.append([g.double().cpu() for g in torch.autograd.grad(loss, (x, W_enc, b_enc, b_dec, W_dec))])
    for here, there in zip(*results):
        torch.testing.assert_close(there, here, rtol=tolerance, atol=tolerance)


def test_values_take_the_decoders_precision():
    codes = example(torch.float32, requires_grad=True)
    x_hat = codes @ random(6, 3).to(torch.bfloat16)
    assert x_hat.dtype == torch.bfloat16
    x_hat.float().sum().backward()
    assert codes.values.grad.dtype == torch.float32


def test_both_ways_of_taking_dots_agree():
    """Devices and precisions without the sampled product gather instead, a piece at a time."""
    codes, A, W = example(torch.float32), random(5, 4, dtype=torch.float32), random(6, 4, dtype=torch.float32)
    dense = (A @ W.T)[codes.tokens, codes.features]
    torch.testing.assert_close(products.dots(A, W, codes._pattern), dense)
    torch.testing.assert_close(
        products.dots(A.bfloat16(), W.bfloat16(), codes._pattern).float(), dense, rtol=3e-2, atol=3e-2
    )


def test_nothing_warns_and_nothing_is_dense():
    """60,000 tokens by 200,000 features: dense codes would take 48 GB."""
    B, D, F = 60_000, 2, 200_000
    tokens = torch.arange(B)
    codes = SparseCodes(torch.rand(B), tokens, tokens * 3 % F, (B, F))
    x, W_enc, b_enc = torch.randn(B, D), torch.randn(F, D).T.requires_grad_(), torch.zeros(F)
    W_dec = torch.randn(F, D, requires_grad=True)
    products._hush_csr_warning.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (encode_matches(x, W_enc, b_enc, codes) @ W_dec).sum().backward()
    assert int((W_dec.grad != 0).any(1).sum()) <= B
