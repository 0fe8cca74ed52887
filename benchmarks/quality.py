"""What each way to allocate is worth: the same activations, budget, batches and steps, one table of results.

    python benchmarks/quality.py                       the whole grid; goes on where it stopped. Start it once for each
                                                       core, with OMP_NUM_THREADS=1: runs are dealt out among processes
    python benchmarks/quality.py --only main wide      some parts: rates, main, length, wide, noise, precision, …
    python benchmarks/quality.py --list                what is done and what is left
    python benchmarks/quality.py --ship                put what is done into the package, for the notebooks
    python benchmarks/quality.py --unpack              on a new machine: begin with the runs that the package has
    python benchmarks/quality.py --model gpt2 --text roneneldan/TinyStories --steps 10000
                                                       rates and the main part on another model: for a GPU

A run is one SAE (`grid.py`). Runs that share size, budget and seed are trained side by side on the same batches.

Trained on the shipped text but for its last rows. Of these the last 256 are what is measured; 64 before them choose the
learning rates. What has thresholds is read at the same L0 as everything else: all thresholds are multiplied by one
factor, so that there are k features per token on the text that is read. JumpReLU is trained towards an L0 of k. What
pays an L1 penalty instead is trained again with another coefficient until its L0 is within 3 % of k.

Part "gradient" has the score of Gradient Choice under three rules, with the strength β of the gradients swept. What it
trains is asked how well it steers as well (`steering`).

Each finished run adds one line to `runs.jsonl` and its arrays to `arrays/KEY.npz` in --out, and its weights to
`weights/KEY`; `--ship` packs lines and arrays into `sae_tutorial/assets/evidence`, which the notebooks read. `--unpack`
is the way back: all but the weights, so the grid goes on elsewhere, and what needed weights is kept as it was shipped.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import math
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from grid import LENGTHS, METHODS, REFERENCE, SEEDS, Run, best_factor, grid, grid_of
from peer_quality import train_peer

from sae_tutorial import (
    ActivationStore,
    SparseAutoencoder,
    load_language_model,
    load_sae,
    reference_sae,
    save_sae,
    story_tokens,
    text_tokens,
)
from sae_tutorial.activations.files import cache_folder, write_atomically
from sae_tutorial.activations.shipped_text import TRAINED_ON
from sae_tutorial.autoencoder.config import RULES
from sae_tutorial.autoencoder.shipped import HOOKS
from sae_tutorial.autoencoder.thresholds import scale_thresholds_
from sae_tutorial.course.results import ARRAYS, EVIDENCE, OF_A_RUN, OF_A_TEXT, RUNS, STABILITY, load_runs, text_name
from sae_tutorial.evaluation.fidelity import Evaluation, evaluate_many
from sae_tutorial.evaluation.ground_truth import mean_max_cosine, mutual_neighbours
from sae_tutorial.evaluation.splicing import divergence
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import PENALTIES, TrainSettings
from sae_tutorial.training.start import with_rule

HERE = Path(__file__).resolve().parent
TOKENS = {model: text.n_tokens for model, text in TRAINED_ON.items()}
MEASURED, VALIDATING, NOISY = 256, 64, 32  # rows; NOISY random ones beside those that are measured, in part "noise"
MEASURED_OF = {"smollm2": 64}  # its forward pass takes forty times as long
NEAR, MOST_TRIALS, SLOPE = 0.03, 6, -1.0  # of a search for an L0: how near, how often, and how L0 follows a coefficient
STEERED, STEERED_ROWS, STEERED_CONTEXT = 64, 8, 64  # features, and the text on which they are tried
TOGETHER = 5  # SAEs side by side
ALONE: set[str] = set()  # keys of runs that were trained with one that diverged


@dataclass(frozen=True)
class Place:
    """The text and the activations of one model, to train on, to choose by and to measure on."""

    model_name: str
    noise: float
    cache: Path
    device: str
    source: str | None = None  # a text file or data set, for a model that the package brings no text for
    n_tokens: int = 0

    @property
    def hook(self) -> str:
        return HOOKS.get(self.model_name) or f"blocks.{self.model.cfg.n_layers // 2 - 1}.hook_resid_post"

    @cached_property
    def model(self) -> Any:
        return load_language_model(self.model_name, device=self.device)

    @cached_property
    def text(self) -> dict[str, torch.Tensor]:
        """Rows to train on, to validate and to measure on."""
        if self.source is None:
            source = TRAINED_ON[self.model_name].source
            tokens = story_tokens(TOKENS[self.model_name], 256, source=source, model=self.model_name)
        else:
            tokens = text_tokens(self.source, self.model, min(256, self.model.cfg.n_ctx), self.n_tokens)
        n = MEASURED_OF.get(self.model_name, MEASURED)
        parts = {"train": tokens[: -MEASURED - VALIDATING], "validation": tokens[-MEASURED - VALIDATING : -MEASURED]}
        parts["measured"] = tokens[-MEASURED:][:n]
        if self.noise:
            for part, share in (("train", self.noise), ("measured", None)):
                parts[part] = with_random_rows(parts[part], share, self.model.cfg.d_vocab)
        return parts

    def store(self, part: str, gradients: bool = False) -> ActivationStore:
        return ActivationStore.harvest(
            self.model, self.text[part], self.hook, cache_dir=self.cache, gradients=gradients, progress=False
        )

    @cached_property
    def train(self) -> ActivationStore:
        return self.store("train")

    @cached_property
    def train_with_gradients(self) -> ActivationStore:
        """The same activations, and the gradients of the loss beside them."""
        return self.store("train", gradients=True)

    @cached_property
    def others(self) -> dict[str, list[torch.Tensor]]:
        """Raw activations of the rows to validate and to measure on, in pieces."""
        stores = {part: self.store(part) for part in ("validation", "measured")}
        return {part: list(store.rows(slice(None)).to(self.device).split(4096)) for part, store in stores.items()}


def with_random_rows(tokens: torch.Tensor, share: float | None, d_vocab: int) -> torch.Tensor:
    """Random ids after the first in this share of the rows; share=None appends NOISY such rows instead."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(d_vocab, tokens.shape, generator=generator)
    rows[:, 0] = tokens[:, 0]
    if share is None:
        return torch.cat([tokens, rows[:NOISY]])
    chosen = torch.randperm(len(tokens), generator=generator)[: round(share * len(tokens))]
    return tokens.index_put((chosen,), rows[chosen])


