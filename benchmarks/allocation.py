"""How fast are the allocation rules and the sparse products, beside what one would write without them?

    python benchmarks/allocation.py                  both shapes, results/allocation.json
    python benchmarks/allocation.py --rounds 3       a quick look
    python benchmarks/allocation.py --device cuda    the same on a GPU

Contenders take turns within one run, so a busy machine slows them alike: trust the ratios, not the milliseconds. Every
contender's matches are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sae_tutorial import allocation

SHAPES = [(256, 8192, 2048, 32), (768, 24576, 2048, 32)]  # d_in, features, tokens, mean L0
Contenders = dict[str, Callable[[], object]]


def scatter(affinities, best, flat=False):
    """Dense codes from the answer of topk."""
    dense = torch.zeros_like(affinities)
    target = dense.view(-1) if flat else dense
    target.scatter_(0 if flat else 1, best.indices, best.values)
    return dense


def by_column_topk(affinities, capacity):
    """Feature Choice without an allocator: the largest capacity's top-k for every column, then a mask."""
    largest = int(capacity.max())
    best = affinities.topk(largest, dim=0)
    within = torch.arange(largest, device=affinities.device)[:, None] < capacity
    return torch.zeros_like(affinities).scatter_(0, best.indices, best.values * within)


def questions(d_in: int, n_features: int, n_tokens: int, k: int, device: str) -> dict[str, Contenders]:
    """For each question its contenders; the first is the usual way, the second is ours."""
    generator = torch.Generator(device).manual_seed(0)
    z = torch.randn(n_tokens, n_features, generator=generator, device=device).relu()
    W_dec = torch.randn(n_features, d_in, generator=generator, device=device)
    W_enc = torch.randn(n_features, d_in, generator=generator, device=device).T  # a feature's weights side by side
    x, b_enc = torch.randn(n_tokens, d_in, generator=generator, device=device), torch.zeros(n_features, device=device)
    capacity = allocation.zipf_capacity(n_features, k * n_tokens, n_tokens, exponent=1.0, offset=2.0)
    capacity = capacity[torch.randperm(n_features, generator=torch.Generator().manual_seed(0))].to(device)
    codes = allocation.mutual_choice(z, k * n_tokens)
    dense = codes.to_dense()

    def gradients(run, *leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return torch.autograd.grad(run(*leaves).sum(), leaves)

    return {
        "mutual choice": {
            "flat topk + scatter": lambda: scatter(z, z.flatten().topk(k * n_tokens, sorted=False), flat=True),
            "mutual_choice": lambda: allocation.mutual_choice(z, k * n_tokens),
        },
        "token choice": {
            "topk + scatter": lambda: scatter(z, z.topk(k, dim=1, sorted=False)),
            "token_choice": lambda: allocation.token_choice(z, k),
        },
        "feature choice": {
            "topk(max capacity, dim=0) + mask": lambda: by_column_topk(z, capacity),
            "feature_choice": lambda: allocation.feature_choice(z, capacity),
        },
        "decoder, forward and backward": {
            "dense product": lambda: gradients(lambda c, W: c @ W, dense, W_dec),
            "codes @ W_dec": lambda: gradients(lambda v, W: codes.with_values(v) @ W, codes.values, W_dec),
        },
        "encoder, backward": {
            "dense product": lambda: (x.T @ dense, dense.sum(0)),
            "encode_matches": lambda: gradients(
                lambda W, b: allocation.encode_matches(x, W, b, codes, rescore=False).values, W_enc, b_enc
            ),
        },
    }


def check(name: str, contenders: Contenders) -> None:
    """The rules must find equally strong matches; which of two equal ones they take, topk does not promise."""
    usual, ours = (run() for run in contenders.values())
    if isinstance(ours, allocation.SparseCodes):
        if not torch.equal(usual[usual > 0].sort().values, ours.values.sort().values):
            raise AssertionError(f"{name}: the two contenders differ")


def milliseconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(shape: tuple[int, int, int, int], rounds: int, device: str) -> list[dict]:
    rows = []
    for question, contenders in questions(*shape, device).items():
        check(question, contenders)  # also the warm-up
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                times[name].append(milliseconds(run, device))
        usual, ours = times.values()
        ratio = statistics.median(u / o for u, o in zip(usual, ours))
        rows.append({"shape": shape, "question": question, "milliseconds": times, "ratio": ratio})
        print(f"\n{question} at (d, F, B, k) = {shape}: {ratio:.1f}× faster")
        for name, values in times.items():
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"  {name:36s} {middle:9.1f} ms   (from {low:.1f} to {high:.1f})")
    return rows


def machine(device: str) -> dict:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "allocation.json")
    args = parser.parse_args()
    rows = [row for shape in SHAPES for row in measure(shape, args.rounds, args.device)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(args.device), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
