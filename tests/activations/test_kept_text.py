"""Which tokens count: padding on either side, where its id means nothing else and where it is the end mark of texts."""

from types import SimpleNamespace

import pytest
import torch
from tiny_model import BOS, CONTEXT, PAD, VOCAB, harvest
from torch.testing import assert_close

from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids

HOOK = "blocks.2.hook_resid_post"
TEXTS = [
    "Once upon a time there was a little girl who lived in a house by the sea.",
    "The cat sat.",
    "Tom had a red ball",
]


def model_with(**ids):
    """What `special_ids` asks of a model."""
    ids = {f"{kind}_token_id": ids.get(kind) for kind in ("bos", "eos", "pad", "unk")}
    return SimpleNamespace(tokenizer=SimpleNamespace(**ids))


def kept(rows, model, bos_id="auto", pad_id="auto"):
    """(rows as the model sees them, the kept tokens of each row)."""
    text = KeptText.of(torch.tensor(rows), *special_ids(model, bos_id, pad_id))
    mask = text.mask(0, len(rows))
    return text.tokens.tolist(), [row[keep].tolist() for row, keep in zip(text.tokens, mask)]


ONE_ID = model_with(bos=0, eos=0, pad=0)  # GPT-2's tokenizers, and the embedded one
OWN_PAD = model_with(bos=0, eos=0, pad=1)
END_PADS = model_with(bos=7, eos=0, pad=0)  # many Llamas
NO_PAD = model_with(bos=7, eos=0)
NO_BOS = model_with(eos=0, pad=0)


@pytest.mark.parametrize("model", [ONE_ID, END_PADS, NO_PAD, NO_BOS])
def test_an_end_mark_pads_where_it_is_repeated_and_ends_a_text_where_it_is_not(model):
    b = 7 if model in (END_PADS, NO_PAD) else 0 if model is ONE_ID else 5
    seen, text = kept([[b, 2, 3, 4, 0], [b, 2, 3, 0, 0], [b, 2, 0, 3, 4], [b, 2, 0, 0, 0]], model)
    first = [5] if model is NO_BOS else []
    assert text == [first + row for row in ([2, 3, 4, 0], [2, 3], [2, 0, 3, 4], [2])]
    assert seen == [[b, 2, 3, 4, 0], [b, 2, 3, 0, 0], [b, 2, 0, 3, 4], [b, 2, 0, 0, 0]]


@pytest.mark.parametrize(
    ("model", "rows", "seen", "text"),
    [
        (ONE_ID, [[0, 2, 3, 4], [0, 0, 0, 2], [0, 0, 2, 0]],
         [[0, 2, 3, 4], [0, 2, 0, 0], [0, 2, 0, 0]], [[2, 3, 4], [2], [2, 0]]),
        (OWN_PAD, [[0, 2, 3, 4], [1, 0, 2, 3], [1, 1, 0, 2]],
         [[0, 2, 3, 4], [0, 2, 3, 1], [0, 2, 1, 1]], [[2, 3, 4], [2, 3], [2]]),
        (END_PADS, [[7, 2, 3, 4], [0, 7, 2, 3], [0, 0, 7, 2]],
         [[7, 2, 3, 4], [7, 2, 3, 0], [7, 2, 0, 0]], [[2, 3, 4], [2, 3], [2]]),
        (END_PADS, [[7, 2, 3, 4], [0, 7, 2, 3]], [[7, 2, 3, 4], [7, 2, 3, 0]], [[2, 3, 4], [2, 3]]),
        (NO_BOS, [[2, 3, 4, 5], [0, 0, 2, 3], [0, 2, 3, 4]],
         [[2, 3, 4, 5], [2, 3, 0, 0], [2, 3, 4, 0]], [[2, 3, 4, 5], [2, 3], [2, 3, 4]]),
    ],
)  # fmt: skip
def test_padding_on_the_left_is_moved_to_the_right(model, rows, seen, text):
    assert kept(rows, model) == (seen, text)


def test_a_piece_of_text_may_begin_with_an_end_mark():
    """Rows cut from one long text, as `text_tokens` makes them: BOS, and the end mark of the document before."""
    rows = [[0, 0, 2, 3], [0, 4, 5, 0]]
    assert kept(rows, ONE_ID) == (rows, [[0, 2, 3], [4, 5, 0]])
    rows = [[0, 2, 3, 4]]  # without a BOS of its own
    assert kept(rows, NO_BOS) == (rows, rows)


