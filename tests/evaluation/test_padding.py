"""Texts of unequal length in one table: whatever they are padded with, each counts as it does alone."""

import pytest
import torch
from torch.testing import assert_close

from sae_tutorial import evaluate, reference_sae
from sae_tutorial.autoencoder.shipped import HOOK

TEXTS = [
    "Once upon a time there was a little girl named Lily. She loved to play in the garden with her dog, and every day "
    "they went out to look for flowers, stones and small animals under the old apple tree.",
    "The boy ran home.",
]


@pytest.fixture(scope="module")
def sae():
    return reference_sae("mutual_choice")


def measured(sae, model, tokens, **options):
    return evaluate(sae, model, tokens, HOOK, progress=False, **options)


@pytest.fixture(scope="module")
def alone(sae, model):
    """Each text by itself, without padding."""
    return [measured(sae, model, model.to_tokens(text)) for text in TEXTS]


@pytest.fixture(scope="module")
def lengths(model):
    return [model.to_tokens(text).shape[1] - 1 for text in TEXTS]  # without BOS


def assert_is_both(found, alone, lengths):
    assert [one.n_tokens for one in alone] == lengths and found.n_tokens == sum(lengths)
    for name in ("l0", "cosine", "norm_ratio", "kl", "kl_zero"):
        expected = sum(getattr(one, name) * n for one, n in zip(alone, lengths)) / sum(lengths)
        assert getattr(found, name) == pytest.approx(expected, rel=1e-4), name
    for name in ("ce_clean", "ce_spliced", "ce_zero"):  # the last token of each text has no next one
        expected = sum(getattr(one, name) * (n - 1) for one, n in zip(alone, lengths)) / (sum(lengths) - 2)
        assert getattr(found, name) == pytest.approx(expected, rel=1e-4), name
    uses = sum(one.density * n for one, n in zip(alone, lengths))
    assert_close(found.density * sum(lengths), uses, rtol=1e-4, atol=1e-4)
    assert found.recovered < 1 and found.recovered_mean < 1


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_that_is_the_mark_of_a_text(sae, model, alone, lengths, side):
    """The embedded model pads with its only mark, which begins and ends texts too, as GPT-2 does."""
    tokens = model.to_tokens(TEXTS, padding_side=side)
    assert tokens.shape == (2, max(lengths) + 1) and (tokens == model.tokenizer.bos_token_id).sum() > 2
    assert_is_both(measured(sae, model, tokens), alone, lengths)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_with_an_id_of_its_own(sae, model, alone, lengths, side):
    pad, bos = 4321, model.tokenizer.bos_token_id
    rows = [model.to_tokens(text)[0] for text in TEXTS]
    gap = rows[0].new_full((len(rows[0]) - len(rows[1]),), pad)
    short = [rows[1], gap] if side == "right" else [gap, rows[1]]
    tokens = torch.stack([rows[0], torch.cat(short)])
    assert_is_both(measured(sae, model, tokens, pad_id=pad), alone, lengths)
    assert_is_both(measured(sae, model, tokens, pad_id=pad, bos_id=bos, batch_size=1), alone, lengths)


def test_both_sides_are_the_same_evaluation(sae, model):
    right, left = (measured(sae, model, model.to_tokens(TEXTS, padding_side=side)) for side in ("right", "left"))
    for name in ("fvu", "ce_mean", "kl_mean", "l0_std", "dead", "underused"):
        assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-5, nan_ok=True), name


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_never_replaced(sae, model, lengths, side):
    """Not even where BOS is: the spliced model then differs from the clean one at one more token of each text."""
    tokens = model.to_tokens(TEXTS, padding_side=side)
    alone = [measured(sae, model, model.to_tokens(text), splice_bos=True) for text in TEXTS]
    assert_is_both(measured(sae, model, tokens, splice_bos=True), alone, lengths)
