"""Train transcoders: for each layer those of two allocation rules, with and without a skip path, side by side.

    python scripts/train_transcoders.py --out FOLDER [--model smollm2] [--layers 14] [--rules token_choice]

All of a layer have the same size, budget, learning rate, batches and steps. What an MLP reads and what it writes are
harvested in one pass over the shipped text, and over as many year spans as `--spans` says: stories have next to none,
and transcoders trained on stories alone lose what the embedded model does with years. Each is written in eight bits to
FOLDER/RULE[-skip]/LAYER, beside them in FOLDER/sae/LAYER an SAE of the MLP's output, of the same size and budget.
FOLDER/results.json says what each is worth on rows that none of them saw, and all MLPs of the model replaced at once.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from circuit_sentences import EVENTS as SPAN_EVENTS

from sae_tutorial import SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.shipped_text import HELD_OUT_ROWS, text_for_training
from sae_tutorial.autoencoder.shipped import pack, unpack
from sae_tutorial.circuits.greater_than import year_spans
from sae_tutorial.course.transcoders.study import joined, pairs
from sae_tutorial.evaluation.fidelity import evaluate
from sae_tutorial.evaluation.together import evaluate_together
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.settings import TrainSettings

MEASURES = ("l0", "fvu", "ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl", "kl_zero", "kl_mean", "recovered",
            "recovered_mean", "dead")  # fmt: skip


def variants(d_model: int, args: argparse.Namespace) -> dict[str, SAEConfig]:
    """The transcoders of a layer, by the name of their folder."""
    return {
        rule + "-skip" * skip: SAEConfig(d_model, args.d_sae, rule, k=args.k, d_out=d_model, skip=skip)
        for rule in args.rules
        for skip in (False, True)
    }


def train_layer(model: Any, tokens: Any, layer: int, args: argparse.Namespace) -> None:
    """All variants of one layer, and the SAE of its MLP's output."""
    found = pairs(model, tokens, [layer], dtype=torch.bfloat16)
    if args.spans:
        spans = year_spans(model, args.spans, seed=args.seed, events=SPAN_EVENTS["train"])
        for group in spans.groups.unique():  # as long as each other, so nothing is padded
            found = joined(found, pairs(model, spans.tokens[spans.groups == group], [layer], pad_id=None))
    store, target = found[layer]
    configs = variants(store.d_in, args)
    settings = TrainSettings(args.steps, args.batch_size, seed=args.seed)
    saes = {name: SparseAutoencoder(config, seed=args.seed) for name, config in configs.items()}
    train_many(list(saes.values()), store, settings, target_store=target)
    saes["sae"] = SparseAutoencoder(SAEConfig(target.d_in, args.d_sae, args.rules[0], k=args.k), seed=args.seed)
    train_many([saes["sae"]], target, settings)
    for name, sae in saes.items():
        sae.model_name = args.model
        pack(sae, args.out / name / str(layer))


def measured(model: Any, rows: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What each is worth, and all of a kind at once where every layer has one."""
    found: dict[str, Any] = {}
    names = [path.name for path in sorted(args.out.iterdir()) if path.is_dir()]
    for name in names:
        saes = [unpack(args.out / name / str(layer)) for layer in args.layers]
        for layer, sae in zip(args.layers, saes):
            one = evaluate(sae, model, rows, str(sae.hook_name), target_hook=sae.target_hook_name)
            found[f"{name}/{layer}"] = {measure: getattr(one, measure) for measure in MEASURES}
        if len(saes) == model.cfg.n_layers:
            every = evaluate_together(saes, model, rows)
            found[f"{name}/all"] = {m: getattr(every, m) for m in MEASURES if hasattr(every, m)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=("stories", "smollm2"), default="stories")
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--rules", nargs="+", default=("token_choice", "mutual_choice"))
    parser.add_argument("--d_sae", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, help="shipped text to read; all of it by default")
    parser.add_argument("--spans", type=int, default=0, help="year spans to read beside it, for greater-than")
    parser.add_argument("--rows", type=int, default=64, help="held-out rows to measure on")
    args = parser.parse_args()

    model = load_language_model(args.model)
    args.layers = list(range(model.cfg.n_layers)) if args.layers is None else args.layers
    tokens, held_out = text_for_training(args.tokens, model=args.model)
    for layer in args.layers:
        if not (args.out / "sae" / str(layer)).exists():  # a run that was stopped goes on with the next layer
            train_layer(model, tokens, layer, args)
    given = {name: value for name, value in vars(args).items() if name != "out"}
    about = {"settings": given, "machine": platform.machine(), "torch": torch.__version__}
    results = measured(model, held_out[: min(args.rows, HELD_OUT_ROWS)], args)
    (args.out / "results.json").write_text(json.dumps(about | {"found": results}, indent=1) + "\n")
    for name, row in results.items():
        print(name, {measure: round(value, 4) for measure, value in row.items()})


if __name__ == "__main__":
    main()
