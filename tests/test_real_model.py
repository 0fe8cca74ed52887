"""Everything that takes a model, on one that others trained: SmolLM2, at a block in its middle, a few rows of text."""

import warnings
from functools import partial

import pytest
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, evaluate, train
from sae_tutorial.circuits import heads, ioi, patching
from sae_tutorial.circuits.direct_effects import attention_between, direct_writes, towards
from sae_tutorial.circuits.feature_patching import loss_towards, run_from
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.evaluation.contexts import around, examples
from sae_tutorial.evaluation.explanations import Explanation, Material
from sae_tutorial.evaluation.feature_pages import Passage
from sae_tutorial.evaluation.model_scores import brought_to_mind, surprisal

STORY = (
    "Once upon a time there was a little girl who lived in a village near the forest. Every morning she walked to "
    "the river with her grandmother to fetch water, and on the way they talked about the birds and the old trees. "
)
PLACES = ["hook_resid_post", "attn.hook_z", "hook_mlp_out", "ln2.hook_normalized", "hook_attn_out"]
BLOCK = 14


@pytest.fixture(scope="module")
def tokens(smol):
    return smol.to_tokens([STORY * 2, "The story of the sea. " + STORY * 2])[:, :64].cpu()


@pytest.fixture(scope="module")
def sentences(smol):
    return ioi.ioi_sentences(smol, 4)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.filterwarnings("ignore:.* tokens have activations above max_norm")
@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
def test_harvest_train_and_evaluate(place, smol, tokens):
    hook = f"blocks.{BLOCK}.{place}"
    store = ActivationStore.harvest(smol, tokens, hook, progress=False)
    assert store.d_in == 576 and len(store) + len(store.left_out) == 2 * 63
    with smol.hooks([(hook, lambda acts, hook: None)]), torch.no_grad():
        _, cache = smol.run_with_cache(tokens[:1], names_filter=lambda name: name == hook)
    at = [i for i in range(20) if int(store.locate(torch.tensor([i]))[0]) == 0]
    columns = store.locate(torch.tensor(at))[1]
    torch.testing.assert_close(store.rows(torch.tensor(at)), cache[hook][0, columns].flatten(1), rtol=1e-4, atol=1e-3)
    sae = SparseAutoencoder(SAEConfig(576, 128, "token_choice", k=8))
    train(sae, store, steps=3, batch_size=64, progress=False)
    found = evaluate(sae, smol, tokens, hook, progress=False)
    assert found.n_tokens + len(found.left_out) == 2 * 63 and 0 < found.fvu < 2
    assert found.ce_clean < 4  # it reads English
    assert found.kl > 1e-4 and found.kl_zero > 1e-3  # what is spliced in reaches the logits


def test_what_is_enormous_is_left_out_and_reported(smol, tokens):
    with pytest.warns(UserWarning, match="times the median norm at blocks.14.hook_resid_post"):
        store = ActivationStore.harvest(smol, tokens, f"blocks.{BLOCK}.hook_resid_post", bos_id=None, progress=False)
    assert len(store.left_out) >= 2 and (store.left_out[:, 1] == 0).all()  # the first token of every row
    assert store.left_out[:, 2].min() > 20


