"""Transcoders of MLPs, by two allocation rules, with and without a skip path: rows of a course notebook, and weights.

    python scripts/transcoders.py           a line for each, in the cache; goes on where it stopped
    python scripts/transcoders.py --ship    puts the lines into the package, and what `reference_transcoders` reads

Every MLP of the embedded model, and one of SmolLM2. All of a layer have the same size, budget, learning rate, batches
and steps, and so has an SAE of the MLP's output beside them. What an MLP reads and what it writes are harvested in one
pass over the shipped text and, for the embedded model, over year spans: its stories have next to none, and transcoders
that never saw one lose what it does with years. The spans have other events than those that are asked about.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import checksums
import kept_lines
import torch
from circuit_sentences import EVENTS

from sae_tutorial import SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import text_for_training
from sae_tutorial.autoencoder.shipped import TRANSCODERS, pack, unpack
from sae_tutorial.circuits.greater_than import year_spans
from sae_tutorial.course.reading_features.study import explained_directions
from sae_tutorial.course.results import TRANSCODED
from sae_tutorial.course.transcoders import study
from sae_tutorial.evaluation.fidelity import evaluate
from sae_tutorial.figures.feature_report import words_of
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings

LAYERS = {"stories": (0, 1, 2, 3), "smollm2": (14,)}
TOKENS = {"stories": 2_000_000, "smollm2": 300_000}
KINDS = {"token_choice": False, "mutual_choice": False, "token_choice-skip": True, "mutual_choice-skip": True}
SAE = "sae"  # of the MLP's output, by Token Choice
SHIPPED = "token_choice"
K, D_SAE, STEPS, BATCH = 16, 2048, 1500, 2048
TRAIN_SPANS, TEST_SPANS = 4000, 200
READ, SCORED = {"stories": 128, "smollm2": 128}, {"stories": 64, "smollm2": 16}  # held-out rows
EXPLAINED, AT_RANDOM = 150, 50  # features, and passages of each that are drawn at random
ALONE = ("l0", "fvu", "ce_clean", "ce_spliced", "ce_mean", "kl", "kl_mean", "recovered", "recovered_mean", "dead")
TOGETHER = ("ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl", "kl_zero", "kl_mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=cache_folder("transcoders"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if args.ship:
        return ship(args.out)
    for name in args.models:
        model = load_language_model(name)
        for layer in LAYERS[name]:
            rows_of_layer(model, name, layer, range(args.seeds), args)
        if len(LAYERS[name]) == model.cfg.n_layers:
            rows_of_all(model, name, range(args.seeds), args.out)


def rows_of_layer(model: Any, name: str, layer: int, seeds: range, args: argparse.Namespace) -> None:
    """All kinds of one layer, each seed side by side, and what each of them is worth."""
    kept = args.out / TRANSCODED
    left = [seed for seed in seeds if f"{name}-{SAE}-{layer}-{seed}" not in kept_lines.done(kept, "key")]
    if not left:
        return
    tokens, held_out = text_for_training(TOKENS[name], model=name)
    found = study.pairs(model, tokens, [layer], dtype=torch.bfloat16, progress=False)
    if name == "stories":
        found = study.with_spans(found, model, year_spans(model, TRAIN_SPANS, events=EVENTS["train"]))
    for seed in left:
        for kind, sae in trained(*found[layer], seed, args.steps).items():
            about = {"key": f"{name}-{kind}-{layer}-{seed}", "model": name, "kind": kind, "layer": layer, "seed": seed}
            if about["key"] in kept_lines.done(kept, "key"):  # an earlier run ended within this seed
                continue
            sae.model_name = name
            pack(sae, folder_of(args.out, name, kind, seed, layer))
            kept_lines.add(kept, about | alone(model, name, sae, held_out))
            print(about["key"], flush=True)


def trained(store: Any, target: Any, seed: int, steps: int) -> dict[str, SparseAutoencoder]:
    """By kind; the SAE comes last, so its line says that a layer is done."""
    saes = {}
    for kind, skip in KINDS.items():
        config = SAEConfig(store.d_in, D_SAE, kind.removesuffix("-skip"), k=K, d_out=target.d_in, skip=skip)
        saes[kind] = SparseAutoencoder(config, seed=seed)
    settings = TrainSettings(steps, BATCH, seed=seed)
    train_many(list(saes.values()), store, settings, target_store=target, progress=False)
    saes[SAE] = SparseAutoencoder(SAEConfig(target.d_in, D_SAE, "token_choice", k=K), seed=seed)
    train_many([saes[SAE]], target, settings, progress=False)
    return saes


def alone(model: Any, name: str, sae: SparseAutoencoder, held_out: Any) -> dict[str, Any]:
    """What one is worth in the place of its MLP, to a reader of its features, and on greater-than."""
    one = evaluate(
        sae, model, held_out[: SCORED[name]], str(sae.hook_name), target_hook=sae.target_hook_name, progress=False
    )
    row: dict[str, Any] = {measure: getattr(one, measure) for measure in ALONE}
    read = held_out[: READ[name]].reshape(-1, 128)
    explained = explained_directions(sae, model, read, words_of(model), EXPLAINED, AT_RANDOM)
    scores = {score: explained.mean(score) for score in ("simulation", "detection", "fuzzing")}
    row["explained"] = {score: [value.mean, value.low, value.high] for score, value in scores.items()}
    row["explained_features"] = len(explained.features)
    if name == "stories" and sae.config.is_transcoder:
        spans = year_spans(model, TEST_SPANS, seed=1)
        row["score"] = study.score_with(model, spans, [sae])
        if not sae.config.skip:
            row["few"] = {where: study.with_few(model, sae, spans, study.FEW, where) for where in ("END", "YY")}
            row["few"]["none"] = study.with_few(model, sae, spans, [0])
    return row


def rows_of_all(model: Any, name: str, seeds: range, out: Path) -> None:
    """All MLPs replaced, from the bottom, by each kind."""
    kept = out / TRANSCODED
    held_out = text_for_training(TOKENS[name], model=name)[1][: SCORED[name]]
    spans = year_spans(model, TEST_SPANS, seed=1)
    for kind in (*KINDS, SAE):
        for seed in seeds:
            key = f"{name}-{kind}-all-{seed}"
            if key in kept_lines.done(kept, "key"):
                continue
            saes = [unpack(folder_of(out, name, kind, seed, layer)) for layer in LAYERS[name]]
            steps = study.replaced_from_the_bottom(saes, model, held_out)
            row = {"key": key, "model": name, "kind": kind, "seed": seed, "clean": study.score(model, spans)}
            row |= {measure: [getattr(step, measure) for step in steps] for measure in TOGETHER}
            row["scores"] = [study.score_with(model, spans, saes[: n + 1]) for n in range(len(saes))]
            kept_lines.add(kept, row)
            print(key, flush=True)


def folder_of(out: Path, name: str, kind: str, seed: int, layer: int) -> Path:
    return out / "weights" / name / kind / str(seed) / str(layer)


def ship(out: Path) -> None:
    kept_lines.ship(out / TRANSCODED)
    for layer in LAYERS["stories"]:
        source = folder_of(out, "stories", SHIPPED, 0, layer)
        shutil.copytree(source, TRANSCODERS / "stories" / str(layer), dirs_exist_ok=True)
    checksums.record()


if __name__ == "__main__":
    main()
