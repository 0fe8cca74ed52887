"""Examples hold the activations of the places that were asked for, and codes are those of their tokens."""

import pytest
import torch
from synthetic import make, randn
from tiny_model import CONTEXT, D_MODEL, rows, tiny_model
from torch.testing import assert_close

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.evaluation import examples as module
from sae_tutorial.evaluation.examples import (
    Examples,
    WordExamples,
    coordinates,
    dictionary_of,
    random_sae,
    read_examples,
    read_words,
)
from sae_tutorial.evaluation.labelled import WHOLE_ROW, Task, WordTypes

HOOK = "blocks.0.hook_resid_post"
yes_no = torch.tensor([True, False, True, False])
parts = torch.tensor([False, False, True, True])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"))


def task(columns):
    return Task("x", torch.tensor([0, 2, 1, 3]), torch.tensor(columns), yes_no, parts)


def test_tokens_and_whole_rows_are_read_where_they_stand(model):
    tokens = rows(4, padded=False)
    _, cache = model.run_with_cache(tokens, names_filter=[HOOK])
    acts = cache[HOOK]
    single, whole = read_examples(model, tokens, HOOK, [task([3, 5, 3, 9]), task([WHOLE_ROW] * 4)], max_norm=1e6)
    assert_close(single.x, torch.stack([acts[0, 3], acts[2, 5], acts[1, 3], acts[3, 9]]), atol=1e-4, rtol=1e-4)
    assert_close(whole.x, acts[[0, 2, 1, 3], 1:].mean(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(whole.label, yes_no) and len(whole.tokens) == 4 * (CONTEXT - 1)


def test_massive_tokens_and_bos_are_left_out(model):
    tokens = rows(4, padded=False)
    places = task([3, 5, 3, 9])

    def shout(acts, hook):
        acts = acts.clone()
        acts[0, 4] *= 1e4
        return acts

    with model.hooks(fwd_hooks=[(HOOK, shout)]), pytest.warns(UserWarning, match="1 of 60 tokens"):
        (whole,) = read_examples(model, tokens, HOOK, [task([WHOLE_ROW] * 4)])
    assert len(whole.tokens) == 4 * (CONTEXT - 1) - 1 and whole.tokens.abs().max() < 1e3
    with model.hooks(fwd_hooks=[(HOOK, shout)]):
        (every,) = read_examples(model, tokens, HOOK, [task([WHOLE_ROW] * 4)], max_norm=None)
    assert len(every.tokens) == 4 * (CONTEXT - 1)
    with pytest.raises(ValueError, match="max_norm must be greater than 1"):
        read_examples(model, tokens, HOOK, [places], max_norm=0.5)
    with pytest.raises(ValueError, match="all of one kind"):
        read_examples(model, tokens, HOOK, [Task("x", places.row, torch.tensor([0, 5, 0, 9]), yes_no, parts)])


def test_words_are_read_where_they_stand(model):
    tokens = rows(4, padded=False)
    words = WordTypes(
        ("a",), torch.tensor([3, 1]), torch.tensor([2, 7]), torch.tensor([5, 6]), yes_no[:2, None], parts[:2]
    )
    _, cache = model.run_with_cache(tokens, names_filter=[HOOK])
    found = read_words(model, tokens, HOOK, words)
    assert_close(found.x, cache[HOOK][[3, 1], [2, 7]], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.token, words.token) and torch.equal(found.labels, words.labels)


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_codes_are_means_over_tokens_whatever_the_pieces(monkeypatch, pieces):
    sae, tokens, example = make("jumprelu"), randn(40, 8), torch.arange(40) % 4
    monkeypatch.setattr(module, "at_once", lambda device, size: pieces)
    bags = Examples("x", tokens, example, yes_no, parts)
    dictionary = dictionary_of(sae)
    each = dictionary.encode(tokens)
    assert_close(bags.codes(dictionary), torch.stack([each[i::4].mean(0) for i in range(4)]))
    assert_close(bags.reconstructed(dictionary).tokens, sae(tokens).detach())


def test_a_random_sae_is_as_large_and_as_sparse():
    sae, x = make("jumprelu"), 3 * randn(500, 8) + 5
    found = random_sae(sae, x)
    l0 = sae.encode(x).l0().float().mean()
    assert found.config.d_sae == 64 and found.config.k == max(1, round(float(l0)))
    assert_close(found.mean, x.mean(0))
    assert not torch.equal(found.W_dec, random_sae(sae, x, seed=1).W_dec)
    lengths = found.W_dec.norm(dim=1)
    assert_close(lengths, lengths.mean().expand_as(lengths))
    centred, rebuilt = x - x.mean(0), found(x).detach() - x.mean(0)
    assert_close((centred * rebuilt).sum(), rebuilt.square().sum())  # no factor would fit better


def test_coordinates_are_the_activations():
    x = randn(5, 8)
    assert_close(coordinates(8).encode(x), x)
    assert_close(coordinates(8).reconstruct(x), x)
    assert dictionary_of(coordinates(8)).name == "coordinates" and isinstance(dictionary_of(make("relu")), Dictionary)


def test_what_cannot_be_read_is_named(model):
    tokens = rows(4, padded=False)
    with pytest.raises(ValueError, match="tasks is empty"):
        read_examples(model, tokens, HOOK, [])
    with pytest.raises(ValueError, match="blocks.9"):
        read_examples(model, tokens, "blocks.9.hook_resid_post", [task([3, 5, 3, 9])])
    with pytest.raises(TypeError, match="got int"):
        dictionary_of(3)
    with pytest.raises(ValueError, match="sae reads 8 numbers, the examples have 32"):
        random_sae(make("relu"), randn(10, D_MODEL))
    with pytest.raises(ValueError, match="have shapes"):
        Examples.of("x", randn(4, 2), yes_no, parts[:3])
    with pytest.raises(ValueError, match="no token"):
        Examples("x", randn(2, 2), torch.tensor([0, 1]), yes_no, parts)
    for wrong, named in ((randn(4, 2).bfloat16(), "bfloat16"), (randn(4, 2).double(), "float64")):
        with pytest.raises(TypeError, match=f"{named}; give float32"):
            Examples.of("x", wrong, yes_no, parts)
    for label, test in ((yes_no.long(), parts), (yes_no, parts.long())):
        with pytest.raises(TypeError, match="int64; give True and False"):
            Examples("x", randn(4, 2), torch.arange(4), label, test)
        with pytest.raises(TypeError, match="int64; give True and False"):
            WordExamples(("a",), randn(4, 2), torch.arange(4), label[:, None], test)
    broken = randn(4, 2)
    broken[3, 1] = torch.nan  # in a test example: no regression sees it
    with pytest.raises(ValueError, match="x: activation 3 has NaN"):
        Examples.of("x", broken, yes_no, parts)
    with pytest.raises(ValueError, match="words: activation 3 has NaN"):
        WordExamples(("a",), broken, torch.arange(4), yes_no[:, None], parts)
    with pytest.raises(ValueError, match="test examples are all of one kind"):
        Examples.of("x", randn(4, 2), torch.tensor([True, False, True, True]), parts)
