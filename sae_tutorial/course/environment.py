"""What is this notebook running on, and is that enough? Honest answers, with the fix beside each problem."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from sae_tutorial.course import notebook
from sae_tutorial.figures.tables import Table

OLDEST_PYTHON = (3, 11)


def environment(load_seconds: float | None = None) -> Table:
    """Python, the libraries that matter, cores, GPU and the scale of the notebooks, each with a remark.

    Args:
        load_seconds: how long the language model took to load, if it was timed.
    """
    import torch

    cores = os.cpu_count() or 1
    rows = [
        ("Python", platform.python_version(), _python(tuple(map(int, platform.python_version_tuple()[:2])))),
        *((name, _version(name), "") for name in ("torch", "transformer-lens", "plotly")),
        ("CPU cores", str(cores), _cores(cores)),
        ("GPU", _gpu(), _gpu_remark(torch.cuda.is_available())),
        ("scale", notebook.scale(), "SAE_TUTORIAL_SCALE, set before the kernel starts: smoke, laptop or gpu"),
    ]
    if load_seconds is not None:
        rows.append(("language model", f"{load_seconds:.1f} s to load, libraries included", _load(load_seconds)))
    return Table(["what", "here", "remark"], rows)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.get_device_name(0)}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"


def _python(version: tuple[int, ...]) -> str:
    return "fine" if version >= OLDEST_PYTHON else "too old: the course needs 3.11 or newer"


def _cores(cores: int) -> str:
    return "fine: run times in this course are for 2" if cores >= 2 else "expect about twice the stated run times"


def _gpu_remark(available: bool) -> str:
    return "larger sizes with SAE_TUTORIAL_SCALE=gpu" if available else "not needed: everything runs on the CPU"


def _load(seconds: float) -> str:
    return "fine" if seconds < 20 else "slow: the machine is busy, or read from a cold disk; a second run is faster"
