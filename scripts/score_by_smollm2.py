"""What explanations are worth to SmolLM2-135M-Instruct when it only reads: surprisal, embedding and intervention.

    python scripts/score_by_smollm2.py           one line for each feature, in the cache; goes on where it stopped
    python scripts/score_by_smollm2.py --ship    puts them into the package, for notebook 10

Features, text and explanations by statistics are those of `explain_by_smollm2.py`, and more of them. Each explanation
is scored beside that of the next feature, which is a control: on the same passages, and on the same texts that the
embedded model wrote with the feature switched on. Detection and fuzzing by the statistics themselves stand beside them.
A feature takes some 15 seconds on one core that has nothing else to do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import checksums
import kept_lines
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.course.reading_features.study import material_of_drawn
from sae_tutorial.course.results import SCORED
from sae_tutorial.evaluation.chat_judge import plain
from sae_tutorial.evaluation.explanations import (
    Material,
    Statistics,
    StatisticsJudge,
    detection,
    explain_by_statistics,
    fuzzing,
)
from sae_tutorial.evaluation.feature_pages import Words
from sae_tutorial.evaluation.model_scores import Embed, brought_to_mind, embedding, mean_stream, surprisals, written
from sae_tutorial.figures.feature_report import words_of

N_PROMPTS, LENGTH = 8, 17  # beginnings of stories, BOS and 16 tokens each: fewer, and the model cannot tell a story
STRENGTH, N_TOKENS = 1.0, 20
N_EXAMPLES = 2  # of the texts that were written, kept to be looked at


def beginnings() -> Int[Tensor, "prompts positions"]:
    """Of stories as the embedded model writes them; whole samples, because only those begin where a story does."""
    return story_tokens(256 * N_PROMPTS, 256)[:, :LENGTH]


def scores_of(
    told: dict[str, Statistics],
    material: Material,
    texts: tuple[list[str], list[str]],
    reader: Any,
    embed: Embed,
    words: Words,
) -> dict[str, dict[str, Any]]:
    """Of each explanation by its name; `texts` are those written with the feature off, and on."""
    explanations, judge = list(told.values()), StatisticsJudge()
    by_name = zip(
        told.items(), surprisals(explanations, material, reader, words), brought_to_mind(explanations, *texts, reader)
    )
    return {
        name: {
            "text": explanation.text,
            "surprisal": surprise,
            "embedding": embedding(explanation, material, embed, words),
            "intervention": brought,
            "detection": detection(explanation, material, judge),
            "fuzzing": fuzzing(explanation, material, judge),
        }
        for (name, explanation), surprise, brought in by_name
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--out", type=Path, default=cache_folder("model_scores"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / SCORED
    if args.ship:
        kept_lines.ship(kept)
        return checksums.record()
    done = kept_lines.done(kept, "feature")
    model, sae, reader = load_language_model("stories"), reference_sae("mutual_choice"), load_language_model("smollm2")
    materials = material_of_drawn(sae, model, story_tokens(90_000, 128, source="books"), args.features, n_random=10)
    words, prompts = words_of(model), beginnings()
    by_table = [explain_by_statistics(material, words) for material in materials]
    passages = [plain(material.shown[len(material.shown) // 2], words) for material in materials]
    embed = mean_stream(reader, [*passages, *(explanation.text for explanation in by_table)])
    for i, material in enumerate(tqdm(materials)):
        if material.feature in done:
            continue
        began = time.perf_counter()
        how: dict[str, Any] = {"largest": material.largest, "strength": STRENGTH, "n_tokens": N_TOKENS}
        clean, steered = written(material.feature, sae, model, prompts, **how)
        told = {"statistics": by_table[i], "another feature": by_table[(i + 1) % len(by_table)]}
        row: dict[str, Any] = {"feature": material.feature, "kind": by_table[i].kind}
        row |= {"n_active": len(material.active), "n_silent": len(material.silent)}
        row |= scores_of(told, material, (clean, steered), reader, embed, words)
        row |= {"clean": clean[:N_EXAMPLES], "steered": steered[:N_EXAMPLES]}
        kept_lines.add(kept, row | {"seconds": round(time.perf_counter() - began, 1)})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