def test_none_means_no_padding_and_an_id_means_padding_on_both_sides():
    rows = [[0, 2, 3, 0], [0, 2, 0, 0], [0, 0, 0, 2]]
    assert kept(rows, ONE_ID, pad_id=None) == (rows, [[2, 3, 0], [2, 0, 0], [0, 0, 2]])
    assert kept(rows, ONE_ID, None, None) == (rows, rows)
    assert kept(rows, ONE_ID, pad_id=0) == ([[0, 2, 3, 0], [0, 2, 0, 0], [0, 2, 0, 0]], [[2, 3], [2], [2]])
    assert kept([[9, 2, 9, 3], [2, 3, 4, 9]], NO_BOS, pad_id=9) == (
        [[2, 9, 3, 9], [2, 3, 4, 9]],
        [[2, 9, 3], [2, 3, 4]],
    )
    assert kept(rows, ONE_ID, bos_id="any") == ([[0, 2, 3, 0], [0, 2, 0, 0], [0, 2, 0, 0]], [[2, 3, 0], [2], [2]])


def test_rows_of_padding_alone_hold_no_text():
    assert kept([[0, 2, 3], [0, 0, 0]], ONE_ID)[1] == [[2, 3], []]
    assert kept([[1, 1, 1], [0, 2, 3]], OWN_PAD)[1] == [[], [2, 3]]
    for model, row in ((ONE_ID, [0, 0, 0]), (OWN_PAD, [1, 1, 1]), (ONE_ID, [0])):
        with pytest.raises(ValueError, match="tokens: nothing is left after dropping bos_id=0 and pad_id="):
            kept([row], model)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_texts_are_harvested_as_each_alone(model, side):
    alone = [harvest(model, model.to_tokens(text), HOOK) for text in TEXTS]
    together = harvest(model, model.to_tokens(TEXTS, padding_side=side), HOOK)
    n_tokens = sum(len(model.tokenizer(text, add_special_tokens=False).input_ids) for text in TEXTS)
    assert len(together) == sum(map(len, alone)) == n_tokens
    assert_close(together.rows(slice(None)), torch.cat([one.rows(slice(None)) for one in alone]), rtol=1e-3, atol=1e-3)
    assert torch.equal(together.tokens, model.to_tokens(TEXTS, padding_side="right"))


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_rows_of_any_model_are_harvested_as_each_alone(tiny, side):
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, VOCAB, (n,), generator=generator) for n in (CONTEXT - 1, 3, 1, CONTEXT - 2)]
    rows = torch.full((len(texts), CONTEXT), PAD)
    for row, text in zip(rows, texts):
        a = CONTEXT - 1 - len(text) if side == "left" else 0
        row[a] = BOS
        row[a + 1 : a + 1 + len(text)] = text
    alone = [harvest(tiny, torch.cat([torch.tensor([BOS]), text])[None]).rows(slice(None)) for text in texts]
    store = harvest(tiny, rows)
    assert_close(store.rows(slice(None)), torch.cat(alone), rtol=1e-4, atol=1e-5)
    found = store.tokens[store.locate(torch.arange(len(store)))]
    assert torch.equal(found, torch.cat(texts))


def test_locate_and_position_are_inverses():
    text = KeptText.of(torch.tensor([[0, 2, 3, 1], [0, 1, 1, 1], [0, 4, 1, 1], [5, 6, 7, 8]]), 0, 1)
    positions = torch.arange(len(text))
    rows, columns = text.locate(positions)
    assert text.tokens[rows, columns].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert torch.equal(text.position(rows, columns), positions)


def test_the_hash_tells_which_tokens_are_kept():
    tokens = torch.tensor([[0, 2, 3, 1], [0, 4, 5, 6]])
    one, *others = [
        KeptText.of(tokens, 0, 1),
        KeptText.of(tokens, None, 1),
        KeptText.of(tokens, 0, None),
        KeptText.of(tokens.flip(0), 0, 1),
        KeptText.of(tokens.view(1, 8), 0, 1),
    ]
    assert one.hash() not in [other.hash() for other in others]
    assert one.hash() == KeptText.of(tokens.clone(), "any", 1).hash() != one.hash(torch.tensor([3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[0], r"got \(16,\) torch.int64.*tokens\[None\]"),
        (lambda t: t.int(), r"int64.*int32.*tokens.long\(\)"),
        (lambda t: t.tolist(), "got list"),
        (lambda t: t + VOCAB, "0..59"),
        (lambda t: t - 5, "-5"),
        (lambda t: torch.cat([t, t], 1), r"16 tokens at most.*tokens\[:, :16\]"),
    ],
)
def test_wrong_tokens_are_named(tiny, tokens, change, message):
    with pytest.raises(ValueError, match=message):
        checked_tokens(change(tokens), tiny)


@pytest.mark.parametrize("name", ["bos_id", "pad_id"])
@pytest.mark.parametrize("value", ["x", 1.5, True, [0]])
def test_ids_that_are_none_are_named(name, value):
    ids = {"bos_id": "auto", "pad_id": "auto", name: value}
    with pytest.raises(TypeError, match=f"{name} must be a"):
        special_ids(ONE_ID, **ids)
    with pytest.raises(ValueError, match=f"{name} must be a whole number, 0 or more, got -1"):
        special_ids(ONE_ID, **ids | {name: torch.tensor(-1).item()})
