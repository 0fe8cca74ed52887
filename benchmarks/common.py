"""What the benchmarks share: turns, ratios, tables, the machine's description, and the file that a result goes to."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sae_tutorial.activations.files import check_writable, path_of

RESULTS = Path(__file__).resolve().parent / "results"
# d_in, features, tokens, mean L0
SHAPES = {
    "cpu": [(256, 8192, 2048, 32), (768, 24576, 2048, 32)],
    "cuda": [(768, 65536, 16384, 64), (2304, 131072, 16384, 64)],
}
QUICK_SHAPES = [(16, 256, 64, 4)]
Taken = dict[str, list[float]]


# ---------------------------------------------------------------------- the command line


class Parser(argparse.ArgumentParser):
    """Refuses what could not be done, or not be written, after hours of measuring."""

    def parse_args(self, *given: Any, **more: Any) -> argparse.Namespace:  # type: ignore[override]
        args = super().parse_args(*given, **more)
        if args.device == "cuda" and not torch.cuda.is_available():
            self.error("argument --device: there is no CUDA device here; leave it away, or give cpu")
        if getattr(args, "out", None) is None and not getattr(args, "quick", False):
            self.check_file(RESULTS / "a result.json")
        return args

    def check_file(self, path: Path) -> None:
        """Stop unless this file could be written."""
        try:
            check_writable(path)
        except OSError as error:
            self.error(error.strerror or str(error))


def parser(doc: str, rounds: int = 7, writes: bool = True) -> Parser:
    """The options that every benchmark has; --out only where it `writes` a result of its own."""
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: cuda where there is one")
    made.add_argument("--rounds", type=whole, default=rounds, help="how often all is measured (default %(default)s)")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; writes nothing")
    if writes:
        made.add_argument("--out", type=file_to_write, help="the file to write (default: one in benchmarks/results)")
    return made


def whole(text: str, least: int = 1) -> int:
    """The type of an argument that counts something."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, got {text!r}")
    return int(text)


