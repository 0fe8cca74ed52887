"""Train the sparse autoencoders that the course ships: one for each way to allocate and model, at the model's middle.

    python scripts/train_reference_saes.py [--model smollm2] [--only token_choice]

All of a model have the same size, budget, learning rate, batches and steps, and nothing but the rule differs. They are
trained side by side on the shipped text, measured on rows that none of them saw, and written in eight bits to
`sae_tutorial/assets/saes/MODEL/RULE`, each with a card. A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import NamedTuple

import checksums
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import HELD_OUT_ROWS, text_for_training
from sae_tutorial.autoencoder.shipped import HOOKS, RULES, SAES, STEPS, pack, unpack
from sae_tutorial.evaluation.fidelity import Evaluation, evaluate_many
from sae_tutorial.training.loop import TrainingRun, train_many
from sae_tutorial.training.settings import TrainSettings

K, BATCH_SIZE = 32, 2048


class Plan(NamedTuple):
    """What the SAEs of a model are, and how long they are trained."""

    hook: str
    d_sae: int
    steps: int
    held_out: int  # rows


# Of SmolLM2, so many rows are held out as in `quality.py`: harvesting takes twenty minutes, and is done once.
PLANS = {
    "stories": Plan(HOOKS["stories"], 4096, STEPS["stories"], 256),
    "smollm2": Plan(HOOKS["smollm2"], 2304, STEPS["smollm2"], 320),
}
ROWS = {"stories": HELD_OUT_ROWS, "smollm2": 64}  # to measure on: SmolLM2 takes forty times as long for each
MEANING = {
    "token_choice": "each token takes its 32 strongest features (TopK)",
    "mutual_choice": "the 32·B strongest matches of a batch of B tokens; one threshold at inference",
    "feature_choice": "each feature takes as many tokens as its Zipf-shaped capacity; one threshold each at inference",
    "matryoshka": "as Mutual Choice, and the first 1/32, 3/32, 7/32 and 15/32 of the features must do alone, too",
}


def card(model_name: str, rule: str, run: TrainingRun, found: Evaluation) -> str:
    """What it is, how it was trained, what it is worth."""
    settings, config, plan = run.settings, run.sae.config, PLANS[model_name]
    minutes = f"{run.seconds / 60:.0f} minutes on {platform.machine()}{'' if torch.cuda.is_available() else ' CPU'}"
    return f"""# Reference SAE: `{rule}` of `{model_name}`

{MEANING[rule][0].upper() + MEANING[rule][1:]}. It reads `{plan.hook}`: {config.d_in} → {config.d_sae} features, k = {K}.

- Trained by `scripts/train_reference_saes.py` on the shipped text, all but the last {plan.held_out} rows: {settings.steps:,} steps of
  {settings.batch_size:,} tokens, peak learning rate {settings.lr_at(settings.steps // 2, config.d_sae):.2g}, aux_k against dead features, seed {settings.seed}, {minutes}, PyTorch {torch.__version__}.
  The other rules were trained beside it: same start, same batches, nothing else differs.
- Weights in eight bits, a scale for each feature, compressed; mean and scale of the activations are folded in, so it takes raw activations.

Measured on held-out rows ({found.n_tokens:,} tokens), each token by itself, as shipped:

| | |
|---|---|
| CE loss recovered against zero-ablation | {found.recovered:.4f} |
| CE loss recovered against mean-ablation | {found.recovered_mean:.4f} |
| CE clean → spliced (nats) | {found.ce_clean:.3f} → {found.ce_spliced:.3f} |
| KL (nats) | {found.kl:.4f} |
| FVU | {found.fvu:.4f} |
| L0 (standard deviation over tokens) | {found.l0:.2f} ({found.l0_std:.2f}) |
| features without a match there | {found.dead:.2%} |
| features without a match in the last {settings.dead_after:,} tokens of training | {run.metrics["dead"][-1]:.2%} |
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PLANS, default="stories")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--out", type=Path, default=SAES)
    parser.add_argument("--cache", type=Path, default=cache_folder("training"))
    args = parser.parse_args()

    plan = PLANS[args.model]
    folder, steps = args.out / args.model, args.steps or plan.steps
    model, (tokens, held_out) = load_language_model(args.model), text_for_training(model=args.model)
    tokens = tokens[: len(tokens) + HELD_OUT_ROWS - plan.held_out]
    store = ActivationStore.harvest(model, tokens, plan.hook, cache_dir=args.cache)
    saes = [SparseAutoencoder(SAEConfig(store.d_in, plan.d_sae, rule, k=K), seed=args.seed) for rule in args.only]
    settings = TrainSettings(steps, BATCH_SIZE, seed=args.seed)
    checkpoint = args.cache / f"reference-{args.model}-{'-'.join(args.only)}-{steps}.pt"
    runs = train_many(saes, store, settings, checkpoint=checkpoint, checkpoint_every=250, resume="auto")
    for rule, run in zip(args.only, runs):
        run.sae.model_name = args.model
        pack(run.sae, folder / rule)
    if args.out == SAES:
        checksums.record(folder)
    saes = [unpack(folder / rule) for rule in args.only]
    for rule, run, found in zip(args.only, runs, evaluate_many(saes, model, held_out[: ROWS[args.model]], plan.hook)):
        (folder / rule / "CARD.md").write_text(card(args.model, rule, run, found))
        print(rule, found)


if __name__ == "__main__":
    main()
