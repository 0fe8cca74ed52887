"""train: an SAE and a store of activations in, a trained SAE and its history out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.fields import as_whole
from sae_tutorial.autoencoder.matching import tokens_at_once
from sae_tutorial.autoencoder.rescaling import unit_decoder_
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.thresholds import measure_thresholds, window
from sae_tutorial.training.checkpoint import restore, save
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import start_
from sae_tutorial.training.step import Trainee

# Called now and then with the number of steps done and the latest metrics.
Callback = Callable[[int, dict[str, float]], Any]
SAMPLE = 8192  # activations that initialisation looks at


@dataclass(frozen=True)
class TrainingRun:
    """What a training left behind, beside the SAE itself.

    metrics   arrays with one number per step: loss (what was minimised), fvu, l0, dead (share of latents without
              a match in the last `dead_after` tokens), aux, penalty (both without their weight), grad_norm, lr
    density   (F,) share of tokens that match each feature, a running average at the end
    seconds   wall-clock time, all parts of a resumed run together
    """

    sae: SparseAutoencoder
    settings: TrainSettings
    metrics: dict[str, np.ndarray]
    density: Float[Tensor, " features"]
    seconds: float

    def __repr__(self) -> str:
        last = {name: float(self.metrics[name][-1]) for name in ("fvu", "l0", "dead")}
        speed = self.settings.steps * self.settings.batch_size / max(self.seconds, 1e-9)
        return (
            f"TrainingRun({self.settings.steps:,} steps in {self.seconds:.0f} s, {speed:,.0f} tokens/s: "
            f"FVU {last['fvu']:.4f}, L0 {last['l0']:.1f}, dead {last['dead']:.1%})"
        )


def train(
    sae: SparseAutoencoder,
    store: ActivationStore,
    settings: TrainSettings | None = None,
    *,
    target_store: ActivationStore | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
    on_step: Callback | None = None,
    log_every: int = 10,
    progress: bool = True,
    **changes: Any,
) -> TrainingRun:
    """Train `sae` in place on the activations of `store`: `train(sae, store, steps=2000, lr=1e-3)`.

    settings, changes  see TrainSettings; `changes` are its fields, by name
    target_store       what a transcoder predicts: the same positions, read at another hook
    checkpoint         a file to save everything to, every `checkpoint_every` steps; removed by nobody
    resume             go on from that file, if it is there; on a CPU the result is the same, bit for bit
    on_step            called every `log_every` steps with (steps done, {"fvu": …, "l0": …, …}). For TensorBoard:
                       `lambda step, m: [writer.add_scalar(name, value, step) for name, value in m.items()]`,
                       for Weights & Biases: `lambda step, m: wandb.log(m, step=step)`
    progress           a bar with FVU, L0 and the share of dead latents

    A fresh SAE takes mean and scale from the store (unless config.normalise is False) and starts as `start_` says; one
    that has seen tokens, or comes from another library, goes on with what it has. At the end, and in every checkpoint,
    inference thresholds are measured on the last batches: see `measure_thresholds`.

    Raises ValueError for stores that do not fit: another width, fewer positions than a batch, constant activations;
    and for a checkpoint of other stores or settings, or a file that is none.
    Raises FloatingPointError if the loss is no longer a number.
    """
    runs = train_many(
        [sae],
        store,
        settings,
        target_store=target_store,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        on_step=None if on_step is None else lambda step, metrics: on_step(step, metrics[0]),
        log_every=log_every,
        progress=progress,
        **changes,
    )
    return runs[0]


@torch.enable_grad()
def train_many(
    saes: Sequence[SparseAutoencoder],
    store: ActivationStore,
    settings: TrainSettings | Sequence[TrainSettings] | None = None,
    *,
    target_store: ActivationStore | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
    on_step: Callable[[int, list[dict[str, float]]], Any] | None = None,
    log_every: int = 10,
    progress: bool = True,
    **changes: Any,
) -> list[TrainingRun]:
    """Several SAEs side by side on the same batches: a sweep that reads the activations once.

    Each SAE comes out as `train` would have made it alone. They may differ in everything but the store's width;
    their settings may differ in everything but steps, batch_size and seed. `settings` is one for all or one for
    each, `changes` are for all, and `on_step` gets a list with the metrics of each.
    """
    each = _settings_of_each(settings, len(saes), changes)
    steps, batch_size, seed = _what_they_share(each)
    _check_stores(saes, store, target_store)
    _check_saes(saes, batch_size)
    log_every = as_whole("log_every", log_every, least=1)
    checkpoint_every = as_whole("checkpoint_every", checkpoint_every, least=1)
    path = None if checkpoint is None else Path(checkpoint)
    if resume and path is None:
        raise ValueError("resume=True goes on from a checkpoint, but there is none; give its file: checkpoint=...")
    store.batches(batch_size, seed)  # refuses a batch that is larger than the store, before anything is changed

    def batches(start: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Raw activations, and raw targets of the same positions, from step `start` on."""
        sides = [s for s in (store, target_store) if s is not None]
        both = [s.batches(batch_size, seed, epochs=None, start_batch=start, device=saes[0].W_dec.device) for s in sides]
        return ((side[0], side[1] if target_store else None) for side in zip(*both))

    trainees = [_enrol(sae, one, store, target_store) for sae, one in zip(saes, each)]
    stores, seconds = [one for one in (store, target_store) if one is not None], 0.0
    if resume and path is not None and path.exists():
        seconds = restore(trainees, stores, path)
    began, first = time.perf_counter() - seconds, trainees[0].step
    with tqdm(total=steps, initial=first, disable=not progress, unit="step") as bar:
        for done, (x_BD, y_BO) in zip(range(first + 1, steps + 1), batches(first)):
            for i, trainee in enumerate(trainees):
                try:
                    _advance(trainee, x_BD, y_BO)
                except (ValueError, FloatingPointError) as error:
                    error.add_note(f"in step {done} of {steps}" + (f", SAE {i} of {len(saes)}" if i else ""))
                    raise
            if done % log_every == 0 or done == steps:
                latest = [t.history.at(done - 1) for t in trainees]
                bar.set_postfix_str(_one_line(latest), refresh=False)
                if on_step is not None:
                    on_step(done, latest)
            bar.update()
            save_now = path is not None and (done % checkpoint_every == 0 or done == steps)
            if save_now or done == steps:
                for trainee in trainees:
                    _measure(trainee, done, lambda start: (x for x, _ in batches(start)))
            if save_now and path is not None:
                save(trainees, stores, path, time.perf_counter() - began)
    return [_run(trainee, time.perf_counter() - began) for trainee in trainees]