# ---------------------------------------------------------------------- training


@dataclass(frozen=True)
class Trained:
    run: Run
    sae: SparseAutoencoder
    factor: float
    seconds: float
    about: dict[str, Any]


def train_together(runs: list[Run], factors: list[float], place: Place, rows: list[dict[str, Any]]) -> list[Trained]:
    """These runs, which share their batches; a peer or a run with a penalty comes alone."""
    first = runs[0]
    store = place.train_with_gradients if any(run.wants_gradients for run in runs) else place.train
    if first.is_peer:
        sizes = {name: getattr(first, name) for name in ("k", "seed", "steps", "batch_size")}
        lr = replace(first, method="token_choice").train_settings(store.d_in, factors[0]).lr
        sae, seconds = train_peer(
            first.method, store, folder=place.cache, d_sae=first.width * store.d_in, lr=lr, **sizes
        )
        return [Trained(first, sae, factors[0], seconds, {"lr": lr})]
    if first.is_searched:
        return [tuned(first, factors[0], place, rows)]
    if first.part == "reference":
        return [reference(run) for run in runs]
    settings = [run.train_settings(store.d_in, factor) for run, factor in zip(runs, factors)]
    if METHODS[first.method].after:
        done = in_two_phases(first, settings[0], place)
        return [Trained(first, done[1].sae, factors[0], done[0].seconds + done[1].seconds, about(done[1]))]
    saes = [SparseAutoencoder(run.config(store.d_in), seed=run.seed).to(place.device) for run in runs]
    group = hashlib.sha256(repr([(run.key, factor) for run, factor in zip(runs, factors)]).encode()).hexdigest()[:16]
    checkpoint = place.cache / f"grid-{group}.pt"  # who else was in the group depends on who had which lock
    done = train_many(
        saes, store, settings, checkpoint=checkpoint, checkpoint_every=1000, resume="auto", progress=False
    )
    checkpoint.unlink(missing_ok=True)
    return [Trained(run, one.sae, factor, one.seconds, about(one)) for run, one, factor in zip(runs, done, factors)]


