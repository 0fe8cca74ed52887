"""The autoencoders that come with the package, each with a card beside it: weights in 8 bits, compressed by xz."""

from __future__ import annotations

import lzma
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from sae_tutorial.activations.files import read_asset, write_atomically
from sae_tutorial.autoencoder.exporting import in_json, in_safetensors
from sae_tutorial.autoencoder.reading import assemble, config_of, read_json
from sae_tutorial.autoencoder.rescaling import folded
from sae_tutorial.autoencoder.sae import ORIGIN, SparseAutoencoder

SAES = Path(__file__).parents[1] / "assets" / "saes"
TRANSCODERS = SAES.with_name("transcoders")
HOOKS = {"stories": "blocks.1.hook_resid_post", "smollm2": "blocks.14.hook_resid_post"}  # what is read: the middle
HOOK = HOOKS["stories"]
STEPS = {"stories": 5000, "smollm2": 2000}  # of 2,048 tokens
RULES = ("token_choice", "mutual_choice", "feature_choice", "matryoshka")
CONFIG, WEIGHTS = "config.json", "weights.safetensors.xz"
SCALE = ".scale"  # behind the name of weights in 8 bits: what one step is worth, for each feature
TIED = "W_enc.tied"  # in the place of an encoder that is the decoder's transpose times this number
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]


def reference_sae(
    rule: str = "feature_choice", *, model: str = "stories", device: torch.device | str | None = None
) -> SparseAutoencoder:
    """The shipped SAE of this rule, in float32: it reads its `hook_name` of `load_language_model(model)`, "stories" or
    "smollm2", whose SAEs were trained alike but for the rule.

    4,096 features (SmolLM2: 2,304), k = 32, raw activations in and out. Raises ValueError for a rule or model that has
    none.
    """
    folder = SAES / str(model) / str(rule)
    if rule not in RULES or not folder.is_dir():
        models = sorted({path.parent.name for path in SAES.glob(f"*/{RULES[0]}")})
        raise ValueError(f"rule must be one of {', '.join(RULES)}, model one of {models}, got {rule=}, {model=}")
    sae = unpack(folder)
    return sae if device is None else sae.to(device)


def reference_transcoders(
    model: str = "stories", *, device: torch.device | str | None = None
) -> list[SparseAutoencoder]:
    """A shipped transcoder for each MLP of `load_language_model(model)`, in float32, from the first layer to the last.

    By Token Choice, without a skip path: 2,048 features, k = 16, raw activations in and out. Raises ValueError for a
    model that has none.
    """
    folders = sorted((TRANSCODERS / str(model)).glob("[0-9]*"), key=lambda folder: int(folder.name))
    if not folders:
        there = sorted(path.name for path in TRANSCODERS.glob("*"))
        raise ValueError(f"model must be one of {there}, got {model=}; scripts/transcoders.py trains others")
    transcoders = [unpack(folder) for folder in folders]
    return transcoders if device is None else [one.to(device) for one in transcoders]


def pack(sae: SparseAutoencoder, folder: Path) -> None:
    """Write `sae` with its matrices in 8 bits (biases, thresholds, ranks and counts as they are), mean and scale folded
    into the weights. Rounding moves a weight by at most 1/254 of the largest of its feature."""
    raw = folded(sae)
    weights = raw.state_dict()
    if sae.config.tied:
        del weights["W_enc"]
        weights[TIED] = 1 / sae.scale**2  # decoder rows have the norm `scale` now, encoder columns 1 / scale
    for name in [name for name in ("W_enc", "W_dec") if name in weights]:
        across = 0 if name == "W_enc" else 1  # a feature's encoder is a column, its decoder a row
        step = weights[name].abs().amax(dim=across, keepdim=True).clamp(min=1e-30) / 127
        weights |= {name: (weights[name] / step).round().to(torch.int8), name + SCALE: step}
    about = asdict(raw.config) | {name: getattr(raw, name) for name in ORIGIN}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, lzma.compress(in_safetensors(weights), format=lzma.FORMAT_XZ, filters=XZ))
    write_atomically(folder / CONFIG, in_json(about))


def unpack(folder: Path) -> SparseAutoencoder:
    """What `pack` wrote, in float32."""
    packed = {name: read_asset(folder / name) for name in (CONFIG, WEIGHTS)}  # raises if what is shipped is damaged
    about, file = read_json(folder / CONFIG), folder / WEIGHTS
    origin = {name: about.pop(name) for name in ORIGIN if name in about}
    try:
        weights = load(lzma.decompress(packed[WEIGHTS]))
    except (lzma.LZMAError, EOFError, SafetensorError) as error:
        raise ValueError(f"{file} is damaged ({error}); install sae_tutorial again") from None
    weights = {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
    for name in [name for name in weights if name.endswith(SCALE)]:
        weights[name.removesuffix(SCALE)] = weights[name.removesuffix(SCALE)].float() * weights.pop(name)
    if TIED in weights:
        weights["W_enc"] = weights["W_dec"].T * weights.pop(TIED)
    sae = assemble(config_of(folder / CONFIG, **about), weights, file)
    vars(sae).update(origin)
    return sae
