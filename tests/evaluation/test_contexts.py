import pytest
import torch

from sae_tutorial.course import vocabulary
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


def test_unit_embedding_is_centred_before_it_is_scaled():
    unit = features.unit_embedding(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert unit.tolist() == [[-1, 0], [1, 0]]


def test_where_nothing_is_nothing_is_found():
    """A feature that never fires, a text of one token, no places: empty, or zeros."""
    tokens, silent = torch.tensor([[3]]), torch.zeros(1, 1)
    assert features.around(Letters(), tokens, silent, []) == []
    assert features.around(Letters(), tokens, silent, [0]) == [features.Context("", "d", "", 0.0)]
    assert features.examples(tokens, 3, n=0) == features.examples(tokens[:, :0], 3, n=2) == []
    means, counts = vocabulary.mean_by_token(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 4)
    assert means.tolist() == [[0, 0]] * 4 and counts.tolist() == [0] * 4
    words = [" the", " gar", "den", ".", " a"]
    for empty in (tokens, tokens[:0], tokens[:, :0]):
        assert vocabulary.whole_words(words, empty, min_sequences=1).tolist() == []
    embedding = torch.eye(6)
    assert vocabulary.effective_words(torch.zeros(3, 0, dtype=torch.long), embedding).tolist() == [0, 0, 0]
    assert vocabulary.effective_words(torch.zeros(0, 4, dtype=torch.long), embedding).tolist() == []
    assert (
        vocabulary.effective_words(torch.tensor([1]), torch.ones(3, 2)).tolist() == 1
    )  # all words are the same vector
    assert vocabulary.unlike_words([], embedding) == vocabulary.unlike_words([1, 2], embedding, most=0) == []
