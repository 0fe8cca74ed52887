import pytest
import torch

from sae_tutorial.evaluation import contexts as features


class Letters:
    """A tokenizer in which id 0 is "a", 1 is "b", and so on."""

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


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
    assert (first.before, first.token, first.after) == ("e", "f", "gh")
    assert (last.before, last.token, last.after) == ("bc", "d", "")
    assert first.activation == pytest.approx(0.5)


def test_where_nothing_is_nothing_is_found():
    """A feature that never fires, a text of one token, no places: empty, or zeros."""
    tokens, silent = torch.tensor([[3]]), torch.zeros(1, 1)
    assert features.around(Letters(), tokens, silent, []) == []
    assert features.around(Letters(), tokens, silent, [0]) == [features.Context("", "d", "", 0.0)]
    assert features.examples(tokens, 3, n=0) == features.examples(tokens[:, :0], 3, n=2) == []


@pytest.mark.parametrize("left", [0, 3])
def test_padding_is_no_context(left):
    """A run of padding at either end of a row is not shown, but for one token that may be the text's own mark."""
    letters, mark = Letters(), 9
    letters.pad_token_id = mark
    tokens = torch.full((1, 10), mark)
    tokens[0, left + 1 : left + 5] = torch.arange(4)
    (found,) = features.around(letters, tokens, torch.zeros(1, 10), [left + 2])
    assert (found.before, found.token, found.after) == ("ja", "b", "cdj")
    (outside,) = features.around(letters, tokens, torch.zeros(1, 10), [9])
    assert outside.token == "j" and outside.after == ""
