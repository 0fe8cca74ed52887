"""What other libraries reach on the activations, budget, batches and steps of `quality.py`, by their own trainers.

Each is trained in an environment of its own (`peer_training.py`), saved in its own format, and read with `load_sae`; so
it is measured as its users would use it, through the threshold that it found where it has one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

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
    method: str, store: ActivationStore, *, d_sae: int, k: int, seed: int, steps: int, batch_size: int, folder: Path
) -> tuple[SparseAutoencoder, float]:
    """The SAE that the peer trained, in raw activations like ours, and the seconds that it took."""
    library, rule = PEERS[method]
    out = folder / f"{method}-F{d_sae}-k{k}-seed{seed}-{steps}x{batch_size}"
    task = {"library": library, "rule": rule, "activations": str(activations_file(store, folder)), "out": str(out)}
    task |= {"d_in": store.d_in, "d_sae": d_sae, "k": k, "seed": seed, "steps": steps, "batch_size": batch_size}
    out.mkdir(parents=True, exist_ok=True)
    (out / "task.json").write_text(json.dumps(task | {"threads": torch.get_num_threads()}))
    start = time.perf_counter()
    try:
        run(environment(default_cache(), library), HERE / "peer_training.py", out / "task.json")
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{library} failed to train {rule}; its message stands above") from error
    sae = load_sae(out)
    with torch.no_grad():  # it was trained on centred and scaled activations
        sae.mean.copy_(store.mean)
        sae.scale.fill_(store.scale)
    return sae, time.perf_counter() - start
