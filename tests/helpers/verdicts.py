"""What exercises answer."""


def said(verdict, *words):
    """The answer was refused, and these words say why."""
    assert not verdict.passed
    for word in words:
        assert word in verdict.message, verdict.message
