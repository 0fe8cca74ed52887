"""Explanations: planted features are named for what they are, and scores are what their definitions say."""

import math

import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.evaluation.explanations import (
    Explanation,
    Material,
    Statistics,
    StatisticsJudge,
    auc,
    correlation,
    explain_by_statistics,
    materials,
    scores,
    wrongly_marked,
)
from sae_tutorial.evaluation.feature_evidence import feature_evidence
from sae_tutorial.evaluation.feature_pages import Passage

N_WORDS = 30


def words(ids):
    return [f"w{int(i)}" for i in ids]


def planted(rule, n=40, length=15, seed=0):
    """Material of a feature whose activation at i is rule(tokens, i), on random words."""
    generator = torch.Generator().manual_seed(seed)
    passages = []
    for _ in range(12 * n):
        ids = torch.randint(N_WORDS, (length,), generator=generator).tolist()
        acts = torch.tensor([float(rule(ids, i)) for i in range(length)])
        passages.append(Passage(torch.tensor(ids), acts, int(acts.argmax())))
    on = [p for p in passages if p.activations.any()]
    off = [p for p in passages if not p.activations.any()]
    assert len(on) >= 2 * n
    return Material(0, 1.0, on[:n] + off[:10], on[n : n + 10], on[n : 2 * n], off[10:30] + on[-5:])


RULES = {
    "token": lambda ids, i: ids[i] in (3, 4),
    "after": lambda ids, i: i > 0 and ids[i - 1] == 3,
    "pair": lambda ids, i: i > 0 and ids[i - 1] in (5, 6, 7, 8, 9) and ids[i] in (10, 11, 12, 13, 14),
    "topic": lambda ids, i: 3 in ids[max(0, i - 8) : i + 1],
}


@pytest.mark.parametrize("kind", RULES)
def test_a_planted_feature_is_explained_as_what_it_is(kind):
    material = planted(RULES[kind], n=60)
    found = explain_by_statistics(material, words)
    assert found.kind == kind
    if kind != "pair":
        assert "“w3”" in found.text and "“w7”" not in found.text
    result = scores(found, material, StatisticsJudge())
    assert result.simulation > 0.8 and result.detection > 0.9 and result.fuzzing > 0.9


def test_the_explanation_of_another_feature_predicts_nothing():
    mine, other = planted(RULES["token"]), planted(lambda ids, i: ids[i] == 20, seed=1)
    found = scores(explain_by_statistics(other, words), mine, StatisticsJudge())
    assert abs(found.simulation) < 0.25 and abs(found.detection - 0.5) < 0.2


def test_what_is_never_active_is_said_to_be_so():
    silent = [Passage(torch.arange(5), torch.zeros(5), 0)] * 3
    material = Material(0, 0.0, silent, [], [], silent)
    found = explain_by_statistics(material, words)
    assert "never active" in found.text
    result = scores(found, material, StatisticsJudge())
    assert all(map(math.isnan, vars(result).values()))


def test_material_is_split_by_rows_and_is_what_was_asked_for(model):
    sae, tokens = reference_sae("mutual_choice"), story_tokens(8_192, 64, source="books")
    evidence = feature_evidence(sae, model, tokens, n_top=20, n_sampled=40, progress=False)
    features = evidence.counts.topk(300).indices[[10, 290]].tolist()
    rows = {tuple(row[1:].tolist()): i for i, row in enumerate(tokens)}

    def row_of(passage):
        text = tuple(passage.tokens.tolist())
        return {i for row, i in rows.items() if any(row[a : a + len(text)] == text for a in range(64))}

    for material in materials(evidence, sae, model, features, n=5, n_random=6, width=5):
        shown, tests = material.shown, material.strongest + material.active + material.random
        assert all(any(row % 2 == 0 for row in row_of(p)) for p in shown)
        assert all(any(row % 2 == 1 for row in row_of(p)) for p in tests)
        assert len(material.strongest) == len(material.active) == 5 and len(material.random) == 6
        assert all(p.peak > 0 for p in material.strongest + material.active)
        assert all(not p.activations.any() for p in material.silent)
    again = materials(evidence, sae, model, features, n=5, n_random=6, width=5)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(again[1].random, material.random))


def test_text_of_one_row_cannot_be_split(model):
    sae, tokens = reference_sae("mutual_choice"), story_tokens(64, 64, source="books")
    evidence = feature_evidence(sae, model, tokens[:1], progress=False)
    with pytest.raises(ValueError, match="1 row of text"):
        materials(evidence, sae, model, [0])


@pytest.mark.parametrize(
    "positive, negative, expected", [([2, 3], [0, 1], 1), ([0], [1, 2], 0), ([1, 1], [1], 0.5), ([1, 3], [2], 0.5)]
)
def test_auc(positive, negative, expected):
    assert auc(positive, negative) == expected


def test_auc_without_a_pair_is_nan():
    assert math.isnan(auc([], [1.0])) and math.isnan(auc([1.0], []))


class Says:
    """A judge with fixed answers."""

    def __init__(self, *values):
        self.values = values

    def simulate(self, explanation, passage):
        return torch.tensor(self.values)


def test_correlation_is_pearson_s_and_zero_for_a_judge_that_always_says_the_same():
    passage = Passage(torch.arange(4), torch.tensor([0.0, 1.0, 0.0, 3.0]), 1)
    about = Explanation("x")
    assert correlation(about, [passage], Says(0.0, 2.0, 0.0, 6.0)) == pytest.approx(1)
    assert correlation(about, [passage], Says(6.0, 4.0, 6.0, 0.0)) == pytest.approx(-1)
    assert correlation(about, [passage], Says(1.0, 1.0, 1.0, 1.0)) == 0
    silent = Passage(torch.arange(4), torch.zeros(4), 1)
    assert math.isnan(correlation(about, [silent], Says(0.0, 2.0, 0.0, 6.0))) and math.isnan(
        correlation(about, [], Says())
    )


def test_wrong_marks_are_as_many_as_right_ones_and_where_nothing_is_active():
    material = planted(RULES["token"])
    found = wrongly_marked(material)
    n = math.ceil(sum(int((p.activations > 0).sum()) for p in material.active) / len(material.active))
    assert len(found) == len(material.silent) and all(int(m.sum()) == n for _, m in found)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(found, wrongly_marked(material)))


def test_a_table_predicts_what_it_says():
    pair = Statistics("", "pair", {(1, 2): 5.0}, {2: 1.0})
    assert pair.predict([2, 1, 2, 3]) == [1.0, 0.0, 5.0, 0.0]
    after = Statistics("", "after", {1: 2.0})
    assert after.predict([1, 1, 3]) == [0.0, 2.0, 2.0]
    topic = Statistics("", "topic", {1: 2.0})
    assert topic.predict([0, 1, *[0] * 9]) == [0.0, *[2.0] * 9, 0.0]