def file_to_write(text: str) -> Path:
    """The type of an argument that names a file of results: whether it can be written is tried at once."""
    path = path_of("file", text)
    try:
        check_writable(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(error.strerror or str(error)) from None
    return path


def folder(text: str) -> Path:
    """The type of an argument that names a folder, which need not be there."""
    path = path_of("folder", text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file; give a folder")
    return path


def device_of(args: argparse.Namespace) -> str:
    """The name of the device: cpu or cuda."""
    if args.device != "auto":
        return args.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def shapes_of(args: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    return QUICK_SHAPES if args.quick else SHAPES[device_of(args)]


def at(shape: Sequence[int]) -> str:
    """A shape in words."""
    return "d={:,} F={:,} B={:,} k={}".format(*shape)


# ---------------------------------------------------------------------- measuring


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> Callable[[], float]:
    """A function that runs it once and returns the milliseconds."""

    def measure() -> float:
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        return 1e3 * (time.perf_counter() - start)

    return measure


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int, title: str = "rounds") -> Taken:
    """Milliseconds of each contender in each round. Within a round each has one turn, in random order, so that a
    machine that slows down for a while slows all of them alike."""
    taken: Taken = {name: [] for name in contenders}
    order = random.Random(0)
    for _ in tqdm(range(rounds), desc=title, leave=False):
        for name in order.sample(list(contenders), len(contenders)):
            taken[name].append(contenders[name]())
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and between what it lies."""
    return {"median": short(statistics.median(values)), "low": short(min(values)), "high": short(max(values))}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times as long the first takes: round by round, as both saw the same machine only then."""
    return spread([s / f for s, f in zip(slow, fast)])


def short(number: float, digits: int = 4) -> float:
    return float(f"{number:.{digits}g}")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of y ∝ xᵖ: the slope of the straight line through log y against log x."""
    log_x, log_y = (torch.tensor(values, dtype=torch.float64).log() for values in (x, y))
    centred = log_x - log_x.mean()
    return float(centred @ log_y / centred.square().sum())


def bfloat16_against_float32(device: str, size: int = 768) -> float:
    """How many times as long a product takes in bfloat16: below 1 where the hardware has it, far above where a CPU
    emulates it."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(size, size, device=device).to(dtype)
        measure = timed(lambda a=a: a @ a, device)
        measure()
        times[dtype] = min(measure() for _ in range(3))
    return times[torch.bfloat16] / times[torch.float32]


def machine(device: str) -> dict[str, str | int | float]:
    """What the numbers come from. Ask for it first: `load_at_start` shows whether something else was running."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    described = {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    return described | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


# ---------------------------------------------------------------------- reporting


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table as it is printed, stored, and shown in benchmarks/README.md."""
    return {"title": title, "columns": list(columns), "rows": [[str(cell) for cell in row] for row in rows]}


def target(
    what: str,
    where: str,
    measured: dict[str, float] | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "×",
    note: str = "",
) -> dict[str, Any]:
    """One line of the table of targets. `measured` is a `spread`; None: it was not measured, `note` is why. The
    median decides. Without a bar, or without a measurement, `met` is None."""
    met = None
    if measured is not None and at_least is not None:
        met = measured["median"] >= at_least
    elif measured is not None and at_most is not None:
        met = measured["median"] <= at_most
    bars = {"at_least": at_least, "at_most": at_most}
    return {"what": what, "at": where, **bars, "unit": unit, "measured": measured, "met": met, "note": note}


def bar_text(one: dict[str, Any]) -> str:
    for name, sign in (("at_least", "≥"), ("at_most", "≤")):
        if one[name] is not None:
            return f"{sign} {one[name]:g}{one['unit']}"
    return "none"


def measured_text(one: dict[str, Any]) -> str:
    if one["measured"] is None:
        return f"not measured: {one['note']}"
    middle, low, high = (f"{one['measured'][name]:.3g}" for name in ("median", "low", "high"))
    between = f" ({low} to {high})" if low != high else ""
    return f"{middle}{one['unit']}{between}" + (f"; {one['note']}" if one["note"] else "")


def verdict_text(one: dict[str, Any]) -> str:
    return {True: "met", False: "**missed**", None: ""}[one["met"]]


def show(rows: Sequence[Sequence[str]]) -> None:
    """Print rows with columns of one width each."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def finish(
    args: argparse.Namespace,
    name: str,
    question: str,
    described: dict[str, Any],
    *,
    raw: Any,
    settings: dict[str, Any] | None = None,
    tables: Sequence[dict[str, Any]] = (),
    targets: Sequence[dict[str, Any]] = (),
    variant: str = "",
) -> None:
    """Print tables and targets; write everything to results/<name>.json (<name>-cuda.json for a GPU).

    `variant`: the options that make it another measurement than the usual one, "--model smollm2 …": the value of the
    first becomes part of the file's name.
    """
    for one in tables:
        print(f"\n{one['title']}")
        show([one["columns"], *one["rows"]])
    if targets:
        print("\nTargets")
        show([[t["what"], t["at"], bar_text(t), measured_text(t), verdict_text(t).strip("*")] for t in targets])
    if args.quick and args.out is None:
        return
    device = "cuda" if "gpu" in described else "cpu"
    parts = [name, *variant.split()[1:2], *([device] if device != "cpu" else [])]
    path = args.out or RESULTS / f"{'-'.join(parts)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join([f"python benchmarks/{name}.py", *variant.split(), f"--device {device}"])
    content = {"question": question, "command": command, "machine": described}
    content |= {"settings": settings or {}, "targets": list(targets), "tables": list(tables), "raw": raw}
    path.write_text(dumped(content) + "\n", encoding="utf-8")


def dumped(content: Any) -> str:
    """JSON, with what fits on a line in one line: raw numbers read better that way."""
    return _dumped(json.loads(json.dumps(content)), 0)


def _dumped(value: Any, depth: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or len(flat) + depth <= 118:
        return flat
    inner, outer = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_dumped(one, depth + 1)}" for key, one in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{outer}}}"
    return "[\n" + ",\n".join(inner + _dumped(one, depth + 1) for one in value) + f"\n{outer}]"
