"""What is measured of an answer, and its intervals."""

import pytest
import torch

from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.ioi_circuit import measures, names


@pytest.fixture(scope="module")
def sentences(model):
    return ioi.ioi_sentences(model, 12, seed=2)


def test_scores_are_the_four_measures(model, sentences):
    ids = names.name_ids(model)
    logits = end_logits(model, sentences)
    logits[0] -= 100 * torch.nn.functional.one_hot(sentences.io[0], logits.shape[1])  # wrong for once
    found = dict(zip(measures.MEASURES, measures.scores(logits, sentences, ids), strict=True))
    rows = torch.arange(12)
    difference = logits[rows, sentences.io] - logits[rows, sentences.wrong]
    assert torch.equal(found["difference"], difference)
    assert torch.equal(found["lift"], names.lift(logits, sentences, ids))
    assert found["right"].tolist() == (difference > 0).float().tolist() and found["right"][0] == 0
    assert found["top"].tolist() == [float(i == w) for i, w in zip(logits.argmax(1).tolist(), sentences.io.tolist())]


def test_with_ends_is_wider_for_what_varies():
    assert measures.with_ends(torch.full((8,), 0.5), ".0%") == "50% [50%, 50%]"
    text = measures.with_ends(torch.tensor([0.0, 2.0] * 8))
    low, high = map(float, text.split("[")[1].rstrip("]").split(", "))
    assert text.startswith("1.00 [") and 0.3 < low < 0.8 and 1.2 < high < 1.7


def test_share_restored_is_a_ratio_of_means_and_its_runs_are_drawn_together():
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = 5 + 3 * torch.randn(40, generator=generator), -5 + 3 * torch.randn(40, generator=generator)
    exact = torch.stack([corrupted + 0.25 * (clean - corrupted), clean])
    noisy = exact + torch.randn(2, 40, generator=generator)
    for patched in (exact, noisy):
        middle, low, high = measures.share_restored(patched, clean, corrupted)
        by_hand = (patched.mean(1) - corrupted.mean()) / (clean.mean() - corrupted.mean())
        assert torch.allclose(middle, by_hand, atol=1e-6) and (low <= middle).all() and (middle <= high).all()
        assert ((high - low) < 1e-5).all() == (patched is exact)
    of_clean = measures.share_restored(0.5 * clean, clean)
    assert [round(float(end), 4) for end in of_clean] == [0.5, 0.5, 0.5]


def test_share_restored_says_what_is_wrong():
    with pytest.raises(ValueError, match="same mean"):
        measures.share_restored(torch.ones(1, 3), torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="one number per sentence"):
        measures.share_restored(torch.ones(1, 4), torch.ones(3))


def test_shares_and_spans_are_means_with_ends():
    whole, nothing = torch.full((4,), 8.0), torch.zeros(4)
    assert measures.as_share(torch.full((4,), 2.0), whole, nothing) == "25% [25%, 25%]"
    assert measures.span(torch.full((4,), 2.0)) == (2.0, 2.0, 2.0)


def test_the_table_of_scores_has_a_row_for_each_run():
    found = {"a": torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])}
    table = measures.score_table(found, "run on")
    assert table.headers[0] == "run on" and table.rows == [
        ("a", "1.00 [1.00, 1.00]", "2.00 [2.00, 2.00]", "100% [100%, 100%]", "0% [0%, 0%]")
    ]


def test_answers_are_sorted_by_who_is_named(model):
    sentences = ioi.ioi_sentences(model, 4, seed=0)
    ids = names.name_ids(model)
    stranger = next(i for i in ids.tolist() if i not in (int(sentences.io[2]), int(sentences.wrong[2])))
    top = [int(sentences.io[0]), int(sentences.wrong[1]), stranger, int(model.tokenizer.encode(" to")[-1])]
    logits = torch.nn.functional.one_hot(torch.tensor(top), model.cfg.d_vocab).float()
    found = measures.answers(logits, sentences, ids)
    first = found.pop("the first of the two")
    assert found == {"right": 1, "wrong": 1, "another name": 1, "no name": 1}
    where = sentences.positions["IO"] < sentences.positions["S1"]
    assert first == int(where[0]) + int(not where[1])


def test_most_frequent_answers_come_first(model):
    ids = [int(model.tokenizer.encode(" Mary")[-1])] * 2 + [int(model.tokenizer.encode(" to")[-1])]
    logits = torch.nn.functional.one_hot(torch.tensor(ids), model.cfg.d_vocab).float()
    assert measures.most_frequent(model, logits) == "' Mary' 2, ' to' 1"
    assert measures.most_frequent(model, logits, 1) == "' Mary' 2"
