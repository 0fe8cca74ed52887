"""Each fast computation against the slow and direct one."""

import numpy as np
import pytest
import torch

from sae_tutorial.circuits import ioi, patching, prompts
from sae_tutorial.circuits.patching import Site, head_site

LAST = "blocks.3.hook_resid_post"


@pytest.fixture(scope="module")
def clean(model):
    return ioi.ioi_sentences(model, 8, seed=3)


@pytest.fixture(scope="module")
def other(model, clean):
    return ioi.counterfactual(model, clean, "abc")


def difference(sentences):
    return lambda logits: ioi.logit_difference(logits, sentences)


def one_by_one(model, sentences, hooks_of):
    """The oracle: every sentence by itself, unpadded, through the model's own forward pass; `hooks_of(i)` its hooks."""
    found = []
    for i, frame in enumerate(sentences.frames):
        with torch.no_grad():
            logits = model.run_with_hooks(model.to_tokens(frame.text), fwd_hooks=hooks_of(i))
        found.append(logits[0, -1, sentences.io[i]] - logits[0, -1, sentences.wrong[i]])
    return torch.stack(found)


def alone(model, sentences, i, name):
    """One sentence's activations at one hook."""
    with torch.no_grad():
        return model.run_with_cache(model.to_tokens(sentences.frames[i].text), names_filter=name)[1][name]


def test_patching_a_residual_position_equals_doing_it_sentence_by_sentence(model, clean, other):
    name = "blocks.1.hook_resid_post"
    donor = patching.activations(model, other, [name])
    fast = patching.patch_each(model, clean, [Site(name, None, clean.positions["S2"])], donor, difference(clean))[0]

    def hooks(i):
        where, new = int(clean.positions["S2"][i]), alone(model, other, i, name)

        def hook(acts, hook):
            acts = acts.clone()
            acts[0, where] = new[0, where]
            return acts

        return [(name, hook)]

    assert torch.allclose(fast, one_by_one(model, clean, hooks), atol=2e-3)


@pytest.mark.parametrize("part", ["q", "k", "v", "z", "pattern"])
def test_patching_a_head_equals_doing_it_sentence_by_sentence(model, clean, other, part):
    name = f"blocks.2.attn.hook_{part}"
    donor = patching.activations(model, other, [name])
    fast = patching.patch_each(model, clean, [head_site(part, (2, 3))], donor, difference(clean))[0]

    def hooks(i):
        new = alone(model, other, i, name)

        def hook(acts, hook):
            acts = acts.clone()
            if part == "pattern":
                acts[:, 3] = new[:, 3]
            else:
                acts[:, :, 3] = new[:, :, 3]
            return acts

        return [(name, hook)]

    assert torch.allclose(fast, one_by_one(model, clean, hooks), atol=2e-3)


def test_patching_one_row_of_a_pattern_leaves_the_other_rows(model, clean, other):
    name = "blocks.1.attn.hook_pattern"
    own, new = (patching.activations(model, s, [name])[name] for s in (clean, other))
    patched = Site(name, 2, clean.positions["END"]).put(own, new)
    rows = torch.arange(len(clean))
    assert torch.equal(patched[rows, 2, clean.positions["END"]], new[rows, 2, clean.positions["END"]])
    changed = (patched != own).any(-1)
    assert changed[:, [0, 1, 3]].sum() == 0 and changed[:, 2].sum(-1).max() <= 1


def test_patching_the_whole_stream_gives_the_other_sentences_answer(model, clean, other):
    donor = patching.activations(model, other, [LAST])
    logits = patching.patched_logits(model, clean, [Site(LAST)], donor)
    assert torch.allclose(logits, prompts.end_logits(model, other), atol=1e-3)


def test_patching_with_its_own_activations_changes_nothing(model, clean):
    names = ["blocks.0.attn.hook_v", "blocks.2.hook_mlp_out"]
    own = patching.activations(model, clean, names)
    logits = patching.patched_logits(model, clean, [head_site("v", (0, 1)), Site(names[1])], own)
    assert torch.allclose(logits, prompts.end_logits(model, clean), atol=1e-3)


