"""harvest, train, evaluate: what takes minutes or days, goes on after a kill, and leaves folders."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_tutorial.activations.arguments import as_part
from sae_tutorial.activations.files import cache_folder, locked, path_of, write_atomically
from sae_tutorial.activations.ranks import Ranks, grid_of
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import RULES, SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.saving import load_metadata, load_sae, save_sae
from sae_tutorial.commands.options import fields_of, given, read_toml, writable
from sae_tutorial.commands.sources import Reading, fingerprint, name_of, of_metadata, rows_to_measure
from sae_tutorial.evaluation.fidelity import Evaluation, evaluate_many
from sae_tutorial.training.checkpoint import remove_parts
from sae_tutorial.training.checks import feature_parts
from sae_tutorial.training.loop import TrainingRun, joined_run, train_many
from sae_tutorial.training.settings import FOR, TrainSettings

WIDER, USUAL_K = 16, 32  # features for each coordinate, and for each token, where that is not said
USUAL = {"d_sae": f"{WIDER} for each coordinate", "k": f"{USUAL_K} where the rule has a budget"}
NOT_SAID = ("d_in", "d_out", "skip")  # of an SAEConfig: the store says the first, the others are for transcoders
HISTORY, CARD, READ = "history.npz", "README.md", "reading.json"
MEASURES = ("l0", "fvu", "recovered", "recovered_mean", "ce_clean", "ce_spliced", "kl", "dead", "underused")
READING, SETTINGS, CONFIG = fields_of(Reading), fields_of(TrainSettings), fields_of(SAEConfig, NOT_SAID)
KNOWN = {"": (*READING, "out", "store"), "train": SETTINGS, "sae": ("name", *CONFIG)}


def harvest(args: argparse.Namespace) -> None:
    """Activations onto the disk, in the cache or in --out. The same harvest is found again, a stopped one goes on; the
    processes of torchrun share it."""
    reading = Reading(**given(args, READING))
    folder = writable(args.out or cache_folder("harvests"))
    model, hook = reading.load()
    with locked(folder, exclusive=False):
        store = _harvested(reading, model, hook, reading.rows(model)[0], folder, False, args)
        assert store.folder is not None, "it was harvested into a folder"
        write_atomically(store.folder / READ, json.dumps(reading.remembered(hook)).encode())
    if Ranks.here().rank == 0:
        print(f"{store}\n{store.folder}")


def train(args: argparse.Namespace) -> None:
    """One SAE, or several side by side on the same batches; each into a folder of --out. Activations are kept in the
    cache. A training that was killed goes on when the same command is given again. Under torchrun processes share what
    --split says."""
    said = read_toml(args.config, KNOWN)
    top = {key: said[key] for key in KNOWN[""] if key in said} | given(args, KNOWN[""])
    out, store_folder = writable(top.pop("out", None) or "saes"), top.pop("store", None)
    tables = _tables(said.get("sae", []), args)
    each = _settings(said.get("train", {}) | given(args, SETTINGS), tables)
    checkpoint = out / f"checkpoint-{'+'.join(tables)}.pt"
    for name in tables:
        if (out / name).exists() and not args.again and not checkpoint.exists():
            raise FileExistsError(f"{out / name} is there already: choose another --out, or --again to train it anew")
    reading = Reading(**top) if store_folder is None else _of_store(store_folder, top)
    ranks = Ranks.here()
    n_parts = feature_parts(args.split, ranks.world)
    model, hook = reading.load()
    configs = [_config(fields, model.cfg.d_model) for fields in tables.values()]
    for config, settings in zip(configs, each):  # errors before hours of work
        settings.check_for(config)
        as_part((ranks.rank % n_parts, n_parts), "d_sae", config.d_sae)
    to_train, held_out = reading.rows(model)
    harvests = cache_folder("harvests")
    harvests.mkdir(parents=True, exist_ok=True)
    with locked(harvests, exclusive=False):  # so that `clean` waits
        if store_folder is None:
            gradients = any(config.gradient_weight > 0 for config in configs)
            store = _harvested(reading, model, hook, to_train, harvests, gradients, args)
        else:
            store = _opened_store(store_folder, to_train)
        saes = [
            SparseAutoencoder(_config(fields, store.d_in), one.seed, part=(ranks.rank % n_parts, n_parts))
            for fields, one in zip(tables.values(), each)
        ]
        runs = _trained(saes, store, each, model, checkpoint, args)
        if n_parts > 1:
            with grid_of(ranks, n_parts) as grid:
                runs = [joined_run(run, grid.features) for run in runs]
    if ranks.rank > 0:
        return
    for name, run in zip(tables, runs):  # before anything else can fail
        run.sae.model_name = reading.model
        _save(out / name, run, None, reading.remembered(hook), held_out)
    found = evaluate_many(
        [run.sae.to(model.cfg.device) for run in runs], model, held_out, hook, progress=not args.quiet
    )
    for name, run, one in zip(tables, runs, found):
        _save(out / name, run, one, reading.remembered(hook), held_out)
    checkpoint.unlink(missing_ok=True)
    remove_parts(checkpoint)
    print(table(dict(zip(tables, found))))
    print(f"in {out}: " + ", ".join(tables))


def _trained(
    saes: list[SparseAutoencoder], store: Any, each: list[TrainSettings], model: Any, checkpoint: Path, args: Any
) -> list[TrainingRun]:
    try:
        return train_many(
            [sae.to(model.cfg.device) for sae in saes],
            store,
            each,
            checkpoint=checkpoint,
            checkpoint_every=args.checkpoint_every,
            resume="auto",
            progress=not args.quiet,
            split=args.split,
        )
    except KeyboardInterrupt:
        if checkpoint.exists():
            print("the same command goes on from the last checkpoint", file=sys.stderr)
        raise
    except ValueError as error:
        if "checkpoint" in str(error) and checkpoint.exists():
            raise ValueError(f"{error}. Here: delete {checkpoint}, or choose another --out") from None
        raise


def evaluate(args: argparse.Namespace) -> None:
    """What SAEs are worth on text: on the rows that were held out of their training, or on another text."""
    found: dict[str, Evaluation] = {}
    loaded: dict[tuple, Any] = {}
    for folder in args.folders:
        sae, reading, about = opened(folder, args)
        if (reading.model, reading.hook) not in loaded:
            loaded[reading.model, reading.hook] = reading.load()
        model, hook = loaded[reading.model, reading.hook]
        held_out = rows_to_measure(reading, about, model)
        target = sae.target_hook_name if sae.config.is_transcoder else None
        found[str(folder)] = evaluate_many(
            [sae.to(model.cfg.device)], model, held_out, hook, target_hook=target, progress=not args.quiet
        )[0]
    if args.json:
        print(json.dumps({name: measures(one) for name, one in found.items()}, indent=1))
    else:
        print(table(found))


def opened(folder: str, args: argparse.Namespace) -> tuple[SparseAutoencoder, Reading, dict[str, Any]]:
    """An SAE from a folder, what it was trained on, with what the command line says instead, and its metadata."""
    place = path_of("folder", folder)
    sae, about = load_sae(place), load_metadata(place)
    return sae, of_metadata(about, given(args, READING)), about


def measures(found: Evaluation) -> dict[str, float | None]:
    """By name; None for what could not be measured."""
    numbers = {name: float(getattr(found, name)) for name in MEASURES}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def table(found: dict[str, Evaluation]) -> str:
    """Aligned columns, a line for each SAE."""
    heads = ["", "L0", "FVU", "recovered", "from mean", "CE", "with SAE", "KL", "dead", "underused"]
    form = ("{:.1f}", "{:.4f}", "{:.1%}", "{:.1%}", "{:.3f}", "{:.3f}", "{:.4f}", "{:.1%}", "{:.1%}")
    rows = [heads]
    for name, one in found.items():
        rows.append([name, *("–" if x is None else f.format(x) for f, x in zip(form, measures(one).values()))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))) for row in rows
    )


def _harvested(
    reading: Reading, model: Any, hook: str, rows: Any, folder: Path, gradients: bool, args: Any
) -> ActivationStore:
    how: dict[str, Any] = {"dtype": getattr(torch, reading.dtype), "gradients": gradients}
    return ActivationStore.harvest(model, rows, hook, cache_dir=folder, progress=not args.quiet, **how)


def _of_store(folder: str, said: dict[str, Any]) -> Reading:
    """What `harvest` read for this store. Raises ValueError where the command line says something else."""
    file = path_of("--store", folder) / READ
    if not file.exists():
        raise FileNotFoundError(f"--store {folder} has no {READ}: give the folder that `harvest` has printed")
    own = json.loads(file.read_text())
    for name, value in said.items():
        if name != "device" and value != own[name]:
            raise ValueError(f"{name}={value!r}, and --store {folder} was read with {own[name]!r}: leave --{name} away")
    return Reading(**own | {name: value for name, value in said.items() if name == "device"})


def _opened_store(folder: str, to_train: Any) -> ActivationStore:
    store = ActivationStore.open(folder)
    if store.tokens is None or not torch.equal(store.tokens.cpu(), to_train.cpu()):
        raise ValueError(f"--store {folder} was harvested from a text that has changed since: harvest it again")
    return store


def _tables(tables: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Name -> fields of an SAEConfig: of each table of the file, or of each --rule, with what flags say instead."""
    flags = given(args, KNOWN["sae"])
    rules = flags.pop("rule", None)
    if tables and rules and len(rules) > 1:
        raise ValueError(f"--rule {' '.join(rules)}: the file says which SAEs there are; leave one of both away")
    if not tables:
        tables, rules = [{"rule": rule} for rule in rules or [SAEConfig.rule]], None
    named: dict[str, dict[str, Any]] = {}
    for one in tables:
        rule = rules[0] if rules else one.get("rule", SAEConfig.rule)
        if not isinstance(rule, str) or rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        has_use_for_k = RULES[rule].owner or len(tables) == 1  # one alone is told that it has no budget
        own = {name: value for name, value in flags.items() if name != "k" or has_use_for_k}
        fields = one | own | {"rule": rule}
        name = str(fields.pop("name", None) or rule)
        if name in named or name in (".", "..") or Path(name).name != name:
            raise ValueError(f"an SAE is called {name!r}: give each [[sae]] a name of its own, without a slash")
        named[name] = fields
    return named


