"""Does the agreement of two seeds say how many features there are? SAEs of several sizes, three seeds each, on data
with 128 known features and on two models: the rows of notebook 11.

    python scripts/size_by_stability.py           one line for each size, in the cache; goes on where it stopped
    python scripts/size_by_stability.py --ship    puts them into the package
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kept_lines
from torch import Tensor

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import text_for_training
from sae_tutorial.autoencoder.shipped import HOOKS
from sae_tutorial.course.dark_matter import size
from sae_tutorial.course.results import SIZES
from sae_tutorial.training import TrainSettings, train_many

SEEDS = (0, 1, 2)
OF_PLANTED = (32, 64, 96, 128, 160, 192, 256, 384)  # features of an SAE
OF_MODELS = {"stories": (1, 2, 4, 8, 16, 32), "smollm2": (1, 2, 4)}  # times d_in
STEPS = {"planted": 2000, "early": 120, "stories": 1000, "smollm2": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=cache_folder("dark-matter"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / SIZES
    if args.ship:
        return kept_lines.ship(kept)
    for name in size.FREQUENCIES:
        truth, x = size.planted(name)
        store = ActivationStore.from_tensor(x)
        of_data(kept, name, store, OF_PLANTED, size.N_ON, STEPS["planted"], truth)
        if name == "equal":  # what a model's SAEs may look like, which are far from the end of their training
            of_data(kept, "equal, early", store, OF_PLANTED, size.N_ON, STEPS["early"], truth)
    for name, widths in OF_MODELS.items():
        model, text = load_language_model(name), text_for_training(model=name)[0]
        store = ActivationStore.harvest(model, text, HOOKS[name], cache_dir=args.out, progress=False)
        of_data(kept, name, store, [width * store.d_in for width in widths], 32, STEPS[name])


def of_data(
    kept: Path, name: str, store: ActivationStore, sizes: Any, k: int, steps: int, truth: Tensor | None = None
) -> None:
    for d_sae in sizes:
        if f"{name}-{d_sae}" in kept_lines.done(kept, "key"):
            continue
        config = SAEConfig(store.d_in, d_sae, k=k, rule="token_choice")
        saes = []
        for seed in SEEDS:
            sae = SparseAutoencoder(config, seed=seed)
            settings = TrainSettings(steps=steps, batch_size=2048, seed=seed)
            [done] = train_many([sae], store, settings, progress=False)
            saes.append((sae.W_dec.detach(), float(done.metrics["fvu"][-50:].mean())))
        about = {"key": f"{name}-{d_sae}", "data": name, "d_sae": d_sae, "d_in": store.d_in, "k": k, "steps": steps}
        row = about | {"fvu": [fvu for _, fvu in saes]} | size.agreement([W_dec for W_dec, _ in saes], truth)
        kept_lines.add(kept, row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
