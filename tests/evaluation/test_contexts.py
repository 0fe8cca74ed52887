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
