"""Is an SAE as good after 1,000 sparse steps as after 1,000 dense ones?

    python benchmarks/oracle.py                    three rules, three seeds, results/oracle.json (6 minutes)
    python benchmarks/oracle.py --rounds 5         five seeds

The sparse way is `train`. The dense way is `train` with `DenseTrainee` inside: rules by sorting, masks, plain autograd,
plain Adam. Both get the same activations of the embedded language model in the same order, and the same start; the
seed decides all of that. Rounding differs, and a thousand steps make something of it: so what counts is whether the two
differ by more than seeds do. Runs are independent of each other: as many as there are cores go side by side, one thread
each, and those that are done are kept in a folder of temporary files, so an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import common
import torch
from dense import DenseTrainee
from tqdm import tqdm

import sae_tutorial
from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, train
from sae_tutorial.training import loop as training

RULES = ("token_choice", "mutual_choice", "feature_choice")
WAYS = ("sparse", "dense")
HOOK = "blocks.2.hook_resid_post"
SIZES = {  # features, tokens in a batch, k, steps, rows of text to train on, rows held out
    "quick": (64, 32, 4, 4, 2, 2),
    "cpu": (1024, 256, 32, 1000, 256, 32),
    "cuda": (16384, 4096, 32, 1000, 2048, 64),
}


def activations(n_rows: int, n_held_out: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the embedded model, in float32: to train on, and held out."""
    from sae_tutorial import load_language_model, story_tokens  # the processes of single runs need neither

    model = load_language_model("stories", device=device)
    tokens = story_tokens((n_rows + n_held_out) * 256)
    parts = (tokens[:n_rows], tokens[n_rows:])
    stores = [ActivationStore.harvest(model, part, HOOK, progress=False) for part in parts]
    return tuple(store.rows(slice(None)) for store in stores)  # type: ignore[return-value]


def one_run(
    rule: str, way: str, seed: int, sizes: tuple[int, ...], acts: torch.Tensor, held_out: torch.Tensor, device: str
) -> dict[str, Any]:
    """Train one SAE and look at it: FVU and L0 on text that it has not seen, as it encodes after training."""
    n_features, n_tokens, k, steps, *_ = sizes
    store = ActivationStore.from_tensor(acts)
    sae = SparseAutoencoder(SAEConfig(store.d_in, n_features, rule, k), seed=seed).to(device)
    settings = {"steps": steps, "batch_size": n_tokens, "seed": seed, "dead_after": 20_000, "encoder_dtype": "float32"}
    kind = DenseTrainee if way == "dense" else training.Trainee
    with mock.patch.object(training, "Trainee", kind):
        run = train(sae, store, progress=False, **settings)
    variance = (held_out - store.mean).square().mean()
    with torch.no_grad():
        codes = sae.encode(held_out.to(device))
        fvu = (sae.decode(codes).cpu() - held_out).square().mean() / variance
    end = {name: float(run.metrics[name][-1]) for name in ("dead", "aux")}
    last_fvu = float(run.metrics["fvu"][-50:].mean())
    return {"fvu": float(fvu), "l0": len(codes) / len(held_out), "training_fvu": last_fvu, **end}


def all_runs(jobs: list[tuple[str, str, int]], sizes: tuple[int, ...], device: str, kept: Path) -> dict[str, Any]:
    """Each job in a process of its own, a few side by side; those with a file in `kept` are done already."""
    data = kept / "activations.pt"
    if not data.exists():
        torch.save(activations(*sizes[4:], device), data.with_suffix(".partial"))
        os.replace(data.with_suffix(".partial"), data)
    at_once = 1 if device == "cuda" else os.cpu_count() or 1

    def start(job: tuple[str, str, int]) -> None:
        path = kept / f"{' '.join(map(str, job))}.json"
        if path.exists():
            return
        task = {"job": job, "sizes": sizes, "device": device, "data": str(data), "to": str(path)}
        command = [sys.executable, __file__, "--inside", json.dumps(task | {"threads": 1 if at_once > 1 else None})]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{job}: {done.stderr.strip().splitlines()[-1]}")

    with ThreadPoolExecutor(at_once) as pool:
        list(tqdm(pool.map(start, jobs), total=len(jobs), desc="runs", leave=False))
    paths = {" ".join(map(str, job)): kept / f"{' '.join(map(str, job))}.json" for job in jobs}
    return {name: json.loads(path.read_text()) for name, path in paths.items()}


