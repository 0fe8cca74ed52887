"""The grid of SAEs: what it holds, in which order, that nothing is trained twice, and what its files keep."""

import argparse
import json
import math

import numpy as np
import pytest
import quality
import torch
from grid import (
    BETAS,
    BETTER_PEERS,
    FACTORS,
    FEWER_FACTORS,
    METHODS,
    MOST_FACTORS,
    PENALISED,
    RULES,
    Run,
    _swept,
    best_factor,
    grid,
    grid_of,
)
from peer_quality import PEERS, activations_file
from quality import Place, Trained, claimed, groups, tuned, with_random_rows

from sae_tutorial import ActivationStore, load_language_model, load_sae, story_tokens
from sae_tutorial.activations.files import ASSETS
from sae_tutorial.course.results import (
    ARRAYS,
    EVIDENCE,
    OF_A_RUN,
    OF_A_TEXT,
    RUNS,
    STABILITY,
    load_evidence,
    load_runs,
)
from sae_tutorial.evaluation.ground_truth import mutual_neighbours


def swept(method, losses, factors=FACTORS, model="stories", steps=1000):
    same = {"part": "rates", "method": method, "model": model, "steps": steps}
    return [same | {"factor": factor, "validation_fvu": loss}
            for factor, loss in zip(factors, losses)]  # fmt: skip


def everything():
    """The grid with all sweeps done, the middle rate best."""
    rows = [row for method in METHODS for row in swept(method, [3, 2, 1, 2, 3])]
    for model, steps in (("smollm2", 1000), ("stories", 3000)):
        rows += [row for method in METHODS for row in swept(method, [2, 1, 2], FEWER_FACTORS, model, steps)]
    return list(dict.fromkeys(grid(rows)))


def test_every_method_has_three_budgets_and_three_seeds_where_a_verdict_is_spoken():
    runs = everything()
    for method in METHODS:
        main = {(run.k, run.seed) for run in runs if run.part == "main" and run.method == method}
        of_verdicts = (16, 32, 64) if method in (*RULES, "feature_choice_uniform", "relative", "floor") else (32,)
        assert main >= {(k, seed) for k in of_verdicts for seed in (0, 1, 2)}, method
        assert main >= {(k, 0) for k in (16, 32, 64)}, method
    for part in ("wide", "length", "smollm2", "noise"):
        for method in RULES[:2]:
            assert len({run.seed for run in runs if run.part == part and run.method == method}) >= 2
    assert {run.method for run in runs} == {*METHODS, *PEERS}
    assert len({run.key for run in runs}) == len(runs)
    assert {run.precision for run in runs if run.part != "precision"} == {"bfloat16"}


def test_of_each_library_the_trainer_with_the_lower_error_has_three_seeds():
    rows = [json.loads(line) for line in (EVIDENCE / RUNS).read_text(encoding="utf-8").splitlines()]
    lowest = {name: min(_swept(rows, name, "stories", 1000).values()) for name in PEERS}
    libraries = {name.rpartition("_")[0] for name in PEERS}
    best = {min((name for name in PEERS if name.startswith(library)), key=lowest.__getitem__) for library in libraries}
    assert set(BETTER_PEERS) == best
    assert {(run.method, run.seed) for run in everything() if run.part == "peers"} == {
        (name, seed) for name in best for seed in (0, 1, 2)
    }


def test_the_longest_runs_take_the_rates_of_the_long_ones():
    rows = swept("mutual_choice", [2, 1, 3], FEWER_FACTORS, steps=3000)
    longest = [run for run in grid(rows) if run.part == "length" and run.steps == 10_000]
    assert {(run.method, run.factor, run.seed) for run in longest} == {("mutual_choice", 1.0, n) for n in range(3)}


