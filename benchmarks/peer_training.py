"""Train another library's SAE on our activations, by its own trainer. Runs inside that library's environment.

    python peer_training.py task.json

The task names a library, a rule, sizes, a seed, an .npy file of activations (centred and scaled), and a folder, which
afterwards holds what the library would have saved: `load_sae` reads it. Initialisation, and the learning rate if the
task names none, are the library's defaults; warm-up and decay are parts of the run as in ours, since defaults made for
a hundred thousand steps would never leave their warm-up. How long a feature must be silent until it is revived is left
as it is, too: both libraries then wait longer than a run of a thousand steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WARM_UP, DECAY = 0.05, 0.2


def batches(task: dict[str, Any]) -> Iterator[Tensor]:
    acts = np.load(task["activations"], mmap_mode="r")
    rng = np.random.default_rng(task["seed"])
    order = np.empty(0, dtype=np.int64)
    for _ in range(task["steps"]):
        if len(order) < task["batch_size"]:
            order = rng.permutation(len(acts))
        rows, order = np.sort(order[: task["batch_size"]]), order[task["batch_size"] :]
        yield torch.from_numpy(acts[rows])


def dictionary_learning(task: dict[str, Any]) -> None:
    from dictionary_learning.trainers import batch_top_k, top_k

    trainer_class = {"TopK": top_k.TopKTrainer, "BatchTopK": batch_top_k.BatchTopKTrainer}[task["rule"]]
    trainer = trainer_class(
        steps=task["steps"], activation_dim=task["d_in"], dict_size=task["d_sae"], k=task["k"], layer=1,
        lm_name="stories", warmup_steps=round(WARM_UP * task["steps"]), decay_start=round((1 - DECAY) * task["steps"]),
        threshold_start_step=task["steps"] // 4, seed=task["seed"], device="cpu", lr=task["lr"],
    )  # fmt: skip
    for step, x in enumerate(batches(task)):
        trainer.update(step, x)
    folder = Path(task["out"])
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))


def saelens(task: dict[str, Any]) -> None:
    import sae_lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(task["seed"])
    kind = {"TopK": "TopKTraining", "BatchTopK": "BatchTopKTraining"}[task["rule"]]
    sizes = dict(d_in=task["d_in"], d_sae=task["d_sae"], k=task["k"])
    sae = getattr(sae_lens, f"{kind}SAE")(getattr(sae_lens, f"{kind}SAEConfig")(**sizes, device="cpu"))
    settings = SAETrainerConfig(
        total_training_samples=task["steps"] * task["batch_size"],
        train_batch_size_samples=task["batch_size"],
        **({} if task["lr"] is None else {"lr": task["lr"]}),
        lr_end=(task["lr"] or 3e-4) / 10,  # its default, of which that of lr is 3e-4
        lr_warm_up_steps=round(WARM_UP * task["steps"]),
        lr_decay_steps=round(DECAY * task["steps"]),
    )
    trainer = SAETrainer(settings, sae, data_provider=batches(task))
    trainer.fit()
    sae.save_inference_model(task["out"])


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    Path(task["out"]).mkdir(parents=True, exist_ok=True)
    {"dictionary_learning": dictionary_learning, "saelens": saelens}[task["library"]](task)
