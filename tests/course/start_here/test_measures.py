from types import SimpleNamespace

import torch

from sae_tutorial.allocation import SparseCodes
from sae_tutorial.course import vocabulary
from sae_tutorial.course.start_here import measures


def test_random_mixes_of_one_axis_have_its_strongest_words_or_its_weakest():
    embedding = torch.eye(20)  # all words unrelated
    embedding[10:] = embedding[10]  # but the last ten are one
    means_W1 = torch.linspace(0, 1, 20)[:, None]
    found = measures.words_of_random_mixes(means_W1, torch.arange(20), embedding, draws=50)
    assert found.shape == (50,) and len(found.round(decimals=3).unique()) == 2
    assert abs(found.min() - 1) < 1e-3 and found.max() > 4  # centred, they are not quite unrelated


def test_what_reaches_a_bar_is_counted_with_and_without_the_words():
    tokens, activations = torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor([1.0, 2.0, 2.0, 3.0, 2.0, 0.0])
    share, on_words, others = measures.reach(activations, tokens, torch.tensor([1, 4]), 2.0)
    assert abs(share - 4 / 6) < 1e-6 and on_words == 0.25 and others == [2, 3]


def test_means_from_sparse_codes_are_those_of_dense_ones():
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, (5, 8), generator=draw)
    dense = torch.relu(torch.randn(40, 3, generator=draw))
    at, feature = dense.nonzero(as_tuple=True)
    codes = SparseCodes(dense[at, feature], at, feature, (40, 3))
    features = SimpleNamespace(evidence=SimpleNamespace(codes=codes), tokens=tokens)
    words = torch.tensor([4, 1, 2])
    expected = vocabulary.mean_by_token(dense, tokens.flatten(), 6)[0][words]
    assert torch.allclose(measures.mean_by_word(features, words), expected, atol=1e-6)


def test_words_overlap_where_their_ranges_meet():
    assert measures.overlapping(torch.tensor([[1.0, 3.0], [2.0, 4.0], [5.0, 6.0]])) == 2