def test_a_sweep_goes_on_as_long_as_its_best_is_at_the_end():
    def factors(rows, model="stories", steps=1000):
        wanted = ("rates", "token_choice", model, steps)
        return sorted(run.factor for run in grid(rows) if (run.part, run.method, run.model, run.steps) == wanted)

    run = Run("main", "token_choice", 32, 0)
    assert factors([]) == list(FACTORS) and best_factor([], run) is None
    middle = swept("token_choice", [3, 2, 1, 2, 3])
    assert factors(middle) == list(FACTORS) and best_factor(middle, run) == 1.0 and best_factor(middle[:4], run) is None
    low, high = swept("token_choice", [1, 2, 3, 4, 5]), swept("token_choice", [5, 4, 3, 2, 1])
    assert factors(low) == [0.125, *FACTORS] and factors(high) == [*FACTORS, 8.0]
    assert best_factor(low, run) is None and best_factor(low + swept("token_choice", [2], [0.125]), run) == 0.25
    other = Run("smollm2", "token_choice", 32, 0, model="smollm2")
    assert best_factor(middle, other) is None, "a rate of one model is none of another"
    assert factors(middle, "smollm2") == factors(middle, steps=3000) == list(FEWER_FACTORS)
    assert best_factor(middle + swept("token_choice", [2, 1, 2], FEWER_FACTORS, "smollm2"), other) == 1.0
    longer = Run("length", "token_choice", 16, 0, steps=3000)
    assert best_factor(middle + swept("token_choice", [2, 1, 2], FEWER_FACTORS, steps=3000), longer) == 1.0
    endless = []
    for _ in range(20):
        new = [factor for factor in factors(endless) if factor not in {row["factor"] for row in endless}]
        endless += swept("token_choice", new, new)  # the smaller, the better
    assert len(endless) == MOST_FACTORS and best_factor(endless, run) == min(row["factor"] for row in endless)
    twice = Run("main", "token_choice_twice", 32, 0)
    assert best_factor(middle, twice) == 1.0, "two phases take the rate of their rule"


def test_runs_that_go_together_share_their_batches():
    runs = everything()
    together = groups(runs)
    assert sorted(run.key for group in together for run in group) == sorted(run.key for run in runs)
    for group in together:
        assert (
            len({(run.model, run.width, run.k, run.seed, run.steps, run.batch_size, run.noise) for run in group}) == 1
        )
        slow = [run for run in group if run.is_peer or run.is_penalised or METHODS[run.method].after]
        assert not slow or len(group) == 1, "slow ones keep nobody waiting"


def test_what_another_process_is_at_is_left_to_it(tmp_path):
    runs = [Run("main", "token_choice", 32, seed) for seed in range(3)]
    with claimed(tmp_path, runs[:2]) as mine, claimed(tmp_path, runs) as others:
        assert mine == runs[:2] and others == runs[2:]
    with claimed(tmp_path, runs) as again:
        assert again == runs


