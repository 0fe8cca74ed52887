"""How long would a step take on 1 to 1,024 GPUs, in how much memory, and what would be in its way?

    python benchmarks/many_gpus.py --device cuda    rates of the GPU that is there; results/many_gpus-cuda.json
    python benchmarks/many_gpus.py --device cpu     the formula beside steps of this CPU; GPUs by their data sheet

A step of Mutual Choice is taken apart: into what grows with tokens × features (the encoder's product, a look at the
table of affinities), with matches (the sparse products), with features (Adam, and passes over weights), and into what
ranks send each other. Four rates are measured, the rest is arithmetic: `parts_of_step` and `memory`. Ranks that share
features send x̂, ranks that share tokens the gradients of rows that matched. For each number of GPUs the fastest grid
(parts of the tokens × parts of the features) that fits is shown. Assumed: parts follow each other, none overlaps with
another; links as fast as the data sheet says, half of it reached; no time to start kernels; data comes as fast as it is
read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import common
import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder
from sae_tutorial.training.loop import prepared
from sae_tutorial.training.settings import TrainSettings

GB = 1e9
TOKENS, K = 65_536, 64
SIZES = [(768, 65_536), (2304, 1_048_576), (4096, 4_194_304), (12_288, 16_777_216)]
NUMBERS = [1, 8, 64, 256, 1024]
SPARSE_PASSES = 6  # over rows of the matches: affinities, x̂, and four gradients of these two
ADAM = 28  # bytes of a weight that Adam reads and writes: weight, gradient and two moments, all but one of them twice
PASSES = 36  # more bytes of a weight: gradients cleared and written, decoder rows projected and renormalised, the cast
COPIES = 4  # of weights, in float32: they, their gradients, and two moments
IN_A_NODE = 8  # GPUs that are joined by fast links


@dataclass(frozen=True)
class Rates:
    """What one device does, and its links. Bytes and operations per second, bytes of memory."""

    name: str
    product: float  # operations of the encoder's product
    table: float  # bytes of the table that the choice goes through
    rows: float  # bytes of rows that the sparse products read
    stream: float  # bytes that Adam and other passes over weights read and write
    memory: float
    link: float  # bytes sent within a node
    network: float  # bytes sent between nodes
    low: int = 2  # bytes of a number in the product and the table


# Half of the product, seven tenths of the bandwidth and half of the links of an H100 (SXM, 80 GB; 400 Gb/s network).
BY_DATA_SHEET = Rates("H100 by its data sheet", 0.5 * 989e12, 0.35 * 3.35e12, 0.5 * 3.35e12, 0.7 * 3.35e12, 80 * GB,
                      0.5 * 450 * GB, 0.5 * 50 * GB)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A grid for one size: parts of the tokens × parts of the features, seconds of each part of a step, bytes."""

    tokens: int
    features: int
    parts: dict[str, float]
    memory: float

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def parts_of_step(rates: Rates, d: int, F: int, B: int, k: int, tokens: int = 1, features: int = 1) -> dict[str, float]:
    """Seconds of each part of a step on a grid, for the rank that has most to do."""
    b, f = math.ceil(B / tokens), math.ceil(F / features)
    matches = b * k / features
    world = tokens * features
    across = rates.link if features <= IN_A_NODE else rates.network  # ranks that share features lie together
    along = rates.link if world <= IN_A_NODE else rates.network
    touched = min(f, matches * tokens) * d * 2 * 4  # bytes of gradients of rows that match anywhere
    return {
        "product": 2 * b * d * f / rates.product,
        "choice": b * f * rates.low / rates.table,
        "sparse products": SPARSE_PASSES * matches * d * 4 / rates.rows,
        "weights": 2 * f * d * (ADAM + PASSES / 2) / rates.stream,
        "x̂ sent": 2 * (features - 1) / features * b * d * 4 / across,
        "gradients sent": 2 * (tokens - 1) / tokens * touched / along,
    }


def memory(rates: Rates, d: int, F: int, B: int, tokens: int = 1, features: int = 1) -> float:
    """Bytes of one rank: weights with what training keeps of them, the encoder rounded, activations, and the table,
    which is made block by block where it would take more than a tenth of the memory."""
    b, f = math.ceil(B / tokens), math.ceil(F / features)
    table = min(b * f * rates.low, 0.1 * rates.memory)
    return 2 * f * d * 4 * COPIES + f * d * rates.low + table + 8 * b * d * 4


