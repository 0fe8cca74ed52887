"""Sentences of one's own, and what heads make of a name."""

import pytest
import torch

from sae_tutorial.circuits import ioi
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


def test_the_pause_is_the_last_comma_or_full_stop_before_the_giver(model, sentences):
    found = names.with_pause(model, sentences)
    assert set(found.positions) == {*sentences.positions, "pause"} and "pause" not in sentences.positions
    for row, pause, s2 in zip(found.tokens, found.positions["pause"], found.positions["S2"], strict=True):
        words = [model.tokenizer.decode([int(i)]) for i in row[: int(s2)]]
        assert words[int(pause)] in (",", ".") and not {",", "."} & set(words[int(pause) + 1 :])
    bare = names.own_sentence(model, "When Mary saw John then John gave a drink to", "Mary", "John")
    with pytest.raises(ValueError, match="no comma or full stop before S2: 'When Mary saw John"):
        names.with_pause(model, bare)


def test_a_name_above_the_mean_of_all_names():
    logits = torch.tensor([[0.0, 3.0, 6.0, 100.0], [0.0, 1.0, 2.0, 3.0]])
    assert names.above_names(torch.tensor([0, 1, 2]), logits, torch.tensor([2, 0])).tolist() == [3.0, -1.0]
