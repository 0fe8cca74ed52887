"""What other libraries reach on the activations, budget, batches and steps of `quality.py`, by their own trainers.

Each is trained in an environment of its own (`peer_training.py`), saved in its own format, and read with `load_sae`;
so it is measured as its users would use it, through the threshold that it found where it has one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_tutorial import ActivationStore, SparseAutoencoder, load_sae

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))
from peer_environments import default_cache, environment, run  # noqa: E402

# Method of the grid -> library, and what the library calls the rule.
PEERS = {
    "dictionary_learning_topk": ("dictionary_learning", "TopK"),
    "dictionary_learning_batchtopk": ("dictionary_learning", "BatchTopK"),
    "saelens_batchtopk": ("saelens", "BatchTopK"),
    "saelens_topk": ("saelens", "TopK"),
}
TRAINED = "trained.json"  # beside what a peer has saved: it was trained to its end


def activations_file(store: ActivationStore, folder: Path) -> Path:
    """All activations of the store, centred and scaled as our SAEs see them, as one .npy file (made once)."""
    file = folder / "normalised.npy"
    if not file.exists():
        partial = folder / "normalised.partial.npy"
        acts = np.lib.format.open_memmap(partial, "w+", np.float32, (len(store), store.d_in))
        for a in range(0, len(store), 2**16):
            acts[a : a + 2**16] = store.normalise(store.rows(slice(a, a + 2**16))).float().numpy()
        acts.flush()
        partial.replace(file)
    return file


def train_peer(
    method: str,
    store: ActivationStore,
    *,
    d_sae: int,
    k: int,
    seed: int,
    steps: int,
    batch_size: int,
    lr: float | None,
    folder: Path,
) -> tuple[SparseAutoencoder, float]:
    """The SAE that the peer trained, in raw activations like ours, and the seconds that it took. One that was trained
    already is read. lr=None: the peer's own."""
    library, rule = PEERS[method]
    folder = folder / f"peers-{zlib.crc32(store.mean.cpu().numpy().tobytes()):08x}"  # other activations, other files
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{method}-F{d_sae}-k{k}-seed{seed}-{steps}x{batch_size}-lr{lr or 'default'}"
    if not (out / TRAINED).exists():
        task = {"library": library, "rule": rule, "activations": str(activations_file(store, folder)), "out": str(out)}
        task |= {"d_in": store.d_in, "d_sae": d_sae, "k": k, "seed": seed, "steps": steps, "batch_size": batch_size}
        task |= {"lr": lr}
        _train(task, out)
    sae = load_sae(out)
    with torch.no_grad():  # it was trained on centred and scaled activations
        sae.mean.copy_(store.mean)
        sae.scale.fill_(store.scale)
    return sae, json.loads((out / TRAINED).read_text())["seconds"]


def _train(task: dict[str, Any], out: Path) -> None:
    """Run the peer's trainer in its environment; `out` then holds what it saved."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "task.json").write_text(json.dumps(task | {"threads": torch.get_num_threads()}))
    start = time.perf_counter()
    try:
        run(environment(default_cache(), task["library"]), HERE / "peer_training.py", out / "task.json")
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{task['library']} failed to train {task['rule']}; its message stands above") from error
    (out / TRAINED).write_text(json.dumps({"seconds": time.perf_counter() - start}))