def reference(run: Run) -> Trained:
    """One that the package ships: nothing to train (`scripts/train_reference_saes.py` did)."""
    sae = reference_sae(REFERENCE[run.method], model=run.model)
    return Trained(run, sae, 1.0, 0.0, {"lr": run.train_settings(sae.config.d_in, 1.0).lr})


def in_two_phases(run: Run, settings: TrainSettings, place: Place) -> list[TrainingRun]:
    """Half of the steps with one rule, half with another that goes on with its features: what starts again are Adam,
    its learning rate and the counts."""
    store, half = place.train, replace(settings, steps=settings.steps // 2)
    start = SparseAutoencoder(run.config(store.d_in, METHODS[run.method].after), seed=run.seed).to(place.device)
    [before] = train_many([start], store, replace(half, decay=0.0), progress=False)
    config = run.config(store.d_in)
    changes = {"capacity": config.capacity}
    [after] = train_many([with_rule(start, config.rule, before.density, **changes)], store, half, progress=False)
    return [before, after]


def tuned(run: Run, factor: float, place: Place, rows: list[dict[str, Any]]) -> Trained:
    """With the penalty's coefficient at which L0 is within 3 % of k on the text that is measured: by secants in log
    L0 over log coefficient, from what was tried before. A search that is stopped goes through the same coefficients
    again, and finds each trial's checkpoint."""
    store, tried, trials, files = place.train, [], _trials(rows, run), []
    best: tuple[float, Trained] | None = None
    coefficient, slope = _guess(trials, run)
    for _ in range(MOST_TRIALS):
        sae = SparseAutoencoder(run.config(store.d_in), seed=run.seed).to(place.device)
        files.append(place.cache / f"trial-{run.key}-{coefficient:.9g}.pt")
        settings = run.train_settings(store.d_in, factor, coefficient)
        [done] = train_many(
            [sae], store, settings, checkpoint=files[-1], checkpoint_every=250, resume="auto", progress=False
        )
        l0 = sum(len(sae.encode(x)) for x in place.others["measured"]) / sum(map(len, place.others["measured"]))
        tried.append([coefficient, l0])
        off = abs(math.log(max(l0, 1e-3) / run.k))
        if best is None or off < best[0]:
            more = {"coefficient": coefficient, "tried": list(tried)}
            best = off, Trained(run, sae, factor, done.seconds, about(done) | more)
        if off < math.log(1 + NEAR):
            break
        if len(tried) > 1 and tried[-1][0] != tried[-2][0] and min(tried[-1][1], tried[-2][1]) > 0:
            (c1, l1), (c2, l2) = tried[-2:]
            slope = min(-0.2, max(-4.0, math.log(l2 / l1) / math.log(c2 / c1)))
        coefficient *= min(8.0, max(1 / 8, (run.k / max(l0, 0.1)) ** (1 / slope)))
    for file in files:
        file.unlink(missing_ok=True)
    return best[1]


def _trials(rows: list[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    same = {"method": run.method, "model": run.model, "width": run.width}
    return [row for row in rows if "coefficient" in row and all(row[name] == value for name, value in same.items())]


def _guess(trials: list[dict[str, Any]], run: Run) -> tuple[float, float]:
    """A coefficient to begin with, from the run that is most like this one, and how L0 follows it."""
    if not trials:
        return PENALTIES[str(RULES[METHODS[run.method].sae["rule"]].penalty)], SLOPE
    near = min(trials, key=lambda r: (abs(math.log(r["k"] / run.k)), r["part"] != run.part, r["factor"] != run.factor))
    coefficient, l0 = min(near.get("tried") or [[near["coefficient"], near["l0"]]], key=lambda it: abs(it[1] - run.k))
    return coefficient * (run.k / max(l0, 0.1)) ** (1 / SLOPE), SLOPE


def about(done: TrainingRun) -> dict[str, Any]:
    """What training reported over its last 50 steps, and with which settings."""
    last = {"train_" + name: float(done.metrics[name][-50:].mean()) for name in ("fvu", "l0", "dead")}
    return last | {"lr": done.settings.lr}


# ---------------------------------------------------------------------- measuring


def at_equal_l0(trained: Trained, place: Place, part: str) -> float:
    """Scale thresholds, where there are any, so that this text has k features per token; the factor, else 1."""
    sae = trained.sae
    scalable = sae.config.how.thresholds is not None and bool((sae.threshold >= 0).all())
    try:
        return scale_thresholds_(sae, place.others[part], trained.run.k) if scalable else 1.0
    except ValueError as error:  # a dictionary so poor that it has not k positive bids per token: its L0 tells
        print(f"{trained.run.key}: {error}", flush=True)
        return 1.0


@torch.no_grad()
def fvu_and_l0(sae: SparseAutoencoder, pieces: list[torch.Tensor]) -> tuple[float, float]:
    x = torch.cat(pieces)
    codes = [sae.encode(piece) for piece in pieces]
    error = sum(float((sae.decode(one) - piece).square().sum()) for one, piece in zip(codes, pieces))
    return error / float((x - x.mean(0)).square().sum()), sum(map(len, codes)) / len(x)


def measured(trained: list[Trained], place: Place) -> list[tuple[dict[str, Any], Evaluation | None]]:
    """What is chosen by, and what is measured, of SAEs that were trained together. The language model is asked unless
    it is a sweep of learning rates."""
    of_rows = []
    for one in trained:
        first = at_equal_l0(one, place, "validation")
        row = {"validation_fvu": fvu_and_l0(one.sae, place.others["validation"])[0]}
        row["threshold_factor"] = first * at_equal_l0(one, place, "measured")
        row["fvu"], row["l0"] = fvu_and_l0(one.sae, place.others["measured"])
        of_rows.append(row)
    if trained[0].run.part in ("rates", "finer"):
        return [(row, None) for row in of_rows]
    saes = [one.sae for one in trained]
    if trained[0].run.part == "gradient":
        for row, sae in zip(of_rows, saes):
            row |= steering(sae, place)
    return list(zip(of_rows, evaluate_many(saes, place.model, place.text["measured"], place.hook, progress=False)))


@torch.no_grad()
def steering(sae: SparseAutoencoder, place: Place) -> dict[str, float]:
    """What features do to the model's predictions in contexts that have nothing to do with them: KL from the model as
    it is, in nats per token, with a feature added at every position; the mean over features that fire. `steering` makes
    each as long as activations deviate from their mean (root mean square), `steering_own` as strong as it fires."""
    tokens = place.text["measured"][:STEERED_ROWS, :STEERED_CONTEXT].to(place.device)
    codes = sae.encode(torch.cat(place.others["measured"]))
    uses_F = codes.features.bincount(minlength=sae.config.d_sae)
    own_F = torch.zeros(sae.config.d_sae, device=uses_F.device).index_add_(0, codes.features, codes.values) / uses_F
    alive = uses_F.nonzero()[:, 0]
    chosen = alive[torch.randperm(len(alive), generator=torch.Generator().manual_seed(0))[:STEERED].to(alive.device)]
    directions = sae.W_dec[chosen] * sae.scale
    length = float(place.train.scale) * math.sqrt(sae.config.d_in)

    def log_probs(addend: torch.Tensor | None) -> torch.Tensor:
        hooks = [] if addend is None else [(place.hook, lambda acts, hook: acts + addend)]
        with place.model.hooks(fwd_hooks=hooks):
            logits = place.model(tokens, return_type="logits", use_cache=False)
        return logits[:, 1:].float().log_softmax(-1)

    clean = log_probs(None)
    found = {}
    for name, size in (("steering", length / directions.norm(dim=1)), ("steering_own", own_F[chosen])):
        changed = (log_probs(c * direction) for c, direction in zip(size, directions))
        kl = [float(divergence(clean, there).mean()) for there in changed]
        found[name] = sum(kl) / max(1, len(kl))
    return found


def line(trained: Trained, more: dict[str, Any], found: Evaluation | None, place: Place, commit: str) -> dict[str, Any]:
    """What `runs.jsonl` keeps of a run."""
    run = trained.run
    if found is not None:
        names = ("n_tokens", "l0", "l0_std", "fvu", "cosine", "norm_ratio", "ce_clean", "ce_spliced", "ce_zero",
                 "ce_mean", "kl", "kl_zero", "kl_mean", "recovered", "recovered_mean", "dead", "underused")  # fmt: skip
        more = more | {name: getattr(found, name) for name in names}
        more["rare"] = float((found.density < 0.05 * found.l0 / len(found.density)).float().mean())
        more["left_out"] = len(found.left_out)
    own = {name: getattr(run, name) for name in vars(run) if name != "factor"}
    return {
        "key": run.key,
        **own,
        "factor": trained.factor,
        "d_sae": trained.sae.config.d_sae,
        "hook": place.hook,
        "tokens_trained": run.steps * run.batch_size,
        "positions": len(place.train),
        **more,
        **trained.about,
        "seconds": round(trained.seconds, 1),
        "threads": torch.get_num_threads(),
        "version": version("sae_tutorial"),
        "commit": commit,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "precision": "float32" if run.is_peer or run.is_penalised else run.precision,
    }


def add(folder: Path, one: dict[str, Any], found: Evaluation | None, text: str) -> None:
    """Write down one run. Arrays first: a line is the promise that they are there."""
    if found is not None:
        add_arrays(folder, one["key"], found, text)
    with (folder / RUNS).open("a", encoding="utf-8") as file:  # one write, so processes do not mix their lines
        file.write(json.dumps(one) + "\n")


def add_arrays(folder: Path, key: str, found: Evaluation, text: str) -> None:
    for name in ("arrays", "texts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    arrays = {name: found.per_row[name].float().numpy() for name in OF_A_RUN}
    arrays["density"] = np.sort(found.density.numpy())[::-1].astype(np.float32)
    shared = {name: found.per_row[name].float().numpy() for name in OF_A_TEXT}
    write_atomically(folder / "arrays" / f"{key}.npz", lambda file: np.savez_compressed(file, **arrays))
    write_atomically(folder / "texts" / f"{text}.npz", lambda file: np.savez_compressed(file, **shared))


# ---------------------------------------------------------------------- the whole of it


@contextmanager
def claimed(folder: Path, runs: list[Run]) -> Iterator[list[Run]]:
    """Those of the runs that no other process is at; they are this one's as long as it lives."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        mine = []
        for run in runs:
            file = stack.enter_context((folder / run.key).open("w"))
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine.append(run)
        yield mine


def held_elsewhere(args: argparse.Namespace) -> bool:
    """Whether another process is at any run."""
    for path in (args.out / "locks").glob("*"):
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(load_runs(folder)) if (folder / RUNS).exists() else []


def left(args: argparse.Namespace, rows: list[dict[str, Any]]) -> list[Run]:
    """The runs that are asked for and not there yet."""
    there = {row["key"] for row in rows}
    every = grid(rows, args.steps) if args.model is None else grid_of(rows, args.model, args.steps, args.width)
    runs = dict.fromkeys(run for run in every if not args.only or run.part in args.only)
    return [run for run in runs if run.key not in there and run.seed in (args.seeds or (run.seed,))]


def groups(runs: list[Run]) -> list[list[Run]]:
    """Runs that share their batches, in the order of `runs`. Those that take several times as long go alone."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        slow = run.is_peer or run.is_penalised or METHODS[run.method].after
        alone = run.key if slow or run.key in ALONE else ""
        same = (run.part, run.model, run.width, run.k, run.seed, run.steps, run.batch_size, run.noise, run.precision)
        same = (*same, run.beta, run.wants_gradients)  # what wants gradients goes apart
        found.setdefault((alone, *same), []).append(run)
    return [group[i : i + TOGETHER] for group in found.values() for i in range(0, len(group), TOGETHER)]


def do_one_group(args: argparse.Namespace, places: dict[tuple, Place], commit: str) -> bool:
    """Train, measure and write down the first runs that can be; False if there are none."""
    rows = rows_of(args.out)
    for group in groups(left(args, rows)):
        factors = {run: best_factor(rows, run) if run.factor is None else run.factor for run in group}
        ready = [run for run in group if factors[run] is not None]
        with claimed(args.out / "locks", ready) as mine:
            mine = [run for run in mine if run.key not in {row["key"] for row in rows_of(args.out)}]
            if not mine:
                continue
            first = mine[0]
            key = (first.model, first.noise)
            place = places.setdefault(
                key, Place(first.model, first.noise, args.cache, args.device, args.text, args.tokens)
            )
            try:
                trained = train_together(mine, [float(factors[run] or 0) for run in mine], place, rows)
            except FloatingPointError as error:
                diverged(args, mine, factors, error)
                return True
            for one, (more, found) in zip(trained, measured(trained, place)):
                if one.run.seed in SEEDS and one.run.part not in (
                    "rates",
                    "finer",
                    "precision",
                    "reference",
                    "gradient",
                ):
                    save_sae(one.sae, args.out / "weights" / one.run.key, exact=False)
                text = text_name(first.model, first.noise)
                add(args.out, line(one, more, found, place, commit), found, text)
                said = found or f"FVU {more['fvu']:.4f}, L0 {more['l0']:.1f}"
                print(f"{one.run.key} (lr x {one.factor:g}, {one.seconds:.0f} s): {said}", flush=True)
            return True
    return False


def diverged(args: argparse.Namespace, runs: list[Run], factors: dict[Run, Any], error: FloatingPointError) -> None:
    """That is a result, too. Of several side by side it is not known which one did: next time each goes alone."""
    if len(runs) > 1:
        ALONE.update(run.key for run in runs)
        return
    [run] = runs
    row = {"key": run.key} | {name: getattr(run, name) for name in vars(run)} | {"factor": factors[run]}
    add(args.out, row | {"diverged": str(error)}, None, "")
    print(f"{run.key}: {error}", flush=True)


def ship(folder: Path, shipped: Path) -> None:
    """Lines, sums of rows and densities of all runs, and how well their seeds agree, in three files."""
    shipped.mkdir(parents=True, exist_ok=True)
    rows = sorted(rows_of(folder), key=lambda row: row["key"])
    packed: dict[str, np.ndarray] = {}
    for row in (row for row in rows if "kl" in row):
        with np.load(folder / "arrays" / f"{row['key']}.npz") as arrays:
            packed[f"{row['key']}/rows"] = np.stack([arrays[name] for name in OF_A_RUN])
            if row["seed"] == 0:
                packed[f"{row['key']}/density"] = arrays["density"]
    for path in (folder / "texts").glob("*.npz"):
        with np.load(path) as arrays:
            packed[f"{path.stem}/text"] = np.stack([arrays[name] for name in OF_A_TEXT])
    write_atomically(shipped / ARRAYS, lambda file: np.savez_compressed(file, **packed))
    for name, lines in ((RUNS, rows), (STABILITY, agreements(folder, rows))):
        write_atomically(shipped / name, "".join(json.dumps(line) + "\n" for line in lines).encode())


def unpack(shipped: Path, folder: Path) -> None:
    """What `ship` packed, as if it had been trained here. The arrays come first, for a line promises them."""
    for name in ("arrays", "texts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with np.load(shipped / ARRAYS) as packed:
        for name in packed.files:
            key, kind = name.split("/")
            if kind == "density":  # goes with the rows of its run
                continue
            arrays = dict(zip(OF_A_TEXT if kind == "text" else OF_A_RUN, packed[name]))
            if f"{key}/density" in packed:
                arrays["density"] = packed[f"{key}/density"]
            to = folder / ("texts" if kind == "text" else "arrays") / f"{key}.npz"
            write_atomically(to, lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
    for name in (STABILITY, RUNS):
        write_atomically(folder / name, (shipped / name).read_bytes())


def agreements(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many features two seeds have in common, for all pairs of seeds of each cell whose weights are there, and
    what was found before of others."""
    same = ("part", "method", "k", "model", "width", "steps", "batch_size", "noise")
    before = (folder / STABILITY).read_text().splitlines() if (folder / STABILITY).exists() else []
    found = {(*(pair[name] for name in same), *pair["seeds"]): pair for pair in map(json.loads, before)}
    cells: dict[tuple, list[dict[str, Any]]] = {}
    for row in (row for row in rows if (folder / "weights" / row["key"]).is_dir()):
        cells.setdefault(tuple(row[name] for name in same), []).append(row)
    for cell, members in cells.items():
        seeds = {row["seed"]: load_sae(folder / "weights" / row["key"]).W_dec.detach() for row in members}
        for one, other in combinations(sorted(seeds), 2):
            measured = {
                "mutual": mutual_neighbours(seeds[one], seeds[other]),
                "mmcs": mean_max_cosine(seeds[one], seeds[other]),
            }
            found[(*cell, one, other)] = dict(zip(same, cell)) | {"seeds": [one, other], "seed": one} | measured
    return list(found.values())


def main() -> None:
    parser = common.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({run.part for run in grid([])}), help="parts of the grid")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--steps", type=common.whole, default=1000, help="of the usual run")
    parser.add_argument("--model", help="a name on the hub or a folder: rates and the main part on it; wants --text")
    parser.add_argument("--text", help="a text file, or a data set on the hub")
    parser.add_argument("--tokens", type=common.whole, default=20_000_000, help="of --text")
    parser.add_argument("--width", type=common.whole, default=32, help="features per input, with --model")
    parser.add_argument("--out", type=common.folder, help="default: a folder in the cache, one for each --model")
    parser.add_argument("--cache", type=common.folder, default=cache_folder("training"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--unpack", action="store_true")
    args = parser.parse_args()
    if (args.model is None) != (args.text is None):
        parser.error("--model and --text go together: a model of your own, and what it reads")
    if args.out is None:
        args.out = cache_folder("evidence" if args.model is None else f"evidence-{args.model.replace('/', '--')}")
    for folder in (args.out, args.cache):
        parser.check_file(folder / RUNS)
    args.out.mkdir(parents=True, exist_ok=True)
    known = {args.steps, *(length * args.steps for length in LENGTHS)}
    others = {row["steps"] for row in rows_of(args.out) if row["part"] == "rates"} - known
    if others and not args.ship:
        parser.error(f"--out has sweeps of {sorted(others)} steps; take another folder for --steps {args.steps}")
    if args.unpack:
        if args.model is not None:
            parser.error("--unpack is for the models that the package has runs of; leave --model away")
        if rows_of(args.out):
            parser.error(f"--out: {args.out} has runs already; --unpack begins an empty folder")
        return unpack(EVIDENCE, args.out)
    if args.ship:
        return ship(args.out, EVIDENCE if args.model is None else args.out / "shipped")
    if args.list:
        rows = rows_of(args.out)
        print("\n".join([f"done  {row['key']}" for row in rows] + [f"left  {run.key}" for run in left(args, rows)]))
        return
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    places: dict[tuple, Place] = {}
    while True:
        if do_one_group(args, places, said.stdout.strip()):
            continue
        waiting = left(args, rows_of(args.out))
        if not waiting:
            return
        if not held_elsewhere(args):
            raise SystemExit(
                f"{len(waiting)} runs wait for the learning rates of their methods; train part "
                f'"rates" first (leave --only away)'
            )
        time.sleep(20)  # other processes are at what is left, or at the rates that it needs


if __name__ == "__main__":
    main()
