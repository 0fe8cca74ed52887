"""A head start: the sleepers sleep, wake up as they were, and chance decides who they are."""

import pytest
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, TrainSettings
from sae_tutorial.course.zipf_densities.head_start import head_start

D, F, STOP = 8, 24, 6


def new_sae(seed: int) -> SparseAutoencoder:
    return SparseAutoencoder(SAEConfig(D, F, "mutual_choice", 3), seed=seed)


@pytest.fixture(scope="module")
def store():
    return ActivationStore.from_tensor(torch.randn(512, D, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def twins(store):
    how = TrainSettings(steps=12, batch_size=64, lr=1e-2, aux_k=0.0)
    moments = (1, 2, STOP - 1, STOP, 12)
    return head_start(new_sae, store, store.rows(slice(0, 128)), how, (0, 1), STOP, moments)


def test_the_sleepers_match_nothing_until_they_wake_up(twins):
    for pair in twins:
        shares = dict(zip(pair.moments, pair.share()))
        assert shares[2] == shares[STOP - 1] == 1 and 0 < shares[STOP] < 1 and 0 < shares[12] < 1
        assert pair.favoured.b_enc.min() > -100, "nobody sleeps on"
        assert pair.strength > 0


def test_all_sleepers_are_dead_while_they_sleep(twins):
    for pair in twins:
        assert pair.dead_sleepers(2) == F // 2 > pair.dead_sleepers(STOP) >= pair.dead_sleepers(12) >= 0


def test_each_seed_draws_its_own_half(twins):
    assert all(pair.lucky.sum() == F // 2 for pair in twins)
    assert (twins[0].lucky != twins[1].lucky).any()


def test_the_other_twin_is_trained_as_ever(store, twins):
    from sae_tutorial import train

    alone = new_sae(0)
    train(alone, store, TrainSettings(steps=12, batch_size=64, lr=1e-2, aux_k=0.0), progress=False)
    assert torch.allclose(alone.W_dec, twins[0].plain.W_dec, atol=1e-5)
    assert not torch.allclose(alone.W_dec, twins[0].favoured.W_dec, atol=1e-2)


def test_sleepers_that_would_not_wake_up_are_an_error(store):
    with pytest.raises(ValueError, match="before the last of 12, got 12"):
        head_start(new_sae, store, store.rows(slice(0, 8)), TrainSettings(steps=12, batch_size=64), (0,), 12, ())
