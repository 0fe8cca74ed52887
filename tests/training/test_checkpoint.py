"""Checkpoints: a run goes on bit for bit, or an error explains why not; nothing is half written or half read."""

import contextlib
import os
import random
import resource
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from synthetic import store_and_held_out, superposed

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, TrainSettings, load_sae, save_sae, train
from sae_tutorial.activations.files import HOST
from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES
from sae_tutorial.training.loop import train_many

PENALTIES = {"relu": {"l1": 0.1}, "gated": {"l1": 0.1}, "jumprelu": {"l0": 0.01}}
SHORT = dict(steps=12, batch_size=128, progress=False)


class Interrupted(Exception):
    pass


def stop_at_7(step, metrics):
    if step == 7:
        raise Interrupted


def fresh(rule="mutual_choice", d_sae=48, **more):
    return SparseAutoencoder(SAEConfig(16, d_sae, rule, k=3 if rule in BUDGET_RULES else None, **more))


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.fixture(scope="module")
def store():
    return store_and_held_out(n_tokens=2000)[0]


@pytest.fixture
def path(store, tmp_path):
    """The checkpoint of a run that was interrupted at step 7."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(fresh(), store, **SHORT, checkpoint=path, checkpoint_every=6, on_step=stop_at_7, log_every=1)
    return path


def resume(store, path, **changes):
    return train(fresh(), store, **SHORT | changes, checkpoint=path, resume=True)


@pytest.mark.parametrize("rule", [*BUDGET_RULES, *PENALTY_RULES, "relative", "floor"])
def test_resume_continues_bit_for_bit(rule, store, tmp_path):
    more = {"relative": {"relative": True}, "floor": {"floor": 0.1, "floor_shape": "zipf"}}.get(rule, {})
    rule = "mutual_choice" if more else rule
    options = SHORT | PENALTIES.get(rule, {}) | dict(dead_after=300)
    options |= dict(aux_zipf=0.1, aux_latents=4) if rule in BUDGET_RULES else {}
    options |= dict(p_end=0.0, resample_at=(0.4, 0.8)) if rule == "relu" else {}
    whole = train(sae := fresh(rule, **more), store, **options)
    path = tmp_path / "deep" / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(
            fresh(rule, **more), store, **options, checkpoint=path, checkpoint_every=6, on_step=stop_at_7, log_every=1
        )
    other = fresh(rule, **more)
    rest = train(other, store, **options, checkpoint=path, resume=True)
    assert same(sae, other) and (whole.resumed_at, rest.resumed_at) == (0, 6) and "resumed at step 6" in repr(rest)
    for name, series in whole.metrics.items():
        np.testing.assert_array_equal(series, rest.metrics[name])
    assert torch.equal(whole.density, rest.density)
    again = fresh(rule, **more)  # the finished checkpoint is the finished SAE
    assert train(again, store, **options, checkpoint=path, resume=True).resumed_at == 12
    assert same(sae, again)
    with pytest.raises(ValueError, match=r"belongs to another run: SAE.0.lr was None and is 0.01"):
        train(fresh(rule, **more), store, **options, checkpoint=path, resume=True, lr=0.01)


@pytest.mark.parametrize("rule", ["mutual_choice", "relu"])
def test_what_began_with_an_imported_sae_resumes_bit_for_bit_with_a_fresh_one(rule, store, tmp_path):
    """What a run must not forget: the norms that rows began with, and the units in which the loss is counted."""
    saes, options = [], SHORT | PENALTIES.get(rule, {}) | dict(checkpoint_every=6, log_every=1)
    for path, on_step in ((None, None), (tmp_path / "checkpoint.pt", stop_at_7)):
        sae = fresh(rule)
        with torch.no_grad():
            sae.W_dec.mul_(torch.linspace(0.2, 3, 48)[:, None])
            sae.tokens_seen.fill_(1)
        with contextlib.suppress(Interrupted):
            train(sae, store, **options, checkpoint=path, on_step=on_step)
        saes.append(sae)
    train(other := fresh(rule), store, **options, checkpoint=path, resume=True)
    assert same(saes[0], other) and not same(*saes)


def test_numbers_of_numpy_and_torch_train_checkpoint_resume_and_save(store, tmp_path):
    path = tmp_path / "checkpoint.pt"
    numbers = dict(steps=np.int64(12), batch_size=torch.tensor(128), seed=np.int32(3), lr=np.logspace(-3, -2, 3)[0])
    numbers |= dict(dead_after=np.int64(300), aux_zipf=np.float32(0.1), resample_at=np.array([0.5]))
    numbers |= dict(betas=np.array([0.9, 0.99]))
    often = dict(checkpoint_every=np.int64(6), log_every=torch.tensor(1), progress=False)

    def one():
        return SparseAutoencoder(SAEConfig(np.int64(16), torch.tensor(48), k=np.float64(3), zipf_offset=np.float32(2)))

    with pytest.raises(Interrupted):
        train(one(), store, **numbers, **often, checkpoint=path, on_step=stop_at_7)
    content = torch.load(path, weights_only=True)  # numbers of numpy would be refused
    assert content["settings"][0]["lr"] == 1e-3 and type(content["settings"][0]["lr"]) is float
    run = train(sae := one(), store, **numbers, **often, checkpoint=path, resume=True)
    assert run.resumed_at == 6 and {type(value) for value in (run.settings.steps, run.settings.seed)} == {int}
    assert same(load_sae(save_sae(sae, tmp_path / "sae", lr=run.settings.lr)), sae)


def test_texts_of_numpy_are_checkpointed_and_resumed(store, tmp_path):
    """A sweep over np.array([...]) of names hands out texts of numpy's own kind, which no checkpoint can hold."""
    named = ActivationStore.from_tensor(store.rows(slice(None)), hook_name=np.str_("blocks.1.hook_resid_post"))
    settings = SHORT | {"encoder_dtype": np.str_("float32"), "checkpoint": tmp_path / "checkpoint.pt"}
    sae = fresh(np.str_("token_choice"), capacity=np.str_("uniform"))
    assert {type(text) for text in (sae.config.rule, sae.config.capacity, named.hook_name)} == {str}
    train(sae, named, **settings)
    again = fresh(np.str_("token_choice"), capacity=np.str_("uniform"))
    assert train(again, named, **settings, resume=True).resumed_at == SHORT["steps"] and same(sae, again)


