"""Some cells of the grid computed a second time, by other means: is what `quality.py` wrote down true?

    python benchmarks/quality_again.py [KEY ...]      by default one SAE each of Token, Mutual and Feature Choice

Shares nothing with the package but the text: the language model is Hugging Face's, the SAE is read from its file in
SAELens' format and computed densely in float32, losses are taken from logits row by row. Ends with an error if FVU, L0,
KL or CE loss differ from the grid's line by more than 0.1 %.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from quality import MEASURED, TOKENS
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from sae_tutorial import story_tokens
from sae_tutorial.activations.files import ASSETS, cache_folder
from sae_tutorial.autoencoder.shipped import HOOK

RULES = ("token_choice", "mutual_choice", "feature_choice_zipf")
KEYS = [f"stories-{rule}-x16-k32-seed0-1000x2048-lrbest" for rule in RULES]
ROWS = 16  # at a time


def codes_of(weights: dict[str, Tensor], k: int | None, x_BD: Tensor) -> Tensor:
    """Dense codes (tokens, features): the k strongest of each token, or all above the threshold of their feature."""
    z_BF = (x_BD - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    if k is None:
        return torch.where(z_BF > weights["threshold"], z_BF, 0.0)
    least_B1 = z_BF.topk(k, dim=1).values[:, -1:]
    return torch.where(z_BF >= least_B1, z_BF, 0.0).relu()


@torch.no_grad()
def measured_again(
    model: torch.nn.Module, block: int, weights: dict[str, Tensor], k: int | None, tokens: Tensor
) -> dict:
    """FVU, L0, KL and CE loss when the output of this block is replaced by its reconstruction, BOS left as it is."""
    seen: dict[str, Tensor] = {}

    def stream(output):
        """What SAEs read: the mean over coordinates taken off, which every LayerNorm takes off anyway."""
        x_RSD = output[0] if isinstance(output, tuple) else output
        return x_RSD - x_RSD.mean(-1, keepdim=True)

    def read(_module, _inputs, output):
        seen["x"] = stream(output)

    def splice(_module, _inputs, output):
        x_RSD = stream(output)
        codes_BF = codes_of(weights, k, x_RSD[:, 1:].flatten(0, 1))
        x_RSD[:, 1:] = (codes_BF @ weights["W_dec"] + weights["b_dec"]).view_as(x_RSD[:, 1:])
        seen["x_hat"], seen["l0"] = x_RSD, (codes_BF > 0).sum(1).double()
        return (x_RSD, *output[1:]) if isinstance(output, tuple) else x_RSD

    sums = dict.fromkeys(("error", "l0", "kl", "ce"), 0.0)
    every, layer = [], model.transformer.h[block]
    for rows in tokens.split(ROWS):
        with_hook = layer.register_forward_hook(read)
        clean = model(rows).logits.log_softmax(-1)
        with_hook.remove()
        x = seen["x"][:, 1:]
        with_hook = layer.register_forward_hook(splice)
        spliced = model(rows).logits.log_softmax(-1)
        with_hook.remove()
        sums["error"] += float((x - seen["x_hat"][:, 1:]).double().square().sum())
        sums["l0"] += float(seen["l0"].sum())
        sums["kl"] += float((clean.exp() * (clean - spliced))[:, 1:].double().sum())
        sums["ce"] -= float(spliced[:, 1:-1].gather(2, rows[:, 2:, None]).double().sum())
        every.append(x.flatten(0, 1))
    x_ND = torch.cat(every).double()
    spread = float((x_ND - x_ND.mean(0)).square().sum())
    predicted = len(tokens) * (tokens.shape[1] - 2)
    return {"fvu": sums["error"] / spread, "l0": sums["l0"] / len(x_ND), "kl": sums["kl"] / len(x_ND),
            "ce_spliced": sums["ce"] / predicted}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", default=KEYS, help="of lines of runs.jsonl about the embedded model")
    parser.add_argument("--out", type=Path, default=cache_folder("evidence"), help="the folder of quality.py")
    args = parser.parse_args()
    absent = [key for key in args.keys if not (args.out / "weights" / key).exists()]
    if absent:
        parser.error(f"{args.out / 'weights'} has no {', '.join(absent)}: give keys of runs that were trained here")
    lines = {row["key"]: row for row in map(json.loads, (args.out / "runs.jsonl").read_text().splitlines())}
    model = AutoModelForCausalLM.from_pretrained(ASSETS / "models" / "stories", dtype=torch.float32).eval()
    tokens = story_tokens(TOKENS["stories"], 256)[-MEASURED:]
    worst = 0.0
    for key in args.keys:
        weights = load_file(args.out / "weights" / key / "sae_weights.safetensors")
        config = json.loads((args.out / "weights" / key / "cfg.json").read_text())
        again = measured_again(model, int(HOOK.split(".")[1]), weights, config.get("k"), tokens)
        off = {name: value / lines[key][name] - 1 for name, value in again.items()}
        worst = max(worst, *map(abs, off.values()))
        print(key, {name: f"{value:.5f} ({off[name]:+.2%})" for name, value in again.items()}, flush=True)
    if worst > 0.001:
        raise SystemExit(f"they differ by up to {worst:.2%}")


if __name__ == "__main__":
    main()
