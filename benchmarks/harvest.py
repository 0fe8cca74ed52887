"""How fast is a harvest, compared with nothing but the forward pass?

    python benchmarks/harvest.py [--model stories] [--layer 2] [--tokens 65536] [--repeats 9]

One repetition runs, in turn and in random order, on the same tokens:

    plain   the Hugging Face model as it comes (its default attention), forward to the end of the layer, nothing kept
    memory  ActivationStore.harvest of that layer's residual stream: forward, drop BOS, copy, measure mean and scale
    disk    the same to float32 shards with checksums, in an empty folder each time
    bridge  the TransformerBridge's own forward pass to the same hook, nothing kept: what the fused forward replaces

and the medians over the repetitions are compared. Writes benchmarks/results/harvest.json.
"""

import argparse
import copy
import datetime
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from sae_tutorial.activations import ActivationStore
from sae_tutorial.forward import read_hook
from sae_tutorial.language_model import STORIES, load_language_model

RESULTS = Path(__file__).parent / "results" / "harvest.json"
TARGET = 0.9


class LayerReached(Exception):
    pass


def hugging_face_model(name: str) -> torch.nn.Module:
    """The model itself; random weights where there are none, because speed does not depend on them."""
    from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

    if name == "gpt2-random":
        return AutoModelForCausalLM.from_config(GPT2Config()).eval()
    folder = STORIES if name == "stories" else Path(name)
    if not list(folder.glob("*.safetensors")):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def contenders(model: torch.nn.Module, layer: int, tokens: torch.Tensor, batch_size: int) -> dict:
    """Name -> a function that does the work once."""
    bridge = load_language_model(copy.deepcopy(model))
    hook_name = f"blocks.{layer}.hook_resid_post"
    batches = tokens.split(batch_size)

    def stop(*_: object) -> None:
        raise LayerReached

    model.transformer.h[layer].register_forward_hook(stop)

    def plain() -> None:
        with torch.inference_mode():
            for batch in batches:
                try:
                    model.transformer(batch, use_cache=False)
                except LayerReached:
                    pass

    def own_forward() -> None:
        with read_hook(bridge, hook_name, fused=False) as read:
            for batch in batches:
                read(batch)

    def harvest(cache_dir: str | None = None) -> ActivationStore:
        options = {"batch_size": batch_size, "bos_id": 0, "pad_id": None, "cache_dir": cache_dir, "progress": False}
        return ActivationStore.harvest(bridge, tokens, hook_name, **options)

    def to_disk() -> None:
        with tempfile.TemporaryDirectory() as folder:
            harvest(folder)

    return {"plain": plain, "memory": harvest, "disk": to_disk, "bridge": own_forward}


def machine() -> dict[str, str | int]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stories", help="stories, gpt2-random (full size), or a local folder")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--batch-size", type=int, default=16, help="rows per forward pass")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    described = machine()
    model = hugging_face_model(arguments.model)
    context = model.config.n_positions if arguments.model == "stories" else 256
    tokens = torch.randint(1, model.config.vocab_size, (arguments.tokens // context, context))
    tokens[:, 0] = 0
    runs = contenders(model, arguments.layer, tokens, arguments.batch_size)
    for run in runs.values():
        run()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    shuffled = random.Random(0)
    for _ in tqdm(range(arguments.repeats), desc="repetitions"):
        for name in shuffled.sample(list(runs), len(runs)):
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)

    speeds = {name: sorted(tokens.numel() / s for s in taken) for name, taken in seconds.items()}
    results = {
        name: {
            "tokens_per_second": round(statistics.median(speed)),
            "lowest": round(speed[0]),
            "highest": round(speed[-1]),
            # Paired within a repetition, so that a machine that slows down for a while slows both.
            "ratio_to_plain": round(statistics.median(p / s for p, s in zip(seconds["plain"], seconds[name])), 3),
        }
        for name, speed in speeds.items()
    }
    size = {"layers": model.config.n_layer, "d_model": model.config.n_embd, "context": context}
    report = {
        "question": "tokens per second of a harvest against the plain Hugging Face forward pass to the same layer",
        "model": {"name": arguments.model, **size},
        "hook": f"blocks.{arguments.layer}.hook_resid_post",
        "tokens": tokens.numel(),
        "repeats": arguments.repeats,
        "results": results,
        "target": f"memory and disk at least {TARGET} of plain",
        "met": min(results["memory"]["ratio_to_plain"], results["disk"]["ratio_to_plain"]) >= TARGET,
        "machine": described,
    }
    print(json.dumps(report, indent=2))
    if not arguments.no_write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
