"""Are features of an SAE easier to explain than other directions? The comparison of notebook 10 on SmolLM2.

    python scripts/compare_directions.py           a line for each kind of direction, in the cache; goes on where it was
    python scripts/compare_directions.py --ship    puts them into the package, for notebook 10

Text, draw and scores are those of the notebook, which does this for the embedded model itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kept_lines

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.course.reading_features import study
from sae_tutorial.course.reading_features.rivals import as_rare_as, rivals
from sae_tutorial.course.results import COMPARED
from sae_tutorial.figures.feature_report import words_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=150)
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--out", type=Path, default=cache_folder("explanations"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / COMPARED
    if args.ship:
        return kept_lines.ship(kept)
    done = kept_lines.done(kept, "kind")
    model, sae = load_language_model("smollm2"), reference_sae("mutual_choice", model="smollm2")
    text = story_tokens(args.tokens, 128, seed=0, source="books", model="smollm2")
    hook_name = str(sae.hook_name)
    mlp_hook = hook_name.replace("hook_resid_post", "mlp.hook_post")
    acts = {hook: study.activations_at(model, hook, text[::2]) for hook in (hook_name, mlp_hook)}  # rows to explain by
    evidence = study.evidence_of(sae, model, text)
    densities = evidence.density[study.drawn(evidence, args.features)]
    dense = rivals(acts[hook_name], hook_name, (mlp_hook, model.cfg.d_mlp), args.features)
    rare = {f"{kind}, rare": as_rare_as(of, acts[of.hook_name], densities) for kind, of in dense.items()}
    every: dict[str, Any] = {"SAE features": sae} | dense | rare
    for kind, directions in every.items():
        if kind in done:
            continue
        explained = study.explained_directions(directions, model, text, words_of(model), args.features, args.random)
        row = {"kind": kind, "kinds": explained.kinds(), "positions": evidence.n_positions, "hook": hook_name}
        row |= {name: [getattr(one, name) for one in explained.scores] for name in ("simulation", "at_random")}
        kept_lines.add(kept, row)


if __name__ == "__main__":
    main()
