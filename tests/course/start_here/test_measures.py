import torch

from sae_tutorial.course.start_here import measures


def test_random_mixes_of_one_axis_have_its_strongest_words_or_its_weakest():
    embedding = torch.eye(20)  # all words unrelated
    embedding[10:] = embedding[10]  # but the last ten are one
    means_W1 = torch.linspace(0, 1, 20)[:, None]
    found = measures.words_of_random_mixes(means_W1, torch.arange(20), embedding, draws=50)
    assert found.shape == (50,) and len(found.round(decimals=3).unique()) == 2
    assert abs(found.min() - 1) < 1e-3 and found.max() > 4  # centred, they are not quite unrelated


def test_words_overlap_where_their_ranges_meet():
    assert measures.overlapping(torch.tensor([[1.0, 3.0], [2.0, 4.0], [5.0, 6.0]])) == 2