# ---------------------------------------------------------------------- whether it is there


def test_resume_needs_a_checkpoint_unless_it_is_auto(store, path, capsys):
    typo = path.with_name("checkpiont.pt")
    words = r"there is no .*checkpiont.pt \(its folder has checkpoint.pt\).*resume=\"auto\""
    with pytest.raises(FileNotFoundError, match=words):
        train(sae := fresh(), store, **SHORT, checkpoint=typo, resume=True)
    assert same(sae, fresh()) and not typo.exists()
    assert train(fresh(), store, **SHORT, checkpoint=typo, resume="auto").resumed_at == 0
    assert train(fresh(), store, **SHORT | dict(progress=True), checkpoint=path, resume="auto").resumed_at == 6
    assert "resumed at step 6" in capsys.readouterr().err
    with pytest.raises(ValueError, match="resume=True goes on from a checkpoint, but there is none"):
        train(fresh(), store, **SHORT, resume=True)
    with pytest.raises(ValueError, match="resume must be True, False or \"auto\", got 'yes'"):
        train(fresh(), store, **SHORT, checkpoint=path, resume="yes")
    with pytest.raises(TypeError, match="checkpoint must be the path of a file or folder, got 3"):
        train(fresh(), store, **SHORT, checkpoint=3)


def test_a_tilde_is_the_home_folder(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(fresh(), store, **SHORT, checkpoint="~/runs/one.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]
    assert train(fresh(), store, **SHORT, checkpoint="~/runs/one.pt", resume=True).resumed_at == 12


# ---------------------------------------------------------------------- other runs


def test_a_checkpoint_is_not_resumed_on_other_activations(tmp_path):
    x, _ = superposed(2000)
    path = tmp_path / "checkpoint.pt"
    train(fresh(), ActivationStore.from_tensor(x, "blocks.1.hook_resid_post"), **SHORT, checkpoint=path)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    for other in (x * 50 + 7, x[:1900], x + 0.1, x[order], x.flip(0), x[torch.arange(2000) - 1]):
        with pytest.raises(ValueError, match="checkpoint.pt belongs to another run: store: its "):
            resume(ActivationStore.from_tensor(other), path)
    with pytest.raises(ValueError, match="its hook_name is blocks.1.hook_mlp_out and was blocks.1.hook_resid_post"):
        resume(ActivationStore.from_tensor(x, "blocks.1.hook_mlp_out"), path)
    assert resume(ActivationStore.from_tensor(x), path).resumed_at == 12  # a hook that is not known is not compared
    rounded = x * (1 + 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))  # another machine
    assert resume(ActivationStore.from_tensor(rounded), path).resumed_at == 12


def test_a_checkpoint_of_other_saes_is_refused(store, path):
    with pytest.raises(ValueError, match="holds 1 SAEs, but 2 are to be trained"):
        train_many([fresh(), fresh()], store, **SHORT, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="belongs to another run: SAE.0.d_sae was 48 and is 32"):
        train(fresh(d_sae=32), store, **SHORT, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="SAE.0.resample_at.0 was None and is 0.5"):
        resume(store, path, resample_at=(0.5,))


# ---------------------------------------------------------------------- damage


def test_what_is_no_checkpoint_is_refused(store, path):
    whole = path.read_bytes()
    for damage in (b"abc", b"", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="checkpoint.pt is damaged, or no checkpoint"):
            resume(store, path)
    old = {"about": [], "stores": [], "trainees": [], "seconds": 1.0}  # of an earlier version
    for content in ({"a": 1}, [1, 2], torch.zeros(3), old):
        torch.save(content, path)
        with pytest.raises(ValueError, match="checkpoint.pt is no checkpoint that this version of `train` wrote"):
            resume(store, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="checkpoint.pt"):
        resume(store, path)


def test_a_flipped_bit_is_noticed_or_changes_nothing(store, path):
    whole, expected = path.read_bytes(), torch.load(path, weights_only=True)
    draw, noticed = random.Random(0), 0

    def leaves(value):
        if isinstance(value, dict | list | tuple):
            return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
        return [value.numpy().tobytes() if isinstance(value, torch.Tensor) else value]

    from sae_tutorial.training.checkpoint import _read

    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = _read(path)
        except ValueError as error:
            assert "checkpoint.pt" in str(error)
            noticed += 1
        else:
            assert leaves(found) == leaves(expected)
    assert noticed > 100


class Code:
    def __reduce__(self):
        return (os.system, ("touch /should-not-exist",))


def test_what_could_be_code_is_not_opened_and_no_one_is_invited_to(store, path):
    torch.save({"format": Code()}, path)
    with pytest.raises(ValueError, match="holds more than tensors and plain values.*not opened") as caught:
        resume(store, path)
    shown = "".join(map(str, (caught.value, caught.value.__cause__)))
    assert "weights_only" not in shown and caught.value.__suppress_context__
    assert not os.path.exists("/should-not-exist")


def changed(content, change):
    change(content)
    return content


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["SAEs"].clear(), "holds 0 SAEs, but 1 are to be trained"),
        (lambda c: c.update(SAEs=None), "holds 0 SAEs"),
        (lambda c: c.pop("settings"), "no checkpoint that this version"),
        (lambda c: c["settings"][0].pop("lr"), None),
        (lambda c: c["settings"][0].update(lr=3.0), "SAE.0.lr was 3.0 and is None"),
        (lambda c: c["SAEs"][0]["sae"]["W_dec"].fill_(np.nan), "SAE.0.sae.W_dec"),
        (lambda c: c["SAEs"][0]["sae"]["b_enc"][3:4].fill_(np.inf), "SAE.0.sae.b_enc"),
        (lambda c: c["SAEs"][0]["optimiser"]["exp_avg"][0].fill_(np.nan), "SAE.0.optimiser.exp_avg.0"),
        (lambda c: c["SAEs"][0]["optimiser"]["exp_avg"].pop(), "SAE.0.optimiser.exp_avg.3"),
        (lambda c: c["SAEs"][0]["optimiser"].pop("norms"), "SAE.0.optimiser.norms"),
        (lambda c: c["SAEs"][0]["sae"].pop("rank"), "SAE.0.sae.rank"),
        (lambda c: c["SAEs"][0]["sae"].update(mean=torch.zeros(1)), "SAE.0.sae.mean"),
        (lambda c: c["SAEs"][0]["sae"].update(mean=torch.zeros(16).double()), "SAE.0.sae.mean"),
        (lambda c: c["SAEs"][0].update(metrics=torch.zeros(8, 1)), "SAE.0.metrics"),
        (lambda c: c["SAEs"][0].update(step="6"), "SAE.0.step"),
        (lambda c: c["SAEs"][0].update(more=1), "SAE.0.more"),
        (lambda c: c["SAEs"][0]["law"].update(ranks=3), "SAE.0.law.ranks"),
        (lambda c: c["SAEs"][0]["usage"].update(silent=None), "SAE.0.usage.silent"),
        (lambda c: c.update(seconds="3"), "seconds"),
        (lambda c: c.update(stores=None), "holds about its stores"),
        (lambda c: c["stores"].clear(), "holds about its stores"),
        (lambda c: c["stores"].append(c["stores"][0]), "holds about its stores"),
        (lambda c: c["stores"][0].pop("hook_name"), "holds about its stores"),
        (lambda c: c["stores"][0].update(mean=3.0), "holds about its stores"),
        (lambda c: c["stores"][0].update(rows=torch.zeros(2, 3)), "holds about its stores"),
    ],
)
def test_a_checkpoint_that_was_tampered_with_is_refused_and_never_half_used(change, words, store, path):
    torch.save(changed(torch.load(path, weights_only=True), change), path)
    if words is None:  # the default is what it lacks
        assert resume(store, path).resumed_at == 6
        return
    with pytest.raises(ValueError, match=f"checkpoint.pt .*{words}"):
        resume(store, path)


