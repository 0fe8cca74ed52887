"""harvest, train, evaluate: what takes minutes or days, goes on after a kill, and leaves folders."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_tutorial.activations.files import cache_folder, path_of, write_atomically
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import RULES, Rule, SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.saving import load_metadata, load_sae, save_sae
from sae_tutorial.commands.options import fields_of, given, read_toml, writable
from sae_tutorial.commands.sources import Reading, of_metadata
from sae_tutorial.evaluation.fidelity import Evaluation, evaluate_many
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import TrainSettings

WIDER, USUAL_K = 16, 32  # features for each coordinate, and for each token, where that is not said
OF_THE_STORE = ("d_in", "d_out")  # fields of an SAEConfig that nobody has to say
CHECKPOINT, HISTORY, CARD = "checkpoint.pt", "history.npz", "README.md"
MEASURES = ("l0", "fvu", "recovered", "recovered_mean", "ce_clean", "ce_spliced", "kl", "dead", "underused")
KNOWN = {
    "": (*fields_of(Reading), "out", "store"),
    "train": fields_of(TrainSettings),
    "sae": ("name", *fields_of(SAEConfig, OF_THE_STORE)),
}


def harvest(args: argparse.Namespace) -> None:
    """Activations onto the disk. The same harvest is found again, and an interrupted one goes on."""
    reading = Reading(**given(args, KNOWN[""][:-2]))
    model, hook = reading.load()
    folder = writable(args.out or cache_folder("harvests"))
    store = _harvested(reading, model, hook, reading.rows(model)[0], folder, args)
    print(f"{store}\n{store.folder}")


def train(args: argparse.Namespace) -> None:
    """One SAE, or several side by side on the same batches; each into a folder of --out."""
    said = read_toml(args.config, KNOWN)
    top = {key: said[key] for key in KNOWN[""] if key in said} | given(args, KNOWN[""])
    out = writable(top.pop("out", None) or "saes")
    store_folder = top.pop("store", None)
    reading = Reading(**top)
    settings = TrainSettings(**said.get("train", {}) | given(args, KNOWN["train"]))
    tables = _tables(said.get("sae", []), args)
    for name in tables:
        if (out / name).exists() and not args.again:
            raise FileExistsError(f"{out / name} is there already: choose another --out, or --again to train it anew")
    model, hook = reading.load()
    to_train, held_out = reading.rows(model)
    if store_folder is None:
        store = _harvested(reading, model, hook, to_train, cache_folder("harvests"), args)
    else:
        store = ActivationStore.open(store_folder)
        hook = store.hook_name or hook
    saes = {name: _sae(fields, store.d_in, settings.seed) for name, fields in tables.items()}
    runs = train_many(
        [sae.to(model.cfg.device) for sae in saes.values()],
        store,
        settings,
        checkpoint=out / CHECKPOINT,
        checkpoint_every=args.checkpoint_every,
        resume="auto",
        progress=not args.quiet,
    )
    found = evaluate_many([run.sae for run in runs], model, held_out, hook, progress=not args.quiet)
    for name, run, one in zip(saes, runs, found):
        run.sae.model_name = reading.model
        _save(out / name, run, one, reading.remembered(hook))
    (out / CHECKPOINT).unlink(missing_ok=True)
    print(table(dict(zip(saes, found))))
    print(f"in {out}: " + ", ".join(saes))


def evaluate(args: argparse.Namespace) -> None:
    """What SAEs are worth on text: their own held-out rows, or what is named."""
    found: dict[str, Evaluation] = {}
    for folder in args.folders:
        sae, reading = opened(folder, args)
        model, hook = reading.load()
        held_out = reading.rows(model)[1]
        target = sae.target_hook_name if sae.config.is_transcoder else None
        found[str(folder)] = evaluate_many(
            [sae.to(model.cfg.device)], model, held_out, hook, target_hook=target, progress=not args.quiet
        )[0]
    if args.json:
        print(json.dumps({name: measures(one) for name, one in found.items()}, indent=1))
    else:
        print(table(found))


def opened(folder: str, args: argparse.Namespace) -> tuple[SparseAutoencoder, Reading]:
    """An SAE from a folder, and what it was trained on, with what the command line says instead."""
    place = path_of("folder", folder)
    sae = load_sae(place)
    return sae, of_metadata(load_metadata(place), given(args, fields_of(Reading)))


def measures(found: Evaluation) -> dict[str, float]:
    return {name: float(getattr(found, name)) for name in MEASURES}


def table(found: dict[str, Evaluation]) -> str:
    """Aligned columns, a line for each SAE."""
    heads = ["", "L0", "FVU", "recovered", "from mean", "CE", "with SAE", "KL", "dead", "underused"]
    form = ("{:.1f}", "{:.4f}", "{:.1%}", "{:.1%}", "{:.3f}", "{:.3f}", "{:.4f}", "{:.1%}", "{:.1%}")
    rows = [heads]
    for name, one in found.items():
        rows.append([name, *(f.format(value) for f, value in zip(form, measures(one).values()))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))) for row in rows
    )


def _harvested(reading: Reading, model: Any, hook: str, rows: Any, folder: Path, args: Any) -> ActivationStore:
    return ActivationStore.harvest(
        model, rows, hook, cache_dir=folder, dtype=getattr(torch, reading.dtype), progress=not args.quiet
    )


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
        fields = one | flags | ({"rule": rules[0]} if rules else {})
        if RULES.get(fields.get("rule", SAEConfig.rule), Rule("")).owner is None and len(tables) > 1:
            fields.pop("k", None)  # a flag for all, of which some have a budget
        name = str(fields.pop("name", None) or fields.get("rule", SAEConfig.rule))
        if name in named or path_of("name", name).name != name:
            raise ValueError(f"an SAE is called {name!r}: give each [[sae]] a name of its own, without a slash")
        named[name] = fields
    return named


def _sae(fields: dict[str, Any], d_in: int, seed: int) -> SparseAutoencoder:
    usual = {"d_sae": WIDER * d_in} | ({"k": USUAL_K} if RULES[fields.get("rule", SAEConfig.rule)].owner else {})
    return SparseAutoencoder(SAEConfig(d_in, **usual | fields), seed=seed)


def _save(folder: Path, run: TrainingRun, found: Evaluation, reading: dict[str, Any]) -> None:
    settings = dataclasses.asdict(run.settings)
    quality = measures(found)
    about: dict[str, Any] = {
        "reading": reading,
        "training": settings,
        "quality": quality,
        "seconds": round(run.seconds, 1),
    }
    save_sae(run.sae, folder, context_size=reading["context"], **about)
    kept: dict[str, Any] = {**run.metrics, "density": run.density.cpu().numpy()}
    write_atomically(folder / HISTORY, lambda file: np.savez_compressed(file, **kept))
    write_atomically(folder / CARD, card(run.sae, about).encode())


def card(sae: SparseAutoencoder, about: dict[str, Any]) -> str:
    """A page that says what this SAE is, for whoever finds its folder."""
    config, reading, training = sae.config, about["reading"], about["training"]
    text = Path(reading["text"]).name if reading["text"] else "the text that comes with the model"
    lines = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in about["quality"].items()]
    return f"""# Sparse autoencoder of {reading["model"]}, {reading["hook"]}

- model: `{reading["model"]}`, hook `{reading["hook"]}`
- rule `{config.rule}`, {config.d_sae:,} features of {config.d_in} coordinates, k = {config.k}
- text: {text}; at most {reading["tokens"]:,} tokens in rows of {reading["context"]}
- training: {training["steps"]:,} steps of {training["batch_size"]:,} tokens, seed {training["seed"]}

Measured on {reading["held_out"]} rows that it was not trained on (losses in nats):

{chr(10).join(lines)}

`sae_tutorial.load_sae(folder)` reads it; the weights are in the format of SAELens 6.
"""
