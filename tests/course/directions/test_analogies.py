import pytest
import torch

from sae_tutorial.course.directions import analogies
from sae_tutorial.course.vocabulary import unit_embedding


def language(n_pairs=6, dims=32):
    """Words 0, 2, 4, … and their partners 1, 3, 5, …: partner = word + one long step."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(n_pairs, dims, generator=generator)
    step = 3 * torch.randn(dims, generator=generator)
    partners = words + step
    others = torch.randn(40, dims, generator=generator)
    pairs = torch.arange(2 * n_pairs).reshape(n_pairs, 2)
    return torch.cat([torch.stack([words, partners], dim=1).reshape(2 * n_pairs, dims), others]), pairs


def test_a_common_step_answers_every_question():
    embedding, pairs = language()
    unit = unit_embedding(embedding)
    found = analogies.hits(unit, pairs)
    assert found.questions == 2 * 6 * 5
    assert found.arithmetic > 0.9 and found.neighbour < 0.5


def test_mismatched_pairs_keep_the_words_and_lose_the_answers():
    embedding, pairs = language()
    control = analogies.mismatched(pairs)
    assert control[:, 0].equal(pairs[:, 0]) and sorted(control[:, 1].tolist()) == sorted(pairs[:, 1].tolist())
    assert not (control == pairs).all(1).any()
    unit = unit_embedding(embedding)
    assert analogies.hits(unit, control).arithmetic < 0.2


def test_unrelated_words_have_no_answers():
    generator = torch.Generator().manual_seed(1)
    unit = unit_embedding(torch.randn(300, 64, generator=generator))
    found = analogies.hits(unit, torch.arange(20).reshape(10, 2))
    assert found.arithmetic < 0.1 and found.inputs_allowed == 0


def test_the_three_words_of_the_question_are_left_out_only_where_said():
    unit = torch.eye(4)  # a2 is token 3; the nearest to a1 − b1 + b2 are a1 and b2 themselves, then b1 or a2
    found = analogies.hits(unit, torch.tensor([[0, 1], [2, 3]]))
    assert found.arithmetic == 1 and found.inputs_allowed == 0


def test_a_question_that_holds_its_own_answer_is_not_asked():
    unit = unit_embedding(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    chain = analogies.hits(unit, torch.tensor([[0, 1], [1, 2], [2, 3]]))
    assert chain.questions == 12 - 4, "1 is to 2 as 0 is to 1, 2 is to 3 as 1 is to 2, and both backwards"


def test_pairs_are_read_and_missing_words_named():
    ids = {" he": 3, " she": 5, " him": 7, " her": 9}
    assert analogies.pairs_of("he she, him her", ids).tolist() == [[3, 5], [7, 9]]
    with pytest.raises(ValueError, match="queen"):
        analogies.pairs_of("he she, king queen", ids)


def test_offsets_lead_from_the_first_word_to_the_second():
    unit = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert analogies.offsets(unit, torch.tensor([[0, 1]])).tolist() == [[1, -1]]


def test_a_linear_map_reads_what_it_has_not_seen_only_if_it_is_there():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 10, generator=generator)
    y = x @ torch.arange(10.0) + 3
    assert torch.allclose(analogies.ridge_held_out(x, y, ridge=1e-4), y, atol=0.05)
    noise = torch.randn(100, generator=generator)
    guess = analogies.ridge_held_out(x, noise)
    assert (guess - noise).square().sum() > 0.9 * (noise - noise.mean()).square().sum()


def test_every_point_is_held_out_once():
    y = torch.arange(23.0)
    guess = analogies.ridge_held_out(torch.zeros(23, 2), y, folds=5)  # no information: the mean of the other folds
    assert guess.isfinite().all() and (guess - y.mean()).abs().max() < 3


def test_the_shipped_relations_are_pairs_of_different_words():
    for words in analogies.RELATIONS.values():
        pairs = [pair.split() for pair in words.split(",")]
        assert all(len(pair) == 2 and pair[0] != pair[1] for pair in pairs)
        assert len({tuple(pair) for pair in pairs}) == len(pairs)