def _settings(said: dict[str, Any], tables: dict[str, dict[str, Any]]) -> list[TrainSettings]:
    """Of each SAE: where there are several, what its rule has no use for is for the others."""
    rules_for = {field.name: str(field.metadata.get("rules", "")) for field in dataclasses.fields(TrainSettings)}
    each = []
    for fields in tables.values():
        rule = RULES[fields["rule"]]
        used = {k: v for k, v in said.items() if len(tables) == 1 or not rules_for[k] or FOR[rules_for[k]](rule)}
        each.append(TrainSettings(**used))
    return each


def _config(fields: dict[str, Any], d_in: int) -> SAEConfig:
    usual = {"d_sae": WIDER * d_in} | ({"k": USUAL_K} if RULES[fields["rule"]].owner else {})
    return SAEConfig(d_in, **usual | fields)


def _save(folder: Path, run: TrainingRun, found: Evaluation | None, reading: dict[str, Any], held_out: Any) -> None:
    quality = {} if found is None else measures(found)
    about: dict[str, Any] = {"reading": reading, "training": dataclasses.asdict(run.settings), "quality": quality}
    about |= {"seconds": round(run.seconds, 1), "held_out": fingerprint(held_out)}
    save_sae(run.sae, folder, context_size=reading["context"], **about)
    kept: dict[str, Any] = {**run.metrics, "density": run.density.cpu().numpy()}
    write_atomically(folder / HISTORY, lambda file: np.savez_compressed(file, **kept))
    write_atomically(folder / CARD, card(run.sae, about).encode())


def card(sae: SparseAutoencoder, about: dict[str, Any]) -> str:
    """A page that says what this SAE is, for whoever finds its folder."""
    config, reading, training = sae.config, about["reading"], about["training"]
    known = {name: value for name, value in about["quality"].items() if value is not None}
    lines = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in known.items()]
    return f"""# Sparse autoencoder of {reading["model"]}, {reading["hook"]}

- model: `{reading["model"]}`, hook `{reading["hook"]}`
- rule `{config.rule}`, {config.d_sae:,} features of {config.d_in} coordinates, k = {config.k}
- text: {name_of(reading["text"])}; at most {reading["tokens"]:,} tokens in rows of {reading["context"]}
- training: {training["steps"]:,} steps of {training["batch_size"]:,} tokens, seed {training["seed"]}

Measured on {reading["held_out"]} rows that it was not trained on (losses in nats):

{chr(10).join(lines)}

`sae_tutorial.load_sae(folder)` reads it; the weights are in the format of SAELens 6. Activations are those of
`load_language_model`: of a model with LayerNorms, the mean over coordinates is taken off. Elsewhere, take it off first.
"""
