"""The drawings say what is in them, and nothing leaves the picture (else `Drawing` raises)."""

import pytest

from sae_tutorial.course.zipf_densities import drawings


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (drawings.rank_density, ("density p(r)", "offset q", "exponent s", "cut-off r", "rank r")),
        (drawings.head_start, ("half A learns", "B sleeps", "half B wakes up", "step 30", "step 150")),
    ],
)
def test_drawings_hold_their_words(draw, words):
    drawing = draw()
    svg = drawing.svg()
    assert all(word in svg for word in words) and len(drawing.alt) > 80
