from types import SimpleNamespace

import pytest
import torch

from sae_tutorial.course.start_here import exercises

CONFIG = SimpleNamespace(n_layers=4, d_mlp=1024, d_model=256)


def unanswered(verdict):
    return not verdict.passed and "not answered yet" in verdict.message


def test_neuron_count():
    assert unanswered(exercises.check_neuron_count(None, CONFIG))
    assert exercises.check_neuron_count(exercises.solution_neuron_count(CONFIG), CONFIG)
    assert "one layer" in exercises.check_neuron_count(1024, CONFIG).message
    assert not exercises.check_neuron_count(7, CONFIG)
    small = SimpleNamespace(n_layers=12, d_mlp=3072, d_model=768)  # where layers times width is not one layer's neurons
    assert exercises.check_neuron_count(36_864, small)
    assert "one layer" in exercises.check_neuron_count(3072, small).message
    assert "width of the residual stream" in exercises.check_neuron_count(12 * 768, small).message


def test_top_places():
    check = exercises.check_top_places
    assert unanswered(check(lambda acts, k: None))
    assert check(exercises.solution_top_places)
    assert check(lambda acts, k: acts.argsort(descending=True)[:k].tolist())
    assert "Where do they stand" in check(lambda acts, k: acts.topk(k).values).message
    assert "weakest first" in check(lambda acts, k: acts.argsort()[-k:]).message
    assert "smallest" in check(lambda acts, k: acts.argsort()[:k]).message
    assert "TypeError" in check(lambda acts: acts).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda x: 1 / (x @ x.T).clamp(min=0).sum(), "mean over the pairs"),
        (lambda x: (x @ x.T).clamp(min=0).mean(), "one divided by it"),
        (lambda x: 1 / (x @ x.T).mean(), "Opposite vectors"),
        (lambda x: 3.0, "one word"),
        (lambda x: 1 / ((x @ x.T).clamp(min=0) ** 2).mean(), "not of their squares"),
        (lambda x: 1 / ((x @ x.T) > 0.1).float().mean(), "60 degrees"),
    ],
)
def test_effective_number_mistakes(mistake, says):
    verdict = exercises.check_effective_number(mistake)
    assert not verdict and says in verdict.message


def test_effective_number():
    assert unanswered(exercises.check_effective_number(lambda x: None))
    assert exercises.check_effective_number(exercises.solution_effective_number)
    assert exercises.check_effective_number(lambda x: torch.tensor(exercises.solution_effective_number(x)))
