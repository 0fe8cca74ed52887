"""The autoencoders in plain torch do what notebook 04 says of them."""

import pytest
import torch

from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.course.superposition.toy_models import shape
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


def test_a_fit_keeps_its_rows_at_the_moments_asked_for():
    rows, bias, seen = by_hand.fit(by_hand.train_step, X, 12, 0.1, 30, lr=2e-2, seed=3, moments=(0, 30))
    assert rows.shape == (12, 8) and bias.shape == (12,) and len(seen) == 2
    assert torch.equal(seen[0], by_hand.random_rows(12, 8, seed=3).detach())
    assert not torch.allclose(seen[1], seen[0], atol=0.05) and torch.allclose(seen[1], rows, atol=0.1)


@pytest.mark.parametrize("steps", [5, 60, 400])
def test_moments_begin_at_0_and_end_with_the_last_step(steps):
    moments = by_hand.moments_to_show(steps)
    assert moments[0] == 0 and moments[-1] == steps and moments == sorted(set(moments))


TRUTH = shape("pentagon").T  # (5, 2)


def turned(rows, fifths):
    angle = torch.tensor(2 * torch.pi * fifths / 5)
    return rows @ torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (TRUTH.flip(0), "truth"),
        (turned(TRUTH, 0.5), "halfway"),
        (torch.tensor([[0.6, 0.8], [-0.6, -0.8], [-0.8, 0.6], [0.8, -0.6], [1.0, 0.0]]), "cross"),
        (torch.tensor([[1.0, 0.0]] * 5), "other"),
        (turned(TRUTH, 0.2), "other"),
    ],
)
def test_an_ending_is_named_by_where_the_rows_lie(rows, name):
    assert by_hand.ending(rows, TRUTH) == name in by_hand.ENDINGS


def test_with_enough_of_a_penalty_the_truth_costs_less_than_a_cross():
    x = sparse_strengths(20_000, 0.05, n=5, seed=0) @ TRUTH
    x = x[x.abs().sum(dim=1) > 0]
    for lam, cheaper in ((0, "cross"), (0.3, "truth")):
        starts = by_hand.CROSS, (TRUTH, torch.full((5,), -lam / 2 - 0.05))
        fits = [by_hand.fit(by_hand.train_step, x, 5, lam, 100, lr=0.01, start=start) for start in starts]
        assert torch.equal(by_hand.CROSS[0][4], torch.tensor([1.0, 0.0])), "what one starts from stays as it is"
        losses = by_hand.lowest_losses(fits, x, TRUTH, lam)
        assert set(losses) == {"cross", "truth"} and min(losses, key=lambda end: losses[end]) == cheaper, losses
        again = by_hand.lowest_losses(fits[:1] * 2, x, TRUTH, lam)
        assert again == {"cross": losses["cross"]}


def test_only_the_broken_step_grows_its_decoder_and_it_finds_less():
    found = {}
    for step in (by_hand.broken_step, by_hand.mended_step):
        W_dec, history, codes = by_hand.train_untied(step, X, 12, 0.1, 400)
        l0 = by_hand.mean_l0(codes)
        assert codes.shape == (2000, 12) and l0 == codes.gt(0).sum() / 2000
        assert history.shape == (400, 3) and history[0, 2] == pytest.approx(1, abs=1e-4)
        found[step] = float(history[-1, 2]), float(history[-50:, 1].mean()), l0, mean_max_cosine(REAL, W_dec)
    broken, mended = found[by_hand.broken_step], found[by_hand.mended_step]
    assert broken[0] > 1.5 and mended[0] == pytest.approx(1, abs=1e-4)
    assert broken[1] < mended[1] and broken[2] > mended[2] and broken[3] < mended[3]