def grids(n: int) -> Iterator[tuple[int, int]]:
    """(parts of the tokens, parts of the features) of n ranks."""
    return ((n // features, features) for features in range(1, n + 1) if n % features == 0)


def best(rates: Rates, d: int, F: int, B: int, k: int, n: int) -> Plan | None:
    """The fastest grid of n devices that fits into their memory; None if there is none."""
    fitting = []
    for tokens, features in grids(n):
        if features > F or tokens > B:
            continue
        needed = memory(rates, d, F, B, tokens, features)
        if needed <= rates.memory:
            fitting.append(Plan(tokens, features, parts_of_step(rates, d, F, B, k, tokens, features), needed))
    return min(fitting, key=lambda plan: plan.seconds, default=None)


# ---------------------------------------------------------------------- what this device does


def measured_rates(device: str, dtype: torch.dtype) -> Rates:
    """Four rates, each the best of five, at sizes that fit."""
    d, F, B, k = common.SHAPES[device][0]
    matches = B * k
    a, W = torch.randn(B, d, device=device, dtype=dtype), torch.randn(d, F, device=device, dtype=dtype)
    sae = SparseAutoencoder(SAEConfig(d, F, "mutual_choice", k)).to(device)
    codes = sae.allocate(sae.bids(torch.randn(B, d, device=device), dtype))
    parameter = torch.nn.Parameter(torch.randn(2 * F, d, device=device))
    parameter.grad = torch.randn_like(parameter)
    adam = torch.optim.Adam([parameter], fused=True)
    out = sae.table_memory(B, F, dtype)
    table = sae.bids(torch.randn(B, d, device=device), dtype)
    values = codes.values.to(torch.float32)
    sparse = codes.with_values(values)
    taken = {
        "product": lambda: torch.mm(a, W, out=out),
        "table": lambda: sae.allocate(table),
        "rows": lambda: sparse @ sae.W_dec.detach(),
        "stream": adam.step,
    }
    work = {"product": 2 * B * d * F, "table": B * F * dtype.itemsize, "rows": matches * d * 4}
    work["stream"] = parameter.numel() * ADAM
    found = {}
    for name, run in taken.items():
        measure = common.timed(run, device)
        measure()
        found[name] = 1e3 * work[name] / min(measure() for _ in range(5))
    if device == "cuda":
        name, size = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    else:
        name, size = "this CPU", 16 * GB
    links = {"link": BY_DATA_SHEET.link, "network": BY_DATA_SHEET.network}
    return Rates(name, memory=size, low=dtype.itemsize, **found, **links)


def measured_step(device: str, dtype: torch.dtype, shape: tuple[int, int, int, int], rounds: int) -> dict[str, float]:
    """Milliseconds of a real step of Mutual Choice."""
    d, F, B, k = shape
    store = ActivationStore.from_tensor(torch.randn(2 * B, d))
    settings = TrainSettings(10_000, B, encoder_dtype=str(dtype).removeprefix("torch."))
    trainee = prepared(SparseAutoencoder(SAEConfig(d, F, "mutual_choice", k)).to(device), settings, store, None)
    batches = store.batches(B, epochs=None, device=device)

    def advance() -> None:
        trainee.advance(u := trainee.sae.normalise(next(batches)), u)

    measure = common.timed(advance, device)
    for _ in range(3):
        measure()
    return common.spread([measure() for _ in range(rounds)])


def in_words(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    slow = device == "cpu" and common.bfloat16_against_float32(device) > 1
    dtype = torch.float32 if slow else torch.bfloat16
    here = measured_rates(device, dtype)
    checked, raw = [], {"rates": vars(here)}
    for shape in common.shapes_of(args):
        seen = measured_step(device, dtype, shape, args.rounds)
        said = parts_of_step(here, *shape)
        foretold = 1e3 * sum(said.values())
        largest = max(said, key=said.__getitem__)
        cells = [common.at(shape), f"{foretold:.0f}", f"{seen['median']:.0f}", f"{seen['median'] / foretold:.2f}"]
        checked.append([*cells, f"{largest}, {1e3 * said[largest] / foretold:.0%}"])
        raw[f"step {common.at(shape)}"] = {"measured": seen, "said": said}
    rates = here if device == "cuda" else BY_DATA_SHEET
    rows: list[list[Any]] = []
    for d, F in SIZES:
        for n in NUMBERS:
            plan = best(rates, d, F, TOKENS, K, n)
            size = f"d={d:,} F={F:,}"
            if plan is None:
                full = (2 * 4 * COPIES + rates.low) * F * d / rates.memory
                rows.append([size, f"{n:,}", "does not fit", "", "", f"weights and moments fill {full:,.1f} GPUs"])
                continue
            limit = max(plan.parts, key=plan.parts.__getitem__)
            grid, share = f"{plan.tokens:,} × {plan.features:,}", plan.parts[limit] / plan.seconds
            cells = [grid, in_words(plan.seconds), f"{plan.memory / GB:.0f} GB", f"{limit}, {share:.0%}"]
            rows.append([size, f"{n:,}", *cells])
    columns = ["size", "GPUs", "tokens × features", "a step", "memory of each", "most of its time"]
    against = ["size", "foretold, ms", "measured, ms", "measured / foretold", "most of its time"]
    tables = [
        common.table(f"A step foretold from four rates, and measured, on {here.name}", against, checked),
        common.table(f"Steps of {TOKENS:,} tokens, k={K}, foretold for {rates.name}", columns, rows),
    ]
    question = "how long a step takes on 1 to 1,024 GPUs, and what is in its way"
    common.finish(args, "many_gpus", question, described, raw=raw, settings={"rounds": args.rounds}, tables=tables)


if __name__ == "__main__":
    main()
