"""How fast are the allocation rules and the sparse products, beside what one would write without them?

    python benchmarks/allocation.py                  both shapes, results/allocation.json
    python benchmarks/allocation.py --rounds 3       a quick look
    python benchmarks/allocation.py --device cuda    the same on a GPU, results/allocation_cuda.json
    python benchmarks/allocation.py --shape 768 65536 16384 64 --dtype bfloat16      d_in, features, tokens, mean L0

On a GPU our rules and products run with their Triton kernels and without, beside a single read of the table of
affinities: no rule can be faster than that. Contenders take turns within one run, so a busy machine slows them alike:
trust the ratios, not the milliseconds. Every contender's matches are compared before anything is timed.
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
from sae_tutorial.allocation import kernels

SHAPES = [(256, 8192, 2048, 32), (768, 24576, 2048, 32)]  # d_in, features, tokens, mean L0
LARGE = (768, 65536, 16384, 64)  # for a GPU
ONE_READ = "one read of the table"
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


def questions(d_in: int, n_features: int, n_tokens: int, k: int, device: str, dtype: torch.dtype):
    """For each question its contenders: first the usual way, then ours; on a GPU also ours without kernels, and what
    it takes to read the table once."""
    here = dict(generator=torch.Generator(device).manual_seed(0), device=device, dtype=dtype)
    z = torch.randn(n_tokens, n_features, **here).relu()
    W_dec = torch.randn(n_features, d_in, **here)
    W_enc = torch.randn(n_features, d_in, **here).T  # a feature's weights side by side
    x, b_enc = torch.randn(n_tokens, d_in, **here), torch.zeros(n_features, device=device, dtype=dtype)
    capacity = allocation.zipf_capacity(n_features, k * n_tokens, n_tokens, exponent=1.0, offset=2.0)
    capacity = capacity[torch.randperm(n_features, generator=torch.Generator().manual_seed(0))].to(device)
    codes = allocation.mutual_choice(z, k * n_tokens)
    dense = codes.to_dense()

    def gradients(run, *leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return torch.autograd.grad(run(*leaves).sum(), leaves)

    asked: dict[str, Contenders] = {
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
    if device == "cuda":
        for question, contenders in asked.items():
            ours = list(contenders)[1]
            contenders[f"{ours}, kernels off"] = without_kernels(contenders[ours])
            if question.endswith("choice"):
                contenders[ONE_READ] = z.amax
    return asked


def without_kernels(run: Callable[[], object]) -> Callable[[], object]:
    def plain():
        with kernels.use(False):
            return run()

    return plain


def check(name: str, contenders: Contenders) -> None:
    """The rules must find equally strong matches; which of two equal ones they take, topk does not promise."""
    usual, ours, *others = (run() for run in contenders.values())
    if isinstance(ours, allocation.SparseCodes):
        if not torch.equal(usual[usual > 0].sort().values, ours.values.sort().values):
            raise AssertionError(f"{name}: the two contenders differ")
        for other in others:
            if isinstance(other, allocation.SparseCodes) and not torch.equal(other.features, ours.features):
                raise AssertionError(f"{name}: with kernels and without, the matches differ")


def milliseconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(shape: tuple[int, int, int, int], rounds: int, device: str, dtype: torch.dtype) -> list[dict]:
    rows = []
    for question, contenders in questions(*shape, device, dtype).items():
        check(question, contenders)  # also the warm-up
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                times[name].append(milliseconds(run, device))
        usual, ours, *_ = times.values()
        ratio = statistics.median(u / o for u, o in zip(usual, ours))
        rows.append({"shape": shape, "question": question, "milliseconds": times, "ratio": ratio})
        if ONE_READ in times:
            share = statistics.median(r / o for r, o in zip(times[ONE_READ], ours))
            rows[-1]["one read over ours"] = share
            rows[-1]["bytes of one read"] = shape[1] * shape[2] * dtype.itemsize
        print(f"\n{question} at (d, F, B, k) = {shape}: {ratio:.1f}× faster")
        if ONE_READ in times:
            print(f"  reading the table once takes {share:.0%} of our time")
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
    parser.add_argument("--shape", type=int, nargs=4, metavar=("D", "F", "B", "K"))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    shapes = [tuple(args.shape)] if args.shape else [*SHAPES, LARGE] if args.device == "cuda" else SHAPES
    dtype = getattr(torch, args.dtype)
    rows = [row for shape in shapes for row in measure(shape, args.rounds, args.device, dtype)]
    suffix = "" if args.device == "cpu" else f"_{args.device}"
    out = args.out or Path(__file__).parent / "results" / f"allocation{suffix}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(args.device), "dtype": args.dtype, "rows": rows}
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