def inside(task: dict[str, Any]) -> None:
    """One job, in its process."""
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    acts, held_out = torch.load(task["data"], weights_only=True)
    result = one_run(*task["job"], task["sizes"], acts, held_out, task["device"])
    partial = Path(task["to"] + ".partial")
    partial.write_text(json.dumps(result))
    os.replace(partial, task["to"])


def compare(runs: dict[str, Any], seeds: int, where: str) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """For each rule both ways; and how far apart they are, in units of the spread over seeds."""
    rows, targets = [], []
    for rule in RULES:
        values = {}
        for way in WAYS:
            of = {what: [runs[f"{rule} {way} {seed}"][what] for seed in range(seeds)] for what in ("fvu", "l0", "dead")}
            values[way] = torch.tensor(of["fvu"], dtype=torch.float64)
            l0, dead = (sum(of[what]) / seeds for what in ("l0", "dead"))
            middle, noise = float(values[way].mean()), float(values[way].std())
            rows.append([rule, way, f"{middle:.4f} ± {noise:.4f}", f"{l0:.2f}", f"{dead:.1%}"])
        apart = float((values["sparse"] - values["dense"]).mean().abs())
        noise = float(torch.stack([values[way].var() for way in WAYS]).mean().sqrt())
        ratio = common.spread([apart / noise])
        note = f"FVU differs by {apart:.5f}; over seeds it varies by {noise:.5f}"
        what = f"{rule}: sparse against dense FVU after 1,000 steps, in standard deviations over seeds"
        targets.append(common.target(what, where, ratio, at_most=1, unit="", note=note))
    return rows, targets


def main() -> None:
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--fresh", action="store_true", help="forget the runs that an interruption left")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("argument --rounds: one seed has no standard deviation; give 2 or more")
    if args.inside:
        inside(json.loads(args.inside))
        return
    device = common.device_of(args)
    described = common.machine(device)
    sizes = SIZES["quick" if args.quick else device]
    n_features, n_tokens, k, steps, *_ = sizes
    jobs = [(rule, way, seed) for seed in range(args.rounds) for rule in RULES for way in WAYS]
    code = b"".join(path.read_bytes() for path in sorted(Path(sae_tutorial.__file__).parent.rglob("*.py")))
    mark = hashlib.sha256(code + json.dumps([sizes, device, torch.__version__]).encode()).hexdigest()[:12]
    kept = Path(tempfile.gettempdir()) / f"sae_tutorial_oracle_{mark}"
    kept.mkdir(exist_ok=True)
    for path in kept.glob("*") if args.fresh or args.quick else []:
        path.unlink()
    runs = all_runs(jobs, sizes, device, kept)
    for path in kept.glob("*"):
        path.unlink()
    kept.rmdir()
    where = common.at((256, n_features, n_tokens, k))
    rows, targets = compare(runs, args.rounds, where)
    title = f"{steps:,} steps, sparse and dense, at {where}, mean ± standard deviation over {args.rounds} seeds"
    tables = [common.table(title, ["rule", "way", "held-out FVU", "held-out L0", "dead"], rows)]
    question = "held-out FVU and L0 after training with sparse and with dense steps"
    settings = {
        "steps": steps,
        "seeds": args.rounds,
        "hook": HOOK,
        "training_rows": sizes[4],
        "held_out_rows": sizes[5],
    }
    common.finish(args, "oracle", question, described, raw=runs, settings=settings, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
