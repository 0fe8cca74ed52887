import pytest

from sae_tutorial.course.judge import Verdict, judge, known_mistake


def check_double(answer):
    """A small exercise to judge: a function that doubles a number."""

    def doubles_three(double):
        got = double(3)
        return None if got == 6 else f"double(3) should be 6, yours gives {got}."

    return judge("Exercise 1", answer, [doubles_three], hints="Add it to itself.", praise="Twice as much.")


def stub(x):
    """YOUR CODE HERE"""


def crashes(x):
    return x["no such key"]


@pytest.mark.parametrize("answer", [None, stub])
def test_a_stub_is_not_answered_yet(answer):
    verdict = check_double(answer)
    assert not verdict.passed
    assert "not answered yet" in verdict.message


def test_a_right_answer_passes_with_praise():
    verdict = check_double(lambda x: x + x)
    assert verdict and verdict.passed
    assert repr(verdict) == "✓ Exercise 1: Twice as much."


def test_help_comes_in_stages():
    verdicts = [check_double(answer) for answer in (stub, lambda x: x * x, stub, lambda x: x * x)]
    assert not any(verdicts)
    shown = [repr(verdict) for verdict in verdicts]
    assert shown[0] == shown[2] == "○ Exercise 1: not answered yet."
    assert shown[1] == "✗ Exercise 1: double(3) should be 6, yours gives 9."
    assert shown[3] == shown[1] + "\n  Hint: Add it to itself."


def test_there_are_two_hints_one_after_the_other():
    ask = lambda: judge("Exercise 3", 1, [lambda v: "no"], hints=("first", "second")).message.splitlines()[1:]  # noqa: E731
    assert [ask() for _ in range(4)] == [
        [],
        ["  Hint: first"],
        ["  Hint: first", "  Hint: second"],
        ["  Hint: first", "  Hint: second"],
    ]


def test_each_exercise_counts_for_itself():
    check_double(crashes)
    assert "Hint" not in judge("Exercise 2", 1, [lambda v: False], hints="h").message
    assert "Hint" in check_double(crashes).message


def test_praise_may_speak_of_the_answer():
    assert judge("E", 3, [lambda v: None], hints="h", praise="{} it is.".format).message == "✓ E: 3 it is."


def test_an_exception_ends_in_the_verdict():
    verdict = check_double(crashes)
    assert not verdict.passed
    assert "TypeError" in verdict.message


def test_values_false_and_assertions_are_judged_too():
    def asserts(value):
        assert value > 0, "It must be positive."

    assert judge("E", 1, [asserts, lambda v: True], hints="h").passed
    assert "must be positive" in judge("E", -1, [asserts], hints="h").message
    assert "That is not it." in judge("E", 1, [lambda v: v == 2], hints="h").message


def test_a_verdict_does_not_change():
    with pytest.raises(AttributeError):
        Verdict(True, "yes").passed = False


def test_a_known_mistake_is_the_first_that_the_answer_equals():
    import torch

    wrong = {"too large": torch.tensor([2.0, 4.0]), "the other way round": torch.tensor([2.0, 1.0])}
    assert known_mistake([2, 1], wrong) == "the other way round"
    assert known_mistake(torch.tensor([2.00001, 4.0]), wrong) == "too large"
    assert known_mistake(torch.tensor([1.0, 2.0]), wrong) is None
    assert known_mistake(3, {"three": 3.0}) == "three" and known_mistake(3, {}) is None
