"""The two ends of the pipe: a process that answers, and one that does not."""

import io
import json
import sys
import textwrap

import contender_process
import pytest
import torch
from turns import Worker, WorkerError

FAKE = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "leave":
        sys.exit("no more of this")
    answer = {"error": "I cannot"} if message["do"] == "fail" else {"answer": [4.0, 6.0]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    with Worker([sys.executable, script]) as started:
        yield started


def test_a_turn_is_the_mean_of_its_steps(worker):
    assert worker.turn("anybody") == 5.0


def test_what_the_process_says_of_a_failure_arrives_and_it_lives_on(worker):
    with pytest.raises(WorkerError, match="I cannot"):
        worker.ask("fail")
    assert worker.ask("turn") == [4.0, 6.0]


def test_a_process_that_ended_is_an_error_with_its_last_words(worker):
    for _ in range(2):  # at once, and when asked again
        with pytest.raises(WorkerError, match="ended with code 1: no more of this"):
            worker.ask("leave")


class Counter:
    """A contender that remembers what it saw."""

    least, warm_up = 3, 2

    def __init__(self, name, task):
        self.name, self.task, self.seen = name, task, []

    def step(self, x):
        self.seen.append(float(x.sum()))

    def check(self, x):
        return {"fvu": float(x.sum())}


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "task.pt"
    torch.save({"shape": [1, 1, 1, 1], "batches": torch.arange(3.0).view(3, 1, 1), "weights": {}}, path)
    return str(path)


def test_the_other_end_prepares_warms_up_takes_turns_and_forgets(task):
    process = contender_process.Process(Counter)
    assert process.answer({"do": "prepare", "name": "a", "task": task, "device": "cpu"}) == {"fvu": 0.0}
    assert process.contenders["a"].seen == [0, 1], "the warm-up"
    times = process.answer({"do": "turn", "name": "a", "at_least_s": 0.0, "most_steps": 10})
    assert len(times) == 3 and min(times) >= 0, "its fewest steps"
    assert process.contenders["a"].seen == [0, 1, 2, 0, 1], "batch after batch, over and over"
    assert len(process.answer({"do": "turn", "name": "a", "at_least_s": 60.0, "most_steps": 5})) == 5
    process.answer({"do": "drop", "name": "a"})
    assert not process.contenders and not process.batches


def test_serve_answers_every_line_failures_too(task):
    questions = [{"do": "check", "name": "nobody"}, {"do": "prepare", "name": "a", "task": task, "device": "cpu"}]
    answers = io.StringIO()
    contender_process.serve(Counter, io.StringIO("".join(json.dumps(one) + "\n" for one in questions)), answers)
    first, second = (json.loads(line) for line in answers.getvalue().splitlines())
    assert "KeyError" in first["error"] and "contender_process.py" in first["error"]
    assert second == {"answer": {"fvu": 0.0}}
