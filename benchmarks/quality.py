"""What each way to allocate is worth: the same activations, budget, batches and steps, one table of results.

    python benchmarks/quality.py                     the whole grid on the embedded model; goes on where it stopped
    python benchmarks/quality.py --only wide         one part: main, laws, phases, batch, wide, rates, long or peers
    python benchmarks/quality.py --seeds 0 1         some of the seeds, where --out is one folder for each process
    python benchmarks/quality.py --list              what is done and what is left

A run is one SAE: a method, a size, a budget k, a seed (of weights and of the order of tokens). Runs that share size and
seed are trained side by side on the same batches. Each finished run adds one line to `runs.jsonl` and its densities to
`densities.npz` in `sae_tutorial/assets/grid`, which the notebooks read. Nothing is trained twice.
`python scripts/checksums.py` then records what the package ships.

Trained on the shipped stories but for the last rows, on which everything is measured, with the thresholds of inference.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from peer_quality import PEERS, train_peer
from tqdm import tqdm

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import text_for_training
from sae_tutorial.autoencoder.config import BUDGET_RULES
from sae_tutorial.autoencoder.shipped import HOOK
from sae_tutorial.course.results import DENSITIES, FOLDER, RUNS, load_densities, load_runs
from sae_tutorial.evaluation.fidelity import evaluate_many
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import TrainSettings, encoder_dtype_here
from sae_tutorial.training.start import with_rule

SEEDS, BUDGETS = (0, 1, 2), (16, 32, 64)
# Sweeps: exponent and offset of Feature Choice's capacity (1 and 10 are the main part's), and learning rates below the
# main part's (2.8e-3 with 4,096 features).
LAWS = ((0.5, 10.0), (0.75, 10.0), (1.25, 10.0), (1.5, 10.0), (1.0, 1.0), (1.0, 100.0))
RATES = (7e-4, 1.4e-3)
BATCHES = (512, 2048, 8192)  # for half the features and 2/5 of the steps

# Each method: what the SAE is, and how it is trained where that is not the default. "relu" has no budget: its
# coefficients were chosen so that it lands near the budgets of the others.
L1 = {16: 0.45, 32: 0.21, 64: 0.1}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "token_choice": ({"rule": "token_choice"}, {}),
    "mutual_choice": ({"rule": "mutual_choice"}, {}),
    "mutual_choice_aux_zipf": ({"rule": "mutual_choice"}, {"aux_k": 0.0, "aux_zipf": 1 / 32}),
    "feature_choice_uniform": ({"rule": "feature_choice", "capacity": "uniform"}, {}),
    "feature_choice_zipf": ({"rule": "feature_choice", "capacity": "zipf"}, {}),
    "relu": ({"rule": "relu"}, {}),
}
RULES = ("token_choice", "mutual_choice", "feature_choice_zipf")  # what the sweeps compare
# Two phases of half the steps each, on the same batches: the rule of the first, and the method of the second, which
# goes on with its features. (Ranks of Feature Choice by the densities that came out.) The last three are controls:
# nothing changes but what starts again, Adam, its learning rate and the counts.
PHASES = {
    "feature_choice_after_mutual": ("mutual_choice", "feature_choice_zipf"),
    "mutual_choice_twice": ("mutual_choice", "mutual_choice"),
    "token_choice_twice": ("token_choice", "token_choice"),
    "feature_choice_twice": ("feature_choice", "feature_choice_zipf"),
}


@dataclass(frozen=True)
class Run:
    """One SAE to train: what is written into its line beside the results."""

    part: str
    method: str
    d_sae: int
    k: int
    seed: int
    steps: int
    batch_size: int
    sae: tuple[tuple[str, Any], ...] = ()  # changes to the method's SAEConfig
    settings: tuple[tuple[str, Any], ...] = ()  # and to its TrainSettings

    @property
    def key(self) -> str:
        changes = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                   for name, value in (*self.sae, *self.settings)]  # fmt: skip
        size = [f"F{self.d_sae}", f"k{self.k}", f"seed{self.seed}", f"{self.steps}x{self.batch_size}"]
        return "-".join([self.method, *size, *changes])

    def config(self, d_in: int) -> SAEConfig:
        method = PHASES[self.method][1] if self.method in PHASES else self.method
        fields = METHODS[method][0] | dict(self.sae)
        return SAEConfig(d_in=d_in, d_sae=self.d_sae, k=None if fields["rule"] == "relu" else self.k, **fields)

    def train_settings(self) -> TrainSettings:
        fields = (
            METHODS.get(self.method, ({}, {}))[1]
            | ({"l1": L1[self.k]} if self.method == "relu" else {})
            | dict(self.settings)
        )
        return TrainSettings(steps=self.steps, batch_size=self.batch_size, seed=self.seed, **fields)


def grid(steps: int, batch_size: int, d_in: int) -> Iterator[Run]:
    """Everything that is to be trained, the most wanted first."""
    base = dict(steps=steps, batch_size=batch_size)
    for seed in SEEDS:
        yield from (Run("main", method, 16 * d_in, 32, seed, **base) for method in METHODS)
    for exponent, offset in LAWS:
        law = (("zipf_exponent", exponent), ("zipf_offset", offset))
        yield Run("laws", "feature_choice_zipf", 16 * d_in, 32, 0, **base, sae=law)
    for seed in SEEDS:
        yield from (Run("phases", method, 16 * d_in, 32, seed, **base) for method in PHASES)
    for size in BATCHES:
        yield from (Run("batch", method, 8 * d_in, 32, 0, 2 * steps // 5, size) for method in RULES)
    yield from (Run("peers", method, 16 * d_in, 32, 0, **base) for method in PEERS)
    for seed in SEEDS:
        for k in (k for k in BUDGETS if k != 32):
            yield from (Run("main", method, 16 * d_in, k, seed, **base) for method in METHODS)
    for seed in SEEDS:
        yield from (Run("wide", method, 64 * d_in, 32, seed, **base) for method in METHODS)
    for k in (16, 32):
        for lr in RATES:
            yield from (Run("rates", method, 16 * d_in, k, 0, **base, settings=(("lr", lr),)) for method in RULES)
    yield from (Run("long", method, 16 * d_in, 16, 0, 3 * steps, batch_size) for method in RULES[:2])


def done(folder: Path) -> set[str]:
    """Keys of the runs whose results are there."""
    return {row["key"] for row in load_runs(folder)} if (folder / RUNS).exists() else set()


def add(folder: Path, line: dict[str, Any], density: np.ndarray) -> None:
    """Write down one run. Densities first: a line is the promise that its array is there."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = load_densities(folder) if (folder / DENSITIES).exists() else {}
    arrays[line["key"]] = np.sort(density)[::-1].astype(np.float32)
    partial = folder / "densities.partial.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / DENSITIES)
    with (folder / RUNS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def together(runs: list[Run]) -> Iterator[list[Run]]:
    """Runs that share their batches, in the order of `runs`: the activations are read once. "relu", whose dense steps
    take several times as long, goes by itself, so that the others need not wait for it; so do peers."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        alone = run.method if run.method in ("relu", *PEERS) else ""
        groups.setdefault((alone, run.part, run.d_sae, run.k, run.seed, run.steps, run.batch_size), []).append(run)
    for group in groups.values():
        yield from (group[i : i + 6] for i in range(0, len(group), 6))


@dataclass(frozen=True)
class Trained:
    sae: SparseAutoencoder
    seconds: float
    last: dict[str, float]  # what training reported over its last 50 steps


def train_together(runs: list[Run], store: ActivationStore, cache: Path, device: str) -> list[Trained]:
    if runs[0].method in PEERS:
        sizes = {name: getattr(runs[0], name) for name in ("d_sae", "k", "seed", "steps", "batch_size")}
        sae, seconds = train_peer(runs[0].method, store, folder=cache, **sizes)
        return [Trained(sae.to(device), seconds, {})]
    if runs[0].method in PHASES:
        return in_two_phases(runs, store, device)
    saes = [SparseAutoencoder(run.config(store.d_in), seed=run.seed).to(device) for run in runs]
    settings = [run.train_settings() for run in runs]
    checkpoint = cache / f"{runs[0].key}.pt"
    done = train_many(saes, store, settings, checkpoint=checkpoint, checkpoint_every=500, resume="auto")
    checkpoint.unlink(missing_ok=True)
    return [Trained(one.sae, one.seconds, last_of(one)) for one in done]


def in_two_phases(runs: list[Run], store: ActivationStore, device: str) -> list[Trained]:
    settings = runs[0].train_settings()
    half = dataclasses.replace(settings, steps=settings.steps // 2)
    rules = list(dict.fromkeys(PHASES[run.method][0] for run in runs))
    first = [
        SparseAutoencoder(SAEConfig(store.d_in, runs[0].d_sae, rule, k=runs[0].k), seed=runs[0].seed) for rule in rules
    ]
    before = dict(
        zip(rules, train_many([sae.to(device) for sae in first], store, dataclasses.replace(half, decay=0.0)))
    )
    second = []
    for run in runs:
        start, config = before[PHASES[run.method][0]], run.config(store.d_in)
        second.append(with_rule(start.sae, config.rule, start.density))
    after = train_many(second, store, half)
    return [Trained(one.sae, next(iter(before.values())).seconds + one.seconds, last_of(one)) for one in after]


def last_of(run: TrainingRun) -> dict[str, float]:
    return {"train_" + name: float(run.metrics[name][-50:].mean()) for name in ("fvu", "l0")}


def line(run: Run, trained: Trained, found: Any, model: str, hook: str) -> dict[str, Any]:
    """What `runs.jsonl` keeps of a run."""
    wanted = encoder_dtype_here(run.train_settings().encoder_dtype, trained.sae.W_dec.device)
    by_budget = trained.sae.config.rule in BUDGET_RULES and run.method not in PEERS
    encoder_dtype = str(wanted if by_budget else torch.float32).removeprefix("torch.")
    names = {field.name for field in dataclasses.fields(found)} - {"density", "threshold"}
    numbers = {name: getattr(found, name) for name in sorted(names)}
    return {
        "key": run.key,
        **{name: getattr(run, name) for name in ("part", "method", "d_sae", "k", "seed", "steps", "batch_size")},
        "changes": dict(run.sae) | dict(run.settings),
        "model": model,
        "hook": hook,
        "recovered": found.recovered,
        "recovered_mean": found.recovered_mean,
        **numbers,
        **trained.last,
        "seconds": round(trained.seconds, 1),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "encoder_dtype": encoder_dtype,
    }


def main() -> None:
    parser = common.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories")
    parser.add_argument("--hook", default=HOOK, help="the middle of the embedded model")
    parser.add_argument("--tokens", type=common.whole, default=2_000_000)
    parser.add_argument("--steps", type=common.whole, default=1000)
    parser.add_argument("--batch-size", type=common.whole, default=2048)
    parser.add_argument("--only", choices=sorted({run.part for run in grid(1, 1, 1)}), help="one part of the grid")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    parser.add_argument("--out", type=common.folder, default=FOLDER)
    parser.add_argument("--cache", type=common.folder, default=cache_folder("training"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    model = load_language_model(args.model)
    whole = grid(args.steps, args.batch_size, model.cfg.d_model)
    runs = [r for r in whole if args.only in (None, r.part) and r.seed in args.seeds]
    finished = done(args.out)
    left = [r for r in runs if r.key not in finished]
    if args.list:
        print("\n".join(("done  " if r.key in finished else "left  ") + r.key for r in runs))
        return
    for folder in (args.out, args.cache):
        parser.check_file(folder / RUNS)
    tokens, held_out = text_for_training(args.tokens)
    store = ActivationStore.harvest(model, tokens, args.hook, cache_dir=args.cache)
    for group in tqdm(list(together(left)), desc="groups"):
        results = train_together(group, store, args.cache, args.device)
        found_each = evaluate_many([trained.sae for trained in results], model, held_out, args.hook, progress=False)
        for run, trained, found in zip(group, results, found_each):
            add(args.out, line(run, trained, found, args.model, args.hook), found.density.numpy())
            print(f"{run.key}: {found}", flush=True)


if __name__ == "__main__":
    main()
