"""Train the sparse autoencoders that the course ships: one for each way to allocate, at the middle of the model.

    python scripts/train_reference_saes.py [--steps 3000] [--only token_choice]

Token, Mutual and Feature Choice with the same size, budget, batches and steps, trained side by side on the shipped
stories, measured on rows that none of them saw, and written in fp16 to `sae_tutorial/assets/saes/stories/RULE`, each
with a card. A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import checksums
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import HELD_OUT_ROWS, text_for_training
from sae_tutorial.autoencoder.shipped import FOLDER, HOOK, RULES, pack, unpack
from sae_tutorial.evaluation.fidelity import Evaluation, evaluate_many
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import TrainSettings

D_SAE, K = 4096, 32
LR = 2e-3
# With aux_k, 0.8 % of Token Choice's features stay silent; aux_zipf also wakes those that are merely underused.
AUXILIARY: dict[str, dict[str, Any]] = {"token_choice": {"aux_k": 0.0, "aux_zipf": 1 / 32}}
MEANING = {
    "token_choice": "each token takes its 32 strongest features (TopK)",
    "mutual_choice": "the 32·B strongest matches of a batch of B tokens; one threshold at inference",
    "feature_choice": "each feature takes as many tokens as its Zipf-shaped capacity; one threshold each at inference",
}


def card(rule: str, run: TrainingRun, found: Evaluation) -> str:
    """What it is, how it was trained, what it is worth."""
    settings, config = run.settings, run.sae.config
    return f"""# Reference SAE: `{rule}`

{MEANING[rule][0].upper() + MEANING[rule][1:]}. It reads `{HOOK}` of the embedded language model: {config.d_in} → {config.d_sae} features, k = {K}.

- Trained by `scripts/train_reference_saes.py` on the shipped stories, all but the last {HELD_OUT_ROWS} rows: {settings.steps:,} steps of
  {settings.batch_size:,} tokens, peak learning rate {settings.lr:g}, {"aux_zipf" if settings.aux_zipf else "aux_k"} against dead features, seed {settings.seed}, {run.seconds / 60:.0f} minutes on {platform.machine()}{"" if torch.cuda.is_available() else " CPU"}, PyTorch {torch.__version__}.
- Weights in fp16, compressed; mean and scale of the activations are folded in, so it takes raw activations.

Measured on the held-out rows ({found.n_tokens:,} tokens), each token by itself, as shipped:

| | |
|---|---|
| CE loss recovered against zero-ablation | {found.recovered:.4f} |
| CE loss recovered against mean-ablation | {found.recovered_mean:.4f} |
| CE clean → spliced (nats) | {found.ce_clean:.3f} → {found.ce_spliced:.3f} |
| FVU | {found.fvu:.4f} |
| L0 (standard deviation over tokens) | {found.l0:.2f} ({found.l0_std:.2f}) |
| features without a match there | {found.dead:.2%} |
| features without a match in the last {settings.dead_after:,} tokens of training | {run.metrics["dead"][-1]:.2%} |
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--cache", type=Path, default=cache_folder("training"))
    args = parser.parse_args()

    model, (tokens, held_out) = load_language_model("stories"), text_for_training()
    store = ActivationStore.harvest(model, tokens, HOOK, cache_dir=args.cache)
    saes = [SparseAutoencoder(SAEConfig(store.d_in, D_SAE, rule, k=K), seed=args.seed) for rule in args.only]
    shared = TrainSettings(args.steps, args.batch_size, seed=args.seed, lr=LR)
    settings = [replace(shared, **AUXILIARY.get(rule, {})) for rule in args.only]
    checkpoint = args.cache / f"reference-{'-'.join(args.only)}-{args.steps}.pt"
    runs = train_many(saes, store, settings, checkpoint=checkpoint, checkpoint_every=250, resume="auto")
    for rule, run in zip(args.only, runs):
        run.sae.model_name = "stories"
        pack(run.sae, args.out / rule)
    checksums.record(args.out)
    found_each = evaluate_many([unpack(args.out / rule) for rule in args.only], model, held_out, HOOK)
    for rule, run, found in zip(args.only, runs, found_each):
        (args.out / rule / "CARD.md").write_text(card(rule, run, found))
        print(rule, found)


if __name__ == "__main__":
    main()
