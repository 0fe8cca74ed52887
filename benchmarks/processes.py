"""How much faster do several processes train one SAE than one process on the same machine, and what do they send?

    python benchmarks/processes.py     results/processes.json (5 minutes); on GPUs one process for each, on a CPU two

Rank 0 trains alone with all the threads of the machine while the others wait; then all train, each with its part of
the threads, and of the tokens of every batch or of the features. All do the same steps on the same batches in each
round, in turns. On GPUs each rank has its own, so there the first is one GPU and the others are all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import common
import torch
import torch.distributed as dist

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder
from sae_tutorial.activations.ranks import Grid, Ranks, started_by_torchrun
from sae_tutorial.training.loop import prepared
from sae_tutorial.training.settings import TrainSettings

RULES = ("token_choice", "mutual_choice", "feature_choice")
STEPS, WARMUP = 6, 3  # of a round, and before the first


class Counted(Ranks):
    """Ranks that count the bytes that they give away."""

    sent = 0

    def add_(self, x: torch.Tensor, *op: Any) -> torch.Tensor:
        self.sent += x.numel() * x.element_size()
        return super().add_(x, *op)

    def gathered(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.sent += x.numel() * x.element_size()
        return super().gathered(x)


def turns(
    rule: str, shape: tuple[int, int, int, int], rounds: int, device: str
) -> tuple[common.Taken, dict[str, float]]:
    """Milliseconds of a round alone, and of all that share tokens, or features, seen by rank 0; and the megabytes that
    a rank sends in a step."""
    d_in, n_features, batch_size, k = shape
    generator = torch.Generator().manual_seed(0)
    store = ActivationStore.from_tensor(torch.randn(4 * batch_size, d_in, generator=generator))
    here, threads = Ranks.here(), len(os.sched_getaffinity(0))
    counted = {name: Counted(here.rank, here.world, here.device) for name in ("tokens", "features")}
    grids = {"alone": Grid(), "tokens": Grid.of_tokens(counted["tokens"])}
    grids |= {"features": Grid.of_features(counted["features"])}
    settings, config = TrainSettings(10_000, batch_size), SAEConfig(d_in, n_features, rule, k)
    run = {
        name: prepared(SparseAutoencoder(config, 0, grid.features.part).to(device), settings, store, None, grid)
        for name, grid in grids.items()
    }
    feed = {
        name: store.batches(batch_size, epochs=None, part=grid.tokens.part, device=device)
        for name, grid in grids.items()
    }

    def steps(name: str, n: int) -> float:
        def advance() -> None:
            for x, _ in zip(feed[name], range(n)):
                run[name].advance(u := run[name].sae.normalise(x), u)

        torch.set_num_threads(threads if name == "alone" or device == "cuda" else max(1, threads // here.world))
        dist.barrier()
        took = common.timed(advance, device)() if name != "alone" or here.rank == 0 else 0.0
        dist.barrier()
        return took

    for name in run:
        steps(name, WARMUP)
    for ranks in counted.values():
        ranks.sent = 0
    taken = common.take_turns({name: lambda name=name: steps(name, STEPS) for name in run}, rounds, rule)
    return taken, {name: ranks.sent / (rounds * STEPS) / 1e6 for name, ranks in counted.items()}


def torchrun(n: int) -> int:
    """The same command line, in `n` processes."""
    if n < 2:
        print("error: this machine has one GPU, and the question is about several", file=sys.stderr)
        return 1
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return subprocess.run([*launcher, *sys.argv]).returncode


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    if "WORLD_SIZE" not in os.environ:
        sys.exit(torchrun(torch.cuda.device_count() if device == "cuda" else 2))
    described = common.machine(device)
    targets, rows, raw = [], [], {}
    with started_by_torchrun():
        ranks = Ranks.here()
        for shape in common.shapes_of(args):
            for rule in RULES:
                taken, megabytes = turns(rule, shape, args.rounds, device)
                alone = f"{min(taken['alone']) / STEPS:.0f}"
                for shared, sent in megabytes.items():
                    faster = common.ratio(taken["alone"], taken[shared])
                    what = f"{rule}: one process against {ranks.world} that share {shared}"
                    targets.append(common.target(what, common.at(shape), faster))
                    cells = [alone, f"{min(taken[shared]) / STEPS:.0f}", f"{faster['median']:.2f}", f"{sent:.1f}"]
                    rows.append([rule, common.at(shape), shared, *cells])
                raw[f"{rule} {common.at(shape)}"] = taken | {"megabytes": megabytes}
    if ranks.rank == 0:
        columns = ["rule", "size", "shared", "alone, ms", f"{ranks.world} processes, ms", "alone / together"]
        columns += ["MB sent per step"]
        tables = [common.table(f"Steps of {ranks.world} processes beside those of one", columns, rows)]
        question = "how much faster several processes train one SAE than one process on the same machine"
        settings = {"rounds": args.rounds, "steps": STEPS, "processes": ranks.world}
        common.finish(
            args, "processes", question, described, raw=raw, settings=settings, tables=tables, targets=targets
        )


if __name__ == "__main__":
    main()
