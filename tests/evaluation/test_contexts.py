import pytest
import torch

from sae_tutorial.evaluation import contexts as features


class Letters:
    """A tokenizer in which id 0 is "A", 1 is "B", and so on."""

    def decode(self, ids):
        return "".join(chr(ord("A") + i) for i in ids)


def test_examples_come_from_different_sequences():
    tokens = torch.tensor([[1, 7, 7], [7, 2, 3], [4, 5, 6]])
    found = features.examples(tokens, token=7, n=5)
    assert sorted(place // 3 for place in found) == [0, 1]
    assert all(tokens.flatten()[place] == 7 for place in found)
    assert len(features.examples(tokens, token=7, n=1)) == 1
    assert features.examples(tokens, token=99, n=3) == []


def test_contexts_stay_inside_their_row():
    tokens = torch.arange(8).reshape(2, 4)
    activations = torch.arange(8.0).reshape(2, 4) / 10
    first, last = features.around(Letters(), tokens, activations, [5, 3], width=2)
    assert (first.before, first.token, first.after) == ("E", "F", "GH")
    assert (last.before, last.token, last.after) == ("…BC", "D", "")
    assert first.activation == pytest.approx(0.5)


def test_where_nothing_is_nothing_is_found():
    """A feature that never fires, a text of one token, no places: empty, or zeros."""
    tokens, silent = torch.tensor([[3]]), torch.zeros(1, 1)
    assert features.around(Letters(), tokens, silent, []) == []
    assert features.around(Letters(), tokens, silent, [0]) == [features.Context("", "D", "", 0.0)]
    assert features.examples(tokens, 3, n=0) == features.examples(tokens[:, :0], 3, n=2) == []


@pytest.mark.parametrize("left", [0, 3])
def test_padding_is_no_context(left):
    """A run of padding at either end of a row is not shown, but for one token that may be the text's own mark."""
    letters, mark = Letters(), 9
    letters.pad_token_id = mark
    tokens = torch.full((1, 10), mark)
    tokens[0, left + 1 : left + 5] = torch.arange(4)
    (found,) = features.around(letters, tokens, torch.zeros(1, 10), [left + 2])
    assert (found.before, found.token, found.after) == ("JA", "B", "CDJ")
    (outside,) = features.around(letters, tokens, torch.zeros(1, 10), [9])
    assert outside.token == "J" and outside.after == ""


class Pieces:
    """A tokenizer whose ids are places in a list of pieces."""

    pad_token_id = 0

    def __init__(self, *pieces):
        self.pieces = ("<|end|>", *pieces)

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


def around(pieces, at, width, mark_at=()):
    ids = torch.arange(1, len(pieces) + 1)
    ids[list(mark_at)] = 0
    (found,) = features.around(Pieces(*pieces), ids[None], torch.zeros(1, len(ids)), [at], width=width)
    return found.before, found.token, found.after


STORY = ("The", " gar", "den", " was", " sun", "ny", ", and", " Lil", "y", " sang", ".")


def test_a_word_is_not_cut_and_an_ellipsis_says_that_the_text_goes_on():
    assert around(STORY, at=3, width=1) == ("…den", " was", " …")
    assert around(STORY, at=4, width=2) == ("… was", " sun", "ny, and …")
    assert around(STORY, at=4, width=3) == ("… garden was", " sun", "ny, and …")
    assert around(STORY, at=4, width=4) == ("The garden was", " sun", "ny, and Lily …")


def test_a_whole_row_has_no_ellipsis():
    assert around(STORY, at=4, width=20) == ("The garden was", " sun", "ny, and Lily sang.")


def test_a_row_that_begins_within_a_story_has_an_ellipsis():
    assert around(STORY[1:], at=2, width=9)[0] == "… garden"
    assert around(STORY[2:], at=2, width=9)[0] == "… was"
    assert around(STORY[2:], at=1, width=9)[0] == "…den"


def test_where_another_story_begins_nothing_is_left_out():
    assert around(("away", ".", "?", *STORY), at=6, width=3, mark_at=[2])[0] == "The garden"
    assert around((*STORY, "?", "Once"), at=9, width=1, mark_at=[11])[2] == "."
