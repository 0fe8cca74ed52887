import pytest
import torch

from sae_tutorial.evaluation import contexts as features


class Letters:
    """A tokenizer in which id 0 is "a", 1 is "b", and so on."""

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


def test_mean_by_token_equals_the_mean_over_its_places():
    activations, tokens = torch.randn(50, 3), torch.randint(4, (50,))
    means, counts = features.mean_by_token(activations, tokens, vocab_size=6)
    assert counts.tolist() == [int((tokens == v).sum()) for v in range(6)]
    for v in range(4):
        assert torch.allclose(means[v], activations[tokens == v].mean(0), atol=1e-5)
    assert (means[4:] == 0).all()
    with pytest.raises(ValueError, match="50 places"):
        features.mean_by_token(activations, tokens[:49], vocab_size=6)


@pytest.mark.gpu
def test_activations_on_the_gpu_are_summed_by_tokens_on_the_cpu():
    activations, tokens = torch.randn(50, 3), torch.randint(4, (50,))
    on_gpu, counts = features.mean_by_token(activations.cuda(), tokens, vocab_size=6)
    assert on_gpu.is_cuda and counts.is_cuda
    assert torch.allclose(on_gpu.cpu(), features.mean_by_token(activations, tokens, vocab_size=6)[0], atol=1e-5)
    assert features.effective_words(tokens[:10], torch.randn(6, 4).cuda()).is_cuda


def test_whole_words_are_those_that_end_where_something_new_begins():
    decoded = [" the", " gar", "den", ".", " a", " Mary"]
    tokens = torch.tensor([[0, 1, 2, 3, 0, 5, 4, 5, 3]])
    assert features.whole_words(decoded, tokens, min_sequences=1).tolist() == [0, 5]  # " gar" goes on, " a" is short
    assert features.whole_words(decoded, tokens.repeat(3, 1), min_sequences=3).tolist() == [0, 5]
    assert features.whole_words(decoded, tokens.repeat(3, 1), min_sequences=4).tolist() == []


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


def test_effective_words_count_unrelated_words():
    embedding = torch.cat([torch.eye(6), -torch.eye(6)])  # twelve words, mean zero
    assert features.effective_words(torch.tensor([2, 2, 2]), embedding) == pytest.approx(1)
    assert features.effective_words(torch.arange(5), embedding) == pytest.approx(5)
    assert features.effective_words(torch.tensor([[0, 6], [1, 1]]), embedding).tolist() == pytest.approx([2, 1])


def test_similar_words_count_as_partly_the_same():
    a, b, c = torch.tensor([1.0, 0, 0]), torch.tensor([0.8, 0.6, 0]), torch.tensor([0, 0, 1.0])
    embedding = torch.stack([a, b, c, -a, -b, -c])
    number = features.effective_words(torch.tensor([0, 1]), embedding)
    assert number == pytest.approx(1 / ((2 + 2 * 0.8) / 4))
    assert features.unlike_words([0, 1, 2], embedding, limit=0.5) == [0, 2]
    assert features.unlike_words([0, 1, 2], embedding, limit=0.9) == [0, 1, 2]
    assert features.unlike_words([0, 1, 2], embedding, most=1) == [0]


def test_unit_embedding_is_centred_before_it_is_scaled():
    unit = features.unit_embedding(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert unit.tolist() == [[-1, 0], [1, 0]]


def test_where_nothing_is_nothing_is_found():
    """A feature that never fires, a text of one token, no places: empty, or zeros."""
    tokens, silent = torch.tensor([[3]]), torch.zeros(1, 1)
    assert features.around(Letters(), tokens, silent, []) == []
    assert features.around(Letters(), tokens, silent, [0]) == [features.Context("", "d", "", 0.0)]
    assert features.examples(tokens, 3, n=0) == features.examples(tokens[:, :0], 3, n=2) == []
    means, counts = features.mean_by_token(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 4)
    assert means.tolist() == [[0, 0]] * 4 and counts.tolist() == [0] * 4
    words = [" the", " gar", "den", ".", " a"]
    for empty in (tokens, tokens[:0], tokens[:, :0]):
        assert features.whole_words(words, empty, min_sequences=1).tolist() == []
    embedding = torch.eye(6)
    assert features.effective_words(torch.zeros(3, 0, dtype=torch.long), embedding).tolist() == [0, 0, 0]
    assert features.effective_words(torch.zeros(0, 4, dtype=torch.long), embedding).tolist() == []
    assert features.effective_words(torch.tensor([1]), torch.ones(3, 2)).tolist() == 1  # all words are the same vector
    assert features.unlike_words([], embedding) == features.unlike_words([1, 2], embedding, most=0) == []