# ---------------------------------------------------------------------- where it cannot be written


@contextlib.contextmanager
def small_disk(n_bytes):
    """Files cannot grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_cannot_be_written_is_noticed_before_the_first_step(store, tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.pt").mkdir()
    for place, words in (("folder.pt", "is a folder; give the path of a file"), ("file/a.pt", "cannot be written")):
        with pytest.raises(OSError, match=words):
            train(sae := fresh(), store, **SHORT, checkpoint=tmp_path / place)
        assert sae.tokens_seen == 0
    for n_bytes in (10, 5_000, 20_000):
        with small_disk(n_bytes), pytest.raises(OSError, match="checkpoint.pt cannot be written .*make room") as caught:
            train(sae := fresh(), store, **SHORT, checkpoint=tmp_path / "checkpoint.pt")
        assert "inline_container" not in str(caught.value) and sae.tokens_seen == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.pt"]


@pytest.mark.parametrize("n_bytes", [10, 5_000, 20_000])
def test_a_disk_that_fills_up_later_costs_the_checkpoint_and_not_the_run(n_bytes, store, tmp_path):
    path, soft = tmp_path / "checkpoint.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.warns(RuntimeWarning) as caught:
            run = train(
                sae := fresh(), store, **SHORT, checkpoint=path, checkpoint_every=4, log_every=1,
                on_step=lambda step, m: step == 5 and resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, soft[1])),
            )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    texts = [str(one.message) for one in caught]
    assert len(texts) == 2 and all("checkpoint.pt cannot be written" in t and "make room" in t for t in texts)
    assert "step 8 is in no checkpoint" in texts[0] and "step 12 is in no checkpoint" in texts[1]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    train(other := fresh(), store, **SHORT)
    assert same(sae, other) and np.isfinite(run.metrics["fvu"]).all()
    assert resume(store, path).resumed_at == 4, "the old one stayed"


def test_what_a_killed_process_left_is_taken_away(store, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"checkpoint.pt.{HOST}.{gone.pid}.0123abcd.unfinished"
    left.write_bytes(b"half")
    train(fresh(), store, **SHORT, checkpoint=tmp_path / "checkpoint.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


TWO = """
    import sys, torch
    from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, train
    seed, path = int(sys.argv[1]), sys.argv[2]
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(seed)) + 100 * seed
    sae = SparseAutoencoder(SAEConfig(16, 48, k=3))
    train(sae, ActivationStore.from_tensor(x), steps=150, batch_size=64, seed=seed, progress=False, checkpoint=path,
          checkpoint_every=1)
