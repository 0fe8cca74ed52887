"""evaluate: every number against its formula, computed the long way round with the model's own hooks."""

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from tiny_model import BOS, D_MODEL, PAD, harvest, rows, tiny_model
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder, evaluate
from sae_tutorial.evaluation.fidelity import PER_ROW, _evaluation, evaluate_many

RESID, MID, MLP, Z = (
    "blocks.0.hook_resid_post",
    "blocks.1.hook_resid_mid",
    "blocks.1.hook_mlp_out",
    "blocks.1.attn.hook_z",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tokenizer"))


def an_sae(rule="jumprelu", k=None, d_sae=64, d_in=D_MODEL, **more):
    """Random weights that reconstruct a little."""
    sae = SparseAutoencoder(SAEConfig(d_in, d_sae, rule, k, **more))
    with torch.no_grad():
        sae.b_enc.add_(0.1)
        sae.b_dec.add_(0.05 * torch.arange(len(sae.b_dec)).sin())
        sae.mean.add_(0.1)
        sae.scale.fill_(2.0)
        if rule in ("jumprelu", "mutual_choice", "gradient_choice"):
            sae.threshold.fill_(0.4)
        if sae.config.skip:
            sae.W_skip.copy_(0.3 * torch.eye(D_MODEL))
    return sae


def identity():
    """Reconstructs everything: x = relu(x) − relu(−x)."""
    sae = SparseAutoencoder(SAEConfig(D_MODEL, 2 * D_MODEL, "relu"))
    both = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    with torch.no_grad():
        sae.W_dec.copy_(both)
        sae.W_enc.copy_(both.T)
    return sae


def run(sae, model, tokens, hook=RESID, **options):
    return evaluate(sae, model, tokens, hook, progress=False, **options)


def the_long_way(sae, model, tokens, in_hook, out_hook, everywhere=False, massive=()):
    """The same numbers from whole tensors. `everywhere`: replace and ablate at every position, as SAEBench does.
    `massive`: tokens that are left alone."""
    usual = ~torch.isin(tokens, torch.tensor(massive, dtype=torch.int64))
    text = (tokens != BOS) & (tokens != PAD) & usual
    clean, cache = model.run_with_cache(tokens)
    x, y = cache[in_hook].flatten(2), cache[out_hook].flatten(2)
    y_hat, dense = sae(x).detach(), sae.encode(x.flatten(0, 1)).to_dense().detach().view(*x.shape[:2], -1)
    mean = y[text].mean(0)
    where = usual if everywhere else text
    has_next = text[:, :-1] & (tokens[:, 1:] != PAD)

    def loss(logits):
        log_probs = logits[:, :-1].log_softmax(-1)
        return -log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)[has_next].mean().item()

    def with_values(new):
        def hook(acts, hook):
            return torch.where(where[..., None], new.expand_as(y), acts.flatten(2)).view(acts.shape)

        return model.run_with_hooks(tokens, fwd_hooks=[(out_hook, hook)])

    def kl(logits):
        p, q = clean.softmax(-1), logits.softmax(-1)
        return (p * (p.log() - q.log())).sum(-1)[text].mean().item()

    spliced, zero, average = (with_values(new) for new in (y_hat, torch.zeros(()), mean))
    return {
        "n_tokens": int(text.sum()),
        "l0": (dense != 0).sum(-1)[text].float().mean().item(),
        "l0_std": (dense != 0).sum(-1)[text].float().std(correction=0).item(),
        "fvu": ((y - y_hat)[text].square().sum() / (y[text] - mean).square().sum()).item(),
        "cosine": torch.cosine_similarity(y, y_hat, dim=-1)[text].mean().item(),
        "norm_ratio": (y_hat.norm(dim=-1) / y.norm(dim=-1))[text].mean().item(),
        "ce_clean": loss(clean),
        "ce_spliced": loss(spliced),
        "ce_zero": loss(zero),
        "ce_mean": loss(average),
        "kl": kl(spliced),
        "kl_zero": kl(zero),
        "kl_mean": kl(average),
        "density": (dense > 0)[text].float().mean(0),
        "dead": ((dense > 0)[text].sum(0) == 0).float().mean().item(),
    }


