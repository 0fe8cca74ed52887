"""Tasks whose prompts come in pairs, and the circuits that patching finds in the embedded model."""

import pytest
import torch

from sae_tutorial.circuits.patching import all_heads
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.discrete_circuits import tasks


@pytest.mark.parametrize("name", tasks.TASKS)
def test_prompts_are_pairs_and_the_model_does_the_positive_ones(model, name):
    task = tasks.TASKS[name](model, 12, seed=1)
    assert len(task.positive) == len(task.negative) == 12
    assert torch.equal(task.positive.positions["END"], task.negative.positions["END"])
    end = task.positive.positions["END"]
    rows = torch.arange(12)
    assert torch.equal(task.positive.tokens[rows, end], task.negative.tokens[rows, end]), "END is the same token"
    assert task.positive.text != task.negative.text
    positive, negative = (task.metric(end_logits(model, run)).mean() for run in (task.positive, task.negative))
    assert positive > 2 * negative.abs(), (positive, negative)
    assert tasks.TASKS[name](model, 12, seed=1).positive.text == task.positive.text
    assert tasks.TASKS[name](model, 12, seed=2).positive.text != task.positive.text


def test_words_come_again_in_positive_prompts_alone(model):
    task = tasks.repeats(model, 5)
    for run, again in ((task.positive, True), (task.negative, False)):
        words = run.tokens[:, 1:]
        assert torch.equal(words[:, tasks.WORDS :], words[:, : tasks.AGAIN]) is again


def test_negative_years_begin_in_the_first_one(model):
    task = tasks.later_years(model, 8)
    for yes, no in zip(task.positive.text, task.negative.text):
        assert yes.split()[1] == no.split()[1] and yes[-2:] == no[-2:] and no.split()[-5].endswith("01")


def test_a_model_that_writes_years_otherwise_is_not_asked(model):
    class Other:
        def __init__(self, model):
            self.model = model

        def __getattr__(self, name):
            return getattr(self.model, name)

        def tokenizer(self, text, **more):
            return self.model.tokenizer(text.replace("17", "7"), **more)

    assert list(tasks.tasks_of(model)) == list(tasks.TASKS)
    other = Other(model)
    other.tokenizer = lambda text, **more: model.tokenizer(text.replace(" 17", " 7"), **more)
    with pytest.raises(ValueError, match="its century and two digits"):
        tasks.later_years(other, 1)


def test_a_patched_circuit_and_its_paths(model):
    heads, task = all_heads(model), tasks.indirect_objects(model, 12)
    lost = tasks.patched(model, task)
    assert heads[int(lost.argmax())] == (2, 0) and lost[heads.index((2, 0))] > 0.3
    assert lost[heads.index((0, 0))].abs() < 0.03, "0.0 works at S2, not at END"
    everywhere = tasks.patched(model, task, None, tried=8)
    assert (everywhere != 0).sum() <= 8 and everywhere[heads.index((0, 0))] > 0.5
    table = tasks.paths(model, task, [(0, 0), (2, 0), (1, 2)])
    writer, reader = heads.index((0, 0)), heads.index((2, 0))
    assert table[writer, reader] > 0.3 and (table != 0).sum() <= 3
    assert tasks.members(table).sum() >= 1 and not tasks.members(torch.tensor([0.02, -0.029])).any()
    assert tasks.members(torch.tensor([0.03, -0.4])).all()
    estimate = tasks.attributed(model, task)
    assert estimate.shape == lost.shape and heads[int(estimate.argmax())] == (2, 0)
