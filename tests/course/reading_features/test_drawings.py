"""The drawings say what is in them, and nothing leaves the picture (else `Drawing` raises)."""

import pytest

from sae_tutorial.course.reading_features import drawings


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (drawings.from_text_to_score, ("even rows", "odd rows", "explainer", "judge", "score", "real activations")),
        (drawings.three_scores, ("real activation", "simulation", "detection", "fuzzing", "than", "could")),
    ],
)
def test_drawings_hold_their_words(draw, words):
    drawing = draw()
    svg = drawing.svg()
    assert all(word in svg for word in words) and len(drawing.alt) > 80