def _enrol(
    sae: SparseAutoencoder, settings: TrainSettings, store: ActivationStore, target_store: ActivationStore | None
) -> Trainee:
    """Give a fresh SAE its units and its start, and make it a trainee."""
    if not sae.started:
        n = min(len(store), SAMPLE, tokens_at_once(sae))
        rows = torch.linspace(0, len(store) - 1, n).long()  # evenly from the whole store
        if sae.config.normalise:
            sae.mean.copy_(store.mean)
            sae.scale.fill_(store.scale)
            if target_store is not None:
                sae.out_mean.copy_(target_store.mean)
                sae.out_scale.fill_(target_store.scale)
        device = sae.W_dec.device
        start_(sae, store.rows(rows).to(device), None if target_store is None else target_store.rows(rows).to(device))
    else:
        unit_decoder_(sae)
    predicted, scale = (store, sae.scale) if target_store is None else (target_store, sae.out_scale)
    return Trainee(sae, settings, variance=(predicted.scale / float(scale)) ** 2)


def _advance(trainee: Trainee, x_BD: Tensor, y_BO: Tensor | None) -> None:
    """One step on raw activations; without a target, they are their own."""
    u_BD = trainee.sae.normalise(x_BD)
    trainee.advance(u_BD, u_BD if y_BO is None else trainee.sae.normalise_target(y_BO))


@dataclass(frozen=True)
class _Again:
    """The same `n` batches as often as one likes: whoever measures thresholds may have to look twice."""

    batches: Callable[[int], Iterator[Tensor]]
    start: int
    n: int

    def __iter__(self) -> Iterator[Tensor]:
        return islice(self.batches(self.start), self.n)


