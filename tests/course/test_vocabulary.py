"""Words that features answer to, and how many different ones they are."""

import pytest
import torch

from sae_tutorial.course import vocabulary


def test_mean_by_token_equals_the_mean_over_its_places():
    activations, tokens = torch.randn(50, 3), torch.randint(4, (50,))
    means, counts = vocabulary.mean_by_token(activations, tokens, vocab_size=6)
    assert counts.tolist() == [int((tokens == v).sum()) for v in range(6)]
    for v in range(4):
        assert torch.allclose(means[v], activations[tokens == v].mean(0), atol=1e-5)
    assert (means[4:] == 0).all()
    with pytest.raises(ValueError, match="50 places"):
        vocabulary.mean_by_token(activations, tokens[:49], vocab_size=6)


@pytest.mark.gpu
def test_activations_on_the_gpu_are_summed_by_tokens_on_the_cpu():
    activations, tokens = torch.randn(50, 3), torch.randint(4, (50,))
    on_gpu, counts = vocabulary.mean_by_token(activations.cuda(), tokens, vocab_size=6)
    assert on_gpu.is_cuda and counts.is_cuda
    assert torch.allclose(on_gpu.cpu(), vocabulary.mean_by_token(activations, tokens, vocab_size=6)[0], atol=1e-5)
    assert vocabulary.effective_words(tokens[:10], torch.randn(6, 4).cuda()).is_cuda


def test_whole_words_are_those_that_end_where_something_new_begins():
    decoded = [" the", " gar", "den", ".", " a", " Mary"]
    tokens = torch.tensor([[0, 1, 2, 3, 0, 5, 4, 5, 3]])
    assert vocabulary.whole_words(decoded, tokens, min_sequences=1).tolist() == [0, 5]  # " gar" goes on, " a" is short
    assert vocabulary.whole_words(decoded, tokens.repeat(3, 1), min_sequences=3).tolist() == [0, 5]
    assert vocabulary.whole_words(decoded, tokens.repeat(3, 1), min_sequences=4).tolist() == []


def test_effective_words_count_unrelated_words():
    embedding = torch.cat([torch.eye(6), -torch.eye(6)])  # twelve words, mean zero
    assert vocabulary.effective_words(torch.tensor([2, 2, 2]), embedding) == pytest.approx(1)
    assert vocabulary.effective_words(torch.arange(5), embedding) == pytest.approx(5)
    assert vocabulary.effective_words(torch.tensor([[0, 6], [1, 1]]), embedding).tolist() == pytest.approx([2, 1])


def test_similar_words_count_as_partly_the_same():
    a, b, c = torch.tensor([1.0, 0, 0]), torch.tensor([0.8, 0.6, 0]), torch.tensor([0, 0, 1.0])
    embedding = torch.stack([a, b, c, -a, -b, -c])
    number = vocabulary.effective_words(torch.tensor([0, 1]), embedding)
    assert number == pytest.approx(1 / ((2 + 2 * 0.8) / 4))
    assert vocabulary.unlike_words([0, 1, 2], embedding, limit=0.5) == [0, 2]
    assert vocabulary.unlike_words([0, 1, 2], embedding, limit=0.9) == [0, 1, 2]
    assert vocabulary.unlike_words([0, 1, 2], embedding, most=1) == [0]


def test_unit_embedding_is_centred_before_it_is_scaled():
    unit = vocabulary.unit_embedding(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert unit.tolist() == [[-1, 0], [1, 0]]


def test_where_nothing_is_nothing_is_found():
    """A text of one token, no tokens, no words: empty, or zeros."""
    tokens = torch.tensor([[3]])
    means, counts = vocabulary.mean_by_token(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 4)
    assert means.tolist() == [[0, 0]] * 4 and counts.tolist() == [0] * 4
    words = [" the", " gar", "den", ".", " a"]
    for empty in (tokens, tokens[:0], tokens[:, :0]):
        assert vocabulary.whole_words(words, empty, min_sequences=1).tolist() == []
    embedding = torch.eye(6)
    assert vocabulary.effective_words(torch.zeros(3, 0, dtype=torch.long), embedding).tolist() == [0, 0, 0]
    assert vocabulary.effective_words(torch.zeros(0, 4, dtype=torch.long), embedding).tolist() == []
    assert vocabulary.effective_words(torch.tensor([1]), torch.ones(3, 2)).tolist() == 1  # all words are the same
    assert vocabulary.unlike_words([], embedding) == vocabulary.unlike_words([1, 2], embedding, most=0) == []


def test_repetition_is_the_share_of_the_most_frequent_pair():
    rows = torch.tensor([[7, 7, 7, 7, 7], [1, 2, 1, 2, 3], [1, 2, 3, 4, 5]])
    assert vocabulary.repetition(rows, 2).tolist() == [1, 0.5, 0.25]


def test_repetition_of_three_is_large_where_a_writer_got_stuck():
    rows = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 3, 3, 3, 3, 3], [0, 50_000, 1, 50_000, 1, 50_000]])
    assert vocabulary.repetition(rows[:, 1:], 3).tolist() == pytest.approx([1 / 3, 1, 2 / 3])
