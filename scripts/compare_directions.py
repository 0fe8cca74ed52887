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
import torch

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.course.reading_features import study
from sae_tutorial.course.reading_features.rivals import rivals
from sae_tutorial.course.results import COMPARED
from sae_tutorial.evaluation.explanations import materials
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
    with read_hook(model, hook_name) as read:
        acts_BD = torch.cat([read(rows)[:, 1:].flatten(0, 1) for rows in text[::2].split(16)])
    mlp = (hook_name.replace("hook_resid_post", "mlp.hook_post"), model.cfg.d_mlp)
    every: dict[str, Any] = {"SAE features": sae} | rivals(acts_BD, hook_name, mlp, args.features)
    for kind, directions in every.items():
        if kind in done:
            continue
        evidence = study.evidence_of(directions, model, text, keep_codes=True)
        drawn = study.drawn(evidence, args.features)
        found = materials(evidence, directions, model, drawn, n_random=args.random)
        explained = study.explained(found, words_of(model))
        row = {"kind": kind, "kinds": explained.kinds(), "positions": evidence.n_positions, "hook": hook_name}
        row |= {name: [getattr(one, name) for one in explained.scores] for name in ("simulation", "at_random")}
        kept_lines.add(kept, row)


if __name__ == "__main__":
    main()
