"""The questions that a model is asked, and how its answers are read: with a model that answers as it is told."""

import pytest
import torch

from sae_tutorial.evaluation.chat_judge import ChatJudge, explain_by_chat, marked, plain
from sae_tutorial.evaluation.explanations import Explanation, Material, scores
from sae_tutorial.evaluation.feature_pages import Passage

VOCABULARY = ["The", " cat", " sat", " on", " the", " mat", ".\n", " dog", "<", " ran"]


def words(ids):
    return [VOCABULARY[int(i)] for i in ids]


def passage(ids, active=()):
    acts = torch.zeros(len(ids))
    acts[list(active)] = 2.0
    return Passage(torch.tensor(ids), acts, max(active, default=0))


class Told:
    """A chat that keeps the questions, and answers by a function of each."""

    def __init__(self, answer=lambda text: "", yes=lambda text: 0.5):
        self.asked, self._answer, self._yes = [], answer, yes

    def answer(self, messages, max_tokens=100):
        self.asked.append(messages[0]["content"])
        return self._answer(messages[0]["content"])

    def weigh(self, messages, answers):
        self.asked.append(messages[0]["content"])
        p = self._yes(messages[0]["content"])
        return [p, 1 - p]


@pytest.mark.parametrize(
    "marks, expected",
    [
        ([0, 0, 0], "The cat sat"),
        ([1, 0, 0], "<<The>> cat sat"),
        ([0, 1, 1], "The <<cat sat>>"),
        ([1, 0, 1], "<<The>> cat <<sat>>"),
    ],
)
def test_marks_stand_around_words_and_neighbours_together(marks, expected):
    assert marked(passage([0, 1, 2]), torch.tensor(marks, dtype=torch.bool), words) == expected


def test_text_is_one_line():
    assert plain(passage([0, 1, 6, 7]), words) == "The cat. dog"


def test_the_explainer_sees_active_passages_alone_and_its_first_line_counts():
    chat = Told(lambda text: "cats\nand more")
    shown = [passage([0, 1, 2], [1]), passage([3, 4, 5]), passage([4, 1, 9], [1])]
    found = explain_by_chat(chat, Material(0, 2.0, shown, [], [], []), words)
    assert found == Explanation("cats")
    assert (
        "1. The <<cat>> sat" in chat.asked[0] and "2. the <<cat>> ran" in chat.asked[0] and "mat" not in chat.asked[0]
    )


def test_a_judge_that_understands_has_full_marks():
    on = [passage([0, 1, 2], [1]), passage([4, 1, 9], [1])]
    off = [passage([0, 7, 2]), passage([3, 4, 5])]
    chat = Told(
        answer=lambda text: "".join(
            f"{line.split(':')[0]}: 10\n" for line in text.splitlines() if line.endswith(": cat")
        ),
        yes=lambda text: float("<<cat>>" in text if "<<" in text else "cat" in text.split("Text:")[1]),
    )
    result = scores(Explanation("animals that purr"), Material(0, 2.0, [], on, on, off), ChatJudge(chat, words))
    assert (result.simulation, result.detection, result.fuzzing) == pytest.approx((1, 1, 1))
    assert all("animals that purr" in text for text in chat.asked)


def test_what_a_simulator_writes_is_read_with_patience():
    judge = ChatJudge(Told(lambda text: "Sure!\n1: The, 3\n 2 : 12.5\n9: 4\nthree: 5\n3: none"), words)
    assert judge.simulate(Explanation("x"), passage([0, 1, 2])).tolist() == [3, 10, 0]
