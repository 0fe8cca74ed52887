"""The sparse autoencoders that come with the package: one for each way to allocate, in the middle of the model.

Trained and measured by `scripts/train_reference_saes.py`; a card lies beside each. On disk their weights are fp16 in
safetensors, compressed by xz.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, save

from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.other_libraries import assemble, read_json
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.sae import SparseAutoencoder

FOLDER = Path(__file__).parents[1] / "assets" / "saes" / "stories"
HOOK = "blocks.1.hook_resid_post"
RULES = ("token_choice", "mutual_choice", "feature_choice")
CONFIG, WEIGHTS = "config.json", "weights.safetensors.xz"
# Every second byte holds sign and exponent: telling xz so (lp, pb) saves a seventh.
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 1, "pb": 1}]


def reference_sae(rule: str = "feature_choice", *, device: torch.device | str | None = None) -> SparseAutoencoder:
    """The shipped SAE of this rule, in float32: it reads `reference.HOOK` of `load_language_model("stories")`.

    4,096 features, k = 32, raw activations in and out. Raises ValueError for a rule that none was trained for.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)} (those have a reference SAE), got {rule!r}")
    sae = unpack(FOLDER / rule)
    return sae if device is None else sae.to(device)


def pack(sae: SparseAutoencoder, folder: Path) -> None:
    """Write `sae` in fp16 (thresholds, ranks and counts as they are), mean and scale folded into the weights."""
    raw = folded(sae)
    weights = {name: t.detach().contiguous() for name, t in raw.state_dict().items()}
    weights |= {name: p.detach().half().contiguous() for name, p in raw.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(lzma.compress(save(weights), format=lzma.FORMAT_XZ, filters=XZ))
    (folder / CONFIG).write_text(json.dumps(asdict(raw.config), indent=2) + "\n")


def unpack(folder: Path) -> SparseAutoencoder:
    """What `pack` wrote, in float32."""
    weights = load(lzma.decompress((folder / WEIGHTS).read_bytes()))
    weights = {name: t.float() if t.dtype == torch.float16 else t for name, t in weights.items()}
    return assemble(SAEConfig(**read_json(folder / CONFIG)), weights, folder / WEIGHTS)
