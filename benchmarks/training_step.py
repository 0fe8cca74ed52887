"""How long does one training step take, beside the steps of SAELens, dictionary_learning and sparsify?

    python benchmarks/training_step.py                        all of them, results/training_step.json (5 minutes)
    python benchmarks/training_step.py --peers                only ours and its limit
    python benchmarks/training_step.py --environments FOLDER  where the peers' environments are, or will be made

A step is the library's own: forward, loss, backward, clipping, optimiser, its counts. All start from the same weights
and see the same batches; FVU and L0 of the first batch are compared before anything is timed, and must agree. The limit
is what no step can do without, measured in the same rounds: the encoder's product in the precision that is used, and
fused Adam over all parameters. On a GPU everybody uses bfloat16 in their own way, one after the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common
import torch
from tqdm import tqdm
from turns import Worker, WorkerError

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.training.start import start_

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))
import peer_environments  # noqa: E402

RULES = ("mutual_choice", "token_choice", "feature_choice", "fair")  # fair: Mutual Choice, relative and with a floor
PEERS = {
    "saelens": ["saelens BatchTopK", "saelens TopK"],
    "dictionary_learning": ["dictionary_learning BatchTopK", "dictionary_learning TopK"],
    "sparsify": ["sparsify TopK adam", "sparsify TopK signum"],
}
# What selects the same must see the same.
SAME = {
    "mutual_choice": ["saelens BatchTopK", "dictionary_learning BatchTopK"],
    "token_choice": ["saelens TopK", "dictionary_learning TopK", "sparsify TopK adam", "sparsify TopK signum"],
}
# Ours, theirs, at least so many times as fast with a product in bfloat16, in float32.
BARS = [
    ("mutual_choice", "saelens BatchTopK", 12, 5),
    ("mutual_choice", "dictionary_learning BatchTopK", 8, 3.5),
    ("token_choice", "sparsify TopK adam", 3, 1),
    ("token_choice", "sparsify TopK signum", None, None),
    ("token_choice", "saelens TopK", None, None),
    ("token_choice", "dictionary_learning TopK", None, None),
]
AGAINST_MUTUAL = {"feature_choice": 1.25, "fair": 1.1}
STEP_AGAINST_LIMIT = 1.6


def superposed(n: int, d_in: int, generator: torch.Generator, basis: torch.Tensor) -> torch.Tensor:
    """Data with features in it: sums of a few out of 4·d_in directions."""
    strengths = (torch.rand(n, 4 * d_in, generator=generator) - 0.97).relu()
    return strengths @ basis


def make_task(shape: tuple[int, int, int, int], path: Path, n_batches: int = 4) -> None:
    """Batches with mean 0 and variance 1, and the weights that everybody starts from."""
    d_in, n_features, n_tokens, k = shape
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(4 * d_in, d_in, generator=generator)
    x = torch.stack([superposed(n_tokens, d_in, generator, basis) for _ in range(n_batches)])
    x -= x.mean((0, 1))
    x /= x.square().mean().sqrt()
    sae = start_(SparseAutoencoder(SAEConfig(d_in, n_features, "mutual_choice", k)), x[0, :1024])
    weights = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    weights = {name: weight.detach().contiguous() for name, weight in weights.items()}
    torch.save({"shape": list(shape), "batches": x, "weights": weights}, path)


def start_workers(
    args: argparse.Namespace, device: str, stack: ExitStack
) -> tuple[dict[str, Worker], dict[str, Any], dict[str, str]]:
    """A process for each library, what it says about itself, and the reasons of those that are missing."""
    settings = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    settings |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    packages = {name: [package, "torch"] for name, package in peer_environments.PACKAGES.items()}
    workers, said, missing = {}, {}, {}
    for name in ["ours", *args.peers]:
        try:
            print(f"starting {name}", flush=True)
            python = Path(sys.executable) if name == "ours" else peer_environments.environment(args.environments, name)
            path = {"PYTHONPATH": str(HERE.parent) if name == "ours" else ""}
            worker = stack.enter_context(Worker([python, HERE / "contender_process.py"], settings | path))
            said[name] = worker.ask("hello", threads=torch.get_num_threads(), packages=packages.get(name, ["torch"]))
            workers[name] = worker
        except (WorkerError, OSError, peer_environments.subprocess.CalledProcessError) as error:
            if name == "ours":
                raise
            missing[name] = "its environment could not be made, or does not start"
            print(f"  {name}: {missing[name]}: {error}")
    return workers, said, missing


def measure(
    contenders: dict[str, Worker], task: Path, device: str, rounds: int, missing: dict[str, str]
) -> tuple[common.Taken, dict[str, dict[str, float]]]:
    """Milliseconds per step in each round, and what each saw in the first batch. On a CPU all contenders stay in memory
    and take turns; on a GPU, which is quiet and may be too small for all of them, they come one after the other."""
    taken: common.Taken = {}
    seen: dict[str, dict[str, float]] = {}
    groups = [list(contenders)] if device == "cpu" else [[name] for name in contenders]
    for group in groups:
        ready = {}
        for name in tqdm(group, desc="preparing", leave=False):
            try:
                seen[name] = contenders[name].ask("prepare", name=name, task=str(task), device=device)
                ready[name] = lambda name=name: contenders[name].turn(name)
            except WorkerError as error:
                missing[name] = str(error)[:120]
        try:
            taken |= common.take_turns(ready, rounds, f"rounds of {len(ready)}")
        except WorkerError as error:  # a GPU that is too small says so in a step
            if len(group) > 1:
                raise
            missing[group[0]] = str(error)[:120]
        for name in ready:
            contenders[name].ask("drop", name=name)
    return taken, seen


def disagreements(seen: dict[str, dict[str, float]], precise: bool) -> list[str]:
    """Who saw another FVU or L0 in the first batch than we did, from the same weights."""
    found, tolerance = [], 1e-3 if precise else 2e-2
    for rule, others in SAME.items():
        ours = next((seen[name] for name in seen if name.startswith(f"ours {rule}")), None)
        for name in others:
            for what in ("fvu", "l0"):
                if ours and name in seen and abs(seen[name][what] / ours[what] - 1) > tolerance:
                    found.append(f"{name} has {what} {seen[name][what]:.5g}, {rule} {ours[what]:.5g}")
    return found


def targets_of(
    taken: common.Taken, where: str, dtypes: list[str], bars: bool, missing: dict[str, str], no_bfloat16: str
) -> list[dict[str, Any]]:
    """Ratios of the rounds, beside what they should be."""
    lines = []

    def line(what: str, above: list[str], below: list[str], **bar: float | None) -> None:
        """What the sum of the first takes, divided by what the sum of the second takes."""
        lacking = [name for name in above + below if name not in taken]
        ratio, note = None, ""
        if lacking:
            note = next((missing[n] for name in lacking for n in (name, name.split()[0]) if n in missing), no_bfloat16)
        else:
            ratio = common.ratio(*([sum(times) for times in zip(*(taken[n] for n in side))] for side in (above, below)))
        bar = {key: value for key, value in bar.items() if bars and value is not None}
        lines.append(common.target(what, where, ratio, note=note, **bar))

    for dtype in dtypes:
        product = f"{dtype} product"
        for rule, peer, in_bfloat16, in_float32 in BARS:
            bar = in_bfloat16 if dtype == "bfloat16" else in_float32
            line(f"{rule}, {product}, faster than {peer}", [peer], [f"ours {rule} {dtype}"], at_least=bar)
        ours = {rule: f"ours {rule} {dtype}" for rule in RULES}
        for rule, bar in AGAINST_MUTUAL.items():
            line(f"{rule} against mutual_choice, {product}", [ours[rule]], [ours["mutual_choice"]], at_most=bar)
        limit = [f"limit product {dtype}", "limit adam float32"]
        for rule in RULES:
            line(f"{rule} against its limit, {product}", [ours[rule]], limit, at_most=STEP_AGAINST_LIMIT)
    return lines


def main() -> None:
    parser = common.parser(__doc__)
    cache = peer_environments.default_cache()
    parser.add_argument("--environments", type=common.folder, default=cache, help=f"default: {cache}")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="none: only ours")
    args = parser.parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    rounds = min(args.rounds, 2) if args.quick else args.rounds
    factor = common.bfloat16_against_float32(device)
    no_bfloat16 = ""
    if device == "cpu" and factor >= 1:
        no_bfloat16 = f"this CPU emulates bfloat16 (a product takes {factor:.0f} times as long as in float32)"
    measured = ["bfloat16"] if device == "cuda" else ["float32"] + ([] if no_bfloat16 else ["bfloat16"])

    raw, tables, targets = {}, [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers, said, missing = start_workers(args, device, stack)
        names = [f"ours {rule} {dtype}" for dtype in measured for rule in RULES]
        names += [f"limit product {dtype}" for dtype in measured] + ["limit adam float32"]
        contenders = {name: workers["ours"] for name in names}
        contenders |= {name: workers[peer] for peer in args.peers if peer in workers for name in PEERS[peer]}
        missing |= {peer: "left out with --peers" for peer in PEERS if peer not in args.peers}
        for shape in common.shapes_of(args):
            task, where, lacking = folder / "task.pt", common.at(shape), dict(missing)
            make_task(shape, task)
            taken, seen = measure(contenders, task, device, rounds, lacking)
            wrong = disagreements(seen, precise=device == "cpu")
            if wrong:
                raise SystemExit(f"these do not compute the same, so times mean nothing at {where}: {'; '.join(wrong)}")
            dtypes = measured if device == "cuda" else ["float32", "bfloat16"]
            targets += targets_of(taken, where, dtypes, device == "cpu", lacking, no_bfloat16)
            tables.append(times_table(where, taken, seen))
            raw[where] = {"milliseconds_per_step": taken, "first_batch": seen, "missing": lacking}
    settings = {"rounds": rounds, "bfloat16_product_against_float32": common.short(factor), "environments": said}
    question = "milliseconds of one training step, ours, the peers', and the limit of ours"
    common.finish(
        args, "training_step", question, described, raw=raw, settings=settings, tables=tables, targets=targets
    )


def times_table(where: str, taken: common.Taken, seen: dict[str, dict[str, float]]) -> dict[str, Any]:
    rows = []
    for name, times in sorted(taken.items(), key=lambda item: common.spread(item[1])["median"]):
        of, first = common.spread(times), seen[name]
        facts = [f"{first[what]:.4f}" if what in first else "" for what in ("fvu", "l0")]
        rows.append([name, f"{of['median']:.1f}", f"{of['low']:.1f} to {of['high']:.1f}", *facts])
    columns = ["one step of", "ms, median", "ms, all rounds", "FVU of the first batch", "L0"]
    return common.table(f"Training steps at {where}", columns, rows)


if __name__ == "__main__":
    main()
