import pytest

from sae_tutorial.course.judge import TRIES


@pytest.fixture(autouse=True)
def first_try():
    """Every test is a session of its own: no exercise has been tried."""
    TRIES.wrong.clear()
