import pytest
import torch
from synthetic import make
from torch.testing import assert_close

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, train
from sae_tutorial.training.rule_change import with_rule


@pytest.fixture(scope="module")
def store():
    generator = torch.Generator().manual_seed(0)
    return ActivationStore.from_tensor(
        torch.randn(600, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    )


@pytest.fixture(scope="module")
def first(store):
    sae = SparseAutoencoder(SAEConfig(8, 24, "mutual_choice", k=4))
    return train(sae, store, steps=20, batch_size=64, decay=0.0, progress=False)


def test_the_features_stay_and_the_densest_comes_first(first):
    sae = with_rule(first.sae, "feature_choice", first.density)
    x = torch.randn(30, 8)
    assert_close(sae.affinities(x), first.sae.affinities(x))
    assert sae.rank[first.density.argmax()] == 0 and sorted(sae.rank.tolist()) == list(range(24))
    assert sae.config.rule == "feature_choice" and first.sae.config.rule == "mutual_choice"
    with pytest.raises(ValueError, match="no inference threshold yet"):
        sae.encode(x)


def test_the_copy_shares_nothing_with_the_original(first):
    sae = with_rule(first.sae, "mutual_choice")
    before = first.sae.W_dec.clone()
    with torch.no_grad():
        sae.W_dec.zero_()
    assert torch.equal(first.sae.W_dec, before)


def test_it_trains_on_from_there(first, store):
    again = with_rule(first.sae, "feature_choice", first.density)
    run = train(again, store, steps=20, batch_size=64, progress=False)
    assert run.metrics["fvu"][0] < first.metrics["fvu"][0] and again.tokens_seen == 40 * 64
    assert (again.threshold >= 0).all()


def test_says_what_is_wrong(first):
    with pytest.raises(ValueError, match=r"density must be \(24,\)"):
        with_rule(first.sae, "feature_choice")
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        with_rule(first.sae, "feature_choice", torch.ones(3))
    with pytest.raises(ValueError, match=r"rule='gated' has other weights than 'mutual_choice' \(b_mag, r_mag\)"):
        with_rule(first.sae, "gated", k=None)
    assert with_rule(make("token_choice", d_sae=24), "mutual_choice").config.rule == "mutual_choice"
