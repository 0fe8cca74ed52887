"""Matches in blocks and from rounded affinities are the matches of the whole, exact table."""

import pytest
import torch
from synthetic import make, randn

from sae_tutorial.activations import memory
from sae_tutorial.autoencoder import matching
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES


def assert_same(found, expected):
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.features, expected.features)
    torch.testing.assert_close(found.values, expected.values)


@pytest.mark.parametrize("rule", BUDGET_RULES + PENALTY_RULES)
@pytest.mark.parametrize("at_once", [1, 64 * 7, 64 * 100])
def test_blocks_equal_the_whole(rule, at_once, monkeypatch):
    sae, u = make(rule), randn(40, 8)
    expected = sae.allocate(sae.preactivations(u).detach(), step=3)
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * at_once)
    assert matching.fits(sae, 40) == (at_once == 6400)
    assert_same(matching.match(sae, u, step=3), expected)


def test_blocks_with_ties_equal_the_whole(monkeypatch):
    """Whole-numbered affinities: nearly all of them are ties."""
    for rule in BUDGET_RULES:
        sae, u = make(rule), randn(40, 8).round()
        with torch.no_grad():
            for p in (sae.W_enc, sae.b_enc, sae.b_dec):
                p.copy_((2 * p).round())
        expected = sae.allocate(sae.preactivations(u).detach())
        with monkeypatch.context() as patch:
            patch.setitem(memory.AT_ONCE, "cpu", 4 * 64 * 7)
            assert_same(matching.match(sae, u), expected)


@pytest.mark.parametrize("rule", BUDGET_RULES)
@pytest.mark.parametrize("at_once", [256 * 30, 2**20])
def test_bfloat16_affinities_lead_to_nearly_the_same_matches(rule, at_once, monkeypatch):
    monkeypatch.setitem(memory.AT_ONCE, "cpu", 4 * at_once)
    sae, u = make(rule, d_in=32, d_sae=256), randn(200, 32)
    exact = sae.allocate(sae.preactivations(u).detach())
    chosen = matching.match(sae, u, dtype=torch.bfloat16)
    assert chosen.values.dtype == torch.float32 and len(chosen) == len(exact) == 800
    assert (chosen.to_dense() != 0).eq(exact.to_dense() != 0).float().mean() > 0.9999
    torch.testing.assert_close(chosen.values.sum(), exact.values.sum(), rtol=1e-4, atol=0)
    if rule == "token_choice":
        assert (chosen.l0() == 4).all()
    if rule == "feature_choice":
        assert torch.equal((chosen.to_dense() > 0).sum(0), sae.capacity(200))


@pytest.mark.parametrize("rule", BUDGET_RULES)
def test_exact_affinities_stay_exact_through_the_second_choice(rule):
    sae, u = make(rule).double(), randn(40, 8).double()
    exact = sae.allocate(sae.preactivations(u).detach())
    assert_same(matching.match(sae, u, bids=sae.preactivations(u).detach().float()), exact)


def test_slack_shows_the_runners_up():
    sae, u = make("token_choice"), randn(40, 8)
    assert (matching.match(sae, u, slack=0.5).l0() == 4 + 2 + 4).all()