def test_patching_with_grouped_keys_and_values(smol, sentences):
    other = ioi.counterfactual(smol, sentences, "abc")
    metric = partial(ioi.logit_difference, sentences=sentences)
    names = [f"blocks.{BLOCK}.attn.hook_{part}" for part in "qkvz"] + [f"blocks.{BLOCK}.hook_resid_post"]
    donor, own = (patching.activations(smol, x, names) for x in (other, sentences))
    assert [donor[name].shape[2] for name in names[:4]] == [9, 3, 3, 9]
    sites = [patching.head_site(part, (BLOCK, 2)) for part in "qkvz"] + [patching.Site(names[-1])]
    clean = metric(end_logits(smol, sentences))
    assert (clean > 0).float().mean() >= 0.75
    torch.testing.assert_close(
        patching.patch_each(smol, sentences, sites, own, metric), clean.expand(5, -1), rtol=1e-4, atol=1e-3
    )
    changed = patching.patch_each(smol, sentences, sites, donor, metric)
    assert (changed != clean).any(1).all()
    with pytest.raises(ValueError, match="has heads 0 to 2"):
        patching.patched_logits(smol, sentences, [patching.head_site("k", (BLOCK, 3))], donor)
    slopes = patching.attribution(smol, sentences, donor, metric)
    assert [slopes[name].shape[2:] for name in names] == [(9,), (3,), (3,), (9,), ()]
    receivers = [patching.head_site("v", (BLOCK + 1, head)) for head in range(3)]
    effects = patching.path_patch(smol, sentences, other, [(BLOCK, 0), (BLOCK, 8)], receivers, metric)
    assert effects.shape == (2, 4) and effects.isfinite().all()


def test_heads(smol, sentences):
    repeated = heads.repeated_tokens(2, 12, 5_000, start=smol.tokenizer.bos_token_id)
    scores = heads.head_scores(smol, repeated)
    assert scores.induction.shape == (30, 9) and scores.induction.max() > 0.5
    looks = attention_between(smol, sentences, "END", ["IO", "S1"])
    assert looks["IO"].shape == (30, 9) and looks["IO"].max() > 0.2
    writes = direct_writes(smol, sentences)
    parts = writes.stream[0] + writes.heads.sum((0, 1)) + writes.mlps.sum(0)
    torch.testing.assert_close(parts, writes.stream[-1], rtol=1e-3, atol=1e-3)
    lead = towards(writes.stream[-1:], smol, sentences.io, sentences.wrong)
    expected = ioi.logit_difference(end_logits(smol, sentences), sentences).mean()
    torch.testing.assert_close(lead[0], expected, rtol=1e-3, atol=1e-3)


def test_the_rest_of_the_model_from_a_block_on(smol, sentences):
    hook = f"blocks.{BLOCK}.hook_resid_post"
    x = patching.activations(smol, sentences, [hook])[hook]
    torch.testing.assert_close(run_from(smol, sentences, hook)(x), end_logits(smol, sentences), rtol=1e-3, atol=2e-3)
    same = loss_towards(smol, sentences, sentences, hook)(x)
    assert same.abs().max() < 1e-4


def test_contexts(smol, tokens):
    (word,) = smol.tokenizer(" river", add_special_tokens=False).input_ids
    places = examples(tokens, word, n=3)
    found = around(smol.tokenizer, tokens, torch.ones(tokens.shape), places, width=3)
    assert len(found) >= 1 and all(context.token == " river" for context in found)


def test_it_is_read_without_warnings(smol, tokens):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ActivationStore.harvest(smol, tokens, f"blocks.{BLOCK}.hook_resid_post", max_norm=None, progress=False)


def test_a_topic_that_is_named_makes_its_sentences_likelier_and_is_brought_to_mind_by_them(smol):
    sea = ["the boat sailed slowly out of the harbour", "waves washed over the deck all night"]
    sea += ["a storm broke the mast of the old ship", "the captain steered toward the island"]
    land = ["she put the bread and butter on the table", "they planted roses beside the garden wall"]
    land += ["the teacher wrote a sum upon the board", "a doctor came to see the sick child"]
    passages = [Passage(torch.tensor([i]), torch.tensor([float(i < 4)]), 0) for i in range(8)]
    material = Material(0, 1.0, [], [], passages[:4], passages[4:])
    about, other = Explanation("ships and the sea"), Explanation("food in a kitchen")
    assert surprisal(about, material, smol, lambda ids: [(sea + land)[i] for i in ids]) > 0.8
    named, not_named = brought_to_mind([about, other], land, sea, smol)
    assert named > 1 and not_named < 0
