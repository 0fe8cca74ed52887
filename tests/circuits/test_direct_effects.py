import pytest
import torch
from grouped_model import grouped_model

from sae_tutorial.circuits import direct_effects as evidence
from sae_tutorial.circuits import ioi, patching, prompts
from sae_tutorial.course.ioi_circuit import names as names_of


@pytest.fixture(scope="module")
def sentences(model):
    return ioi.ioi_sentences(model, 6, seed=2)


def test_shares_add_up_to_the_logit_difference(model, sentences):
    writes = evidence.direct_writes(model, sentences)
    assert writes.heads.shape[:3] == (4, 8, 6) and writes.mlps.shape[:2] == (4, 6) and writes.stream.shape[:2] == (5, 6)
    pair = (model, sentences.io, sentences.wrong)
    constant = model.b_U[sentences.io] - model.b_U[sentences.wrong]
    whole = ioi.logit_difference(prompts.end_logits(model, sentences), sentences)
    assert torch.allclose(evidence.towards(writes.stream[-1], *pair) + constant.mean(), whole.mean(), atol=1e-3)
    scale = patching.activations(model, sentences, ["ln_final.hook_scale"])["ln_final.hook_scale"]
    scale = prompts.at(scale, sentences.positions["END"])
    bias = (model.b_O - model.b_O.mean(-1, keepdim=True)).sum(0) / scale
    parts = writes.heads.sum((0, 1)) + writes.mlps.sum(0) + writes.stream[0] + bias
    assert torch.allclose(parts, writes.stream[-1], atol=1e-3) and torch.equal(writes.scale[:, None], scale)


@pytest.mark.parametrize(
    "name",
    [
        "hook_embed",
        "blocks.1.ln1.hook_normalized",
        "blocks.2.attn.hook_pattern",
        "blocks.3.attn.hook_z",
        "blocks.3.hook_mlp_out",
        "ln_final.hook_scale",
    ],
)
def test_shares_add_up_whatever_a_hook_does(model, sentences, name):
    hook = (name, lambda acts, hook: 0.7 * acts + 0.1 * acts.roll(1, -1))
    writes = evidence.direct_writes(model, sentences, [hook])
    with model.hooks(fwd_hooks=[hook]):
        scale = patching.activations(model, sentences, ["ln_final.hook_scale"])["ln_final.hook_scale"]
    bias = (model.b_O - model.b_O.mean(-1, keepdim=True)).sum(0) / prompts.at(scale, sentences.positions["END"])
    parts = writes.heads.sum((0, 1)) + writes.mlps.sum(0) + writes.stream[0] + bias
    assert torch.allclose(parts, writes.stream[-1], atol=1e-3)
    logits = writes.stream[-1] @ model.W_U + model.b_U
    assert torch.allclose(logits, prompts.end_logits(model, sentences, [hook]), atol=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.hook_attn_out",
        "blocks.1.attn.hook_out",
        "blocks.0.attn.o.hook_out",
        "ln_final.hook_normalized",
        "ln_final.hook_out",
        "unembed.hook_in",
        "hook_unembed",
    ],
)
def test_hooks_that_no_part_answers_for_are_refused(model, sentences, name):
    hook = (name, lambda acts, hook: 0.5 * acts)
    with pytest.raises(ValueError, match="is the work of no head or MLP; take an earlier hook"):
        evidence.direct_writes(model, sentences, [hook])
    with model.hooks(fwd_hooks=[hook]), pytest.raises(ValueError, match="is the work of no head or MLP"):
        evidence.direct_writes(model, sentences)
    assert all(not point.has_hooks() for point in model.hook_dict.values())


def test_models_whose_heads_share_their_values(tmp_path):
    """A Llama: grouped values, and a last normalisation that does not centre."""
    llama = grouped_model(tmp_path)
    texts = prompts.Prompts.of(llama, ["w3 w4 w5 w6", "w7 w8", "w9 w3 w8"], {"A": [1, 1, 2]})
    writes = evidence.direct_writes(llama, texts)
    assert torch.allclose(
        writes.heads.sum((0, 1)) + writes.mlps.sum(0) + writes.stream[0], writes.stream[-1], atol=1e-4
    )
    logits = writes.stream[-1] @ llama.W_U + llama.b_U
    assert torch.allclose(logits, prompts.end_logits(llama, texts), atol=1e-4)


def test_towards_takes_the_mean_of_several_names(model, sentences):
    writes = evidence.direct_writes(model, sentences)
    absent = names_of.absent_names(sentences, names_of.name_ids(model))
    several = evidence.towards(writes.mlps, model, sentences.io, absent)
    one_by_one = [evidence.towards(writes.mlps, model, sentences.io, absent[:, i]) for i in range(absent.shape[1])]
    assert torch.allclose(several, torch.stack(one_by_one).mean(0), atol=1e-4)


def test_hooks_are_seen(model, sentences):
    own = patching.activations(model, sentences, ["blocks.3.attn.hook_z"])
    zeros = {name: torch.zeros_like(acts) for name, acts in own.items()}
    silent = patching.patch_hooks([patching.head_site("z", (3, 0))], zeros)
    assert evidence.direct_writes(model, sentences, silent).heads[3, 0].abs().max() < 1e-5
    assert evidence.direct_writes(model, sentences).heads[3, 0].abs().max() > 0.1


def test_attention_is_read_between_roles(model, sentences):
    found = evidence.attention_between(model, sentences, "END", ["IO", "S2"])
    name = "blocks.1.attn.hook_pattern"
    pattern = patching.activations(model, sentences, [name])[name]
    by_hand = [pattern[i, 2, sentences.positions["END"][i], sentences.positions["S2"][i]] for i in range(6)]
    assert found["S2"].shape == (4, 8) and found["S2"][1, 2] == pytest.approx(
        float(torch.stack(by_hand).mean()), abs=1e-5
    )


def test_absent_names_and_lift(model, sentences):
    names = names_of.name_ids(model)
    absent = names_of.absent_names(sentences, names)
    assert absent.shape == (6, len(names) - 2)
    for i in range(6):
        assert int(sentences.io[i]) not in absent[i] and int(sentences.wrong[i]) not in absent[i]
    logits = torch.zeros(6, model.cfg.d_vocab)
    logits[torch.arange(6), sentences.io] = 3
    logits[torch.arange(6), sentences.wrong] = 100  # is not asked
    assert torch.allclose(names_of.lift(logits, sentences, names), torch.full((6,), 3.0))
    with pytest.raises(ValueError, match="ask about two of them"):
        names_of.absent_names(sentences, names[:5])
