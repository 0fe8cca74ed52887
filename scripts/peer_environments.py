"""The libraries that we are compared with, each in an environment of its own: their pins exclude one another, and ours.

`environment(cache, "saelens")` is the Python that has it, made below `cache` if it is not there yet (about 2 GB each,
some minutes). Only the standard library is imported here, so that scripts can also run inside these environments.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# The torch that the others are built around: named first, so that pip does not pick one with CUDA on its own.
TORCH = "torch==2.13.0"
PACKAGES = {"saelens": "sae-lens", "sparsify": "eai-sparsify", "dictionary_learning": "dictionary-learning"}
# Versions whose files are still around: SAELens wrote another cfg.json before version 6.
OLD = {"saelens3": "sae-lens==3.23.4", "saelens4": "sae-lens==4.4.5", "saelens5": "sae-lens==5.11.0"}
PYARROW = "pyarrow<20"  # a newer one wants a newer numpy than these allow


def default_cache() -> Path:
    """Where environments are made by default."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sae_tutorial" / "peers"


def environment(cache: Path, name: str) -> Path:
    """The Python of the environment that holds this library; made if it is not there yet."""
    python = cache / name / "bin" / "python"
    if not (cache / name / "ready").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", cache / name], check=True)
        library = [PACKAGES[name]] if name in PACKAGES else [OLD[name], PYARROW]
        for packages in ([TORCH], [TORCH, *library]):  # named again, so that it stays
            run(python, "-m", "pip", "install", "--quiet", *packages)
        # Comes along for nothing, and does not load beside a torch without CUDA.
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision")
        (cache / name / "ready").touch()
    return python


def run(*command: Any) -> None:
    """Run a command to its end: offline, without CUDA, and away from this repository."""
    settings = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as elsewhere:  # so that nothing of this repository is imported by accident
        subprocess.run([str(part) for part in command], check=True, cwd=elsewhere, env=os.environ | settings)
