"""What SAEs are asked: everything once, of any dictionary, and a dictionary that is the answer is told from noise."""

import pytest
import torch

from sae_tutorial import reference_sae
from sae_tutorial.course.judged_by_tasks import study
from sae_tutorial.evaluation.examples import coordinates, random_sae


@pytest.fixture(scope="module")
def questions(model):
    sizes = {"n_train": 200, "n_test": 80, "least": 20}
    return study.Questions.read(model, "stories", "blocks.1.hook_resid_post", 16_000, n_sentences=192, **sizes)


def test_everything_is_read_once_and_sorted(questions):
    names = [one.name for one in questions.tokens]
    assert "past tense" in names and not any(name.startswith("book: ") for name in names)
    assert questions.rows and all(one.name.startswith("book: ") for one in questions.rows)
    assert questions.attributes.names == ("name", "place", "object") and questions.attributes.x.shape == (192, 256)
    assert set(questions.together) <= {", ".join(pair) for pair in study.TOGETHER} and questions.together
    for both, one, other in questions.together.values():
        assert f"{one.name} and {other.name}" == both.name


def test_a_trained_sae_does_better_than_a_random_one_and_every_question_has_an_answer(questions):
    sae = reference_sae("token_choice")
    ours, theirs = (study.answers(one, questions) for one in (sae, random_sae(sae, questions.x)))
    asked = [one.name for one in questions.tokens + questions.rows]
    for found in (ours, theirs):
        assert all(list(found["probing"][k]) == asked for k in study.KS) and list(found["kept"]) == asked
        assert set(found["disentanglement"]) == set(study.SWAPPED)
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
    assert swapped[0] > swapped[1] + 0.03, "axes that are made of the labels change what they are made of"
