"""How fast is evidence for all features of an SAE gathered, compared with nothing but the model's forward pass?

    python benchmarks/evidence.py                                     results/evidence.json (1 minute)
    python benchmarks/evidence.py --model smollm2 --tokens 16384      results/evidence-smollm2.json (10 minutes)

One round runs, in turn and in random order, on the same tokens:

    forward    the whole model, logits kept for no longer than a batch
    to hook    the forward pass that ends where the SAE reads
    evidence   `feature_evidence`: to the hook, encode, count, keep the strongest and a sample of every feature
"""

from __future__ import annotations

import common
import torch

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.forward import fused_forward, read_hook
from sae_tutorial.activations.memory import rows_per_pass
from sae_tutorial.evaluation.feature_evidence import feature_evidence


def main() -> None:
    parser = common.parser(__doc__, rounds=7)
    parser.add_argument("--model", choices=["stories", "smollm2"], default="stories")
    parser.add_argument("--tokens", type=common.whole, default=65_536)
    args = parser.parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    rounds, n_tokens = (2, 2048) if args.quick else (args.rounds, args.tokens)
    model = load_language_model(args.model, device=device)
    sae = reference_sae("mutual_choice", model=args.model).to(device)
    tokens = story_tokens(n_tokens, 256, seed=0, model=args.model)
    batches = tokens.split(rows_per_pass(device, 256))
    hook_name = str(sae.hook_name)

    def forward() -> None:
        with torch.inference_mode(), fused_forward(model):
            for batch in batches:
                model(batch.to(device))

    def to_hook() -> None:
        with read_hook(model, hook_name) as read:
            for batch in batches:
                read(batch)

    runs = {
        "forward": forward,
        "to hook": to_hook,
        "evidence": lambda: feature_evidence(sae, model, tokens, progress=False),
    }
    for run in runs.values():
        run()  # warm up
    taken = common.take_turns({name: common.timed(run, device) for name, run in runs.items()}, rounds)
    size = f"{args.model}: width {sae.config.d_in}, F={sae.config.d_sae:,}, {tokens.numel():,} tokens"
    rows = []
    for name, times in taken.items():
        speed = common.spread([tokens.numel() / ms * 1000 for ms in times])
        rows.append([name, *(f"{speed[which]:,.0f}" for which in ("median", "low", "high"))])
    of_forward, of_hook = (common.ratio(taken[name], taken["evidence"]) for name in ("forward", "to hook"))
    what = "evidence for all features: its speed, of the "
    targets = [
        common.target(what + "plain forward pass", size, of_forward, at_least=0.7, unit=""),
        common.target(what + "forward pass to the hook", size, of_hook, unit=""),
    ]
    tables = [common.table(f"Evidence, {size}", ["way", "tokens per second, median", "lowest", "highest"], rows)]
    question = "tokens per second of gathering evidence for all features against the forward pass alone"
    variant = "" if args.model == "stories" else f"--model {args.model} --tokens {args.tokens}"
    told = {"settings": {"rounds": rounds, "tokens": tokens.numel()}, "tables": tables, "targets": targets}
    common.finish(args, "evidence", question, described, raw={"milliseconds": taken}, **told, variant=variant)


if __name__ == "__main__":
    main()
