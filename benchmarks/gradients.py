"""How long do the steps of Gradient Choice take, beside those of Token Choice, over a whole training?

    python benchmarks/gradients.py     results/gradients.json (10 minutes)

A score needs W_dec g at a match. While half of all affinities are positive, as in the first steps, that is a second
product of the whole table; later, when few are left, one dot product for each of those. So a ratio of single steps says
little: two SAEs, and two of Mutual Choice, train on the same batches of the embedded model's residual stream, step by
step in random order, and the time of all steps is compared. A round is a twentieth of the steps. The harvest, with and
without gradients, is timed beside it.
"""

from __future__ import annotations

import random

import common
import torch
from tqdm import tqdm

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model, story_tokens
from sae_tutorial.autoencoder.shipped import HOOKS
from sae_tutorial.training.loop import prepared
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.step import Trainee

# features, tokens of a batch, mean L0, steps, tokens of the store
SIZES = {
    "quick": (256, 256, 8, 40, 4_096),
    "cpu": (8192, 2048, 32, 1000, 400_000),
    "cuda": (16384, 8192, 32, 3000, 10**6),
}
BASES = {"gradient_choice": "token_choice", "mutual_choice with beta": "mutual_choice"}
PARTS = 20
AT_MOST = 1.3


def trainees(
    store: ActivationStore, device: str, n_features: int, k: int, settings: TrainSettings
) -> dict[str, Trainee]:
    """One of each rule, from the same weights."""
    configs = {rule: SAEConfig(store.d_in, n_features, rule, k) for rule in (*BASES.values(), "gradient_choice")}
    configs["mutual_choice with beta"] = SAEConfig(store.d_in, n_features, "mutual_choice", k, beta=1.0)
    return {
        name: prepared(SparseAutoencoder(config).to(device), settings, store, None) for name, config in configs.items()
    }


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    n_features, batch_size, k, steps, n_tokens = SIZES["quick" if args.quick else device]
    model, hook = load_language_model("stories", device=device), HOOKS["stories"]
    tokens = story_tokens(n_tokens, 256, seed=0)

    def harvest(gradients: bool) -> ActivationStore:
        return ActivationStore.harvest(model, tokens, hook, gradients=gradients, device=device, progress=False)

    store = harvest(True)
    assert store.gradients is not None
    few = tokens[: max(1, len(tokens) // 10)]
    timed = {
        name: common.timed(
            lambda with_them=name == "with": ActivationStore.harvest(
                model, few, hook, gradients=with_them, progress=False
            ),
            device,
        )
        for name in ("with", "without")
    }
    reading = common.take_turns(timed, 2 if args.quick else args.rounds, "harvest")

    run = trainees(store, device, n_features, k, TrainSettings(steps, batch_size))
    names, order, milliseconds, positive = list(run), random.Random(0), {name: [] for name in run}, []
    sides = (one.batches(batch_size, epochs=None, device=device) for one in (store, store.gradients))
    for step, (x, g) in tqdm(zip(range(steps), zip(*sides)), total=steps, desc="steps", leave=False):
        for name in order.sample(names, len(names)):
            trainee = run[name]
            wanted = trainee.sae.config.gradient_weight

            def advance(trainee: Trainee = trainee, wanted: float = wanted, x=x, g=g) -> None:
                u = trainee.sae.normalise(x)
                trainee.advance(u, u, trainee.sae.in_units(g) if wanted else None)

            milliseconds[name].append(common.timed(advance, device)())
        if step % max(1, steps // PARTS) == 0:
            sae = run["gradient_choice"].sae
            with torch.no_grad():
                positive.append(float((sae.affinities(x[:256]) > 0).float().mean()))

    size, where = max(1, steps // PARTS), f"d={store.d_in} F={n_features:,} B={batch_size:,} k={k}, {steps:,} steps"
    rounds = {name: [sum(times[i : i + size]) for i in range(0, steps, size)] for name, times in milliseconds.items()}
    targets, rows = [], []
    for name, base in BASES.items():
        of_rounds = common.ratio(rounds[name], rounds[base])
        whole = common.short(sum(rounds[name]) / sum(rounds[base]))
        measured = of_rounds | {"median": whole}
        targets.append(
            common.target(f"{name} against {base}, all steps of a training", where, measured, at_most=AT_MOST)
        )
    targets.append(
        common.target(
            "a harvest with gradients against one without", where, common.ratio(reading["with"], reading["without"])
        )
    )
    for i, share in enumerate(positive):
        each = [f"{rounds[name][i] / size:.1f}" for name in names]
        ratios = [f"{rounds[name][i] / rounds[base][i]:.2f}" for name, base in BASES.items()]
        rows.append([f"{i * size + 1:,} to {(i + 1) * size:,}", f"{share:.1%}", *each, *ratios])
    columns = ["steps", "positive affinities", *(f"{name}, ms" for name in names), *(f"{n} ×" for n in BASES)]
    tables = [common.table(f"Steps of a training at {where}", columns, rows)]
    question = "how long steps that look at gradients take, over a whole training"
    settings = {"steps": steps, "parts": PARTS, "rounds_of_the_harvest": args.rounds}
    raw = {"milliseconds": milliseconds, "positive": positive, "harvest": reading}
    common.finish(args, "gradients", question, described, raw=raw, settings=settings, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