"""


def test_two_processes_with_one_checkpoint_neither_die_nor_mix(tmp_path):
    path = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-c", textwrap.dedent(TWO)]
    both = [subprocess.Popen([*command, str(seed), str(path)], stderr=subprocess.PIPE) for seed in (1, 2)]
    seen = set()
    while any(process.poll() is None for process in both) or not seen:
        if path.exists():
            content = torch.load(path, weights_only=True)
            seed = content["settings"][0]["seed"]
            for mean in (content["stores"][0]["mean"], content["SAEs"][0]["sae"]["mean"]):
                assert mean.mean().round(decimals=-2) == 100 * seed
            seen.add(seed)
    assert [process.wait() for process in both] == [0, 0], [process.stderr.read() for process in both]
    assert seen and [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_no_warning_where_all_is_well(store, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(fresh(), store, TrainSettings(steps=4, batch_size=128), progress=False, checkpoint=tmp_path / "a.pt")


def test_a_refused_resume_leaves_the_sae_as_it_was(path, store):
    sae, untouched = fresh(), fresh()
    with pytest.raises(ValueError, match="lr was None and is 0.0005"):
        train(sae, store, **SHORT, checkpoint=path, resume=True, lr=5e-4)
    assert same(sae, untouched) and sae.hook_name is None


def test_an_interrupted_save_beside_it_stays(store, tmp_path):
    """What a killed save left may be all that there is of an SAE: only a checkpoint's own leftovers are deleted."""
    dead = f"{HOST}.999999999.0123abcd.unfinished"
    theirs, ours = tmp_path / f"sae_weights.safetensors.{dead}", tmp_path / f"checkpoint.pt.{dead}"
    for file in (theirs, ours):
        file.write_bytes(b"x")
    train(fresh(), store, **SHORT, checkpoint=tmp_path / "checkpoint.pt")
    assert theirs.exists() and not ours.exists()
