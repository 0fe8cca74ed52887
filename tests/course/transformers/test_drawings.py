"""Drawings of notebook 01 say what they show, and what they show is what the notebook explains."""

import re

import pytest

from sae_tutorial.course.transformers import drawings


def words_in(drawing):
    return " ".join(re.sub(r"<[^>]+>|\u200b", "", text) for text in re.findall(r"<text.*?</text>", drawing.svg()))


@pytest.mark.parametrize(
    ("draw", "told", "shown"),
    [
        (drawings.residual_stream, ["read", "add", "unembed"], ["attention", "MLP", "reads", "adds", "layer 0"]),
        (drawings.attention_head, ["query", "keys", "values", "W_O"], ["q2", "k0", "v1", "softmax", "WO"]),
        (drawings.induction, ["previous-token head", "induction head"], ["river", "Tom?", "copies"]),
    ],
)
def test_a_drawing_tells_what_it_shows(draw, told, shown):
    drawing = draw()
    assert [word for word in told if word not in drawing.alt] == []
    assert [word for word in shown if word not in words_in(drawing)] == []


def test_the_shares_of_the_head_sum_to_one():
    shares = [float(share) for share in re.findall(r">(0\.\d)<", drawings.attention_head().svg())]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1)
