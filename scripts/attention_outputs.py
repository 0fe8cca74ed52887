"""SAEs on the outputs of attention layers, three seeds, two models: the rows of notebook 13.

    python scripts/attention_outputs.py           one line for each SAE, in the cache; goes on where it stopped
    python scripts/attention_outputs.py --ship    puts them into the package

Every layer of the embedded model, and one of SmolLM2 that has induction heads. Trained as in the notebook, read on rows
that none was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kept_lines

from sae_tutorial import (
    ActivationStore,
    SAEConfig,
    SparseAutoencoder,
    evaluate,
    load_language_model,
    story_tokens,
    train,
)
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.circuits.heads import prefix_induction
from sae_tutorial.circuits.ioi import ioi_sentences
from sae_tutorial.course.attention_outputs import study
from sae_tutorial.course.results import GATHERED

LAYERS = {"stories": (0, 1, 2, 3), "smollm2": (18,)}
K, D_SAE, STEPS, BATCH = 16, 2048, 400, 2048
TRAINED_ON, READ, SCORED = 1536, 256, 32  # rows of 256 tokens
COMPONENTS_OF = 65_536  # tokens
ORDER_IN = {"stories": (1,), "smollm2": ()}  # layers that are asked for the order of names
N_SENTENCES, PREFIXES, TOPS = 240, (1, 2, 3, 4, 6, 8, 10), (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=cache_folder("attention-outputs"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / GATHERED
    if args.ship:
        return kept_lines.ship(kept)
    for name in args.models:
        rows_of(name, range(args.seeds), kept, args.out)


def rows_of(name: str, seeds: range, kept: Path, cache: Path) -> None:
    model = load_language_model(name)
    tokens = story_tokens((TRAINED_ON + READ) * 256, 256, model=name)
    if f"{name}-heads" not in kept_lines.done(kept, "key"):
        scores = prefix_induction(model, PREFIXES).round(decimals=3).tolist()
        kept_lines.add(kept, {"key": f"{name}-heads", "model": name, "lengths": PREFIXES, "prefix": scores})
    for layer in LAYERS[name]:
        ends = ("", "-order") if layer in ORDER_IN[name] else ("",)
        keys = {seed: [f"{name}-{layer}-{seed}{end}" for end in ends] for seed in seeds}
        left = [seed for seed in seeds if not set(keys[seed]) <= set(kept_lines.done(kept, "key"))]
        if left:
            hook = f"blocks.{layer}.attn.hook_z"
            store = ActivationStore.harvest(model, tokens[:TRAINED_ON], hook, cache_dir=cache, progress=False)
            config = SAEConfig(store.d_in, D_SAE, k=K, rule="token_choice")
            for seed in left:
                sae = SparseAutoencoder(config, seed=seed)
                train(sae, store, steps=STEPS, batch_size=BATCH, seed=seed, progress=False)
                about, (key, *key_of_order) = {"model": name, "layer": layer, "seed": seed}, keys[seed]
                untrained = study.controls(sae, model.cfg.n_heads, seed)
                rows = store.rows(slice(COMPONENTS_OF)).float()
                untrained["principal components"] = study.principal_components(sae, rows)
                if key not in kept_lines.done(kept, "key"):
                    found = measured(sae, untrained, model, tokens[TRAINED_ON:], seed)
                    kept_lines.add(kept, {"key": key} | about | found)
                for one in set(key_of_order) - set(kept_lines.done(kept, "key")):
                    kept_lines.add(kept, {"key": one} | about | of_order(sae, untrained, model, seed))


def measured(
    sae: SparseAutoencoder, untrained: dict[str, SparseAutoencoder], model: Any, tokens: Any, seed: int
) -> dict[str, Any]:
    n_heads, scores = model.cfg.n_heads, evaluate(sae, model, tokens[:SCORED], str(sae.hook_name), progress=False)
    found: dict[str, Any] = {"fvu": scores.fvu, "l0": scores.l0, "recovered": scores.recovered, "dead": scores.dead}
    found["mean_recovered"] = scores.recovered_mean
    families, agreed = {}, {}
    for name, dictionary in {"SAE": sae, **untrained}.items():
        drawn = study.drawn_on(dictionary, model, tokens)
        families[name] = {"features": len(drawn.features), **drawn.of_families}
        agreed[name] = {str(n): study.one_family(drawn, dictionary, n_heads, n) for n in TOPS}
        if name == "SAE":
            found["writers"] = study.of_writers(model, sae, drawn.matches[: study.EACH * 100])
    sentences = ioi_sentences(model, N_SENTENCES, seed)
    found["roles"] = {role: study.drawn_from_roles(sae, model, sentences, role) for role in ("S2", "END")}
    return found | {"families": families, "one_family": agreed}


def of_order(sae: SparseAutoencoder, untrained: dict[str, SparseAutoencoder], model: Any, seed: int) -> dict[str, Any]:
    """How well one direction tells at S2 which name came first: of the SAE's codes, and of what nobody trained, whole
    and cut to the largest of each token. "same": on other sentences of the same patterns; "new": on each pattern,
    chosen on the others."""
    sentences = ioi_sentences(model, N_SENTENCES, seed)
    io_first = sentences.positions["IO"] < sentences.positions["S1"]
    z, codes = study.codes_at(sae, model, sentences, "S2")
    read = {"feature": codes}
    for name, other in untrained.items():
        read[name] = z @ other.W_enc.detach()
        read[f"{name}, cut"] = other.encode(z).to_dense()
    patterns = study.patterns_of(sentences)
    same = {name: study.order_told(values, io_first, seed) for name, values in read.items()}
    new = {name: study.order_told_in_new_words(values, io_first, patterns) for name, values in read.items()}
    return {"order": {"same": same, "new": new}}


if __name__ == "__main__":
    main()
