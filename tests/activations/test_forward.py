"""Reading hooks: the bridge's own numbers, whatever hooks are there and whenever they come."""

from contextlib import suppress
from functools import partial

import pytest
import torch
from grouped_model import capped_model, grouped_model
from tiny_model import CONTEXT, harvest
from torch.testing import assert_close

from sae_tutorial.activations import forward
from sae_tutorial.activations.forward import fused_forward, read_hook, read_hooks

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma2"])
def any_kind(request, tiny, tmp_path_factory):
    """GPT-2; rotary positions, grouped keys and RMSNorm; and these with soft caps and weights that are offsets."""
    if request.param == "gpt2":
        return tiny
    return {"llama": grouped_model, "gemma2": capped_model}[request.param](tmp_path_factory.mktemp(request.param))


def hooks_of(model):
    """All that need not be switched on first."""
    names = []
    for name in model.hook_dict:
        with suppress(ValueError), model.hooks([(name, lambda acts, hook: None)]):
            names.append(name)
    return names


def seen_by(model, tokens, names):
    """Hook -> what it sees in one forward pass, for those that fire, all of them listening at once."""
    seen = {}

    def keep(acts, hook, name):
        seen[name] = acts.clone()

    with model.hooks([(name, partial(keep, name=name)) for name in names]), torch.no_grad():
        seen["logits"] = model(tokens)
    return seen


def test_every_hook_sees_in_the_fused_forward_what_it_always_sees(any_kind, tokens):
    """Hooks that are added while it is open, all at once and each by itself."""
    names = hooks_of(any_kind)
    plain = seen_by(any_kind, tokens[:3], names)
    assert len(plain) > 60
    with fused_forward(any_kind):
        together = seen_by(any_kind, tokens[:3], names)
        alone = {name: seen_by(any_kind, tokens[:3], [name]) for name in names}
    assert together.keys() == plain.keys()
    for name in names:
        assert (name in alone[name]) == (name in plain), name
        if name in plain and not isinstance(plain[name], tuple):
            assert_close(together[name], plain[name], **CLOSE, msg=name)
            assert_close(alone[name][name], plain[name], **CLOSE, msg=name)
        assert_close(alone[name]["logits"], plain["logits"], **CLOSE, msg=name)


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")  # TransformerLens tells that rounding may differ
def test_every_hook_changes_in_the_fused_forward_what_it_always_changes(any_kind, tokens):
    changed = 0
    plain = seen_by(any_kind, tokens[:2], hooks_of(any_kind))
    for name in plain:
        if name == "logits" or not plain[name].is_floating_point():
            continue
        hooks = [(name, lambda acts, hook: 0.5 * acts)]
        with torch.no_grad(), any_kind.hooks(hooks):
            expected = any_kind(tokens[:2])
        with torch.no_grad(), fused_forward(any_kind), any_kind.hooks(hooks):
            found = any_kind(tokens[:2])
        assert_close(found, expected, **CLOSE, msg=name)
        changed += not torch.equal(found, plain["logits"])
    assert changed > 40


def test_every_hook_is_read(any_kind, tokens):
    plain = seen_by(any_kind, tokens[:2], hooks_of(any_kind))
    with torch.no_grad():
        for name in set(plain) - {"logits"}:
            with read_hook(any_kind, name) as read:
                assert_close(read(tokens[:2]), plain[name], **CLOSE, msg=name)
            with (
                any_kind.hooks([(name, lambda acts, hook: None)]),
                read_hook(any_kind, "ln_final.hook_normalized") as read,
            ):
                assert_close(read(tokens[:2]), plain["ln_final.hook_normalized"], **CLOSE, msg=name)


def test_hooks_within_a_normalisation_reach_the_hook_that_is_read(tiny, tokens):
    """`ln_final.hook_scale` acts within the LayerNorm whose result is read."""
    with read_hook(tiny, "ln_final.hook_normalized") as read:
        plain = read(tokens[:2])
        with tiny.hooks([("ln_final.hook_scale", lambda scale, hook: 2 * scale)]):
            halved = read(tokens[:2])
    assert_close(halved, plain / 2, **CLOSE)


def test_per_head_results_can_be_switched_on_while_it_is_open(tiny, tokens):
    name = "blocks.1.attn.hook_result"
    with fused_forward(tiny):
        tiny.set_use_attn_result(True)
        try:
            found = seen_by(tiny, tokens[:2], [name])
        finally:
            tiny.set_use_attn_result(False)
    summed = found[name].sum(2) + tiny.blocks[1].attn.b_O
    assert_close(summed, seen_by(tiny, tokens[:2], ["blocks.1.hook_attn_out"])["blocks.1.hook_attn_out"], **CLOSE)


@pytest.mark.parametrize("kind, used", [("gpt2", "_fused_attention"), ("llama", "_rotary_attention")])
def test_it_leaves_no_trace_and_is_really_used(kind, used, tiny, tokens, tmp_path, monkeypatch):
    model = tiny if kind == "gpt2" else grouped_model(tmp_path)
    plain = model(tokens)
    config = model.original_model.config
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    before, calls = config._attn_implementation, []
    real = getattr(forward, used)
    monkeypatch.setattr(forward, used, lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    with fused_forward(model), fused_forward(model):
        assert config._attn_implementation == "sdpa"
        assert_close(model(tokens), plain, **CLOSE)
    assert len(calls) == 2  # one for each layer
    assert config._attn_implementation == before
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert torch.equal(model(tokens), plain)


def test_tokens_are_read_wherever_they_lie(tiny, tokens, monkeypatch):
    """Tokens come from the CPU, whatever the model runs on: they are moved to the model's device."""
    asked = []
    real = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: (asked.append(a), real(self, *a, **k))[1])
    with read_hook(tiny, "hook_embed") as read:
        read(tokens[:2])
    assert asked[0] == (tiny.cfg.device,)


