"""The autoencoders of notebook 09: shipped, and trained small."""

import pytest
import torch

from sae_tutorial import ActivationStore, SparseAutoencoder, story_tokens
from sae_tutorial.autoencoder.shipped import HOOK
from sae_tutorial.circuits import ioi
from sae_tutorial.course.ioi_features import task_saes


@pytest.fixture(scope="module")
def store(model):
    return task_saes.task_store(model, HOOK, story_tokens(1_024, 256)[:4], 12)


def test_the_store_holds_text_and_sentences_without_start_marks(model, store):
    sentences = ioi.ioi_sentences(model, 12, task_saes.SEED)
    assert len(store) == 4 * 255 + int(sentences.positions["END"].sum())
    alone = ActivationStore.harvest(model, story_tokens(1_024, 256)[:4], HOOK, progress=False)
    assert torch.allclose(store.rows(torch.arange(len(alone))), alone.rows(torch.arange(len(alone))), atol=1e-4)


@pytest.mark.parametrize("name", task_saes.RECIPES)
def test_shipped_ones_do_what_their_cards_say(store, name):
    sae = task_saes.task_sae(name)
    x = store.rows(torch.arange(1_020))
    with torch.no_grad():
        codes, left = sae.encode(x), (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    card = (task_saes.FOLDER / name / "CARD.md").read_text()
    fvu, l0 = (float(card.split(f"| {row} | ")[1].split(" ")[0]) for row in ("FVU", "L0"))
    assert float(left) == pytest.approx(fvu, rel=0.3, abs=0.003)
    assert float(codes.l0().float().mean()) == pytest.approx(l0, rel=0.2)
    recipe = task_saes.RECIPES[name].config  # tied weights are no longer tied once the scale is folded in
    assert (sae.config.rule, sae.config.k) == (recipe["rule"], recipe.get("k"))


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="name must be one of relu_0.1"):
        task_saes.task_sae("topk")


def test_all_recipes_train(store):
    runs = task_saes.train_task_saes(store, d_sae=32, steps=4, batch_size=64, k=8)
    assert list(runs) == list(task_saes.RECIPES)
    assert all(int(run.sae.tokens_seen) == 256 for run in runs.values())
    first, second = (runs[f"token_choice_{seed}"].sae for seed in (0, 1))
    assert not torch.allclose(first.W_dec, second.W_dec, atol=0.1), "another seed is another dictionary"


def test_a_frozen_decoder_stays_random_and_its_encoder_learns(store):
    sae = task_saes.train_task_saes(store, d_sae=32, steps=4, batch_size=64, k=8, seeds=(0,))["frozen_decoder"].sae
    fresh = SparseAutoencoder(sae.config, seed=0)
    assert torch.equal(sae.W_dec, fresh.W_dec)
    turned = torch.nn.functional.cosine_similarity(sae.W_enc, fresh.W_enc, dim=0)
    assert turned.max() < 0.9999


def test_an_interrupted_training_goes_on(store, tmp_path):
    """A seed that is done is not trained again."""
    sizes = {"d_sae": 32, "steps": 4, "batch_size": 64, "k": 8, "seeds": (1,), "checkpoints": tmp_path}
    first, again = (task_saes.train_task_saes(store, **sizes) for _ in range(2))
    assert all(run.resumed_at == 4 for run in again.values())
    for name, run in first.items():
        assert torch.equal(again[name].sae.W_enc, run.sae.W_enc)
