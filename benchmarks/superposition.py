"""Does the short schedule of `train_toy_models` reach the loss of the usual long one, and at what cost?

The usual recipe for the geometry sweep: 10,000 AdamW steps of 1,024 samples at a constant 1e-3, autograd.
Ours: 2,500 Adam steps of 256 samples, a cosine from 1e-2 to zero, gradients by hand, biases that start at the mean.
Both are trained on three of the sweep's 20 sparsities (n = 200 features, m = 20) and measured on the same
held-out samples. Both run on the CPU: the models are tiny.

    python benchmarks/superposition.py            results/superposition.json (2 minutes)
"""

from __future__ import annotations

import time

import common
import torch
from torch import Tensor

from sae_tutorial.course.superposition.toy_models import ToyModels, independent_features, train_toy_models

N_FEATURES, N_HIDDEN, N_SPARSITIES = 200, 20, 20


def reference(p_IN: Tensor, n_hidden: int, steps: int, batch_size: int, seed: int = 0) -> ToyModels:
    """The usual recipe, in plain autograd."""
    n_instances, n_features = p_IN.shape
    generator = torch.Generator().manual_seed(seed)
    spread = (2 / (n_features + n_hidden)) ** 0.5
    W = (spread * torch.randn(n_instances, n_hidden, n_features, generator=generator)).requires_grad_()
    b = torch.zeros(n_instances, n_features, requires_grad=True)
    optimizer = torch.optim.AdamW([W, b], lr=1e-3, fused=True)
    for _ in range(steps):
        x = independent_features(p_IN, batch_size, generator)
        loss = (x - torch.relu(x @ W.mT @ W + b[:, None])).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    W, b = W.detach(), b.detach()
    return ToyModels(W, W.mT, b, torch.zeros(n_instances))


def held_out_loss(models: ToyModels, p_IN: Tensor, batches: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    total = torch.zeros(len(p_IN))
    for _ in range(batches):
        x = independent_features(p_IN, 1024, generator)
        total += (models(x) - x).square().mean(dim=(1, 2))
    return total / batches


def timed(function) -> tuple[ToyModels, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    models = function()
    return models, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    args = common.parser(__doc__, rounds=1).parse_args()
    described = common.machine("cpu")
    p_I = 20 ** -torch.linspace(0, 1, N_SPARSITIES)[::9]
    p_IN = p_I[:, None].expand(-1, N_FEATURES).contiguous()
    shrink = 500 if args.quick else 1
    equal = torch.ones(1, N_FEATURES)
    ways = {
        "10,000 AdamW steps of 1,024, constant 1e-3": lambda: reference(p_IN, N_HIDDEN, 10_000 // shrink, 1024),
        "ours: 2,500 steps of 256, cosine": lambda: train_toy_models(p_IN, equal, N_HIDDEN, steps=2500 // shrink),
    }
    rows, raw = [], {"feature_probability": [round(p, 4) for p in p_I.tolist()]}
    for name, way in ways.items():
        models, wall, cpu = timed(way)
        losses = held_out_loss(models, p_IN).tolist()
        raw[name] = {"loss": losses, "seconds": {"wall": wall, "cpu": cpu}}
        rows.append([name, *(f"{loss:.5f}" for loss in losses), f"{wall:.1f}", f"{cpu:.1f}"])
    theirs, ours = (raw[name] for name in ways)
    worst = common.spread([a / b for a, b in zip(ours["loss"], theirs["loss"])])
    cost = common.spread([theirs["seconds"]["cpu"] / ours["seconds"]["cpu"]])
    where = f"{len(p_I)} × (n={N_FEATURES}, m={N_HIDDEN})"
    targets = [
        common.target("toy models: held-out loss, of the long schedule's", where, worst, unit=""),
        common.target("toy models: less processor time than the long schedule", where, cost),
    ]
    columns = ["schedule", *(f"loss, p = {p:.2f}" for p in p_I.tolist()), "seconds", "processor seconds"]
    tables = [common.table(f"Toy models of superposition, {where}", columns, rows)]
    question = "loss and cost of our schedule against 10,000 AdamW steps of 1,024 samples at a constant 1e-3"
    common.finish(args, "superposition", question, described, raw=raw, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
