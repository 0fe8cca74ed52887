"""train on synthetic superposition: dictionaries are recovered, runs resume bit for bit, and refusals have reasons."""

import copy
import dataclasses
import inspect
import re
import warnings

import numpy as np
import pytest
import torch
from synthetic import recovered, store_and_held_out, superposed

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_sae, save_sae, story_tokens, train
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import start_

PENALTIES = {"relu": {"l1": 0.1}, "gated": {"l1": 0.1}, "jumprelu": {"l0": 0.01}}
SHORT = dict(steps=12, batch_size=128, progress=False)


def fresh(rule="mutual_choice", d_sae=48, **more):
    return SparseAutoencoder(SAEConfig(16, d_sae, rule, k=3 if rule in BUDGET_RULES else None, **more))


def fvu(sae, x):
    with torch.no_grad():
        return float((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize("rule", BUDGET_RULES + PENALTY_RULES)
def test_every_rule_learns_the_directions(rule):
    store, held_out, directions = store_and_held_out()
    sae = fresh(rule)
    run = train(sae, store, steps=200, batch_size=256, progress=False, **PENALTIES.get(rule, {}))
    losses = run.metrics["fvu"]
    assert losses.shape == (200,) and losses[-20:].mean() < 0.6 * losses[:5].mean()
    # Thresholds of single tokens know less than gradients, and that a token has three features, taken together.
    assert fvu(sae, held_out) == pytest.approx(losses[-20:].mean(), abs=0.1 if rule == "gradient_choice" else 0.03)
    assert recovered(sae, directions).mean() > 0.9
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(48))
    assert sae.tokens_seen == 200 * 256
    if rule in BUDGET_RULES:
        assert run.metrics["l0"][-1] == pytest.approx(3, rel=0.02)
        assert len(sae.encode(held_out)) / len(held_out) == pytest.approx(3, rel=0.05)


def test_feature_choice_leaves_no_latent_dead():
    """A dictionary far larger than what there is to learn: elsewhere latents die, here each has its tokens."""
    store, held_out, _ = store_and_held_out()
    dead = {}
    for rule in ("token_choice", "feature_choice"):
        sae = fresh(rule, d_sae=512)
        run = train(sae, store, steps=100, batch_size=256, progress=False, aux_k=0.0, dead_after=5000)
        dead[rule] = run.metrics["dead"][-1]
    assert dead["feature_choice"] == 0 < 0.05 < dead["token_choice"]
    assert (run.density > 0).all()
    capacity = sae.capacity(256) / 256
    found = sae.encode(store.rows(slice(0, len(store)))).density()
    torch.testing.assert_close(found, capacity, rtol=0.5, atol=2 / 256)  # feature by feature
    assert len(sae.encode(held_out)) / len(held_out) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("shape", ["uniform", "zipf"])
def test_a_floor_leaves_no_latent_dead_and_costs_no_budget(shape):
    store, held_out, _ = store_and_held_out()
    dead, rare = {}, {}
    for floor in (0.0, 0.2):
        sae = fresh(d_sae=256, relative=True, floor=floor, floor_shape=shape if floor else "uniform")
        run = train(sae, store, steps=200, batch_size=256, progress=False, aux_k=0.0, dead_after=5000)
        dead[floor], rare[floor] = run.metrics["dead"][-1], (run.density < 0.1 * 3 / 256).float().mean()
        assert len(sae.encode(held_out)) / len(held_out) == pytest.approx(3, rel=0.05)
        assert (run.metrics["l0"] == 3).all()
    if shape == "uniform":
        assert dead[0.2] < 0.3 * dead[0.0] and rare[0.2] < 0.6 * rare[0.0]
    assert dead[0.2] < 0.7 * dead[0.0]  # the low end of a Zipf floor is low
    assert 1 < sae.subsidy.max() <= 20 and (sae.subsidy == 1).any()


def test_frequent_features_are_given_the_large_capacities():
    store, _, _ = store_and_held_out()
    sae = fresh("feature_choice", capacity="fitted", zipf_offset=3.0)
    train(sae, store, steps=100, batch_size=256, progress=False)
    demand = sae.encode(store.rows(slice(0, 256)), batch_rule=True).density()
    by_rank = demand[sae.rank.argsort()]
    assert by_rank[:10].mean() > 2 * by_rank[-10:].mean()
    assert sorted(sae.rank.tolist()) == list(range(48))
    assert sae.zipf_law.tolist() != [1.0, 3.0] and sae.zipf_law[0] > 0


@pytest.mark.parametrize("term", ["aux_k", "aux_zipf"])
def test_auxiliary_terms_revive_what_was_dead(term):
    """Half of the latents start too quiet to be chosen: without help they stay dead."""
    store, _, _ = store_and_held_out()
    dead, low_end = [], []
    for weight in (0.0, 1 / 32):
        sae = fresh("token_choice", d_sae=128)
        with torch.no_grad():
            sae.W_enc[:, :64] *= 0.1
        weights = {"aux_k": 0.0, "aux_zipf": 0.0} | {term: weight}
        run = train(sae, store, steps=80, batch_size=256, progress=False, dead_after=2500, aux_latents=1, **weights)
        dead.append(run.metrics["dead"][-1])
        low_end.append(run.density[:64].mean())
    assert dead[0] >= 0.5 and dead[1] < 0.4
    assert low_end[0] == 0 and low_end[1] > 1e-3


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("rule", ["token_choice", "mutual_choice", "relu"])  # mutual_choice comes back as jumprelu
def test_training_goes_on_with_an_sae_of_another_library(rule, tmp_path):
    store, held_out, _ = store_and_held_out(n_tokens=2000)
    sae = fresh(rule)
    train(sae, store, **SHORT | PENALTIES.get(rule, {}))
    save_sae(sae, tmp_path, format="saelens")
    other = load_sae(tmp_path)
    before = other(held_out).detach()
    run = train(other, store, steps=1, batch_size=128, lr=1e-12, progress=False)
    torch.testing.assert_close(other(held_out).detach(), before, atol=1e-3, rtol=1e-3)
    assert run.metrics["fvu"][0] == pytest.approx(fvu(other, held_out), rel=0.25)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_train(dtype):
    store, held_out, _ = store_and_held_out(n_tokens=2000)
    for rule in ("mutual_choice", "feature_choice", "jumprelu"):
        sae = fresh(rule).to(dtype)
        run = train(sae, store, **SHORT, **PENALTIES.get(rule, {}))
        assert sae.W_dec.dtype == dtype and run.metrics["fvu"][-1] < run.metrics["fvu"][0]
    with pytest.raises(ValueError, match=r"an SAE in float16 cannot be trained.*sae.float\(\)"):
        train(fresh().half(), store, **SHORT)


def test_a_decoder_row_of_zeros_stays_one():
    store, _, _ = store_and_held_out(n_tokens=2000)
    sae = fresh()
    with torch.no_grad():
        sae.W_dec[5], sae.W_enc[:, 5], sae.b_enc[5] = 0, 0, -5
    train(sae, store, **SHORT)
    assert not sae.W_dec[5].any() and sae.W_dec.isfinite().all()


def test_side_by_side_equals_one_by_one():
    store, _, _ = store_and_held_out(n_tokens=2000)
    settings = [TrainSettings(**{k: SHORT[k] for k in ("steps", "batch_size")}, lr=lr) for lr in (1e-3, 3e-3)]
    saes = [fresh(), fresh("feature_choice", d_sae=32)]
    alone = [copy.deepcopy(sae) for sae in saes]
    seen = []
    runs = train_many(saes, store, settings, progress=False, on_step=lambda step, ms: seen.append((step, len(ms))))
    for sae, lonely, one, run in zip(saes, alone, settings, runs):
        train(lonely, store, one, progress=False)
        assert same(sae, lonely) and run.sae is sae
    assert seen == [(10, 2), (12, 2)]
    with pytest.raises(ValueError, match=r"batch_size must be the same .* got \[128, 256\]"):
        train_many(saes, store, [settings[0], TrainSettings(steps=12, batch_size=256)])


def test_transcoders_predict_another_hook():
    x, _ = superposed(4000)
    matrix = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    y = x.relu() @ matrix + 2
    store, targets = ActivationStore.from_tensor(x[:3000]), ActivationStore.from_tensor(y[:3000])
    errors = {}
    for skip in (False, True):
        sae = SparseAutoencoder(SAEConfig(16, 64, "mutual_choice", 4, d_out=6, skip=skip))
        run = train(sae, store, target_store=targets, steps=150, batch_size=256, progress=False)
        with torch.no_grad():
            error = (sae(x[3000:]) - y[3000:]).square().sum() / (y[3000:] - y.mean(0)).square().sum()
        assert error == pytest.approx(run.metrics["fvu"][-20:].mean(), abs=0.05)
        errors[skip] = error
    assert errors[True] < errors[False] < 0.6


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_finds_the_features_of_an_mlp(skip):
    """Planted: an MLP of 32 features, each of which answers to one direction of its input and writes another."""
    x, directions = superposed(12_000)
    x = x - x.mean(0)
    writes = torch.nn.functional.normalize(torch.randn(32, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    y = (x @ directions.T - 2).relu() @ writes
    cut = 10_000
    sae = SparseAutoencoder(SAEConfig(16, 64, "mutual_choice", 4, d_out=16, skip=skip))
    store, target = ActivationStore.from_tensor(x[:cut]), ActivationStore.from_tensor(y[:cut])
    train(sae, store, target_store=target, steps=600, batch_size=512, progress=False)
    with torch.no_grad():
        error = (sae(x[cut:]) - y[cut:]).square().sum() / (y[cut:] - y.mean(0)).square().sum()
    assert error < 0.07
    written, place = (torch.nn.functional.normalize(sae.W_dec.detach(), dim=1) @ writes.T).max(0)
    read = torch.cosine_similarity(sae.W_enc.detach().T[place], directions)
    assert written.median() > 0.95 and read.median() > 0.9


def test_a_transcoder_wants_both_hooks_of_one_text(model):
    """The same number of positions is not enough: they must be the same tokens."""
    tokens, hooks = story_tokens(512, 32), ("blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out")
    options = dict(max_norm=None, progress=False)
    store, target = (ActivationStore.harvest(model, tokens, hook, **options) for hook in hooks)
    other = ActivationStore.harvest(model, story_tokens(512, 32, seed=1), hooks[1], **options)
    assert len(other) == len(target)
    options = dict(steps=2, batch_size=64, progress=False)
    sae = SparseAutoencoder(SAEConfig(store.d_in, 64, k=3, d_out=target.d_in))
    with pytest.raises(ValueError, match="or they hold other tokens; harvest both from the same"):
        train(sae, store, target_store=other, **options)
    train(sae, store, target_store=target, **options)
    assert (sae.hook_name, sae.target_hook_name) == hooks


def test_cunninghams_form_is_tied_and_raw():
    store, _, directions = store_and_held_out()
    sae = fresh("relu", tied=True, b_dec=False, normalise=False)
    assert {name for name, _ in sae.named_parameters()} == {"W_dec", "b_enc", "b_dec"}
    run = train(sae, store, steps=100, batch_size=256, progress=False, l1=0.05)
    assert not sae.b_dec.any() and not sae.mean.any() and sae.scale == 1
    assert run.metrics["fvu"][-1] < 0.5 * run.metrics["fvu"][0]


def test_training_goes_on_with_what_it_has():
    store, held_out, _ = store_and_held_out(n_tokens=2000)
    sae = fresh()
    train(sae, store, **SHORT)
    other_units = folded(sae)
    mean = sae.mean.clone()
    train(sae, ActivationStore.from_tensor(held_out), **SHORT)
    assert torch.equal(sae.mean, mean) and sae.tokens_seen == 2 * 12 * 128
    run = train(other_units, ActivationStore.from_tensor(held_out), **SHORT)  # other units, the same function
    assert run.metrics["fvu"][0] < 0.9 * 1.0


def test_bfloat16_product_changes_little():
    store, held_out, _ = store_and_held_out(n_tokens=2000)
    errors = []
    for dtype in ("float32", "bfloat16"):
        sae = fresh()
        train(sae, store, steps=60, batch_size=256, progress=False, encoder_dtype=dtype)
        errors.append(fvu(sae, held_out))
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_divergence_stops_with_the_step_and_a_way_out():
    store, _, _ = store_and_held_out(n_tokens=2000)
    with pytest.raises(FloatingPointError, match="training diverged.*Lower lr") as caught:
        train(fresh("relu"), store, **SHORT | dict(lr=1e30, clip=1e30))
    assert "of 12" in caught.value.__notes__[0]


def test_progress_shows_what_matters(capsys):
    store, _, _ = store_and_held_out(n_tokens=2000)
    train(fresh(), store, **SHORT | dict(progress=True))
    shown = capsys.readouterr().err
    assert "12/12" in shown and "FVU 0." in shown and "L0 3.0" in shown and "dead –" in shown
    quiet = fresh("token_choice")
    with torch.no_grad():
        quiet.W_enc[:, :24] = 0
    options = SHORT | dict(progress=True, dead_after=1400, log_every=6, aux_k=0.0)
    train_many([fresh("feature_choice"), quiet], store, **options)
    assert "L0 3.0, dead 0.0%–50.0%" in capsys.readouterr().err, "from the fewest to the most"


def test_run_describes_itself():
    store, _, _ = store_and_held_out(n_tokens=2000)
    run = train(fresh(), store, **SHORT, dead_after=1536)
    assert "12 steps" in repr(run) and "L0 3.0" in repr(run) and "dead 0.0%)" in repr(run)
    assert set(run.metrics) == {"loss", "fvu", "l0", "dead", "aux", "penalty", "grad_norm", "lr"}
    assert all(np.isfinite(series).all() for name, series in run.metrics.items() if name != "dead")


@pytest.mark.parametrize(
    "dead_after, known", [(1, 12), (128, 12), (129, 11), (700, 7), (1536, 1), (1537, 0), (10**15, 0)]
)
def test_dead_is_not_known_before_so_many_tokens_were_seen(dead_after, known):
    """Not even that it is 0: a run of 1,536 tokens does not show which latents are silent for 1,537."""
    store, _, _ = store_and_held_out(n_tokens=2000)
    sae = fresh("token_choice", d_sae=128)
    with torch.no_grad():
        sae.W_enc[:, :64] = 0  # these never fire
    run = train(sae, store, **SHORT, dead_after=dead_after, aux_k=0.0)
    assert np.isnan(run.metrics["dead"]).tolist() == [True] * (12 - known) + [False] * known
    assert (run.metrics["dead"][12 - known :] >= 0.5).all()
    assert f"dead – (dead_after={dead_after:,} tokens were not seen)" in repr(run) or known


def test_learning_rate_rises_stays_and_falls():
    settings = TrainSettings(steps=100, lr=1.0, warmup=0.1, decay=0.2)
    rates = [settings.lr_at(step, 64) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([(20 - i) / 20 for i in range(20)])
    assert TrainSettings().lr_at(500, 8192) == pytest.approx(2e-3)
    reranks = [step for step in range(100) if TrainSettings(steps=100, rerank_every=30).reranks_at(step)]
    assert reranks == [1, 2, 4, 8, 16, 30, 60]


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(steps=0), "steps must be a whole number, 1 or more, got 0"),
        (dict(lr=0), "lr must be a finite number, greater than 0, got 0"),
        (dict(l1=-1.0), "l1 must be a finite number, 0 or more, got -1.0"),
        (dict(warmup=2), "warmup must be a number, 0 or more and at most 1, got 2"),
        (dict(warmup=0.6, decay=0.6), "more than the whole run"),
        (dict(p_end=1.0), "p_end must be a number, 0 or more and less than 1, got 1.0"),
        (dict(underused_below=0.0), "underused_below must be a number, greater than 0 and at most 1, got 0.0"),
        (dict(encoder_dtype="fp8"), "encoder_dtype must be one of auto, float32, bfloat16"),
        (dict(steps=3.0), "steps must be a whole number, 1 or more, got 3.0"),
        (dict(threshold_batches=2.5), "threshold_batches must be a whole number, 1 or more, got 2.5"),
        (dict(dead_after=None), "dead_after must be a whole number, 1 or more, got None"),
        (dict(aux_latents=-1), "aux_latents must be a whole number, 0 or more, got -1"),
        (dict(clip="1"), "clip must be a number, got '1'"),
        (dict(lr=float("inf")), "lr must be a finite number, greater than 0, got inf"),
        (dict(betas=(0.9,)), r"betas must be two numbers from 0 to below 1, as \(0.9, 0.999\), got \(0.9,\)"),
        (dict(resample_at=0.5), r"resample_at must be a list, got 0.5"),
    ],
)
def test_settings_say_what_is_wrong(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        TrainSettings(**wrong)


def wrong_arguments():
    x = superposed(300)[0]

    def frozen():
        return fresh().requires_grad_(False)

    def of_inference():
        with torch.inference_mode():
            return fresh()

    yield dict(log_every=0), "log_every must be a whole number, 1 or more, got 0"
    yield dict(checkpoint_every=2.5), "checkpoint_every must be a whole number, 1 or more, got 2.5"
    yield dict(on_step="wandb"), "on_step must be a function of the step and its metrics, got 'wandb'"
    yield dict(settings={"steps": 3}), r"settings must be TrainSettings, got {'steps': 3}; single ones go by name"
    yield dict(settings=[TrainSettings(), 3]), "settings must be TrainSettings, got 3"
    yield dict(store=x), r"store must be an ActivationStore, got Tensor.*ActivationStore.from_tensor"
    yield dict(store=None), "store must be an ActivationStore, got NoneType"
    yield dict(sae=fresh("relu", d_out=16), target_store=x), "target_store must be an ActivationStore, got Tensor"
    yield dict(sae=torch.nn.Linear(16, 48)), "must be a SparseAutoencoder, got Linear"
    yield dict(sae=frozen()), r"all parameters of the SAE are frozen; let some learn: sae.requires_grad_\(True\)"
    yield dict(sae=of_inference()), r"made under torch.inference_mode\(\), so it cannot be trained; make it outside"
    yield dict(sae=SparseAutoencoder(SAEConfig(16, 48, k=1e-3))), "k=0.001 leaves not one match to a batch of 128"
    yield dict(sae=fresh("gated"), resample_at=(0.9,)), "resampling has no start for rule='gated'"
    yield dict(dead_after=10**30), "dead_after must be a whole number"
    yield dict(learning_rate=1e-3), "unknown setting 'learning_rate'; there are: steps, batch_size"
    yield dict(batch_size=512), r"batch_size=512 is larger than the store \(300 positions\)"
    for rule, name, value in (
        *[("token_choice", "l1", 5.0), ("token_choice", "l1", 0.0), ("mutual_choice", "l0", 0.1)],
        *[("jumprelu", "l1", 0.1), ("relu", "l0", 0.1), ("gated", "bandwidth", 0.1), ("gated", "p_end", 0.1)],
        *[("relu", "aux_k", 0.5), ("gated", "aux_zipf", 0.1), ("jumprelu", "aux_latents", 8)],
        *[
            ("relu", "rerank_every", 10),
            ("relu", "encoder_dtype", "bfloat16"),
            ("mutual_choice", "penalty_warmup", 0.3),
        ],
    ):
        yield dict(sae=fresh(rule), **{name: value}), f"{name}={value!r} is no setting of rule='{rule}'.*ignore it"


@pytest.mark.parametrize("wrong, words", list(wrong_arguments()), ids=str)
def test_wrong_arguments_are_named_and_leave_the_sae_alone(wrong, words):
    arguments = dict(sae=fresh(), store=ActivationStore.from_tensor(superposed(300)[0])) | SHORT | wrong
    sae, store = arguments.pop("sae"), arguments.pop("store")
    before = copy.deepcopy(sae.state_dict())
    with pytest.raises((TypeError, ValueError), match=words):
        train(sae, store, **arguments)
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


def test_saes_side_by_side_are_several_and_different():
    store = ActivationStore.from_tensor(superposed(300)[0])
    with pytest.raises(ValueError, match="the same SAE twice"):
        train_many([sae := fresh(), sae], store, **SHORT)
    for saes in ([], [fresh(), fresh(), fresh()]):
        with pytest.raises(ValueError, match=f"one for each of the {len(saes)} SAEs"):
            train_many(saes, store, [TrainSettings(), TrainSettings()], progress=False)
    with pytest.raises(ValueError, match="l1=0.1 is no setting of rule='mutual_choice'"):
        train_many([fresh("relu"), fresh()], store, **SHORT, l1=0.1)


def test_a_default_passes_for_every_rule():
    defaults = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
    for rule in BUDGET_RULES + PENALTY_RULES:
        TrainSettings(**defaults).check_for(fresh(rule).config)


@pytest.mark.parametrize("rule", BUDGET_RULES + PENALTY_RULES)
def test_a_default_dtype_of_float64_changes_nothing(rule, monkeypatch):
    store, _, _ = store_and_held_out(n_tokens=2000)
    saes = [fresh(rule), fresh(rule)]
    options = SHORT | dict(dead_after=300) | (dict(aux_zipf=0.1) if rule in BUDGET_RULES else {})
    train(saes[0], store, **options)
    torch.set_default_dtype(torch.float64)
    try:
        train(saes[1], store, **options)
        train(fresh(rule), store, **options)  # in float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(*saes) and saes[1].W_dec.dtype == torch.float32


def test_training_does_not_care_about_modes_of_inference():
    store, _, _ = store_and_held_out(n_tokens=2000)
    saes = [fresh(), fresh(), fresh()]
    train(saes[0], store, **SHORT)
    with torch.inference_mode():
        train(saes[1], store, **SHORT)
    with torch.no_grad():
        train(saes[2], store, **SHORT)
    assert same(saes[0], saes[1]) and same(saes[0], saes[2])


@pytest.mark.parametrize("frozen", ["W_dec", "W_enc", "b_enc", "b_dec"])
@pytest.mark.parametrize("rule", ["mutual_choice", "relu"])
def test_what_is_frozen_stays(frozen, rule):
    store, _, _ = store_and_held_out(n_tokens=2000)
    sae = fresh(rule)
    train(sae, store, **SHORT)
    before = {name: p.detach().clone() for name, p in sae.named_parameters()}
    getattr(sae, frozen).requires_grad_(False)
    train(sae, store, **SHORT)
    moved = {name for name, p in sae.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"W_dec", "W_enc", "b_enc", "b_dec"} - {frozen}


def test_help_shows_every_argument():
    many, one = (inspect.signature(function).parameters for function in (train_many, train))
    assert list(one) == ["sae", *list(many)[1:]] and list(many)[0] == "saes"
    assert {"checkpoint", "resume", "on_step", "progress", "changes"} <= set(one)
    documented = set(re.findall(r"\w+", train.__doc__))
    assert set(one) - documented == set()


def test_stores_that_do_not_fit_are_refused():
    x, _ = superposed(300)
    store = ActivationStore.from_tensor(x)
    with pytest.raises(ValueError, match="all activations of store are equal"):
        train(fresh(), ActivationStore.from_tensor(torch.ones(300, 16)), **SHORT)
    with pytest.raises(ValueError, match="width 16, the SAE has d_in=8"):
        train(SparseAutoencoder(SAEConfig(8, 32, k=3)), store, **SHORT)
    with pytest.raises(ValueError, match="target_store is what a transcoder predicts"):
        train(fresh(), store, target_store=store, **SHORT)
    with pytest.raises(ValueError, match="target_store has width 16, the SAE has d_out=6"):
        train(fresh(d_out=6), store, target_store=store, **SHORT)
    with pytest.raises(ValueError, match="belong together"):
        train(fresh(d_out=16), store, target_store=ActivationStore.from_tensor(x[:200]), **SHORT)


def test_activations_of_another_hook_are_warned_of():
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    a, b, unknown = (ActivationStore.from_tensor(x, hook_name=name) for name in ("A", "B", None))
    sae, short = SparseAutoencoder(SAEConfig(8, 16, "token_choice", k=2)), dict(steps=2, batch_size=64, progress=False)
    transcoder = SparseAutoencoder(SAEConfig(8, 16, "token_choice", k=2, d_out=8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for store in (a, a, unknown):
            train(sae, store, **short)
            train(transcoder, a, target_store=store, **short)
    with pytest.warns(UserWarning, match="this SAE was trained on 'A', and goes on with 'B'"):
        train(sae, b, **short)
    with pytest.warns(UserWarning, match="this SAE was trained on 'A', and goes on with 'B'"):
        train(transcoder, a, target_store=b, **short)
    assert (sae.hook_name, transcoder.hook_name, transcoder.target_hook_name) == ("B", "A", "B")


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec"])
def test_what_is_frozen_from_the_start_stays(name):
    store, sae = store_and_held_out(n_tokens=2000)[0], SparseAutoencoder(SAEConfig(16, 48, "mutual_choice", k=3))
    parameter = sae.get_parameter(name).requires_grad_(False)
    before = parameter.clone()
    train(sae, store, steps=4, batch_size=128, progress=False)
    assert torch.equal(parameter, before)
    if name != "b_dec":
        with pytest.raises(
            ValueError, match=f"resample_at would change what is frozen .{name}.; leave resample_at out"
        ):
            train(sae, store, steps=4, batch_size=128, resample_at=(0.5,), progress=False)


def test_no_gradients_are_left():
    sae = SparseAutoencoder(SAEConfig(16, 48, "mutual_choice", k=3))
    train(sae, store_and_held_out(n_tokens=2000)[0], steps=4, batch_size=128, progress=False)
    assert all(parameter.grad is None for parameter in sae.parameters())


@pytest.mark.parametrize("part", [0.01, 0.99])
def test_resampling_comes_between_the_first_and_the_last_step(part):
    with pytest.raises(ValueError, match="after its first and before its last of 20 steps, got"):
        TrainSettings(steps=20, resample_at=(part,))


@pytest.mark.parametrize("scale", [1 / 30, 30.0])
def test_jumprelu_is_the_same_in_any_units(scale):
    """Without normalisation: where thresholds start, and where they learn, goes with the scale of the activations."""
    from sae_tutorial.training.penalties import PenaltyLosses

    u, gates = torch.randn(256, 16, generator=torch.Generator().manual_seed(0)), []
    for s in (1.0, scale):
        sae = SparseAutoencoder(SAEConfig(16, 48, "jumprelu", normalise=False))
        start_(sae, s * u)
        losses = PenaltyLosses(sae, TrainSettings(), variance=float((s * u).var(0).mean()))
        losses(s * u, s * u, step=100).loss.backward()
        gates.append((sae.threshold.detach() / s, (sae.threshold.grad != 0)))
    torch.testing.assert_close(gates[0][0], gates[1][0], rtol=1e-4, atol=1e-6)
    assert torch.equal(gates[0][1], gates[1][1])
