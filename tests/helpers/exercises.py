"""What every check of an exercise does: a solution passes, a stub is no error, a mistake is named and hinted at."""


def right(check, solution):
    verdict = check(solution)
    assert verdict.passed, verdict.message
    for stub in (None, lambda *_: None):
        verdict = check(stub)
        assert not verdict.passed and "not answered yet" in verdict.message


def wrong_and_told(check, wrong, says):
    first, second = check(wrong), check(wrong)
    assert not first.passed and says in first.message and "Hint" not in first.message
    assert says in second.message and "Hint" in second.message
