"""How fast is a harvest, compared with nothing but the forward pass?

    python benchmarks/harvest.py                                                     results/harvest.json (1 minute)
    python benchmarks/harvest.py --model smollm2 --layer 14 --tokens 32768     results/harvest-smollm2.json (15 minutes)

One round runs, in turn and in random order, on the same tokens:

    plain   the Hugging Face model as it comes (its default attention), forward to the end of the layer, nothing kept
    memory  ActivationStore.harvest of that layer's residual stream: forward, drop BOS, copy, measure mean and scale
    disk    the same to float32 shards with checksums, in an empty folder each time
    bridge  the TransformerBridge's own forward pass to the same hook, nothing kept: what the fused forward replaces
    bf16    memory, with the model in bfloat16 (not for the embedded model, whose width is too small to gain from it)

and the ratios of each round are compared.
"""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.activations.language_model import STORIES, load_language_model
from sae_tutorial.activations.smollm2 import smollm2_folder
from sae_tutorial.activations.store import ActivationStore

TARGET = {"stories": 0.9, "smollm2": 0.95}  # of the plain forward pass
BFLOAT16 = 1.5  # of the float32 harvest


class LayerReached(Exception):
    pass


def hugging_face_model(name: str) -> torch.nn.Module:
    """The model itself; random weights where there are none, because speed does not depend on them."""
    from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

    if name == "gpt2-random":
        return AutoModelForCausalLM.from_config(GPT2Config()).eval()
    folder = STORIES if name == "stories" else smollm2_folder() if name == "smollm2" else Path(name)
    if not list(folder.glob("*.safetensors")):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def contenders(
    name: str, model: torch.nn.Module, layer: int, tokens: torch.Tensor, batch_size: int, device: str
) -> dict:
    """Name -> a function that does the work once."""
    bridge = load_language_model(copy.deepcopy(model), device=device)
    half = None if name == "stories" else load_language_model(copy.deepcopy(model), device=device, dtype=torch.bfloat16)
    body = model.to(device).base_model
    hook_name = f"blocks.{layer}.hook_resid_post"
    batches = tokens.split(batch_size)

    def stop(*_: object) -> None:
        raise LayerReached

    blocks = body.h if hasattr(body, "h") else body.layers
    blocks[layer].register_forward_hook(stop)

    def plain() -> None:
        with torch.inference_mode():
            for batch in batches:
                try:
                    body(batch.to(device), use_cache=False)
                except LayerReached:
                    pass

    def own_forward() -> None:
        with read_hook(bridge, hook_name, fused=False) as read:
            for batch in batches:
                read(batch.to(device))

    def harvest(cache_dir: str | None = None, of: Any = bridge) -> ActivationStore:
        options = {"batch_size": batch_size, "bos_id": 0, "pad_id": None, "cache_dir": cache_dir, "progress": False}
        return ActivationStore.harvest(of, tokens, hook_name, **options)

    def to_disk() -> None:
        with tempfile.TemporaryDirectory() as folder:
            harvest(folder)

    ways = {"plain": plain, "memory": harvest, "disk": to_disk, "bridge": own_forward}
    return ways if half is None else ways | {"bf16": partial(harvest, of=half)}


def main() -> None:
    parser = common.parser(__doc__, rounds=9)
    parser.add_argument(
        "--model", default="stories", help="stories, smollm2, gpt2-random (full size), or a local folder"
    )
    parser.add_argument("--layer", type=lambda text: common.whole(text, least=0), default=2)
    parser.add_argument("--tokens", type=common.whole, default=65_536)
    parser.add_argument("--batch-size", type=common.whole, default=16, help="rows per forward pass")
    args = parser.parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    rounds, n_tokens = (2, 2048) if args.quick else (args.rounds, args.tokens)

    torch.manual_seed(0)
    model = hugging_face_model(args.model)
    context = 256
    tokens = torch.randint(1, model.config.vocab_size, (n_tokens // context, context))
    tokens[:, 0] = 0
    runs = contenders(args.model, model, args.layer, tokens, args.batch_size, device)
    for run in runs.values():
        run()  # warm up
    taken = common.take_turns({name: common.timed(run, device) for name, run in runs.items()}, rounds)

    rows, targets = [], []
    size = f"{args.model}: {model.config.num_hidden_layers} layers, width {model.config.hidden_size}"
    for name, times in taken.items():
        speed = common.spread([tokens.numel() / ms * 1000 for ms in times])
        of_plain = common.ratio(taken["plain"], times)
        rows.append([name, *(f"{speed[which]:,.0f}" for which in ("median", "low", "high")), of_plain["median"]])
        if name in ("memory", "disk"):
            what = f"harvest ({name}): its speed, of the plain forward pass"
            targets.append(common.target(what, size, of_plain, at_least=TARGET.get(args.model, 0.9), unit=""))
    if "bf16" in taken:
        what, gain = "harvest in bfloat16: its speed, of that in float32", common.ratio(taken["memory"], taken["bf16"])
        targets.append(common.target(what, size, gain, at_least=BFLOAT16, unit=""))
    columns = ["way", "tokens per second, median", "lowest", "highest", "of plain"]
    tables = [common.table(f"Harvest, {size}, {tokens.numel():,} tokens in rows of {context}", columns, rows)]
    question = "tokens per second of a harvest against the plain Hugging Face forward pass to the same layer"
    settings = {"rounds": rounds, "model": args.model, "layer": args.layer, "tokens": tokens.numel()}
    raw = {"milliseconds": taken}
    usual = args.model == "stories"
    variant = "" if usual else f"--model {Path(args.model).name} --layer {args.layer} --tokens {args.tokens}"
    told = {"settings": settings, "tables": tables, "targets": targets, "variant": variant}
    common.finish(args, "harvest", question, described, raw=raw, **told)


if __name__ == "__main__":
    main()
