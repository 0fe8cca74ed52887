"""train: an SAE and a store of activations in, a trained SAE and its history out."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.arguments import arguments_of, as_whole
from sae_tutorial.activations.ranks import Grid, Ranks, apart, grid_of
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.matching import tokens_at_once
from sae_tutorial.autoencoder.parts import cut, joined, joined_state
from sae_tutorial.autoencoder.sae import SparseAutoencoder, feature_dim
from sae_tutorial.autoencoder.thresholds import measure_thresholds, window
from sae_tutorial.training.checkpoint import Keeper, about, content_of, restore
from sae_tutorial.training.checks import (
    check_ranks,
    check_saes,
    check_split,
    check_stores,
    checkpoint_file,
    settings_of_each,
)
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import start_, unit_rows_
from sae_tutorial.training.step import Trainee

Batch = tuple[Tensor, Tensor | None, Tensor | None]  # activations, what is predicted of them, gradients of the loss
SAMPLE = 8192  # activations that initialisation looks at


@dataclass(frozen=True)
class TrainingRun:
    """What a training leaves, beside the SAE itself.

    metrics     arrays with one number per step: loss (what was minimised), fvu, l0, dead (share of latents without
                a match in the last `dead_after` tokens; NaN until there are so many), aux, penalty (both without
                their weight), grad_norm, lr
    density     (F,) share of tokens that match each feature, a running average at the end
    seconds     wall-clock time, all parts of a resumed run together
    resumed_at  the step of the checkpoint that was gone on from; 0 if there was none
    """

    sae: SparseAutoencoder
    settings: TrainSettings
    metrics: dict[str, np.ndarray]
    density: Float[Tensor, " features"]
    seconds: float
    resumed_at: int = 0

    def __repr__(self) -> str:
        last = {name: float(self.metrics[name][-1]) for name in ("fvu", "l0", "dead")}
        speed = self.settings.steps * self.settings.batch_size / max(self.seconds, 1e-9)
        resumed = f", resumed at step {self.resumed_at:,}" if self.resumed_at else ""
        unknown = f"– (dead_after={self.settings.dead_after:,} tokens were not seen)"
        dead = unknown if math.isnan(last["dead"]) else f"{last['dead']:.1%}"
        return (
            f"TrainingRun({self.settings.steps:,} steps in {self.seconds:.0f} s{resumed}, {speed:,.0f} tokens/s: "
            f"FVU {last['fvu']:.4f}, L0 {last['l0']:.1f}, dead {dead})"
        )


@torch.inference_mode(False)
@torch.enable_grad()
def train_many(
    saes: Sequence[SparseAutoencoder],
    store: ActivationStore,
    settings: TrainSettings | Sequence[TrainSettings] | None = None,
    *,
    target_store: ActivationStore | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool | Literal["auto"] = False,
    on_step: Callable[[int, Any], Any] | None = None,
    log_every: int = 10,
    progress: bool = True,
    split: Literal["auto", "tokens", "features", "saes"] | tuple[int, int] = "auto",
    **changes: Any,
) -> list[TrainingRun]:
    """Several SAEs side by side on the same batches: a sweep that reads the activations once.

    Each SAE comes out as `train` would have made it alone. They may differ in everything but the store's width;
    their settings may differ in everything but steps, batch_size and seed. `settings` is one for all or one for
    each, `changes` are for all, and `on_step` gets a list with the metrics of each.

    In a process group (see `distributed`) every rank makes the same call, and gets all SAEs trained. `split` says what
    is dealt out:

        "tokens"      of each batch; every rank has the whole SAE
        "features"    of the SAE, and all that training keeps of them; every rank has all tokens
        (2, 4)        both: the tokens in 2 parts, and each of these among 4 ranks that share the features
        "saes"        each is trained by one rank as if it were alone
        "auto"        SAEs, if there are several; else tokens. SAEs that are parts (`SparseAutoencoder`'s `part`) stay
                      so, and as many groups of ranks as there are share the tokens

    Ranks that share features get a whole SAE's trained features back together, and those of parts in their parts. All
    write the checkpoint, which any number of ranks goes on from, whatever they share. `on_step` is called on rank 0;
    with "saes" on every rank, for its own.
    """
    ranks = Ranks.here()

    def checked() -> tuple[Any, ...]:
        each = settings_of_each(settings, len(saes), changes)
        check_saes(saes, each)
        if on_step is not None and not callable(on_step):
            raise TypeError(f"on_step must be a function of the step and its metrics, got {on_step!r}")
        numbers = as_whole("log_every", log_every, least=1), as_whole("checkpoint_every", checkpoint_every, least=1)
        stores = check_stores(saes, store, target_store)
        return each, stores, numbers, checkpoint_file(checkpoint, resume), check_split(split, saes, ranks)

    each, stores, (log_every, checkpoint_every), path, (deals, n_parts) = ranks.all_do(checked)
    options: dict[str, Any] = {"split": str(split), "checkpoint": path and path.name, "resume": resume}
    options |= {"checkpoint_every": checkpoint_every, "log_every": log_every}
    check_ranks(ranks, saes, each, [about(sae, one) for sae, one in zip(saes, each)], stores, options)
    with apart(ranks) as ranks, grid_of(ranks, n_parts) as grid:
        part = grid.features.part
        if n_parts > 1:  # parts of one SAE, that of rank 0
            ranks.same_(t for sae in saes if sae.part[1] == 1 for t in sae.state_dict().values())
        own = [sae if sae.part == part else cut(sae, part) for sae in saes]
        times: dict[str, Any] = {"log_every": log_every, "checkpoint_every": checkpoint_every, "progress": progress}
        runs = _train(own, each, stores, ranks, Grid() if deals else grid, path, bool(resume), on_step, **times)
        if deals:
            return _of_all_ranks(runs, saes, each, ranks)
        return [_whole_again(sae, runs[i], grid.features) for i, sae in enumerate(saes)]


def _train(
    saes: Sequence[SparseAutoencoder],
    each: list[TrainSettings],
    stores: list[ActivationStore],
    ranks: Ranks,
    grid: Grid,
    path: Path | None,
    resume: bool,
    on_step: Callable[[int, Any], Any] | None,
    *,
    log_every: int,
    checkpoint_every: int,
    progress: bool,
) -> dict[int, TrainingRun]:
    """The runs of these SAEs on a grid of ranks, or where ranks do not train together, of those that this one has."""
    store, target_store = stores[0], stores[1] if len(stores) > 1 else None
    steps, batch_size, seed = each[0].steps, each[0].batch_size, each[0].seed
    deals = grid.all.world < ranks.world
    mine = range(ranks.rank, len(saes), ranks.world) if deals else range(len(saes))
    abouts = [about(sae, one) for sae, one in zip(saes, each)]
    gradients = stores[-1].gradients if any(sae.config.gradient_weight for sae in saes) else None
    # Refuses a batch that is larger than the store, or smaller than the ranks, before anything is changed.
    store.batches(batch_size, seed, part=grid.tokens.part)
    device = saes[0].W_dec.device

    def batches(start: int, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Raw activations, and raw targets and gradients of the same positions, from step `start` on."""
        options: dict[str, Any] = {"epochs": None, "start_batch": start, "part": part, "device": device}
        sides = (store, target_store, gradients)
        return zip(*(repeat(None) if one is None else one.batches(batch_size, seed, **options) for one in sides))

    resuming = path if ranks.from_rank(0, resume and path is not None and path.exists()) else None
    first, seconds = 0, 0.0
    with unchanged_if_refused(saes if resuming else []):
        trainees = {i: prepared(saes[i], each[i], store, target_store, grid) for i in mine}
        if resuming is not None:
            first, seconds = ranks.all_do(lambda: restore(trainees, abouts, stores, resuming))
    began = time.perf_counter() - seconds

    def states() -> list[dict]:
        """All that the next steps depend on: of each SAE on rank 0, of those that are here on others."""
        here = {i: trainee.state() for i, trainee in trainees.items()}
        here = {i: state for of_rank in ranks.to_first(here) for i, state in of_rank.items()} if deals else here
        return [here[i] for i in sorted(here)]

    def content(states: list[dict]) -> dict[str, Any]:  # on rank 0 alone, for it reads the stores
        return content_of(states, abouts, stores, time.perf_counter() - began)

    keeper = None if path is None else Keeper(path, ranks, grid, content)
    if keeper is not None and first < steps:
        keeper.check_room(states())
    told = ranks.from_rank(0, on_step is not None)

    def tell(done: int, latest: list[dict[str, float]]) -> None:
        if on_step is not None:
            on_step(done, latest)

    resumed = f"resumed at step {first:,}" if first else None
    quiet = not progress or ranks.rank > 0
    with tqdm(total=steps, initial=first, desc=resumed, disable=quiet, unit="step") as bar:
        nothing: Iterator[Any] = repeat((None, None, None))  # to read, for a rank that has no SAE
        dealt = batches(first, grid.tokens.part) if trainees else nothing
        for done, batch in zip(range(first + 1, steps + 1), dealt):
            for i, trainee in trainees.items():
                try:
                    _advance(trainee, *batch)
                except (ValueError, FloatingPointError) as error:
                    error.add_note(f"in step {done} of {steps}" + (f", SAE {i} of {len(saes)}" if i else ""))
                    raise
            if done % log_every == 0 or done == steps:
                latest = [t.history.at(done - 1) for t in trainees.values()]
                bar.set_postfix_str(_one_line(latest), refresh=False)
                if told and not deals:
                    ranks.first_does(partial(tell, done, latest))
                elif deals and latest:
                    tell(done, latest)
                if deals:
                    ranks.wait()  # now and then: whoever waits long is taken for lost
            bar.update()
            save_now = keeper is not None and (done % checkpoint_every == 0 or done == steps)
            if save_now or done == steps:
                for trainee in trainees.values():
                    _measure(trainee, done, batches)
                    grid.tokens.same_([trainee.sae.threshold])
            if save_now and keeper is not None:
                keeper.save(states(), done)
    for sae in saes:
        sae.zero_grad()  # the user's next backward would add to them
    took = time.perf_counter() - began, first
    return {
        i: TrainingRun(t.sae, t.settings, t.history.arrays(), t.usage.density.clone(), *took)
        for i, t in trainees.items()
    }


def _whole_again(sae: SparseAutoencoder, run: TrainingRun, of_features: Ranks) -> TrainingRun:
    """The run of an SAE whose features ranks have shared: its own, where they were parts before."""
    if run.sae is sae:
        return run
    sae.load_state_dict(joined_state(run.sae, of_features))
    sae.take_origin(run.sae)
    return replace(run, sae=sae, density=of_features.joined(run.density))


def joined_run(run: TrainingRun, of_features: Ranks) -> TrainingRun:
    """The run of a part, with the whole SAE on a CPU, from the ranks that have its features."""
    return replace(run, sae=joined(run.sae, of_features), density=of_features.joined(run.density).cpu())


@contextmanager
def unchanged_if_refused(saes: Sequence[SparseAutoencoder]) -> Iterator[None]:
    """If what happens meanwhile is refused, these SAEs are what they were."""
    was = [(copy(sae), {name: t.clone() for name, t in sae.state_dict().items()}) for sae in saes]
    try:
        yield
    except ValueError:
        for sae, (origin, state) in zip(saes, was):
            sae.load_state_dict(state)
            sae.take_origin(origin)
        raise


def _advance(trainee: Trainee, x_BD: Tensor, y_BO: Tensor | None, g_BO: Tensor | None) -> None:
    """One step on raw activations, raw targets and gradients."""
    sae, u_BD = trainee.sae, trainee.sae.normalise(x_BD)
    target_BO = u_BD if y_BO is None else sae.normalise_target(y_BO)
    asked = g_BO if sae.config.gradient_weight else None
    trainee.advance(u_BD, target_BO, None if asked is None else sae.in_units(asked))


def _of_all_ranks(
    runs: dict[int, TrainingRun], saes: Sequence[SparseAutoencoder], each: list[TrainSettings], ranks: Ranks
) -> list[TrainingRun]:
    """The runs of SAEs that were dealt out, on every rank."""
    found = []
    for i, (sae, settings) in enumerate(zip(saes, each)):
        rank, run, device = i % ranks.world, runs.get(i), sae.W_dec.device
        told = run and (
            {name: t.cpu() for name, t in sae.state_dict().items()},
            (sae.hook_name, sae.target_hook_name),
            (run.metrics, run.density.cpu(), run.seconds, run.resumed_at),
        )
        state, names, (metrics, density, *took) = cast(Any, ranks.from_rank(rank, told))
        if run is None:
            sae.load_state_dict(state)
            sae.hook_name, sae.target_hook_name = names
            run = TrainingRun(sae, settings, metrics, density.to(device), *took)
        found.append(run)
    return found


@arguments_of(train_many)
def train(sae: SparseAutoencoder, *same: Any, on_step: Any = None, **options: Any) -> TrainingRun:
    """Train `sae` in place on the activations of `store`: `train(sae, store, steps=2000, lr=1e-3)`.

    settings, changes  see TrainSettings; `changes` are its fields, by name
    target_store       what a transcoder predicts: the same positions, read at another hook
    checkpoint         a file to save everything to, every `checkpoint_every` steps and at the end. That it can be
                       written is tried before the first step; later it is only a warning if it cannot. A file that
                       is there is replaced, unless it is gone on from
    resume             True: go on from that file, or FileNotFoundError; "auto": if it is there, for jobs that may be
                       interrupted. On a CPU the result is the same, bit for bit. `TrainingRun.resumed_at` is its step
    on_step            called every `log_every` steps with (steps done, {"fvu": …, "l0": …, …}). For TensorBoard:
                       `lambda step, m: [writer.add_scalar(name, value, step) for name, value in m.items()]`,
                       for Weights & Biases: `lambda step, m: wandb.log(m, step=step)`
    progress           a bar with FVU, L0 and the share of dead latents
    split              in a group of processes, what they share: see `train_many`, `distributed`

    A fresh SAE takes mean and scale from the store (unless config.normalise is False) and starts as `start_` describes;
    one that has seen tokens, or comes from another library, goes on with what it has, and its function stays what it
    was. At the end, and in every checkpoint, inference thresholds are measured on the last batches: see
    `measure_thresholds`. The SAE takes on the stores' hook names.

    Raises TypeError or ValueError for wrong arguments; for stores that do not fit: another width, other tokens, fewer
    positions than a batch, constant activations, no gradients for an SAE with a beta; and for a checkpoint of other
    stores or settings, or a file that is none. OSError where no checkpoint can be written. FloatingPointError if the
    loss is no longer a number.
    """
    each = (lambda step, metrics: on_step(step, metrics[0])) if callable(on_step) else on_step
    return train_many([sae], *same, on_step=each, **options)[0]


def prepared(
    sae: SparseAutoencoder,
    settings: TrainSettings,
    store: ActivationStore,
    target_store: ActivationStore | None,
    grid: Grid | None = None,
) -> Trainee:
    """Give a fresh SAE its units and its start, any SAE unit rows as far as possible, and make it a trainee."""
    grid = grid or Grid()
    unit_rows_(sae, grid.features)
    of_loss = (store if target_store is None else target_store).gradients
    if sae.config.gradient_weight and of_loss is not None and sae.gradient_scale < 0:
        sae.gradient_scale.fill_(of_loss.scale)
    if not sae.started:
        n = min(len(store), SAMPLE, tokens_at_once(sae, whole=True))
        rows = torch.linspace(0, len(store) - 1, n).long()  # evenly from the whole store
        if sae.config.normalise:
            sae.mean.copy_(store.mean)
            sae.scale.fill_(store.scale)
            if target_store is not None:
                sae.out_mean.copy_(target_store.mean)
                sae.out_scale.fill_(target_store.scale)
        device = sae.W_dec.device
        targets = None if target_store is None else target_store.rows(rows).to(device)
        start_(sae, store.rows(rows).to(device), targets, grid.features)
    for name, one in (("hook_name", store), ("target_hook_name", target_store)):
        was, now = getattr(sae, name), None if one is None else one.hook_name
        if now is not None and was not in (None, now) and sae.started:
            warnings.warn(f"this SAE was trained on {was!r}, and goes on with {now!r}", stacklevel=5)
        setattr(sae, name, now or was)
    predicted, scale = (store, sae.scale) if target_store is None else (target_store, sae.out_scale)
    grid.tokens.same_(sae.state_dict().values())
    grid.all.same_(t for name, t in sae.state_dict().items() if feature_dim(name, t) is None)
    return Trainee(sae, settings, (predicted.scale / float(scale)) ** 2, grid)


@dataclass(frozen=True)
class Replayed:
    """The same `n` batches of activations as often as they are wanted: to measure thresholds may take a second look."""

    batches: Callable[[int], Iterator[Batch]]
    start: int
    n: int

    def __iter__(self) -> Iterator[Any]:
        sides = islice(self.batches(self.start), self.n)
        return (x_BD if g_BO is None else (x_BD, g_BO) for x_BD, _, g_BO in sides)


def _measure(trainee: Trainee, done: int, batches: Callable[[int], Iterator[Batch]]) -> None:
    """Thresholds from the last batches; where capacities rotate, from a whole rotation, even if it were longer than
    the run: then from batches that are still to come."""
    last, rotation = trainee.settings.threshold_batches, window(trainee.sae, trainee.settings.batch_size)
    start = max(0, done - max(last, rotation))
    replayed = Replayed(batches, start, max(rotation, done - start))
    measure_thresholds(trainee.sae, replayed, start, trainee.grid.features)


def _one_line(latest: list[dict[str, float]]) -> str:
    """FVU, L0 and dead latents for the progress bar; of several SAEs the smallest and the largest."""

    def span(name: str, form: str) -> str:
        known = sorted(one[name] for one in latest if not math.isnan(one[name]))
        low, high = (format(known[i], form) if known else "–" for i in (0, -1))
        return low if low == high else f"{low}–{high}"

    return f"FVU {span('fvu', '.4f')}, L0 {span('l0', '.1f')}, dead {span('dead', '.1%')}"
