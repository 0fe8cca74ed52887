"""How much memory does a Feature Choice step need, when its table of affinities would not fit?

    python benchmarks/memory.py                   d=256, F=262,144, B=8192 (2 minutes), results/memory.json
    python benchmarks/memory.py --device cuda     the same, then the largest F that fits, trained until all have fired

Each measurement has a fresh process: the high-water mark of its memory after three steps, minus what it held before
the SAE was made. The bar is what nobody can do without (parameters, gradients, Adam's two averages) and 1 GB. The
dense way is measured at a 16th of the features, and computed from there: it holds the same number of whole tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
import torch

SHAPE = (256, 262_144, 8192, 32)
SHRINK = 16  # the dense way is measured with so many times fewer features
STEPS = 3
GB = 1e9
ALLOWED = 1.0  # beside parameters, gradients and Adam's state
LARGEST = (768, 16384, 64)  # d, B, k of the search for the largest F on a GPU


def resident() -> float:
    """Bytes of this process that are in memory now."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * float(status.read_text().split("VmRSS:")[1].split()[0])
    return high_water()


def high_water() -> float:
    """The most it ever was."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * float(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def inside(way: str, shape: tuple[int, int, int, int], steps: int, device: str) -> dict[str, float]:
    """In the fresh process: make an SAE, train it for some steps, say what that took."""
    from allocation import by_column_topk
    from dense import DenseTrainee

    from sae_tutorial import SAEConfig, SparseAutoencoder
    from sae_tutorial.training.settings import TrainSettings
    from sae_tutorial.training.step import Trainee

    class Usual(DenseTrainee):
        """Dense, and chosen with topk, which needs less memory than sorting."""

        def mask(self, z_BF: torch.Tensor) -> torch.Tensor:
            return by_column_topk(z_BF, self.sae.capacity(len(z_BF), self.step)) > 0

    d_in, n_features, n_tokens, k = shape
    torch.randn(64, 64, device=device) @ torch.randn(64, 64, device=device)  # what the first product loads
    before = torch.cuda.memory_allocated() if device == "cuda" else resident()
    sae = SparseAutoencoder(SAEConfig(d_in, n_features, "feature_choice", k)).to(device)
    kind, dtype = (Usual, "float32") if way == "dense" else (Trainee, "float32" if device == "cpu" else "auto")
    trainee = kind(sae, TrainSettings(steps=max(steps, 10), batch_size=n_tokens, encoder_dtype=dtype), variance=1.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        u = torch.randn(n_tokens, d_in, generator=generator).to(device)
        trainee.advance(u, u)
    after = torch.cuda.max_memory_allocated() if device == "cuda" else high_water()
    n_parameters = sum(p.numel() for p in sae.parameters())
    return {
        "peak_gb": (after - before) / GB,
        "needed_gb": 4 * 4 * n_parameters / GB,  # float32; weights, gradients, two averages
        "table_gb": 4 * n_tokens * n_features / GB,
        "dead": int((trainee.usage.silent >= steps * n_tokens).sum()),
        "l0": trainee.history.at(steps - 1)["l0"],
    }


def fresh(way: str, shape: tuple[int, int, int, int], steps: int, device: str) -> dict[str, float]:
    """`inside`, in a process of its own. Raises RuntimeError with its last words, which out of memory are few."""
    task = {"way": way, "shape": shape, "steps": steps, "device": device, "threads": torch.get_num_threads()}
    done = subprocess.run([sys.executable, __file__, "--inside", json.dumps(task)], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
        raise RuntimeError(last[0][:200])
    return json.loads(done.stdout.splitlines()[-1])


def largest_that_fits(device: str, start: int = 2**18) -> dict[str, Any]:
    """Double F until a step does not fit; then train the largest until every feature had its turn, twice."""
    d_in, n_tokens, k = LARGEST
    n_features, fitted, refused = start, 0, ""
    while not refused:
        try:
            fresh("sparse", (d_in, n_features, n_tokens, k), 2, device)
            fitted, n_features = n_features, 2 * n_features
        except RuntimeError as error:
            refused = str(error)
    steps = 2 * -(-fitted // (k * n_tokens)) + 2
    seen = fresh("sparse", (d_in, fitted, n_tokens, k), steps, device) if fitted else {}
    return {"shape": (d_in, fitted, n_tokens, k), "steps": steps, "refused": {n_features: refused}, **seen}


def main() -> None:
    parser = common.parser(__doc__, rounds=1)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        task = json.loads(args.inside)
        torch.set_num_threads(task.pop("threads"))
        print(json.dumps(inside(task["way"], tuple(task["shape"]), task["steps"], task["device"])))
        return
    device = common.device_of(args)
    described = common.machine(device)
    shape = (16, 16_384, 512, 4) if args.quick else SHAPE
    d_in, n_features, n_tokens, k = shape
    ours = [fresh("sparse", shape, STEPS, device) for _ in range(args.rounds)]
    small = (d_in, n_features // SHRINK, n_tokens, k)
    dense = fresh("dense", small, STEPS, device)
    tables = (dense["peak_gb"] - dense["needed_gb"]) / dense["table_gb"]
    dense_gb = ours[0]["needed_gb"] + tables * ours[0]["table_gb"]

    peak = common.spread([one["peak_gb"] for one in ours])
    bar, where = round(ours[0]["needed_gb"] + ALLOWED, 2), common.at(shape)
    targets = [
        common.target("peak memory of a feature_choice step, in GB", where, peak, at_most=bar, unit=" GB"),
    ]
    rows = [
        ["parameters, gradients, Adam's averages", f"{ours[0]['needed_gb']:.2f}"],
        ["one table of tokens × features in float32", f"{ours[0]['table_gb']:.2f}"],
        ["our step, measured", f"{peak['median']:.2f}"],
        [f"the dense step, computed: {tables:.1f} such tables, as measured at {common.at(small)}", f"{dense_gb:.1f}"],
    ]
    raw: dict[str, Any] = {"ours": ours, "dense": {"at": common.at(small), **dense}}
    if device == "cuda":
        raw["largest"] = found = largest_that_fits(device)
        dead = common.spread([found.get("dead", -1)])
        what = f"dead latents after {found['steps']} steps of feature_choice at the largest F that fits"
        targets.append(common.target(what, common.at(found["shape"]), dead, at_most=0, unit=""))
        rows.append([f"the largest F that fits: {common.at(found['shape'])}", f"{found.get('peak_gb', 0):.1f}"])
    question = "peak memory of a Feature Choice step whose table of affinities is larger than what it may use"
    shown = [common.table(f"Memory at {where}", ["what", "GB"], rows)]
    settings = {"steps": STEPS, "dense_tables": common.short(tables)}
    common.finish(args, "memory", question, described, raw=raw, settings=settings, tables=shown, targets=targets)


if __name__ == "__main__":
    main()
