"""What SAEs are asked: everything once, of any dictionary, and a dictionary that is the answer is told from noise."""

import pytest
import torch

from sae_tutorial import reference_sae
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.course.judged_by_tasks import study
from sae_tutorial.evaluation.disentanglement import attributed
from sae_tutorial.evaluation.examples import coordinates, random_sae


@pytest.fixture(scope="module")
def questions(model):
    sizes = {"n_train": 200, "n_test": 80, "least": 20}
    return study.Questions.read(model, "stories", "blocks.1.hook_resid_post", 16_000, n_sentences=192, **sizes)


def test_everything_is_read_once_and_sorted(questions):
    names = [one.name for one in questions.tokens]
    assert {"past tense", "in a question"} <= set(names)
    assert not any(name.startswith(("book: ", "first letter")) for name in names)
    assert questions.rows and all(one.name.startswith("book: ") for one in questions.rows)
    assert questions.attributes.names == ("name", "place", "object") and questions.attributes.x.shape[1] == 256
    assert set(questions.together) <= {", ".join(pair) for pair in study.TOGETHER} and questions.together
    for both, one, other in questions.together.values():
        assert f"{one.name} and {other.name}" == both.name


def test_a_trained_sae_does_better_than_a_random_one_and_every_question_has_an_answer(questions):
    sae = reference_sae("token_choice")
    ours, theirs = (study.answers(one, questions) for one in (sae, random_sae(sae, questions.x)))
    asked = [one.name for one in questions.tokens + questions.rows]
    for found in (ours, theirs):
        assert all(list(found["probing"][k]) == asked for k in study.KS) and list(found["kept"]) == asked
        assert set(found["disentanglement"]) == {*study.SWAPPED, "held"}
        assert all(set(of) == set(questions.together) for of in found["removal"].values())

    def mean(of):
        return sum(of.values()) / len(of)

    assert mean(ours["probing"][1]) > mean(theirs["probing"][1]) + 0.03
    assert mean(ours["kept"]) > 0.65
    assert mean(ours["perturbation"][5]) > mean(theirs["perturbation"][5])


def test_what_needs_no_sae(questions):
    found = study.dense(questions)
    few = study.answers(coordinates(256), questions)
    assert sum(found["probing"].values()) > sum(few["probing"][5].values())
    swapped = [torch.tensor(list(one["disentanglement"][10].values())).mean() for one in (found, few)]
    assert swapped[0] > swapped[1] + 0.1, "few principal directions hold what sentences differ in"
    for what in ("perturbation", "removal"):
        assert set(found[what]) == {1} and set(few[what]) == set(study.NS)
    means = [torch.tensor(list(of.values())).mean() for of in (found["perturbation"][1], few["perturbation"][10])]
    assert means[0] > means[1] + 0.1, "one direction that is made of a property's labels takes it away"


def test_no_passage_is_on_both_sides():
    passages = torch.arange(5 * 256).view(5, 256)
    passages[:, 0] = -1
    rows, titles = study.by_passage(passages, list("abcde"))
    assert rows.shape == (16, 64) and (rows[:, 0] == -1).all() and titles == list("abababab" + "cdcdcdcd")
    for odd in (0, 1):
        origin = {"abcde"[int(row[1]) // 256] for row in rows[odd::2]}
        assert origin == set("ac" if odd == 0 else "bd"), "the fifth has no partner"
    assert torch.equal(rows[0, 1:], passages[0, 1:64]) and torch.equal(rows[2, 1:], passages[0, 64:127])


def test_sentences_come_once_and_name_who_is_asked_for(questions):
    assert len(questions.attributes.x.unique(dim=0)) == len(questions.attributes.x) > 150
    assert [int(of.max()) + 1 for of in questions.attributes.value.T] == [6, 4, 4]


def test_what_is_left_out_of_each_attribute_is_found_where_it_was_planted():
    """Two attributes along axes of their own, a third that is not there; the dictionary has the first and half of the
    second."""
    generator = torch.Generator().manual_seed(0)
    value = torch.stack(
        [torch.arange(600) % 3, torch.arange(600) // 3 % 2, torch.randint(4, (600,), generator=generator)], 1
    )
    x = torch.randn(600, 5, generator=generator)
    x[:, 0] += 3.0 * value[:, 0]
    x[:, 1] += 2.0 * value[:, 1]
    directions = torch.eye(5)[:2] * torch.tensor([1.0, 0.5])[:, None]
    half = Dictionary("half", lambda x: x[:, :2], directions, torch.zeros(5))
    found = study.left_out(half, attributed(x, {"a": value[:, 0], "b": value[:, 1], "none": value[:, 2]}))
    whole = float(x.var(0, correction=0).sum())
    assert found["a"] == pytest.approx((6 / whole, 0.0), abs=0.03)
    assert found["b"] == pytest.approx((1 / whole, 0.25), abs=0.03)
    assert abs(found["none"][0]) < 0.005, "what is not there has no share, for all that means of few vary"
