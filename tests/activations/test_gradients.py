"""Gradients of the loss, harvested beside the activations: those of autograd through the whole model, in the same
order, in memory and on disk."""

import pytest
import torch
from tiny_model import BOS, CONTEXT, D_MODEL, PAD, harvest, rows
from torch.testing import assert_close

from sae_tutorial.activations.forward import read_gradients
from sae_tutorial.activations.store import ActivationStore

HOOK = "blocks.0.hook_resid_post"
SMALL = {"shard_bytes": 8 * CONTEXT * D_MODEL * 4}


def everything(store):
    return store.rows(slice(None))


def by_autograd(model, tokens, hook_name):
    """Row by row, and with an addend of zeros at the hook instead of a leaf: −log p of each next token, one by one."""
    found = []
    for row in tokens:
        text = row[row != PAD]
        shape = model.run_with_cache(text[None])[1][hook_name].shape
        addend = torch.zeros(shape, requires_grad=True)
        with model.hooks(fwd_hooks=[(hook_name, lambda acts, hook, addend=addend: acts + addend)]):
            logits = model(text[None], return_type="logits", use_cache=False)[0]
        loss = sum(-logits[i].log_softmax(-1)[text[i + 1]] for i in range(len(text) - 1) if len(text) > 1)
        gradient = torch.autograd.grad(loss, addend)[0] if len(text) > 1 else torch.zeros(shape)
        found.append(gradient[0].flatten(1)[1:])
    return torch.cat(found)


@pytest.mark.parametrize(
    "hook_name", [HOOK, "blocks.1.hook_resid_post", "blocks.0.attn.hook_z", "blocks.0.hook_mlp_out"]
)
def test_harvested_gradients_are_autograds(tiny, tokens, hook_name):
    store = harvest(tiny, tokens, hook_name, gradients=True)
    assert_close(everything(store.gradients), by_autograd(tiny, tokens, hook_name), rtol=1e-3, atol=1e-4)
    plain = harvest(tiny, tokens, hook_name)
    assert_close(everything(store), everything(plain))
    assert store.text_hash == plain.text_hash and plain.gradients is None
    assert "with gradients" in repr(store) and store.gradients.hook_name == hook_name


def test_padding_on_the_left_and_the_bridges_own_arithmetic_change_nothing(tiny, tokens):
    left = tokens.clone()
    left[3] = left[3].roll(CONTEXT - 9)
    found = everything(harvest(tiny, left, HOOK, gradients=True).gradients)
    assert_close(found, everything(harvest(tiny, tokens, HOOK, gradients=True).gradients))
    with read_gradients(tiny, HOOK, fused=False) as read:
        acts, gradients = read(tokens, tokens != PAD)
    kept = (tokens != PAD) & (torch.arange(CONTEXT) > 0)
    assert_close(gradients[kept], found, rtol=1e-3, atol=1e-4)
    assert not gradients[tokens == PAD].any() and acts.shape == gradients.shape and not acts.requires_grad


def test_a_rows_gradients_do_not_depend_on_the_batch(tiny, tokens):
    whole, alone = (
        everything(harvest(tiny, tokens, HOOK, gradients=True, batch_size=size).gradients) for size in (37, 1)
    )
    assert_close(whole, alone, rtol=1e-3, atol=1e-5)


def test_batches_of_both_are_the_same_positions_on_disk_too(tiny, tokens, tmp_path):
    options = {"gradients": True, "cache_dir": tmp_path, "dtype": torch.bfloat16}
    store = harvest(tiny, tokens, HOOK, **options, **SMALL)
    memory = harvest(tiny, tokens, HOOK, gradients=True, dtype=torch.bfloat16)
    assert torch.equal(everything(store.gradients), everything(memory.gradients))
    names = {path.name.partition("_")[0] for path in store.folder.glob("*.bin")}
    assert names == {"shard", "gradients"} and len(list(store.folder.glob("gradients_*.bin"))) > 1
    acts, gradients = everything(memory), everything(memory.gradients)
    options = {"seed": 3, "epochs": 2, "with_positions": True}
    for (x, positions), (g, others) in zip(store.batches(32, **options), store.gradients.batches(32, **options)):
        assert torch.equal(positions, others)
        assert torch.equal(x, acts[positions]) and torch.equal(g, gradients[positions])
    again = ActivationStore.open(store.folder)
    assert torch.equal(everything(again.gradients), gradients) and again.gradients.scale == store.gradients.scale


def test_the_same_harvest_is_found_again_and_one_without_is_another(tiny, tokens, tmp_path, monkeypatch):
    first = harvest(tiny, tokens, HOOK, gradients=True, cache_dir=tmp_path, **SMALL)
    plain = harvest(tiny, tokens, HOOK, cache_dir=tmp_path, **SMALL)
    assert plain.folder != first.folder and plain.gradients is None
    lost = sorted(first.folder.glob("gradients_*.bin"))[1]
    content = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    lost.unlink()
    with pytest.raises(ValueError, match="gradients_00001.bin or its .json is missing"):
        ActivationStore.open(first.folder)
    harvest(tiny, tokens, HOOK, gradients=True, cache_dir=tmp_path, **SMALL)
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == content
    lost.write_bytes(bytes(len(content[lost.name])))
    with pytest.raises(ValueError, match="gradients_00001.bin is corrupted"):
        ActivationStore.open(first.folder)


def test_what_is_left_out_is_left_out_of_both(tiny, tokens):
    with pytest.warns(UserWarning, match="left out of the store"):
        store = harvest(tiny, tokens, HOOK, gradients=True, max_norm=1.3)
    whole = harvest(tiny, tokens, HOOK, gradients=True, max_norm=None)
    assert 0 < len(store.left_out) == len(whole) - len(store) and len(store.gradients) == len(store)
    row, column = store.locate(torch.arange(len(store)))
    where = [list(zip(*map(list, whole.locate(torch.arange(len(whole)))))).index(at) for at in zip(row, column)]
    assert torch.equal(everything(store.gradients), everything(whole.gradients)[where])


def test_a_model_in_training_mode_and_parameters_stay_as_they_were(tiny):
    tiny.train()
    harvest(tiny, rows(3, padded=False), HOOK, gradients=True)
    assert tiny.training and all(p.grad is None for p in tiny.parameters())
    tiny.eval()
    with torch.no_grad():
        assert harvest(tiny, rows(3, padded=False), HOOK, gradients=True).gradients.scale > 0
    assert BOS == 0


def test_tensors_of_gradients_fit_their_activations():
    x = torch.randn(9, 4)
    store = ActivationStore.from_tensor(x, gradients=2 * x)
    assert torch.equal(everything(store.gradients), 2 * x)
    with pytest.raises(ValueError, match=r"row by row, got acts \(9, 4\) and gradients \(8, 4\)"):
        ActivationStore.from_tensor(x, gradients=x[1:])
    with pytest.raises(ValueError, match="gradients: activation 3, coordinate 1 is NaN"):
        ActivationStore.from_tensor(
            x, gradients=x.index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(torch.nan))
        )
    with pytest.raises(TypeError, match="gradients must be a tensor, got list"):
        ActivationStore.from_tensor(x, gradients=[1.0])