def assert_same(found, expected, name_of="", rtol=1e-4):
    for name, value in expected.items():
        got = getattr(found, name)
        assert_close(got, value, rtol=rtol, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{name_of} {n}: {m}")


@pytest.mark.parametrize("hook", [RESID, MLP, Z])
@pytest.mark.parametrize("everywhere", [False, True])
def test_equals_the_formulas(model, hook, everywhere):
    sae = an_sae()
    found = run(sae, model, rows(), hook, splice_bos=everywhere)
    assert_same(found, the_long_way(sae, model, rows(), hook, hook, everywhere))
    assert 0.0 < found.dead < 1 and found.l0 > 1
    assert_close(found.threshold, torch.full((64,), 0.4))


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A model with massive activations at the tokens 7."""
    model = tiny_model(tmp_path_factory.mktemp("tokenizer"))
    with torch.no_grad():
        model.embed.original_component.weight[7] *= 20_000
    return model


def loud_rows(n=9):
    """A massive token in the middle of rows, after BOS, twice in a row, and last."""
    tokens = rows(n).clone()
    tokens[::2, 5] = tokens[1::4, 1] = tokens[3, 2:4] = tokens[2, -1] = 7
    return tokens


def massively(*args, **options):
    with pytest.warns(UserWarning, match="left as they are: neither replaced, ablated nor counted"):
        return run(*args, **options)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_massive_activations_stay_as_they_are(loud, everywhere, batch_size):
    sae, tokens = an_sae(), loud_rows()
    found = massively(sae, loud, tokens, RESID, splice_bos=everywhere, batch_size=batch_size)
    assert_same(found, the_long_way(sae, loud, tokens, RESID, RESID, everywhere, massive=[7]))
    places = (tokens == 7).nonzero()
    assert len(places) > 5 and torch.equal(found.left_out[:, :2].long(), places) and (found.left_out[:, 2] > 100).all()
    assert f"{found.n_tokens:,} tokens, {len(places)} massive ones left as they are: L0" in repr(found)
    _, cache = loud.run_with_cache(tokens)
    norms = cache[RESID].norm(dim=-1)
    expected = norms[tokens == 7] / norms[(tokens != BOS) & (tokens != PAD)].median()
    assert_close(found.left_out[:, 2].float(), expected, rtol=0.05, atol=0)


def test_massive_activations_count_where_they_are_asked_for(loud):
    sae, tokens = an_sae(), loud_rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = run(sae, loud, tokens, max_norm=None)
        assert run(sae, loud, tokens, max_norm=1e9).fvu == whole.fvu
    assert_same(whole, the_long_way(sae, loud, tokens, RESID, RESID), rtol=1e-3)
    assert whole.left_out.shape == (0, 3) and "massive" not in repr(whole)
    for bad, error in ((1, ValueError), (float("nan"), ValueError), ("x", TypeError)):
        with pytest.raises(error, match="max_norm must be"):
            run(sae, loud, tokens, max_norm=bad)


def test_massive_at_either_hook_of_a_transcoder(loud):
    """What reads a normalised hook sees nothing massive; what it predicts may be."""
    sae, tokens = an_sae(d_out=D_MODEL), loud_rows()
    read = "blocks.0.ln1.hook_normalized"
    for hooks in ((read, RESID), (RESID, read)):
        found = massively(sae, loud, tokens, hooks[0], target_hook=hooks[1])
        assert_same(found, the_long_way(sae, loud, tokens, *hooks, massive=[7]))


def test_the_models_first_token_can_be_massive_without_a_mark(loud):
    """Every row's first token, as in models without a beginning-of-text token: their loss is not counted either."""
    tokens = rows(9, padded=False).clone()
    tokens[:, 0] = 7
    found = massively(an_sae(), loud, tokens, bos_id=None)
    assert torch.equal(found.left_out[:, :2].long(), (tokens == 7).nonzero()) and len(found.left_out) >= 9
    assert_same(found, the_long_way(an_sae(), loud, tokens, RESID, RESID, massive=[7]))


def test_every_hook_that_can_be_harvested_can_be_evaluated(model):
    """Whatever lies between: inside a LayerNorm, before or after it, at the logits themselves."""
    tokens = rows()[:5]
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
    names = []
    for name in (name for name in cache if not name.startswith("blocks.0")):
        try:
            sae = an_sae(d_in=harvest(model, tokens, name).d_in)
        except ValueError:
            with pytest.raises(ValueError, match="evaluate it at the hook that it was trained on"):
                run(an_sae(), model, tokens, name)
            continue
        names.append(name)
        found = run(sae, model, tokens, name)
        if name.endswith("hook_scale"):  # a scale of 0 divides by it: infinite, as in the model itself
            assert found.n_tokens == 68 and math.isfinite(found.ce_mean)
        else:
            assert_same(found, the_long_way(sae, model, tokens, name, name), name, rtol=1e-3)
    wanted = ["ln1.hook_normalized", "ln1.hook_scale", "ln2.hook_normalized", "ln2.hook_out", "mlp.hook_post"]
    wanted = {f"blocks.1.{name}" for name in wanted} | {"ln_final.hook_normalized", "ln_final.hook_scale"}
    assert wanted | {"unembed.hook_in", "hook_unembed", "hook_embed"} <= set(names)


def test_scores_are_those_of_saebench_where_nothing_is_padded(model):
    """SAEBench: averages over tokens that are not special, everything replaced and ablated at every position."""
    sae, tokens = an_sae("token_choice", k=8), rows(padded=False)
    found = run(sae, model, tokens, splice_bos=True)
    _, cache = model.run_with_cache(tokens)
    x_hat = sae(cache[RESID]).detach()
    losses = [model(tokens, return_type="loss", loss_per_token=True)]
    for new in (x_hat, torch.zeros_like(x_hat)):
        with model.hooks([(RESID, lambda acts, hook, new=new: new)]):
            losses.append(model(tokens, return_type="loss", loss_per_token=True))
    clean, spliced, zero = (loss[(tokens != BOS)[:, :-1]].mean().item() for loss in losses)
    assert_close(found.recovered, (zero - spliced) / (zero - clean), rtol=1e-4, atol=1e-5)
    assert_close(found.kl_recovered, (found.kl_zero - found.kl) / found.kl_zero)
    assert found.threshold is None


@pytest.mark.parametrize("skip", [False, True])
def test_transcoders_read_one_hook_and_replace_another(model, skip):
    sae = an_sae(d_out=D_MODEL, skip=skip)
    with torch.no_grad():
        sae.out_mean.add_(0.2)
    found = run(sae, model, rows(), MID, target_hook=MLP)
    assert_same(found, the_long_way(sae, model, rows(), MID, MLP))


@pytest.mark.parametrize("hook", [RESID, MLP, Z])
def test_a_perfect_reconstruction_costs_nothing(model, hook):
    found = run(identity(), model, rows(), hook)
    assert found.fvu < 1e-10 and abs(found.kl) < 1e-6
    assert_close((found.recovered, found.recovered_mean, found.cosine, found.norm_ratio), (1.0,) * 4)
    assert found.threshold == 0.0


def test_predicting_the_mean_has_fvu_1_and_recovers_nothing(model):
    tokens = rows()
    sae = SparseAutoencoder(SAEConfig(D_MODEL, 8, "relu"))
    sae.mean.copy_(model.run_with_cache(tokens)[1][RESID][(tokens != BOS) & (tokens != PAD)].mean(0))
    sae.b_enc.data.fill_(-1e9)
    found = run(sae, model, tokens)
    assert_close((found.fvu, found.recovered_mean, found.dead, found.l0), (1.0, 0.0, 1.0, 0.0), rtol=0, atol=1e-5)
    assert math.isnan(found.underused)


def test_underused_counts_the_dead_and_those_below_half_of_the_law(model):
    found = run(an_sae(d_sae=256), model, rows(200, padded=False))
    assert found.dead < found.underused < 1


@pytest.mark.parametrize(("part", "counted"), [(0.55, False), (0.45, True)])
def test_underused_means_below_half(part, counted):
    """Densities exactly on a law, except the last hundred, which have `part` of it; ten more are dead."""
    F, n, dead = 1000, 10_000_000, 10
    law = 0.2 / (torch.arange(1.0, F + 1) + 2)
    law[-100:] *= part
    law[-dead:] = 0
    sums = {"uses": (law * n).round().long(), "l0_squared": n, "cosine": 0.0, "norm_ratio": 0.0}
    per_row = {name: torch.ones(1) for name in PER_ROW} | {"tokens": torch.tensor([float(n)])}
    found = _evaluation(an_sae(d_sae=F), sums, per_row, False, torch.empty(0, 3))
    assert found.underused == pytest.approx((100 if counted else dead) / F, abs=0.002)
    assert found.dead == pytest.approx(dead / F)


def test_batches_do_not_matter(model):
    sae = an_sae()
    one, all_at_once = (run(sae, model, rows(), batch_size=n) for n in (1, 100))
    assert_close(one.density, all_at_once.density)
    for name in ("l0", "fvu", "ce_spliced", "ce_mean", "kl"):
        assert_close(getattr(one, name), getattr(all_at_once, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_sums_of_rows_are_those_of_each_row_alone(model, batch_size):
    sae, tokens = an_sae(), rows()
    found = run(sae, model, tokens, batch_size=batch_size)
    sums = found.per_row
    assert set(sums) == set(PER_ROW) and all(sum_R.shape == (len(tokens),) for sum_R in sums.values())
    for name, of in (
        ("ce_spliced", "predictions"),
        ("kl", "tokens"),
        ("ce_zero", "predictions"),
        ("kl_mean", "tokens"),
    ):
        assert_close(float(sums[name].sum() / sums[of].sum()), getattr(found, name))
    assert_close(float(sums["error"].sum() / sums["spread"].sum()), found.fvu)
    assert_close(float(sums["matches"].sum()), found.l0 * found.n_tokens)
    for row in (0, 3, 5, 7):  # what does not know the mean of the text
        alone = run(sae, model, tokens[row : row + 1]).per_row
        for name in ("tokens", "predictions", "error", "matches", "ce_clean", "ce_spliced", "ce_zero", "kl", "kl_zero"):
            assert_close(alone[name][0], sums[name][row], rtol=1e-4, atol=1e-4)


def test_several_at_once_get_what_each_gets_alone(model):
    saes = [an_sae(), an_sae("mutual_choice", k=3), an_sae(d_sae=256)]
    together = evaluate_many(saes, model, rows(), "blocks.1.hook_resid_post", progress=False)
    for sae, found in zip(saes, together, strict=True):
        alone = evaluate(sae, model, rows(), "blocks.1.hook_resid_post", progress=False)
        assert_close(found.density, alone.density)
        assert all(getattr(found, name) == getattr(alone, name) for name in ("fvu", "ce_spliced", "ce_zero", "kl_mean"))
    assert evaluate_many([], model, rows(), "blocks.1.hook_resid_post", progress=False) == []


def test_no_forward_pass_is_larger_than_a_batch(model, monkeypatch):
    sizes = []
    with model.hooks([("hook_embed", lambda acts, hook: sizes.append(len(acts)))]):
        run(an_sae(), model, rows(), batch_size=4)
    assert max(sizes) == 4 and sum(sizes) > 5 * 11


def test_batch_rule_spends_the_budget_and_has_no_threshold(model):
    sae = an_sae("mutual_choice", k=3)
    assert run(sae, model, rows()).threshold == pytest.approx(0.4)
    found = run(sae, model, rows(), batch_rule=True)
    assert found.l0 == pytest.approx(3) and found.threshold is None


def test_an_sae_that_chose_by_gradients_is_read_by_its_thresholds(model):
    sae = an_sae("gradient_choice", k=3)
    found = run(sae, model, rows())
    assert found.threshold.shape == (sae.config.d_sae,) and found.l0 > 0 and found.kl > 0
    with pytest.raises(ValueError, match="looks at gradients of the loss"):
        run(sae, model, rows(), batch_rule=True)


def test_one_sae_takes_the_arguments_of_many():
    """They stand in one place, and help() shows them for both."""
    one, many = (list(inspect.signature(function).parameters.values()) for function in (evaluate, evaluate_many))
    assert [p.name for p in one][0] == "sae" and one[1:] == many[1:] and len(one) == 12
    assert inspect.signature(evaluate).return_annotation == "Evaluation" and "batch_rule" in evaluate.__doc__


def test_the_sae_may_be_named(model):
    named = evaluate(sae=an_sae(), model=model, tokens=rows(), hook_name=RESID, progress=False)
    assert named.fvu == run(an_sae(), model, rows()).fvu


def test_an_sae_of_another_hook_is_warned_of(model):
    sae = an_sae()
    sae.hook_name = RESID
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(sae, model, rows(), RESID)
        run(sae, model, rows(), "blocks.0.hook_out")  # another name of the same hook
        sae.hook_name = None
        run(sae, model, rows(), MID)
    for elsewhere in (RESID, "transformer.h.3"):
        sae.hook_name = elsewhere
        with pytest.warns(UserWarning, match=f"trained on '{elsewhere}', and is evaluated at '{MID}'") as seen:
            evaluate_many([an_sae(), sae], model, rows(), MID, progress=False)
        assert len(seen) == 1
        with pytest.warns(UserWarning, match="trained on"):
            run(sae, model, rows(), MID)


def test_numbers_of_numpy_and_torch_are_numbers(model):
    expected = run(an_sae(), model, rows(), batch_size=3)
    for three in (np.int64(3), torch.tensor(3)):
        found = run(an_sae(), model, rows(), batch_size=three, bos_id=np.int64(BOS), pad_id=torch.tensor(PAD))
        assert found.fvu == expected.fvu and found.ce_spliced == expected.ce_spliced


def test_one_token_in_each_row(model):
    """Nothing is predicted, so losses are NaN; what is known of the activations is given."""
    found = run(an_sae(), model, torch.tensor([[3], [4]]), bos_id=None)
    assert found.n_tokens == 2 and math.isnan(found.ce_clean) and math.isnan(found.recovered) and found.l0 > 0
    with pytest.raises(ValueError, match="nothing is left"):
        run(an_sae(), model, torch.full((2, 3), PAD))


def test_an_sae_that_never_fires(model):
    sae = an_sae()
    sae.threshold.data.fill_(math.inf)  # as it is measured for a feature that is never chosen
    found = run(sae, model, rows())
    assert found.dead == 1 and found.l0 == found.l0_std == 0 and math.isnan(found.underused) and found.fvu > 0


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(model, name, bad):
    sae = an_sae()
    weight = sae.state_dict()[name]
    weight[(0,) * weight.dim()] = bad
    with pytest.raises(ValueError, match=f"sae: its {name} holds NaN or infinite numbers"):
        run(sae, model, rows())


def test_errors_come_before_the_first_long_pass(model):
    passes = []
    unmeasured = SparseAutoencoder(SAEConfig(D_MODEL, 64, "mutual_choice", 3))
    with model.hooks([("hook_embed", lambda acts, hook: passes.append(len(acts)))]):
        with pytest.raises(ValueError, match="no inference threshold yet"):
            evaluate_many([an_sae(), unmeasured], model, rows(), RESID, progress=False)
    assert passes == []
    assert run(unmeasured, model, rows(), batch_rule=True).l0 == pytest.approx(3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda model: run("an SAE", model, rows()), "sae must be a SparseAutoencoder, got str"),
        (lambda model: run([an_sae()], model, rows()), "got list; evaluate_many takes several"),
        (lambda model: run(an_sae(), None, rows()), "model must be what load_language_model returns, got NoneType"),
        (lambda model: run(an_sae(), model, rows(), batch_size=2.5), "batch_size must be a whole number, 1 or more"),
        (lambda model: run(an_sae(), model, rows(), batch_size="4"), "batch_size must be"),
        (lambda model: run(an_sae(), model, rows(), no_such=1), "no_such"),
    ],
)
def test_things_of_another_type(model, call, words):
    with pytest.raises(TypeError, match=words):
        call(model)


def test_the_model_is_left_as_it_was(model):
    before = model(rows())
    model.train()
    run(an_sae(), model, rows())
    assert model.training
    model.eval()
    assert torch.equal(model(rows()), before)


def test_repr_says_the_main_things(model):
    text = repr(run(an_sae(), model, rows()))
    assert "144 tokens" in text and "FVU" in text and "zero- and" in text


@pytest.mark.parametrize(
    "sae, options, words",
    [
        (an_sae(), dict(batch_size=0), "batch_size must be a whole number, 1 or more, got 0"),
        (an_sae(), dict(batch_size=-1), "batch_size must be a whole number, 1 or more, got -1"),
        (an_sae(), dict(hook=None), "hook_name=None is not a hook of this model"),
        (an_sae(d_out=D_MODEL), dict(target_hook="blocks.0.mlp"), "hook_name='blocks.0.mlp' is not a hook"),
        (an_sae(), dict(tokens=rows().tolist()), "tokens must be .* got list"),
        (an_sae(), dict(tokens=rows().float()), "tokens must be int64"),
        (an_sae(), dict(target_hook=MLP), "target_hook.*d_out=None"),
        (an_sae(d_out=D_MODEL), {}, "target_hook.*d_out=32"),
        (an_sae(), dict(hook="blocks.0.hook_resid"), "not a hook of this model. Did you mean"),
        (an_sae(), dict(hook="blocks.0.mlp.hook_pre"), "d_in=32 numbers per token"),
        (an_sae(), dict(hook="blocks.0.attn.hook_pattern"), "evaluate it at the hook that it was trained on"),
        (an_sae(), dict(tokens=rows()[0]), r"tokens must be a \(n, context\)"),
        (SparseAutoencoder(SAEConfig(D_MODEL, 64, "mutual_choice", 3)), {}, "no inference threshold yet"),
    ],
)
def test_says_what_is_wrong(model, sae, options, words):
    options = {"tokens": rows(), "hook": RESID, **options}
    with pytest.raises(ValueError, match=words):
        run(sae, model, options.pop("tokens"), options.pop("hook"), **options)


def test_a_transcoder_of_another_target_is_warned_of(model):
    sae = an_sae(d_out=D_MODEL)
    sae.hook_name, sae.target_hook_name = RESID, MLP
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(sae, model, rows(), target_hook=MLP)
    with pytest.warns(UserWarning, match=f"trained on '{MLP}', and is evaluated at '{MID}'"):
        run(sae, model, rows(), target_hook=MID)


def test_any_iterable_of_saes(model):
    saes = (SparseAutoencoder(SAEConfig(D_MODEL, 64, "token_choice", k=4)) for _ in range(2))
    assert len(evaluate_many(saes, model, rows(8), "blocks.1.hook_resid_post", progress=False)) == 2
