"""train on synthetic superposition: dictionaries are recovered, runs resume bit for bit, and refusals have reasons."""

import copy

import numpy as np
import pytest
import torch
from synthetic import recovered, store_and_held_out, superposed

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_sae, save_sae, train
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings

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
    assert fvu(sae, held_out) == pytest.approx(losses[-20:].mean(), abs=0.03)
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


@pytest.mark.parametrize("rule", ["mutual_choice", "feature_choice", "token_choice", "jumprelu", "relu"])
def test_resume_continues_bit_for_bit(rule, tmp_path):
    store, _, _ = store_and_held_out(n_tokens=2000)
    options = SHORT | PENALTIES.get(rule, {}) | dict(dead_after=300, aux_zipf=0.1, aux_latents=4)
    options |= dict(p_end=0.0) if rule == "relu" else {}
    whole = train(sae := fresh(rule), store, **options)

    class Interrupted(Exception):
        pass

    def stop(step, metrics):
        if step == 7:
            raise Interrupted

    path = tmp_path / "deep" / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(fresh(rule), store, **options, checkpoint=path, checkpoint_every=6, on_step=stop, log_every=1)
    other = fresh(rule)
    rest = train(other, store, **options, checkpoint=path, resume=True)
    assert same(sae, other)
    for name, series in whole.metrics.items():
        np.testing.assert_array_equal(series, rest.metrics[name])
    assert torch.equal(whole.density, rest.density)
    again = fresh(rule)  # the finished checkpoint is the finished SAE
    train(again, store, **options, checkpoint=path, resume=True)
    assert same(sae, again)
    with pytest.raises(ValueError, match=r"belongs to another run: lr was None and is 0.01"):
        train(fresh(rule), store, **options, checkpoint=path, resume=True, lr=0.01)


def test_a_checkpoint_is_not_resumed_on_other_activations(tmp_path):
    x, _ = superposed(2000)
    path = tmp_path / "checkpoint.pt"
    train(fresh(), ActivationStore.from_tensor(x), **SHORT, checkpoint=path)
    for other in (x * 50 + 7, x[:1900], x + 0.1):
        with pytest.raises(ValueError, match="checkpoint.pt belongs to another run: its store had 2000 positions"):
            train(fresh(), ActivationStore.from_tensor(other), **SHORT, checkpoint=path, resume=True)
    whole = path.read_bytes()
    for damage in (b"abc", b"", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="checkpoint.pt is damaged, or no checkpoint"):
            train(fresh(), ActivationStore.from_tensor(x), **SHORT, checkpoint=path, resume=True)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match="checkpoint.pt is not a checkpoint that this version"):
        train(fresh(), ActivationStore.from_tensor(x), **SHORT, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="resume=True goes on from a checkpoint, but there is none"):
        train(fresh(), ActivationStore.from_tensor(x), **SHORT, resume=True)


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
    assert "12/12" in shown and "FVU 0." in shown and "L0 3.0" in shown and "dead 0.0%" in shown


def test_run_describes_itself():
    store, _, _ = store_and_held_out(n_tokens=2000)
    run = train(fresh(), store, **SHORT)
    assert "12 steps" in repr(run) and "L0 3.0" in repr(run)
    assert set(run.metrics) == {"loss", "fvu", "l0", "dead", "aux", "penalty", "grad_norm", "lr"}
    assert all(np.isfinite(series).all() for series in run.metrics.values())


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
        (dict(betas=(0.9,)), r"betas must be two numbers from 0 to below 1, for example \(0.9, 0.999\), got \(0.9,\)"),
        (dict(resample_at=0.5), r"resample_at must be a list, got 0.5"),
    ],
)
def test_settings_say_what_is_wrong(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        TrainSettings(**wrong)


def test_what_train_is_given_says_what_is_wrong():
    store = ActivationStore.from_tensor(superposed(300)[0])
    for wrong in (dict(log_every=0), dict(checkpoint_every=0)):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number, 1 or more, got 0"):
            train(fresh(), store, **SHORT, **wrong)
    with pytest.raises(ValueError, match="the same SAE twice"):
        train_many([sae := fresh(), sae], store, **SHORT)
    with pytest.raises(ValueError, match="k=0.001 leaves not one match to a batch of 128 tokens"):
        train(SparseAutoencoder(SAEConfig(16, 48, k=1e-3)), store, **SHORT)


def test_stores_that_do_not_fit_are_refused():
    x, _ = superposed(300)
    store = ActivationStore.from_tensor(x)
    with pytest.raises(ValueError, match=r"batch_size=512 is larger than the store \(300 positions\)"):
        train(fresh(), store, steps=2, batch_size=512, progress=False)
    with pytest.raises(ValueError, match="all activations of store are equal"):
        train(fresh(), ActivationStore.from_tensor(torch.ones(300, 16)), **SHORT)
    with pytest.raises(ValueError, match="width 16, the SAE has d_in=8"):
        train(SparseAutoencoder(SAEConfig(8, 32, k=3)), store, **SHORT)
    with pytest.raises(ValueError, match="target_store is what a transcoder predicts"):
        train(fresh(), store, target_store=store, **SHORT)
    with pytest.raises(ValueError, match="target_store has width 16, the SAE has d_out=6"):
        train(fresh(d_out=6), store, target_store=store, **SHORT)
    with pytest.raises(ValueError, match="do not belong together"):
        train(fresh(d_out=16), store, target_store=ActivationStore.from_tensor(x[:200]), **SHORT)
    with pytest.raises(TypeError, match="unknown setting 'learning_rate'; there are: steps, batch_size"):
        train(fresh(), store, learning_rate=1e-3)


def test_a_refused_store_leaves_the_sae_fresh():
    x, _ = superposed(300)
    sae = fresh()
    before = copy.deepcopy(sae)
    with pytest.raises(ValueError):
        train(sae, ActivationStore.from_tensor(x), steps=2, batch_size=512, progress=False)
    assert same(sae, before)
