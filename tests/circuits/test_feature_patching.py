"""Patching with features: each fast computation against a slow and direct one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.shipped import HOOK, reference_sae
from sae_tutorial.circuits import ioi, patching, prompts
from sae_tutorial.circuits.feature_patching import Edit, divergence, loss_towards, run_from
from sae_tutorial.course.ioi_features.feature_order import Stages, quick_and_slow, remove_greedily, thin_out, worth
from sae_tutorial.evaluation.ground_truth import random_directions


@pytest.fixture(scope="module")
def setting(model):
    sentences = ioi.ioi_sentences(model, 6, seed=1)
    other = ioi.counterfactual(model, sentences, "other_io")
    x, y = (patching.activations(model, s, [HOOK])[HOOK] for s in (sentences, other))
    return sentences, other, x, y


@pytest.fixture(scope="module")
def axes(setting):
    _, _, x, _ = setting
    frame = torch.linalg.qr(torch.randn(x.shape[-1], x.shape[-1], generator=torch.Generator().manual_seed(0))).Q
    return frame, x.flatten(0, 1).mean(0)


@pytest.fixture(scope="module")
def sae_dictionary():
    return Dictionary.of_sae("reference", reference_sae("mutual_choice"))


def test_what_follows_equals_the_whole_model(model, setting):
    sentences, _, x, y = setting
    with torch.no_grad():
        fast = run_from(model, sentences, HOOK)(y)
    slow = prompts.end_logits(model, sentences, [(HOOK, lambda acts, hook: y)])
    assert torch.allclose(fast, slow, atol=1e-3)
    assert torch.equal(x, patching.activations(model, sentences, [HOOK])[HOOK])  # nothing was changed in place


@pytest.mark.parametrize(
    "name",
    ["blocks.2.attn.hook_z", "blocks.3.ln2.hook_normalized", "blocks.2.attn.hook_pattern", "ln_final.hook_scale",
     "blocks.3.mlp.hook_out", "blocks.3.hook_out", "ln_final.hook_normalized",
     "ln_final.hook_out", "unembed.hook_in", "hook_unembed"],
)  # fmt: skip
def test_hooks_after_the_patch_are_obeyed(model, setting, name):
    sentences, _, _, y = setting

    def halved(acts, hook):
        return 0.5 * acts + 0.1 * torch.arange(acts.shape[-1]).sin()

    slow = prompts.end_logits(model, sentences, [(HOOK, lambda acts, hook: y), (name, halved)])
    run = run_from(model, sentences, HOOK)
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, halved)]):
        assert torch.allclose(run(y), slow, atol=2e-3)
    with torch.no_grad():
        assert (run(y) - slow).abs().max() > 1e-2


def test_other_shapes_are_refused(model, setting, axes):
    sentences, other, x, y = setting
    with pytest.raises(ValueError, match="target has shape"):
        Edit.towards(Dictionary.of_axes("a", *axes), x, y[:1], sentences)
    loss = loss_towards(model, sentences, other[:1], HOOK)
    with pytest.raises(ValueError, match="target has shape"):
        loss(x)


def test_only_the_residual_stream_after_a_block_is_patched(model, setting):
    with pytest.raises(ValueError, match=r"hook_name='blocks.1.hook_mlp_out': features are patched"):
        run_from(model, setting[0], "blocks.1.hook_mlp_out")
    with pytest.raises(ValueError, match="is not a hook of this model"):
        run_from(model, setting[0], "blocks.9.hook_resid_post")


def test_divergence_is_that_of_torch_and_zero_for_the_same():
    whole, part = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.kl_div(part.log_softmax(-1), whole.softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(divergence(part, whole), expected, atol=1e-6)
    assert divergence(whole + 3, whole).abs().max() < 1e-5, "adding a constant to logits changes nothing"


def test_divergence_is_the_kl_of_target_and_patched():
    logits, target = torch.randn(3, 7), torch.randn(3, 7)
    p, q = target.softmax(-1), logits.softmax(-1)
    assert torch.allclose(divergence(logits, target), (p * (p / q).log()).sum(-1), atol=1e-6)
    assert divergence(target, target).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["axes", "non-negative", "sae"])
def test_a_patch_is_the_formula_token_by_token(setting, axes, sae_dictionary, kind):
    sentences, _, x, y = setting
    dictionary = {
        "axes": Dictionary.of_axes("a", *axes),
        "non-negative": Dictionary.of_axes("n", *axes, non_negative=True),
        "sae": sae_dictionary,
    }[kind]
    edit = Edit.towards(dictionary, x, y, sentences)
    chosen = edit.used.any(0, keepdim=True) & (torch.arange(edit.changes.shape[-1]) % 3 == 0)
    fast = edit.patched(chosen)
    for b in range(2):
        for p in range(int(sentences.positions["END"][b]) + 1):
            own, new = dictionary.encode(x[b, p][None])[0], dictionary.encode(y[b, p][None])[0]
            slow = x[b, p].clone()
            for j in chosen[0].nonzero()[:, 0].tolist():
                slow += (new[j] - own[j]) * dictionary.directions[j]
            assert torch.allclose(fast[b, p], slow, atol=1e-4)
        after = int(sentences.positions["END"][b]) + 1
        assert torch.equal(fast[b, after:], x[b, after:])
        size = (fast[b, 1:after] - x[b, 1:after]).norm(dim=-1).mean()
        assert torch.allclose(edit.magnitude(chosen)[b], size, atol=1e-5)


def test_all_axes_together_are_the_other_sentence(model, setting, axes):
    sentences, other, x, y = setting
    edit = Edit.towards(Dictionary.of_axes("a", *axes), x, y, sentences)
    assert loss_towards(model, sentences, other, HOOK)(edit.patched(edit.used)).abs().max() < 1e-3


def test_reconstructions(setting, axes, sae_dictionary):
    x = setting[2].flatten(0, 1)
    for non_negative in (False, True):
        assert torch.allclose(Dictionary.of_axes("a", *axes, non_negative=non_negative).reconstruct(x), x, atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(sae_dictionary.reconstruct(x), reference_sae("mutual_choice")(x), atol=1e-3)


def toy(B=3, P=2, F=6, D=4):
    """A loss whose worths are known: squared distance from a target that a few features reach."""
    generator = torch.Generator().manual_seed(3)
    x, changes = torch.randn(B, P, D, generator=generator), torch.randn(B, P, F, generator=generator)
    edit = Edit(x, changes, random_directions(F, D), torch.full((B,), P))
    target = edit.patched(torch.ones(1, F, dtype=torch.bool))
    return edit, lambda acts: (acts - target).square().sum((1, 2))


def test_worths_of_all_features_sum_to_what_they_achieve():
    """Integrated gradients are complete, and for a square one point halfway is exact."""
    edit, loss = toy()
    everything = edit.used
    achieved = loss(edit.x) - loss(edit.patched(everything))
    for points in (1, 5):
        assert torch.allclose(worth(edit, loss, everything, points).sum(1), achieved, rtol=1e-4)


def test_worth_is_the_derivative_written_out(model, setting, axes):
    sentences, other, x, y = setting
    edit, loss = (
        Edit.towards(Dictionary.of_axes("a", *axes), x, y, sentences),
        loss_towards(model, sentences, other, HOOK),
    )
    got = worth(edit, loss, edit.used)
    middle = edit.x + 0.5 * edit.added(edit.used)
    for j in (0, 17):
        step = 1e-2 * edit.changes[..., j, None] * edit.directions[j]
        with torch.no_grad():
            slow = (loss(middle - step) - loss(middle + step)) / 2e-2
        assert torch.allclose(got[:, j], slow, atol=2e-2, rtol=0.05)


@pytest.mark.parametrize("shared", [True, False])
def test_thinning_out(shared):
    edit, loss = toy()
    stages = thin_out(edit, loss, [9, 4, 2, 1, 0], shared)
    assert stages.sizes.tolist() == [6, 4, 2, 1, 0]
    for earlier, later in zip(stages.chosen, stages.chosen[1:]):
        assert (later <= earlier).all()  # what has left stays away
    assert stages.chosen[0].shape[0] == (1 if shared else 3)
    for chosen, kl, size in zip(stages.chosen, stages.loss, stages.magnitude):
        assert torch.allclose(kl, loss(edit.patched(chosen)))
        assert torch.allclose(size, edit.magnitude(chosen))


def test_thinning_out_keeps_the_feature_that_matters():
    edit, _ = toy()
    alone = torch.zeros(1, 6, dtype=torch.bool)
    alone[0, 4] = True
    target = edit.patched(alone)
    loss = lambda acts: (acts - target).square().sum((1, 2))  # noqa: E731
    for shared in (True, False):
        assert thin_out(edit, loss, [3, 1, 0], shared).chosen[2].nonzero()[:, 1].unique().tolist() == [4]


def test_greedy_removal_is_the_loop_of_the_paper():
    edit, loss = toy()
    thresholds = [1e-3, 0.5, 3.0]
    got = remove_greedily(edit, loss, thresholds, seed=5)
    generator = torch.Generator().manual_seed(5)
    left, before, sizes = list(range(6)), 0.0, [6]

    def kl(features):
        chosen = torch.zeros(1, 6, dtype=torch.bool)
        chosen[0, features] = True
        return float(loss(edit.patched(chosen)).mean())

    for threshold in thresholds:
        tried = torch.tensor(left)[torch.randperm(len(left), generator=generator)].tolist()
        for j in tried:
            now = kl([i for i in left if i != j])
            if now - before < threshold:
                left, before = [i for i in left if i != j], now
        sizes.append(len(left))
    assert got.sizes.tolist() == sizes
    assert got.chosen[-1][0].nonzero()[:, 0].tolist() == left


def test_quick_and_slow_order_begin_with_the_same_features():
    edit, loss = toy()
    quick, slow, gap = quick_and_slow(edit, loss, [4, 2, 1, 0], [0.5, 3.0])
    assert list(quick) == [6, 4, 2, 1] and next(iter(slow)) == 4 and slow[4] == pytest.approx(quick[4])
    points = sorted(quick)
    between = {n: float(np.interp(n, points, [quick[m] for m in points])) for n in slow}
    assert gap == pytest.approx(max(abs(between[n] - kl) for n, kl in slow.items()))


def test_halfway_is_read_between_stages():
    chosen = tuple(torch.arange(8)[None] < n for n in (8, 4, 2, 0))
    loss = torch.tensor([[1.0, 7.0], [3.0, 7.5], [6.0, 7.8], [8.0, 8.0]])
    stages = Stages(torch.tensor([8.0, 4, 2, 0]), loss, loss.new_tensor([[4.0, 4], [2, 2], [1, 1], [0, 0]]), chosen)
    count, size = stages.halfway()
    assert count[0] == pytest.approx(2 + 2 * 2 / 3) and size[0] == pytest.approx(1 + 2 / 3)
    assert math.isinf(count[1]) and math.isinf(size[1])


def test_two_prompts_that_are_the_same_have_nothing_to_change():
    """No feature changes, nothing is lost, and half of nothing is there without any."""
    edit, loss = toy()
    same = replace(edit, changes=torch.zeros_like(edit.changes))
    at_home = lambda acts: (acts - edit.x).square().sum((1, 2))  # noqa: E731
    assert not same.used.any() and same.magnitude(same.used).tolist() == [0, 0, 0]
    for shared in (True, False):
        stages = thin_out(same, at_home, [3, 1, 0], shared)
        assert stages.sizes.tolist() == [0] and (stages.loss == 0).all()
        assert [x.tolist() for x in stages.halfway()] == [[0.0] * 3] * 2
    assert remove_greedily(same, at_home, [0.1]).sizes.tolist() == [0, 0]
    with pytest.raises(ValueError, match="points must be a whole number, 1 or more"):
        worth(edit, loss, edit.used, points=0)


def test_a_prompt_of_one_token_has_a_size():
    edit, _ = toy()
    one = replace(edit, length=torch.zeros_like(edit.length))  # the token that begins it, and no other
    assert one.magnitude(one.used).isfinite().all()


def test_a_transcoder_is_no_dictionary_of_what_it_reads():
    transcoder = SparseAutoencoder(SAEConfig(8, 24, "token_choice", k=4, d_out=8))
    with pytest.raises(ValueError, match="mine is a transcoder: its features add up to another activation"):
        Dictionary.of_sae("mine", transcoder)