def test_random_rows_keep_their_beginning():
    tokens = torch.arange(200 * 16).view(200, 16) % 50
    noisy = with_random_rows(tokens, 0.1, 1000)
    changed = (noisy != tokens).any(1)
    assert changed.sum() == 20 and torch.equal(noisy[:, 0], tokens[:, 0]) and noisy[changed].max() > 50
    more = with_random_rows(tokens, None, 1000)
    assert torch.equal(more[:200], tokens) and len(more) == 200 + quality.NOISY


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The embedded model and a hundred rows."""
    monkeypatch.setitem(quality.TOKENS, "stories", 100 * 256)
    for name, n in (("MEASURED", 8), ("VALIDATING", 8), ("NOISY", 2)):
        monkeypatch.setattr(quality, name, n)
    return lambda model="stories", noise=0.0, *_: Place(model, noise, tmp_path / "cache", "cpu")


def test_a_small_grid_from_its_first_run_to_its_files(place, tmp_path, monkeypatch):
    """Rates first, then what takes the best of them; measured at equal L0; nothing twice; shipped in three files."""
    monkeypatch.setattr(quality, "Place", place)

    def small(rows, steps=12):
        method = "mutual_choice"
        yield from (Run("rates", method, 8, 0, width=1, steps=12, factor=f, batch_size=256) for f in (0.5, 1.0))
        yield Run("main", "token_choice", 8, 1, width=1, steps=12, factor=1.0, batch_size=256)
        for name in ("token_choice", "relative_floor", "feature_choice_zipf", "feature_choice_after_mutual"):
            yield Run("main", name, 8, 0, width=1, steps=12, factor=1.0, batch_size=256)
        yield Run("main", "relu", 30, 0, width=1, steps=100, factor=1.0, batch_size=256)
        yield Run("rates", "relu", 30, 0, width=1, steps=12, factor=1e12, batch_size=256)
        yield Run("main", method, 8, 0, width=1, steps=12, batch_size=256)
        yield Run("noise", method, 8, 0, width=1, steps=12, noise=0.5, factor=1.0, batch_size=256)

    monkeypatch.setattr(quality, "grid", small)
    monkeypatch.setattr(
        quality, "best_factor", lambda rows, run: 0.5 if sum(r["part"] == "rates" for r in rows) == 2 else None
    )
    args = argparse.Namespace(
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        device="cpu",
        steps=12,
        only=None,
        seeds=None,
        model=None,
        text=None,
        tokens=0,
    )
    args.out.mkdir()
    places = {}
    while quality.do_one_group(args, places, "abc"):
        pass
    rows = {row["key"]: row for row in load_runs(args.out)}
    assert len(rows) == len(list(small([]))) == 11 and not quality.left(args, list(rows.values()))
    lost = rows.pop("stories-relu-x1-k30-seed0-12x256-lr1e+12")
    assert "diverged" in lost and lost["factor"] == 1e12
    for row in rows.values():
        tolerance = 0.03 if row["method"] == "relu" else 1e-3
        assert row["l0"] == pytest.approx(row["k"], rel=tolerance), row["key"]
        assert 0 < row["fvu"] < 1.1 and 0 < row["validation_fvu"] < 1.1 and row["d_sae"] == 256
        assert row["commit"] == "abc" and row["lr"] > 0 and ("kl" in row) == (row["part"] != "rates")
        if row["part"] != "rates":
            assert row["kl"] > 0 and row["n_tokens"] == (8 + 2 * (row["noise"] > 0)) * 255
    chosen = rows["stories-mutual_choice-x1-k8-seed0-12x256-lrbest"]
    again = rows["stories-mutual_choice-x1-k8-seed0-12x256-lr0.5"]
    assert chosen["factor"] == 0.5 and chosen["fvu"] == pytest.approx(again["fvu"], rel=1e-5)
    penalised = rows["stories-relu-x1-k30-seed0-100x256-lr1"]
    assert penalised["tried"][-1][1] == pytest.approx(30, rel=0.03) and penalised["precision"] == "float32"
    assert math.inf == _swept([lost], "relu", "stories", 12)[1e12]
    assert load_sae(args.out / "weights" / chosen["key"]).config.rule == "mutual_choice"
    quality.ship(args.out, tmp_path / "shipped")
    with np.load(tmp_path / "shipped" / ARRAYS) as arrays:
        sums = dict(zip(OF_A_RUN, arrays[f"{chosen['key']}/rows"]))
        text = dict(zip(OF_A_TEXT, arrays["stories-noise0/text"]))
        assert arrays["stories-noise0.5/text"].shape == (8, 10) and arrays[f"{chosen['key']}/density"].shape == (256,)
    assert sums["error"].sum() / text["spread"].sum() == pytest.approx(chosen["fvu"], rel=1e-5)
    assert sums["kl"].sum() / text["tokens"].sum() == pytest.approx(chosen["kl"], rel=1e-4)
    evidence = load_evidence(tmp_path / "shipped")
    one = evidence.ratio("error", "relative_floor", "token_choice", part="main", k=8)
    expected = [rows[f"stories-{name}-x1-k8-seed0-12x256-lr1"]["fvu"] for name in ("relative_floor", "token_choice")]
    assert one.mean == pytest.approx(expected[0] / expected[1] - 1, rel=1e-4) and (one.seeds, one.rows) == (1, 8)
    assert one.low < one.mean < one.high
    more_loss = evidence.ratio("lost", "relative_floor", "token_choice", part="main", k=8)
    over = [rows[f"stories-{name}-x1-k8-seed0-12x256-lr1"] for name in ("relative_floor", "token_choice")]
    expected = [row["ce_spliced"] - row["ce_clean"] for row in over]
    assert more_loss.mean == pytest.approx(expected[0] / expected[1] - 1, rel=1e-3)
    assert evidence.ratio("kl", "relative_floor", "nobody") is None
    assert len(evidence.density(chosen)) == 256 and evidence.where(part="noise").runs.rows[0]["noise"] == 0.5
    with pytest.raises(ValueError, match="seed 0 comes twice for mutual_choice"):
        evidence.ratio("kl", "mutual_choice", "token_choice")
    [pair] = [row for row in evidence.stability if row["method"] == "token_choice"]
    seeds = [load_sae(args.out / "weights" / f"stories-token_choice-x1-k8-seed{i}-12x256-lr1").W_dec for i in (0, 1)]
    assert pair["seeds"] == [0, 1] and pair["mutual"] == mutual_neighbours(*seeds) and 0 < pair["mmcs"] < 1
    assert pair["k"] == 8 and {row["method"] for row in evidence.stability} == {"token_choice"}, "others have one seed"
    lines = (tmp_path / "shipped" / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == sorted([*rows, lost["key"]])


def test_what_was_shipped_goes_on_elsewhere(tmp_path):
    """Unpacked and shipped again it is the same, agreements of seeds too, which need weights that are not there."""
    quality.unpack(EVIDENCE, tmp_path)
    quality.ship(tmp_path, tmp_path / "again")
    for name in (RUNS, STABILITY):
        assert (tmp_path / "again" / name).read_text() == (EVIDENCE / name).read_text()
    with np.load(EVIDENCE / ARRAYS) as before, np.load(tmp_path / "again" / ARRAYS) as after:
        assert sorted(before) == sorted(after) and all(np.array_equal(before[name], after[name]) for name in before)


def test_another_model_is_one_command(tmp_path, monkeypatch):
    """A model from a folder and text from a file: rates on that model, then the rest, at its own middle."""
    tokens = story_tokens(30 * 256)
    tokenizer = load_language_model("stories").tokenizer
    (tmp_path / "text.txt").write_text(" ".join(tokenizer.decode(row[1:].tolist()) for row in tokens))
    for name, n in (("MEASURED", 4), ("VALIDATING", 4)):
        monkeypatch.setattr(quality, name, n)
    model, wanted = str(ASSETS / "models" / "stories"), []

    def small(rows, model, steps, width):
        wanted.append((model, steps, width))
        yield from (Run("rates", "token_choice", 8, 0, model, 1, steps, 256, factor=f) for f in (0.5, 1.0))
        yield Run("main", "token_choice", 8, 1, model, 1, steps, 256, factor=1.0)

    monkeypatch.setattr(quality, "grid_of", small)
    given = ["--model", model, "--text", str(tmp_path / "text.txt"), "--tokens", "5120", "--steps", "12"]
    given += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["quality.py", *given])
    quality.main()
    rows = list(load_runs(tmp_path / "out"))
    assert wanted[0] == (model, 12, 32) and [row["part"] for row in rows] == ["rates", "rates", "main"]
    assert {row["hook"] for row in rows} == {"blocks.1.hook_resid_post"} and rows[-1]["n_tokens"] == 4 * 255
    quality.main()
    assert len(load_runs(tmp_path / "out")) == 3, "nothing is trained twice"
    monkeypatch.setattr("sys.argv", ["quality.py", *given, "--ship"])
    quality.main()
    evidence = load_evidence(tmp_path / "out" / "shipped")
    assert evidence.runs.where(part="main").rows[0]["kl"] > 0
    [text] = (tmp_path / "out" / "texts").iterdir()
    assert f"{text.stem}/text" in evidence.arrays and not list((ASSETS / "models").glob("*.npz"))
    monkeypatch.setattr("sys.argv", ["quality.py", "--model", "gpt2"])
    with pytest.raises(SystemExit):
        quality.main()


def test_a_model_of_ones_own_gets_its_own_rates():
    runs = list(grid_of([], "gpt2", 10_000, 32))
    assert {(run.model, run.steps, run.width) for run in runs} == {("gpt2", 10_000, 32)}
    rates = {run.method for run in runs if run.part == "rates"}
    assert rates == {run.method for run in runs if run.part == "main"} >= {*RULES}
    assert {(run.k, run.seed) for run in runs if run.part == "main"} == {(k, s) for k in (16, 32, 64) for s in range(3)}


def test_a_penalty_is_tuned_by_secants(place, monkeypatch, tmp_path):
    """L0 follows the coefficient by a power that nobody told: found within 3 % in a few trainings."""
    calls = []

    class Sae:
        def __init__(self, *_, **__):
            self.config = None

        def to(self, _):
            return self

        def encode(self, x):
            return range(round(len(x) * 60 * calls[-1] ** -0.6))

    def fake(saes, store, settings, checkpoint, **_):
        calls.append(settings.l1)
        assert not checkpoint.exists(), "another trial has a file of its own"
        checkpoint.touch()
        metrics = {name: np.zeros(1) for name in ("fvu", "l0", "dead")}
        return [argparse.Namespace(sae=saes[0], seconds=1.0, metrics=metrics, settings=settings)]

    class Here:
        train, device, others = argparse.Namespace(d_in=8), "cpu", {"measured": [torch.zeros(1000, 8)]}
        cache = tmp_path

    monkeypatch.setattr(quality, "train_many", fake)
    monkeypatch.setattr(quality, "SparseAutoencoder", Sae)
    found = tuned(Run("main", "relu", 32, 0), 1.0, Here(), [])
    assert isinstance(found, Trained) and len(calls) <= 4 and not list(tmp_path.iterdir())
    assert math.log(60 * calls[-1] ** -0.6 / 32) == pytest.approx(0, abs=0.03)
    assert found.about["coefficient"] == calls[-1] and len(found.about["tried"]) == len(calls)
    known = [{"method": "relu", "model": "stories", "width": 16, "k": 32, "part": "main", "factor": 1.0,
              "coefficient": calls[-1], "l0": 32.0}]  # fmt: skip
    calls.clear()
    tuned(Run("main", "relu", 32, 1), 1.0, Here(), known)
    assert len(calls) == 1, "another seed begins where the first ended"
    assert set(PENALISED) == {"relu", "gated", "jumprelu"}


def test_jumprelu_has_its_budget_as_its_aim_and_is_not_searched_for():
    jump = Run("main", "jumprelu", 16, 0)
    assert jump.is_penalised and not jump.is_searched and jump.train_settings(8, 1.0).target_l0 == 16
    assert Run("main", "gated", 16, 0).is_searched


def test_peers_get_the_activations_that_our_saes_see(tmp_path):
    store = ActivationStore.from_tensor(torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    acts = np.load(activations_file(store, tmp_path))
    assert torch.allclose(torch.from_numpy(acts), store.normalise(store.rows(slice(0, 400))), atol=1e-6)
    assert acts.shape == (400, 8) and not (tmp_path / "normalised.partial.npy").exists()


def test_part_gradient_sweeps_beta_under_three_rules_with_the_rates_of_their_methods():
    runs = [run for run in everything() if run.part == "gradient"]
    assert {(run.method, run.beta, run.seed) for run in runs} == {
        (method, beta, seed)
        for method in ("gradient_choice", "mutual_choice", "feature_choice_zipf")
        for beta in BETAS
        for seed in (0, 1, 2)
    }
    [one] = [run for run in runs if (run.method, run.beta, run.seed) == ("mutual_choice", 4.0, 0)]
    assert one.key.endswith("-beta4") and one.config(8).beta == 4 and one.like == "mutual_choice"
    assert best_factor(swept("mutual_choice", [3, 2, 1, 2, 3]), one) == 1.0
    assert Run("main", "mutual_choice", 32, 0).config(8).beta is None


def test_what_gradients_choose_is_trained_measured_and_asked_how_it_steers(place, tmp_path, monkeypatch):
    def small(rows, steps=12):
        for method in ("gradient_choice", "feature_choice_zipf"):
            for beta in (0.0, 2.0):
                yield Run("gradient", method, 8, 0, width=1, steps=12, factor=1.0, batch_size=256, beta=beta)
        yield Run("main", "gradient_choice", 8, 0, width=1, steps=12, factor=1.0, batch_size=256)

    for name, value in (("Place", place), ("grid", small), ("STEERED", 4), ("STEERED_ROWS", 2)):
        monkeypatch.setattr(quality, name, value)
    names = {"only": None, "seeds": None, "model": None, "text": None, "tokens": 0, "device": "cpu", "steps": 12}
    args = argparse.Namespace(out=tmp_path / "out", cache=tmp_path / "cache", **names)
    args.out.mkdir()
    while quality.do_one_group(args, {}, "abc"):
        pass
    rows = load_runs(args.out).rows
    assert len(rows) == 5
    for row in rows:
        assert row["l0"] == pytest.approx(8, rel=1e-3) and row["kl"] > 0
        assert (row.get("steering", 0) > 0) == (row["part"] == "gradient") == (row.get("steering_own", 0) > 0)
    by_beta = {row["beta"]: row["fvu"] for row in rows if row["method"] == "gradient_choice"}
    assert len(set(by_beta.values())) == 3
    assert [path.name for path in (args.out / "weights").iterdir()] == [
        "stories-gradient_choice-x1-k8-seed0-12x256-lr1"
    ]