def _measure(trainee: Trainee, done: int, batches: Callable[[int], Iterator[Tensor]]) -> None:
    """Thresholds from the last batches; where capacities rotate, from a whole rotation, even if it were longer than
    the run: then from batches that are still to come."""
    last, rotation = trainee.settings.threshold_batches, window(trainee.sae, trainee.settings.batch_size)
    start = max(0, done - max(last, rotation))
    measure_thresholds(trainee.sae, _Again(batches, start, max(rotation, done - start)), start)


def _run(trainee: Trainee, seconds: float) -> TrainingRun:
    return TrainingRun(trainee.sae, trainee.settings, trainee.history.arrays(), trainee.usage.density.clone(), seconds)


def _one_line(latest: list[dict[str, float]]) -> str:
    """FVU, L0 and dead latents for the progress bar; of several SAEs the smallest and the largest."""

    def span(name: str, form: str) -> str:
        low, high = (f(one[name] for one in latest) for f in (min, max))
        return format(low, form) + (f"–{high:{form}}" if len(latest) > 1 else "")

    return f"FVU {span('fvu', '.4f')}, L0 {span('l0', '.1f')}, dead {span('dead', '.1%')}"


# ---------------------------------------------------------------------- what is refused


def _settings_of_each(settings: Any, n: int, changes: dict[str, Any]) -> list[TrainSettings]:
    fields = [field.name for field in dataclasses.fields(TrainSettings)]
    for name in changes:
        if name not in fields:
            raise TypeError(f"train got an unknown setting {name!r}; there are: {', '.join(fields)}")
    each = list(settings) if isinstance(settings, Sequence) else [settings or TrainSettings()] * n
    if n == 0 or len(each) != n:
        raise ValueError(f"settings must be one for all or one for each of the {n} SAEs, got {len(each)}")
    return [dataclasses.replace(one, **changes) for one in each]


def _what_they_share(each: list[TrainSettings]) -> tuple[int, int, int]:
    for name in ("steps", "batch_size", "seed"):
        values = sorted({getattr(one, name) for one in each})
        if len(values) > 1:
            raise ValueError(f"{name} must be the same for SAEs trained side by side, got {values}")
    return each[0].steps, each[0].batch_size, each[0].seed


def _check_saes(saes: Sequence[SparseAutoencoder], batch_size: int) -> None:
    if len({id(sae) for sae in saes}) < len(saes):
        raise ValueError("saes holds the same SAE twice, and both would train it; copy it: copy.deepcopy(sae)")
    for sae in saes:
        if sae.W_dec.dtype == torch.float16:
            raise ValueError("an SAE in float16 cannot be trained: small gradients vanish; convert it: sae.float()")
        if sae.config.k is not None and sae.config.n_matches(batch_size) < 1:
            raise ValueError(
                f"k={sae.config.k:g} leaves not one match to a batch of {batch_size} tokens; raise k or batch_size"
            )


def _check_stores(
    saes: Sequence[SparseAutoencoder], store: ActivationStore, target_store: ActivationStore | None
) -> None:
    for sae in saes:
        if store.d_in != sae.config.d_in:
            raise ValueError(f"the store's activations have width {store.d_in}, the SAE has d_in={sae.config.d_in}")
        if sae.config.is_transcoder != (target_store is not None):
            raise ValueError(
                "target_store is what a transcoder predicts: an SAEConfig with d_out needs it, one without has no use "
                f"for it; got d_out={sae.config.d_out} and target_store={target_store!r}"
            )
        if target_store is not None and target_store.d_in != sae.config.d_out:
            raise ValueError(f"target_store has width {target_store.d_in}, the SAE has d_out={sae.config.d_out}")
    if target_store is not None and len(target_store) != len(store):
        raise ValueError(
            f"store has {len(store)} positions and target_store {len(target_store)}, so they do not belong together; "
            "harvest both from the same tokens"
        )
    for name, one in (("store", store), ("target_store", target_store)):
        if one is not None and not (math.isfinite(one.scale) and one.scale > 0):
            raise ValueError(f"all activations of {name} are equal (scale {one.scale}): there is nothing to learn")
