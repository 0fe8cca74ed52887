"""Greater-than: spans of years, and what the embedded model makes of them."""

import pytest
import torch

from sae_tutorial.circuits.greater_than import greater_than, year_spans
from sae_tutorial.circuits.prompts import at, end_logits


@pytest.fixture(scope="module")
def spans(model):
    return year_spans(model, 60)


def test_spans_end_with_a_century_and_know_their_start(model, spans):
    assert len(spans) == 60 and len(set(spans.text)) > 50
    for i, text in enumerate(spans.text):
        start = text.split(" to ")[0][-4:]
        assert text.endswith(" " + start[:2]) and int(start[2:]) == spans.start[i]
    digits = at(spans.tokens, spans.positions["YY"])
    assert torch.equal(digits, spans.years[spans.start])
    assert model.tokenizer.decode([int(spans.years[7])]) == "07"
    assert year_spans(model, 60).text == spans.text != year_spans(model, 60, seed=1).text


def test_the_embedded_model_can_do_it(model, spans):
    logits = end_logits(model, spans)
    assert 0.7 < float(greater_than(logits, spans).mean()) < 0.95
    assert float(greater_than(logits[:, torch.randperm(logits.shape[1])], spans).mean().abs()) < 0.2


def test_the_measure_counts_later_years_and_no_others(spans):
    logits = torch.full((60, 5000), -40.0)
    logits[torch.arange(60), spans.years[spans.start]] = 10.0
    assert greater_than(logits, spans) == pytest.approx(-1.0 * torch.ones(60))
    logits[torch.arange(60), spans.years[spans.start + 1]] = 30.0
    assert greater_than(logits, spans) == pytest.approx(torch.ones(60))


def test_starts_can_be_told_and_groups_agree(model):
    spans = year_spans(
        model, 8, starts=[2, 50], events=["war"], centuries=[17], template="The {event}: {start} to {century}"
    )
    assert spans.start.tolist() == [2, 50] * 4 and len(set(spans.text)) == 2
    assert len(set(spans.groups.tolist())) == 1 and type(spans[:2]) is type(spans) and len(spans[:2].start) == 2
    assert torch.equal(spans[:2].years, spans.years) and torch.equal(spans[:1].repeated(3).years, spans.years)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (dict(template="From {start} to {century}"), "must have {event} and {start}"),
        (dict(template="{event} {century} {start}"), "end with {century}"),
        (dict(starts=[100]), "numbers from 0 to 99"),
        (dict(starts=[]), "numbers from 0 to 99"),
        (dict(n=0), "n must be"),
        (dict(centuries=[1]), "two digits at a time"),
    ],
)
def test_spans_that_make_no_sense(model, more, words):
    with pytest.raises(ValueError, match=words):
        year_spans(model, **{"n": 3} | more)


def test_a_model_that_writes_digits_one_by_one(smol):
    with pytest.raises(ValueError, match="take the embedded model or GPT-2"):
        year_spans(smol, 3)