def test_the_direct_path_to_the_logits_is_what_the_head_writes(model, clean, other):
    """With MLPs held, a head of the last layer reaches the answer through the final LayerNorm alone."""
    sender = (3, 1)
    found = patching.path_patch(model, clean, other, [sender], [Site(LAST)], difference(clean), freeze_mlps=True)[0]
    name = "blocks.3.attn.hook_z"
    own, new = (patching.activations(model, s, [name, LAST]) for s in (clean, other))
    W_O = model.blocks[3].attn.W_O[1]  # (d_head, d_model)
    change = (new[name][:, :, 1] - own[name][:, :, 1]) @ W_O
    final = prompts.at(own[LAST] + change, clean.positions["END"])
    final = final - final.mean(-1, keepdim=True)
    scale = (final.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    expected = ioi.logit_difference(final / scale @ model.W_U + model.b_U, clean)
    assert torch.allclose(found, expected, atol=5e-3)


def test_path_patching_equals_its_definition_sentence_by_sentence(model, clean, other):
    sender, receiver = (0, 2), (2, 5)
    site = head_site("q", receiver)
    fast = patching.path_patch(model, clean, other, [sender], [site], difference(clean))[0]

    def hooks(i):
        own = {name: alone(model, clean, i, name) for name in (f"blocks.{layer}.attn.hook_z" for layer in range(4))}
        frozen = [(name, lambda acts, hook, name=name: own[name].clone()) for name in own]

        said = alone(model, other, i, "blocks.0.attn.hook_z")

        def speak(acts, hook):
            acts = acts.clone()
            acts[:, :, sender[1]] = said[:, :, sender[1]]
            return acts

        heard = {}
        run = [*frozen, ("blocks.0.attn.hook_z", speak), (site.hook_name, lambda acts, hook: heard.update(q=acts))]
        with torch.no_grad():
            model.run_with_hooks(model.to_tokens(clean.frames[i].text), fwd_hooks=run)

        def listen(acts, hook):
            acts = acts.clone()
            acts[:, :, receiver[1]] = heard["q"][:, :, receiver[1]]
            return acts

        return [(site.hook_name, listen)]

    assert torch.allclose(fast, one_by_one(model, clean, hooks), atol=2e-3)


def test_attribution_is_the_derivative_of_patching(model, clean, other):
    """Moved a small part of the way, the metric changes by that part of what attribution says."""
    name, part = "blocks.1.attn.hook_z", 0.01
    own, new = (patching.activations(model, s, [name]) for s in (clean, other))
    estimate = patching.attribution(model, clean, new, difference(clean))[name]
    assert estimate.shape == (*clean.tokens.shape, model.cfg.n_heads)
    nearby = {name: own[name] + part * (new[name] - own[name])}
    before = difference(clean)(prompts.end_logits(model, clean)).double()
    sites = [head_site("z", (1, head)) for head in range(model.cfg.n_heads)]
    moved = patching.patch_each(model, clean, sites, nearby, difference(clean)).double()
    found = (moved - before) / part  # (heads, B)
    assert torch.allclose(found, estimate.sum(1).T.double(), atol=0.03, rtol=0.1)


def test_the_foremost_heads_are_those_of_the_largest_estimate(model, clean, other):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(4)]
    donor = patching.activations(model, other, names)
    estimates = patching.attribution(model, clean, donor, difference(clean)).values()
    size = {
        head: float(list(estimates)[head[0]][..., head[1]].sum(1).mean().abs()) for head in patching.all_heads(model)
    }
    found = patching.foremost_heads(model, clean, other, difference(clean), 5)
    assert found == sorted(sorted(size, key=size.get)[-5:])
    assert patching.foremost_heads(model, clean, other, difference(clean), 100) == patching.all_heads(model)
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"n must be .* got {wrong}"):
            patching.foremost_heads(model, clean, other, difference(clean), wrong)


def test_attribution_covers_many_hooks_at_once(model, clean, other):
    names = ["hook_embed", "blocks.0.hook_mlp_out", "blocks.2.attn.hook_q", "blocks.3.hook_resid_post"]
    found = patching.attribution(model, clean, patching.activations(model, other, names), difference(clean))
    assert list(found) == names
    assert found["hook_embed"].shape == clean.tokens.shape
    assert not model.W_E.requires_grad and all(point.fwd_hooks == [] for point in model.hook_dict.values())


def test_keeping_every_head_changes_nothing_and_keeping_none_silences_all(model, clean, other):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(4)]
    means = ioi.TemplateMeans.over(model, other, names).of(clean)
    everything = patching.keep_only(model, dict.fromkeys(patching.all_heads(model)), means)
    assert torch.allclose(prompts.end_logits(model, clean, everything), prompts.end_logits(model, clean), atol=1e-3)
    silenced = patching.patched_logits(model, clean, [Site(name) for name in names], means)
    assert torch.allclose(prompts.end_logits(model, clean, patching.keep_only(model, {}, means)), silenced, atol=1e-3)
    half = {(1, 2): [clean.positions["END"], clean.positions["S2"]]}
    sites = [Site(name) for name in names]
    hooks = patching.patch_hooks(sites, means)
    held = patching.keep_only(model, half, means)
    assert not torch.allclose(
        prompts.end_logits(model, clean, hooks), prompts.end_logits(model, clean, held), atol=1e-4
    )


def test_a_donor_that_lacks_the_hook_is_named(model, clean):
    with pytest.raises(ValueError, match="donor has no 'blocks.1.hook_resid_post'; it has nothing"):
        patching.patched_logits(model, clean, [Site("blocks.1.hook_resid_post")], {})
    with pytest.raises(ValueError, match="is not a hook of this model"):
        patching.activations(model, clean, ["blocks.9.hook_resid_post"])


@pytest.mark.parametrize(
    ("head", "positions", "words"),
    [
        (1.5, None, "head=1.5: blocks.1.attn.hook_z has heads 0 to 7"),
        (-1, None, "head=-1: blocks.1.attn.hook_z has heads 0 to 7"),
        (99, None, "head=99: blocks.1.attn.hook_z has heads 0 to 7"),
        (None, torch.tensor([True] * 8), "positions: give one whole number for each of 8 prompts"),
        (None, torch.ones(8), "positions: give one whole number for each of 8 prompts"),
    ],
)
def test_heads_and_positions_are_whole_numbers(model, clean, other, head, positions, words):
    name = "blocks.1.attn.hook_z"
    with pytest.raises(ValueError, match=words):
        patching.patched_logits(model, clean, [Site(name, head, positions)], patching.activations(model, other, [name]))


def test_a_head_may_be_a_number_of_numpy_or_torch(model, clean, other):
    name = "blocks.1.attn.hook_z"
    donor = patching.activations(model, other, [name])
    plain, *others = (
        patching.patched_logits(model, clean, [Site(name, h)], donor) for h in (1, np.int64(1), torch.tensor(1), True)
    )
    assert all(torch.equal(plain, found) for found in others)
