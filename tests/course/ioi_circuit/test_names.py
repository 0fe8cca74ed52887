"""Sentences of one's own, and what heads make of a name."""

import pytest
import torch
from grouped_model import grouped_model

from sae_tutorial.circuits import ioi, patching, prompts
from sae_tutorial.course.ioi_circuit import names


@pytest.fixture(scope="module")
def sentences(model):
    return ioi.ioi_sentences(model, 6, seed=2)


def test_own_sentence_finds_its_roles(model):
    found = names.own_sentence(model, "When Mary and John went out, John gave {a} drink to ", "Mary", "John")
    words = {role: model.tokenizer.decode([int(found.tokens[0, where[0]])]) for role, where in found.positions.items()}
    assert (words["IO"], words["S1"], words["S2"], words["END"]) == (" Mary", " John", " John", " to")
    baba = names.own_sentence(model, "When John and Mary went out, John gave a drink to", "Mary", "John")
    assert baba.text == ("When John and Mary went out, John gave a drink to",)
    swapped = ioi.counterfactual(model, baba, "swapped")
    assert swapped.text == ("When John and Mary went out, Mary gave a drink to",)


@pytest.mark.parametrize(
    ("text", "io", "giver", "says"),
    [
        ("When Mary and John went out, he gave a drink to", "Mary", "John", "'John' twice, after a space; it does 1"),
        ("When John and John went out with", "Mary", "John", "'Mary' once"),
        ("When John ran, John saw Mary and", "Mary", "John", "must come after 'Mary'"),
        ("When Mary and Xqzt went out, Xqzt gave a drink to", "Mary", "Xqzt", "Xqzt would be more than one token"),
        ("When Mary went out to", "", "John", "somebody"),
    ],
)
def test_own_sentence_says_what_is_wrong(model, text, io, giver, says):
    with pytest.raises(ValueError, match=says):
        names.own_sentence(model, text, io, giver)


def test_own_sentence_is_not_cut(model):
    text = "When Mary and John went " + "so " * 300 + "far, John gave a drink to"
    with pytest.raises(ValueError, match=rf"has 3\d\d tokens; this model sees {model.cfg.n_ctx} at most"):
        names.own_sentence(model, text, "Mary", "John")


def test_rank_of_a_name_in_what_a_head_would_write(model, sentences):
    ids = names.name_ids(model)
    ranks = names.rank_among_names(model, sentences, "IO", sentences.io, ids)
    assert ranks.shape == (4, 8, 6) and ranks.min() >= 0 and ranks.max() <= len(ids) - 1
    name = "blocks.3.ln1.hook_normalized"
    x = prompts.at(patching.activations(model, sentences, [name])[name], sentences.positions["IO"])
    logits = ((x @ model.W_V[3, 0] + model.b_V[3, 0]) @ model.W_O[3, 0]) @ model.W_U[:, ids]
    place = (ids == sentences.io[:, None]).int().argmax(1)
    by_hand = (logits > logits.gather(1, place[:, None]) + 1e-5).sum(1)
    assert torch.equal(ranks[3, 0], by_hand.float())


def test_ranks_where_heads_share_their_values(tmp_path):
    llama = grouped_model(tmp_path)
    texts = prompts.Prompts.of(llama, ["w3 w4 w5 w6", "w7 w8", "w9 w3 w8"], {"A": [1, 1, 2]})
    right, ids = torch.tensor([3, 7, 3]), torch.arange(3, 30)
    ranks = names.rank_among_names(llama, texts, "A", right, ids)
    values = patching.activations(llama, texts, ["blocks.1.attn.hook_v"])["blocks.1.attn.hook_v"]
    for head in range(4):
        out = prompts.at(values[:, :, head // 2], texts.positions["A"]) @ llama.W_O[1, head] @ llama.W_U
        expected = (out[:, ids] > prompts.at(out, right)[:, None] + 1e-5).sum(1)
        assert torch.equal(ranks[1, head], expected.float())


def test_the_other_order_keeps_names_and_giver(model, sentences):
    for frame, turned in zip(sentences.frames, names.other_order(model, sentences).frames, strict=True):
        assert (turned.a, turned.b) == (frame.b, frame.a)
        assert (turned.s, turned.io, turned.wrong, turned.place) == (frame.s, frame.io, frame.wrong, frame.place)


def test_renamed_keeps_places_and_changes_both_names(model, sentences):
    ids = names.name_ids(model)
    few = ioi.ioi_sentences(model, 120, seed=4)
    for frame, new in zip(few.frames, names.renamed(model, few, ids).frames, strict=True):
        assert not {new.io, new.wrong} & {frame.io, frame.wrong} and new.io != new.wrong
        assert (new.a == new.io) == (frame.a == frame.io) and (new.s, new.template) == (new.wrong, frame.template)
    with pytest.raises(ValueError, match="four are needed"):
        names.renamed(model, few, ids[:3])
