"""Several hooks replaced at once: against one of them, against the model's own hooks, and against exact transcoders."""

import pytest
import torch
from tiny_model import BOS, D_MODEL, PAD, exact_transcoder, rows, tiny_model
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, evaluate
from sae_tutorial.evaluation import splicing
from sae_tutorial.evaluation.together import evaluate_together

MEASURES = ("ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl", "kl_zero", "kl_mean")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def relu_model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"), activation_function="relu")


def an_sae(d_sae=64, rule="token_choice", **more):
    """Random weights that reconstruct a little."""
    sae = SparseAutoencoder(SAEConfig(D_MODEL, d_sae, rule, k=8, **more))
    with torch.no_grad():
        sae.b_dec.add_(0.05 * torch.arange(D_MODEL).sin())
        sae.mean.add_(0.1)
        sae.scale.fill_(2.0)
        if sae.config.skip:
            sae.W_skip.copy_(0.3 * torch.eye(D_MODEL))
    return sae


def a_transcoder(layer, **more):
    sae = an_sae(d_out=D_MODEL, **more)
    sae.hook_name, sae.target_hook_name = f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"
    return sae


@pytest.mark.parametrize("skip", [False, True])
def test_one_transcoder_is_what_evaluate_says(model, skip):
    sae = a_transcoder(1, skip=skip)
    one = evaluate(sae, model, rows(), str(sae.hook_name), target_hook=sae.target_hook_name, progress=False)
    found = evaluate_together([sae], model, rows())
    for name in (*MEASURES, "recovered", "recovered_mean", "kl_recovered"):
        assert_close(getattr(found, name), getattr(one, name), atol=1e-6, rtol=1e-5)
    for name in found.per_row:
        assert_close(found.per_row[name], one.per_row[name], atol=1e-5, rtol=1e-5)


def test_so_is_one_sae(model):
    sae = an_sae()
    sae.hook_name = "blocks.0.hook_resid_post"
    one = evaluate(sae, model, rows(), sae.hook_name, progress=False)
    assert_close(evaluate_together([sae], model, rows()).kl, one.kl, atol=1e-6, rtol=1e-5)


def test_each_reads_what_those_before_it_have_made(model):
    """The long way: the first layer's MLP replaced, what the second reads then, and both replaced."""
    first, second = a_transcoder(0, skip=True), a_transcoder(1, d_sae=48)
    tokens = rows()
    text = (tokens != BOS) & (tokens != PAD)

    def by(sae, x):
        return lambda y, hook: torch.where(text[..., None], sae(x), y)

    def run(hooks, name):
        seen = []
        with torch.no_grad(), model.hooks(fwd_hooks=[*hooks, (name, lambda x, hook: seen.append(x))]):
            model(tokens)
        return seen[0]

    hooks = [(first.target_hook_name, by(first, run([], first.hook_name)))]
    hooks += [(second.target_hook_name, by(second, run(hooks, second.hook_name)))]
    clean, both = (run(some, "unembed.hook_out").log_softmax(-1)[text] for some in ([], hooks))
    found = evaluate_together([second, first], model, tokens, batch_size=3)
    assert_close(found.kl, float(splicing.divergence(clean, both).mean()), atol=1e-6, rtol=1e-4)
    alone = [evaluate_together([sae], model, tokens).kl for sae in (first, second)]
    assert found.kl > max(alone)
    means = []
    for name in (first.target_hook_name, second.target_hook_name):
        mean = run([], name)[text].mean(0)
        means.append((name, lambda y, hook, mean=mean: torch.where(text[..., None], mean, y)))
    ablated = run(means, "unembed.hook_out").log_softmax(-1)[text]
    assert_close(found.kl_mean, float(splicing.divergence(clean, ablated).mean()), atol=1e-6, rtol=1e-4)


def test_exact_transcoders_are_the_model(relu_model):
    """Planted: every MLP is a sum of features, and the transcoders have them."""
    exact = [exact_transcoder(relu_model, layer) for layer in (0, 1)]
    for one in exact:
        hooks = {"hook_name": one.hook_name, "target_hook": one.target_hook_name}
        assert evaluate(one, relu_model, rows(), **hooks, progress=False).fvu < 1e-10
    found = evaluate_together(exact, relu_model, rows())
    assert abs(found.kl) < 1e-6 < found.kl_mean
    assert_close((found.recovered, found.recovered_mean), (1.0, 1.0), atol=1e-4, rtol=0)


def test_stand_ins_replace_where_they_are_told(model):
    sae, tokens = a_transcoder(1), rows()[:2]
    where = torch.zeros(tokens.shape, dtype=torch.bool)
    where[:, 5] = True
    with torch.no_grad():
        _, clean = model.run_with_cache(tokens)
        for mask, places in ((where, [5]), (None, list(range(tokens.shape[1])))):
            with model.hooks(fwd_hooks=splicing.stand_ins([sae], mask)):
                _, changed = model.run_with_cache(tokens)
            expected = clean[sae.target_hook_name].clone()
            expected[:, places] = sae(clean[sae.hook_name])[:, places]
            assert_close(changed[sae.target_hook_name], expected)


def test_what_cannot_be_replaced_together(model):
    lost = an_sae(d_out=D_MODEL)
    lost.hook_name = "blocks.0.mlp.hook_in"
    for saes, words in (
        ([], "saes is empty"),
        ([lost], "sae.target_hook_name is None"),
        ([an_sae()], "sae.hook_name is None"),
        ([a_transcoder(1), a_transcoder(1)], "2 of them replace 'blocks.1.hook_mlp_out'; give one for each hook"),
        ([a_transcoder(2)], "not a hook of this model"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate_together(saes, model, rows())
    with pytest.raises(TypeError, match="put it in a list"):
        evaluate_together(a_transcoder(1), model, rows())


def test_an_sae_that_cannot_be_used(model):
    broken, unmeasured = a_transcoder(1), a_transcoder(1, rule="mutual_choice")
    broken.W_dec.data[3] = torch.nan
    for sae, words in ((broken, "W_dec holds NaN"), (unmeasured, "no inference threshold yet")):
        with pytest.raises(ValueError, match=words):
            evaluate_together([a_transcoder(0), sae], model, rows())
