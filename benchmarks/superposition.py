"""Does the short schedule of `train_toy_models` reach the loss of the usual long one, and at what cost?

The usual recipe for the geometry sweep: 10,000 AdamW steps of 1,024 samples at a constant 1e-3, autograd.
Ours: 2,500 Adam steps of 256 samples, a cosine from 1e-2 to zero, gradients by hand, biases that start at the mean.
Both are trained on three of the sweep's 20 sparsities (n = 200 features, m = 20) and measured on the same
held-out samples. Prints a table and writes benchmarks/results/superposition.json with the machine it came from.

    python benchmarks/superposition.py            # about two minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch import Tensor

from sae_tutorial.superposition import ToyModels, independent_features, train_toy_models

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the steps; writes nothing")
    quick = parser.parse_args().quick
    p_I = 20 ** -torch.linspace(0, 1, N_SPARSITIES)[::9]
    p_IN = p_I[:, None].expand(-1, N_FEATURES).contiguous()
    shrink = 100 if quick else 1
    theirs, their_wall, their_cpu = timed(lambda: reference(p_IN, N_HIDDEN, 10_000 // shrink, 1024))
    equal = torch.ones(1, N_FEATURES)
    ours, our_wall, our_cpu = timed(lambda: train_toy_models(p_IN, equal, N_HIDDEN, steps=2500 // shrink))
    result = {
        "question": "loss and cost of our schedule against 10,000 AdamW steps of 1,024 samples at a constant 1e-3",
        "feature_probability": [round(p, 4) for p in p_I.tolist()],
        "reference_loss": [round(v, 6) for v in held_out_loss(theirs, p_IN).tolist()],
        "our_loss": [round(v, 6) for v in held_out_loss(ours, p_IN).tolist()],
        "reference_seconds": {"wall": round(their_wall, 1), "cpu": round(their_cpu, 1)},
        "our_seconds": {"wall": round(our_wall, 1), "cpu": round(our_cpu, 1)},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "load_average_at_the_end": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    if not quick:
        path = Path(__file__).parent / "results" / "superposition.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