@pytest.mark.gpu
def test_a_hook_is_read_on_the_gpu_from_tokens_on_the_cpu():
    from sae_tutorial import load_language_model, story_tokens

    model, tokens = load_language_model("stories", device="cuda"), story_tokens(4 * 32, 32)
    store = harvest(model, tokens)
    with read_hook(model, "blocks.1.hook_resid_post") as read:
        acts_BSD = read(tokens)
    assert acts_BSD.is_cuda
    assert_close(acts_BSD[:, 1:].flatten(0, 1).cpu(), store.rows(slice(None)), rtol=1e-3, atol=1e-3)


def test_nothing_after_the_hook_is_computed(tiny, tokens):
    ran = []
    watched = [tiny.blocks[0].mlp, tiny.blocks[1], tiny.ln_final, tiny.unembed]
    handles = [module.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, module in enumerate(watched)]
    try:
        with read_hook(tiny, "blocks.0.hook_resid_mid") as read:
            read(tokens)
            assert ran == []
        with read_hook(tiny, "blocks.0.hook_resid_post") as read:
            read(tokens)
            assert set(ran) == {0}
    finally:
        for handle in handles:
            handle.remove()


def test_several_hooks_are_read_in_one_pass(tiny, tokens):
    names = ["blocks.1.attn.hook_z", "hook_embed", "blocks.0.hook_mlp_out"]
    plain = seen_by(tiny, tokens[:2], names)
    with read_hooks(tiny, [*names, names[0]]) as read:
        found = read(tokens[:2])
    assert list(found) == names
    for name in names:
        assert_close(found[name], plain[name], **CLOSE)


@pytest.mark.parametrize("with_gradients", [True, False])
def test_gradients_where_they_are_wanted(with_gradients, tiny, tokens):
    def start(acts, hook):
        return acts.requires_grad_()

    with tiny.hooks([("hook_embed", start)]):
        with read_hooks(tiny, ["blocks.1.hook_resid_post"], with_gradients=with_gradients) as read:
            assert read(tokens[:2])["blocks.1.hook_resid_post"].requires_grad is with_gradients


def test_training_mode_is_put_back_and_dropout_is_off(tiny, tokens):
    with read_hook(tiny, "ln_final.hook_normalized") as read:
        quiet = read(tokens)
    tiny.train()
    try:
        with read_hook(tiny, "ln_final.hook_normalized") as read:
            assert not tiny.training
            assert torch.equal(read(tokens), quiet)
        assert tiny.training
    finally:
        tiny.eval()


@pytest.mark.parametrize(
    ("hook_name", "message"),
    [
        ("blocks.1.resid_post", "hook_name='blocks.1.resid_post' is not .*Did you mean 'blocks.1.hook_resid_post'"),
        ("zzzz", "See list"),
        (None, "hook_name=None is not a hook"),
        (3, "hook_name=3 is not a hook"),
    ],
)
def test_wrong_hooks_are_named(tiny, hook_name, message):
    for reading in (read_hook(tiny, hook_name), read_hooks(tiny, ["hook_embed", hook_name])):
        with pytest.raises(ValueError, match=message), reading:
            pass


def test_one_name_is_taken_for_a_list_of_it(tiny, tokens):
    with read_hooks(tiny, "hook_embed") as read:
        assert list(read(tokens[:1])) == ["hook_embed"]


def test_what_is_no_model_and_what_are_no_tokens_are_named(tiny, tokens):
    for model in (None, "stories", torch.nn.Linear(2, 2)):
        with (
            pytest.raises(TypeError, match="model must be what load_language_model returns, got"),
            read_hook(model, "x"),
        ):
            pass
    with read_hook(tiny, "hook_embed") as read:
        for wrong in (tokens[0], tokens.tolist(), None, "a text"):
            with pytest.raises(ValueError, match=r"tokens must be a \(batch, context\) tensor of token ids, got"):
                read(wrong)


def test_a_hook_that_never_fires_is_named(tiny, tokens):
    with read_hook(tiny, "blocks.0.attn.qkv.hook_out") as read:  # q, k and v are computed one by one
        with pytest.raises(RuntimeError, match=r"exists but did not fire"):
            read(tokens[:1])


def test_context_of_one_token(tiny):
    tokens = torch.arange(CONTEXT)[:, None]
    with read_hook(tiny, "blocks.1.hook_resid_post") as read:
        assert_close(
            read(tokens), seen_by(tiny, tokens, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"], **CLOSE
        )


def test_two_that_are_open_do_not_disturb_each_other(tiny, tokens):
    with read_hook(tiny, "hook_embed") as first, read_hook(tiny, "blocks.1.hook_resid_post") as second:
        plain = seen_by(tiny, tokens[:2], ["hook_embed", "blocks.1.hook_resid_post"])
        for _ in range(2):
            assert_close(second(tokens[:2]), plain["blocks.1.hook_resid_post"], **CLOSE)
            assert_close(first(tokens[:2]), plain["hook_embed"], **CLOSE)
