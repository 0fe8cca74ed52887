"""Kinds of tokens, on a text whose kinds can be read off, and averages over them."""

import pytest
import torch

from sae_tutorial.course.sparse_allocation.token_kinds import KINDS, mean_by_kind, token_kinds

VOCABULARY = [
    "<|endoftext|>",
    "The",
    " old",
    " man",
    ".",
    " He",
    " saw",
    " Lily",
    "'",
    "s",
    " app",
    "le",
    "\n",
    '"',
    "Yes",
    " I",
    ' "',
]
COUNTS = torch.tensor([5] * len(VOCABULARY))


def kinds_of(*texts, counts=COUNTS):
    tokens = torch.tensor([[VOCABULARY.index(text) for text in texts]])
    return [KINDS[i] for i in token_kinds(VOCABULARY, tokens, counts)[0].tolist()]


def test_a_sentence():
    # fmt: off
    assert kinds_of("The", " old", " man", ".", " He", " saw", " Lily", "'", "s", " app", "le", ".") == [
        "sentence start", "common word", "common word", "punctuation", "sentence start", "common word", "name",
        "punctuation", "word piece", "common word", "word piece", "punctuation",
    ]
    # fmt: on


@pytest.mark.parametrize("mark", [".", "\n", "<|endoftext|>"])
def test_what_ends_a_sentence(mark):
    assert kinds_of(" old", mark, '"', " He")[1:] == ["punctuation", "punctuation", "sentence start"]


def test_a_word_after_a_quotation_mark_is_no_ending():
    assert kinds_of(" old", " man", '"', "Yes")[-1] == "name", "a capital letter, and no sentence has ended"
    assert kinds_of(" old", ' "', "Yes")[-1] == "sentence start", "this one opens a quotation"
    assert kinds_of(" old", " I")[-1] == "common word", "too short for a name"


def test_frequency_decides_among_words():
    counts = torch.arange(2000, 0, -1)
    vocabulary = [f" w{i}" for i in range(2000)]
    tokens = torch.tensor([[0, 10, 49, 50, 999, 1000]])
    found = [KINDS[i] for i in token_kinds(vocabulary, tokens, counts)[0].tolist()]
    assert found == ["sentence start", "common word", "common word", "word", "word", "rare word"]


def test_mean_by_kind_and_its_interval():
    kinds = torch.tensor([[0, 1, 1], [0, 0, 1]] * 20)
    values = torch.tensor([[1.0, 5, 5], [3, 3, 5]] * 20)
    mean, low, high = mean_by_kind(values, kinds, n_kinds=3)
    assert mean[:2].tolist() == pytest.approx([7 / 3, 5]) and mean[2].isnan()
    assert low[1] == high[1] == 5, "no spread, no interval"
    assert low[0] < 7 / 3 < high[0] and high[0] - low[0] < 1


def test_kinds_of_nothing():
    for empty in (torch.zeros(0, 5, dtype=torch.long), torch.zeros(3, 0, dtype=torch.long)):
        kinds = token_kinds(VOCABULARY, empty, COUNTS)
        assert kinds.shape == empty.shape and kinds.dtype == torch.int64
    with pytest.raises(ValueError, match="values has 0 units"):
        mean_by_kind(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.long))
    mean, low, high = mean_by_kind(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.long))
    assert mean.isnan().all() and low.isnan().all() and high.isnan().all()
    assert token_kinds(["", "a"], torch.tensor([[0, 1]]), torch.tensor([1, 1])).tolist()[0][0] == KINDS.index(
        "punctuation"
    )
