"""The autoencoders in plain torch do what notebook 04 says of them."""

import pytest
import torch

from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.evaluation.ground_truth import mean_max_cosine, random_directions, sparse_strengths

REAL = random_directions(12, 8, seed=0)
X = sparse_strengths(4000, 1.5 / 12, n=12, seed=1) @ REAL


def test_the_code_of_one_direction_is_its_strength_less_the_bias():
    z = by_hand.encode(2 * REAL[:1], REAL[:3], torch.tensor([-0.5, 0.0, -9.0]))
    assert z[0, 0] == pytest.approx(1.5) and z[0, 2] == 0
    assert torch.allclose(by_hand.decode(torch.eye(3), REAL[:3]), REAL[:3])


def test_training_keeps_rows_at_norm_one_and_lowers_the_loss():
    W_dec, b_enc = by_hand.random_rows(12, 8), torch.zeros(12, requires_grad=True)
    adam = torch.optim.Adam([W_dec, b_enc], lr=2e-2)
    losses = [by_hand.train_step(X[:256], W_dec, b_enc, 0.1, adam) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    assert torch.allclose(W_dec.norm(dim=1), torch.ones(12), atol=1e-5)


def test_only_the_broken_step_grows_its_decoder_and_it_finds_less():
    found = {}
    for step in (by_hand.broken_step, by_hand.mended_step):
        W_dec, history, l0 = by_hand.train_untied(step, X, 12, 0.1, 400)
        assert history.shape == (400, 3) and history[0, 2] == pytest.approx(1, abs=1e-4)
        found[step] = float(history[-1, 2]), float(history[-50:, 1].mean()), l0, mean_max_cosine(REAL, W_dec)
    broken, mended = found[by_hand.broken_step], found[by_hand.mended_step]
    assert broken[0] > 1.5 and mended[0] == pytest.approx(1, abs=1e-4)
    assert broken[1] < mended[1] and broken[2] > mended[2] and broken[3] < mended[3]
