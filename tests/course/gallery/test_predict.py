"""Exercises of the gallery's notebooks on prediction."""

import pytest
from verdicts import said

from sae_tutorial.course.gallery import predict


def half(error):
    return error.square().sum(1).mean() / 2


def test_the_solution_for_jepa_loss_passes():
    assert predict.check_jepa_loss(predict.solution_jepa_loss)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "not answered"),
        (lambda encode, predict, x, y: (predict(encode(x)) - encode(y).detach()).square(), "return one number"),
        (lambda encode, predict, x, y: half(predict(encode(x)) - encode(y)).item(), "yours"),
        (lambda encode, predict, x, y: half(predict(encode(x)) - encode(y)), "after encode(y), not before"),
        (lambda encode, predict, x, y: half(predict(encode(x)) - encode(y.detach())), "after encode(y), not before"),
        (lambda encode, predict, x, y: half(predict(encode(x)).detach() - encode(y)), "wrong side"),
        (lambda encode, predict, x, y: half(predict(encode(x)) - encode(y)).detach(), "nothing can learn"),
        (lambda encode, predict, x, y: half(predict(encode(x)) - y), "masked autoencoder"),
        (lambda encode, predict, x, y: half(encode(x) - encode(y).detach()), "through the predictor"),
        (lambda encode, predict, x, y: half(predict(encode(y)) - encode(x).detach()), "swapped"),
        (lambda encode, predict, x, y: 2 * half(predict(encode(x)) - encode(y).detach()), "twice as much"),
        (lambda encode, predict, x, y: (predict(encode(x)) - encode(y).detach()).square().mean() / 2, "mean is over"),
        (lambda encode, predict, x, y: half(predict(encode(x)) + encode(y).detach()), "yours are"),
    ],
)
def test_wrong_losses_are_told_why(answer, words):
    said(predict.check_jepa_loss(answer), words)
