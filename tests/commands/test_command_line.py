"""The command line, as people use it: a text file to an SAE to its page; settings, errors in one line, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from sae_tutorial import SAEConfig, __version__, load_metadata, load_sae, story_tokens
from sae_tutorial.__main__ import main
from sae_tutorial.activations.shipped_text import shipped_tokens, story_samples
from sae_tutorial.commands import options
from sae_tutorial.commands.sources import Reading, name_of, of_metadata
from sae_tutorial.training.settings import TrainSettings

SMALL = "--context 32 --held-out 8 --steps 12 --batch-size 64 --d-sae 64 --k 4".split()


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory, model):
    file = tmp_path_factory.mktemp("text") / "mine.txt"
    file.write_text("".join(model.tokenizer.batch_decode(story_tokens(4_000, seed=3)[:, 1:])), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """Two SAEs of a text file, in one folder."""
    out = tmp_path_factory.mktemp("saes")
    os.environ["SAE_TUTORIAL_CACHE"], before = str(out / "cache"), os.environ.get("SAE_TUTORIAL_CACHE")
    try:
        rules = ["--rule", "token_choice", "relu"]
        assert main(["train", "--text", str(text), *SMALL, *rules, "--out", str(out / "saes")]) == 0
    finally:
        os.environ.pop("SAE_TUTORIAL_CACHE") if before is None else os.environ.update(SAE_TUTORIAL_CACHE=before)
    return out / "saes"


def test_train_leaves_saes_with_what_they_are(trained, text):
    sae = load_sae(trained / "token_choice")
    assert (sae.config.d_sae, sae.config.k, sae.hook_name) == (64, 4, "blocks.1.hook_resid_post")
    about = load_metadata(trained / "token_choice")
    assert about["reading"]["text"] == str(text) and about["training"]["steps"] == 12
    assert 0 < about["quality"]["fvu"] < 2 and about["quality"]["l0"] == pytest.approx(4)
    with np.load(trained / "token_choice" / "history.npz") as kept:
        assert len(kept["fvu"]) == 12 and len(kept["density"]) == 64
    card = (trained / "token_choice" / "README.md").read_text()
    assert "mine.txt" in card and str(text.parent) not in card and "token_choice" in card
    assert load_sae(trained / "relu").config.k is None, "a budget for all is for those that have one"
    assert not list(trained.glob("checkpoint*")) and about["reading"]["device"] is None


def test_evaluate_remembers_the_text_and_measures_the_same(trained, capsys):
    assert main(["evaluate", str(trained / "token_choice"), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out).values()
    kept = load_metadata(trained / "token_choice")["quality"]
    assert found.keys() == kept.keys()
    assert all(found[name] == pytest.approx(kept[name], rel=1e-4) for name in kept if kept[name] is not None)
    assert main(["evaluate", str(trained / "token_choice"), str(trained / "relu"), "--held-out", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "FVU" in lines[0] and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [("--context 64", "context=64"), ("--tokens 3000", "tokens=3000"), ("--held-out 9", "only 8 rows were held out")],
)
def test_rows_that_an_sae_has_seen_are_not_measured_on(trained, flags, words, capsys):
    for command in ("evaluate", "report"):
        assert main([command, str(trained / "token_choice"), *flags.split()]) == 1
        assert words in capsys.readouterr().err


def test_a_text_that_has_changed_is_noticed(text, tmp_path, capsys):
    mine = tmp_path / "changing.txt"
    mine.write_text(text.read_text())
    assert main(["train", "--text", str(mine), *SMALL, "--steps", "2", "--out", str(tmp_path / "out")]) == 0
    mine.write_text(text.read_text()[:-900])
    folder = str(tmp_path / "out" / "mutual_choice")
    assert main(["evaluate", folder]) == 1 and "has changed" in capsys.readouterr().err
    assert main(["evaluate", folder, "--text", str(text)]) == 0, "another text may be read as one likes"


def test_hardly_any_feature_fires(text, tmp_path, capsys):
    """What cannot be measured is left out, and no training is lost by it."""
    args = ["train", "--text", str(text), *SMALL, "--d-sae", "6", "--k", "1", "--out", str(tmp_path / "out")]
    assert main(args) == 0
    assert load_metadata(tmp_path / "out" / "mutual_choice")["quality"]["underused"] is None
    assert main(["evaluate", str(tmp_path / "out" / "mutual_choice"), "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told[told.index("{") :])
    assert "NaN" not in told


def test_the_page_is_one_file_with_everything(trained, capsys):
    assert main(["report", str(trained / "token_choice"), "--features", "2"]) == 0
    page = (trained / "token_choice" / "report.html").read_text(encoding="utf-8")
    assert str(trained / "token_choice" / "report.html") in capsys.readouterr().out
    assert "mine.txt" in page and str(trained.parent) not in page
    assert "Training ended at an FVU" in page and "never fire on this text" in page and "Most frequent" in page
    shown = re.findall(r'<section id="f(\d+)">', page)
    assert len(shown) == len(set(shown)) > 2, "no feature twice"
    assert not re.search(r"<script[^>]* src=|<link ", page), "it needs no network"


def test_a_report_for_neuronpedia(trained, tmp_path, capsys):
    folder, there = trained / "token_choice", tmp_path / "shared"
    page = ["--features", "1", "--out", str(tmp_path / "page.html"), "--quiet"]
    assert main(["report", str(folder), *page, "--neuronpedia", str(there), "--sae-set", "res-mine"]) == 0
    assert str(there / "batch-0.json") in capsys.readouterr().out
    batch = json.loads((there / "batch-0.json").read_text())
    assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("stories", 1, "res-mine")
    assert batch["features"][0]["dataset"] == "mine.txt"
    assert all(one["frac_nonzero"] > 0 for one in batch["features"]), "features that fire"
    assert main(["report", str(folder), *page, "--neuronpedia", str(there), "--hook", "hook_embed"]) == 1
    assert "hook='hook_embed' is in none" in capsys.readouterr().err


@pytest.mark.parametrize("context", [32, 100, 256])
def test_no_story_is_trained_on_and_measured_on(model, context):
    to_train, held_out = Reading(tokens=200_000, context=context, held_out=64).rows(model)
    every = story_tokens(200_000, context)
    sample = dict(zip(map(tuple, every.tolist()), story_samples(200_000, context).tolist()))
    of_train, of_held_out = ({sample[tuple(row)] for row in rows.tolist()} for rows in (to_train, held_out))
    assert len(held_out) == 64 and not of_train & of_held_out
    lost = len(every) - len(to_train) - 64
    assert lost <= 64 * (255 // (context - 1) - 1), "nothing else is left out"


def test_at_most_is_what_there_is(model):
    to_train, held_out = Reading(context=200).rows(model)  # fewer tokens are shipped in rows of 200 than in rows of 256
    assert 1_000_000 < (len(to_train) + len(held_out)) * 200 <= shipped_tokens(200) < 2_000_000


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, "the text that comes with the model"),
        ("/home/me/mine.txt", "mine.txt"),
        ("owner/stories", "owner/stories"),
    ],
)
def test_what_others_read_of_a_text(text, name):
    assert name_of(text) == name


def test_the_version_is_told_at_once():
    code = "import sys; from sae_tutorial.__main__ import main; main(['--version']); sys.exit('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == __version__


def test_a_file_of_settings_and_flags_that_have_the_last_word(text, tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(
        f'text = "{text}"\ncontext = 32\nheld_out = 8\n[train]\nsteps = 6\nbatch_size = 64\n'
        '[[sae]]\nname = "wide"\nrule = "token_choice"\nd_sae = 96\nk = 2\n'
        '[[sae]]\nrule = "mutual_choice"\nd_sae = 32\n'
    )
    assert main(["train", "--config", str(file), "--k", "3", "--steps", "4", "--out", str(tmp_path / "out")]) == 0
    wide, other = load_sae(tmp_path / "out" / "wide"), load_sae(tmp_path / "out" / "mutual_choice")
    assert (wide.config.d_sae, wide.config.k, other.config.d_sae, other.config.k) == (96, 3, 32, 3)
    assert load_metadata(tmp_path / "out" / "wide")["training"]["steps"] == 4
    assert main(["train", "--config", str(file), "--rule", "relu", "relu", "--out", str(tmp_path / "x")]) == 1
    assert "leave one of both away" in capsys.readouterr().err


def test_a_harvest_is_found_again_and_trained_on(text, tmp_path, capsys):
    read = ["--text", str(text), "--context", "32", "--held-out", "8", "--dtype", "bfloat16"]
    assert main(["harvest", *read, "--out", str(tmp_path / "acts")]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "acts").rglob("*.bin")}
    assert times and main(["harvest", *read, "--out", str(tmp_path / "acts")]) == 0
    assert {file: file.stat().st_mtime_ns for file in times} == times
    args = ["train", "--store", folder, "--steps", "3", "--batch-size", "64", "--d-sae", "32", "--k", "2"]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    assert load_sae(tmp_path / "out" / "mutual_choice").config.d_sae == 32
    reading = load_metadata(tmp_path / "out" / "mutual_choice")["reading"]
    assert (reading["text"], reading["dtype"], reading["held_out"]) == (str(text), "bfloat16", 8)
    capsys.readouterr()
    for flag, value in (("--hook", "blocks.2.hook_mlp_out"), ("--tokens", "1000"), ("--dtype", "float32")):
        assert main([*args, flag, value, "--out", str(tmp_path / "other")]) == 1
        assert f"leave {flag} away" in capsys.readouterr().err
    assert main([*args[:2], str(tmp_path), *args[3:], "--out", str(tmp_path / "other")]) == 1
    assert "has no reading.json" in capsys.readouterr().err


def test_gradients_are_harvested_where_a_rule_wants_them(text, tmp_path):
    args = ["train", "--text", str(text), *SMALL, "--steps", "3", "--rule", "gradient_choice"]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    assert load_sae(tmp_path / "out" / "gradient_choice").config.gradient_weight == 1


def test_settings_go_to_the_saes_that_have_a_use_for_them(text, tmp_path):
    args = ["train", "--text", str(text), *SMALL, "--steps", "2", "--rule", "relu", "token_choice", "--l1", "0.3"]
    assert main([*args, "--aux-k", "0", "--out", str(tmp_path / "out")]) == 0
    relu, token = (load_metadata(tmp_path / "out" / name)["training"] for name in ("relu", "token_choice"))
    assert (relu["l1"], token["l1"], token["aux_k"]) == (0.3, None, 0)


def test_a_killed_training_goes_on(text, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["--text", str(text), *SMALL, "--steps", "400", "--checkpoint-every", "20", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sae_tutorial", "train", *args]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if list(out.glob("checkpoint*.pt")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [checkpoint] = out.glob("checkpoint*.pt")
    assert not (out / "mutual_choice").exists()
    assert main(["train", *args]) == 0
    once = tmp_path / "once"
    assert main(["train", *args[:-1], str(once)]) == 0
    ours, theirs = (load_sae(folder / "mutual_choice").state_dict() for folder in (out, once))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "as if nothing had happened"
    assert not checkpoint.exists()
    checkpoint.write_bytes(b"another run")
    assert main(["train", *args]) == 1 and f"delete {checkpoint}" in capsys.readouterr().err


def under_torchrun(n, *line):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*torchrun, "-m", "sae_tutorial", *line], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("split", ["tokens", "features"])
def test_processes_of_torchrun_share_a_training(split, text, trained, tmp_path):
    line = ["train", "--text", str(text), *SMALL, "--rule", "token_choice", "--quiet", "--out", str(tmp_path / "saes")]
    line += ["--split", split]
    ended = under_torchrun(2, *line)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("in ") == 1 and "token_choice" in ended.stdout, "one of them tells"
    ours, theirs = load_sae(trained / "token_choice"), load_sae(tmp_path / "saes" / "token_choice")
    assert theirs.tokens_seen == ours.tokens_seen
    torch.testing.assert_close(theirs.W_dec, ours.W_dec, rtol=1e-4, atol=1e-4)
    refused = under_torchrun(2, "evaluate", str(tmp_path / "saes" / "token_choice"))
    assert refused.returncode != 0 and "without torchrun" in refused.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train --steps ten", "steps must be a whole number"),
        ("train --text nowhere.txt", "text='nowhere.txt'"),
        ("train --text 2024", "text='2024'"),  # a file may have a number for a name
        ("train --device gpu", "device='gpu' is no device"),
        ("train --context 300", "context=300"),
        ("train --rule token_choice --k 0", "k must be"),
        ("train --l1 0.1", "l1=0.1 is no setting of rule"),
        ("train --model gpt2-nowhere", "gpt2-nowhere"),
        ("train --config nowhere.toml", "no such file"),
        ("train --hook blocks.9.mlp --tokens 40000", "blocks.9.mlp"),
        ("train --held-out 9999 --tokens 40000", "held_out=9999"),
        ("evaluate nowhere", "nowhere"),
        ("report nowhere", "nowhere"),
        ("clean nothing", "'nothing' is nothing that could be deleted"),
    ],
)
def test_errors_are_one_line(line, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(line.split()) == 1
    err = capsys.readouterr().err
    told = [one for one in err.splitlines() if one.startswith("error: ")]
    assert len(told) == 1 and words in told[0] and "Traceback" not in err


def test_what_makes_no_sense_is_argparses(capsys):
    for line in ("", "trian", "train --steeps 3", "train --rule topk"):
        with pytest.raises(SystemExit) as stopped:
            main(line.split())
        assert stopped.value.code == 2
    with pytest.raises(TypeError, match="steps must be"):
        main(["train", "--steps", "ten", "--debug"])


def test_saes_that_are_there_are_not_lost(trained, text, capsys):
    args = ["train", "--text", str(text), *SMALL, "--rule", "token_choice", "--out", str(trained)]
    before = (trained / "token_choice" / "cfg.json").stat().st_mtime_ns
    assert main(args) == 1 and "--again" in capsys.readouterr().err
    assert (trained / "token_choice" / "cfg.json").stat().st_mtime_ns == before


def test_interrupted(monkeypatch, capsys):
    from sae_tutorial.commands import caches

    def stopped(args):
        """Stops."""
        raise KeyboardInterrupt

    monkeypatch.setattr(caches, "models", stopped)
    assert main(["models"]) == 130 and "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("steps = 3", "outside of tables"),
        ("[train]\nrate = 1", r"'rate' is no setting \[train\]"),
        ("[[sae]]\nwidth = 1", r"'width' is no setting \[sae\]"),
        ("[sae]\nk = 1", "for each SAE"),
        ("sae = [1, 2]", "for each SAE"),
        ("k = = 1", "no TOML"),
    ],
)
def test_files_of_settings_that_say_something_else(toml, words, tmp_path):
    from sae_tutorial.commands.work import KNOWN

    file = tmp_path / "run.toml"
    file.write_text(toml)
    with pytest.raises(ValueError, match=words):
        options.read_toml(str(file), KNOWN)


def test_values_are_written_as_in_toml_or_python():
    texts = ("0.1", ".1", "3", "true", "False", "[1, 2]", "(0.9, 0.99)", "none", "token_choice", "1e-3", '"3"')
    values = [0.1, 0.1, 3, True, False, [1, 2], (0.9, 0.99), None, "token_choice", 1e-3, "3"]
    assert [options.value_of(one) for one in texts] == values
    assert [options.text_of(one) for one in ("2024", "None", "x")] == ["2024", None, "x"]


def test_every_field_is_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for settings in (Reading, SAEConfig, TrainSettings):
        for name in options.fields_of(settings, ("d_in", "d_out", "skip")):
            assert f"--{name.replace('_', '-')}" in told, name
    assert "peak learning rate" in told


def test_models_and_caches_are_told(tmp_path, capsys):
    assert main(["models"]) == 0 and "reference_sae" in capsys.readouterr().out
    assert main(["clean"]) == 0 and "nothing is there that could be deleted" in capsys.readouterr().out
    (tmp_path / "theses").mkdir()
    (tmp_path / "theses" / "mine").write_text("years of work")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine").mkdir()
    (tmp_path / "cache" / "training").symlink_to(tmp_path / "theses")
    assert main(["clean", "mine"]) == 1 and "nothing that could be deleted" in capsys.readouterr().err
    assert main(["clean", "training"]) == 0 and (tmp_path / "theses" / "mine").exists()
    (tmp_path / "cache" / "mine").rmdir()
    capsys.readouterr()
    (tmp_path / "cache" / "harvests" / "one").mkdir(parents=True)
    (tmp_path / "cache" / "harvests" / "one" / "x.bin").write_bytes(b"x" * 2_000_000)
    (tmp_path / "cache" / "models").mkdir()
    assert main(["clean"]) == 0
    assert re.search(r"harvests\s+2\.0 MB", capsys.readouterr().out)
    assert main(["clean", "harvests"]) == 0 and "2.0 MB freed" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["models"]


def test_an_sae_from_elsewhere_tells_its_model_and_hook():
    found = of_metadata({"model_name": "smollm2", "hook_name": "blocks.3.hook_mlp_out", "context_size": 128}, {})
    assert (found.model, found.hook, found.context) == ("smollm2", "blocks.3.hook_mlp_out", 128)
    own = {"model": "stories", "hook": "blocks.1.hook_resid_post", "tokens": 9}
    assert of_metadata({"reading": own}, {"tokens": 5}).tokens == 5
    with pytest.raises(ValueError, match="--model"):
        of_metadata({"hook_name": "blocks.3.hook_mlp_out"}, {})
    with pytest.raises(ValueError, match="--hook"):
        of_metadata({"model_name": "stories"}, {})
